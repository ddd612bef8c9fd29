//go:build go1.25

package ssdp

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linux-igd/upnpd/internal/sock"
)

func TestStart(t *testing.T) { // SSDP-30, SSDP-31, SSDP-34
	for _, share := range []float64{0, 0.5, 0.999} {
		synctest.Test(t, func(t *testing.T) {
			cfg := testConfig(v1())
			cfg.Rand = func(d time.Duration) time.Duration { return time.Duration(share * float64(d)) }
			r := start(t, cfg)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			got := sets(r.take())
			if len(got) != 4 {
				t.Fatalf("%d sets sent at the start: %v", len(got), got)
			}
			want := pairsOf(v1().Targets)
			alive := 200*time.Millisecond + cfg.Rand(100*time.Millisecond)
			for i, at := range []time.Duration{0, 200 * time.Millisecond, alive, alive + 200*time.Millisecond} {
				checkSet(t, got[i], []string{"ssdp:byebye", "ssdp:byebye", "ssdp:alive", "ssdp:alive"}[i], want)
				if got[i][0].at != at {
					t.Errorf("set %d sent at %v, want %v", i, got[i][0].at, at)
				}
			}
			if !slices.Equal(r.announced, []time.Duration{alive}) {
				t.Errorf("announced called at %v, want once at %v", r.announced, alive)
			}
			r.end()
		})
	}
}

func TestRefresh(t *testing.T) { // SSDP-32
	for _, tt := range []struct {
		maxAge, refresh, least, most time.Duration
	}{
		{1800 * time.Second, 900 * time.Second, 450 * time.Second, 900 * time.Second},
		{1800 * time.Second, 600 * time.Second, 300 * time.Second, 600 * time.Second},
		{1800 * time.Second, 1800 * time.Second, 450 * time.Second, 900 * time.Second}, // never beyond MaxAge/2
		{3600 * time.Second, 0, 900 * time.Second, 1800 * time.Second},
		{0, 0, 450 * time.Second, 900 * time.Second}, // SSDP-10
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg := testConfig(v1())
			cfg.MaxAge, cfg.Refresh = tt.maxAge, tt.refresh
			r := begin(t, cfg)
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			all := sets(r.take())
			want := pairsOf(v1().Targets)
			var last time.Duration
			gaps := map[time.Duration]bool{}
			for i, set := range all {
				checkSet(t, set, "ssdp:alive", want)
				gap := set[0].at - last
				last = set[0].at
				if i == 0 {
					continue
				}
				if i%2 == 1 { // SSDP-31
					if gap != copyGap {
						t.Errorf("copy %v after its set, want %v", gap, copyGap)
					}
					continue
				}
				gaps[gap] = true
				if gap < tt.least || gap >= tt.most {
					t.Errorf("refresh after %v, want %v to %v", gap, tt.least, tt.most)
				}
			}
			if len(all) < 2*int(24*time.Hour/tt.most) || len(gaps) < 10 {
				t.Errorf("%d sets in a day at %d different distances", len(all), len(gaps))
			}
			r.end()
		})
	}
}

func TestStop(t *testing.T) { // SSDP-33
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, testConfig(v1()))
		messages, at := r.end()
		got := sets(messages)
		if len(got) != 2 {
			t.Fatalf("%d sets sent at the end: %v", len(got), got)
		}
		for i, set := range got {
			checkSet(t, set, "ssdp:byebye", pairsOf(v1().Targets))
			if since := set[0].at - at; since != time.Duration(i)*goodbyeGap {
				t.Errorf("byebye %d sent %v after the end", i, since)
			}
		}
		if took := time.Since(r.begun) - at; took > 200*time.Millisecond {
			t.Errorf("Run took %v to end", took)
		}
	})
}

// Stopped before the first alive, Run ends as fast, and it does not announce.
func TestStopEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, testConfig(v1()))
		time.Sleep(50 * time.Millisecond)
		messages, _ := r.end()
		for _, m := range messages {
			if m.fields["NTS"] != "ssdp:byebye" {
				t.Errorf("sent after the end: %v", m)
			}
		}
		if len(messages) != 20 || r.announced != nil {
			t.Errorf("%d messages, announced %v", len(messages), r.announced)
		}
	})
}

