package portmap_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

func ports(first, last uint16) portmap.PortRange {
	return portmap.PortRange{First: first, Last: last}
}

// TestRules: the first match decides, by both ports, the receiving host, the
// protocol and the asking host (DESIGN "Secure by default").
func TestRules(t *testing.T) {
	all, everyone := ports(0, 65535), netip.MustParsePrefix("0.0.0.0/0")
	only := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 32) }
	half := netip.MustParsePrefix("192.168.1.8/30") // .8 to .11

	type wish struct {
		client, from       netip.Addr
		protocol           portmap.Protocol
		external, internal uint16
	}
	high := wish{ann, ann, portmap.TCP, 5000, 5000}
	with := func(change func(*wish)) wish {
		w := high
		change(&w)
		return w
	}
	for _, tt := range []struct {
		name  string
		rules []portmap.Rule
		wish  wish
		allow bool
	}{
		{"no rule, both ports high", nil, high, true},
		{"no rule, both ports 1024", nil, with(func(w *wish) { w.external, w.internal = 1024, 1024 }), true},
		{"no rule, external port low", nil, with(func(w *wish) { w.external = 1023 }), false},
		{"no rule, internal port low", nil, with(func(w *wish) { w.internal = 1023 }), false},
		{"no rule matches, both high", []portmap.Rule{{Client: only(bob), External: all, Internal: all}}, high, true},
		{"deny all", []portmap.Rule{{Client: everyone, External: all, Internal: all}}, high, false},
		{"allow low ports", []portmap.Rule{{Allow: true, Client: everyone, External: all, Internal: all}},
			with(func(w *wish) { w.external, w.internal = 80, 22 }), true},
		{"first match: allow, then deny", []portmap.Rule{
			{Allow: true, Client: only(ann), External: all, Internal: all},
			{Client: everyone, External: all, Internal: all}}, high, true},
		{"first match: deny, then allow", []portmap.Rule{
			{Client: everyone, External: all, Internal: all},
			{Allow: true, Client: only(ann), External: all, Internal: all}}, high, false},
		{"second rule", []portmap.Rule{
			{Allow: true, Client: only(bob), External: all, Internal: all},
			{Client: half, External: all, Internal: all}}, high, false},
		{"external range, first", []portmap.Rule{{Client: everyone, External: ports(5000, 5001), Internal: all}}, high, false},
		{"external range, last", []portmap.Rule{{Client: everyone, External: ports(4000, 5000), Internal: all}}, high, false},
		{"below the external range", []portmap.Rule{{Client: everyone, External: ports(5001, 5002), Internal: all}}, high, true},
		{"above the external range", []portmap.Rule{{Client: everyone, External: ports(1, 4999), Internal: all}}, high, true},
		{"internal range", []portmap.Rule{{Client: everyone, External: all, Internal: ports(5000, 5000)}}, high, false},
		{"outside the internal range", []portmap.Rule{{Client: everyone, External: all, Internal: ports(5001, 65535)}}, high, true},
		{"port 65535", []portmap.Rule{{Client: everyone, External: ports(65535, 65535), Internal: all}},
			with(func(w *wish) { w.external = 65535 }), false},
		{"prefix", []portmap.Rule{{Client: half, External: all, Internal: all}}, high, false},
		{"the host that receives, not the one that asks", []portmap.Rule{{Client: only(bob), External: all, Internal: all}},
			with(func(w *wish) { w.from = bob }), true},
		{"outside the prefix", []portmap.Rule{{Client: netip.MustParsePrefix("192.168.1.12/30"), External: all, Internal: all}}, high, true},
		{"protocol", []portmap.Rule{{Client: everyone, External: all, Internal: all, Protocol: portmap.TCP}}, high, false},
		{"other protocol", []portmap.Rule{{Client: everyone, External: all, Internal: all, Protocol: portmap.UDP}}, high, true},
		{"from", []portmap.Rule{{Client: everyone, External: all, Internal: all, From: only(bob)}},
			with(func(w *wish) { w.from = bob }), false},
		{"from a link-local address, whose zone is its LAN", []portmap.Rule{{Client: everyone, External: all, Internal: all, From: netip.MustParsePrefix("fe80::/10")}},
			with(func(w *wish) { w.from = netip.MustParseAddr("fe80::10%br-lan") }), false},
		{"from another", []portmap.Rule{{Client: everyone, External: all, Internal: all, From: only(bob)}}, high, true},
	} {
		w := newWorld(t, func(c *portmap.Config) { c.Policy.Secure, c.Policy.Rules = false, tt.rules })
		req := portmap.Request{From: tt.wish.from, Lease: time.Hour, Mapping: portmap.Mapping{
			Key:    key(tt.wish.protocol, tt.wish.external, netip.Addr{}),
			Client: tt.wish.client, InternalPort: tt.wish.internal, Enabled: true,
		}}
		_, err := w.Map(req)
		if tt.allow != (err == nil) || !tt.allow && !errors.Is(err, portmap.ErrDenied) {
			t.Errorf("%s: %v, want allow %v", tt.name, err, tt.allow)
		}
		w.checkKernel()
	}
}

