package sock

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// backlog is how many connections may wait for Accept: one host may come with 128 at
// once, and a SYN that finds no place is tried again after a second.
const backlog = 256

// exhaustedWait keeps a server from spinning while nothing can be accepted.
const exhaustedWait = 100 * time.Millisecond

// Listener accepts the connections of one family that arrive on one device.
type Listener struct {
	c      *socket.Conn
	dev    string
	port   uint16
	closed atomic.Bool
}

// ListenTCP listens on 0.0.0.0:port of the device; port 0: the kernel chooses.
func ListenTCP(dev string, port uint16) (*Listener, error) { return listenTCP(dev, any4(port)) }

// ListenTCP6 listens on [::]:port of the device, for IPv6 alone; port 0: the
// kernel chooses.
func ListenTCP6(dev string, port uint16) (*Listener, error) { return listenTCP(dev, any6(port)) }

func listenTCP(dev string, local netip.AddrPort) (*Listener, error) {
	l, err := openTCP(dev, local)
	if err != nil {
		port := local.Port()
		return nil, fmt.Errorf("listen on TCP port %d of %s: %w", port, dev, err)
	}
	return l, nil
}

func openTCP(dev string, local netip.AddrPort) (*Listener, error) {
	c, err := open(unix.SOCK_STREAM, "tcp", dev, local)
	if err != nil {
		return nil, err
	}
	// Connections inherit it: answers leave at once.
	err = c.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err == nil {
		err = c.Listen(backlog)
	}
	if err == nil {
		local, err = localAddr(c)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return &Listener{c: c, dev: dev, port: local.Port()}, nil
}

// Accept waits for a connection. Connections that failed before they were
// accepted are passed over. When file descriptors or memory ran out Accept
// waits 100 ms and returns an error that wraps ErrExhausted: the caller may
// log it and calls Accept again. Every other error is final: when ctx ended
// it wraps ctx.Err(), after Close it wraps os.ErrClosed.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	for {
		// A context that ended during an earlier call may have left its deadline.
		_ = l.c.SetReadDeadline(time.Time{})
		c, peer, err := l.c.Accept(ctx, 0)
		switch {
		case err == nil:
			local, err := localAddr(c)
			if err != nil {
				_ = c.Close()
				continue
			}
			return &Conn{c: c, local: local, remote: addrPort(peer)}, nil
		case l.closed.Load():
			return nil, fmt.Errorf("accept on TCP port %d of %s: %w", l.port, l.dev, os.ErrClosed)
		case isErrno(err, unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM):
			select {
			case <-ctx.Done():
			case <-time.After(exhaustedWait):
			}
			return nil, fmt.Errorf("accept on TCP port %d of %s: %w: %w", l.port, l.dev, ErrExhausted, err)
		case passing(err):
			continue
		default:
			return nil, fmt.Errorf("accept on TCP port %d of %s: %w", l.port, l.dev, err)
		}
	}
}

// passing reports the errors of one new connection that accept(2) says to
// treat as "try again".
func passing(err error) bool {
	return isErrno(err, unix.ECONNABORTED, unix.EPROTO, unix.EPERM, unix.ENETDOWN, unix.ENOPROTOOPT,
		unix.EHOSTDOWN, unix.ENONET, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ECONNRESET, unix.ETIMEDOUT)
}

// Port returns the local port.
func (l *Listener) Port() uint16 { return l.port }

// Close ends all calls with os.ErrClosed. Closing again is no error. Accepted
// connections stay open.
func (l *Listener) Close() error {
	l.closed.Store(true)
	return l.c.Close()
}

// DialTCP connects by the device, whatever the routes say, from the router's
// own address local there. When ctx ends the error wraps ctx.Err().
func DialTCP(ctx context.Context, dev string, local netip.Addr, to netip.AddrPort) (*Conn, error) {
	c, err := dialTCP(ctx, dev, local, to)
	if err != nil {
		return nil, fmt.Errorf("connect to %s by %s: %w", to, dev, err)
	}
	return c, nil
}

func dialTCP(ctx context.Context, dev string, local netip.Addr, to netip.AddrPort) (*Conn, error) {
	if !sameFamily(local, to.Addr()) {
		return nil, fmt.Errorf("from %s: not the same family", local)
	}
	c, err := open(unix.SOCK_STREAM, "tcp", dev, netip.AddrPortFrom(local, 0))
	if err != nil {
		return nil, err
	}
	conn := &Conn{c: c, remote: netip.AddrPortFrom(to.Addr().WithZone(""), to.Port())}
	// Requests leave at once.
	err = c.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err == nil {
		_, err = c.Connect(noDeadline{ctx}, sockaddr(to))
	}
	if err == nil {
		conn.local, err = localAddr(c)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	// A context that ended just now may have left its deadline.
	_ = c.SetDeadline(time.Time{})
	return conn, nil
}

// noDeadline hides the deadline of a context: when mdlayher/socket sees one it
// waits for that, even if the context ends before.
type noDeadline struct{ context.Context }

func (noDeadline) Deadline() (time.Time, bool) { return time.Time{}, false }

// Conn is a TCP connection, accepted or dialled. One goroutine may read while another
// writes.
type Conn struct {
	c             *socket.Conn
	local, remote netip.AddrPort
}

// Read gives io.EOF when the peer has sent all, and an error that wraps
// os.ErrDeadlineExceeded when the read deadline passed.
func (c *Conn) Read(p []byte) (int, error) { return c.c.Read(p) }

// Write writes all of p or gives an error; the error wraps
// os.ErrDeadlineExceeded when the write deadline passed.
func (c *Conn) Write(p []byte) (int, error) { return c.c.Write(p) }

// SetReadDeadline ends present and later reads at t; the zero time: never.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.c.SetReadDeadline(t) }

// SetWriteDeadline ends present and later writes at t; the zero time: never.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.c.SetWriteDeadline(t) }

// CloseWrite tells the peer that nothing more will be sent.
func (c *Conn) CloseWrite() error { return c.c.CloseWrite() }

// Local returns the router's address.
func (c *Conn) Local() netip.AddrPort { return c.local }

// Remote returns the peer's address.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// Close ends present reads and writes. Closing again is no error.
func (c *Conn) Close() error { return c.c.Close() }
