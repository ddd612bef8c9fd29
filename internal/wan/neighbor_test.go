package wan

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// neighborBytes makes struct ndmsg with attributes.
func neighborBytes(t testing.TB, index int32, nud uint16, a attrs) []byte {
	t.Helper()
	head := make([]byte, unix.SizeofNdMsg)
	head[0] = unix.AF_INET
	nlenc.PutInt32(head[4:8], index)
	nlenc.PutUint16(head[8:10], nud)
	return withAttrs(t, head, a)
}

func TestParseNeighbor(t *testing.T) {
	dst := netlink.Attribute{Type: unix.NDA_DST, Data: []byte{10, 0, 0, 9}}
	mac := netlink.Attribute{Type: unix.NDA_LLADDR, Data: []byte{2, 0, 0, 0, 0, 9}}
	tunnel := netlink.Attribute{Type: unix.NDA_LLADDR, Data: []byte{10, 0, 0, 9}}
	for what, test := range map[string]struct {
		nud   uint16
		attrs attrs
		mac   byte
		want  NeighborState
	}{
		"NONE":                {unix.NUD_NONE, attrs{dst}, 0, NeighborUnknown},
		"INCOMPLETE":          {unix.NUD_INCOMPLETE, attrs{dst}, 0, NeighborUnknown},
		"REACHABLE":           {unix.NUD_REACHABLE, attrs{dst, mac}, 9, NeighborReachable},
		"STALE":               {unix.NUD_STALE, attrs{dst, mac}, 9, NeighborReachable},
		"DELAY":               {unix.NUD_DELAY, attrs{dst, mac}, 9, NeighborReachable},
		"PROBE":               {unix.NUD_PROBE, attrs{dst, mac}, 9, NeighborReachable},
		"PERMANENT":           {unix.NUD_PERMANENT, attrs{dst, mac}, 9, NeighborReachable},
		"NOARP":               {unix.NUD_NOARP, attrs{dst, mac}, 9, NeighborReachable},
		"NOARP without a MAC": {unix.NUD_NOARP, attrs{dst, tunnel}, 0, NeighborUnknown},
		"FAILED":              {unix.NUD_FAILED, attrs{dst}, 0, NeighborFailed},
		"FAILED, old MAC":     {unix.NUD_FAILED, attrs{dst, mac}, 9, NeighborFailed},
		"a later state":       {0x400, attrs{dst, mac}, 9, NeighborUnknown},
	} {
		want := Neighbor{Addr: netip.MustParseAddr("10.0.0.9"), Index: 7, State: test.want}
		if test.mac != 0 {
			want.MAC = [6]byte{2, 0, 0, 0, 0, test.mac}
		}
		if got, err := parseNeighbor(neighborBytes(t, 7, test.nud, test.attrs)); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", what, got, err, want)
		}
	}
	if n, err := parseNeighbor(neighborBytes(t, 7, unix.NUD_STALE, attrs{mac})); n.Addr.IsValid() || err != nil {
		t.Errorf("no address: %+v, %v", n, err)
	}
	for what, b := range map[string][]byte{
		"empty":         nil,
		"short head":    make([]byte, unix.SizeofNdMsg-1),
		"cut attribute": append(make([]byte, unix.SizeofNdMsg), 0xff, 0, 1, 0, 10),
	} {
		if n, err := parseNeighbor(b); err == nil {
			t.Errorf("%s: %+v", what, n)
		}
	}
}

