package ctl

import (
	"fmt"
	"sync"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

const (
	maxDecisionText = 512 // bytes of each text of a decision that are remembered
	followerQueue   = 64  // decisions that a follower may be behind
)

// Journal remembers the last decisions. Its methods may be called from any
// goroutine.
type Journal struct {
	mu        sync.Mutex
	size      int
	entries   []entry // the oldest first
	followers []chan entry
}

// entry is one decision, or several equal ones in a row.
type entry struct {
	portmap.Decision     // the last of them
	times            int // how many there were
}

// NewJournal makes a journal of at most size lines.
func NewJournal(size int) *Journal { return &Journal{size: size} }

// Record notes a decision. It never waits: followers that are too slow are
// dropped.
func (j *Journal) Record(d portmap.Decision) {
	d.What, d.Verdict = cut(d.What, maxDecisionText), cut(d.Verdict, maxDecisionText)
	e := entry{d, 1}
	j.mu.Lock()
	defer j.mu.Unlock()
	n := len(j.entries)
	if n > 0 && j.entries[n-1].same(d) {
		e.times += j.entries[n-1].times
		j.entries[n-1] = e
	} else {
		if n == j.size {
			copy(j.entries, j.entries[1:])
			j.entries = j.entries[:n-1]
		}
		j.entries = append(j.entries, e)
	}
	kept := j.followers[:0]
	for _, f := range j.followers {
		select {
		case f <- e:
			kept = append(kept, f)
		default:
			close(f)
		}
	}
	clear(j.followers[len(kept):])
	j.followers = kept
}

func (e *entry) same(d portmap.Decision) bool {
	return e.From == d.From && e.What == d.What && e.Verdict == d.Verdict
}

// last copies what is remembered, the oldest first.
func (j *Journal) last() []entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]entry(nil), j.entries...)
}

// follow gives what is remembered and then each new entry; a decision again
// comes with its new count. The channel is closed when its reader is too slow,
// or by unfollow.
func (j *Journal) follow() ([]entry, <-chan entry) {
	f := make(chan entry, followerQueue)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.followers = append(j.followers, f)
	return append([]entry(nil), j.entries...), f
}

func (j *Journal) unfollow(f <-chan entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, o := range j.followers {
		if o == f {
			close(o)
			j.followers = append(j.followers[:i], j.followers[i+1:]...)
			return
		}
	}
}

// appendTo writes the entry as a line of the log, with the date unless it is that
// of now.
func (e *entry) appendTo(b []byte, now time.Time) []byte {
	layout := "2006-01-02 15:04:05"
	t := e.Time.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		layout = "15:04:05"
	}
	b = t.AppendFormat(b, layout)
	who := "router"
	if e.From.IsValid() {
		who = e.From.String()
	}
	b = fmt.Appendf(b, "  %s  %s: %s", who, clean(e.What), clean(e.Verdict))
	if e.times > 1 {
		b = fmt.Appendf(b, " (%d times)", e.times)
	}
	return append(b, '\n')
}
