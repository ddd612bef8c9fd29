package soak

import (
	"fmt"
	"slices"
	"time"
)

// key names a mapping or a pinhole as upnpctl lists it, and whose it is.
type key struct {
	proto    string // TCP or UDP
	external uint16
	remote   string // "", an address or a prefix
	rport    uint16
	client   string
}

// lease is what a client was granted. It ends between two moments: the client does
// not know when the daemon began to count.
type lease struct {
	key
	internal, ports uint16
	by              string // UPnP, NAT-PMP or PCP
	enabled         bool
	text            string // description
	id              string // UniqueID of a pinhole
	first, last     time.Time
}

// inexact is for leases in whole seconds, and for a machine that is slow.
const inexact = 2 * time.Second

// sees reports whether the lease may be shown as o is.
func (l lease) sees(o lease) bool {
	near := o.last.After(l.first.Add(-inexact)) && o.first.Before(l.last.Add(inexact))
	o.first, o.last, o.id = l.first, l.last, l.id
	return near && l == o
}

func (l lease) String() string {
	if l.key == (key{}) {
		return "nothing"
	}
	return fmt.Sprintf("%s %d-%d from %q port %d to %s port %d, %s, enabled %t, %q, until %s", l.proto, l.external, l.external+l.ports-1,
		l.remote, l.rport, l.client, l.internal, l.by, l.enabled, l.text, l.last.Format("15:04:05.0"))
}

// left is what remains of the lease at least.
func (l lease) left() time.Duration { return time.Until(l.first) }

// over reports whether the lease has certainly ended.
func (l lease) over() bool { return time.Since(l.last) > inexact }

// covers reports whether the lease has the client's own port.
func (l lease) covers(proto string, internal uint16) bool {
	return l.proto == proto && l.internal <= internal && internal < l.internal+l.ports
}

// book is what a client has been granted and did not give back.
type book struct {
	held   map[key]lease
	past   []change        // of the last seconds
	unsure map[key][]lease // after a crash: what may be there as well; the zero lease is nothing
	ended  []key           // whose ports must be closed
}

// change is what a key was before a change.
type change struct {
	at  time.Time
	key key
	was lease
}

// lossTime is for how long before a crash nothing is sure: the lease file is written
// within a second (issue 4), and machines are slow.
const lossTime = 3 * time.Second

func (b *book) put(l lease) {
	b.note(l.key)
	b.held[l.key] = l
}

func (b *book) drop(k key) {
	b.note(k)
	delete(b.held, k)
	b.ended = append(b.ended[max(0, len(b.ended)-20):], k)
}

func (b *book) note(k key) {
	now := time.Now()
	b.past = slices.DeleteFunc(b.past, func(c change) bool { return now.Sub(c.at) > 2*lossTime })
	b.past = append(b.past, change{now, k, b.held[k]})
}

// dropAll drops what is picked, and says whether there was any.
func (b *book) dropAll(pick func(lease) bool) (any bool) {
	for k, l := range b.held {
		if pick(l) {
			b.drop(k)
			any = true
		}
	}
	return any
}

// crash notes what a crash now may bring back.
func (b *book) crash() {
	b.unsure = map[key][]lease{}
	for _, c := range b.past {
		if time.Since(c.at) < lossTime {
			b.unsure[c.key] = append(b.unsure[c.key], c.was)
		}
	}
}

// find gives the lease of a client's own port that a protocol made.
func (b *book) find(proto string, internal uint16, by ...string) (lease, bool) {
	for _, origin := range by {
		for _, l := range b.held {
			if l.by == origin && l.covers(proto, internal) {
				return l, true
			}
		}
	}
	return lease{}, false
}

// shaky reports whether a lease of one of the client's own ports ends about now: what
// NAT-PMP and PCP answer then may mean one thing or the other.
func (b *book) shaky(proto string, internal, ports uint16) bool {
	for _, l := range b.held {
		if l.proto == proto && l.internal < internal+ports && internal < l.internal+l.ports && l.left() < inexact && !l.over() {
			return true
		}
	}
	b.dropAll(lease.over)
	return false
}

// differs compares with what is listed of the client, and gives what differs. What
// the crash has left open is taken as it is found.
func (b *book) differs(listed map[key]lease) (said []string) {
	for k, l := range b.held {
		switch o, ok := listed[k]; {
		case ok && l.sees(o):
		case !ok && l.left() < inexact:
		case b.adopt(k, o):
		default:
			said = append(said, fmt.Sprintf("%s was granted %v; the table has %v", k.client, l, o))
		}
	}
	for k, o := range listed {
		if _, ok := b.held[k]; !ok && !b.adopt(k, o) {
			said = append(said, fmt.Sprintf("%s was not granted what the table has: %v", k.client, o))
		}
	}
	return said
}

// adopt makes of o, which is listed (the zero lease: nothing), what is held, if it is
// one of the states that a crash may have left.
func (b *book) adopt(k key, o lease) bool {
	for _, was := range b.unsure[k] {
		gone := was == (lease{}) || was.left() < inexact
		if o == (lease{}) && gone {
			delete(b.held, k)
			return true
		}
		if o != (lease{}) && was.sees(o) {
			b.held[k] = was
			return true
		}
	}
	return false
}

// settle is called when all was compared: what is there is sure.
func (b *book) settle() {
	b.unsure, b.past = nil, nil
	b.dropAll(lease.over)
}
