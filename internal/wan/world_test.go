package wan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// aWhile is far longer than anything here takes, when it works.
const aWhile = 5 * time.Second

// bootClock ticks once for each reading, so that times can be told apart.
type bootClock struct {
	mu   sync.Mutex
	time time.Duration
}

func (c *bootClock) now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time += time.Second
	return c.time
}

// logbook collects log lines.
type logbook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logbook) logf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

func (l *logbook) want(t *testing.T, lines ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if got, want := strings.Join(l.lines, "\n"), strings.Join(lines, "\n"); got != want {
		t.Errorf("log:\n%s\nwant:\n%s", got, want)
	}
}

// world is a Follower with its Run, for tests.
type world struct {
	*Follower
	t      *testing.T
	log    *logbook
	states chan State
}

func follow(t *testing.T, extif string, intifs ...string) *world {
	t.Helper()
	w := &world{t: t, log: new(logbook), states: make(chan State, 1000)}
	var err error
	if w.Follower, err = Follow(Uplink{Name: extif}, intifs, new(bootClock).now, w.log.logf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// run starts Run, and ends it with the test.
func (w *world) run() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, func(s State) { w.states <- s }) }()
	w.t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				w.t.Errorf("Run: %v", err)
			}
		case <-time.After(aWhile):
			w.t.Error("Run does not end with its context")
		}
	})
}

// until waits for a change after which cond holds.
func (w *world) until(what string, cond func(State) bool) State {
	w.t.Helper()
	timeout := time.After(aWhile)
	for {
		select {
		case s := <-w.states:
			if !cond(s) {
				continue
			}
			if now := w.State(); len(w.states) == 0 && !cond(now) {
				w.t.Errorf("%s: State() is %+v after %+v", what, now, s)
			}
			return s
		case <-timeout:
			w.t.Fatalf("%s: not seen; state %+v", what, w.State())
		}
	}
}

func connectedAs(addr string) func(State) bool {
	return func(s State) bool { return s.Uplink.Connected() && s.Uplink.Addr.String() == addr }
}

// TestMissedAnswer: when the kernel does not answer a question in time, rtnetlink is
// opened again: late, the answer would be taken for that to the next one.
func TestMissedAnswer(t *testing.T) {
	lab.NeedAlone(t)
	noDevices(t)
	w := follow(t, "eth1")
	w.run()
	old := w.sockets()
	w.missed(fmt.Errorf("read route: %w", os.ErrDeadlineExceeded))
	for end := time.Now().Add(10 * time.Second); w.sockets() == old; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the sockets are still the same")
		}
	}
	if _, err := w.Neighbors(); err != nil {
		t.Error(err)
	}
}

func TestRunEnds(t *testing.T) {
	ended := make(chan error)
	wantEnd := func(when string) {
		t.Helper()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s: %v", when, err)
			}
		case <-time.After(aWhile):
			t.Fatalf("%s: Run goes on", when)
		}
	}
	var w *world
	for range 20 { // some before, some while it waits
		w = follow(t, "nosuch9")
		ctx, cancel := context.WithCancel(context.Background())
		go func() { ended <- w.Run(ctx, nil) }()
		cancel()
		wantEnd("context")
		w.log.want(t, "wan: no device nosuch9 yet; waiting for it")
	}
	w = follow(t, "nosuch9")
	go func() { ended <- w.Run(context.Background(), nil) }()
	_ = w.Close()
	wantEnd("Close")
	if _, err := w.Counters(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Counters after Close: %v", err)
	}
	if s := w.State(); s.Uplink.Name != "nosuch9" {
		t.Errorf("State after Close: %+v", s)
	}
}
