package sock

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

func listenTCP6(t *testing.T, dev string) *Listener {
	t.Helper()
	l, err := ListenTCP6(dev, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func dial6(t *testing.T, h *host, to netip.Addr, port uint16) (*net.TCPConn, error) {
	t.Helper()
	target := netip.AddrPortFrom(zoned(t, h, to), port)
	var c *net.TCPConn
	var err error
	h.do(func() { c, err = net.DialTCP("tcp6", nil, net.TCPAddrFromAddrPort(target)) })
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// Both ends of an IPv6 connection are known without a zone; the other family
// is not served.
func TestListenTCP6(t *testing.T) {
	h := newLAN6(t, "lan0", 1)
	l := listenTCP6(t, "lan0")
	for _, to := range []netip.Addr{routerLink, routerSite} {
		peer, err := dial6(t, h, to, l.Port())
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		from := peer.LocalAddr().(*net.TCPAddr).AddrPort()
		if want := netip.AddrPortFrom(from.Addr().WithZone(""), from.Port()); c.Remote() != want {
			t.Errorf("Remote %s, want %s", c.Remote(), want)
		}
		if want := netip.AddrPortFrom(to, l.Port()); c.Local() != want {
			t.Errorf("Local %s, want %s", c.Local(), want)
		}
	}
	if _, err := dial(h, netip.AddrPortFrom(netip.MustParseAddr("10.1.0.1"), l.Port())); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("by IPv4: %v, want refused", err)
	}
	both, err := ListenTCP("lan0", l.Port()) // one port in both families
	if err != nil {
		t.Fatal(err)
	}
	_ = both.Close()
	if _, err := ListenTCP6("lan0", l.Port()); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("the port again: %v", err)
	}
	if _, err := ListenTCP6("nosuch0", 0); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no such device: %v", err)
	}
}

