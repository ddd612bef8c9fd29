package ssdp

import (
	"net/netip"
	"testing"
	"time"
)

// allowed counts how many of n searches at one time are answered.
func allowed(l *limiter, now time.Time, src netip.Addr, n int) (count, told int) {
	for range n {
		ok, tell := l.allow(now, src)
		if ok {
			count++
		}
		if tell {
			told++
		}
	}
	return count, told
}

func TestLimitPerSource(t *testing.T) { // SSDP-51
	l, now := newLimiter(), time.Unix(1000, 0)
	a, b := hostAddr1.Addr(), hostAddr1.Addr().Next()
	for _, tt := range []struct {
		after  time.Duration
		src    netip.Addr
		ok     int
		logged int
	}{
		{0, a, 30, 1},
		{0, b, 30, 1}, // its own bucket
		{time.Second, a, 5, 0},
		{time.Second, a, 5, 0},
		{199 * time.Millisecond, a, 0, 0},
		{time.Millisecond, a, 1, 0},
		{6 * time.Second, a, 30, 1}, // full again, and news again
		{time.Hour, a, 30, 1},       // never more than full
	} {
		now = now.Add(tt.after)
		if ok, told := allowed(l, now, tt.src, 1000); ok != tt.ok || told != tt.logged {
			t.Errorf("%v later: %d searches of %s answered, %d log lines; want %d, %d",
				tt.after, ok, tt.src, told, tt.ok, tt.logged)
		}
	}
}

func TestLimitGlobal(t *testing.T) { // SSDP-51
	l, now := newLimiter(), time.Unix(1000, 0)
	each := func() (sum int) { // 5000 sources ask once
		src := netip.MustParseAddr("10.0.0.0")
		for range 5000 {
			src = src.Next()
			ok, _ := allowed(l, now, src, 1)
			sum += ok
		}
		return sum
	}
	if got := each(); got != 200 {
		t.Errorf("%d searches answered, want 200", got)
	}
	now = now.Add(time.Second)
	if got := each(); got != 50 {
		t.Errorf("%d searches answered a second later, want 50", got)
	}
}

// Issue 8, 4: all the other addresses of a LAN ask without end, and one that seldom
// asks is answered nevertheless.
func TestLimitManySources(t *testing.T) { // SSDP-51
	l, now := newLimiter(), time.Unix(1000, 0)
	base, got := netip.MustParseAddr("10.0.0.0").As4(), 0
	for i := range 60 * 1000 {
		now = now.Add(time.Millisecond)
		for k := range 5 {
			from := base
			from[3] = byte(2 + (5*i+k)%250)
			l.allow(now, netip.AddrFrom4(from))
		}
		if i%10000 == 9999 { // it is given up to a second
			for n := 0; n < 1; n++ {
				now = now.Add(time.Millisecond)
				if ok, _ := l.allow(now, hostAddr1.Addr()); ok {
					got++
					break
				}
			}
		}
	}
	if got != 6 {
		t.Errorf("6 searches, %d of them answered", got)
	}
}

// The table of sources stays small, and a source that is over its limit is not
// forgotten while others come and go.
func TestLimitTable(t *testing.T) { // SSDP-51
	l, now := newLimiter(), time.Unix(1000, 0)
	greedy, src := hostAddr1.Addr(), netip.MustParseAddr("10.0.0.0")
	allowed(l, now, greedy, 40)
	for range 1000 {
		now = now.Add(20 * time.Millisecond)
		src = src.Next()
		if ok, _ := allowed(l, now, src, 1); ok != 1 {
			t.Fatalf("a new source got %d answers", ok)
		}
		if len(l.sources) > maxSources {
			t.Fatalf("%d sources remembered, want at most %d", len(l.sources), maxSources)
		}
		allowed(l, now, greedy, 40)
	}
	if ok, _ := allowed(l, now, greedy, 1); ok != 0 {
		t.Error("a greedy source was forgotten")
	}
}

// With no full bucket in the table the one nearest to it goes.
func TestLimitTableFull(t *testing.T) { // SSDP-51
	l, now := newLimiter(), time.Unix(1000, 0)
	src := netip.MustParseAddr("10.0.0.0")
	for i := range maxSources {
		src = src.Next()
		l.sources[src] = source{bucket: bucket{now.Add(time.Duration(i+1) * time.Second)}}
	}
	if ok, _ := l.allow(now, hostAddr1.Addr()); !ok {
		t.Error("a new source was refused")
	}
	if _, known := l.sources[netip.MustParseAddr("10.0.0.1")]; known || len(l.sources) != maxSources {
		t.Errorf("%d sources remembered, want %d without the nearest to full", len(l.sources), maxSources)
	}
	// All but 100 are full again and make room together.
	if ok, _ := l.allow(now.Add(156*time.Second), hostAddr1.Addr().Next()); !ok || len(l.sources) != 101 {
		t.Errorf("%d sources remembered, want the 100 that are not full, and the new one", len(l.sources))
	}
}
