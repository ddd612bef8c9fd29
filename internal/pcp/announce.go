package pcp

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
)

// A series of announcements: at once, after 250 ms, after twice that, and so on
// (PMP-6, ANN-2). The updates to single clients go with the first of them (ANN-4).
const (
	announcements = 10
	updates       = 3
	firstGap      = 250 * time.Millisecond
)

// maxTold bounds the clients remembered for updates, of one LAN.
const maxTold = 1024

// told names a mapping as its client does.
type told struct {
	client   netip.Addr
	protocol portmap.Protocol
	internal uint16
}

// client is where the owner of a mapping was when it last asked, and what it was
// told.
type client struct {
	packet sock.Packet   // its last request
	reply  []byte        // with its options
	until  time.Duration // the mapping's Deadline, by which it is known again
	nonce  [12]byte
	prefer bool // it wanted this address or none

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

// serve sends what is due until ctx ends or reading fails.
func (s *Server) serve(ctx context.Context, broken <-chan error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for sent, failing := 0, false; ; sent++ {
		select {
		case <-ctx.Done():
			return nil
		case err := <-broken:
			return err // nil when ctx has ended
		case <-s.again:
			sent = 0
		case <-timer.C:
		}
		err := s.announce(ctx)
		s.update(ctx, sent == 0)
		if err != nil && !failing && ctx.Err() == nil {
			s.cfg.Logf("pcp: announce on %v: %v", s.lan.Addr, err)
		}
		failing = err != nil
		if timer.Stop(); sent < announcements-1 {
			timer.Reset(firstGap << sent)
		}
	}
}

// announce sends one announcement of each protocol. Without an external address
// NAT-PMP has nothing to say.
func (s *Server) announce(ctx context.Context) (err error) {
	to, epoch := netip.AddrPortFrom(group4(), clientPort), s.cfg.Epoch.Seconds()
	if s.lan.IPv6 {
		to = netip.AddrPortFrom(group6(), clientPort)
	} else if a := s.external(); s.cfg.NATPMP && a.IsValid() {
		err = s.conn.WriteTo(ctx, pmpAddress(a, epoch), to, s.lan.Addr)
	}
	if s.cfg.PCP {
		if failed := s.conn.WriteTo(ctx, announcement(epoch), to, s.lan.Addr); err == nil {
			err = failed
		}
	}
	return err
}

// remember keeps who must hear when the external address changes. A pinhole has
// none.
func (s *Server) remember(packet sock.Packet, m *portmap.Mapping, prefer bool, address netip.Addr, reply []byte) {
	if s.lan.IPv6 {
		return
	}
	k := told{m.Client, m.Protocol, m.InternalPort}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told[k] == nil && len(s.told) >= maxTold {
		s.makeRoom()
	}
	s.told[k] = &client{packet: packet, reply: slices.Clone(reply), until: m.Deadline, nonce: m.Nonce, prefer: prefer, address: address}
}

// makeRoom forgets those whose leases have ended, and the one that ends next.
func (s *Server) makeRoom() {
	now, first := s.cfg.Now(), told{}
	for k, c := range s.told {
		if c.until <= now {
			delete(s.told, k)
		} else if !first.client.IsValid() || c.until < s.told[first].until {
			first = k
		}
	}
	delete(s.told, first)
}

// forget forgets a client, unless it has asked again (nil: whatever it did).
func (s *Server) forget(k told, c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == nil || s.told[k] == c {
		delete(s.told, k)
	}
}

// update tells clients what became of their mappings when the external address is
// another one, until they ask again (ANN-4). changed: it may have become that now.
func (s *Server) update(ctx context.Context, changed bool) {
	address := s.external()
	if !s.cfg.PCP || s.lan.IPv6 || !address.IsValid() {
		return
	}
	due := map[told]*client{}
	s.mu.Lock()
	for k, c := range s.told {
		if changed && c.address != address {
			c.address, c.left = address, updates
		}
		if c.left > 0 {
			c.left--
			due[k] = c
		}
	}
	s.mu.Unlock()
	for k, c := range due {
		p := s.news(k, c)
		if p != nil {
			_ = s.conn.WriteTo(ctx, p, c.packet.Src, c.packet.Dst) // there are others, and the client will ask
		}
		if p == nil || c.ended && c.left == 0 {
			s.forget(k, c)
		}
	}
}

// news is the update for one client, nil when the mapping is no longer as it was.
// One that was to have its address or none ends.
func (s *Server) news(k told, c *client) []byte {
	m, err := s.cfg.Table.LookupInternal(k.protocol, k.client, k.internal, portmap.PCP)
	if mine := err == nil && m.Origin == portmap.PCP && m.Deadline == c.until; mine == c.ended {
		return nil
	}
	epoch, p := s.cfg.Epoch.Seconds(), slices.Clone(c.reply)
	if !c.prefer {
		setHeader(p, success, s.remaining(m), epoch)
		assign(p, binary.BigEndian.Uint16(p[42:]), c.address)
		return p
	}
	if !c.ended {
		s.cfg.Logf("pcp: %v ends: its client wants it at the external address of before, or not at all", m)
		if s.cfg.Table.UnmapInternal(k.protocol, k.client, k.internal, portmap.PCP, c.nonce) != nil {
			return nil
		}
		c.ended = true
	}
	setHeader(p, cannotProvide, cannotProvide.lifetime(), epoch)
	return p
}
