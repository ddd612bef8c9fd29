package ssdp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/linux-igd/upnpd/internal/sock"
)

// Goodbye must be over soon: the process is about to end.
const (
	goodbyeGap   = 100 * time.Millisecond // between the two byebye sets
	goodbyeLimit = 200 * time.Millisecond // for all of it
)

// A socket whose reads fail is tried again a few times before Run gives up,
// unless it was closed. A datagram that is too long is no failure.
const (
	maxReadErrors = 5
	readPause     = 100 * time.Millisecond
)

// Run announces the devices, answers searches from the first moment and, when
// ctx ends, says goodbye and returns nil. announced, if not nil, is called
// once, after the first alive set (SSDP-30): with nil when it has been sent
// whole, or with the error; Run then goes on trying. Run returns an error, after
// goodbye, when the socket can no longer be read. It may be called once.
func (s *Server) Run(ctx context.Context, announced func(error)) error {
	reading, stop := context.WithCancel(ctx)
	broken := make(chan error, 1)
	go func() {
		broken <- s.read(reading)
		close(broken)
	}()

	err := s.serve(ctx, announced, broken)
	stop()
	s.goodbye(ctx)
	<-broken // so that nobody reads the socket after Run
	return err
}

// serve sends what is due until ctx ends or reading fails.
func (s *Server) serve(ctx context.Context, announced func(error), broken <-chan error) error {
	var pending queue
	sets := newAnnouncer(time.Now(), s.cfg.Refresh, s.cfg.Rand)
	var failing bool // the last answer could not be sent: said once
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-broken:
			return err // nil when ctx has ended
		case b := <-s.found:
			if len(pending) < maxPending {
				b.spread(s.cfg.Rand)
				pending = append(pending, b)
			}
		case <-timer.C:
		}
		now := time.Now()
		pending.due(now, func(to netip.AddrPort, a answer) {
			err := s.conn.WriteTo(ctx, s.response(a, now), to, s.lan.Addr)
			if err != nil && !failing && ctx.Err() == nil {
				s.cfg.Logf("ssdp: answer %s: %v", to, err)
			}
			failing = err != nil
		})
		if !sets.at.After(now) {
			alive := sets.alive
			err := s.announce(ctx, sets)
			if alive && announced != nil {
				announced(err)
				announced = nil
			}
		}
		wake := sets.at
		if at, ok := pending.next(); ok && at.Before(wake) {
			wake = at
		}
		timer.Reset(time.Until(wake))
	}
}

// announce sends the set that is due.
func (s *Server) announce(ctx context.Context, sets *announcer) error {
	err := s.sendSet(ctx, sets.alive)
	if err != nil && ctx.Err() == nil {
		s.cfg.Logf("ssdp: announce %s: %v", s.lan.Addr, err)
	}
	sets.sent(time.Now(), err != nil)
	return err
}

// sendSet sends one alive or byebye set, whole and as fast as possible.
func (s *Server) sendSet(ctx context.Context, alive bool) error {
	for _, d := range s.cfg.Devices {
		if alive && !d.Announce {
			continue
		}
		for _, t := range d.Targets {
			msg := s.byebye(t)
			if alive {
				msg = s.alive(t, d.Path)
			}
			if err := s.conn.WriteTo(ctx, msg, s.group, s.lan.Addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// goodbye sends the byebye set twice, although ctx has ended (SSDP-33). It
// gives up when the LAN is gone.
func (s *Server) goodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeLimit)
	defer cancel()
	for i := range copies {
		if i > 0 {
			pause(ctx, goodbyeGap)
		}
		if err := s.sendSet(ctx, false); err != nil {
			s.cfg.Logf("ssdp: goodbye on %s: %v", s.lan.Addr, err)
			return
		}
	}
}

// read hands the searches that deserve an answer to serve until ctx ends,
// which is no error.
func (s *Server) read(ctx context.Context) error {
	buf := make([]byte, maxDatagram)
	failures := 0
	for {
		n, packet, err := s.conn.ReadFrom(ctx, buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			failures = 0
			s.hand(s.receive(buf[:n], packet, time.Now()))
		case errors.Is(err, sock.ErrTruncated): // SSDP-51
			failures = 0
		default:
			if failures++; failures == maxReadErrors || errors.Is(err, os.ErrClosed) {
				return fmt.Errorf("read searches on %s: %w", s.lan.Addr, err)
			}
			pause(ctx, readPause)
		}
	}
}

// hand gives an answer to serve. In a flood it may be lost: who still needs
// one asks again.
func (s *Server) hand(b burst, ok bool) {
	if !ok {
		return
	}
	select {
	case s.found <- b:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
