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

// Refused tells of a request of the host from that its protocol refused before the
// table was asked.
func (t *Table) Refused(from netip.Addr, what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refuse(from, what, err)
}

// refuse logs a refusal: one line that says who, what and why. The log knows how many
// a host may have.
func (t *Table) refuse(from netip.Addr, what string, err error) {
	t.decide(Decision{From: from, What: what, Verdict: "refused: " + err.Error(), Refused: true})
	t.logf("refused %v: %s: %v", from, what, err)
}
