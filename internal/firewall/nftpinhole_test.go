package firewall

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

const (
	client6, other6 = "2001:db8:77::10", "2001:db8:77::11" // lan1 and lan2
	remote6, peer6  = "2001:db8:ff::1", "2001:db8:ff::9"   // the internet host has both
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

// lab6 is a lab with IPv6, whose router lets in only what has our mark.
func lab6(t *testing.T) *lab.Lab {
	t.Helper()
	l := lab.Start(t)
	for _, at := range []struct {
		host   *lab.Host
		script string
	}{
		{l.Router, "ip -6 addr replace 2001:db8:77::1/64 dev br-lan nodad; ip -6 addr replace 2001:db8:ff::2/64 dev wan0 nodad; sysctl -qw net.ipv6.conf.all.forwarding=1"},
		{l.LAN1, "ip -6 addr replace 2001:db8:77::10/64 dev eth0 nodad; ip -6 route replace default via 2001:db8:77::1"},
		{l.LAN2, "ip -6 addr replace 2001:db8:77::11/64 dev eth0 nodad; ip -6 route replace default via 2001:db8:77::1"},
		{l.Internet, "ip -6 addr replace 2001:db8:ff::1/64 dev eth0 nodad; ip -6 addr replace 2001:db8:ff::9/64 dev eth0 nodad; ip -6 route replace 2001:db8:77::/64 via 2001:db8:ff::2"},
	} {
		at.host.Run(t, "sh", "-ec", at.script)
	}
	for _, h := range []*lab.Host{l.Router, l.LAN1, l.LAN2, l.Internet} {
		until(t, "addresses are found to be alone", func() bool { return h.Run(t, "ip", "-6", "addr", "show", "tentative") == "" })
	}
	l.Router.Run(t, "nft", "table inet router { chain forward { type filter hook forward priority 0; policy drop; "+
		"ct state established,related accept; iifname br-lan oifname wan0 accept; "+
		"meta nfproto ipv6 ct mark & 0x10000000 == 0x10000000 accept; }; }")
	return l
}

// udp6 is a socket of a host.
func udp6(t *testing.T, h *lab.Host, local string) peer {
	t.Helper()
	var c *net.UDPConn
	if err := h.Do(func() (err error) {
		c, err = net.ListenUDP("udp6", net.UDPAddrFromAddrPort(ap(local)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return peer{c, t}
}

// echo6 answers on a host's port.
func echo6(t *testing.T, h *lab.Host, local string) {
	t.Helper()
	c := udp6(t, h, local).UDPConn
	go func() {
		for buf := make([]byte, 1); ; {
			_, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort([]byte(h.Name), from)
		}
	}()
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

// TestPinhole: what a pinhole lets in, and nothing else comes in; it counts every
// packet of that; and it ends what came in.
func TestPinhole(t *testing.T) {
	l := lab6(t)
	echo6(t, l.LAN1, "["+client6+"]:8080")
	echo6(t, l.LAN1, "["+client6+"]:8081")
	echo6(t, l.LAN2, "["+other6+"]:8080")
	echo6(t, l.Internet, "["+remote6+"]:53")
	f := openNFT6(t, l)
	on(t, l, func() error { return f.Sync(home6, nil) })
	peers := map[string]peer{ // by what it has of remote6 and port 4000
		"both": udp6(t, l.Internet, "["+remote6+"]:4000"), "host": udp6(t, l.Internet, "["+remote6+"]:4001"),
		"port": udp6(t, l.Internet, "["+peer6+"]:4000"), "none": udp6(t, l.Internet, "["+peer6+"]:4001"),
	}
	to, k := "["+client6+"]:8080", newTracker(t, l)
	lan1 := udp6(t, l.LAN1, "["+client6+"]:9")
	for kind, tt := range map[string]struct {
		m    portmap.Mapping
		lets []string
	}{
		"any":  {pinhole("", 0), []string{"both", "host", "port", "none"}},
		"host": {pinhole(remote6, 0), []string{"both", "host"}},
		"port": {pinhole("", 4000), []string{"both", "port"}},
		"both": {pinhole(remote6, 4000), []string{"both"}},
	} {
		t.Run(kind, func(t *testing.T) {
			for name, p := range peers {
				if got := p.ask(to); got != "" {
					t.Errorf("%s: an answer without a pinhole: %q", name, got)
				}
			}
			on(t, l, func() error { return f.Change(nil, &tt.m) })
			packets := uint64(0)
			for name, p := range peers {
				for range 2 {
					if want := slices.Contains(tt.lets, name); (p.ask(to) == "lan1") != want {
						t.Errorf("%s passes: %v, want %v", name, !want, want)
					} else if want {
						packets++
					}
				}
				for _, wrong := range []string{"[" + client6 + "]:8081", "[" + other6 + "]:8080"} {
					if p.ask(wrong) != "" {
						t.Errorf("%s reaches %s", name, wrong)
					}
				}
			}
			if lan1.ask("["+remote6+"]:53") != "internet" {
				t.Error("nothing comes out")
			}
			renewed := tt.m
			renewed.Deadline += time.Minute
			on(t, l, func() error { return f.Change([]portmap.Mapping{tt.m}, &renewed) })
			on(t, l, func() error { // SPEC PIN-7
				all, err := f.Packets()
				if all[tt.m.Key] != packets {
					t.Errorf("%d packets counted, want %d", all[tt.m.Key], packets)
				}
				return err
			})
			on(t, l, func() error { return f.Change([]portmap.Mapping{renewed}, nil) })
			until(t, "what came in is gone", func() bool { // a late answer would begin it anew, outward
				for c := range k.list() {
					if c.dst == ap(to) {
						return false
					}
				}
				return true
			})
		})
	}
	on(t, l, f.Close)
}

// TestPinholeConnections: what came in ends with the pinhole, in whatever way that
// ends; what the client began from the same port goes on, and is not marked.
func TestPinholeConnections(t *testing.T) {
	l := lab6(t)
	echo6(t, l.Internet, "["+remote6+"]:53")
	out := udp6(t, l.LAN1, "["+client6+"]:8080")
	in := udp6(t, l.Internet, "["+peer6+"]:4000")
	f := openNFT6(t, l)
	k := newTracker(t, l)
	inward := tuple{17, ap("[" + peer6 + "]:4000"), ap("[" + client6 + "]:8080")}
	outward := tuple{17, ap("[" + client6 + "]:8080"), ap("[" + remote6 + "]:53")}
	m := pinhole("", 0)
	gone := func(how string) {
		t.Helper()
		until(t, "what came in ends by "+how, func() bool { return !k.list()[inward] })
		if !k.list()[outward] {
			t.Errorf("%s: the client's own connection is gone", how)
		}
	}
	come := func() {
		t.Helper()
		if out.ask("["+remote6+"]:53") != "internet" {
			t.Error("nothing comes out")
		}
		in.ask("[" + client6 + "]:8080")
		if all := k.list(); !all[inward] || !all[outward] {
			t.Errorf("tracked: %v", all)
		}
		if said := l.Router.Run(t, "nft", "list", "set", "inet", "upnpd", "pin6"); !strings.Contains(said, "counter packets") {
			t.Error(said)
		}
	}
	on(t, l, func() error { return f.Sync(home6, []portmap.Mapping{m}) })
	come()
	on(t, l, func() error { return f.Change([]portmap.Mapping{m}, nil) })
	gone("Change")

	on(t, l, func() error { return f.Change(nil, &m) })
	come()
	on(t, l, func() error { return f.Sync(home, []portmap.Mapping{m}) }) // SPEC PIN-10: the prefix is gone
	gone("Sync")

	on(t, l, func() error { return f.Sync(home6, []portmap.Mapping{m}) })
	come()
	next := openNFT6(t, l) // the first run was killed, and the lease is not restored
	if n := len(next.inForce.mapped); n != 1 {
		t.Errorf("took over %d mappings, want 1", n)
	}
	on(t, l, func() error { return next.Sync(home6, nil) })
	gone("another run")

	on(t, l, func() error { return next.Change(nil, &m) })
	come()
	on(t, l, func() error { return next.Sync(portmap.Network{LANs: home6.LANs}, []portmap.Mapping{m}) }) // no IPv4
	if !k.list()[inward] {
		t.Error("ended with the IPv4 address")
	}
	on(t, l, next.Close)
	gone("Close")
}

// TestPinholeExpiry: the kernel ends a pinhole by itself, though nobody is there,
// and what begins later is refused.
func TestPinholeExpiry(t *testing.T) {
	l := lab6(t)
	echo6(t, l.LAN1, "["+client6+"]:8080")
	f := openNFT6(t, l)
	m := leased(pinhole(remote6, 0), time.Second-grace) // the grace is as long
	on(t, l, func() error { return f.Sync(home6, []portmap.Mapping{m}) })
	port := 5000
	passes := func() bool { // each as a connection of its own
		port++
		p := udp6(t, l.Internet, fmt.Sprintf("[%s]:%d", remote6, port))
		defer p.Close()
		return p.ask("["+client6+"]:8080") != ""
	}
	if !passes() {
		t.Fatal("the pinhole does not work")
	}
	until(t, "the pinhole is closed", func() bool { return !passes() })
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
