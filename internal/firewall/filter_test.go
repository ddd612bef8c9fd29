package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// filtered is UDP port 8080 of the first LAN host, for remote hosts ("": any) and a
// remote port (0: any), for an hour.
func filtered(external uint16, remote string, port uint16) portmap.Mapping {
	m := leased(game, time.Hour)
	m.ExternalPort, m.RemotePort, m.Origin = external, port, portmap.PCP
	if remote != "" {
		p := netip.MustParsePrefix(remote)
		if m.RemoteHost = p.Addr(); !p.IsSingleIP() {
			m.RemoteBits = uint8(p.Bits())
		}
	}
	return m
}

// TestFilter: who gets through a mapping with a filter (SPEC MAP-13), counted and
// renewed; and what came in ends with it, or when the filter shuts it out.
func TestFilter(t *testing.T) {
	flowsLab(t, func(t *testing.T, l *lab.Lab, f backend) {
		l.Internet.Run(t, "sh", "-ec", "ip addr add 11.0.0.9/24 dev eth0; ip addr add 11.0.0.130/24 dev eth0")
		peers := map[string]peer{}
		for _, from := range []string{"11.0.0.1:4000", "11.0.0.1:4001", "11.0.0.9:4000", "11.0.0.9:4001", "11.0.0.130:4000", "11.0.0.130:4001"} {
			peers[from] = newPeer(t, l.Internet, from)
		}
		open, k := filtered(18080, "", 0), newTracker(t, l)
		tracked := func() bool {
			for c := range k.list() {
				if c.dst.Port() == 18080 {
					return true
				}
			}
			return false
		}
		for _, tt := range []struct {
			name string
			m    portmap.Mapping
			lets []string
		}{
			{"a prefix", filtered(18080, "11.0.0.0/28", 0), []string{"11.0.0.1:4000", "11.0.0.1:4001", "11.0.0.9:4000", "11.0.0.9:4001"}},
			{"another prefix", filtered(18080, "11.0.0.128/25", 0), []string{"11.0.0.130:4000", "11.0.0.130:4001"}},
			{"a prefix and a port", filtered(18080, "11.0.0.0/28", 4000), []string{"11.0.0.1:4000", "11.0.0.9:4000"}},
			{"a port", filtered(18080, "", 4001), []string{"11.0.0.1:4001", "11.0.0.9:4001", "11.0.0.130:4001"}},
			{"a host and a port", filtered(18080, "11.0.0.9/32", 4001), []string{"11.0.0.9:4001"}},
			{"half of the internet", filtered(18080, "128.0.0.0/1", 0), nil},
		} {
			t.Run(tt.name, func(t *testing.T) {
				check := func(when string) {
					t.Helper()
					for from, p := range peers {
						want := slices.Contains(tt.lets, from)
						until(t, fmt.Sprintf("%s, from %s: %v", when, from, want), func() bool { return (p.ask("11.0.0.2:18080") != "") == want })
					}
				}
				on(t, l, func() error { return f.Change(nil, &open) })
				for from, p := range peers {
					until(t, "without a filter, from "+from, func() bool { return p.ask("11.0.0.2:18080") != "" })
				}
				on(t, l, func() error { return f.Change([]portmap.Mapping{open}, &tt.m) })
				until(t, "what came in before ends", func() bool { return !tracked() })
				agrees(t, l, f)
				check("filtered")
				n := uint64(len(tt.lets))
				counted(t, l, f, tt.m, n)
				renewed := tt.m
				renewed.Deadline += time.Minute
				on(t, l, func() error { return f.Change([]portmap.Mapping{tt.m}, &renewed) })
				counted(t, l, f, tt.m, n)
				renewed.Deadline += time.Minute
				on(t, l, func() error { return f.Sync(home, []portmap.Mapping{renewed}) })
				agrees(t, l, f)
				check("renewed and synced")
				counted(t, l, f, tt.m, n)
				on(t, l, func() error { return f.Change([]portmap.Mapping{renewed}, nil) })
				tt.lets = nil
				check("removed")
			})
		}
		on(t, l, f.Close)
	})
}

