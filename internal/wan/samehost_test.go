package wan

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

func TestTogether(t *testing.T) {
	s := State{LANs: []LAN{
		{Name: "gone"},
		{Name: "a", Index: 3, Prefixes: prefixes("10.0.0.1/24"), Prefixes6: prefixes("2001:db8:a::1/64", "fe80::1/64")},
		{Name: "b", Index: 4, Prefixes: prefixes("10.1.0.1/24"), Prefixes6: prefixes("2001:db8:b::1/64", "2001:db8:a::2/128", "fe80::1/64")},
	}}
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"10.0.0.9", "2001:db8:a::9", 3},
		{"10.1.0.9", "2001:db8:b::9", 4},
		{"10.1.0.9", "fe80::9%b", 4},
		{"2001:db8:a::9", "fe80::9%a", 3},
		{"2001:db8:a::9", "fe80::9%b", 0}, // of a host on another LAN
		{"2001:db8:a::9", "fe80::9", 0},   // of any
		{"2001:db8:a::9", "fe80::9%gone", 0},
		{"2001:db8:a::9", "fe80::1%a", 0}, // the router's own
		{"10.0.0.9", "10.0.0.9", 3},
		{"10.0.0.9", "2001:db8:b::9", 0},
		{"10.0.0.9", "2001:db8:c::9", 0},
		{"10.0.0.9", "2001:db8:a::1", 0}, // the router's own
		{"10.0.0.9", "2001:db8:a::2", 0}, // its own on another device
		{"10.0.0.1", "10.0.0.1", 0},
		{"10.0.0.9", "ff02::1", 0},
		{"ff02::1", "ff02::1", 0},
		{"224.0.0.1", "2001:db8:a::9", 0},
		{"192.0.2.1", "192.0.2.1", 0},
		{"10.0.0.9", "::ffff:10.0.0.9", 0},
	} {
		a, b := netip.MustParseAddr(test.a), netip.MustParseAddr(test.b)
		if x, y := s.together(a, b), s.together(b, a); x != test.want || y != test.want {
			t.Errorf("%s, %s: %d and %d, want %d", a, b, x, y, test.want)
		}
	}
	if got := s.together(netip.Addr{}, netip.Addr{}); got != 0 {
		t.Errorf("the zero Addr: %d", got)
	}
}

// What an event says of 10.0.0.9 on device 7, of which 02:...:01 was known.
func TestHear(t *testing.T) {
	dst := netlink.Attribute{Type: unix.NDA_DST, Data: []byte{10, 0, 0, 9}}
	other := netlink.Attribute{Type: unix.NDA_DST, Data: []byte{10, 0, 0, 8}}
	mac := netlink.Attribute{Type: unix.NDA_LLADDR, Data: []byte{2, 0, 0, 0, 0, 9}}
	group := netlink.Attribute{Type: unix.NDA_LLADDR, Data: []byte{255, 255, 255, 255, 255, 255}}
	bridge := neighborBytes(t, 7, unix.NUD_REACHABLE, attrs{dst, mac})
	bridge[0] = unix.AF_BRIDGE
	for what, test := range map[string]struct {
		typ  netlink.HeaderType
		data []byte
		want byte
	}{
		"reachable":     {unix.RTM_NEWNEIGH, neighborBytes(t, 7, unix.NUD_REACHABLE, attrs{dst, mac}), 9},
		"failed":        {unix.RTM_NEWNEIGH, neighborBytes(t, 7, unix.NUD_FAILED, attrs{dst, mac}), 0},
		"incomplete":    {unix.RTM_NEWNEIGH, neighborBytes(t, 7, unix.NUD_INCOMPLETE, attrs{dst}), 0},
		"broadcast":     {unix.RTM_NEWNEIGH, neighborBytes(t, 7, unix.NUD_NOARP, attrs{dst, group}), 0},
		"forgotten":     {unix.RTM_DELNEIGH, neighborBytes(t, 7, unix.NUD_REACHABLE, attrs{dst, mac}), 1},
		"other device":  {unix.RTM_NEWNEIGH, neighborBytes(t, 8, unix.NUD_REACHABLE, attrs{dst, mac}), 1},
		"other address": {unix.RTM_NEWNEIGH, neighborBytes(t, 7, unix.NUD_REACHABLE, attrs{other, mac}), 1},
		"of a bridge":   {unix.RTM_NEWNEIGH, bridge, 1},
	} {
		p := pair{index: 7, addrs: [2]netip.Addr{netip.MustParseAddr("fd00::9"), netip.MustParseAddr("10.0.0.9")}}
		p.macs[1] = [6]byte{2, 0, 0, 0, 0, 1}
		err := p.hear(netlink.Message{Header: netlink.Header{Type: test.typ}, Data: test.data})
		if err != nil || p.macs[1][5] != test.want || p.macs[0] != [6]byte{} || p.known() {
			t.Errorf("%s: %v, %v; want %d", what, p.macs, err, test.want)
		}
	}
	if new(pair).hear(netlink.Message{Header: netlink.Header{Type: unix.RTM_NEWNEIGH}}) == nil {
		t.Error("an empty event: no error")
	}
}

// The addresses of the hosts in followHome6.
const (
	gua1, ula1, gua2 = "2001:db8:77::10", "fd00:77::10", "2001:db8:77::20"
	four1            = "192.168.77.11" // a second one
)

