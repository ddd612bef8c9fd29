package pcp

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
	"github.com/linux-igd/upnpd/internal/wan"
)

// TestVersions: PMP-1, PCP-3, PCP-9, for each choice of protocols. A reply is
// written as its version, opcode, result and length.
func TestVersions(t *testing.T) {
	v0, v0map := []byte{0, 0}, pmp(1, 5000, 5000, 60)
	v1, v1long, v3 := []byte{1, 0}, append([]byte{1, 1}, make([]byte, 58)...), []byte{3, 5, 9}
	v2 := header(0, 0, ann)
	type row map[string]string // by "v0", "v0map", ...
	for _, tt := range []struct {
		natpmp, pcp, six bool
		want             row
	}{
		{true, true, false, row{"v0": "0 128 0 12", "v0map": "0 129 0 16", "v1": "2 128 1 24", "v1long": "2 129 1 60", "v2": "2 128 0 24", "v3": "2 133 1 24"}},
		{true, false, false, row{"v0": "0 128 0 12", "v0map": "0 129 0 16", "v1": "0 128 1 8", "v1long": "0 128 1 8", "v2": "0 128 1 8", "v3": "0 128 1 8"}},
		{false, true, false, row{"v0": "2 128 1 24", "v0map": "2 129 1 24", "v1": "2 128 1 24", "v1long": "2 129 1 60", "v2": "2 128 0 24", "v3": "2 133 1 24"}},
		{false, false, false, row{}},
		{true, true, true, row{"v0": "2 128 1 24", "v0map": "2 129 1 24", "v1": "2 128 1 24", "v1long": "2 129 1 60", "v2": "2 128 0 24", "v3": "2 133 1 24"}},
		{false, true, true, row{"v0": "2 128 1 24", "v0map": "2 129 1 24", "v1": "2 128 1 24", "v1long": "2 129 1 60", "v2": "2 128 0 24", "v3": "2 133 1 24"}},
		{true, false, true, row{}}, // NAT-PMP is of IPv4
		{false, false, true, row{}},
	} {
		w := newWorld(t, func(w *world, cfg *Config, lan *LAN, p *portmap.Policy) {
			if cfg.NATPMP, cfg.PCP = tt.natpmp, tt.pcp; tt.six {
				ipv6(w, cfg, lan, p)
			}
		})
		client := ann
		if tt.six {
			client, v2 = ann6, header(0, 0, ann6)
		}
		for name, request := range map[string][]byte{"v0": v0, "v0map": v0map, "v1": v1, "v1long": v1long, "v2": v2, "v3": v3} {
			got := ""
			if r := w.ask(client, request); r != nil {
				got = join(int(r[0]), int(r[1]), int(r[2])<<8|int(r[3]), len(r))
				if r[3] == 1 && r[0] == 2 && read(r).lifetime != 1800 {
					t.Errorf("%s: lifetime of UNSUPP_VERSION: % x", name, r)
				}
			}
			if got != tt.want[name] {
				t.Errorf("NAT-PMP %v, PCP %v, IPv6 %v: reply to %s is %q, want %q", tt.natpmp, tt.pcp, tt.six, name, got, tt.want[name])
			}
		}
	}
}

func join(numbers ...int) string {
	var words []string
	for _, n := range numbers {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, " ")
}

// TestAdmits: who is answered (PMP-7, PCP-1, PMP-16). Everybody asks for a mapping.
func TestAdmits(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*sock.Packet)
		ok     bool
	}{
		{"a host of the LAN", func(*sock.Packet) {}, true},
		{"the uplink", func(p *sock.Packet) { p.IfIndex = 2 }, false},
		{"to the WAN address", func(p *sock.Packet) { p.Dst = uplink }, false},
		{"to all hosts", func(p *sock.Packet) { p.Dst = netip.MustParseAddr("224.0.0.1") }, false},
		{"to the broadcast address", func(p *sock.Packet) { p.Dst = netip.MustParseAddr("192.168.1.255") }, false},
		{"to everybody", func(p *sock.Packet) { p.Dst = netip.MustParseAddr("255.255.255.255") }, false},
		{"from another network", func(p *sock.Packet) { p.Src = netip.MustParseAddrPort("192.168.2.10:4000") }, false},
		{"from the internet", func(p *sock.Packet) { p.Src = netip.MustParseAddrPort("8.8.8.8:4000") }, false},
		{"from the router", func(p *sock.Packet) { p.Src = netip.MustParseAddrPort("192.168.1.1:4000") }, false},
		{"from the broadcast address", func(p *sock.Packet) { p.Src = netip.MustParseAddrPort("192.168.1.255:4000") }, false},
		{"from nowhere", func(p *sock.Packet) { p.Src = netip.MustParseAddrPort("0.0.0.0:4000") }, false},
		{"from port 0", func(p *sock.Packet) { p.Src = netip.AddrPortFrom(ann, 0) }, false},
		{"to another LAN's address", func(p *sock.Packet) { p.Dst = netip.MustParseAddr("10.9.0.1") }, true},
	} {
		w := newWorld(t, nil)
		w.state.LANs = append(w.state.LANs, wan.LAN{Name: "guest", Index: 8, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}})
		p := packet(ann, router)
		tt.change(p)
		for _, request := range [][]byte{pmp(1, 5000, 5000, 60), wish{lifetime: 60, protocol: 6, internal: 5001}.of(ann)} {
			if got := w.receive(request, p); (got != nil) != tt.ok || (w.table.Len() > 0) != tt.ok {
				t.Errorf("%s: % x, and the table has %v", tt.name, got, w.mappings())
			}
		}
	}
}

