package sock

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

var group = netip.MustParseAddr("239.255.255.250") // SSDP-1

// aWhile is far longer than anything here takes, when it works.
const aWhile = 5 * time.Second

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), aWhile)
	t.Cleanup(cancel)
	return ctx
}

func listenUDP(t *testing.T, dev string, port uint16) *UDP {
	t.Helper()
	u, err := ListenUDP(dev, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// peerSocket opens an ordinary UDP socket on the host.
func peerSocket(t *testing.T, h *host, local string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	var err error
	h.do(func() { c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr(local))) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(aWhile)); err != nil {
		t.Fatal(err)
	}
	return c
}

func sendTo(t *testing.T, c *net.UDPConn, text, to string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), addr(to)); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, u *UDP) (string, Packet) {
	t.Helper()
	buf := make([]byte, 1500)
	n, p, err := u.ReadFrom(deadline(t), buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n]), p
}

func TestReadFromSaysWhereItArrived(t *testing.T) {
	h := newLAN(t, "lan0", 1)
	u := listenUDP(t, "lan0", 1900)
	for range 2 { // joined already: no error
		if err := u.Join(group); err != nil {
			t.Fatal(err)
		}
	}
	lan0, err := net.InterfaceByName("lan0")
	if err != nil {
		t.Fatal(err)
	}
	h.do(func() { lab.IP(t, "route add 239.0.0.0/8 dev eth0") })
	c := peerSocket(t, h, "10.1.0.2:4444")

	for _, dst := range []string{"10.1.0.1", group.String(), "10.1.0.255"} {
		sendTo(t, c, "to "+dst, dst+":1900")
		text, p := receive(t, u)
		want := Packet{Src: addr("10.1.0.2:4444"), Dst: netip.MustParseAddr(dst), IfIndex: lan0.Index}
		if text != "to "+dst || p != want {
			t.Errorf("got %q %+v, want %+v", text, p, want)
		}
	}
	sendTo(t, c, "", "10.1.0.1:1900")
	if text, _ := receive(t, u); text != "" {
		t.Errorf("got %q, want an empty datagram", text)
	}
}

// Other groups that the router joined elsewhere are not ours (IP_MULTICAST_ALL).
func TestOnlyJoinedGroups(t *testing.T) {
	h := newLAN(t, "lan0", 1)
	other := listenUDP(t, "lan0", 0)
	if err := other.Join(group); err != nil {
		t.Fatal(err)
	}
	u := listenUDP(t, "lan0", 1900)
	h.do(func() { lab.IP(t, "route add 239.0.0.0/8 dev eth0") })
	c := peerSocket(t, h, "10.1.0.2:4444")
	sendTo(t, c, "not joined", group.String()+":1900")
	sendTo(t, c, "unicast", "10.1.0.1:1900")
	if text, _ := receive(t, u); text != "unicast" {
		t.Errorf("got %q, want only the unicast datagram", text)
	}
}

// SSDP-8: nothing from another device is heard, not even for our address.
func TestOtherDevicesAreNotHeard(t *testing.T) {
	lan := newLAN(t, "lan0", 1)
	wan := newLAN(t, "wan0", 2)
	u := listenUDP(t, "lan0", 1900)
	if err := u.Join(group); err != nil {
		t.Fatal(err)
	}
	wan.do(func() { lab.IP(t, "route add default via 10.2.0.1", "route add 239.0.0.0/8 dev eth0") })
	outside := peerSocket(t, wan, "10.2.0.2:4444")
	for _, to := range []string{"10.2.0.1:1900", "10.1.0.1:1900", group.String() + ":1900"} {
		sendTo(t, outside, "from the WAN", to)
	}
	inside := peerSocket(t, lan, "10.1.0.2:4444")
	sendTo(t, inside, "from the LAN", "10.1.0.1:1900")
	if text, p := receive(t, u); text != "from the LAN" {
		t.Errorf("got %q %+v", text, p)
	}
}

// Two devices, one port: each socket hears its own LAN (SSDP-7).
func TestOneSocketPerDevice(t *testing.T) {
	devs := []string{"lan0", "lan1"}
	hosts := []*host{newLAN(t, devs[0], 1), newLAN(t, devs[1], 2)}
	socks := []*UDP{listenUDP(t, devs[0], 1900), listenUDP(t, devs[1], 1900)}
	for i, h := range hosts {
		if err := socks[i].Join(group); err != nil {
			t.Fatal(err)
		}
		h.do(func() { lab.IP(t, "route add 239.0.0.0/8 dev eth0") })
		sendTo(t, peerSocket(t, h, "0.0.0.0:0"), devs[i], group.String()+":1900")
	}
	for i, u := range socks {
		if text, _ := receive(t, u); text != devs[i] {
			t.Errorf("%s: got %q", devs[i], text)
		}
	}
}