// FuzzParseNeighbor: whatever the kernel says of a host or a route, reading it ends,
// what is read is in it, and nobody is reachable without a MAC who needs one.
func FuzzParseNeighbor(f *testing.F) {
	dst := netlink.Attribute{Type: unix.NDA_DST, Data: []byte{10, 0, 0, 9}}
	mac := netlink.Attribute{Type: unix.NDA_LLADDR, Data: []byte{2, 0, 0, 0, 0, 9}}
	for _, nud := range []uint16{0, unix.NUD_STALE, unix.NUD_FAILED, unix.NUD_NOARP, 0xffff} {
		f.Add(neighborBytes(f, 7, nud, attrs{dst, mac}))
		f.Add(neighborBytes(f, -1, nud, attrs{dst}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for n := range min(len(b), unix.SizeofNdMsg+8) { // cut, with nothing behind
			_, _ = parseNeighbor(b[:n:n])
			_, _ = parseRoute(b[:n:n])
		}
		if n, err := parseNeighbor(b); err == nil {
			nud := nlenc.Uint16(b[8:10])
			if n.State > NeighborFailed || n.Addr.Zone() != "" || n.Addr.IsValid() && !bytes.Contains(b, n.Addr.AsSlice()) || !bytes.Contains(b, n.MAC[:]) && n.MAC != [6]byte{} ||
				n.State == NeighborReachable && nud&^unix.NUD_NOARP == 0 && n.MAC == [6]byte{} || (nud == 0 && n.State != NeighborUnknown) {
				t.Errorf("%x is %+v", b, n)
			}
		}
		if index, err := parseRoute(b); err == nil && index == 0 {
			t.Errorf("%x is a route by no device", b)
		}
	})
}

// home is a Follower on the router of a lab, and its neighbour events.
type home struct {
	*lab.Lab
	f      *Follower
	events *netlink.Conn
	t      *testing.T
}

func followHome(t *testing.T) *home {
	t.Helper()
	h := &home{Lab: lab.Start(t), t: t}
	err := h.Router.Do(func() (err error) {
		if h.f, err = Follow(Uplink{Name: lab.WANDev}, []string{"nosuch9", lab.LANDev}, new(bootClock).now, t.Logf); err != nil {
			return err
		}
		h.events, err = netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: 1 << (unix.RTNLGRP_NEIGH - 1)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(h.f.Close(), h.events.Close()) })
	if err := h.events.SetReadDeadline(time.Now().Add(2 * aWhile)); err != nil {
		t.Fatal(err)
	}
	return h
}

// router runs ip(8) on the router with the words of each line.
func (h *home) router(lines ...string) {
	h.t.Helper()
	for _, line := range lines {
		h.Router.Run(h.t, "ip", strings.Fields(line)...)
	}
}

func (h *home) neighbors() []Neighbor {
	h.t.Helper()
	all, err := h.f.Neighbors()
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

// neighbor returns the zero Neighbor for one that is not in the table.
func (h *home) neighbor(addr string) Neighbor {
	h.t.Helper()
	for _, n := range h.neighbors() {
		if n.Addr.String() == addr {
			return n
		}
	}
	return Neighbor{}
}

func (h *home) resolve(addr string) {
	h.t.Helper()
	if err := h.f.Resolve(netip.MustParseAddr(addr)); err != nil {
		h.t.Fatal(err)
	}
}

// until waits for the event after which the neighbour is in the state.
func (h *home) until(addr string, want NeighborState) Neighbor {
	h.t.Helper()
	for {
		if n := h.neighbor(addr); n.State == want {
			return n
		}
		if _, err := h.events.Receive(); err != nil {
			h.t.Fatalf("%s does not become %d: %v; %+v", addr, want, err, h.neighbors())
		}
	}
}

// Issue 4, point 4: who left the LAN is found out without a packet of ours.
func TestResolve(t *testing.T) {
	h := followHome(t)
	const absent, left = "192.168.77.99", "192.168.77.98"
	conf := "net.ipv4.neigh." + lab.LANDev + "."
	h.Router.Run(t, "sysctl", conf+"retrans_time_ms=50", conf+"delay_first_probe_time=1")
	h.router("neigh flush dev " + lab.LANDev)
	if n := h.neighbor(absent); n != (Neighbor{}) {
		t.Errorf("nobody asked for %s: %+v", absent, n)
	}
	h.resolve(absent)
	h.resolve(lab.LAN1Addr)
	h.until(absent, NeighborFailed)
	lan1 := h.until(lab.LAN1Addr, NeighborReachable)
	if lan1.MAC == [6]byte{} || lan1.Index != h.f.State().LANs[1].Index {
		t.Errorf("%+v", lan1)
	}

	// Entries that nobody asked about for long: one host is still there.
	h.router("neigh replace "+left+" dev "+lab.LANDev+" lladdr 02:00:00:00:00:98 nud stale",
		"neigh replace "+lab.LAN2Addr+" dev "+lab.LANDev+" lladdr 02:00:00:00:00:20 nud stale")
	h.resolve(left)
	h.resolve(lab.LAN2Addr)
	if n := h.neighbor(left); n.State != NeighborReachable {
		t.Errorf("just asked: %+v; the old answer counts until the kernel gives up", n)
	}
	h.until(left, NeighborFailed)
	// The host of that address has another MAC, so it cannot answer.
	h.until(lab.LAN2Addr, NeighborFailed)
	h.resolve(lab.LAN2Addr)
	h.until(lab.LAN2Addr, NeighborReachable)

	h.resolve(lab.LAN1Addr) // it answered just now
	if n := h.neighbor(lab.LAN1Addr); n != lan1 {
		t.Errorf("%+v, want %+v", n, lan1)
	}
	for _, addr := range []string{"11.0.0.1", "10.9.9.9", lab.RouterLANAddr, "2001:db8::1", "::ffff:192.168.77.10"} {
		if err := h.f.Resolve(netip.MustParseAddr(addr)); err == nil || !strings.Contains(err.Error(), "no LAN's prefix") {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := h.f.Resolve(netip.Addr{}); err == nil {
		t.Error("the zero Addr: no error")
	}
}

// Only hosts on served LAN devices: neither the ISP nor groups.
func TestNeighbors(t *testing.T) {
	h := followHome(t)
	h.router("neigh flush all", "link add guest0 type bridge", "link set guest0 up", "addr add 10.5.0.1/24 dev guest0",
		"neigh replace 11.0.0.1 dev "+lab.WANDev+" lladdr 02:00:00:00:00:01 nud permanent",
		"neigh replace 10.5.0.9 dev guest0 lladdr 02:00:00:00:00:09 nud permanent",
		"neigh replace 239.1.2.3 dev "+lab.LANDev+" lladdr 01:00:5e:01:02:03 nud permanent",
		"neigh replace fd00::9 dev "+lab.LANDev+" lladdr 02:00:00:00:00:06 nud permanent",
		"neigh replace fe80::9 dev "+lab.LANDev+" lladdr 02:00:00:00:00:07 nud permanent",
		"neigh replace ff02::9 dev "+lab.LANDev+" lladdr 33:33:00:00:00:09 nud permanent",
		"neigh replace fe80::8 dev "+lab.WANDev+" lladdr 02:00:00:00:00:08 nud permanent",
		"neigh replace 192.168.77.30 dev "+lab.LANDev+" lladdr 02:00:00:00:00:30 nud permanent")
	index := h.f.State().LANs[1].Index
	want := []Neighbor{
		{netip.MustParseAddr("192.168.77.30"), [6]byte{2, 0, 0, 0, 0, 0x30}, index, NeighborReachable},
		{netip.MustParseAddr("fd00::9"), [6]byte{2, 0, 0, 0, 0, 6}, index, NeighborReachable},
		{netip.MustParseAddr("fe80::9"), [6]byte{2, 0, 0, 0, 0, 7}, index, NeighborReachable},
	}
	lan := func() []Neighbor { // what is ours; the hosts of the lab say something, too
		return slices.DeleteFunc(h.neighbors(), func(n Neighbor) bool {
			return [5]byte(n.MAC[:5]) != [5]byte{2}
		})
	}
	got := lan()
	slices.SortFunc(got, func(a, b Neighbor) int { return a.Addr.Compare(b.Addr) })
	if !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}

	// More than fit into one reply.
	var batch []string
	for i := 1; i <= 250; i++ {
		batch = append(batch, fmt.Sprintf("neigh add 192.168.76.%d dev %s lladdr 02:00:00:00:00:01 nud permanent", i, lab.LANDev))
	}
	h.Router.Run(t, "sh", "-c", "printf '"+strings.Join(batch, `\n`)+"' | ip -batch -")
	if got := len(lan()); got != 253 {
		t.Errorf("%d neighbours, want 253", got)
	}
}

// The requests of all methods share one socket.
func TestRequestsSideBySide(t *testing.T) {
	h := followHome(t)
	to, host := netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr(lab.LAN1Addr)
	var wg sync.WaitGroup
	for _, ask := range []func() error{
		func() error { _, err := h.f.Neighbors(); return err },
		func() error { return h.f.Resolve(host) },
		func() error {
			dev, err := h.f.RouteDevice(to)
			if err == nil && dev != lab.WANDev {
				t.Errorf("route by %q", dev)
			}
			return err
		},
		func() error { _, err := h.f.Counters(); return err },
		func() error { return h.f.refresh(func(State) {}) },
	} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 200 {
				if err := ask(); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	if err := h.f.Close(); err != nil {
		t.Error(err)
	}
	_, neighbors := h.f.Neighbors()
	_, route := h.f.RouteDevice(to)
	for what, err := range map[string]error{"Neighbors": neighbors, "Resolve": h.f.Resolve(host), "RouteDevice": route} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
}

// Issue 4, point 3 (check): is the default route there, and by which device?
func TestRouteDevice(t *testing.T) {
	h := followHome(t)
	h.router("route add unreachable 10.1.0.0/16", "route add prohibit 10.2.0.0/16", "route add blackhole 10.3.0.0/16",
		"link add other0 type bridge", "link set other0 up", "route add 10.4.0.0/16 dev other0")
	want := func(addr, dev string) {
		t.Helper()
		if got, err := h.f.RouteDevice(netip.MustParseAddr(addr)); got != dev || err != nil {
			t.Errorf("%s: %q, %v; want %q", addr, got, err, dev)
		}
	}
	for addr, dev := range map[string]string{
		"198.51.100.1":    lab.WANDev, // the default route
		lab.InternetAddr:  lab.WANDev,
		lab.LAN1Addr:      lab.LANDev,
		lab.RouterLANAddr: "lo",
		lab.WANAddr:       "lo",
		"10.4.0.1":        "other0", // not followed
		"10.1.0.1":        "",
		"10.2.0.1":        "",
		"10.3.0.1":        "",
	} {
		want(addr, dev)
	}
	h.router("route del default")
	want("198.51.100.1", "")
	for _, addr := range []netip.Addr{{}, netip.IPv6Loopback(), netip.MustParseAddr("::ffff:11.0.0.1")} {
		if dev, err := h.f.RouteDevice(addr); err == nil {
			t.Errorf("%s: %q", addr, dev)
		}
	}
}

// Issue 8, point 2: who may ask for whom without `secure`.
func TestSameLAN(t *testing.T) {
	h, _ := followHome6(t)
	h.router("link add other0 type bridge", "link set other0 up", "addr add 192.168.77.254/32 dev other0", "route add 192.168.77.253/32 dev other0",
		"addr add 2001:db8:77::fe/128 dev other0 nodad")
	same := func(to, from string) (same bool) {
		t.Helper()
		if err := h.Router.Do(func() error { same = h.f.SameLAN(netip.MustParseAddr(to), netip.MustParseAddr(from)); return nil }); err != nil {
			t.Fatal(err)
		}
		return same
	}
	for _, to := range []string{lab.LAN2Addr, "192.168.77.99", gua2} {
		for _, from := range []string{lab.LAN1Addr, gua1} {
			if !same(to, from) {
				t.Errorf("%s is on the LAN of %s", to, from)
			}
		}
	}
	for _, to := range []string{"192.168.77.254", "192.168.77.253", "2001:db8:77::fe", lab.RouterLANAddr, lab.WANAddr, lab.InternetAddr, "2001:db8:99::1"} {
		if same(to, lab.LAN1Addr) {
			t.Errorf("%s is no host on the LAN", to)
		}
	}
	if err := h.f.Close(); err != nil {
		t.Fatal(err)
	}
	if same(lab.LAN2Addr, lab.LAN1Addr) {
		t.Error("after Close: true")
	}
}

func TestParseRoute(t *testing.T) {
	head := make([]byte, unix.SizeofRtMsg)
	oif := withAttrs(t, slices.Clone(head), attrs{{Type: unix.RTA_OIF, Data: nlenc.Uint32Bytes(7)}})
	if index, err := parseRoute(oif); index != 7 || err != nil {
		t.Errorf("%d, %v", index, err)
	}
	for what, b := range map[string][]byte{
		"empty":         nil,
		"no device":     head,
		"short device":  withAttrs(t, slices.Clone(head), attrs{{Type: unix.RTA_OIF, Data: []byte{7}}}),
		"cut attribute": append(slices.Clone(head), 0xff, 0, 1, 0, 10),
	} {
		if index, err := parseRoute(b); err == nil {
			t.Errorf("%s: %d", what, index)
		}
	}
}
