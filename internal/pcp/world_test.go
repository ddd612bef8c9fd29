package pcp

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/portmap/portmaptest"
	"github.com/linux-igd/upnpd/internal/sock"
	"github.com/linux-igd/upnpd/internal/wan"
)

const lanIndex = 7

var (
	router   = netip.MustParseAddr("192.168.1.1")
	ann      = netip.MustParseAddr("192.168.1.10")
	bob      = netip.MustParseAddr("192.168.1.11")
	uplink   = netip.MustParseAddr("11.0.0.2")
	uplink2  = netip.MustParseAddr("11.0.0.3")
	router6  = netip.MustParseAddr("2001:db8:1::1")
	routerLL = netip.MustParseAddr("fe80::1")
	ann6     = netip.MustParseAddr("2001:db8:1::10")
	annLL    = netip.MustParseAddr("fe80::10")
	any4     = netip.IPv4Unspecified()
)

// world is a Server that is asked without a socket, and a table with a kernel of
// the test.
type world struct {
	*Server
	t     testing.TB
	table *portmap.Table
	fw    *portmaptest.Firewall
	used  map[uint16]bool // by the router itself

	mu    sync.Mutex
	clock time.Duration
	state wan.State
	log   []string
}

// newWorld makes the world; change may adapt what is served and how.
func newWorld(t testing.TB, change func(*world, *Config, *LAN, *portmap.Policy)) *world {
	w := &world{t: t, fw: portmaptest.New(t), clock: 1000 * time.Second, used: map[uint16]bool{}}
	lan := wan.LAN{Name: "br-lan", Index: lanIndex, Up: true,
		Prefixes:  []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")},
		Prefixes6: []netip.Prefix{netip.MustParsePrefix("2001:db8:1::1/64"), netip.MustParsePrefix("fe80::1/64")}}
	w.state = wan.State{Uplink: wan.Uplink{Name: "wan", Index: 2, Up: true, Addr: uplink}, LANs: []wan.LAN{lan}}
	home := portmap.Network{External: uplink, LANs: slices.Concat(lan.Prefixes, lan.Prefixes6)}
	policy := portmap.Policy{Secure: true, MaxLease: 604800 * time.Second, MaxMappings: 20, MaxPerClient: 10}
	cfg := Config{State: w.now, NATPMP: true, PCP: true, MinLease: 120 * time.Second, MaxLease: 86400 * time.Second,
		Now: w.time, Logf: w.logf}
	at := LAN{Addr: router, IfIndex: lanIndex, OnLink: home.OnLink}
	if change != nil {
		change(w, &cfg, &at, &policy)
	}
	w.table = portmap.New(portmap.Config{Firewall: w.fw, Policy: policy, Now: cfg.Now, Logf: w.logf,
		InUse: func(_ portmap.Protocol, port uint16) (bool, error) { return w.used[port], nil }})
	if err := w.table.SetNetwork(home); err != nil {
		t.Fatal(err)
	}
	cfg.Table, cfg.Epoch = w.table, NewEpoch(cfg.Now)
	w.Server = New(cfg, at, nil)
	return w
}

func ipv6(_ *world, _ *Config, lan *LAN, _ *portmap.Policy) { lan.Addr, lan.IPv6 = routerLL, true }

func (w *world) now() wan.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

func (w *world) time() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) logf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// setUplink gives the uplink another address; the zero Addr takes it away.
func (w *world) setUplink(a netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.Uplink.Addr = a
}

func packet(src, dst netip.Addr) *sock.Packet {
	return &sock.Packet{Src: netip.AddrPortFrom(src, 4000), Dst: dst, IfIndex: lanIndex}
}

// ask lets src send p to the router.
func (w *world) ask(src netip.Addr, p []byte) []byte {
	dst := router
	if src.Is6() {
		dst = router6
	}
	w.clock += time.Second // no limit is reached by asking slowly
	return w.receive(p, packet(src, dst))
}

// reply is a response as a client reads it.
type reply struct {
	result             byte
	lifetime, epoch    uint32
	internal, external uint16
	address            netip.Addr
	options            []byte
}