// TestAddressMismatch: a host asks only for itself (PCP-5), also with ANNOUNCE.
func TestAddressMismatch(t *testing.T) {
	w := newWorld(t, nil)
	for _, p := range [][]byte{header(0, 0, bob), wish{lifetime: 60, protocol: 6, internal: 5000}.of(bob), header(9, 0, bob)} {
		if got := w.pcpAsk(ann, p); result(got.result) != addressMismatch || got.lifetime != 1800 {
			t.Errorf("%v, %d s", result(got.result), got.lifetime)
		}
	}
	w.want()
}

// TestFlood: PCP-10. One source has a burst and then its rate; others are not
// harmed until all together are too many. The log says it once in a while.
func TestFlood(t *testing.T) {
	w := newWorld(t, nil)
	answers := func(src netip.Addr, n int) (got int) {
		for range n {
			if w.receive([]byte{0, 0}, packet(src, router)) != nil {
				got++
			}
		}
		return got
	}
	for _, tt := range []struct {
		after time.Duration
		src   netip.Addr
		ask   int
		want  int
	}{
		{0, ann, 1000, 256},
		{0, bob, 10, 10},
		{40 * time.Millisecond, ann, 1000, 10},
		{3 * time.Millisecond, ann, 1000, 0},
		{time.Hour, ann, 1000, 256},
		{0, bob, 1000, 256},
		{0, bob.Next(), 1000, 16}, // 512 together, and what each has in need
		{0, bob.Next().Next(), 1000, 16},
		{100 * time.Millisecond, bob.Next(), 1000, 68},
		{100 * time.Millisecond, ann, 1000, 50},
		{56 * time.Millisecond, bob.Next(), 1000, 106 + 1},
	} {
		w.clock += tt.after
		if got := answers(tt.src, tt.ask); got != tt.want {
			t.Errorf("%v later %v gets %d answers, want %d", tt.after, tt.src, got, tt.want)
		}
	}
	if len(w.log) != 2 || !strings.Contains(w.log[0], "192.168.1.10:4000: too many requests") {
		t.Errorf("log: %q", w.log)
	}
}

// TestFloodOfSets: PCP-10. A PORT_SET counts as its ports do, 64 at most, and what is
// too much leaves nothing behind.
func TestFloodOfSets(t *testing.T) {
	w := newWorld(t, func(_ *world, _ *Config, _ *LAN, p *portmap.Policy) { p.MaxMappings, p.MaxPerClient = 1000, 1000 })
	ask := func(internal uint16, size byte) byte {
		m := wish{lifetime: 600, nonce: 1, protocol: 17, internal: internal, options: [][]byte{option(130, size, 0, 0, 0, 0)}}
		return w.receive(m.of(ann), packet(ann, router))[3]
	}
	for i := range uint16(4) {
		if r := ask(5000+64*i, 255); r != byte(success) { // 65280 ports
			t.Fatalf("set %d: %v", i, result(r))
		}
	}
	w.clock += 63 * sourceEvery
	if r := ask(6000, 255); r != byte(noResources) || w.table.Len() != 4 {
		t.Errorf("%v, %v", result(r), w.mappings())
	}
	w.clock += 2 * sourceEvery // one was for that answer
	if r := ask(6000, 255); r != byte(success) || w.table.Len() != 5 {
		t.Errorf("%v, %v", result(r), w.mappings())
	}
}

// TestSources: the addresses that are remembered stay few.
func TestSources(t *testing.T) {
	l, src := limiter{sources: map[netip.Addr]source{}}, ann6
	for i := range 1000 {
		if src = src.Next(); !l.allow(time.Duration(i)*globalEvery, src, 1) {
			t.Fatalf("source %d gets no answer", i)
		}
		if len(l.sources) > maxSources {
			t.Fatalf("%d sources remembered", len(l.sources))
		}
	}
}
