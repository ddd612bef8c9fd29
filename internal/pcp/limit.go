package pcp

import (
	"net/netip"
	"time"
)

// How many requests are looked at (PCP-10). A client may renew all the mappings
// that it may have at once, and lose nothing.
const (
	sourceBurst = 256
	sourceEvery = 4 * time.Millisecond
	globalBurst = 512
	globalEvery = time.Millisecond
	maxSources  = 256 // addresses remembered
)

// A bucket of tokens, kept as the time on the boot clock at which it is full again.
// The zero bucket is full.
type bucket struct {
	full time.Duration
	told bool // that it is empty
}

// take takes a token, if there is one.
func (b *bucket) take(now time.Duration, burst int, every time.Duration) bool {
	if b.full <= now {
		*b = bucket{full: now}
	}
	if b.full+every > now+time.Duration(burst)*every {
		return false
	}
	b.full += every
	return true
}

// limiter bounds the requests of one source and of all together.
type limiter struct {
	all     bucket
	sources map[netip.Addr]bucket
}

// allow takes a token of src and of all. When there is none, tell says whether
// that is news.
func (l *limiter) allow(now time.Duration, src netip.Addr) (ok, tell bool) {
	b, known := l.sources[src]
	if !known && len(l.sources) >= maxSources {
		for a, b := range l.sources {
			if b.full <= now {
				delete(l.sources, a)
			}
		}
	}
	empty := &l.all
	if known || len(l.sources) < maxSources {
		if !b.take(now, sourceBurst, sourceEvery) {
			empty = &b
		} else if l.all.take(now, globalBurst, globalEvery) {
			empty, ok = nil, true
		}
	}
	if !ok {
		tell, empty.told = !empty.told, true
	}
	if known || ok {
		l.sources[src] = b
	}
	return ok, tell
}
