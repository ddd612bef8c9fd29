package ctl

import (
	"strconv"
	"sync"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

const (
	maxDecisionText = 512 // bytes of each text of a decision that are remembered
	followerQueue   = 64  // decisions that a follower may be behind
	maxFollowers    = 4   // at once; one more ends another
)

// Journal remembers the last decisions. Its methods may be called from any
// goroutine.
type Journal struct {
	mu        sync.Mutex
	size      int
	entries   []*entry // the oldest first
	followers []chan *entry
}

// entry is one decision, or several equal ones in a row. It does not change.
type entry struct {
	portmap.Decision     // the last of them
	times            int // how many there were
}

// NewJournal makes a journal of at most size lines.
func NewJournal(size int) *Journal { return &Journal{size: size} }

// Record notes a decision. It never waits: followers that are too slow are
// dropped.
func (j *Journal) Record(d portmap.Decision) {
	e := &entry{d, 1}
	e.What, e.Verdict = cut(d.What, maxDecisionText), cut(d.Verdict, maxDecisionText)
	j.mu.Lock()
	defer j.mu.Unlock()
	n := len(j.entries)
	if n > 0 && e.follows(j.entries[n-1]) {
		n--
		e.times += j.entries[n].times
	} else if n == j.size {
		n--
		copy(j.entries, j.entries[1:])
	}
	j.entries = append(j.entries[:n], e)
	for i := len(j.followers) - 1; i >= 0; i-- {
		select {
		case j.followers[i] <- e:
		default:
			j.drop(i)
		}
	}
}

// follows reports whether e is the same decision as the one before.
func (e *entry) follows(o *entry) bool {
	return e.From == o.From && e.What == o.What && e.Verdict == o.Verdict
}

// drop ends a follower.
func (j *Journal) drop(i int) {
	close(j.followers[i])
	last := len(j.followers) - 1
	j.followers[i] = j.followers[last]
	j.followers = j.followers[:last]
}

// follow gives what is remembered and then each new entry; a decision again
// comes with its new count. The channel is closed when its reader is too slow,
// or by unfollow.
func (j *Journal) follow() ([]*entry, chan *entry) {
	f := make(chan *entry, followerQueue)
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.followers) == maxFollowers {
		j.drop(0)
	}
	j.followers = append(j.followers, f)
	return append([]*entry(nil), j.entries...), f
}

func (j *Journal) unfollow(f chan *entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.followers {
		if j.followers[i] == f {
			j.drop(i)
			return
		}
	}
}

// refusals gives the last ones, at most n, the oldest first.
func (j *Journal) refusals(n int) (found []*entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := len(j.entries) - 1; i >= 0 && len(found) < n; i-- {
		if e := j.entries[i]; e.Refused {
			found = append([]*entry{e}, found...)
		}
	}
	return found
}

// decision writes an entry as a line of the log, with the date
// unless it is that of now.
func (t *sheet) decision(e *entry, now time.Time) {
	const day = "2006-01-02 "
	when := e.Time.Local()
	date := when.Format(day)
	if date == now.Format(day) {
		date = ""
	}
	who, again := e.From.String(), ""
	if !e.From.IsValid() {
		who = "router"
	}
	if e.times > 1 {
		again = " (" + strconv.Itoa(e.times) + " times)"
	}
	t.line("%s", date+when.Format("15:04:05")+"  "+who+"  "+e.What+": "+e.Verdict+again)
}
