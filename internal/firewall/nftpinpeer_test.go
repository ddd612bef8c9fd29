package firewall

import (
	"fmt"
	"net"
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
	echo6(t, l.LAN1, "["+client6+"]:7")
	echo6(t, l.LAN2, "["+other6+"]:7")
	for _, from := range []string{remote6, peer6} { // all neighbours are found
		p := udp6(t, l.Internet, "["+from+"]:7")
		until(t, "lan1 answers "+from, func() bool { return p.ask("["+client6+"]:7") == "lan1" })
		until(t, "lan2 answers "+from, func() bool { return p.ask("["+other6+"]:7") == "lan2" })
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

// TestPinhole: what a pinhole lets in, and nothing else comes in; it counts every
// packet of that; and it ends what came in.
func TestPinhole(t *testing.T) {
	l := lab6(t)
	echo6(t, l.LAN1, "["+client6+"]:8080")
	echo6(t, l.LAN1, "["+client6+"]:8081")
	echo6(t, l.LAN2, "["+other6+"]:8080")
	f := openNFT6(t, l)
	on(t, l, func() error { return f.Sync(home6, nil) })
	peers := map[string]peer{ // by what it has of remote6 and port 4000
		"both": udp6(t, l.Internet, "["+remote6+"]:4000"), "host": udp6(t, l.Internet, "["+remote6+"]:4001"),
		"port": udp6(t, l.Internet, "["+peer6+"]:4000"), "none": udp6(t, l.Internet, "["+peer6+"]:4001"),
	}
	to, k := "["+client6+"]:8080", newTracker(t, l)
	for kind, tt := range map[string]struct {
		m    portmap.Mapping
		lets []string
	}{
		"any":  {pinhole("", 0), []string{"both", "host", "port", "none"}},
		"host": {pinhole(remote6, 0), []string{"both", "host"}},
		"port": {pinhole("", 4000), []string{"both", "port"}},
		"both": {pinhole(remote6, 4000), []string{"both"}},
		"net":  {netPin("2001:db8:ff::/125", 0), []string{"both", "host"}}, // SPEC MAP-13
		"netp": {netPin("2001:db8:ff::/125", 4000), []string{"both"}},
		"far":  {netPin("2001:db8:fe::/48", 0), nil},
		"wide": {netPin("2001:db8:ff::/124", 0), []string{"both", "host", "port", "none"}},
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
				want := slices.Contains(tt.lets, name)
				for range 2 {
					if passes := p.ask(to) == "lan1"; passes != want {
						t.Errorf("%s passes: %v, want %v", name, passes, want)
					} else if want {
						packets++
					}
				}
				if p.ask("["+client6+"]:8081")+p.ask("["+other6+"]:8080") != "" {
					t.Errorf("%s reaches others", name)
				}
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
		if said := l.Router.Run(t, "nft", "list", "set", "inet", "upnpd", "pin6"); !strings.Contains(said, "counter packets 1 ") {
			t.Errorf("not one packet is counted:\n%s", said)
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
	if n := len(next.inForce.mapped); n != 1 {
		t.Error("the pinhole ended with the IPv4 address")
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