// TestRuleInRefusal: the refusal quotes the rule as it was written.
func TestRuleInRefusal(t *testing.T) {
	w := newWorld(t, func(c *portmap.Config) {
		c.Policy.Rules = []portmap.Rule{{Client: netip.MustParsePrefix("0.0.0.0/0"), External: ports(0, 65535),
			Internal: ports(0, 65535), Text: "deny any 0.0.0.0/0 any"}}
	})
	_, err := w.Map(ask(ann, 5000))
	if err == nil || err.Error() != "denied by the rules: deny any 0.0.0.0/0 any" {
		t.Error(err)
	}
}

// TestClients: the receiving host is on a served LAN and not the router
// (issue 2, point 9; PEERS.md 4).
func TestClients(t *testing.T) {
	for _, tt := range []struct {
		client string
		ok     bool
	}{
		{"192.168.1.10", true},
		{"192.168.1.2", true},
		{"192.168.1.254", true},
		{"10.9.255.254", true},
		{"10.9.1.0", true},         // no network address in a /16
		{"10.9.1.255", true},       // nor a broadcast address
		{"192.168.1.1", false},     // the router
		{"10.9.0.1", false},        // the router on another LAN
		{"192.168.1.0", false},     // network
		{"192.168.1.255", false},   // broadcast
		{"10.9.255.255", false},    // broadcast
		{"11.0.0.2", false},        // the WAN address
		{"11.0.0.3", false},        // off-link
		{"192.168.2.10", false},    // off-link
		{"127.0.0.1", false},       // loopback
		{"0.0.0.0", false},         // unspecified
		{"255.255.255.255", false}, // limited broadcast
		{"239.255.255.250", false}, // multicast
		{"224.0.0.1", false},
		{"::1", false},
		{"fe80::1", false},
		{"::ffff:192.168.1.10", false}, // only plain addresses count
	} {
		w := newWorld(t, nil)
		req := ask(netip.MustParseAddr(tt.client), 5000)
		if tt.ok {
			w.mustMap(req)
		} else {
			w.refused(req, portmap.ErrNotLANHost)
		}
	}
	w := newWorld(t, nil)
	w.refused(ask(netip.Addr{}, 5000), portmap.ErrNotLANHost)
}