// pcpAsk asks by PCP, and wants a response of the right form.
func (w *world) pcpAsk(src netip.Addr, p []byte) reply {
	w.t.Helper()
	r := w.ask(src, p)
	if len(r) < 24 || len(r)%4 != 0 || r[0] != 2 || r[1] != p[1]|0x80 || r[2] != 0 {
		w.t.Fatalf("reply % x to % x", r, p)
	}
	if len(r) >= 60 && (string(r[24:37]) != string(p[24:37]) || string(r[40:42]) != string(p[40:42])) { // MAP-2
		w.t.Errorf("nonce, protocol or internal port of % x is not that of % x", r, p)
	}
	return read(r)
}

func read(r []byte) reply {
	got := reply{result: r[3], lifetime: binary.BigEndian.Uint32(r[4:]), epoch: binary.BigEndian.Uint32(r[8:])}
	if len(r) >= 60 {
		got.internal, got.external = binary.BigEndian.Uint16(r[40:]), binary.BigEndian.Uint16(r[42:])
		got.address, got.options = netip.AddrFrom16([16]byte(r[44:60])).Unmap(), r[60:]
	}
	return got
}

// header is that of a PCP request.
func header(op byte, lifetime uint32, client netip.Addr) []byte {
	p := binary.BigEndian.AppendUint32([]byte{2, op, 0, 0}, lifetime)
	a := client.As16()
	return append(p, a[:]...)
}

// wish is a MAP request; what is zero is left out.
type wish struct {
	lifetime           uint32
	nonce, protocol    byte
	internal, external uint16
	address            netip.Addr
	options            [][]byte
}

func (m wish) of(client netip.Addr) []byte {
	p := append(header(1, m.lifetime, client), strings.Repeat(string(rune(m.nonce)), 12)...)
	p = append(p, m.protocol, 0, 0, 0)
	p = binary.BigEndian.AppendUint16(p, m.internal)
	p = binary.BigEndian.AppendUint16(p, m.external)
	if !m.address.IsValid() {
		m.address = netip.IPv6Unspecified()
	}
	a := m.address.As16()
	return slices.Concat(append([][]byte{append(p, a[:]...)}, m.options...)...)
}

// option is one with its padding.
func option(code byte, data ...byte) []byte {
	p := append([]byte{code, 0, byte(len(data) >> 8), byte(len(data))}, data...)
	for len(p)%4 != 0 {
		p = append(p, 0)
	}
	return p
}

// filterOption is a FILTER.
func filterOption(bits byte, port uint16, host string) []byte {
	a := netip.MustParseAddr(host).As16()
	return option(3, append([]byte{0, bits, byte(port >> 8), byte(port)}, a[:]...)...)
}

// pmp is a NAT-PMP mapping request.
func pmp(op byte, internal, external uint16, lifetime uint32) []byte {
	p := binary.BigEndian.AppendUint16([]byte{0, op, 0, 0}, internal)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(p, external), lifetime)
}

// unhex reads bytes written as hex, with blanks between fields.
func unhex(s string) []byte {
	p, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return p
}

// mappings is the table in words.
func (w *world) mappings() (list []string) {
	for _, m := range w.table.List() {
		list = append(list, fmt.Sprintf("%v %v %d s", m.Origin, m, w.remaining(&m)))
	}
	return list
}

func (w *world) want(list ...string) {
	w.t.Helper()
	if got := w.mappings(); !slices.Equal(got, list) {
		w.t.Errorf("the table has %q, want %q", got, list)
	}
}

// upnp makes a mapping as UPnP does.
func (w *world) upnp(client netip.Addr, p portmap.Protocol, external, internal uint16, lease time.Duration) {
	w.t.Helper()
	_, err := w.table.Map(portmap.Request{From: client, Lease: lease, Mapping: portmap.Mapping{
		Key: portmap.Key{Protocol: p, ExternalPort: external}, Client: client, InternalPort: internal,
		Enabled: true, Origin: portmap.UPnP}})
	if err != nil {
		w.t.Fatal(err)
	}
}
