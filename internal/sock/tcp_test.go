package sock

import (
	"bytes"
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

func listenTCP4(t *testing.T, dev string) *Listener {
	t.Helper()
	l, err := ListenTCP(dev, 0)
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

func dial(h *host, to netip.AddrPort) (*net.TCPConn, error) {
	var c *net.TCPConn
	var err error
	h.do(func() { c, err = net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(to)) })
	return c, err
}

// connect returns both ends of a new connection.
func connect(t *testing.T, h *host, l *Listener) (*Conn, *net.TCPConn) {
	t.Helper()
	peer, err := dial(h, netip.AddrPortFrom(netip.MustParseAddr("10.1.0.1"), l.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	defer time.AfterFunc(aWhile, cancel).Stop()
	c, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, peer
}

func TestConn(t *testing.T) {
	h := newLAN(t, "lan0", 1)
	l := listenTCP4(t, "lan0")
	c, peer := connect(t, h, l)

	if got, want := c.Local(), netip.AddrPortFrom(netip.MustParseAddr("10.1.0.1"), l.Port()); got != want {
		t.Errorf("Local %s, want %s", got, want)
	}
	if got, want := c.Remote().String(), peer.LocalAddr().String(); got != want {
		t.Errorf("Remote %s, want %s", got, want)
	}

	// More than the socket buffers hold: Write goes on until all is written.
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	written := make(chan error, 1)
	go func() {
		n, err := c.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		written <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(peer)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("peer read %d of %d bytes, %v", len(got), len(sent), err)
	}
	if err := wantSoon(t, written); err != nil {
		t.Errorf("Write: %v", err)
	}

	if _, err := peer.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	_ = peer.Close()
	if got, err := io.ReadAll(c); string(got) != "last" || err != nil {
		t.Errorf("read %q, %v; want the last words, then io.EOF", got, err)
	}
}

func TestConnDeadlines(t *testing.T) {
	h := newLAN(t, "lan0", 1)
	c, _ := connect(t, h, listenTCP4(t, "lan0"))
	soon := time.Now().Add(20 * time.Millisecond)

	if err := c.SetReadDeadline(soon); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v, want os.ErrDeadlineExceeded", err)
	}
	if err := c.SetWriteDeadline(soon); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write to a peer that does not read: %v, want os.ErrDeadlineExceeded", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		got <- err
	}()
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := wantSoon(t, got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read, deadline set from elsewhere: %v", err)
	}
}

// SSDP-8: nothing is served on another device, not even at our LAN address.
func TestOtherDevicesAreNotServed(t *testing.T) {
	lan := newLAN(t, "lan0", 1)
	wan := newLAN(t, "wan0", 2)
	l := listenTCP4(t, "lan0")
	wan.do(func() { lab.IP(t, "route add default via 10.2.0.1") })
	for _, to := range []string{"10.2.0.1", "10.1.0.1"} {
		c, err := dial(wan, netip.AddrPortFrom(netip.MustParseAddr(to), l.Port()))
		if err == nil {
			_ = c.Close()
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("connect to %s from the WAN: %v, want refused", to, err)
		}
	}
	connect(t, lan, l)
}

func TestAcceptEnds(t *testing.T) {
	h := newLAN(t, "lan0", 1)
	l := listenTCP4(t, "lan0")
	got := make(chan error)
	accept := func(ctx context.Context) {
		_, err := l.Accept(ctx)
		got <- err
	}
	for range 20 { // some before, some while it waits
		ctx, cancel := context.WithCancel(context.Background())
		go accept(ctx)
		cancel()
		if err := wantSoon(t, got); !errors.Is(err, context.Canceled) {
			t.Errorf("after cancel: %v", err)
		}
	}
	connect(t, h, l) // a later call is not disturbed
	go accept(context.Background())
	_ = l.Close()
	if err := wantSoon(t, got); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Peers that are gone before they are accepted do not end the server.
func TestAcceptAfterReset(t *testing.T) {
	h := newLAN(t, "lan0", 1)
	l := listenTCP4(t, "lan0")
	for range 10 {
		c, err := dial(h, netip.AddrPortFrom(netip.MustParseAddr("10.1.0.1"), l.Port()))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
			t.Fatal(err)
		}
	}
	peer, err := dial(h, netip.AddrPortFrom(netip.MustParseAddr("10.1.0.1"), l.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	for range 11 {
		c, err := l.Accept(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if c.Remote().String() == peer.LocalAddr().String() {
			return
		}
	}
	t.Error("the living connection was not accepted")
}

func TestPassing(t *testing.T) {
	for errno, want := range map[unix.Errno]bool{
		unix.ECONNABORTED: true,
		unix.EPROTO:       true,
		unix.EPERM:        true, // a firewall rule
		unix.EBADF:        false,
		unix.EINVAL:       false,
		unix.EMFILE:       false,
	} {
		if got := passing(os.NewSyscallError("accept4", errno)); got != want {
			t.Errorf("%v: %t, want %t", errno, got, want)
		}
	}
}

func TestAcceptExhausted(t *testing.T) {
	h := newLAN(t, "lan0", 1)
	l := listenTCP4(t, "lan0")
	peer, err := dial(h, netip.AddrPortFrom(netip.MustParseAddr("10.1.0.1"), l.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()

	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	none := old
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, err = l.Accept(deadline(t))
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, endedErr := l.Accept(ended)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, ErrExhausted) || !errors.Is(err, unix.EMFILE) {
		t.Errorf("no descriptors left: %v, want ErrExhausted", err)
	}
	if !errors.Is(endedErr, context.Canceled) {
		t.Errorf("and ctx ended: %v", endedErr)
	}
	c, err := l.Accept(deadline(t))
	if err != nil {
		t.Fatalf("the waiting connection is lost: %v", err)
	}
	_ = c.Close()
}
