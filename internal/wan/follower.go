package wan

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// How long to wait before rtnetlink is opened again after an error.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 30 * time.Second
)

// answerTime bounds the wait for answers, which are there at once or never come.
const answerTime = time.Second

// sysClassNet is where the kernel tells the speed of devices.
const sysClassNet = "/sys/class/net"

// Follower keeps the State true. All methods are safe for concurrent use.
type Follower struct {
	names []string // uplink first
	now   func() time.Duration
	logf  func(format string, args ...any)

	mu     sync.Mutex
	socks  *sockets // replaced after errors
	state  State
	closed bool
	asking atomic.Int32 // SameHost calls that wait for the kernel
}

// Follow opens rtnetlink and reads the devices for the first time; nothing
// that happens after that is missed. uplink names the device; if it is what an
// earlier Follower knew, Since goes on. now is the boot clock. The error says
// that a name is impossible or that rtnetlink cannot be used; absent devices
// are no error.
func Follow(uplink Uplink, intifs []string, now func() time.Duration, logf func(string, ...any)) (*Follower, error) {
	f := &Follower{
		names: append([]string{uplink.Name}, intifs...),
		now:   now,
		logf:  logf,
		state: State{Uplink: uplink},
	}
	for _, name := range f.names {
		if len(name) == 0 || len(name) >= unix.IFNAMSIZ {
			return nil, fmt.Errorf("%q is not a device name: 1 to %d bytes", name, unix.IFNAMSIZ-1)
		}
	}
	for _, name := range intifs {
		f.state.LANs = append(f.state.LANs, LAN{Name: name})
	}
	var err error
	if f.socks, err = dial(); err != nil {
		return nil, err
	}
	first, err := f.read()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	f.report(State{}, first)
	f.state = first
	return f, nil
}

// State returns what is known now, without asking the kernel. Callers must not
// modify its slices.
func (f *Follower) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// Run follows the devices and calls changed, one call at a time, after each
// change that happened since Follow. It returns nil when ctx ended or after
// Close. Errors of rtnetlink are logged and survived. Run is called once.
func (f *Follower) Run(ctx context.Context, changed func(State)) error {
	defer context.AfterFunc(ctx, f.interrupt)()
	retry := retryFirst
	for f.running(ctx) {
		err := f.sockets().await(f.State().devices())
		if err == nil {
			retry = retryFirst
			err = f.refresh(changed)
		}
		if err != nil && f.running(ctx) {
			f.logf("wan: %v; opening rtnetlink again", err)
			retry = f.reopen(ctx, retry, changed)
		}
	}
	return nil
}

func (f *Follower) running(ctx context.Context) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return ctx.Err() == nil && !f.closed
}

func (f *Follower) sockets() *sockets {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.socks
}

// interrupt ends a blocked await.
func (f *Follower) interrupt() {
	_ = f.sockets().events.SetReadDeadline(time.Unix(1, 0))
}

// reopen tries, after ever longer waits, until rtnetlink works again, and
// returns the wait for the next time. What was missed is read.
func (f *Follower) reopen(ctx context.Context, retry time.Duration, changed func(State)) time.Duration {
	for f.running(ctx) {
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, retryMost)
		s, err := dial()
		if err != nil {
			continue
		}
		if f.replace(s) && f.refresh(changed) == nil {
			break
		}
	}
	return retry
}

// replace puts new sockets in the place of the old ones; false after Close.
func (f *Follower) replace(s *sockets) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_ = s.close()
		return false
	}
	_ = f.socks.close()
	f.socks = s
	return true
}

// refresh reads the devices again and tells what changed.
func (f *Follower) refresh(changed func(State)) error {
	s, err := f.read()
	if err != nil {
		return err
	}
	f.mu.Lock()
	old := f.state
	f.state = s
	f.mu.Unlock()
	if !s.Equal(old) {
		f.report(old, s)
		changed(s)
	}
	return nil
}

