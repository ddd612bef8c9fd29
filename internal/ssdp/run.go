package ssdp

import (
	"context"
	"errors"
	"fmt"
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
		pending.due(now, func(b *burst, a answer) {
			err := s.conn.WriteTo(ctx, s.response(b.scope, a, now), b.to, b.scope.Addr)
			if err != nil && !failing && ctx.Err() == nil {
				s.cfg.Logf("ssdp: answer %s: %v", b.to, err)
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
		s.cfg.Logf("ssdp: announce %v", err)
	}
	sets.sent(time.Now(), err != nil)
	return err
}

// sendSet sends one alive or byebye set to each scope (SSDP-35), whole and as
// fast as possible. A scope that fails does not take the others with it: a new
// global address cannot be used for a moment, a link-local one can.
func (s *Server) sendSet(ctx context.Context, alive bool) (err error) {
	for _, scope := range s.lan.Scopes {
		failed := s.sendTo(ctx, scope, alive)
		switch {
		case failed != nil && err != nil:
			err = fmt.Errorf("%w; %s: %w", err, scope.Addr, failed)
		case failed != nil:
			err = fmt.Errorf("%s: %w", scope.Addr, failed)
		}
	}
	return err
}

func (s *Server) sendTo(ctx context.Context, scope Scope, alive bool) error {
	for i := range s.cfg.Devices {
		d := &s.cfg.Devices[i]
		if alive && !d.Announce {
			continue
		}
		for _, t := range d.Targets {
			msg := s.byebye(scope, d, t)
			if alive {
				msg = s.alive(scope, d, t)
			}
			if err := s.conn.WriteTo(ctx, msg, scope.to(), scope.Addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// goodbye sends the byebye set twice, although ctx has ended (SSDP-33).
func (s *Server) goodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeLimit)
	defer cancel()
	for i := range copies {
		if i > 0 {
			pause(ctx, goodbyeGap)
		}
		if err := s.sendSet(ctx, false); err != nil && i == 0 {
			s.cfg.Logf("ssdp: goodbye on %v", err) // one scope may be gone, the other not
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
				return fmt.Errorf("read searches: %w", err)
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
