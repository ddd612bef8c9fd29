package pcp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

var (
	far  = netip.MustParseAddrPort("11.0.0.9:80")
	far2 = netip.MustParseAddrPort("11.0.0.9:81")
	far3 = netip.MustParseAddrPort("11.0.1.9:80")
	far6 = netip.MustParseAddrPort("[2001:db8:ff::9]:80")
)

// peerOf is a PEER request.
func (m wish) peerOf(client netip.Addr, peer netip.AddrPort) []byte {
	options := m.options
	m.options = nil
	p := m.of(client)
	p[1] = 2
	p = append(binary.BigEndian.AppendUint16(p, peer.Port()), 0, 0)
	a := peer.Addr().As16()
	return slices.Concat(append([][]byte{append(p, a[:]...)}, options...)...)
}

// peerStep asks by PEER, or by MAP without a peer, and says what the table has then.
type peerStep struct {
	name     string
	wish     wish
	peer     netip.AddrPort
	result   result
	external uint16
	lifetime uint32
	table    []string
}

func (w *world) peerSteps(client netip.Addr, steps []peerStep) {
	w.t.Helper()
	for _, tt := range steps {
		p := tt.wish.of(client)
		if tt.peer.IsValid() {
			p = tt.wish.peerOf(client, tt.peer)
		}
		got := w.pcpAsk(client, p)
		if got.result != byte(tt.result) || got.external != tt.external || got.lifetime != tt.lifetime {
			w.t.Errorf("%s: %v, port %d, %d s; want %v, %d, %d s", tt.name, result(got.result), got.external, got.lifetime, tt.result, tt.external, tt.lifetime)
		}
		if tt.peer.IsValid() && !bytes.HasPrefix(got.options, p[60:80]) {
			w.t.Errorf("%s: the peer in the reply is % x", tt.name, got.options)
		}
		if list := w.mappings(); !slices.Equal(list, tt.table) {
			w.t.Errorf("%s: the table has %q, want %q", tt.name, list, tt.table)
		}
	}
}

// TestPEER: PEER-1, by IPv4.
func TestPEER(t *testing.T) {
	const (
		made  = "PCP TCP port 6000 from 11.0.0.9 port 80 to 192.168.1.10 port 5000 "
		two   = "PCP TCP port 6000 from 11.0.0.9 port 81 to 192.168.1.10 port 5000 "
		three = "PCP TCP port 6000 from 11.0.1.9 port 80 to 192.168.1.10 port 5000 "
	)
	w := newWorld(t, nil)
	ask := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 6000}
	with := func(change func(*wish)) wish {
		m := ask
		change(&m)
		return m
	}
	elsewhere := with(func(m *wish) { m.external, m.address = 6001, uplink2 })
	w.peerSteps(ann, []peerStep{
		{"0 s of nothing makes nothing", with(func(m *wish) { m.lifetime = 0 }), far, success, 6000, 0, nil},
		{"another external address", elsewhere, far, cannotProvide, 6001, 30, nil},
		{"made", ask, far, success, 6000, 600, []string{made + "600 s"}},
		{"shorter", with(func(m *wish) { m.lifetime = 130 }), far, success, 6000, 599, []string{made + "599 s"}},
		{"0 s", with(func(m *wish) { m.lifetime = 0 }), far, success, 6000, 598, []string{made + "598 s"}},
		{"longer, and the suggestion is not read", with(func(m *wish) { m.lifetime, m.external, m.address = 700, 6001, uplink2 }), far, success, 6000, 700, []string{made + "700 s"}},
		{"another nonce", with(func(m *wish) { m.nonce = 2 }), far, notAuthorized, 6000, 699, []string{made + "699 s"}},
		{"another peer", with(func(m *wish) { m.external = 0 }), far2, success, 6000, 600, []string{made + "698 s", two + "600 s"}},
		{"a third with another wish", with(func(m *wish) { m.external = 6001 }), far3, cannotProvide, 6001, 30, []string{made + "697 s", two + "599 s"}},
		{"a third by another nonce", with(func(m *wish) { m.nonce = 3 }), far3, success, 6000, 600, []string{made + "696 s", two + "598 s", three + "600 s"}},
		{"another nonce for the second", with(func(m *wish) { m.nonce = 2 }), far2, notAuthorized, 6000, 597, []string{made + "695 s", two + "597 s", three + "599 s"}},
		{"the second longer", with(func(m *wish) { m.lifetime = 900 }), far2, success, 6000, 900, []string{made + "694 s", two + "900 s", three + "598 s"}},
		{"MAP-10 does not delete them", wish{nonce: 1, protocol: 6, internal: 5000}, netip.AddrPort{}, notAuthorized, 0, 693, []string{made + "693 s", two + "899 s", three + "597 s"}},
	})
	if got := w.ask(bob, wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 6000}.of(bob)); binary.BigEndian.Uint16(got[42:]) == 6000 {
		t.Error("another host has the port, too")
	}
}

