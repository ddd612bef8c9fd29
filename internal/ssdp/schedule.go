package ssdp

import (
	"net/netip"
	"time"
)

// Times of the answers to a search. Clients give a whole discovery 250 ms and
// less (SSDP-43), so a burst is out long before MX.
const (
	maxDelay   = 100 * time.Millisecond // before the first answer to a multicast search
	burstLimit = 140 * time.Millisecond // from the search to the last answer
	maxGap     = 4 * time.Millisecond   // between two answers
	maxPending = 128                    // searches being answered
)

// burst is the answer to one search: its datagrams, one after another.
type burst struct {
	to      netip.AddrPort
	scope   Scope         // who answers
	answers []answer      // still to be sent
	at      time.Time     // when the next one is due; first: when the search came
	mx      time.Duration // 0 for a unicast search
	gap     time.Duration // between two datagrams
}

// spread sets the times of a burst: at once for a unicast search, else a
// random time after the search and then evenly within burstLimit.
func (b *burst) spread(random func(time.Duration) time.Duration) {
	if b.mx == 0 {
		return
	}
	delay := random(min(b.mx, maxDelay))
	b.at = b.at.Add(delay)
	b.gap = min(maxGap, (burstLimit-delay)/time.Duration(len(b.answers)))
}

// queue holds the bursts that are on their way, in no order.
type queue []burst

// next returns when the next datagram is due; ok is false when none is.
func (q queue) next() (at time.Time, ok bool) {
	for _, b := range q {
		if !ok || b.at.Before(at) {
			at, ok = b.at, true
		}
	}
	return at, ok
}

// due takes out every datagram that is due, those of one burst in order, and
// hands it to send.
func (q *queue) due(now time.Time, send func(b *burst, a answer)) {
	rest := (*q)[:0]
	for _, b := range *q {
		for len(b.answers) > 0 && !b.at.After(now) {
			send(&b, b.answers[0])
			b.answers = b.answers[1:]
			b.at = b.at.Add(b.gap)
		}
		if len(b.answers) > 0 {
			rest = append(rest, b)
		}
	}
	clear((*q)[len(rest):])
	*q = rest
}

// Times of the announcements. Each set is sent twice (SSDP-31).
const (
	copies     = 2
	copyGap    = 200 * time.Millisecond // between the copies of a set
	aliveDelay = 100 * time.Millisecond // random, before the first alive (SSDP-30, SSDP-34)
	minRetry   = time.Second            // after an alive set that could not be sent,
	maxRetry   = time.Minute            // doubling up to this
)

// announcer knows which set is sent next, and when.
type announcer struct {
	at      time.Time
	alive   bool // the sets are alive; before, byebye (SSDP-30)
	left    int  // copies of this set still to send
	retry   time.Duration
	refresh time.Duration // Config.Refresh
	random  func(time.Duration) time.Duration
}

func newAnnouncer(now time.Time, refresh time.Duration, random func(time.Duration) time.Duration) *announcer {
	return &announcer{at: now, left: copies, retry: minRetry, refresh: refresh, random: random}
}

// sent moves on after a set was sent at now, or failed. A lost byebye is
// let go; an alive set is tried again, for without it nobody finds us.
func (a *announcer) sent(now time.Time, failed bool) {
	if a.alive && failed {
		a.at = now.Add(a.retry)
		a.retry = min(2*a.retry, maxRetry)
		return
	}
	a.left--
	a.retry = minRetry
	switch {
	case a.left > 0:
		a.at = now.Add(copyGap)
	case !a.alive:
		a.alive, a.left = true, copies
		a.at = now.Add(a.random(aliveDelay))
	default: // SSDP-32: the whole set, at a random time in the second half
		a.left = copies
		a.at = now.Add(a.refresh/2 + a.random(a.refresh/2))
	}
}