// TestSmallLANs: in a /31 both addresses are hosts, in a /32 none is.
func TestSmallLANs(t *testing.T) {
	w := newWorld(t, nil)
	w.SetNetwork(portmap.Network{LANs: []netip.Prefix{
		netip.MustParsePrefix("192.168.1.9/31"), netip.MustParsePrefix("172.16.0.1/30"), netip.MustParsePrefix("172.17.0.1/32"),
	}})
	for client, ok := range map[string]bool{
		"192.168.1.8": true, "192.168.1.9": false, "192.168.1.10": false,
		"172.16.0.2": true, "172.16.0.0": false, "172.16.0.3": false, "172.17.0.1": false,
	} {
		req := ask(netip.MustParseAddr(client), 5000)
		if _, err := w.Map(req); ok != (err == nil) {
			t.Errorf("%s: %v", client, err)
		} else if ok {
			w.Unmap(req.Key, req.Client)
		}
	}
	// The WAN and a LAN with the same prefix: still not the WAN's address.
	w.SetNetwork(portmap.Network{External: bob, LANs: home.LANs})
	w.refused(ask(bob, 5000), portmap.ErrNotLANHost)
}

// TestLease: what is asked, what is granted (WIP-4, DESIGN "Leases").
func TestLease(t *testing.T) {
	const week = 604800 * time.Second
	for _, tt := range []struct {
		name              string
		max, length, wish time.Duration
		want              time.Duration
	}{
		{"as asked", week, 0, time.Hour, time.Hour},
		{"a second", week, time.Hour, time.Second, time.Second},
		{"0 without duration", week, 0, 0, week},
		{"0 with duration", week, 90 * time.Minute, 0, 90 * time.Minute},
		{"duration above the maximum", time.Hour, 90 * time.Minute, 0, time.Hour},
		{"the maximum", week, 0, week, week},
		{"above the maximum", week, 0, week + time.Second, week},
		{"the largest ui4", week, time.Hour, (1<<32 - 1) * time.Second, week},
		{"a smaller maximum", time.Minute, 0, time.Hour, time.Minute},
		{"0 with a smaller maximum", time.Minute, 0, 0, time.Minute},
	} {
		w := newWorld(t, func(c *portmap.Config) {
			c.Policy.MaxLease, c.Policy.DefaultLease.Length = tt.max, tt.length
		})
		req := ask(ann, 5000)
		req.Lease = tt.wish
		m := w.mustMap(req)
		if got := m.Deadline - w.clock; got != tt.want || w.Remaining(m) != tt.want {
			t.Errorf("%s: %v, remaining %v; want %v", tt.name, got, w.Remaining(m), tt.want)
		}
	}
}

// TestRemaining: whole seconds, rounded up, so that a live lease is never 0;
// counted down also for a disabled mapping (WIP-5).
func TestRemaining(t *testing.T) {
	w := newWorld(t, nil)
	req := ask(ann, 5000)
	req.Enabled, req.Lease = false, 10*time.Second
	m := w.mustMap(req)
	start := w.clock
	for _, tt := range []struct{ after, want time.Duration }{
		{0, 10 * time.Second},
		{1, 10 * time.Second},
		{time.Second - 1, 10 * time.Second},
		{time.Second, 9 * time.Second},
		{9*time.Second + 1, time.Second},
		{10*time.Second - 1, time.Second},
		{10 * time.Second, 0},
		{time.Hour, 0},
	} {
		w.clock = start + tt.after
		if got := w.Remaining(m); got != tt.want {
			t.Errorf("after %v: %v, want %v", tt.after, got, tt.want)
		}
	}
}

// TestParseProtocol: TCP and UDP, and nothing else (WIP-10).
func TestParseProtocol(t *testing.T) {
	for s, want := range map[string]portmap.Protocol{"TCP": portmap.TCP, "udp": portmap.UDP, "Udp": portmap.UDP} {
		if p, ok := portmap.ParseProtocol(s); !ok || p != want || p.String() != strings.ToUpper(s) {
			t.Errorf("%q: %v, %v", s, p, ok)
		}
	}
	for _, s := range []string{"", "6", "any", "XYZ", "TCP ", "tcpudp", "\u212a", "SCTP"} {
		if p, ok := portmap.ParseProtocol(s); ok {
			t.Errorf("%q is %v", s, p)
		}
	}
}