// TestPEERBesideMAP: a MAP for the port of PEER's has the same external port, and its
// own nonce and end.
func TestPEERBesideMAP(t *testing.T) {
	const peers, wide = "PCP TCP port 6000 from 11.0.0.9 port 80 to 192.168.1.10 port 5000 ", "PCP TCP port 6000 to 192.168.1.10 port 5000 "
	w := newWorld(t, nil)
	none := netip.AddrPort{}
	ask := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 6000}
	mapping := wish{lifetime: 900, nonce: 2, protocol: 6, internal: 5000}
	failing, end, other, set := mapping, wish{nonce: 2, protocol: 6, internal: 5000}, ask, mapping
	failing.external, failing.options = 6001, [][]byte{option(2)}
	other.nonce = 2
	set.options = [][]byte{option(130, 0, 4, 0x13, 0x88, 0)}
	w.peerSteps(ann, []peerStep{
		{"made", ask, far, success, 6000, 600, []string{peers + "600 s"}},
		{"MAP elsewhere or not at all", failing, none, cannotProvide, 6001, 30, []string{peers + "599 s"}},
		{"MAP", mapping, none, success, 6000, 900, []string{peers + "598 s", wide + "900 s"}},
		{"PEER again", ask, far, success, 6000, 600, []string{peers + "600 s", wide + "899 s"}},
		{"and again", ask, far, success, 6000, 600, []string{peers + "600 s", wide + "898 s"}},
		{"MAP again", mapping, none, success, 6000, 900, []string{peers + "599 s", wide + "900 s"}},
		{"another peer needs nothing", other, far2, success, 6000, 899, []string{peers + "598 s", wide + "899 s"}},
		{"by its nonce", ask, far2, notAuthorized, 6000, 898, []string{peers + "597 s", wide + "898 s"}},
		{"MAP ends by its nonce", wish{nonce: 1, protocol: 6, internal: 5000}, none, notAuthorized, 0, 897, []string{peers + "596 s", wide + "897 s"}},
		{"MAP ends alone", end, none, success, 0, 0, []string{peers + "595 s"}},
		{"a PORT_SET gets the one port", set, none, success, 6000, 900, []string{peers + "594 s", wide + "900 s"}},
	})
}

// TestPEERBesideNATPMP: what is for one peer is nothing for NAT-PMP, which gets
// another external port.
func TestPEERBesideNATPMP(t *testing.T) {
	ask := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 6000}
	w := newWorld(t, nil)
	w.pcpAsk(ann, ask.peerOf(ann, far))
	if got := w.ask(ann, pmp(2, 5000, 6000, 600)); got[3] != 0 || binary.BigEndian.Uint16(got[10:]) == 6000 || w.table.Len() != 2 {
		t.Errorf("NAT-PMP does not share: % x, %v", got, w.mappings())
	}
	if got := w.ask(ann, pmp(2, 5000, 0, 0)); got[3] != 0 || len(w.mappings()) != 1 { // PMP-13
		t.Errorf("NAT-PMP ends its own: % x, %v", got, w.mappings())
	}
	if got := w.ask(ann, pmp(2, 5000, 0, 0)); got[3] != 0 || len(w.mappings()) != 1 {
		t.Errorf("for NAT-PMP there is nothing: % x, %v", got, w.mappings())
	}
}

// TestPEERQuota: each peer counts (SPEC 7.2).
func TestPEERQuota(t *testing.T) {
	w := newWorld(t, nil)
	ask := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000}
	n, last := 0, success
	for last == success && n < 2000 {
		n++
		last = result(w.pcpAsk(ann, ask.peerOf(ann, netip.AddrPortFrom(far.Addr(), uint16(n)))).result)
	}
	if last != userExQuota || n < 10 {
		t.Errorf("%d peers, then %v", n, last)
	}
}

