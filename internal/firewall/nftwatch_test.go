package firewall

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mdlayher/netlink"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// watcher runs Watch on the router; each touch of our table is repaired by Sync.
type watcher struct {
	f        *NFTables
	all      []portmap.Mapping
	repaired chan time.Time // after each Sync
	any      chan time.Time // each call for any change
	stop     func()

	mu sync.Mutex // one method of f at a time
}

// watchNFT starts a watcher and lets its first repair pass.
func watchNFT(t *testing.T, l *lab.Lab, f *NFTables, all []portmap.Mapping) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{f: f, all: all, repaired: make(chan time.Time, 100), any: make(chan time.Time, 100)}
	ended := make(chan error, 1)
	go func() {
		ended <- l.Router.Do(func() error {
			return f.Watch(ctx, func() {
				w.mu.Lock()
				defer w.mu.Unlock()
				if err := f.Sync(home, all); err != nil {
					t.Errorf("repair: %v", err)
				}
				w.repaired <- time.Now()
			}, func() { w.any <- time.Now() })
		})
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Watch: %v", err)
			}
		case <-time.After(patience):
			t.Error("Watch goes on after its context has ended")
		}
	})
	t.Cleanup(w.stop)
	w.wait(t, w.repaired)
	w.wait(t, w.any)
	return w
}

// wait gives the time of the next call.
func (w *watcher) wait(t *testing.T, calls chan time.Time) time.Time {
	t.Helper()
	select {
	case at := <-calls:
		return at
	case <-time.After(patience):
		t.Fatal("no call")
		return time.Time{}
	}
}

// sentinel is a foreign change that Watch reports: all events before it have
// been looked at when the call comes.
func (w *watcher) sentinel(t *testing.T, l *lab.Lab) {
	t.Helper()
	l.Router.Run(t, "nft", "add table ip sentinel; delete table ip sentinel")
	w.wait(t, w.any)
}

// TestWatchRepairs: whatever somebody did to the table, it is back at once.
func TestWatchRepairs(t *testing.T) {
	l := lab.Start(t)
	f := openNFT(t, l)
	week := leased(web, 604800*time.Second)
	all := []portmap.Mapping{week, only(week, "11.0.0.9")}
	on(t, l, func() error { return f.Sync(home, all) })
	once := nftRuleset(t, l)
	for _, damage := range []string{
		"flush ruleset",
		"delete table inet upnpd",
		"delete table inet upnpd; add table inet upnpd",
		"flush chain inet upnpd prerouting",
		"delete element inet upnpd dnat4 { tcp . 18080 : 192.168.77.10 . 8080 }",
		"delete element inet upnpd ext4 { 11.0.0.2 }",
		"flush map inet upnpd dnat4",
	} {
		w := watchNFT(t, l, f, all)
		l.Router.Run(t, "nft", damage)
		ended := time.Now()
		took := max(0, w.wait(t, w.repaired).Sub(ended))
		if got := nftRuleset(t, l); got != once {
			t.Errorf("%q was not repaired:\n%s", damage, got)
		}
		t.Logf("%-75q repaired %v after nft ended", damage, took)
		if took > time.Second { // 100 ms on a machine that has nothing else to do
			t.Errorf("%q: repaired after %v", damage, took)
		}
		w.stop()
	}
	on(t, l, f.Close)
}

// TestWatchOwnChanges: what we do ourselves, and what others do elsewhere, is
// no reason for a repair.
func TestWatchOwnChanges(t *testing.T) {
	l := lab.Start(t)
	f := openNFT(t, l)
	on(t, l, func() error { return f.Sync(home, nil) })
	w := watchNFT(t, l, f, nil)
	own := func() {
		for i := range 500 {
			m := leased(web, time.Hour)
			m.ExternalPort, m.InternalPort = uint16(20000+i), uint16(20000+i)
			on(t, l, func() error {
				w.mu.Lock()
				defer w.mu.Unlock()
				return errors.Join(f.Change(nil, &m), f.Change([]portmap.Mapping{m}, nil))
			})
		}
	}
	own()
	on(t, l, func() error { return f.conn.socket.Close() }) // and after a redial
	f.conn = nil
	own()
	if n := len(w.any) + len(w.repaired); n != 0 {
		t.Errorf("2000 changes of our own: %d calls", n)
	}
	l.Router.Run(t, "nft", "add table ip upnpd; add table inet docker; add chain inet docker upnpd; delete table inet docker")
	w.wait(t, w.any)
	w.sentinel(t, l)
	if n := len(w.repaired); n != 0 {
		t.Errorf("changes of other tables: %d repairs", n)
	}
	on(t, l, f.Close)
}

