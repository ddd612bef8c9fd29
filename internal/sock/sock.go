// Package sock opens the raw sockets of the daemon: UDP that knows where a
// datagram arrived, and TCP, both bound to one LAN device. It also tells which
// ports the router itself uses, and has what a check of the router needs: who
// uses a port, is a group joined, does a search get an answer, does a packet
// pass.
//
// It follows socket(7), ip(7), ipv6(7), udp(7), tcp(7) and proc(5), RFC 3542
// (IPV6_PKTINFO), and SPEC.md rows SSDP-2, SSDP-6, SSDP-7 and SSDP-8. It exists
// because package net costs 0.7 MB of binary (DESIGN, sizes).
//
// A socket is IPv4 or IPv6, never both. Addresses carry no zone, neither those
// given nor those taken: the socket's device says which link is meant.
//
// A socket stays bound to the device it was opened on. When a device of the
// same name is made again with another index, the old socket hears nothing
// more and must be opened anew.
package sock

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// ErrTruncated reports a datagram that was longer than the buffer; the rest
// of it is lost.
var ErrTruncated = errors.New("datagram longer than the buffer")

// ErrExhausted reports that the process or the system has no file descriptor
// or no memory left for one more connection.
var ErrExhausted = errors.New("no resources for another connection")

// any4 and any6 are what servers are bound to.
func any4(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), port) }
func any6(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv6Unspecified(), port) }

// open returns a socket of the type (SOCK_DGRAM or SOCK_STREAM) with the local
// address that sees only traffic of the device (SSDP-7, SSDP-8). Port 0: the
// kernel chooses.
func open(typ int, name, dev string, local netip.AddrPort) (*socket.Conn, error) {
	// The kernel cuts longer names and takes an empty one as "any device".
	if len(dev) == 0 || len(dev) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("%q is not a device name: 1 to %d bytes", dev, unix.IFNAMSIZ-1)
	}
	family := unix.AF_INET
	if !local.Addr().Is4() {
		family = unix.AF_INET6
	}
	c, err := socket.Socket(family, typ, 0, name, nil)
	if err != nil {
		return nil, err
	}
	if err := bind(c, dev, local); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func bind(c *socket.Conn, dev string, local netip.AddrPort) error {
	if local.Addr().IsUnspecified() { // who dials wants a port that nobody has
		if err := c.SetsockoptInt(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	if !local.Addr().Is4() {
		if err := c.SetsockoptInt(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	if err := c.SetsockoptString(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, dev); err != nil {
		return fmt.Errorf("bind to device (needs root or CAP_NET_RAW): %w", err)
	}
	err := c.Bind(sockaddr(local))
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("another program has this port: %w", err)
	}
	return err
}

// control runs a call on the file descriptor that package socket has no
// method for.
func control(c *socket.Conn, call func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	if err := rc.Control(func(fd uintptr) { callErr = call(int(fd)) }); err != nil {
		return err
	}
	return callErr
}

// deviceIndex asks the kernel for the index of the device, by SIOCGIFINDEX.
func deviceIndex(c *socket.Conn, dev string) (int, error) {
	ifr, err := unix.NewIfreq(dev)
	if err != nil {
		return 0, err
	}
	err = control(c, func(fd int) error { return unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr) })
	if err != nil {
		return 0, fmt.Errorf("index of device: %w", err)
	}
	return int(ifr.Uint32()), nil
}

// localAddr returns the address that the socket is bound to.
func localAddr(c *socket.Conn) (netip.AddrPort, error) {
	sa, err := c.Getsockname()
	if err != nil {
		return netip.AddrPort{}, err
	}
	return addrPort(sa), nil
}

// addrPort returns the zero AddrPort for anything but IPv4 and IPv6.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// sockaddr leaves the scope id 0: for link-local addresses and groups the kernel
// takes the device that the socket is bound to.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// sameFamily reports whether both are IPv4 or both IPv6. To an IPv6 socket the
// kernel refuses IPv4 addresses in the clothes of IPv6.
func sameFamily(a, b netip.Addr) bool { return a.IsValid() && a.BitLen() == b.BitLen() }

// isErrno reports whether err is one of the errnos.
func isErrno(err error, errnos ...syscall.Errno) bool {
	for _, errno := range errnos {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