// The end does not wait for a socket that cannot send, and it leaves no
// answer behind.
func TestStopWithSearchPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(v1())
		cfg.Rand = func(d time.Duration) time.Duration { return d - 1 }
		r := begin(t, cfg)
		r.search(mSearch(man, "MX: 3", all), hostAddr1, Group4())
		messages, at := r.end()
		for _, m := range messages {
			if m.start != "NOTIFY * HTTP/1.1" {
				t.Errorf("answered after the end: %v", m)
			}
		}
		if took := time.Since(r.begun) - at; took > 200*time.Millisecond {
			t.Errorf("Run took %v to end", took)
		}
	})
}

// slowConn notices late that a read is over.
type slowConn struct {
	*fakeConn
	reads, ended int
}

func (c *slowConn) ReadFrom(ctx context.Context, p []byte) (int, sock.Packet, error) {
	c.reads++
	n, packet, err := c.fakeConn.ReadFrom(ctx, p)
	time.Sleep(time.Second)
	c.ended++
	return n, packet, err
}

// The caller may close the socket once Run has returned: nobody reads it.
func TestStopWaitsForReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowConn{fakeConn: &fakeConn{t: t, in: make(chan received)}}
		ctx, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		if err := New(testConfig(v1()), testLAN(), c).Run(ctx, nil); err != nil {
			t.Errorf("Run returned %v", err)
		}
		if c.reads != 1 || c.ended != 1 {
			t.Errorf("Run returned with %d reads begun and %d ended", c.reads, c.ended)
		}
	})
}

func TestSetsAreEqual(t *testing.T) { // SSDP-20
	synctest.Test(t, func(t *testing.T) {
		r := start(t, testConfig(v1()))
		time.Sleep(time.Second)
		synctest.Wait()
		first := sets(r.take())
		answers, _ := r.answers(mSearch(man, "MX: 1", all), Group4())
		goodbye, _ := r.end()
		want := pairsOf(v1().Targets)
		for name, set := range map[string][]sent{
			"byebye at the start": first[0],
			"alive":               first[2],
			"ssdp:all":            answers,
			"byebye at the end":   sets(goodbye)[0],
		} {
			if got := pairs(set); !slices.Equal(got, want) {
				t.Errorf("%s:\n%s\nwant:\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		slices.Sort(want)
		if n := len(slices.Compact(want)); n != 10 {
			t.Errorf("%d different rows, want 10", n)
		}
	})
}

// The second face is never announced, but always taken back.
func TestSecondFace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, testConfig(v1(), v2()))
		time.Sleep(time.Second)
		synctest.Wait()
		first := sets(r.take())
		both := append(pairsOf(v1().Targets), pairsOf(v2().Targets)...)
		checkSet(t, first[0], "ssdp:byebye", both)
		checkSet(t, first[2], "ssdp:alive", pairsOf(v1().Targets))
		goodbye, _ := r.end()
		checkSet(t, sets(goodbye)[0], "ssdp:byebye", both)
	})
}

// An alive set that cannot be sent is tried again, ever more seldom, and only
// a whole one counts.
func TestAnnounceFails(t *testing.T) { // SSDP-32
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(v1())
		cfg.Rand = func(time.Duration) time.Duration { return 0 }
		r := startOn(t, cfg, testLAN(), func(r *running) { r.failWith(errors.New("network is down")) })
		time.Sleep(10 * time.Second) // tried at 0.2, 1.2, 3.2 and 7.2 s
		synctest.Wait()
		if r.announced != nil || r.refused == nil {
			t.Errorf("announced at %v, told %v", r.announced, r.refused)
		}
		if n := len(r.logged); n != 6 { // 2 byebye, 4 alive
			t.Errorf("%d lines logged: %q", n, r.logged)
		}
		r.failWith(nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		want := 15200 * time.Millisecond
		if got := sets(r.take()); len(got) != 2 || got[0][0].at != want {
			t.Errorf("%d sets sent, want the set at %v and its copy", len(got), want)
		}
		r.end()
	})
}

func TestRetryBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	a := newAnnouncer(now, 900*time.Second, func(d time.Duration) time.Duration { return d - 1 })
	a.sent(now, true) // byebye, its copy
	a.sent(now, true)
	for range 100 {
		a.sent(now, true)
		if wait := a.at.Sub(now); wait < time.Second || wait > time.Minute {
			t.Fatalf("tried again after %v", wait)
		}
	}
}
