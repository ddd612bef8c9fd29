package pcp

import (
	"context"
	"net/netip"
	"time"

	"github.com/linux-igd/upnpd/internal/sock"
)

// A series of announcements: at once, after 250 ms, after twice that, and so on
// (PMP-6, ANN-2). The updates to single clients go with the first of them (ANN-4).
const (
	announcements = 10
	updates       = 3
	firstGap      = 250 * time.Millisecond
)

// These bound the mappings remembered for updates, of one LAN, and, when there are
// more, those of one host.
const (
	maxTold = 1024
	oneTold = maxTold / 4
)

// told names a mapping as its client does: address, protocol and port, and by PEER
// the peer.
type told [39]byte

// client is where the owner of a mapping was when it last asked, and what it was
// told.
type client struct {
	packet sock.Packet   // its last request
	reply  []byte        // with its options
	until  time.Duration // the mapping's Deadline, by which it is known again
	nonce  [12]byte
	strict bool // it wanted this address or none

	// Of the goroutine of Run.
	address netip.Addr // the external address that it was last told
	left    int        // updates still to be sent
	ended   bool       // it could not keep the mapping
}

// Announce begins the announcements anew: the external address is another one, or
// there is one again, or state was lost. It never waits, and may be called from any
// goroutine.
func (s *Server) Announce() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// serve sends what is due until ctx ends, or reading: ended says that.
func (s *Server) serve(ctx context.Context, broken <-chan error) (ended bool, err error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for sent := 0; ; sent++ {
		select {
		case <-ctx.Done():
			return false, nil
		case err := <-broken:
			return true, err // nil when ctx has ended
		case <-s.again:
			sent = 0
		case <-timer.C:
		}
		s.announce(ctx)
		s.update(ctx, sent == 0)
		if timer.Stop(); sent < announcements-1 {
			timer.Reset(firstGap << sent)
		}
	}
}

// announce sends one announcement of each protocol. Without an external address
// NAT-PMP has nothing to say.
func (s *Server) announce(ctx context.Context) {
	group := netip.AddrFrom4([4]byte{224, 0, 0, 1}) // all hosts of the link
	if s.lan.IPv6 {
		group = netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 15: 1})
	}
	to := netip.AddrPortFrom(group, clientPort)
	if s.cfg.NATPMP && !s.lan.IPv6 && s.external().IsValid() {
		s.say(ctx, s.conn.WriteTo(ctx, s.pmpAddress(), to, s.lan.Addr))
	}
	if s.cfg.PCP {
		s.say(ctx, s.conn.WriteTo(ctx, s.respond(nil, success, 0), to, s.lan.Addr))
	}
}

// remember keeps who must hear when the external address changes; nil: nobody, the
// mapping is deleted.
func (s *Server) remember(q *request, c *client) {
	var k told
	copy(k[:], q.packet[8:24])
	k[16] = q.packet[36]
	if copy(k[17:], q.packet[40:42]); q.Peer {
		copy(k[19:], q.packet[mapLen:peerLen])
	}
	s.mu.Lock()
	if delete(s.told, k); c != nil && len(s.told) >= maxTold {
		s.forget(s.cfg.Now())
	}
	if c != nil && len(s.told) < maxTold {
		s.told[k] = c
	}
	s.mu.Unlock()
}

// forget makes room among those who are remembered: leases that have ended go, and
// what one host has beyond its share.
func (s *Server) forget(now time.Duration) {
	has := map[[16]byte]int{}
	for k, c := range s.told {
		host := [16]byte(k[:16])
		if has[host]++; c.until <= now || has[host] > oneTold {
			has[host]--
			delete(s.told, k)
		}
	}
}

// update tells clients what became of their mappings when the external address is
// another one, until they ask again (ANN-4). changed: it may have become that now.
func (s *Server) update(ctx context.Context, changed bool) {
	address := s.external()
	if !address.IsValid() {
		return
	}
	var due []*client
	s.mu.Lock()
	for _, c := range s.told {
		if changed && c.address != address && !c.ended {
			c.address, c.left = address, updates
		}
		if c.left > 0 {
			c.left--
			due = append(due, c)
		}
	}
	s.mu.Unlock()
	for _, c := range due {
		if p := s.news(c); p != nil {
			_ = s.conn.WriteTo(ctx, p, c.packet.Src, c.packet.Dst) // there are others, and the client will ask
		}
	}
}

// news is the update for one client, nil when the mapping is no longer as it was.
// One that was to have its address or none ends.
func (s *Server) news(c *client) []byte {
	q := &request{packet: c.reply}
	q.From = c.packet.Src.Addr()
	q.parseMap()
	q.Nonce = c.nonce
	m, ok := s.lookup(&q.Request)
	mine := ok && m.Deadline == c.until
	switch {
	case mine && !c.strict:
		p := s.respond(c.reply, success, s.remaining(m))
		assign(p, c.address)
		return p
	case mine && s.unmap(&q.Request) == success:
		c.ended = true
		return s.refuse(q, cannotProvide)
	case c.ended && !ok:
		return s.respond(c.reply, cannotProvide, cannotProvide.lifetime())
	}
	return nil
}