// TestFilterRuleset: the elements as text; single changes make what Sync makes, in
// whatever order, and take it away.
func TestFilterRuleset(t *testing.T) {
	l := lab.Start(t)
	f := openNFT6(t, l)
	set, pins := filtered(20000, "", 0), pinhole("", 0)
	set.InternalPort, set.Ports = 30000, 3
	pins.ExternalPort, pins.InternalPort, pins.Ports = 9000, 9000, 2
	netSet := filtered(18095, "10.0.0.0/8", 4000)
	netSet.Ports = 2
	all := []portmap.Mapping{
		set, pins, netSet, filtered(18090, "11.0.0.0/28", 0), filtered(18091, "", 4000), filtered(18092, "11.0.0.9/32", 4000),
		netPin("2001:db8:ff::/48", 0), netPin("2001:db8:fe::/47", 4000),
	}
	all[len(all)-1].ExternalPort, all[len(all)-1].InternalPort = 8081, 8081
	on(t, l, func() error { return f.Sync(home6, nil) })
	empty := nftRuleset(t, l)
	for i := range all {
		on(t, l, func() error { return f.Change(nil, &all[i]) })
	}
	sorted := func() string { // the order of elements is the kernel's
		lines := strings.FieldsFunc(nftRuleset(t, l), func(r rune) bool { return r == '\n' })
		for i, line := range lines {
			if strings.Contains(line, "elements = {") || strings.HasSuffix(line, ",") || strings.HasSuffix(line, " }") {
				lines[i] = strings.Trim(strings.TrimPrefix(strings.TrimSpace(line), "elements = "), "{}, ")
			}
		}
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	once := sorted()
	for _, element := range []string{
		"11.0.0.0/28 . 0-65535 . udp . 18090 counter", "0.0.0.0/0 . 4000 . udp . 18091 counter", "11.0.0.9 . 4000 . udp . 18092 counter",
		"10.0.0.0/8 . 4000 . udp . 18096 counter",
		"2001:db8:ff::/48 . 0-65535 . udp . 2001:db8:77::10 . 8080 counter", "2001:db8:fe::/47 . 4000 . udp . 2001:db8:77::10 . 8081 counter",
		"udp . 2001:db8:77::10 . 9001 counter",
		"udp . 20002 counter",
	} {
		if !strings.Contains(once, element) {
			t.Errorf("%q is missing in\n%s", element, once)
		}
	}
	on(t, l, func() error { return f.Sync(home6, nil) })
	if got := nftRuleset(t, l); got != empty {
		t.Errorf("emptied:\n%s\nwant\n%s", got, empty)
	}
	for range 2 {
		on(t, l, func() error { return f.Sync(home6, all) })
		if got := sorted(); got != once {
			t.Errorf("Sync made\n%s\nchanges made\n%s", got, once)
		}
	}
	narrow, wide := filtered(18090, "11.0.0.0/30", 0), filtered(18090, "11.0.0.0/24", 0)
	for _, step := range [][2]portmap.Mapping{{all[3], narrow}, {narrow, wide}, {wide, all[3]}} { // one within the other
		on(t, l, func() error { return f.Change(step[:1], &step[1]) })
		agrees(t, l, f)
	}
	on(t, l, func() error { return f.Change(all, nil) })
	if got := nftRuleset(t, l); got != empty {
		t.Errorf("removed:\n%s\nwant\n%s", got, empty)
	}
	on(t, l, f.Close)
}

// TestNFTFilterExpiry: the kernel ends what has a filter, and a PORT_SET, by
// itself; and the port can be mapped again, though the kernel may have the old
// element still.
func TestNFTFilterExpiry(t *testing.T) {
	l := lab.Start(t)
	if _, err := l.LAN1.EchoUDP(8080); err != nil {
		t.Fatal(err)
	}
	f := openNFT(t, l)
	all := []portmap.Mapping{filtered(18080, "11.0.0.0/28", 0), filtered(18090, "", 0)}
	all[1].Ports = 8
	for i := range all {
		all[i] = leased(all[i], time.Second-grace) // the grace is as long
	}
	port := 5000
	passes := func(to uint16) bool { // each as a connection of its own
		port++
		p := newPeer(t, l.Internet, fmt.Sprintf("11.0.0.1:%d", port))
		defer p.Close()
		return p.ask(fmt.Sprintf("11.0.0.2:%d", to)) != ""
	}
	for range 2 {
		on(t, l, func() error { return f.Sync(home, all) })
		for _, m := range all {
			if !passes(m.ExternalPort) {
				t.Errorf("port %d does not work", m.ExternalPort)
			}
		}
		for _, m := range all {
			until(t, "it is closed", func() bool { return !passes(m.ExternalPort) })
		}
		for _, set := range f.sets() {
			if left, err := f.readSet(set); err != nil || len(left) != 0 {
				t.Errorf("%d elements are left in %s (%v)", len(left), set, err)
			}
		}
		for i := range all {
			all[i] = leased(all[i], time.Second-grace)
		}
	}
	on(t, l, f.Close)
}

// TestNFTIntervalsComeBack: sets of intervals of another make are replaced, and
// not done without.
func TestNFTIntervalsComeBack(t *testing.T) {
	l := lab.Start(t)
	for _, table := range []string{
		"map dnat4net { type ipv4_addr : verdict; }",
		"map dnat4net { type ipv4_addr . inet_service . inet_proto . inet_service : ipv4_addr . inet_service; flags timeout; }",
		"set pin6net { type ipv6_addr . inet_service . inet_proto . ipv6_addr . inet_service; flags timeout; }",
		"set pin6net { type ipv6_addr; }",
	} {
		l.Router.Run(t, "nft", "table inet upnpd { "+table+"; }")
		f := openNFT6(t, l)
		all := []portmap.Mapping{filtered(18090, "11.0.0.0/24", 0), netPin("2001:db8:ff::/48", 0)}
		on(t, l, func() error { return f.Sync(home6, all) })
		agrees(t, l, f)
		on(t, l, f.Close)
	}
}

// TestEntryIntervals: what is read of the elements of intervals.
func TestEntryIntervals(t *testing.T) {
	for _, m := range []portmap.Mapping{
		filtered(1, "11.0.0.0/28", 0), filtered(1, "11.0.0.0/28", 9), filtered(1, "", 9), filtered(1, "11.0.0.9/32", 9),
		filtered(65535, "128.0.0.0/1", 0), filtered(1, "11.0.0.8/31", 0), netPin("2001:db8:ff::/48", 0), netPin("2001:db8:fe::/47", 9),
		netPin("8000::/1", 0), netPin("2001:db8::2/127", 0),
	} {
		e := way(m)
		got, ok := e.entry(0).mapped(home.External.AsSlice())
		if m.Pinhole.IsValid() {
			got, ok = e.entry(0).pinhole()
		}
		if want := newMapped(home.External, &m); !ok || got != want || got.key() != m.Key || !intervals(e.set) {
			t.Errorf("%v: got %v %v, want %v", m.Remote(), got, ok, want)
		}
	}
	short := way(filtered(1, "", 9)).entry(0)
	short.last = short.last[:8]
	if got, ok := short.mapped(home.External.AsSlice()); ok {
		t.Errorf("half an interval: %v", got)
	}
}

// TestFilterEnds: what ends with a mapping or pinhole that has a prefix is what came
// from there; another pinhole may let in others.
func TestFilterEnds(t *testing.T) {
	net4, port4, net6 := filtered(18080, "11.0.0.0/28", 0), filtered(18080, "", 4000), netPin("2001:db8:ff::/125", 4000)
	in := func(from string) flow {
		return between(portmap.UDP, from, "11.0.0.2:18080", "192.168.77.10:8080", from)
	}
	in6 := func(from string) flow {
		return between(portmap.UDP, from, "["+client6+"]:8080", "["+client6+"]:8080", from)
	}
	for _, tt := range []struct {
		m    *portmap.Mapping
		c    flow
		want bool
	}{
		{&net4, in("11.0.0.15:1"), true},
		{&net4, in("11.0.0.16:1"), false},
		{&port4, in("11.0.0.16:4000"), true},
		{&port4, in("11.0.0.16:4001"), false},
		{&net6, in6("[2001:db8:ff::7]:4000"), true},
		{&net6, in6("[2001:db8:ff::7]:4001"), false},
		{&net6, in6("[2001:db8:ff::8]:4000"), false},
	} {
		batch := []change{{newMapped(home.External, tt.m), false}}
		if got := newMatcher(batch).wants(tt.c); got != tt.want {
			t.Errorf("%v: %v ends: %v, want %v", tt.m, tt.c.orig, got, tt.want)
		}
		if !filters(batch)[0].has(tt.c.orig) && tt.want {
			t.Errorf("%v: the dump does not show %v", tt.m, tt.c.orig)
		}
	}
}