// TestPEERFlow: a connection that is there keeps its external port, so that is the
// one in the reply (RFC 6887, section 12).
func TestPEERFlow(t *testing.T) {
	w := newWorld(t, nil)
	w.fw.Leaves(netip.AddrPortFrom(ann, 5000), far, 7000)
	w.fw.Leaves(netip.AddrPortFrom(ann, 5000), far3, 7001)
	w.fw.Leaves(netip.AddrPortFrom(ann, 5001), far, 1000)
	const made = "PCP TCP port 7000 from 11.0.0.9 port 80 to 192.168.1.10 port 5000 "
	ask := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000}
	wished, low := ask, ask
	wished.external, low.internal = 6000, 5001
	w.peerSteps(ann, []peerStep{
		{"another wish", wished, far, cannotProvide, 6000, 30, nil},
		{"its port", ask, far, success, 7000, 600, []string{made + "600 s"}},
		{"without a connection", ask, far2, success, 7000, 600, []string{made + "599 s", strings.Replace(made, "80", "81", 1) + "600 s"}},
		{"with a third port", ask, far3, cannotProvide, 0, 30, []string{made + "598 s", strings.Replace(made, "80", "81", 1) + "599 s"}},
		{"no port that is given", low, far, cannotProvide, 0, 30, []string{made + "597 s", strings.Replace(made, "80", "81", 1) + "598 s"}},
	})
	w.fw.Break(true)
	if got := w.pcpAsk(ann, wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5002}.peerOf(ann, far)); result(got.result) != noResources {
		t.Errorf("when the kernel does not answer: %v", result(got.result))
	}
}

// TestPEERFilter: a MAP with a FILTER is no PEER's, though it be for one peer: its
// filter outlives a renewal that does not name it.
func TestPEERFilter(t *testing.T) {
	w := newWorld(t, nil)
	const one, some = "PCP TCP port 6000 from 11.0.0.9 port 80 to 192.168.1.10 port 5000 ", "PCP TCP port 6000 from 11.0.0.0/24 to 192.168.1.10 port 5000 "
	beyond := strings.Replace(one, "11.0.0.9", "11.0.1.9", 1)
	ask := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 6000}
	filtered, wider := ask, ask
	filtered.options = [][]byte{filterOption(128, 80, "::ffff:11.0.0.9")}
	wider.options = [][]byte{filterOption(0, 0, "::"), filterOption(120, 0, "::ffff:11.0.0.0")}
	widest, open := ask, ask
	widest.options = [][]byte{filterOption(0, 0, "::"), filterOption(112, 0, "::ffff:11.0.0.0")}
	open.options = widest.options[:1]
	w.peerSteps(ann, []peerStep{
		{"made by MAP", filtered, netip.AddrPort{}, success, 6000, 600, []string{one + "600 s"}},
		{"the same peer", ask, far, success, 6000, 599, []string{one + "599 s"}},
		{"MAP-13 nothing said", ask, netip.AddrPort{}, success, 6000, 600, []string{one + "600 s"}},
		{"a prefix", wider, netip.AddrPort{}, success, 6000, 600, []string{some + "600 s"}},
		{"within it", ask, far2, success, 6000, 599, []string{some + "599 s"}},
		{"beyond it", ask, far3, success, 6000, 600, []string{some + "598 s", beyond + "600 s"}},
		{"a prefix with that in it", widest, netip.AddrPort{}, excessivePeers, 6000, 1800, []string{some + "597 s", beyond + "599 s"}},
		{"none", open, netip.AddrPort{}, success, 6000, 600, []string{strings.Replace(one, "from 11.0.0.9 port 80 ", "", 1) + "600 s", beyond + "598 s"}},
	})
	w = newWorld(t, nil) // and a MAP with a filter where PEER is
	wider.options = wider.options[1:]
	w.peerSteps(ann, []peerStep{
		{"made", ask, far, success, 6000, 600, []string{one + "600 s"}},
		{"MAP with a prefix around it", wider, netip.AddrPort{}, excessivePeers, 6000, 1800, []string{one + "599 s"}},
		{"MAP for the same peer", filtered, netip.AddrPort{}, success, 6000, 600, []string{one + "600 s"}},
		{"is no longer PEER's", wish{nonce: 1, protocol: 6, internal: 5000}, netip.AddrPort{}, success, 0, 0, nil},
	})
}

