package igd_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/igd"
	"github.com/linux-igd/upnpd/internal/portmap"
)

var addPinhole = append(pinholeFlow[:5:5], "LeaseTime")

// pinhole gives the arguments of AddPinhole, with some changed.
func pinhole(changes ...string) []string {
	values := map[string]string{
		"RemoteHost": "", "RemotePort": "0", "InternalClient": alice6.String(), "InternalPort": "8080", "Protocol": "6", "LeaseTime": "3600",
	}
	for i := 0; i < len(changes); i += 2 {
		values[changes[i]] = changes[i+1]
	}
	return ordered(addPinhole, values)
}

func (w *world) addPinhole(from netip.Addr, changes ...string) (id string) {
	w.t.Helper()
	r := w.expect(0, from, firewall6Spec, "AddPinhole", pinhole(append([]string{"InternalClient", from.String()}, changes...)...)...)
	return r.values["UniqueID"]
}

// AddPinhole that succeeds, and what is then in the table (PIN-2).
func TestAddPinhole(t *testing.T) {
	base := portmap.Mapping{
		Key:    portmap.Key{Protocol: portmap.TCP, ExternalPort: 8080, Pinhole: alice6},
		Client: alice6, InternalPort: 8080, Enabled: true, Origin: portmap.UPnP, Owner: alice6,
	}
	with := func(change func(*portmap.Mapping)) portmap.Mapping {
		m := base
		change(&m)
		return m
	}
	peer := netip.MustParseAddr("2001:db8:ffff::9")
	for _, tt := range []struct {
		id    string
		args  []string
		want  portmap.Mapping
		lease time.Duration
	}{
		{"any remote host and port", pinhole(), base, time.Hour},
		{"UDP", pinhole("Protocol", "17"), with(func(m *portmap.Mapping) { m.Protocol = portmap.UDP }), time.Hour},
		{"remote host", pinhole("RemoteHost", peer.String()), with(func(m *portmap.Mapping) { m.RemoteHost = peer }), time.Hour},
		{"remote port", pinhole("RemotePort", "65535"), with(func(m *portmap.Mapping) { m.RemotePort = 65535 }), time.Hour},
		{"both", pinhole("RemoteHost", peer.String(), "RemotePort", "443"),
			with(func(m *portmap.Mapping) { m.RemoteHost, m.RemotePort = peer, 443 }), time.Hour},
		{"any, written otherwise", pinhole("RemoteHost", "*"), base, time.Hour},
		{"any, as an address", pinhole("RemoteHost", "::"), base, time.Hour},
		{"white space", pinhole("RemoteHost", " \n", "InternalClient", "\t2001:db8:1::10 ", "InternalPort", " 8080 "), base, time.Hour},
		{"not in shortest form", pinhole("InternalClient", "2001:0DB8:0001:0:0::0010"), base, time.Hour},
		{"lowest and highest port", pinhole("InternalPort", "65535", "RemotePort", "1"),
			with(func(m *portmap.Mapping) { m.ExternalPort, m.InternalPort, m.RemotePort = 65535, 65535, 1 }), time.Hour},
		{"PIN-4 shortest lease", pinhole("LeaseTime", "1"), base, time.Second},
		{"PIN-4 longest lease", pinhole("LeaseTime", "86400"), base, 86400 * time.Second},
	} {
		t.Run(tt.id, func(t *testing.T) {
			w := newWorld(t, version2)
			r := w.expect(0, alice6, firewall6Spec, "AddPinhole", tt.args...)
			list := w.table.List()
			if len(list) != 1 {
				t.Fatalf("%v", list)
			}
			tt.want.ID, tt.want.Deadline = list[0].ID, w.clock+tt.lease
			if list[0] != tt.want || r.values["UniqueID"] != fmt.Sprint(list[0].ID) || list[0].ID == 0 {
				t.Errorf("UniqueID %s\n%+v, want\n%+v", r.values["UniqueID"], list[0], tt.want)
			}
			if n := w.query(wanIPSpec2, "PortMappingNumberOfEntries"); n != "0" {
				t.Errorf("PortMappingNumberOfEntries %s", n)
			}
		})
	}
}

