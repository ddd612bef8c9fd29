package portmap_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

func pinFrom(client netip.Addr, port uint16, remote netip.Addr, remotePort uint16) portmap.Request {
	req := pin(client, port)
	req.RemoteHost, req.RemotePort = remote, remotePort
	return req
}

// TestPinholes: what tells one pinhole from another (SPEC PIN-2, PIN-5), and that
// they are no mappings to those who count IPv4 mappings.
func TestPinholes(t *testing.T) {
	changes := 0
	w := newWorld(t, func(c *portmap.Config) { c.Changed = func() { changes++ } })
	w.used[8080] = true // by the router: no matter to a packet for another host
	w.mustMap(ask(ann, 5000))
	update := w.UpdateID()
	udp := pin(ann6, 8080)
	udp.Protocol = portmap.UDP
	var want []portmap.Mapping
	ids := map[uint16]bool{0: true}
	for _, req := range []portmap.Request{
		pin(ann6, 8080), pin(bob6, 8080), udp, pin(ann6, 8081), pin(annl6, 8080),
		pinFrom(ann6, 8080, peer6, 0), pinFrom(ann6, 8080, peer6, 4000), pinFrom(ann6, 8080, netip.Addr{}, 4000),
	} {
		m := w.mustMap(req)
		if ids[m.ID] {
			t.Errorf("%v has the ID %d, which is 0 or another's", m, m.ID)
		}
		ids[m.ID] = true
		want = append(want, m)
	}
	if list := w.List(); !slices.Equal(list[1:], want) || changes != 1+len(want) {
		t.Errorf("%d changes, the list is\n%v\nwant\n%v", changes, list, want)
	}
	w.clock += time.Minute
	for i := range want { // PIN-5
		req := portmap.Request{Mapping: want[i], From: want[i].Client, Lease: 2 * time.Hour}
		req.ID = 77 // not for the client to say
		m := w.mustMap(req)
		want[i].Deadline = w.clock + 2*time.Hour
		if m != want[i] {
			t.Errorf("again: %+v, want %+v", m, want[i])
		}
		if got, err := w.Pinhole(m.ID, m.Client); err != nil || got != m {
			t.Errorf("Pinhole: %+v, %v", got, err)
		}
		if got, err := w.Lookup(m.Key); err != nil || got != m {
			t.Errorf("Lookup: %+v, %v", got, err)
		}
	}
	if packets, err := w.Packets(); err != nil || packets[want[0].Key] != 8080 {
		t.Errorf("packets %v, %v", packets, err)
	}
	if _, err := w.At(1); !errors.Is(err, portmap.ErrNoEntry) || w.Len() != 1 || w.UpdateID() != update {
		t.Errorf("IPv4: %v, %d mappings, update %d before and %d now", err, w.Len(), update, w.UpdateID())
	}
	if _, err := w.AtOwn(0, ann6); !errors.Is(err, portmap.ErrNoEntry) {
		t.Errorf("AtOwn numbers a pinhole: %v", err)
	}
	for _, m := range want[1:] {
		if err := w.DeletePinhole(m.ID, m.Client); err != nil {
			t.Error(err)
		}
	}
	if _, err := w.Pinhole(want[1].ID, bob6); !errors.Is(err, portmap.ErrNoEntry) {
		t.Error(err)
	}
	if n := w.Flush(); n != 2 || len(w.List()) != 0 || w.UpdateID() != update+1 {
		t.Errorf("%d flushed, %v, update %d", n, w.List(), w.UpdateID())
	}
	if _, err := w.Pinhole(want[0].ID, ann6); !errors.Is(err, portmap.ErrNoEntry) {
		t.Errorf("after the flush: %v", err)
	}
	w.checkKernel()
}