// TestPEEROthers: what other protocols made for the client is used, what is
// another's, ours or in use is not given; without a suggestion any port is.
func TestPEEROthers(t *testing.T) {
	w := newWorld(t, nil)
	w.used[7000] = true
	w.upnp(ann, portmap.TCP, 6000, 5001, 500*time.Second)
	w.upnp(bob, portmap.TCP, 6003, 5000, 500*time.Second)
	if got := w.ask(ann, pmp(2, 5002, 6002, 600)); got[3] != 0 {
		t.Fatalf("% x", got)
	}
	before := w.mappings()
	for _, tt := range []struct {
		name               string
		internal, external uint16
		result             result
		got                uint16
	}{
		{"UPnP's", 5001, 9000, success, 6000},
		{"NAT-PMP's", 5002, 9000, success, 6002},
		{"another's port", 5003, 6003, cannotProvide, 6003},
		{"in use", 5003, 7000, cannotProvide, 7000},
		{"MAP-7", 5003, 80, cannotProvide, 80},
		{"the rules", 80, 0, notAuthorized, 0},
	} {
		got := w.pcpAsk(ann, wish{lifetime: 900, nonce: 1, protocol: 6, internal: tt.internal, external: tt.external}.peerOf(ann, far))
		if got.result != byte(tt.result) || got.external != tt.got {
			t.Errorf("%s: %v, port %d; want %v, %d", tt.name, result(got.result), got.external, tt.result, tt.got)
		}
		if tt.result == success && (got.lifetime > 600 || got.address != uplink) {
			t.Errorf("%s: %d s at %v", tt.name, got.lifetime, got.address)
		}
	}
	if after := w.mappings(); len(after) != len(before) {
		t.Errorf("the table has %q", after)
	}
	if got := w.pcpAsk(ann, wish{lifetime: 1, nonce: 1, protocol: 6, internal: 6003}.peerOf(ann, far)); got.result != 0 || got.external < 1024 || got.external == 6003 || got.lifetime != 120 {
		t.Errorf("no suggestion: %+v", got) // MAP-9, too
	}
	if _, err := w.table.Map(portmap.Request{From: ann, Lease: time.Hour, Mapping: portmap.Mapping{Enabled: true, Origin: portmap.UPnP,
		Key: portmap.Key{Protocol: portmap.UDP, ExternalPort: 6100, RemoteHost: bob.Next()}, Client: ann, InternalPort: 5100}}); err != nil {
		t.Fatal(err)
	}
	if got := w.pcpAsk(ann, wish{lifetime: 600, nonce: 1, protocol: 17, internal: 5100}.peerOf(ann, far)); result(got.result) != cannotProvide {
		t.Errorf("UPnP's, for another remote host: %v", result(got.result))
	}
	if _, err := w.table.Map(portmap.Request{From: ann, Lease: time.Hour, Mapping: portmap.Mapping{Origin: portmap.UPnP,
		Key: portmap.Key{Protocol: portmap.UDP, ExternalPort: 6101}, Client: ann, InternalPort: 5101}}); err != nil {
		t.Fatal(err)
	}
	if got := w.pcpAsk(ann, wish{lifetime: 600, nonce: 1, protocol: 17, internal: 5101}.peerOf(ann, far)); result(got.result) != cannotProvide {
		t.Errorf("UPnP's, disabled: %v", result(got.result)) // WIP-12
	}
	w.setUplink(netip.Addr{})
	if got := w.pcpAsk(ann, wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5009}.peerOf(ann, far)); result(got.result) != networkFailure {
		t.Errorf("without an address: %v", result(got.result))
	}
}

