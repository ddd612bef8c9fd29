package firewall

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Pace of the calls that Watch makes. The first repair is immediate, but
// somebody who deletes our table whenever we restore it gets only so many at
// once and then one a second.
const (
	repairBurst = 5
	repairEvery = time.Second
	settle      = time.Second // scripts change rules in many steps
)

// Bounds of the wait before the events are opened again.
const (
	reopenFirst = time.Second
	reopenMost  = time.Minute
)

// Watch follows the changes that others make to the rules, from its call until
// ctx ends. It calls ours when one of them touched our table, at once but
// paced, and any when they changed whatever it was, a second later and at most
// once a second. Several changes may be one call; the last is never lost. Both
// are also called when the events were opened, for what happened before, and
// when some were lost. They run one at a time on the caller's goroutine.
// Our own changes make no call, nor does an element whose time is over.
//
// The error is that of the first opening; later ones are logged and mended.
func (f *NFTables) Watch(ctx context.Context, ours, any func()) error {
	w := watch{
		open:   openEvents,
		port:   &f.port,
		ours:   task{do: ours, burst: repairBurst, every: repairEvery},
		any:    task{do: any, burst: 1, settle: settle},
		events: make(chan bool, 1),
		logf:   f.logf,
	}
	return w.run(ctx)
}

func (w *watch) run(ctx context.Context) error {
	conn, err := w.open()
	if err != nil {
		return err
	}
	for wait := reopenFirst; ; {
		opened := time.Now()
		err := w.follow(ctx, conn)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(opened) > reopenMost {
			wait = reopenFirst
		}
		if errors.Is(err, unix.ENOBUFS) { // more than we could read: start anew
			if conn, err = w.open(); err == nil {
				continue
			}
		}
		w.logf("firewall: cannot see who changes the rules, trying again from time to time: %v", err)
		for conn = nil; conn == nil; wait = min(2*wait, reopenMost) {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
			conn, _ = w.open() // the failure has its line already
		}
	}
}

// watch is the state of Watch.
type watch struct {
	open      func() (*netlink.Conn, error)
	port      *atomic.Uint32 // of the connection that makes our changes
	ours, any task
	events    chan bool // somebody changed something, and whether it was ours
	logf      func(string, ...any)
}

// follow makes the calls until ctx ends or the events do, and closes conn.
func (w *watch) follow(ctx context.Context, conn *netlink.Conn) error {
	ended := make(chan error, 1)
	go func() { ended <- w.read(conn) }()
	now := time.Now()
	w.ours.ask(now)
	w.any.ask(now)
	for {
		select {
		case <-ctx.Done():
			err := conn.Close() // ends the reader
			<-ended
			return err
		case err := <-ended:
			return errors.Join(err, conn.Close())
		case ours := <-w.events:
			now := time.Now()
			w.any.ask(now)
			if ours {
				w.ours.ask(now)
			}
		case <-w.next():
			now := time.Now()
			if !w.ours.run(now) {
				w.any.run(now)
			}
		}
	}
}

// next fires when a task is due; it is nil, which never fires, when none is
// asked for.
func (w *watch) next() <-chan time.Time {
	due := w.ours.due()
	if d := w.any.due(); due.IsZero() || !d.IsZero() && d.Before(due) {
		due = d
	}
	if due.IsZero() {
		return nil
	}
	return time.After(time.Until(due))
}

// read takes the events until there is an error. It does not wait for the calls:
// what a repair makes the kernel report must not fill the buffer.
func (w *watch) read(conn *netlink.Conn) error {
	ours := false
	for {
		msgs, err := conn.Receive()
		if err != nil {
			return err
		}
		for _, m := range msgs {
			switch {
			case m.Header.PID == w.port.Load():
			case m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN: // ends each transaction
				w.post(ours)
				ours = false
			case touchesOurs(m):
				ours = true
			}
		}
	}
}

// post leaves an event for follow, joined with one that it did not take yet.
func (w *watch) post(ours bool) {
	select {
	case w.events <- ours:
	case before := <-w.events:
		w.events <- ours || before // room: nobody else sends
	}
}

// touchesOurs reports whether an event is of our table. In those of tables,
// chains, rules, sets and all else attribute 1 is the table's name; what cannot
// be read may be ours.
func touchesOurs(m netlink.Message) bool {
	if len(m.Data) < nfgenmsg || m.Data[0] != unix.NFPROTO_INET {
		return len(m.Data) < nfgenmsg
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[nfgenmsg:])
	if err != nil {
		return true
	}
	for ad.Next() {
		if ad.Type() == unix.NFTA_TABLE_NAME {
			return ad.String() == tableName
		}
	}
	return ad.Err() != nil
}

// task is a function that is asked for again and again, and its pace: settle
// after it was asked for first, then a burst of runs at once, and after
// these one each time that every passes.
type task struct {
	do            func()
	settle, every time.Duration
	burst         int
	asked         time.Time // zero: nobody did since the last run
	full          time.Time // when the burst can be had whole again
}

func (t *task) ask(now time.Time) {
	if t.asked.IsZero() {
		t.asked = now
	}
}

// due is when it must run; zero: when it was asked for.
func (t *task) due() time.Time {
	if t.asked.IsZero() {
		return time.Time{}
	}
	due := t.asked.Add(t.settle)
	if free := t.full.Add(-t.every * time.Duration(t.burst-1)); free.After(due) {
		due = free
	}
	return due
}

// run runs it if it is due.
func (t *task) run(now time.Time) bool {
	if due := t.due(); due.IsZero() || due.After(now) {
		return false
	}
	if t.full.Before(now) {
		t.full = now
	}
	t.full = t.full.Add(t.every)
	t.asked = time.Time{} // before the run: what happens during it asks again
	t.do()
	return true
}

// openEvents joins the group of nf_tables.
func openEvents() (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		return nil, fmt.Errorf("open the events of nf_tables: %w", err)
	}
	if err := conn.SetReadBuffer(receiveBuffer); err != nil {
		return nil, errors.Join(fmt.Errorf("open the events of nf_tables: %w", err), conn.Close())
	}
	return conn, nil
}