func (f *Follower) read() (State, error) {
	c, _, err := f.requests()
	if err != nil {
		return State{}, err
	}
	k, err := readKernel(c, f.names)
	if err != nil {
		return State{}, err
	}
	speed := func(name string) uint64 { return readSpeed(sysClassNet, name) }
	return next(f.State(), k, f.now(), speed), nil
}

// report logs a line for each device about which there is news.
func (f *Follower) report(old, s State) {
	if news := describeUplink(old.Uplink, s.Uplink); news != "" {
		f.logf("wan: %s", news)
	}
	for i, l := range s.LANs {
		var was LAN
		if len(old.LANs) > 0 {
			was = old.LANs[i]
		}
		if news := describeLAN(was, l); news != "" {
			f.logf("wan: %s", news)
		}
	}
}

// Counters asks the kernel for the uplink's totals; zero when there is no
// such device. After Close the error is os.ErrClosed.
func (f *Follower) Counters() (Counters, error) {
	c, s, err := f.requests()
	if err != nil {
		return Counters{}, err
	}
	l, ok, err := readLink(c, s.Uplink.Name)
	if f.missed(err) != nil || !ok {
		return Counters{}, err
	}
	return l.counters, nil
}

// requests returns the socket to ask by, and what is known; os.ErrClosed after
// Close.
func (f *Follower) requests() (*netlink.Conn, State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, State{}, os.ErrClosed
	}
	return f.socks.requests, f.state, f.socks.requests.SetReadDeadline(time.Now().Add(answerTime))
}

// missed has Run open rtnetlink again when an answer did not come in time: late, it
// would be taken for that to another request.
func (f *Follower) missed(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		f.interrupt()
	}
	return err
}

// Close ends Run and gives the sockets back. Closing again is no error.
func (f *Follower) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	return f.socks.close()
}

// describeUplink says in words what is new; nothing new: "". The zero Uplink
// stands for "not known before".
func describeUplink(old, u Uplink) string {
	if old.Name != "" && old.Index == u.Index && old.Addr == u.Addr && old.Up == u.Up {
		return ""
	}
	switch {
	case u.Index == 0 && old.Index != 0:
		return fmt.Sprintf("device %s is gone; waiting for it", u.Name)
	case u.Index == 0:
		return fmt.Sprintf("no device %s yet; waiting for it", u.Name)
	case !u.Addr.IsValid() && old.Index != 0 && !old.Addr.IsValid():
		return "" // the link of a device without address
	case !u.Addr.IsValid():
		return fmt.Sprintf("%s has no address; waiting", u.Name)
	case !u.Up:
		return fmt.Sprintf("%s has address %s but no link; waiting", u.Name, u.Addr)
	default:
		return fmt.Sprintf("%s has address %s", u.Name, u.Addr)
	}
}

// describeLAN is describeUplink for a LAN device, whose link is no news.
func describeLAN(old, l LAN) string {
	four := old.Name == "" || (old.Index == 0) != (l.Index == 0) || !slices.Equal(old.Prefixes, l.Prefixes)
	six := !l.equal6(old)
	news := "LAN device " + l.Name
	switch {
	case !four && !six:
		return ""
	case l.Index == 0 && old.Index != 0:
		return news + " is gone; waiting for it"
	case l.Index == 0:
		return "no " + news + " yet; waiting for it"
	case four && len(l.Prefixes) == 0:
		news += " has no IPv4 address; waiting"
	case four:
		news += " has address" + joinPrefixes(l.Prefixes)
	}
	if four && six {
		news += ";"
	}
	current := len(l.Prefixes6) - l.Deprecated6
	if six && len(l.Prefixes6) == 0 {
		news += " has no IPv6 address"
	} else if six {
		news += " has IPv6 address" + joinPrefixes(l.Prefixes6[:current])
	}
	if six && l.Deprecated6 > 0 {
		news += " deprecated" + joinPrefixes(l.Prefixes6[current:])
	}
	return news
}

// joinPrefixes gives a blank and a prefix, again and again.
func joinPrefixes(all []netip.Prefix) string {
	var b []byte
	for _, p := range all {
		b = p.AppendTo(append(b, ' '))
	}
	return string(b)
}
