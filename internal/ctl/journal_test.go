package ctl

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// remembered gives the journal as text, without dates.
func remembered(j *Journal) string {
	all, f := j.follow()
	j.unfollow(f)
	var t sheet
	for _, e := range all {
		t.decision(e, e.Time)
	}
	return string(t)
}

func TestJournalCounts(t *testing.T) {
	j := NewJournal(200)
	for i, d := range []portmap.Decision{
		{From: addr("192.168.1.2"), What: "a", Verdict: "granted"},
		{From: addr("192.168.1.2"), What: "a", Verdict: "granted"},
		{From: addr("192.168.1.2"), What: "a", Verdict: "granted"},
		{From: addr("192.168.1.3"), What: "a", Verdict: "granted"}, // another host
		{From: addr("192.168.1.3"), What: "b", Verdict: "granted"}, // another wish
		{From: addr("192.168.1.3"), What: "b", Verdict: "no", Refused: true},
		{From: addr("192.168.1.2"), What: "a", Verdict: "granted"}, // not in a row
		{What: "a", Verdict: "granted"},
	} {
		d.Time = past(i)
		j.Record(d)
	}
	want := `03:04:02  192.168.1.2  a: granted (3 times)
03:04:03  192.168.1.3  a: granted
03:04:04  192.168.1.3  b: granted
03:04:05  192.168.1.3  b: no
03:04:06  192.168.1.2  a: granted
03:04:07  router  a: granted
`
	if got := remembered(j); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestJournalBounds(t *testing.T) {
	j := NewJournal(200)
	for i := range 1000 {
		j.Record(portmap.Decision{What: fmt.Sprint(i), Verdict: strings.Repeat("é", 1000)})
	}
	if n, c := len(j.entries), cap(j.entries); n != 200 || c > 512 {
		t.Errorf("%d entries in room for %d", n, c)
	}
	if first, last := j.entries[0], j.entries[199]; first.What != "800" || last.What != "999" || len(last.Verdict) != maxDecisionText {
		t.Errorf("from %s to %s, %d bytes", first.What, last.What, len(last.Verdict))
	}
}

func TestJournalRefusals(t *testing.T) {
	j := NewJournal(200)
	if got := j.refusals(5); got != nil {
		t.Errorf("got %v", got)
	}
	for i := range 20 {
		j.Record(portmap.Decision{What: fmt.Sprint(i), Refused: i%2 == 0})
	}
	var got []string
	for _, e := range j.refusals(5) {
		got = append(got, e.What)
	}
	if want := "10 12 14 16 18"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// The date stands there on another day, in the time of the place.
func TestDecisionTime(t *testing.T) {
	now := time.Date(2025, 6, 15, 0, 0, 30, 0, time.Local)
	for when, want := range map[time.Time]string{
		now:                              "00:00:30  router",
		now.UTC():                        "00:00:30  router",
		now.Add(-31 * time.Second):       "2025-06-14 23:59:59  router",
		now.AddDate(0, 0, 1):             "2025-06-16 00:00:30  router",
		now.AddDate(-1, 0, 0):            "2024-06-15 00:00:30  router",
		now.Add(23 * time.Hour):          "23:00:30  router",
		now.In(time.FixedZone("x", 9e3)): "00:00:30  router",
	} {
		var s sheet
		s.decision(&entry{portmap.Decision{Time: when}, 1}, now)
		if !strings.HasPrefix(string(s), want) {
			t.Errorf("%v: %s, want %s", when, s, want)
		}
	}
}

// Many record while followers come and go.
func TestJournalRace(t *testing.T) {
	j := NewJournal(50)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Add(2)
		go func() {
			defer wg.Done()
			for n := range 500 {
				j.Record(portmap.Decision{From: netip.AddrFrom4([4]byte{192, 168, 1, byte(i)}), What: fmt.Sprint(n)})
			}
		}()
		go func() {
			defer wg.Done()
			for range 50 {
				_, f := j.follow()
				for range 10 {
					if <-f == nil {
						break
					}
				}
				j.unfollow(f)
			}
		}()
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				j.Record(portmap.Decision{What: fmt.Sprint("more ", n)})
			}
		}
	}()
	wg.Wait()
	close(stop)
	<-done
	if n := len(j.followers); n != 0 {
		t.Errorf("%d followers are left", n)
	}
}