// TestPEERRequest: what is wrong with it changes nothing (SPEC 7.2).
func TestPEERRequest(t *testing.T) {
	good := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000}
	for _, tt := range []struct {
		name   string
		peer   string
		result result
		change func(*wish)
		answer []byte
	}{
		{name: "port 0", peer: "11.0.0.9:0", result: malformedRequest},
		{name: "no address", peer: "0.0.0.0:80", result: malformedRequest},
		{name: "no address of IPv6", peer: "[::]:80", result: malformedRequest},
		{name: "multicast", peer: "224.0.0.1:80", result: malformedRequest},
		{name: "broadcast", peer: "255.255.255.255:80", result: malformedRequest},
		{name: "loopback", peer: "127.0.0.1:80", result: malformedRequest},
		{name: "itself", peer: "192.168.1.10:80", result: malformedRequest},
		{name: "the router", peer: "192.168.1.1:80", result: malformedRequest},
		{name: "the uplink", peer: "11.0.0.2:80", result: malformedRequest},
		{name: "the other family", peer: "[2001:db8::9]:80", result: malformedRequest},
		{name: "internal port 0", result: malformedRequest, change: func(m *wish) { m.internal = 0 }},
		{name: "0 s of internal port 0", result: malformedRequest, change: func(m *wish) { m.internal, m.lifetime = 0, 0 }},
		{name: "all protocols", result: malformedRequest, change: func(m *wish) { m.protocol = 0 }},
		{name: "SCTP", result: unsuppProtocol, change: func(m *wish) { m.protocol = 132 }},
		{name: "MAP-14 THIRD_PARTY", result: unsuppOption, change: func(m *wish) { m.options = [][]byte{option(1, unhex(ours)...)} }},
		{name: "MAP-14 THIRD_PARTY, the source", result: malformedRequest, change: func(m *wish) { m.options = [][]byte{option(1, unhex(annHex)...)} }},
		{name: "PREFER_FAILURE", result: unsuppOption, change: func(m *wish) { m.options = [][]byte{option(2)} }},
		{name: "FILTER", result: unsuppOption, change: func(m *wish) { m.options = [][]byte{filterOption(0, 0, "::")} }},
		{name: "unknown", result: unsuppOption, change: func(m *wish) { m.options = [][]byte{option(4)} }},
		{name: "malformed", result: malformedOption, change: func(m *wish) { m.options = [][]byte{{128, 0, 0, 5, 1, 2, 3, 4}} }},
		{name: "PORT_SET is MAP's", change: func(m *wish) { m.options = [][]byte{option(130, 0, 4, 0x13, 0x88, 0)} }},
		{name: "MAP-15", change: func(m *wish) { m.options = [][]byte{option(200), option(128, 'x')} }, answer: option(128, 'x')},
	} {
		w, m := newWorld(t, nil), good
		if tt.change != nil {
			tt.change(&m)
		}
		if tt.peer == "" {
			tt.peer = far.String()
		}
		p := m.peerOf(ann, netip.MustParseAddrPort(tt.peer))
		got := w.pcpAsk(ann, p)
		if got.result != byte(tt.result) || (w.table.Len() == 1) != (tt.result == success) {
			t.Errorf("%s: %v, want %v; the table has %v", tt.name, result(got.result), tt.result, w.mappings())
		}
		want := p[60:] // PCP-7
		if tt.result == success {
			want = slices.Concat(p[60:80], tt.answer)
		}
		if !bytes.Equal(got.options, want) {
			t.Errorf("%s: after the address % x, want % x", tt.name, got.options, want)
		}
	}
	for size := 24; size < 80; size += 4 {
		w := newWorld(t, nil)
		if got := w.ask(ann, good.peerOf(ann, far)[:size]); got[3] != byte(malformedRequest) || w.table.Len() != 0 { // PCP-4
			t.Errorf("%d bytes: %v", size, result(got[3]))
		}
	}
}

// TestPEERRestart: the table knows PEER's mappings again (PEER-1).
func TestPEERRestart(t *testing.T) {
	w := newWorld(t, nil)
	m := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000}
	w.pcpAsk(ann, m.peerOf(ann, far))
	w.pcpAsk(ann, m.peerOf(ann, far2))
	f := portmap.LeaseFile{Path: t.TempDir() + "/leases", BootID: "boot", Now: w.time}
	if err := f.Write(w.table.List()); err != nil {
		t.Fatal(err)
	}
	all, bad, err := f.Read(10)
	if err != nil || bad != nil || !slices.Equal(all, w.table.List()) {
		t.Fatalf("read %+v, %v, %v, want %+v", all, bad, err, w.table.List())
	}
	next := newWorld(t, nil)
	if dropped := next.table.Restore(all); dropped != nil {
		t.Fatal(dropped)
	}
	next.table.Sync()
	if got := next.pcpAsk(ann, m.of(ann)); got.result != 0 || next.table.Len() != 3 {
		t.Errorf("a MAP beside: %+v, %v", got, next.mappings())
	}
	all[0].RemotePort = 0
	if dropped := newWorld(t, nil).table.Restore(all); len(dropped) != 1 {
		t.Error("PEER's without a port comes back")
	}
}
