package sock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// sysctl writes a setting of IPv4, and the old value at the end of the test.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	path := "/proc/sys/net/ipv4/" + name
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, old, 0); err != nil {
			t.Error(err)
		}
	})
}

// gateway is the router of the tests of InjectUDP: what comes for 10.2.0.1
// port 5555 is redirected to the host in lan0, port 6666.
type gateway struct {
	t    *testing.T
	host *net.UDPConn // the host's socket
	port uint16       // each packet has a source port of its own
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	h := newLAN(t, "lan0", 1)
	newLAN(t, "wan0", 2)
	sysctl(t, "ip_forward", "1")
	h.do(func() { lab.IP(t, "route add default via 10.1.0.1") })
	nft(t, `table ip gateway {
		chain prerouting { type nat hook prerouting priority -99; ip daddr 10.2.0.1 udp dport 5555 dnat to 10.1.0.2:6666; }
		chain forward { type filter hook forward priority 0; policy drop; udp sport 7000-7999 drop; ct status dnat accept; }
	}`)
	t.Cleanup(func() { nft(t, "delete table ip gateway") })
	return &gateway{t, peerSocket(t, h, "10.1.0.2:6666"), 1000}
}

func nft(t *testing.T, rules string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// passes injects a packet from the address, and reports whether it arrives at
// the host, as it was sent, and has an entry in the conntrack table.
func (g *gateway) passes(src string) bool {
	g.t.Helper()
	g.port++
	from := netip.AddrPortFrom(netip.MustParseAddr(src), g.port)
	before := g.received()
	if err := InjectUDP(from, addr("10.2.0.1:5555")); err != nil {
		g.t.Fatal(err)
	}
	for end := time.Now().Add(aWhile); g.received() == before; { // nearly always done already
		if time.Now().After(end) {
			g.t.Fatal("the kernel does not receive what was injected")
		}
	}
	buf := make([]byte, 100)
	wait := 20 * time.Millisecond // nothing is expected to take that long
	tracked := g.tracked(from)
	if tracked {
		wait = aWhile
	}
	if err := g.host.SetDeadline(time.Now().Add(wait)); err != nil {
		g.t.Fatal(err)
	}
	n, sender, err := g.host.ReadFromUDPAddrPort(buf)
	arrived := err == nil
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		g.t.Fatal(err)
	}
	if arrived && (sender != from || string(buf[:n]) != "upnpd check") {
		g.t.Errorf("sent from %s, arrived %q from %s", from, buf[:n], sender)
	}
	if arrived != tracked {
		g.t.Errorf("arrived %t, in the conntrack table %t", arrived, tracked)
	}
	return arrived
}

// received is the number of IPv4 packets that the kernel looked at (InReceives).
func (g *gateway) received() string {
	g.t.Helper()
	b, err := os.ReadFile("/proc/net/snmp")
	if err != nil {
		g.t.Fatal(err)
	}
	_, values, _ := strings.Cut(string(b), "\nIp: ")
	return strings.Fields(values)[2]
}

// tracked asks ctnetlink for all entries and looks for the source.
func (g *gateway) tracked(src netip.AddrPort) bool {
	g.t.Helper()
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_CTNETLINK<<8 | 1, Flags: netlink.Request | netlink.Dump}, // IPCTNL_MSG_CT_GET
		Data:   []byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	ip, port := src.Addr().As4(), binary.BigEndian.AppendUint16(nil, src.Port())
	for _, m := range all {
		if bytes.Contains(m.Data, ip[:]) && bytes.Contains(m.Data, port) {
			return true
		}
	}
	return false
}

