// Package pcp answers NAT-PMP (RFC 6886) and PCP (RFC 6887) on one socket per LAN
// and version of IP; the first byte of a request says which of the two it is. It
// announces the router to those who listen, and tells clients of PCP when the
// external address of their mappings has changed.
//
// The rules are sections 6 and 7 of SPEC.md, with the options DESCRIPTION (RFC
// 7220) and PORT_SET (RFC 7753). What is mapped, for whom and for how long is
// decided in portmap.
//
// PEER (RFC 6887, section 12) makes a mapping of the table with a filter: the
// client's own packets from its port leave from the external port, and the one peer
// is let in. A client's port may have many of them, and a MAP beside them: all have
// one external port, that of a connection to the peer if there is one already. What
// PEER made lives as long as asked, like a MAP's, not as long as its flow; the flow
// goes on when it ends.
//
// One goroutine reads and answers; the goroutine of Run owns the announcements and
// their timer, so an idle server sleeps.
package pcp

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
	"github.com/linux-igd/upnpd/internal/wan"
)

// Port is the UDP port of requests (SPEC 6, 7.1).
const Port = 5351

// clientPort is where clients hear announcements (PMP-6, ANN-2).
const clientPort = 5350

// Config is what all LANs have in common.
type Config struct {
	Table *portmap.Table
	State func() wan.State // what is known of the uplink and the LANs now

	// ExternalIP is reported instead of the uplink's address when valid.
	ExternalIP netip.Addr

	NATPMP, PCP bool // which of the two are spoken (PCP-9)

	// MinLease and MaxLease bound the lifetimes granted (MAP-9). NAT-PMP has no
	// least one: it must not grant more than was asked for (PMP-12).
	MinLease, MaxLease time.Duration

	Now   func() time.Duration // the boot clock
	Epoch *Epoch               // the same for all LANs
	Logf  func(format string, args ...any)
}

// LAN is one served LAN by one version of IP.
type LAN struct {
	Addr    netip.Addr // the router's own, the source of announcements; of IPv6 the link-local one
	IfIndex int        // of the LAN device: nothing else is listened to (PMP-7, PCP-1)
	IPv6    bool

	// OnLink tells whether an address is a host of this LAN, so not a
	// broadcast address. It is called from the reading goroutine.
	OnLink func(netip.Addr) bool
}

// Conn is what a Server needs of its socket, bound to the LAN device and to Port.
// *sock.UDP is one.
type Conn interface {
	// ReadFrom waits for a datagram until ctx ends. A longer one than p gives
	// sock.ErrTruncated, and its beginning.
	ReadFrom(ctx context.Context, p []byte) (int, sock.Packet, error)
	// WriteTo sends a datagram from the address src. It may be called while
	// another call of either method runs.
	WriteTo(ctx context.Context, p []byte, to netip.AddrPort, src netip.Addr) error
}

// Epoch is the time since the mappings began, by which clients notice that they
// are lost (PMP-5, ANN-3).
type Epoch struct {
	now   func() time.Duration
	begun atomic.Uint32 // in seconds of the boot clock
}

// NewEpoch begins an Epoch, on the boot clock.
func NewEpoch(now func() time.Duration) *Epoch {
	e := &Epoch{now: now}
	e.Reset()
	return e
}

// Reset begins it again: the mappings are lost, or the external address is another
// (ANN-3). Each Server's Announce should follow.
func (e *Epoch) Reset() { e.begun.Store(e.clock()) }

// Seconds is the value for replies.
func (e *Epoch) Seconds() uint32 { return e.clock() - e.begun.Load() }

func (e *Epoch) clock() uint32 { return uint32(e.now() / time.Second) }

// Server serves one LAN. Make one with New.
type Server struct {
	cfg   Config
	lan   LAN
	conn  Conn
	again chan struct{} // Announce was called
	limit limiter       // of the reading goroutine

	mu   sync.Mutex
	said time.Duration    // when say may speak again
	told map[told]*client // who must hear of a new external address (ANN-4)
}

// New returns a Server for one LAN; it does nothing before Run. The socket stays
// the caller's to close, after Run has returned.
func New(cfg Config, lan LAN, c Conn) *Server {
	return &Server{
		cfg: cfg, lan: lan, conn: c,
		again: make(chan struct{}, 1),
		limit: limiter{sources: map[netip.Addr]source{}},
		told:  map[told]*client{},
	}
}

// external is the address that mappings are reached by; the zero Addr while there
// is none.
func (s *Server) external() netip.Addr {
	up := s.cfg.State().Uplink
	if !up.Connected() {
		return netip.Addr{}
	}
	if s.cfg.ExternalIP.IsValid() {
		return s.cfg.ExternalIP
	}
	return up.Addr
}
