package firewall

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

var home6 = portmap.Network{External: home.External, LANs: append(slices.Clone(home.LANs), prefix("2001:db8:77::1/64"))}

// pinhole is UDP port 8080 of a LAN host, for an hour; "" and 0: any remote.
func pinhole(remote string, port uint16) portmap.Mapping {
	m := portmap.Mapping{
		Key:    portmap.Key{Protocol: portmap.UDP, ExternalPort: 8080, Pinhole: addr(client6), RemotePort: port},
		Client: addr(client6), InternalPort: 8080, Enabled: true, ID: 1,
	}
	if remote != "" {
		m.RemoteHost = addr(remote)
	}
	return leased(m, time.Hour)
}

// openNFT6 is openNFT with pinholes.
func openNFT6(t *testing.T, l *lab.Lab) *NFTables {
	t.Helper()
	var f *NFTables
	on(t, l, func() (err error) {
		if f, err = NewNFTables(lab.WANDev, portmap.BootTime, t.Logf); err != nil {
			return err
		}
		f.IPv6 = true
		return f.Start()
	})
	t.Cleanup(func() { f.inForce.flows.Close(); f.disconnect() }) // of a run that is not closed
	return f
}

// wildcards are the four kinds of pinholes to one port.
func wildcards() []portmap.Mapping {
	return []portmap.Mapping{pinhole("", 0), pinhole(remote6, 0), pinhole("", 4000), pinhole(remote6, 4000)}
}

// TestPinholeRuleset: the whole table as text; single changes make what Sync makes;
// and without IPv6 nothing of it is left, whoever put it there.
func TestPinholeRuleset(t *testing.T) {
	l := lab.Start(t)
	f := openNFT6(t, l)
	week := leased(web, 604800*time.Second)
	all := append([]portmap.Mapping{week, only(week, "11.0.0.9")}, wildcards()...)
	on(t, l, func() error { return f.Sync(home6, all) })
	once := nftRuleset(t, l)
	golden(t, "pinholes.nft", once)
	on(t, l, func() error { return f.Sync(home6, nil) })
	for i := range all {
		on(t, l, func() error { return f.Change(nil, &all[i]) })
	}
	if got := nftRuleset(t, l); got != once {
		t.Errorf("changes made\n%s\nSync made\n%s", got, once)
	}
	if len(f.state.sources) != 1 {
		t.Errorf("sources of pinholes: %v", f.state.sources)
	}

	without := openNFT(t, l)
	t.Cleanup(func() { without.inForce.flows.Close(); without.disconnect() })
	if n := len(without.inForce.mapped); n != 6 {
		t.Errorf("took over %d mappings, want 6", n)
	}
	for range 2 {
		on(t, l, func() error { return without.Sync(home6, all) })
		golden(t, "upnpd.nft", nftRuleset(t, l))
	}
	if n := len(without.inForce.mapped); n != 2 {
		t.Errorf("%d mappings are in force, want 2", n)
	}
	if err := without.Change(nil, &all[2]); err == nil || !strings.Contains(err.Error(), "IPv6") {
		t.Errorf("a pinhole without IPv6: %v", err)
	}
	on(t, l, without.Close)
}

// TestPinholeOtherLayout: a table of our name that is built otherwise is replaced,
// with IPv6 and without.
func TestPinholeOtherLayout(t *testing.T) {
	l := lab.Start(t)
	week := leased(web, 604800*time.Second)
	all := append([]portmap.Mapping{week, only(week, "11.0.0.9")}, wildcards()...)
	for _, table := range []string{
		"set pin6 { type ipv6_addr; }",
		"set pin6both { type ipv6_addr . inet_proto; flags timeout; }",
		"map pin6 { type inet_proto . ipv6_addr . inet_service : verdict; }",
		"chain forward { type filter hook input priority 0; }",
		"chain forward { accept; }",
	} {
		for _, ipv6 := range []bool{true, false} {
			l.Router.Run(t, "nft", "table inet upnpd { "+table+"; }")
			f := openNFT6(t, l)
			f.IPv6 = ipv6
			on(t, l, func() error { return f.Sync(home6, all) })
			golden(t, map[bool]string{true: "pinholes.nft", false: "upnpd.nft"}[ipv6], nftRuleset(t, l))
			on(t, l, f.Close)
		}
	}
}