// Issue 4, point 3 (check --live): what passes the nat and the forward chain
// arrives and has an entry; what the forward chain drops has none.
func TestInjectUDP(t *testing.T) {
	g := newGateway(t)
	lab.IP(t, "route add default via 10.2.0.2")
	if !g.passes("198.51.100.1") {
		t.Error("does not pass")
	}
	g.port = 7000
	if g.passes("198.51.100.1") {
		t.Error("passes a chain that drops it")
	}
	g.port = 2000
	nft(t, `table ip early { chain prerouting { type filter hook prerouting priority -300; iifname "lo" notrack; }; }`)
	if g.passes("198.51.100.1") {
		t.Error("passes without being tracked")
	}
	nft(t, "delete table ip early")
	for _, own := range []string{"10.2.0.1", "10.1.0.1", "127.0.0.1"} {
		if g.passes(own) {
			t.Errorf("from %s: passes", own)
		}
	}
	for _, bad := range [][2]string{{"[2001:db8::1]:1", "10.2.0.1:5555"}, {"198.51.100.1:1", "[::1]:5555"}} {
		if err := InjectUDP(addr(bad[0]), addr(bad[1])); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	lab.IP(t, "link set lo down")
	defer lab.IP(t, "link set lo up")
	if err := InjectUDP(addr("198.51.100.1:1"), addr("10.2.0.1:5555")); !errors.Is(err, unix.ENETDOWN) {
		t.Errorf("lo is down: %v", err)
	}
}

// InjectHindrance knows each setting with which nothing passes.
func TestInjectHindrance(t *testing.T) {
	g := newGateway(t)
	set := func(all, lo string) {
		t.Helper()
		sysctl(t, "conf/all/rp_filter", all)
		sysctl(t, "conf/lo/rp_filter", lo)
	}
	want := func(what, src string, routed bool, reason string) {
		t.Helper()
		got := InjectHindrance(routed)
		if got != reason {
			t.Errorf("%s: %q, want %q", what, got, reason)
		}
		if passes := g.passes(src); passes != (reason == "") {
			t.Errorf("%s, from %s: passes %t, but: %q", what, src, passes, reason)
		}
	}
	const lo, all = "net.ipv4.conf.lo.rp_filter is ", "net.ipv4.conf.all.rp_filter is "
	const loose = "2 (loose), and there is no route to the source address"
	for _, test := range []struct{ all, lo, strict, loose string }{
		{"0", "0", "", ""},
		{"0", "1", lo + "1 (strict)", ""},
		{"1", "0", all + "1 (strict)", ""},
		{"1", "1", lo + "1 (strict)", ""},
		{"0", "2", "", lo + loose},
		{"2", "0", "", all + loose},
		{"1", "2", "", lo + loose},
		{"2", "1", "", all + loose},
		{"2", "2", "", lo + loose},
	} {
		set(test.all, test.lo)
		what := "all " + test.all + ", lo " + test.lo
		far := test.loose
		if test.strict != "" {
			far = test.strict
		}
		want(what+", no default route", "198.51.100.1", false, far)
		want(what+", beside the uplink", "10.2.0.2", true, test.strict)
		lab.IP(t, "route add default via 10.2.0.2")
		want(what+", default route", "198.51.100.1", true, test.strict)
		lab.IP(t, "route del default")
	}
	set("0", "0")
	for _, dev := range []string{"lo", "all"} { // all: as ip_forward does, each device's
		sysctl(t, "conf/"+dev+"/forwarding", "0")
		want(dev+" does not forward", "198.51.100.1", true, "net.ipv4.conf.lo.forwarding is 0")
		sysctl(t, "conf/"+dev+"/forwarding", "1")
		want(dev+" forwards", "198.51.100.1", true, "")
	}
	for _, name := range []string{"route_localnet", "accept_local", "src_valid_mark"} {
		for _, value := range []string{"1", "0"} {
			sysctl(t, "conf/all/"+name, value)
			want(name+" "+value, "198.51.100.1", true, "")
		}
	}
}

func TestHindranceIn(t *testing.T) {
	dir := t.TempDir() + "/"
	if got := hindranceIn(dir, false); got != "" {
		t.Errorf("nothing can be read: %q", got)
	}
	if err := os.MkdirAll(filepath.Join(dir, "lo"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lo", "rp_filter"), []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := hindranceIn(dir, true); !strings.Contains(got, "conf.lo.rp_filter is 1") {
		t.Errorf("a container that hides the others: %q", got)
	}
}

// An odd length, and a sum of 0, which UDP writes as 0xffff (RFC 768).
func TestUDPPacket(t *testing.T) {
	zeros := 0
	for port := range 0x10000 {
		b := udpPacket(netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), uint16(port)), addr("10.2.0.1:5555"))
		if checksum(0, b[:ipHeader]) != 0 {
			t.Fatalf("port %d: header checksum of % x", port, b)
		}
		if checksum(unix.IPPROTO_UDP+uint32(len(b)-ipHeader), b[12:]) != 0 {
			t.Fatalf("port %d: UDP checksum of % x", port, b)
		}
		if b[26] == 0 && b[27] == 0 {
			t.Fatalf("port %d: no checksum", port)
		}
		if b[26] == 0xff && b[27] == 0xff {
			zeros++
		}
	}
	if zeros != 1 {
		t.Errorf("%d packets with the sum 0, want 1 of all ports", zeros)
	}
	// RFC 1071, section 3.
	if got := checksum(0, []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("%#x", got)
	}
}
