package firewall

import (
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestOrphans: when leases ended while no run was there, the next one ends their
// connections, and no others (SPEC WIP-13, PIN-10).
func TestOrphans(t *testing.T) {
	l := lab6(t)
	l.Router.Run(t, "nft", "add rule inet router forward ct status dnat accept")
	for _, h := range []*lab.Host{l.LAN1, l.LAN2} {
		if _, err := h.EchoUDP(8080); err != nil {
			t.Fatal(err)
		}
	}
	echo6(t, l.LAN1, "["+client6+"]:8080")
	echo6(t, l.LAN1, "["+client6+"]:8081")
	echo6(t, l.Internet, "["+remote6+"]:53")

	brief := func(m portmap.Mapping, port uint16) portmap.Mapping {
		m.ExternalPort = port
		return leased(m, 2*time.Second-grace) // the grace is as long
	}
	filter, pin := filtered(18083, "11.0.0.0/24", 0), pinhole("", 0)
	filter.InternalPort = 8080
	other := leased(game, time.Hour)
	other.Client, other.ExternalPort = addr("192.168.77.20"), 18081
	pinKept := pinhole("", 0)
	pinKept.ExternalPort, pinKept.InternalPort = 8081, 8081
	kept := []portmap.Mapping{other, filtered(18084, "11.0.0.0/24", 0), pinKept}
	ending := []portmap.Mapping{brief(game, 18080), brief(filter, 18083), leased(pin, 2*time.Second-grace)}

	killed := openNFT6(t, l)
	on(t, l, func() error { return killed.Sync(home6, append(ending, kept...)) })
	four, six := newPeer(t, l.Internet, "11.0.0.1:4000"), udp6(t, l.Internet, "["+remote6+"]:4000")
	k, orphans, others := newTracker(t, l), []tuple{}, []tuple{}
	for _, m := range append(ending, kept...) {
		to, p, from := newMapped(home.External, &m).external, four, "11.0.0.1:4000"
		if m.Pinhole.IsValid() {
			p, from = six, "["+remote6+"]:4000"
		}
		until(t, m.String()+" works", func() bool { return p.ask(to.String()) != "" })
		c := tuple{17, ap(from), to}
		if m.Deadline < portmap.BootTime() {
			orphans = append(orphans, c)
		} else {
			others = append(others, c)
		}
	}
	out4, out6 := newPeer(t, l.LAN1, "192.168.77.10:9000"), udp6(t, l.LAN1, "["+client6+"]:9000")
	if out4.ask("11.0.0.1:7777"); out6.ask("["+remote6+"]:53") == "" { // no masquerading, no answer
		t.Fatal("nothing comes out")
	}
	others = append(others, tuple{17, ap("192.168.77.10:9000"), ap("11.0.0.1:7777")}, tuple{17, ap("[" + client6 + "]:9000"), ap("[" + remote6 + "]:53")})
	killed.inForce.flows.Close()
	for _, set := range []string{dnat4, dnat4net, pin6} {
		until(t, "the kernel ends the leases in "+set, func() bool {
			left, err := killed.readSet(set)
			return err == nil && len(left) == 1
		})
	}
	k.tracked(true, append(orphans, others...), "the leases have ended")
	if len(orphans) != 3 || len(others) != 5 {
		t.Fatalf("%d orphans, %d others", len(orphans), len(others))
	}
	f := openNFT6(t, l)
	k.tracked(true, append(orphans, others...), "before the first Sync")
	on(t, l, func() error { return f.Sync(home6, kept) })
	k.tracked(false, orphans, "after it")
	k.tracked(true, others, "after it")
	on(t, l, f.Close)
}

// tracked checks which connections are tracked.
func (k tracker) tracked(want bool, all []tuple, when string) {
	k.t.Helper()
	have := k.list()
	for _, c := range all {
		if have[c] != want {
			k.t.Errorf("%s: %v is tracked: %v", when, c, !want)
		}
	}
}