// TestWatchCompetitor: against somebody who deletes the table whenever it is
// there, we try now and then; and when that ends, the table is there.
func TestWatchCompetitor(t *testing.T) {
	l := lab.Start(t)
	f := openNFT(t, l)
	all := []portmap.Mapping{leased(web, time.Hour)}
	on(t, l, func() error { return f.Sync(home, all) })
	once := nftRuleset(t, l)
	w := watchNFT(t, l, f, all)
	const spell = 3 * time.Second
	deleted := 0
	for start := time.Now(); time.Since(start) < spell; deleted++ {
		l.Router.Run(t, "nft", "add table inet upnpd; delete table inet upnpd")
	}
	repairs := len(w.repaired)
	if repairs < 3 || repairs > 10 {
		t.Errorf("%d repairs for %d deletions in %v", repairs, deleted, spell)
	}
	t.Logf("%d repairs for %d deletions in %v", repairs, deleted, spell)
	for deadline := time.Now().Add(patience); nftRuleset(t, l) != once; {
		if time.Now().After(deadline) {
			t.Fatalf("the table is not back:\n%s", nftRuleset(t, l))
		}
		w.wait(t, w.repaired)
	}
	w.stop()
	on(t, l, f.Close)
}

// TestWatchLosses: after events were lost for more came than the buffer takes,
// and after the connection broke, Watch goes on, and has the table looked after.
func TestWatchLosses(t *testing.T) {
	l := lab.Start(t)
	flood := func(conn *netlink.Conn) error {
		l.Router.Run(t, "sh", "-c", `{ echo "table inet big { set s { type ipv4_addr; }; }"
			i=0; while [ $i -lt 60000 ]; do echo "add element inet big s { 10.0.$((i/250)).$((i%250)) }"; i=$((i+1)); done
			echo "delete table inet big"; } | nft -f -`)
		return nil
	}
	for _, tt := range []struct {
		name  string
		spoil func(*netlink.Conn) error // the first connection
		lines int                       // of the log
	}{
		{"overrun", flood, 0},
		{"broken", (*netlink.Conn).Close, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			opened, lines, seen := 0, 0, false
			var port atomic.Uint32
			w := watch{port: &port, events: make(chan bool, 1), logf: func(string, ...any) { lines++ }}
			w.any.do = func() {}
			w.ours.do = func() {
				if seen = opened == 2; seen {
					cancel()
				}
			}
			w.open = func() (*netlink.Conn, error) {
				conn, err := openEvents()
				if opened++; opened == 1 && err == nil {
					err = tt.spoil(conn)
				}
				return conn, err
			}
			on(t, l, func() error { return w.run(ctx) })
			if !seen || lines != tt.lines {
				t.Errorf("called after the second opening: %v; %d opened, %d lines", seen, opened, lines)
			}
		})
	}
}

// TestTask: a burst at once, then one a second, and none that was asked for is
// lost, not even one that was asked for during a run.
func TestTask(t *testing.T) {
	start := time.Unix(1000, 0)
	var ran []time.Duration
	now := start
	k := task{burst: 3, every: time.Second}
	k.do = func() {
		if ran = append(ran, now.Sub(start)); len(ran) < 6 {
			k.ask(now)
		}
	}
	for k.ask(now); !k.due().IsZero(); {
		if now.Before(k.due()) && k.run(now) {
			t.Errorf("ran at %v, due at %v", now, k.due())
		}
		if now = k.due(); !k.run(now) {
			t.Fatalf("did not run when it was due, at %v", now)
		}
	}
	want := []time.Duration{0, 0, 0, time.Second, 2 * time.Second, 3 * time.Second}
	if !slices.Equal(ran, want) {
		t.Errorf("ran at %v, want %v", ran, want)
	}

	w := watch{events: make(chan bool, 1)}
	w.post(true)
	w.post(false)
	if !<-w.events {
		t.Error("an event of our table is lost behind another")
	}
}
