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

// sendBuffer is for what waits up to three seconds for neighbours that are not there,
// in bytes, which the kernel doubles: with the usual 200 kB, 100 requests a second with
// forged sources of the LAN had all answers wait. The limits of SSDP and PCP are 500
// and 1000 answers a second, of about 1 kB with what the kernel adds.
const sendBuffer = 3 << 20

// Packet says where a datagram came from and how it arrived.
type Packet struct {
	Src     netip.AddrPort // the sender
	Dst     netip.Addr     // the destination in the IP header: a group, a broadcast or an own address
	IfIndex int            // the device it arrived on
}

// UDP is an IPv4 or an IPv6 socket bound to one device. One goroutine may read while
// others write.
type UDP struct {
	c      *socket.Conn
	dev    string
	index  int
	port   uint16
	closed atomic.Bool

	wildcard netip.Addr // 0.0.0.0 or ::, which says the family
}

// ListenUDP opens 0.0.0.0:port on the device; port 0: the kernel chooses. It
// hears only groups that it joined itself, sends multicast by the same device
// with a TTL of 2 (SSDP-2), and programs on the router hear that too. Being
// bound to the device decides the way of multicast also, before any route and
// IP_MULTICAST_IF (SSDP-7).
func ListenUDP(dev string, port uint16) (*UDP, error) { return openUDP(dev, any4(port)) }

// ListenUDP6 opens [::]:port on the device, for IPv6 alone, and is otherwise as
// ListenUDP; 2 is the hop limit. Before Linux 4.20 it also hears the groups that
// other programs joined on the device.
func ListenUDP6(dev string, port uint16) (*UDP, error) { return openUDP(dev, any6(port)) }

func openUDP(dev string, local netip.AddrPort) (*UDP, error) {
	c, err := open(unix.SOCK_DGRAM, "udp", dev, local)
	if err == nil {
		u := &UDP{c: c, dev: dev, wildcard: local.Addr()}
		if err = u.setUp(); err == nil {
			return u, nil
		}
		_ = c.Close()
	}
	return nil, fmt.Errorf("listen on UDP port %d of %s: %w", local.Port(), dev, err)
}

func (u *UDP) setUp() error {
	var err error
	if u.index, err = deviceIndex(u.c, u.dev); err != nil {
		return err
	}
	type option struct{ opt, value int }
	level, options := unix.IPPROTO_IP, []option{
		{unix.IP_PKTINFO, 1},
		{unix.IP_MULTICAST_TTL, multicastTTL},
		{unix.IP_MULTICAST_LOOP, 1},
		{unix.IP_MULTICAST_ALL, 0},
	}
	if u.wildcard.Is6() {
		level, options = unix.IPPROTO_IPV6, []option{
			{unix.IPV6_RECVPKTINFO, 1},
			{unix.IPV6_MULTICAST_IF, u.index},
			{unix.IPV6_MULTICAST_HOPS, multicastTTL},
			{unix.IPV6_MULTICAST_LOOP, 1},
			{unix.IPV6_MULTICAST_ALL, 0},
		}
	}
	for _, o := range options {
		err := u.c.SetsockoptInt(level, o.opt, o.value)
		if err != nil && (o.opt != unix.IPV6_MULTICAST_ALL || !isErrno(err, unix.ENOPROTOOPT)) {
			return err
		}
	}
	_ = u.c.SetsockoptInt(unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) // without CAP_NET_ADMIN the usual one
	local, err := localAddr(u.c)
	u.port = local.Port()
	return err
}

// Join makes the socket hear the group, of its own family, on its device.
// Joining a group again is no error. The membership survives that the device
// goes down, or loses its addresses.
func (u *UDP) Join(group netip.Addr) error {
	if !sameFamily(group, u.wildcard) || !group.IsMulticast() {
		return fmt.Errorf("join %s on %s: not a multicast group of the socket's family", group, u.dev)
	}
	err := control(u.c, func(fd int) error {
		if group.Is4() {
			m := &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(u.index)}
			return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, m)
		}
		m := &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(u.index)}
		return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, m)
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
	oob := make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo)) // the longer one
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
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			p.Dst = netip.AddrFrom4(info.Addr)
			p.IfIndex = int(info.Ifindex)
			return nil
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			p.Dst = netip.AddrFrom16(info.Addr)
			p.IfIndex = int(info.Ifindex)
			return nil
		}
		oob = rest
	}
	return fmt.Errorf("the kernel did not say where a datagram arrived")
}

// WriteTo sends one datagram by the device of the socket, now or not at all. A valid src must be
// an address of the router and becomes the source; with the zero Addr the
// kernel chooses. A multicast destination needs no route. An error concerns
// this datagram only, except when it wraps ctx.Err() or os.ErrClosed.
func (u *UDP) WriteTo(ctx context.Context, p []byte, to netip.AddrPort, src netip.Addr) error {
	if !sameFamily(to.Addr(), u.wildcard) || (src.IsValid() && !sameFamily(src, u.wildcard)) {
		return fmt.Errorf("send to %s by %s: not the socket's family", to, u.dev)
	}
	var oob []byte
	switch {
	case src.Is4():
		oob = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: src.As4()})
	case src.Is6():
		oob = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: src.As16(), Ifindex: uint32(u.index)})
	}
	err := ctx.Err()
	if err == nil {
		err = control(u.c, func(fd int) error { return unix.Sendmsg(fd, p, oob, sockaddr(to), unix.MSG_DONTWAIT) })
	}
	if err != nil {
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
