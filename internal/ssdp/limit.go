package ssdp

import (
	"net/netip"
	"time"
)

// How many searches are answered (SSDP-51). Only a search that would draw an
// answer counts: what others look for on a LAN is none of our business.
const (
	sourceBurst = 30
	sourceEvery = time.Second / 5
	globalBurst = 100
	globalEvery = time.Second / 50
	maxSources  = 256 // addresses remembered

	// Beyond globalBurst there is as much again for sources that seldom need it, so
	// that a flood from all the other addresses of a LAN leaves something to each.
	seldomBurst = 2
	seldomEvery = 6 * time.Second
)

// A bucket is a token bucket, kept as the time at which it is full again. The
// zero bucket is full.
type bucket struct{ full time.Time }

// after returns when the bucket would be full again, had a token been taken
// now, and whether there is one to take.
func (b bucket) after(now time.Time, burst int, every time.Duration) (time.Time, bool) {
	full := b.full
	if full.Before(now) {
		full = now
	}
	full = full.Add(every)
	return full, full.Sub(now) <= time.Duration(burst)*every
}

type source struct {
	bucket
	seldom bucket // used where there is nothing left for all
	told   bool   // that the limit was reached, since the bucket was last full
}

// limiter bounds the answers to one source and to all together.
type limiter struct {
	global  bucket
	sources map[netip.Addr]source
}

func newLimiter() *limiter { return &limiter{sources: make(map[netip.Addr]source)} }

// allow takes a token of src and of all. When src has none left, tell says
// whether that is news.
func (l *limiter) allow(now time.Time, src netip.Addr) (ok, tell bool) {
	s := l.sources[src]
	seldom := s.seldom
	global, ok := l.global.after(now, globalBurst, globalEvery)
	if !ok && global.Sub(now) <= 2*globalBurst*globalEvery {
		seldom.full, ok = seldom.after(now, seldomBurst, seldomEvery)
	}
	if !ok {
		return false, false
	}
	if !s.full.After(now) {
		s.told = false
	}
	full, ok := s.after(now, sourceBurst, sourceEvery)
	if !ok {
		tell, s.told = !s.told, true
		l.sources[src] = s
		return false, tell
	}
	l.room(now, src)
	s.full, s.seldom, l.global.full = full, seldom, global
	l.sources[src] = s
	return true, false
}

// room makes place for src: first go the sources whose bucket is full, who
// lose nothing, and if there is none, the one that is nearest to it.
func (l *limiter) room(now time.Time, src netip.Addr) {
	if _, known := l.sources[src]; known || len(l.sources) < maxSources {
		return
	}
	var nearest netip.Addr
	for a, s := range l.sources {
		if !s.full.After(now) {
			delete(l.sources, a)
		} else if !nearest.IsValid() || s.full.Before(l.sources[nearest].full) {
			nearest = a
		}
	}
	if len(l.sources) >= maxSources {
		delete(l.sources, nearest)
	}
}
