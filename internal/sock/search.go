package sock

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// selfSearchTime is how long SelfSearch waits: responders wait up to MX
// seconds, and the search may ask for an MX of 1 (SSDP-3).
const selfSearchTime = 2 * time.Second

// SelfSearch sends the M-SEARCH datagram to the group out of the device, from
// the router's own address addr there, so that only programs on the router
// hear it, and returns the first answer with status 200 that comes from addr.
// Without one before ctx ends, or after 2 seconds, reply is nil. An error says
// that the search could not be sent.
//
// The search arrives at the daemon's socket as one of a LAN host would: by the
// device, and through the input rules for it. With a TTL of 0 it does not
// leave the router. The answer to an own address comes by lo, which a socket
// bound to the device would not hear.
func SelfSearch(ctx context.Context, dev string, addr netip.Addr, group netip.AddrPort, datagram []byte) (reply []byte, err error) {
	reply, err = selfSearch(ctx, dev, addr, group, datagram)
	if err != nil {
		return nil, fmt.Errorf("search ourselves on %s: %w", dev, err)
	}
	return reply, nil
}

func selfSearch(ctx context.Context, dev string, addr netip.Addr, group netip.AddrPort, datagram []byte) ([]byte, error) {
	if !addr.Is4() || !group.Addr().Is4() {
		return nil, errors.New("not IPv4")
	}
	c, err := socket.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0, "search", nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.Bind(&unix.SockaddrInet4{Addr: addr.As4()}); err != nil {
		return nil, err
	}
	index, err := deviceIndex(c, dev)
	if err != nil {
		return nil, err
	}
	err = control(c, func(fd int) error {
		m := &unix.IPMreqn{Address: addr.As4(), Ifindex: int32(index)}
		return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, m)
	})
	if err == nil {
		err = c.SetsockoptInt(unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 0)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, selfSearchTime)
	defer cancel()
	sa := &unix.SockaddrInet4{Addr: group.Addr().As4(), Port: int(group.Port())}
	if _, err := c.Sendmsg(ctx, datagram, nil, sa, 0); err != nil {
		return nil, err
	}
	buf := make([]byte, 2048)
	for {
		n, _, _, from, err := c.Recvmsg(ctx, buf, nil, 0)
		switch {
		case ctx.Err() != nil:
			return nil, nil
		case err != nil:
			return nil, err
		case addrPort(from).Addr() == addr && strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200"):
			return buf[:n], nil
		}
	}
}