// TestNoPinhole: which addresses and ports are none for a pinhole (SPEC PIN-3,
// PIN-10), and that IPv4 and IPv6 are not mixed.
func TestNoPinhole(t *testing.T) {
	for client, want := range map[string]error{
		"2001:db8:1::10":              nil,
		"fd00:1::10":                  nil,
		"2001:db8:1::1":               portmap.ErrNotLANHost, // the router
		"2001:db8:1::":                portmap.ErrNotLANHost, // every router
		"2001:db8:2::10":              portmap.ErrNotLANHost, // off-link
		"fe80::10":                    portmap.ErrNotLANHost,
		"fe80::10%eth0":               portmap.ErrNotLANHost,
		"2001:db8:1::10%eth0":         portmap.ErrNotLANHost,
		"ff02::1":                     portmap.ErrNotLANHost,
		"ff3e:40:2001:db8:1:0:1234:1": portmap.ErrNotLANHost,
		"::ffff:192.168.1.10":         portmap.ErrNotLANHost,
		"::1":                         portmap.ErrNotLANHost,
		"::":                          portmap.ErrNotLANHost,
		"192.168.1.10":                portmap.ErrNotLANHost,
	} {
		w := newWorld(t, nil)
		// A link-local prefix would not be told; it must not matter.
		w.SetNetwork(portmap.Network{External: home.External, LANs: append(slices.Clone(home.LANs), netip.MustParsePrefix("fe80::1/64"))})
		req := pin(netip.MustParseAddr(client), 8080)
		if want == nil {
			w.mustMap(req)
		} else {
			w.refused(req, want)
		}
	}
	with := func(change func(*portmap.Request)) portmap.Request {
		req := pin(ann6, 8080)
		change(&req)
		return req
	}
	for what, tt := range map[string]struct {
		req  portmap.Request
		want error
	}{
		"mapping to IPv6":              {ask(ann6, 8080), portmap.ErrNotLANHost},
		"mapping of a remote port":     {with(func(r *portmap.Request) { r.Pinhole, r.Client, r.From, r.RemotePort = netip.Addr{}, ann, ann, 80 }), portmap.ErrDenied},
		"mapping for an IPv6 host":     {with(func(r *portmap.Request) { r.Pinhole, r.Client, r.From, r.RemoteHost = netip.Addr{}, ann, ann, peer6 }), portmap.ErrDenied},
		"pinhole for an IPv4 host":     {pinFrom(ann6, 8080, peer1, 0), portmap.ErrDenied},
		"pinhole for a link":           {pinFrom(ann6, 8080, netip.MustParseAddr("fe80::1"), 0), portmap.ErrDenied},
		"pinhole for IPv4 in disguise": {pinFrom(ann6, 8080, netip.MustParseAddr("::ffff:11.0.0.1"), 0), portmap.ErrDenied},
		"pinhole to another host":      {with(func(r *portmap.Request) { r.Pinhole = bob6 }), portmap.ErrDenied},
		"translating pinhole":          {with(func(r *portmap.Request) { r.InternalPort = 8081 }), portmap.ErrDenied},
		"all ports":                    {pin(ann6, 0), portmap.ErrDenied},
		"all protocols":                {with(func(r *portmap.Request) { r.Protocol = 0 }), portmap.ErrDenied},
		"low port":                     {pin(ann6, 1023), portmap.ErrDenied},
		"for another":                  {with(func(r *portmap.Request) { r.From = bob6 }), portmap.ErrNotAuthorized},
		"by IPv4":                      {with(func(r *portmap.Request) { r.From = ann }), portmap.ErrNotAuthorized}, // nobody knows whose it is
	} {
		t.Log(what)
		newWorld(t, nil).refused(tt.req, tt.want)
	}
}