// AddPinhole that is refused.
func TestAddPinholeRefused(t *testing.T) {
	full := func(w *world, _ *igd.Config) { w.policy.MaxPerClient = 0 }
	low := func(w *world, _ *igd.Config) {
		w.policy.Rules = []portmap.Rule{{Allow: true, External: portmap.PortRange{First: 80, Last: 80},
			Internal: portmap.PortRange{First: 80, Last: 80}, Client: netip.MustParsePrefix("::/0")}}
	}
	type row struct {
		id     string
		code   int
		args   []string
		change func(*world, *igd.Config)
	}
	rows := []row{
		{"PIN-2 no InternalClient", 708, pinhole("InternalClient", ""), nil},
		{"PIN-2 any InternalClient", 708, pinhole("InternalClient", "::"), nil},
		{"PIN-2 internal port 0", 706, pinhole("InternalPort", "0"), nil},
		{"PIN-2 any protocol", 707, pinhole("Protocol", "65535"), nil},
		{"PIN-3 another host", 606, pinhole("InternalClient", bob6.String()), nil},
		{"PIN-3 the router", 606, pinhole("InternalClient", router6.String()), nil},
		{"PIN-3 a port below 1024", 606, pinhole("InternalPort", "80"), nil},
		{"unless a rule allows it", 0, pinhole("InternalPort", "80"), low},
		{"PIN-10 on no LAN", 606, pinhole("InternalClient", "2001:db8:2::10"), nil},
		{"PIN-10 ULA of another host", 606, pinhole("InternalClient", "fd00::10"), nil},
		{"701", 701, pinhole(), full},
	}
	for _, protocol := range []string{"0", "1", "58", "33", "132", "136", "41", "255", "256", "262", "273", "65534"} { // 262 is 6 + 256
		rows = append(rows, row{"PIN-2 protocol " + protocol, 705, pinhole("Protocol", protocol), nil})
	}
	for name, values := range map[string][]string{
		"RemoteHost": {"host.example", "11.0.0.9", "::ffff:11.0.0.9", "2001:db8::1%eth0", "ff02::1", "ff0e::1", "::1", "fe80::1",
			"2001:db8::/32", "[2001:db8::1]", "2001:db8", "0.0.0.0", "empty", "-1"},
		"InternalClient": {"host.example", alice.String(), "::ffff:192.168.1.10", "2001:db8:1::10%lan0", "ff02::1", "::1",
			"fe80::10", "2001:db8:1::10/64", "*x", "[2001:db8:1::10]"}, // PIN-10
		"RemotePort":   {"-1", "65536", "", "http", missing},
		"InternalPort": {"-1", "65536", "73616", "", "0x50", missing},
		"Protocol":     {"TCP", "-1", "65536", "65542", "", missing},              // 65542 is 6 + 65536
		"LeaseTime":    {"0", "86401", "4294967295", "4294967297", "-1", "", "x"}, // PIN-4
	} {
		for _, v := range values {
			rows = append(rows, row{name + " " + v, 402, pinhole(name, v), nil})
		}
	}
	for _, tt := range rows {
		t.Run(tt.id, func(t *testing.T) {
			w := newWorld(t, tt.change, version2)
			if tt.change == nil {
				w.addPinhole(bob6) // something that could be damaged
			}
			w.expect(tt.code, alice6, firewall6Spec, "AddPinhole", tt.args...)
		})
	}
	w := newWorld(t, version2)
	w.kernel.Break(true)
	w.expect(501, alice6, firewall6Spec, "AddPinhole", pinhole()...)
}

// PIN-5: the same five again is the same pinhole, with a new lease; any other
// is another.
func TestSamePinhole(t *testing.T) {
	w := newWorld(t, version2, func(w *world, _ *igd.Config) { w.policy.MaxMappings, w.policy.MaxPerClient = 20, 10 })
	first := w.addPinhole(alice6)
	w.clock += 1000 * time.Second
	if again := w.addPinhole(alice6, "LeaseTime", "60"); again != first {
		t.Errorf("UniqueID %s, then %s", first, again)
	}
	if list := w.table.List(); len(list) != 1 || list[0].Deadline != w.clock+time.Minute {
		t.Errorf("%v", list)
	}
	seen := map[string]bool{first: true}
	for _, other := range [][]string{{"RemoteHost", "2001:db8::1"}, {"RemotePort", "443"}, {"Protocol", "17"}} {
		if id := w.addPinhole(alice6, other...); seen[id] {
			t.Errorf("%q has UniqueID %s again", other, id)
		} else {
			seen[id] = true
		}
	}
	if id := w.addPinhole(bob6); seen[id] { // another host's, the same port
		t.Errorf("UniqueID %s again", id)
	}
}

