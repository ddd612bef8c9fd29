package pcp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
	"github.com/linux-igd/upnpd/internal/wan"
)

// A socket whose reads fail is tried again a few times before Run gives up,
// unless it was closed.
const (
	maxReadErrors = 5
	readPause     = 100 * time.Millisecond
)

// Run announces the router and answers requests, from the first moment, until ctx
// ends; then it returns nil. It returns an error when the socket can no longer be
// read. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	broken := make(chan error, 1)
	go func() {
		broken <- s.read(reading)
		close(broken)
	}()
	err := s.serve(ctx, broken)
	stop()
	<-broken // so that nobody reads the socket after Run
	return err
}

// read answers requests until ctx ends, which is no error.
func (s *Server) read(ctx context.Context) error {
	buf := make([]byte, maxMessage+1) // one more shows that a request is too long
	failures, failing := 0, false
	for {
		n, packet, err := s.conn.ReadFrom(ctx, buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil || errors.Is(err, sock.ErrTruncated):
			failures = 0
		default:
			if failures++; failures == maxReadErrors || errors.Is(err, os.ErrClosed) {
				return fmt.Errorf("read port mapping requests: %w", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(readPause):
			}
			continue
		}
		reply := s.receive(buf[:n], packet)
		if reply == nil {
			continue
		}
		err = s.conn.WriteTo(ctx, reply, packet.Src, packet.Dst) // ANN-5
		if err != nil && !failing && ctx.Err() == nil {
			s.cfg.Logf("pcp: answer %s: %v", packet.Src, err)
		}
		failing = err != nil
	}
}

// receive gives the reply to a datagram, nil for none.
func (s *Server) receive(p []byte, packet sock.Packet) []byte {
	if len(p) < 2 || p[1]&response != 0 || !s.admits(packet) { // PCP-2, PMP-2
		return nil
	}
	src := packet.Src.Addr()
	if ok, tell := s.limit.allow(s.cfg.Now(), src); !ok { // PCP-10
		if tell {
			s.cfg.Logf("pcp: too many requests, the last of %s: some get no answer", src)
		}
		return nil
	}
	natpmp := s.cfg.NATPMP && !s.lan.IPv6
	switch { // PCP-9
	case natpmp && p[0] == 0:
		return s.natpmp(p, src)
	case s.cfg.PCP && p[0] == version:
		return s.pcp(p, packet)
	case s.cfg.PCP:
		return failure(p, unsuppVersion, unsuppVersion.lifetime(), s.cfg.Epoch.Seconds())
	case natpmp:
		return pmpHeader(8, 0, pmpUnsuppVersion, s.cfg.Epoch.Seconds()) // FIX-2
	}
	return nil
}

// admits reports whether a packet is from a host of the LAN and came to an address
// of the router there (PMP-7, PCP-1).
func (s *Server) admits(p sock.Packet) bool {
	own := p.Dst == s.lan.Addr || slices.ContainsFunc(s.cfg.State().LANs, func(l wan.LAN) bool {
		return l.Index == s.lan.IfIndex && l.Local(p.Dst)
	})
	src := p.Src.Addr()
	return own && p.IfIndex == s.lan.IfIndex && p.Src.Port() != 0 &&
		!src.IsUnspecified() && !src.IsMulticast() && s.lan.OnLink(src)
}

// pcp answers a request of version 2, nil for none.
func (s *Server) pcp(p []byte, packet sock.Packet) []byte {
	from := packet.Src.Addr()
	r, err, ok := parseRequest(p)
	if !ok {
		return nil
	}
	if err == success && r.client != from { // PCP-5
		err = addressMismatch
	}
	what := "PCP request"
	if err == success {
		switch r.opcode {
		case opAnnounce: // ANN-1
			if err = onlyOptional(p[headerLen:]); err == success {
				return announcement(s.cfg.Epoch.Seconds())
			}
		case opMap:
			return s.pcpMap(p, packet, &r)
		default: // PEER, too: a router at home may do without (PEER-1)
			err = unsuppOpcode
		}
	}
	return s.refuse(p, from, what, err)
}

// refuse answers a request that the table was not asked for, with a line in the
// log.
func (s *Server) refuse(p []byte, from netip.Addr, what string, r result) []byte {
	s.cfg.Table.Refused(from, what, r)
	return failure(p, r, r.lifetime(), s.cfg.Epoch.Seconds())
}

// remaining is what is left of a mapping's lease, in seconds.
func (s *Server) remaining(m portmap.Mapping) uint32 {
	return uint32(s.cfg.Table.Remaining(m) / time.Second)
}
