package firewall

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// Tracked reports whether the kernel tracks an IPv4 connection that began with a
// packet from src to dst and leads to client: that packet was redirected, and not
// dropped on its way. A connection from src to dst is deleted wherever it leads,
// so that a probe leaves nothing behind.
func Tracked(proto portmap.Protocol, src, dst, client netip.AddrPort) (tracked bool, err error) {
	if !src.Addr().Is4() || !dst.Addr().Is4() {
		return false, errors.New("ask ctnetlink: only for IPv4")
	}
	conn, err := dialConntrack()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ask, err := getRequest(tuple{uint8(proto), src, dst})
	if err != nil {
		return false, err
	}
	replies, err := conn.Execute(ask)
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("ask ctnetlink for a connection: %w", err)
	}
	for _, reply := range replies {
		if reply.Header.Type == netlink.Error { // the acknowledgement
			continue
		}
		c, err := parseFlow(reply.Data)
		if err == nil {
			err = (&Flows{conn: conn}).delete(reply.Data)
		}
		if err != nil {
			return false, err
		}
		tracked = c.reply.src == client
	}
	return tracked, nil
}