// The actions that name a pinhole by its UniqueID: 704 without one, 606 for
// another host's (PIN-3), and 704 after the end.
func TestPinholeByID(t *testing.T) {
	actions := map[string][]string{
		"UpdatePinhole": {"NewLeaseTime", "60"}, "DeletePinhole": nil, "GetPinholePackets": nil, "CheckPinholeWorking": nil,
	}
	for action, more := range actions {
		t.Run(action, func(t *testing.T) {
			w := newWorld(t, version2)
			w.packets = map[uint16]uint64{8080: 5}
			id := w.addPinhole(alice6)
			do := func(code int, from netip.Addr, id string) reply {
				t.Helper()
				return w.expect(code, from, firewall6Spec, action, ordered(append([]string{"UniqueID"}, more[:len(more)/2]...),
					map[string]string{"UniqueID": id, "NewLeaseTime": "60"})...)
			}
			for _, bad := range []string{"", "-1", "65536", "x", missing} {
				do(402, alice6, bad)
			}
			do(704, alice6, "0")
			do(704, alice6, map[bool]string{true: "7", false: "8"}[id != "7"])
			do(606, bob6, id)
			do(606, alice, id) // by IPv4, and nobody knows that it is the same host
			do(0, alice6, id)
			w.table.DeletePinhole(w.idOf(id), alice6)
			do(704, alice6, id)
		})
	}
}

func (w *world) idOf(text string) (id uint16) {
	w.t.Helper()
	if _, err := fmt.Sscan(text, &id); err != nil {
		w.t.Fatal(err)
	}
	return id
}

// PIN-6.
func TestUpdatePinhole(t *testing.T) {
	w := newWorld(t, version2)
	id := w.addPinhole(alice6)
	w.clock += 100 * time.Second
	for _, lease := range []string{"1", "86400", "60"} {
		w.expect(0, alice6, firewall6Spec, "UpdatePinhole", "UniqueID", id, "NewLeaseTime", lease)
		if m, _ := w.table.Pinhole(w.idOf(id), alice6); fmt.Sprint(int(w.table.Remaining(m)/time.Second)) != lease {
			t.Errorf("%v are left of a lease of %s s", w.table.Remaining(m), lease)
		}
	}
	for _, bad := range []string{"0", "86401", "4294967295", "4294967297", "-1", "", missing} { // PIN-4
		w.expect(402, alice6, firewall6Spec, "UpdatePinhole", ordered([]string{"UniqueID", "NewLeaseTime"},
			map[string]string{"UniqueID": id, "NewLeaseTime": bad})...)
	}
	w.kernel.Break(true)
	w.expect(501, alice6, firewall6Spec, "UpdatePinhole", "UniqueID", id, "NewLeaseTime", "60")
	w.expect(501, alice6, firewall6Spec, "DeletePinhole", "UniqueID", id)
}

// PIN-7, and the counter of SPEC 5.10.
func TestPinholePackets(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 1: "1", 1<<32 - 1: "4294967295", 1 << 32: "0", 1<<32 + 7: "7"} {
		w := newWorld(t, version2)
		w.packets = map[uint16]uint64{8080: n, 8081: 99}
		id := w.addPinhole(alice6)
		w.addPinhole(alice6, "InternalPort", "8081")
		if r := w.expect(0, alice6, firewall6Spec, "GetPinholePackets", "UniqueID", id); r.out[0] != want {
			t.Errorf("%d packets: PinholePackets %s, want %s", n, r.out[0], want)
		}
		if n == 0 {
			w.expect(709, alice6, firewall6Spec, "CheckPinholeWorking", "UniqueID", id)
		} else if r := w.expect(0, alice6, firewall6Spec, "CheckPinholeWorking", "UniqueID", id); r.out[0] != "1" {
			t.Errorf("%d packets: IsWorking %s", n, r.out[0])
		}
	}
}