func TestReadFromTruncated(t *testing.T) {
	h := newLAN(t, "lan0", 1)
	u := listenUDP(t, "lan0", 1900)
	c := peerSocket(t, h, "10.1.0.2:4444")
	sendTo(t, c, "12345", "10.1.0.1:1900")
	sendTo(t, c, "1234", "10.1.0.1:1900")
	buf := make([]byte, 4)
	n, p, err := u.ReadFrom(deadline(t), buf)
	if !errors.Is(err, ErrTruncated) || n != 4 || p.Src != addr("10.1.0.2:4444") {
		t.Errorf("5 bytes into 4: %d, %+v, %v; want ErrTruncated", n, p, err)
	}
	if n, _, err := u.ReadFrom(deadline(t), buf); n != 4 || err != nil {
		t.Errorf("4 bytes into 4: %d, %v", n, err)
	}
}

// SSDP-44: answers come from the address that the caller names.
func TestWriteToSource(t *testing.T) {
	h := newLAN(t, "lan0", 1)
	lab.IP(t, "addr add 10.1.0.9/24 dev lan0")
	u := listenUDP(t, "lan0", 1900)
	c := peerSocket(t, h, "10.1.0.2:4444")
	for src, want := range map[netip.Addr]string{
		{}:                                 "10.1.0.1:1900",
		netip.MustParseAddr("10.1.0.1"):    "10.1.0.1:1900",
		netip.MustParseAddr("10.1.0.9"):    "10.1.0.9:1900",
		netip.MustParseAddr("10.1.0.77"):   "", // not ours
		netip.MustParseAddr("2001:db8::1"): "",
	} {
		err := u.WriteTo(deadline(t), []byte("x"), addr("10.1.0.2:4444"), src)
		if want == "" {
			if err == nil {
				t.Errorf("source %s: no error", src)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		_, from, err := c.ReadFromUDPAddrPort(make([]byte, 10))
		if err != nil || from != addr(want) {
			t.Errorf("source %s: arrived from %s, %v", src, from, err)
		}
	}
	if err := u.WriteTo(deadline(t), nil, addr("[ff02::c]:1900"), netip.Addr{}); err == nil {
		t.Error("IPv6 destination: no error")
	}
}

func TestReadFromEnds(t *testing.T) {
	newLAN(t, "lan0", 1)
	u := listenUDP(t, "lan0", 0)
	if u.Port() == 0 {
		t.Error("port 0: the kernel's choice is not reported")
	}
	got := make(chan error)
	for range 20 { // some before, some while it waits
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			_, _, err := u.ReadFrom(ctx, make([]byte, 10))
			got <- err
		}()
		cancel()
		if err := wantSoon(t, got); !errors.Is(err, context.Canceled) {
			t.Errorf("after cancel: %v", err)
		}
	}
	// A later call is not disturbed by the context that ended.
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := u.ReadFrom(short, make([]byte, 10)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("next call: %v", err)
	}
	if err := u.WriteTo(context.Background(), nil, addr("10.1.0.2:9"), netip.Addr{}); err != nil {
		t.Errorf("write: %v", err)
	}
	go func() {
		_, _, err := u.ReadFrom(context.Background(), make([]byte, 10))
		got <- err
	}()
	_ = u.Close()
	if err := wantSoon(t, got); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A context that ends while a call is about to return may leave a deadline in
// the past behind; the next call must not fail from it.
func TestDeadlinesLeftBehind(t *testing.T) {
	h := newLAN(t, "lan0", 1)
	u, l := listenUDP(t, "lan0", 0), listenTCP4(t, "lan0")
	past := time.Unix(1, 0)
	if err := errors.Join(u.c.SetDeadline(past), l.c.SetDeadline(past)); err != nil {
		t.Fatal(err)
	}
	connect(t, h, l)

	to := netip.AddrPortFrom(group, u.Port())
	if err := u.Join(group); err != nil {
		t.Fatal(err)
	}
	// Without a deadline of its own, which would hide it.
	ctx, cancel := context.WithCancel(context.Background())
	defer time.AfterFunc(aWhile, cancel).Stop()
	if err := u.WriteTo(ctx, []byte("x"), to, netip.Addr{}); err != nil {
		t.Error(err)
	}
	if _, _, err := u.ReadFrom(ctx, make([]byte, 10)); err != nil {
		t.Error(err)
	}
}

func wantSoon(t *testing.T, got <-chan error) error {
	t.Helper()
	select {
	case err := <-got:
		return err
	case <-time.After(aWhile):
		t.Fatal("still blocked")
		return nil
	}
}

func TestListenErrors(t *testing.T) {
	newLAN(t, "lan0", 1)
	l, err := ListenTCP("lan0", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, test := range []struct {
		dev  string
		port uint16
		want string
	}{
		{"", 0, "not a device name"},
		{"sixteen-bytes-xx", 0, "not a device name"},
		{"nosuch0", 0, "no such device"},
		{"lan0", l.Port(), "another program"},
	} {
		_, err := ListenTCP(test.dev, test.port)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("ListenTCP(%q, %d): %v, want %q", test.dev, test.port, err, test.want)
		}
	}
	if _, err := ListenUDP("nosuch0", 0); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("ListenUDP: %v", err)
	}
	u := listenUDP(t, "lan0", 0)
	for _, group := range []string{"10.1.0.1", "ff02::c"} {
		if err := u.Join(netip.MustParseAddr(group)); err == nil {
			t.Errorf("join %s: no error", group)
		}
	}
}
