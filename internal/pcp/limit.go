package pcp

import (
	"net/netip"
	"time"
)

// How many requests are looked at (PCP-10). A client may renew all the mappings
// that it may have at once, and lose nothing. A PORT_SET counts as its ports do: the
// kernel may be asked for each of them while the table is locked.
const (
	sourceBurst = 256
	sourceEvery = 4 * time.Millisecond
	globalBurst = 512
	globalEvery = time.Millisecond
	maxSources  = 256 // addresses remembered

	// Beyond globalBurst there is as much again for sources that seldom need it, so
	// that a flood from all the other addresses of a LAN leaves something to each.
	seldomBurst = 16
	seldomEvery = 256 * time.Millisecond
)

// limiter bounds the requests of one source and of all together by token buckets.
// A bucket is the time on the boot clock at which it is full again; 0: it is.
type limiter struct {
	all     time.Duration
	sources map[netip.Addr]source
}

// source has two buckets: seldom is used where there is nothing left for all.
type source struct{ full, seldom time.Duration }

// take gives the bucket without n tokens, if it has them.
func take(full, now time.Duration, n uint16, burst int, every time.Duration) (time.Duration, bool) {
	full = max(full, now) + time.Duration(n)*every
	return full, full-now <= time.Duration(burst)*every
}

// allow takes n tokens of src and of all. With too many sources all are forgotten:
// what they have left together bounds them, too.
func (l *limiter) allow(now time.Duration, src netip.Addr, n uint16) bool {
	s := l.sources[src]
	one, ok := take(s.full, now, n, sourceBurst, sourceEvery)
	all, some := take(l.all, now, n, globalBurst, globalEvery)
	if !some && all-now <= 2*globalBurst*globalEvery {
		s.seldom, some = take(s.seldom, now, n, seldomBurst, seldomEvery)
	}
	if !ok || !some {
		return false
	}
	if len(l.sources) >= maxSources {
		clear(l.sources)
	}
	s.full = one
	l.all, l.sources[src] = all, s
	return true
}
