package portmap

import (
	"net/netip"
	"time"
)

// Decision is what became of one request, or what the table did by itself.
type Decision struct {
	Time    time.Time  // of the wall clock, for people
	From    netip.Addr // who asked; the zero Addr: the router itself
	What    string     // e.g. "map TCP port 80 to 192.168.1.2 port 80"
	Verdict string     // what was decided, and by which rule
	Refused bool
}

// decide tells of a decision. Unlike the log, nothing is left out.
func (t *Table) decide(d Decision) {
	if t.decided != nil {
		d.Time = time.Now()
		t.decided(d)
	}
}

// Refusals are logged, one line each, but no client may fill the log: each has
// a burst of refusalBurst lines, and then one every refusalEvery.
const (
	refusalBurst   = 10
	refusalEvery   = 10 * time.Second
	refusalClients = 64 // remembered at once; beyond that they share one budget
)

type refusals map[netip.Addr]*refusalBudget

type refusalBudget struct {
	lines   int           // left to say
	since   time.Duration // when lines was last filled
	omitted int
}

// Refused logs a request of the host from that its protocol refused before the
// table was asked, in the same measure as refusals of the table.
func (t *Table) Refused(from netip.Addr, what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refuse(from, what, err)
}

func (t *Table) refuse(from netip.Addr, what string, err error) {
	t.decide(Decision{From: from, What: what, Verdict: "refused: " + err.Error(), Refused: true})
	if omitted, ok := t.refusals.take(from, t.now()); ok {
		if omitted > 0 {
			t.logf("refused %v: %d more refusals not shown", from, omitted)
		}
		t.logf("refused %v: %s: %v", from, what, err)
	}
}

// take reports whether a line about the client may be written now, and how
// many were left out since the last.
func (r refusals) take(from netip.Addr, now time.Duration) (omitted int, ok bool) {
	b := r[from]
	if b == nil {
		if len(r) >= refusalClients {
			r.forget(now)
		}
		if len(r) >= refusalClients {
			from = netip.Addr{}
		}
		if b = r[from]; b == nil {
			b = &refusalBudget{lines: refusalBurst, since: now}
			r[from] = b
		}
	}
	if n := int((now - b.since) / refusalEvery); n > 0 {
		b.lines = min(b.lines+n, refusalBurst)
		b.since += time.Duration(n) * refusalEvery
	}
	if b.lines == 0 {
		b.omitted++
		return 0, false
	}
	b.lines--
	omitted, b.omitted = b.omitted, 0
	return omitted, true
}

// forget drops clients whose budget is full again.
func (r refusals) forget(now time.Duration) {
	for a, b := range r {
		if now-b.since > refusalBurst*refusalEvery {
			delete(r, a)
		}
	}
}
