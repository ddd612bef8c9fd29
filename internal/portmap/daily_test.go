package portmap

import (
	"testing"
	"time"
	_ "time/tzdata" // the tests must not depend on the machine's zones
)

// TestDailyLease: a time of day at which leases end, linux-igd's `@`
// (PEERS.md 1.2): less than 60 s away means tomorrow's.
func TestDailyLease(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) time.Time {
		now, err := time.ParseInLocation("2006-01-02 15:04:05", s, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return now
	}
	const h, m, s = time.Hour, time.Minute, time.Second
	for _, tt := range []struct {
		now       string
		end, want time.Duration
	}{
		{"2026-01-10 12:00:00", 13 * h, h},
		{"2026-01-10 12:00:00", 12*h + m, m},
		{"2026-01-10 12:00:01", 12*h + m, 24*h + 59*s},
		{"2026-01-10 12:00:00", 12 * h, 24 * h},
		{"2026-01-10 12:00:00", 11 * h, 23 * h},
		{"2026-01-10 12:00:00", 0, 12 * h},
		{"2026-01-10 23:59:30", 0, 24*h + 30*s},
		{"2026-12-31 23:00:00", 1 * h, 2 * h},
		{"2026-01-10 00:00:00", 24*h - s, 24*h - s},
		// Summer time begins at 02:00 on 29 March and ends at 03:00 on 25 October.
		{"2026-03-29 00:00:00", 6 * h, 5 * h},
		{"2026-03-28 12:00:00", 6 * h, 17 * h},
		{"2026-10-25 00:00:00", 6 * h, 7 * h},
		{"2026-10-24 12:00:00", 6 * h, 19 * h},
	} {
		if got := (DefaultLease{Length: tt.end, Daily: true}).from(at(tt.now)); got != tt.want {
			t.Errorf("at %s until %v: %v, want %v", tt.now, tt.end, got, tt.want)
		}
	}
	// Through the policy: only for wishes of 0, and never above the maximum.
	p := Policy{MaxLease: 2 * h, DefaultLease: DefaultLease{Length: 13 * h, Daily: true}}
	for _, tt := range []struct{ wish, want time.Duration }{{0, h}, {m, m}} {
		if got := p.lease(tt.wish, at("2026-01-10 12:00:00")); got != tt.want {
			t.Errorf("wish %v: %v, want %v", tt.wish, got, tt.want)
		}
	}
	if got := p.lease(0, at("2026-01-10 09:00:00")); got != 2*h {
		t.Errorf("clamped: %v", got)
	}
}