// TestPinholeRules: one list of rules for both (DESIGN.md): 0.0.0.0/0 is any
// host, ::/0 any of IPv6.
func TestPinholeRules(t *testing.T) {
	any4, any6 := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
	rule := func(client, from netip.Prefix) []portmap.Rule {
		return []portmap.Rule{{External: ports(5000, 5000), Internal: ports(0, 65535), Client: client, From: from, Text: "deny x"}}
	}
	for _, tt := range []struct {
		rules       []portmap.Rule
		four, six   bool // whether the rule is about them
		otherClient bool
	}{
		{rule(any4, netip.Prefix{}), true, true, true},
		{rule(any6, netip.Prefix{}), false, true, true},
		{rule(netip.MustParsePrefix("2001:db8:1::/64"), netip.Prefix{}), false, true, true},
		{rule(netip.MustParsePrefix("2001:db8:1::10/128"), netip.Prefix{}), false, true, false},
		{rule(netip.MustParsePrefix("2001:db8:2::/64"), netip.Prefix{}), false, false, false},
		{rule(netip.MustParsePrefix("192.168.1.0/24"), netip.Prefix{}), true, false, false},
		{rule(netip.MustParsePrefix("128.0.0.0/1"), netip.Prefix{}), true, false, false},
		{rule(any4, any4), true, true, true},
		{rule(any4, any6), false, true, true},
		{rule(any4, netip.MustParsePrefix("2001:db8:1::10/128")), false, true, false},
		{rule(any4, netip.MustParsePrefix("192.168.1.10/32")), true, false, false},
	} {
		w := newWorld(t, func(c *portmap.Config) { c.Policy.Rules = tt.rules })
		for _, ask := range []struct {
			req    portmap.Request
			denied bool
		}{{ask(ann, 5000), tt.four}, {pin(ann6, 5000), tt.six}, {pin(bob6, 5000), tt.otherClient}, {pin(ann6, 5001), false}} {
			if _, err := w.Map(ask.req); errors.Is(err, portmap.ErrDenied) != ask.denied || (err != nil) != ask.denied {
				t.Errorf("%v from %v: %v: %v", tt.rules[0].Client, tt.rules[0].From, ask.req.Mapping, err)
			}
		}
	}
	w := newWorld(t, func(c *portmap.Config) {
		c.Policy.Rules = []portmap.Rule{{Allow: true, External: ports(80, 80), Internal: ports(80, 80), Client: any6, Text: "allow web"}}
	})
	w.mustMap(pin(ann6, 80))
	w.refused(pin(ann6, 81), portmap.ErrDenied)
}

