package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// flowPause is the least pause between two looks at the tracked
	// connections, so that many mappings together cost few of them. A pause is
	// also flowShare times as long as the look before it: the kernel goes
	// through its whole table each time (9 ms with 262,144 buckets).
	flowPause = 50 * time.Millisecond
	flowShare = 4
	// flowQueue is how many changes of mappings may wait for the next look: all
	// that there can be, should all of them end and begin at once.
	flowQueue = 1 << 18
	// flowTimeout bounds one look, and flowCloseTimeout what Close waits for.
	flowTimeout      = 5 * time.Second
	flowCloseTimeout = 500 * time.Millisecond
	// After flowQuiet without a message there is no answer on its way any
	// more; flowDrain bounds how many are read until then.
	flowQuiet = 20 * time.Millisecond
	flowDrain = 100
)

// Flows ends the connections that the kernel tracks for mappings (SPEC WIP-13).
// A rule or a map entry decides about the first packet of a connection only;
// all that follow go the way that the connection tracking remembers.
//
// Its methods do not wait for the kernel: one goroutine looks at the tracked
// connections, for all mappings that were named meanwhile together. They may be
// called from any goroutine.
type Flows struct {
	conn flowConn // nil: the kernel has no ctnetlink
	asks flowConn // of find; nil until needed
	logf func(string, ...any)
	wake chan struct{} // there is something pending
	rush chan struct{} // do not pause
	done chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	pending []change
	full    bool // pending was; said once
	closed  bool
}

// flowConn is a connection to ctnetlink: a netlink.Conn, or a test's.
type flowConn interface {
	Execute(netlink.Message) ([]netlink.Message, error)
	Receive() ([]netlink.Message, error)
	SetDeadline(time.Time) error
	Close() error
}

// OpenFlows begins to work. A kernel without ctnetlink gets one log line, and
// then everything is a no-op.
func OpenFlows(logf func(string, ...any)) *Flows {
	return openFlows(dialConntrack, logf)
}

func openFlows(dial func() (flowConn, error), logf func(string, ...any)) *Flows {
	f := &Flows{logf: logf, wake: make(chan struct{}, 1), rush: make(chan struct{}, 1), done: make(chan struct{})}
	conn, err := dial()
	if err != nil {
		logf("firewall: open connections will outlive their mappings: %v; the kernel module is nf_conntrack_netlink (OpenWrt: kmod-nf-conntrack-netlink)", err)
		close(f.done)
		return f
	}
	f.conn = conn
	go f.run()
	return f
}

// dialConntrack opens ctnetlink and checks that it answers.
func dialConntrack() (flowConn, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open netlink to netfilter: %w", err)
	}
	nowhere := netip.AddrPortFrom(netip.IPv4Unspecified(), 9) // no connection has it
	ask, err := getRequest(tuple{unix.IPPROTO_UDP, nowhere, nowhere})
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(flowTimeout))
	}
	if err == nil {
		_, err = conn.Execute(ask)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		conn.Close()
		return nil, fmt.Errorf("ask ctnetlink: %w", err)
	}
	return conn, nil
}

// end ends what came in through a mapping that is gone, and what its client sent
// out from the mapped port. It also does what begin does. Connections that
// somebody else redirected go on.
func (f *Flows) end(m mapped) { f.add(change{m, false}) }

// begin makes a new mapping work for peers that knocked before: the kernel
// remembers their connection as one to the router itself and would keep on
// bringing it there. Connections through the mapping go on.
func (f *Flows) begin(m mapped) { f.add(change{m, true}) }

func (f *Flows) add(c change) {
	if f.conn == nil || c.begun && c.pinhole() || !c.pinhole() && !c.external.Addr().Is4() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	if len(f.pending) >= flowQueue { // the kernel hangs; who calls must not
		if !f.full {
			f.logf("firewall: ctnetlink does not keep up: some open connections will outlive their mappings")
		}
		f.full = true
		return
	}
	f.pending = append(f.pending, c)
	signal(f.wake)
}

