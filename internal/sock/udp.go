package sock

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// multicastTTL is the default of UDA 1.1 (SSDP-2).
const multicastTTL = 2

// Packet says where a datagram came from and how it arrived.
type Packet struct {
	Src     netip.AddrPort // the sender
	Dst     netip.Addr     // the destination in the IP header: a group, a broadcast or an own address
	IfIndex int            // the device it arrived on
}

// UDP is an IPv4 socket bound to one device. One goroutine may read while
// others write.
type UDP struct {
	c      *socket.Conn
	dev    string
	index  int
	port   uint16
	closed atomic.Bool
}

// ListenUDP opens 0.0.0.0:port on the device; port 0: the kernel chooses. It
// hears only groups that it joined itself, sends multicast by the same device
// with a TTL of 2 (SSDP-2), and programs on the router hear that too. Being
// bound to the device decides the way of multicast also, before any route and
// IP_MULTICAST_IF (SSDP-7).
func ListenUDP(dev string, port uint16) (*UDP, error) {
	c, err := open(unix.SOCK_DGRAM, "udp", dev, port)
	if err != nil {
		return nil, fmt.Errorf("listen on UDP port %d of %s: %w", port, dev, err)
	}
	u := &UDP{c: c, dev: dev}
	if err := u.setUp(); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen on UDP port %d of %s: %w", port, dev, err)
	}
	return u, nil
}

func (u *UDP) setUp() error {
	options := []struct{ opt, value int }{
		{unix.IP_PKTINFO, 1},
		{unix.IP_MULTICAST_TTL, multicastTTL},
		{unix.IP_MULTICAST_LOOP, 1},
		{unix.IP_MULTICAST_ALL, 0},
	}
	for _, o := range options {
		if err := u.c.SetsockoptInt(unix.IPPROTO_IP, o.opt, o.value); err != nil {
			return err
		}
	}
	var err error
	if u.index, err = deviceIndex(u.c, u.dev); err != nil {
		return err
	}
	local, err := localAddr(u.c)
	u.port = local.Port()
	return err
}

// Join makes the socket hear the IPv4 group on its device. Joining a group
// again is no error. The membership survives that the device goes down, or
// loses its addresses.
func (u *UDP) Join(group netip.Addr) error {
	if !group.Is4() || !group.IsMulticast() {
		return fmt.Errorf("join %s on %s: not an IPv4 multicast group", group, u.dev)
	}
	m := &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(u.index)}
	err := control(u.c, func(fd int) error {
		return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, m)
	})
	if err != nil && !isErrno(err, unix.EADDRINUSE) {
		return fmt.Errorf("join %s on %s: %w", group, u.dev, err)
	}
	return nil
}

// ReadFrom waits for a datagram and returns its length, which may be 0. A
// datagram longer than p fills p and gives ErrTruncated; read on after it.
// When ctx ends the error wraps ctx.Err(), after Close it wraps os.ErrClosed;
// both are final.
func (u *UDP) ReadFrom(ctx context.Context, p []byte) (int, Packet, error) {
	// A context that ended during an earlier call may have left its deadline.
	_ = u.c.SetReadDeadline(time.Time{})
	oob := make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo))
	n, oobn, flags, from, err := u.c.Recvmsg(ctx, p, oob, 0)
	if err != nil {
		return 0, Packet{}, fmt.Errorf("read from UDP port %d of %s: %w", u.port, u.dev, u.orClosed(err))
	}
	pkt := Packet{Src: addrPort(from)}
	if err := pkt.setInfo(oob[:oobn]); err != nil {
		return 0, Packet{}, fmt.Errorf("read from UDP port %d of %s: %w", u.port, u.dev, err)
	}
	if flags&unix.MSG_TRUNC != 0 {
		return n, pkt, fmt.Errorf("read from UDP port %d of %s: %w", u.port, u.dev, ErrTruncated)
	}
	return n, pkt, nil
}

// setInfo takes destination and device from the control messages.
func (p *Packet) setInfo(oob []byte) error {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return err
		}
		if h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo {
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			p.Dst = netip.AddrFrom4(info.Addr)
			p.IfIndex = int(info.Ifindex)
			return nil
		}
		oob = rest
	}
	return fmt.Errorf("the kernel did not say where a datagram arrived")
}

// WriteTo sends one datagram by the device of the socket. A valid src must be
// an address of the router and becomes the source; with the zero Addr the
// kernel chooses. A multicast destination needs no route. An error concerns
// this datagram only, except when it wraps ctx.Err() or os.ErrClosed.
func (u *UDP) WriteTo(ctx context.Context, p []byte, to netip.AddrPort, src netip.Addr) error {
	if !to.Addr().Is4() || (src.IsValid() && !src.Is4()) {
		return fmt.Errorf("send to %s by %s: not IPv4", to, u.dev)
	}
	var oob []byte
	if src.IsValid() {
		oob = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: src.As4()})
	}
	// A context that ended during an earlier call may have left its deadline.
	_ = u.c.SetWriteDeadline(time.Time{})
	sa := &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	if _, err := u.c.Sendmsg(ctx, p, oob, sa, 0); err != nil {
		return fmt.Errorf("send to %s by %s: %w", to, u.dev, u.orClosed(err))
	}
	return nil
}

// orClosed gives os.ErrClosed for whatever error a closed socket returned.
func (u *UDP) orClosed(err error) error {
	if u.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// Port returns the local port.
func (u *UDP) Port() uint16 { return u.port }

// Close ends all calls with os.ErrClosed. Closing again is no error.
func (u *UDP) Close() error {
	u.closed.Store(true)
	return u.c.Close()
}
