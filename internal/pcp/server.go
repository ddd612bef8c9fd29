package pcp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/linux-igd/upnpd/internal/sock"
)

// sayEvery is the time between two lines in the log about the network.
const sayEvery = 10 * time.Second

// Run announces the router and answers requests, from the first moment, until ctx
// ends; then it returns nil. It returns an error when the socket can no longer be
// read. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	reading, stop := context.WithCancel(ctx)
	broken := make(chan error, 1)
	go func() { broken <- s.read(reading) }()
	ended, err := s.serve(ctx, broken)
	stop()
	if !ended {
		<-broken // so that nobody reads the socket after Run
	}
	return err
}

// read answers requests until ctx ends, which is no error.
func (s *Server) read(ctx context.Context) error {
	buf := make([]byte, maxMessage+1) // one more shows that a request is too long
	for {
		n, packet, err := s.conn.ReadFrom(ctx, buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, sock.ErrTruncated):
			return fmt.Errorf("read port mapping requests: %w", err)
		}
		if reply := s.receive(buf[:n], &packet); reply != nil {
			s.say(ctx, s.conn.WriteTo(ctx, reply, packet.Src, packet.Dst)) // ANN-5
		}
	}
}

// say logs an error, and not too often.
func (s *Server) say(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	now := s.cfg.Now()
	s.mu.Lock()
	quiet := now < s.said
	if !quiet {
		s.said = now + sayEvery
	}
	s.mu.Unlock()
	if !quiet {
		s.cfg.Logf("pcp: %v", err)
	}
}

var errFlood = errors.New("too many requests: some get no answer")

// receive gives the reply to a datagram, nil for none.
func (s *Server) receive(p []byte, packet *sock.Packet) []byte {
	if len(p) < 2 || p[1]&response != 0 || !s.admits(packet) { // PCP-2, PMP-2
		return nil
	}
	if !s.limit.allow(s.cfg.Now(), packet.Src.Addr(), 1) { // PCP-10
		s.say(context.Background(), fmt.Errorf("%v: %w", packet.Src, errFlood))
		return nil
	}
	natpmp := s.cfg.NATPMP && !s.lan.IPv6
	switch { // PCP-9
	case natpmp && p[0] == 0:
		return s.natpmp(p, packet)
	case s.cfg.PCP && p[0] == version:
		return s.pcp(p, packet)
	case s.cfg.PCP:
		return s.respond(p, unsuppVersion, unsuppVersion.lifetime())
	case natpmp:
		return s.pmpResponse(8, 0, pmpUnsuppVersion) // FIX-2
	}
	return nil
}

// admits reports whether a packet is from a host of the LAN and came to an address
// of the router on its LANs (PMP-7, PCP-1).
func (s *Server) admits(p *sock.Packet) bool {
	if p.IfIndex != s.lan.IfIndex || p.Src.Port() == 0 || !s.lan.OnLink(p.Src.Addr()) {
		return false
	}
	lans := s.cfg.State().LANs
	for i := range lans {
		if lans[i].Local(p.Dst) {
			return true
		}
	}
	return false
}