// signal leaves a sign in a channel that holds one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Close ends what was named so far and waits for it, but for no longer than a
// slow kernel deserves. What is named later is ignored.
func (f *Flows) Close() error {
	f.mu.Lock()
	first := !f.closed
	f.closed = true
	f.mu.Unlock()
	if f.conn == nil || !first {
		<-f.done
		return nil
	}
	signal(f.rush)
	signal(f.wake)
	timer := time.NewTimer(flowCloseTimeout)
	defer timer.Stop()
	select {
	case <-f.done:
		return f.conn.Close()
	case <-timer.C:
	}
	err := f.conn.Close() // ends what the goroutine waits for
	<-f.done
	return err
}

// run looks at the connections when there is something pending.
func (f *Flows) run() {
	defer close(f.done)
	failing := false
	for range f.wake {
		batch, closed := f.take()
		start := time.Now()
		if len(batch) > 0 {
			err := f.pass(batch)
			if err != nil && !failing {
				f.logf("firewall: open connections outlive their mappings: %v", err)
			}
			if failing = err != nil; failing {
				f.drain()
			}
		}
		if closed {
			return
		}
		pause := time.NewTimer(max(flowPause, flowShare*time.Since(start)))
		select {
		case <-pause.C:
		case <-f.rush:
		}
		pause.Stop()
	}
}

// take gives what is pending.
func (f *Flows) take() (batch []change, closed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	batch, f.pending, f.full = f.pending, nil, false
	return batch, f.closed
}

// pass deletes the connections of the batch.
func (f *Flows) pass(batch []change) error {
	if err := f.conn.SetDeadline(time.Now().Add(flowTimeout)); err != nil {
		return err
	}
	var mappings, pinholes []change
	for _, c := range batch {
		if c.pinhole() {
			pinholes = append(pinholes, c)
		} else {
			mappings = append(mappings, c)
		}
	}
	if err := f.passFamily(unix.AF_INET, mappings); err != nil {
		return err
	}
	return f.passFamily(unix.AF_INET6, pinholes)
}

// passFamily is pass for changes of one address family.
func (f *Flows) passFamily(family byte, batch []change) error {
	if len(batch) == 0 {
		return nil
	}
	match := newMatcher(batch)
	for _, filter := range filters(batch) {
		replies, err := f.dump(family, filter)
		if err != nil {
			return err
		}
		filtered := true
		for _, reply := range replies {
			c, err := parseFlow(reply.Data)
			if err != nil {
				return fmt.Errorf("read a tracked connection: %w", err)
			}
			filtered = filtered && filter.has(c.orig)
			if !match.wants(c) {
				continue
			}
			if err := f.delete(reply.Data); err != nil {
				return err
			}
		}
		if !filtered { // an old kernel: these were all
			return nil
		}
	}
	return nil
}

// dump lists the connections whose original tuple fits the filter, or more.
func (f *Flows) dump(family byte, filter tuple) ([]netlink.Message, error) {
	ask, err := dumpRequest(family, filter)
	if err != nil {
		return nil, err
	}
	return f.list(ask)
}

// list has the answers to a request. It begins once more if messages were lost.
func (f *Flows) list(ask netlink.Message) ([]netlink.Message, error) {
	replies, err := f.conn.Execute(ask)
	if errors.Is(err, unix.ENOBUFS) {
		f.drain()
		replies, err = f.conn.Execute(ask)
	}
	if err != nil {
		return nil, fmt.Errorf("list tracked connections: %w", err)
	}
	return replies, nil
}

// drain reads what the kernel still sends for a request that failed, so that it
// is not taken for the answer to the next one.
func (f *Flows) drain() {
	for range flowDrain {
		_ = f.conn.SetDeadline(time.Now().Add(flowQuiet)) // its error is Receive's too
		if _, err := f.conn.Receive(); errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
			break
		}
	}
	_ = f.conn.SetDeadline(time.Now().Add(flowTimeout))
}

// delete ends the connection that the kernel told of in a message. It may have
// ended by itself.
func (f *Flows) delete(told []byte) error {
	ask, err := deleteRequest(told)
	if err == nil {
		_, err = f.conn.Execute(ask)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete a tracked connection: %w", err)
	}
	return nil
}