// serve opens a TCP port on the host.
func serve(t *testing.T, h *host, at netip.Addr) (net.Listener, netip.AddrPort) {
	t.Helper()
	local := netip.AddrPortFrom(zoned(t, h, at), 0)
	var l net.Listener
	var err error
	h.do(func() { l, err = net.Listen("tcp", local.String()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, netip.AddrPortFrom(at, l.Addr().(*net.TCPAddr).AddrPort().Port())
}

// Issue 6, point 1: event messages go out by the LAN's device, from our address
// there, even when the routes point elsewhere or nowhere.
func TestDialTCP(t *testing.T) {
	h := newLAN6(t, "lan0", 1)
	newLAN6(t, "wan0", 2)
	lab.IP(t, "addr add 10.1.0.9/24 dev lan0", "addr add fd00:1::9/64 dev lan0 nodad",
		"route add 10.1.0.2/32 via 10.2.0.2", "-6 route add fd00:1::2/128 via fd00:2::2")
	for _, test := range []struct{ from, to string }{
		{"10.1.0.1", "10.1.0.2"},
		{"10.1.0.9", "10.1.0.2"},
		{"fe80::1", "fe80::2"},
		{"fd00:1::1", "fd00:1::2"},
		{"fd00:1::9", "fd00:1::2"},
		{"fd00:1::1", "fe80::2"},
	} {
		l, to := serve(t, h, netip.MustParseAddr(test.to))
		from := netip.MustParseAddr(test.from)
		c, err := DialTCP(deadline(t), "lan0", from, to)
		if err != nil {
			t.Errorf("%s to %s: %v", from, to, err)
			continue
		}
		defer c.Close()
		if reuse, err := c.c.GetsockoptInt(unix.SOL_SOCKET, unix.SO_REUSEADDR); reuse != 0 || err != nil {
			t.Errorf("the port may be another's, too: %d, %v", reuse, err)
		}
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		seen := peer.RemoteAddr().(*net.TCPAddr).AddrPort()
		if got := netip.AddrPortFrom(seen.Addr().WithZone(""), seen.Port()); got != c.Local() || got.Addr() != from || c.Remote() != to {
			t.Errorf("from %s: arrived from %s, Local %s, Remote %s", from, got, c.Local(), c.Remote())
		}
		_, err = c.Write([]byte("NOTIFY"))
		if err := errors.Join(err, c.CloseWrite()); err != nil {
			t.Error(err)
		}
		if text, err := io.ReadAll(peer); string(text) != "NOTIFY" || err != nil {
			t.Errorf("the host read %q, %v", text, err)
		}
		if _, err := peer.Write([]byte("200")); err != nil {
			t.Error(err)
		}
		_ = peer.Close()
		if text, err := io.ReadAll(c); string(text) != "200" || err != nil {
			t.Errorf("read %q, %v", text, err)
		}
	}
}

// What is only reachable by another device is not reached.
func TestDialTCPOtherDevice(t *testing.T) {
	newLAN6(t, "lan0", 1)
	wan := newLAN6(t, "wan0", 2)
	for from, to := range map[string]string{"10.1.0.1": "10.2.0.2", "fd00:1::1": "fd00:2::2"} {
		l, to := serve(t, wan, netip.MustParseAddr(to))
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		if c, err := DialTCP(ctx, "lan0", netip.MustParseAddr(from), to); err == nil {
			_ = c.Close()
			t.Errorf("connected to %s", to)
		}
		cancel()
		if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", to, err)
		}
	}
}

func TestDialTCPErrors(t *testing.T) {
	h := newLAN6(t, "lan0", 1)
	newLAN6(t, "lan1", 2)
	l, open := serve(t, h, hostSite)
	_ = l.Close()
	for _, test := range []struct {
		dev, from, to string
		want          error // nil: any
	}{
		{"lan0", "fd00:1::1", open.String(), unix.ECONNREFUSED},
		{"lan0", "10.1.0.1", "10.1.0.2:9", unix.ECONNREFUSED},
		{"lan0", "fd00:1::77", open.String(), unix.EADDRNOTAVAIL}, // not ours
		{"nosuch0", "fd00:1::1", open.String(), unix.ENODEV},
		{"", "fd00:1::1", open.String(), nil},
		{"lan0", "10.1.0.1", open.String(), nil},
		{"lan0", "fd00:1::1", "10.1.0.2:9", nil},
		{"lan0", "fd00:1::1", "[::ffff:10.1.0.2]:9", nil},
		{"lan0", "::ffff:10.1.0.1", "[::ffff:10.1.0.2]:9", nil},
	} {
		c, err := DialTCP(deadline(t), test.dev, netip.MustParseAddr(test.from), addr(test.to))
		if err == nil {
			_ = c.Close()
			t.Errorf("%+v: no error", test)
		} else if test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%+v: %v", test, err)
		}
	}
	if c, err := DialTCP(deadline(t), "lan0", netip.Addr{}, netip.AddrPort{}); err == nil {
		_ = c.Close()
		t.Error("no addresses: no error")
	}
}

// A host that is not there holds nobody up.
func TestDialTCPEnds(t *testing.T) {
	h := newLAN6(t, "lan0", 1)
	for from, to := range map[string]string{"10.1.0.1": "10.1.0.77:9", "fd00:1::1": "[fd00:1::77]:9", "fe80::1": "[fe80::77]:9"} {
		// A deadline of its own must not hide that the caller gives up (mdlayher/socket).
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		time.AfterFunc(20*time.Millisecond, cancel)
		if _, err := DialTCP(ctx, "lan0", netip.MustParseAddr(from), addr(to)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", to, err)
		}
		if _, err := DialTCP(ctx, "lan0", netip.MustParseAddr(from), addr(to)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, ended before: %v", to, err)
		}
	}
	// The deadline of connecting is none of the connection's.
	l, to := serve(t, h, hostSite)
	ctx, cancel := context.WithTimeout(context.Background(), aWhile)
	c, err := DialTCP(ctx, "lan0", routerSite, to)
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Error(err)
	}
}