// TestSameHost: a host may ask from any of its addresses (SPEC PIN-9). The
// neighbour table is only asked when it matters, and without the table's lock.
func TestSameHost(t *testing.T) {
	var w *world
	var asked [][2]netip.Addr
	during := func() {}
	w = newWorld(t, func(c *portmap.Config) {
		c.SameHost = func(a, b netip.Addr) bool {
			asked = append(asked, [2]netip.Addr{a, b})
			w.Len() // would wait for ever
			during()
			return annAlone(a, b)
		}
	})
	questions := func(what string, n int) {
		t.Helper()
		if len(asked) != n {
			t.Errorf("%s: asked %v", what, asked)
		}
		asked = nil
	}
	by := func(req portmap.Request, from netip.Addr) portmap.Request {
		req.From = from
		return req
	}
	m := w.mustMap(pin(ann6, 8080))
	questions("by itself", 0)
	w.mustMap(ask(ann, 8080))
	w.refused(by(ask(ann, 8081), bob), portmap.ErrNotAuthorized)
	questions("IPv4 alone", 0)
	// A control point may have found the gateway by IPv6.
	w.mustMap(by(ask(ann, 8081), ann6))
	if _, err := w.MapAny(by(ask(ann, 8083), ann6)); err != nil {
		t.Error(err)
	}
	if err := w.Unmap(ask(ann, 8081).Key, ann6); err != nil {
		t.Error(err)
	}
	questions("IPv4 mappings by IPv6", 3)
	w.refused(by(ask(bob, 8082), ann6), portmap.ErrNotAuthorized)
	if _, err := w.MapAny(by(ask(bob, 8082), ann6)); !errors.Is(err, portmap.ErrNotAuthorized) {
		t.Error(err)
	}
	if err := w.Unmap(ask(ann, 8080).Key, bob6); !errors.Is(err, portmap.ErrNotAuthorized) {
		t.Error(err)
	}
	questions("IPv4 mappings of others by IPv6", 3)
	for _, from := range []netip.Addr{anna6, annl6, ann} {
		again := w.mustMap(by(pin(ann6, 8080), from))
		questions(from.String(), 1)
		if again.ID != m.ID || again.Owner != ann6 {
			t.Errorf("%v: %+v", from, again)
		}
		w.refused(by(pin(bob6, 8080), from), portmap.ErrNotAuthorized)
		questions("for another", 1)
		w.refused(by(pin(ann6, 80), from), portmap.ErrDenied)
		w.refused(by(pin(netip.MustParseAddr("2001:db8:2::1"), 8080), from), portmap.ErrNotLANHost)
		questions("hopeless", 0)
		if got, err := w.Pinhole(m.ID, from); err != nil || got != again {
			t.Errorf("%v: Pinhole %+v, %v", from, got, err)
		}
		if err := w.UpdatePinhole(m.ID, time.Minute, from); err != nil {
			t.Error(err)
		}
		if got, _ := w.Lookup(m.Key); got.Deadline != w.clock+time.Minute || got.ID != m.ID || got.Owner != ann6 {
			t.Errorf("%v: updated to %+v", from, got)
		}
		questions("the others", 2)
		if err := w.DeletePinhole(m.ID, from); err != nil {
			t.Error(err)
		}
		questions("delete", 1)
		m = w.mustMap(pin(ann6, 8080))
	}
	for what, do := range map[string]func() error{
		"Pinhole":       func() error { _, err := w.Pinhole(m.ID, bob6); return err },
		"UpdatePinhole": func() error { return w.UpdatePinhole(m.ID, time.Hour, bob6) },
		"DeletePinhole": func() error { return w.DeletePinhole(m.ID, bob6) },
		"Unmap":         func() error { return w.Unmap(m.Key, bob6) },
	} {
		if err := do(); !errors.Is(err, portmap.ErrNotAuthorized) {
			t.Errorf("%s by another host: %v", what, err)
		}
	}
	if got, _ := w.Lookup(m.Key); got != m {
		t.Errorf("another host made it %+v", got)
	}
	asked = nil
	during = func() { during = func() {}; w.Flush() }
	if err := w.UpdatePinhole(m.ID, time.Hour, ann); !errors.Is(err, portmap.ErrNoEntry) || len(w.List()) != 0 {
		t.Errorf("ended meanwhile: %v, %v", err, w.List())
	}
	m = w.mustMap(pin(ann6, 8080))
	during = func() { // the same ID, but another's
		during = func() {}
		w.Flush()
		next := pin(bob6, 8080).Mapping
		next.ID, next.Deadline, next.Owner = m.ID, w.clock+time.Hour, bob6
		w.Restore([]portmap.Mapping{next})
		w.Sync()
	}
	if err := w.DeletePinhole(m.ID, ann); !errors.Is(err, portmap.ErrNotAuthorized) || len(w.List()) != 1 {
		t.Errorf("replaced meanwhile: %v, %v", err, w.List())
	}
	asked = nil
	p := policy()
	p.Secure = false
	w.SetPolicy(p)
	if m := w.mustMap(by(pin(ann6, 8080), bob6)); m.Owner != bob6 {
		t.Errorf("owner %v", m.Owner)
	} else if err := w.DeletePinhole(m.ID, ann); err != nil {
		t.Error(err)
	}
	questions("not secure", 0)
}