// TestPinholesOverlap: pinholes to one port are there side by side, in whatever
// order they come and go (issue 6, point 4: several remote wildcards).
func TestPinholesOverlap(t *testing.T) {
	l := lab.Start(t)
	f := openNFT6(t, l)
	on(t, l, func() error { return f.Sync(home6, nil) })
	all := wildcards()
	for i := range 24 { // their permutations
		for j, n := 0, i; j < 3; j++ {
			k := j + n%(4-j)
			n /= 4 - j
			all[j], all[k] = all[k], all[j]
		}
		for k := range all {
			on(t, l, func() error { return f.Change(nil, &all[k]) })
			on(t, l, func() error { return f.Change([]portmap.Mapping{all[k]}, &all[k]) })
		}
		on(t, l, func() error {
			said, err := f.Verify()
			if said != "" {
				t.Errorf("%d: %s", i, said)
			}
			return err
		})
		for k := range all {
			on(t, l, func() error { return f.Change(all[k:k+1], nil) })
		}
	}
	for _, set := range pinNames {
		if left, err := f.readSet(set); err != nil || len(left) != 0 {
			t.Errorf("%d elements are left in %s (%v)", len(left), set, err)
		}
	}
}

// TestManyPinholes: a thousand come in one transaction, do not make one slower, and
// go in one.
func TestManyPinholes(t *testing.T) {
	l := lab6(t)
	echo6(t, l.LAN1, "["+client6+"]:8080")
	f := openNFT6(t, l)
	one := pinhole("", 0)
	p := udp6(t, l.Internet, "["+remote6+"]:4000")
	median := func(do func()) time.Duration {
		var all []time.Duration
		for range 201 {
			start := time.Now()
			do()
			all = append(all, time.Since(start))
		}
		slices.Sort(all)
		return all[100]
	}
	measure := func() (change, packet time.Duration) {
		change = median(func() {
			on(t, l, func() error { return f.Change([]portmap.Mapping{one}, &one) })
		})
		packet = median(func() {
			if _, err := p.WriteToUDPAddrPort([]byte{0}, ap("["+client6+"]:8080")); err != nil {
				t.Fatal(err)
			}
			p.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := p.Read(make([]byte, 9)); err != nil {
				t.Fatal(err)
			}
		})
		return change, packet
	}
	on(t, l, func() error { return f.Sync(home6, []portmap.Mapping{one}) })
	until(t, "the pinhole works", func() bool { return p.ask("["+client6+"]:8080") != "" }) // neighbours are found, too
	change, packet := measure()
	var many []portmap.Mapping
	for i := range 1000 {
		m := pinhole([]string{"", remote6}[i%2], uint16(i/2%2*4000))
		m.Pinhole = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 0x77, 14: byte(1 + i/250), 15: byte(i % 250)})
		m.Client = m.Pinhole
		many = append(many, m)
	}
	on(t, l, func() error { return f.Sync(home6, append(many, one)) })
	change2, packet2 := measure()
	t.Logf("a renewal takes %v, with 1000 others %v; there and back %v and %v", change, change2, packet, packet2)
	if change2 > 3*change || packet2 > 3*packet {
		t.Error("a thousand others make it slower")
	}
	on(t, l, func() error { return f.Change(many, nil) })
	if n := len(f.state.active); n != 1 {
		t.Errorf("%d are left", n)
	}
	on(t, l, f.Close)
}

// TestEntryPinhole: what is read of the elements that an earlier run left.
func TestEntryPinhole(t *testing.T) {
	for _, m := range wildcards() {
		e := way(m)
		want := newMapped(home.External, &m)
		if got, ok := e.entry(0).pinhole(); !ok || got != want || e.value() != nil {
			t.Errorf("%s: got %v %v, want %v", e.set, got, ok, want)
		}
		if _, ok := e.entry(0).mapped(home.External.AsSlice()); ok {
			t.Errorf("%s: read as a mapping", e.set)
		}
	}
	for _, n := range []int{0, 8, 12, 16, 20, 36, 45} {
		if got, ok := (entry{key: make([]byte, n)}).pinhole(); ok {
			t.Errorf("a key of %d bytes: %v", n, got)
		}
	}
	four := pinhole("", 0)
	four.RemoteHost = addr("11.0.0.1")
	s := newElements()
	if c := s.change(home6, nil, &four); !c.empty() {
		t.Errorf("a pinhole for an IPv4 host: %v", c.come)
	}
}

// netPin is pinhole for a prefix of remote hosts.
func netPin(remote string, port uint16) portmap.Mapping {
	p := prefix(remote)
	m := pinhole(p.Addr().String(), port)
	m.RemoteBits, m.Origin = uint8(p.Bits()), portmap.PCP
	return m
}