// followHome6 is followHome with IPv6 on the LAN, and a temporary address of
// the first host. Nobody has talked yet.
func followHome6(t *testing.T) (h *home, temporary string) {
	t.Helper()
	h = followHome(t)
	h.LAN1.Run(t, "sysctl", "net.ipv6.conf."+lab.HostDev+".accept_dad=0", "net.ipv6.conf."+lab.HostDev+".use_tempaddr=2")
	for _, cmd := range []struct {
		host *lab.Host
		line string
	}{
		{h.Router, "addr add fe80::77/64 nodad dev " + lab.LANDev},
		{h.Router, "addr add 2001:db8:77::1/64 nodad dev " + lab.LANDev},
		{h.Router, "addr add fd00:77::1/64 nodad dev " + lab.LANDev},
		{h.LAN1, "addr add " + gua1 + "/64 nodad mngtmpaddr valid_lft 10000 preferred_lft 5000 dev " + lab.HostDev},
		{h.LAN1, "addr add " + ula1 + "/64 nodad dev " + lab.HostDev},
		{h.LAN1, "addr add " + four1 + "/24 dev " + lab.HostDev},
		{h.LAN2, "addr add " + gua2 + "/64 nodad dev " + lab.HostDev},
	} {
		cmd.host.Run(t, "ip", strings.Fields(cmd.line)...)
	}
	words := strings.Fields(h.LAN1.Run(t, "ip", "-6", "-o", "addr", "show", "temporary", "dev", lab.HostDev))
	if len(words) < 4 {
		t.Fatalf("no temporary address: %q", words)
	}
	temporary, _, _ = strings.Cut(words[3], "/")
	if err := h.f.refresh(func(State) {}); err != nil {
		t.Fatal(err)
	}
	// A new network may lose the first packets; the next ones take a second.
	for _, a := range []string{lab.LAN1Addr, four1, lab.LAN2Addr, gua1, ula1, gua2, temporary} {
		h.resolve(a)
		h.until(a, NeighborReachable)
	}
	h.router("neigh flush dev " + lab.LANDev)
	return h, temporary
}

// same is SameHost in the router's namespace, both ways round.
func (h *home) same(a, b string) bool {
	h.t.Helper()
	var there, back bool
	if err := h.Router.Do(func() error {
		there = h.f.SameHost(netip.MustParseAddr(a), netip.MustParseAddr(b))
		back = h.f.SameHost(netip.MustParseAddr(b), netip.MustParseAddr(a))
		return nil
	}); err != nil {
		h.t.Fatal(err)
	}
	if there != back {
		h.t.Errorf("%s and %s: %t, the other way round %t", a, b, there, back)
	}
	return there
}

// SPEC PIN-9: a host is known by its MAC, whatever address it asks from.
func TestSameHost(t *testing.T) {
	h, temporary := followHome6(t)
	for _, pair := range [][2]string{
		{lab.LAN1Addr, gua1}, {temporary, gua1}, {ula1, gua1}, {ula1, temporary}, {lab.LAN1Addr, four1},
	} {
		h.router("neigh flush dev " + lab.LANDev)
		if !h.same(pair[0], pair[1]) {
			t.Errorf("%v are one host's: %+v", pair, h.neighbors())
		}
	}
	for _, other := range []string{gua2, lab.LAN2Addr, "2001:db8:77::1", "fe80::77", lab.RouterLANAddr, "ff02::1", "2001:db8:99::1", "11.0.0.1"} {
		if h.same(gua1, other) {
			t.Errorf("%s and %s are not one host's: %+v", gua1, other, h.neighbors())
		}
	}
	if !h.same(gua1, gua1) || h.same("2001:db8:99::1", "2001:db8:99::1") || h.same("fd00:77::1", "fd00:77::1") {
		t.Error("an address is its own host's when it is on-link and not the router's")
	}

	h.router("neigh replace " + ula1 + " dev " + lab.LANDev + " lladdr 02:00:00:00:00:66 nud permanent")
	if h.same(ula1, gua1) {
		t.Error("another MAC, the same host")
	}
	h.router("neigh replace " + ula1 + " dev " + lab.LANDev + " lladdr 02:00:00:00:00:66 nud stale")
	if h.same(ula1, gua1) {
		t.Error("another MAC that was known once, the same host")
	}
	if err := h.f.Close(); err != nil {
		t.Fatal(err)
	}
	if h.same(lab.LAN1Addr, gua1) {
		t.Error("after Close: true")
	}
}

// Who cannot be found costs a second, and only four callers at a time.
func TestSameHostBounds(t *testing.T) {
	h, _ := followHome6(t)
	const absent = "2001:db8:77::99"
	gua, nobody := netip.MustParseAddr(gua1), netip.MustParseAddr(absent)
	one := func() (same bool, took time.Duration) {
		began := time.Now()
		if err := h.Router.Do(func() error { same = h.f.SameHost(gua, nobody); return nil }); err != nil {
			t.Error(err)
		}
		return same, time.Since(began)
	}
	if same, took := one(); same || took < askTime/2 || took > askTime+aWhile {
		t.Errorf("absent: %t after %v", same, took)
	}
	if n := h.neighbor(absent); n.Addr != nobody {
		t.Errorf("nobody asked for %s", absent)
	}
	if !h.same(lab.LAN1Addr, gua1) { // both are known from now on
		t.Fatal("one host's addresses")
	}
	h.f.asking.Add(askMost)
	if same, took := one(); same || took > askTime/2 {
		t.Errorf("the fifth: %t after %v", same, took)
	}
	if !h.same(lab.LAN1Addr, gua1) {
		t.Error("what is known needs no room")
	}
	h.f.asking.Add(-1)
	if same, took := one(); same || took < askTime/2 {
		t.Errorf("room again: %t after %v", same, took)
	}
	if n := h.f.asking.Load(); n != askMost-1 {
		t.Errorf("%d wait; they never leave", n)
	}
}