// TestPrefixChange: pinholes to addresses that are no longer on a LAN are closed at
// once and end soon (SPEC PIN-10), unless they are back, and nothing else does.
func TestPrefixChange(t *testing.T) {
	var decisions []string
	w := newWorld(t, func(c *portmap.Config) {
		c.Decided = func(d portmap.Decision) { decisions = append(decisions, d.What) }
	})
	old := w.mustMap(pin(ann6, 8080))
	site := w.mustMap(pin(annl6, 8080))
	four := w.mustMap(ask(ann, 8080))
	other := w.mustMap(pin(bob6, 8081))
	update, calls := w.UpdateID(), w.fw.Calls()
	decisions = nil
	moved := portmap.Network{External: home.External, LANs: append(slices.Clone(home.LANs[:2]), home.LANs[3], netip.MustParsePrefix("2001:db8:2::1/64"))}
	if err := w.SetNetwork(moved); err != nil {
		t.Error(err)
	}
	if n := w.fw.Calls() - calls; n != 1 || len(w.List()) != 4 {
		t.Errorf("%d calls of the kernel, left: %v", n, w.List())
	}
	if err := w.SetNetwork(home); err != nil { // a LAN that was made anew
		t.Error(err)
	}
	w.after(time.Minute)
	if got := w.List(); !slices.Equal(got, []portmap.Mapping{four, old, site, other}) {
		t.Errorf("back: %v", got)
	}
	if err := w.SetNetwork(moved); err != nil {
		t.Error(err)
	}
	w.after(29 * time.Second)
	if got := w.List(); len(got) != 4 {
		t.Errorf("too early: %v", got)
	}
	calls = w.fw.Calls()
	w.after(time.Second)
	if got := w.List(); !slices.Equal(got, []portmap.Mapping{four, site}) || w.UpdateID() != update || w.fw.Calls() != calls+1 {
		t.Errorf("left: %v, update %d of %d, %d calls", got, w.UpdateID(), update, w.fw.Calls()-calls)
	}
	for _, m := range []portmap.Mapping{old, other} {
		if n := count(w.log, fmt.Sprintf("DeletePinhole: %v (its address is no longer on a LAN)", m)); n != 1 || !slices.Contains(decisions, "delete "+m.String()) {
			t.Errorf("%d lines for %v: %q; %q", n, m, w.log, decisions)
		}
	}
	w.checkKernel()

	// A kernel that refuses keeps none alive; those that come back before their
	// LAN wait for it.
	w.fw.Refuse(1)
	w.SetNetwork(portmap.Network{External: home.External})
	w.after(time.Minute)
	if got := w.List(); !slices.Equal(got, []portmap.Mapping{four}) {
		t.Errorf("left: %v", got)
	}
	w.Sync()
	w.checkKernel()
	w.Restore([]portmap.Mapping{old})
	w.SetNetwork(portmap.Network{External: peer1})
	w.SetNetwork(home)
	if got := w.List(); !slices.Equal(got, []portmap.Mapping{four, old}) {
		t.Errorf("back: %v", got)
	}
	w.checkKernel()
}

// TestPinholeQuota: a host's pinholes count for it, by address, and for the table.
func TestPinholeQuota(t *testing.T) {
	w := newWorld(t, func(c *portmap.Config) { c.Policy.MaxPerClient, c.Policy.MaxMappings = 2, 5 })
	w.mustMap(pin(ann6, 8080))
	last := w.mustMap(pin(ann6, 8081))
	w.refused(pin(ann6, 8082), portmap.ErrFull)
	w.mustMap(pin(ann6, 8081)) // a renewal
	w.mustMap(ask(ann, 8080))
	w.mustMap(pin(bob6, 8080))
	w.mustMap(ask(bob, 8081))
	w.refused(ask(bob, 8082), portmap.ErrFull)
	w.refused(pin(bob6, 8082), portmap.ErrFull)
	if err := w.DeletePinhole(last.ID, ann6); err != nil {
		t.Error(err)
	}
	w.mustMap(ask(bob, 8082))
}
