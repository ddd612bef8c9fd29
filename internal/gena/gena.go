// Package gena is eventing: control points subscribe to a service and are
// told its variables, first all of them and then what changes.
//
// The rules are section 4 of SPEC.md (rows GENA-1 to GENA-16), after the
// eventing chapter of the UPnP Device Architecture 1.1 and 2.0.
//
// Requests and changes only touch memory, under one mutex. The goroutine of
// Run decides what is due, and every message has a goroutine of its own while
// it is under way: at most one for each subscription, so that a subscriber who
// is slow or gone delays nobody. Without a message to send there is no timer.
package gena

import (
	"context"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/linux-igd/upnpd/internal/httpmsg"
	"github.com/linux-igd/upnpd/internal/sock"
)

const (
	// pause is the least time between two messages of one subscription; what
	// changes meanwhile travels together (GENA-12).
	pause = 200 * time.Millisecond

	maxSubscriptions = 64 // GENA-13
	maxPerHost       = 16 // GENA-13
	maxIPv6          = 32 // a host has as many IPv6 addresses as it likes
	maxFailures      = 3  // in a row, then the subscription ends (GENA-9, INT-3)
)

// A Property is an evented variable and its value as text.
type Property struct{ Name, Value string }

// Config is what a Publisher needs of others.
type Config struct {
	// Logf gets one line when a subscription is refused or given up, with the
	// host's netip.Addr among its args; nil: nobody does.
	Logf func(format string, args ...any)

	// Dial connects from the router's address local on the LAN device to a
	// subscriber, until ctx ends; nil is sock.DialTCP. Close must end a read
	// and a write at once.
	Dial func(ctx context.Context, dev string, local netip.Addr, to netip.AddrPort) (io.ReadWriteCloser, error)
}

// A topic is what one eventSubURL stands for.
type topic struct {
	path   string
	values func() []Property
}

// A Publisher has the subscriptions and sends the events.
type Publisher struct {
	cfg    Config
	topics []*topic
	wake   chan struct{} // tells Run to look again

	mu   sync.Mutex
	subs []*subscription
}

// A subscription is one control point's interest in one topic. The fields up
// to the empty line never change, the others belong to Publisher.mu.
type subscription struct {
	sid   string // with "uuid:"
	topic *topic
	host  netip.Addr // the subscriber
	dev   string     // the LAN it is on
	local netip.Addr // the router there
	urls  []callback

	expires time.Time
	ready   bool       // the answer to SUBSCRIBE was written (GENA-6)
	gone    bool       // only the initial event may still be sent
	stale   bool       // values may have changed since the last message was made
	next    time.Time  // no message before it
	seq     uint32     // of the next message
	known   []Property // what the subscriber surely has
	failed  int        // messages in a row
	stop    func()     // breaks off the message under way; nil: there is none
}

// New makes a Publisher without topics.
func New(cfg Config) *Publisher {
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	return &Publisher{cfg: cfg, wake: make(chan struct{}, 1)}
}

func dialTCP(ctx context.Context, dev string, local netip.Addr, to netip.AddrPort) (io.ReadWriteCloser, error) {
	c, err := sock.DialTCP(ctx, dev, local, to)
	if err != nil {
		return nil, err // not c: a nil *sock.Conn is an interface that is not nil
	}
	return c, nil
}

// Topic makes path an eventSubURL. values returns all evented variables of
// the service as of one moment, in a new slice; it is called by Run, without
// a lock, and its time delays the events of all. Topics are made before the first Handle.
func (p *Publisher) Topic(path string, values func() []Property) {
	p.topics = append(p.topics, &topic{path, values})
}

// Changed says that any value may have changed. It never waits for I/O, and
// calls no values function, so it may be called under a lock that one takes.
func (p *Publisher) Changed() {
	p.mu.Lock()
	for _, s := range p.subs {
		s.stale = true
	}
	p.mu.Unlock()
	p.look()
}

func (p *Publisher) look() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run sends events until ctx ends, and breaks off what is under way then.
func (p *Publisher) Run(ctx context.Context) {
	var messages sync.WaitGroup
	defer messages.Wait()
	for ctx.Err() == nil {
		due, wait := p.due()
		for _, s := range due {
			p.send(ctx, &messages, s, s.topic.values())
		}
		var later <-chan time.Time
		if wait > 0 {
			later = time.After(wait)
		}
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-later:
		}
	}
}

// due returns the subscriptions whose values are to be looked at now, and how
// long it is until the next ones are; 0 where only Changed or Handle can make
// one due.
func (p *Publisher) due() (due []*subscription, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.sweep(now)
	for _, s := range p.subs {
		if !s.stale || !s.ready || s.stop != nil {
			continue // when a message ends Run looks again
		}
		if d := s.next.Sub(now); d > 0 {
			if wait == 0 || d < wait {
				wait = d
			}
			continue
		}
		s.stale = false // before the values are read: no change is missed
		due = append(due, s)
	}
	return due, wait
}

// sweep forgets the subscriptions that are over. An expired one may lie here
// for long, but does no harm: it gets no message and takes nobody's place.
func (p *Publisher) sweep(now time.Time) {
	keep := p.subs[:0]
	for _, s := range p.subs {
		if s.stop != nil || !s.over() && now.Before(s.expires) {
			keep = append(keep, s)
		}
	}
	clear(p.subs[len(keep):])
	p.subs = keep
}

// over reports that s gets no further message. The initial event is sent even
// to a subscriber who has left (GENA-6).
func (s *subscription) over() bool { return s.gone && s.seq > 0 }

func (p *Publisher) logf(format string, args ...any) {
	if p.cfg.Logf != nil {
		p.cfg.Logf(format, args...)
	}
}

// Handle answers a request for an eventSubURL: SUBSCRIBE and UNSUBSCRIBE are
// served, 405 or 501 is the answer to other methods (HTTP-11), 404 to the path
// of no topic.
func (p *Publisher) Handle(req *httpmsg.Request) *httpmsg.Response {
	for _, t := range p.topics {
		if t.path != req.Target {
			continue
		}
		if req.Method == "SUBSCRIBE" || req.Method == "UNSUBSCRIBE" {
			return p.subscribe(t, req)
		}
		return httpmsg.NotAllowed(req.Method, "SUBSCRIBE, UNSUBSCRIBE")
	}
	return &httpmsg.Response{Status: 404} // GENA-3
}
