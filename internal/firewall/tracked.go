package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

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
	c, told, err := look(conn, tuple{uint8(proto), src, dst})
	if err != nil || told == nil {
		return false, err
	}
	if err := (&Flows{conn: conn}).delete(told); err != nil {
		return false, err
	}
	return c.reply.src == client, nil
}

// look finds the connection with an original tuple, as the kernel told of it; nil:
// there is none.
func look(conn flowConn, orig tuple) (c flow, told []byte, err error) {
	ask, err := getRequest(orig)
	if err != nil {
		return c, nil, err
	}
	replies, err := conn.Execute(ask)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			return c, nil, nil
		}
		return c, nil, fmt.Errorf("ask ctnetlink for a connection: %w", err)
	}
	for _, reply := range replies {
		if reply.Header.Type != netlink.Error { // that is the acknowledgement
			told = reply.Data
			c, err = parseFlow(told)
		}
	}
	return c, told, err
}

// SourcePort is portmap.Firewall's.
func (f *IPTables) SourcePort(m *portmap.Mapping) (uint16, error) { return f.inForce.source(m) }

// SourcePort is portmap.Firewall's.
func (f *NFTables) SourcePort(m *portmap.Mapping) (uint16, error) { return f.inForce.source(m) }

// source gives what the connection from m's client to m's remote peer has as its
// source port at the uplink's address; 0: there is no connection, or it leaves
// elsewhere. Without ctnetlink it knows of none.
func (f *inForce) source(m *portmap.Mapping) (uint16, error) {
	c, err := f.flows.find(tuple{uint8(m.Protocol), netip.AddrPortFrom(m.Client, m.InternalPort), netip.AddrPortFrom(m.RemoteHost, m.RemotePort)})
	if err != nil || c.reply.dst.Addr() != f.network.External {
		return 0, err
	}
	return c.reply.dst.Port(), nil
}

// find gives the connection with an original tuple, the zero flow if there is none.
// It asks by a socket of its own, for the other one may be at a long list; only one
// goroutine may ask.
func (f *Flows) find(orig tuple) (c flow, err error) {
	if f.conn == nil {
		return c, nil
	}
	if f.asks == nil {
		if f.asks, err = dialConntrack(); err != nil {
			return c, err
		}
	}
	if err = f.asks.SetDeadline(time.Now().Add(flowTimeout)); err == nil {
		c, _, err = look(f.asks, orig)
	}
	if err != nil { // the next answer may be this one's
		err = errors.Join(err, f.forget())
	}
	return c, err
}

// forget closes the socket of find.
func (f *Flows) forget() (err error) {
	if f.asks != nil {
		err, f.asks = f.asks.Close(), nil
	}
	return err
}