// PIN-9: a host may ask from another of its addresses.
func TestPinholeFromAnotherAddress(t *testing.T) {
	w := newWorld(t, version2, func(w *world, _ *igd.Config) {
		w.sameHost = func(a, b netip.Addr) bool { return a == alice6 && b == alice || a == alice && b == alice6 }
	})
	r := w.expect(0, alice, firewall6Spec, "AddPinhole", pinhole()...)
	w.expect(606, bob, firewall6Spec, "AddPinhole", pinhole("InternalPort", "8081")...)
	w.expect(0, alice, firewall6Spec, "UpdatePinhole", "UniqueID", r.values["UniqueID"], "NewLeaseTime", "60")
	w.expect(606, bob, firewall6Spec, "DeletePinhole", "UniqueID", r.values["UniqueID"])
	w.expect(0, alice, firewall6Spec, "DeletePinhole", "UniqueID", r.values["UniqueID"])
}

func TestFirewallStatus(t *testing.T) {
	w := newWorld(t, version2)
	if r := w.expect(0, alice6, firewall6Spec, "GetFirewallStatus"); strings.Join(r.out, " ") != "1 1" {
		t.Errorf("%q", r.out)
	}
	for _, name := range []string{"FirewallEnabled", "InboundPinholeAllowed"} {
		if v := w.query(firewall6Spec, name); v != "1" {
			t.Errorf("%s %q", name, v)
		}
	}
	if r := w.queryReply(firewall6Spec, "A_ARG_TYPE_UniqueID"); r.code != 404 {
		t.Errorf("A_ARG_TYPE_UniqueID: %d", r.code)
	}
}

// What it says is in the range of its variable, and depends on the protocol
// alone.
func TestGetOutboundPinholeTimeout(t *testing.T) {
	w := newWorld(t, version2)
	flow := func(changes ...string) []string { return pinhole(append(changes, "LeaseTime", missing)...) }
	for protocol, want := range map[string]string{"6": "7440", "17": "120", "65535": "120"} {
		for _, args := range [][]string{flow("Protocol", protocol), flow("Protocol", protocol, "InternalPort", "0", "InternalClient", "", "RemoteHost", "2001:db8::1", "RemotePort", "443")} {
			if r := w.expect(0, alice6, firewall6Spec, "GetOutboundPinholeTimeout", args...); r.out[0] != want {
				t.Errorf("protocol %s: %s, want %s", protocol, r.out[0], want)
			}
		}
	}
	w.expect(705, alice6, firewall6Spec, "GetOutboundPinholeTimeout", flow("Protocol", "132")...)
	for _, name := range []string{"RemoteHost", "InternalClient"} {
		w.expect(402, alice6, firewall6Spec, "GetOutboundPinholeTimeout", flow(name, "11.0.0.9")...)
	}
	w.expect(402, alice6, firewall6Spec, "GetOutboundPinholeTimeout", flow("RemotePort", "65536")...)
}

// A link-local address says nothing without its LAN: a host of another one may have
// it, too (PIN-9).
func TestPinholeByLinkLocal(t *testing.T) {
	lan := netip.MustParseAddr("fe80::10%br-lan")
	var asked []netip.Addr
	w := newWorld(t, version2, func(w *world, _ *igd.Config) {
		w.sameHost = func(a, b netip.Addr) bool {
			asked = append(asked, b)
			return a == alice6 && b == lan
		}
	})
	id := w.expect(0, lan.WithZone(""), firewall6Spec, "AddPinhole", pinhole()...).values["UniqueID"]
	w.expect(0, lan.WithZone(""), firewall6Spec, "DeletePinhole", "UniqueID", id)
	for _, from := range asked {
		if from != lan {
			t.Errorf("asked whether %v is alice", from)
		}
	}
	if len(asked) != 2 {
		t.Errorf("asked %d times", len(asked))
	}
}
