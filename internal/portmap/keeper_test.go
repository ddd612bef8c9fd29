//go:build go1.25

package portmap_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// kept is what a Keeper keeps in tests, and when it asked.
type kept struct {
	mu    sync.Mutex
	start time.Time
	now   []portmap.Mapping
	asked []time.Duration
	full  func() // makes the next write fail; nil: it works
}

func (k *kept) list() []portmap.Mapping {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, time.Since(k.start))
	if k.full != nil {
		k.full()
	}
	return k.now
}

func (k *kept) set(now []portmap.Mapping) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = now
}

// writes forgets what was before, too.
func (k *kept) writes() []time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	asked := k.asked
	k.start, k.asked, k.full = time.Now(), nil, nil
	return asked
}

// TestKeeper: at once after a change, then at most every 800 ms, and at the end.
func TestKeeper(t *testing.T) {
	f := leaseFile(t)
	synctest.Test(t, func(t *testing.T) {
		var w kept
		k := portmap.NewKeeper(w.list, t.Logf)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			k.Run(ctx)
		}()
		k.Changed()
		time.Sleep(time.Hour)
		if writes := w.writes(); len(writes) != 0 {
			t.Errorf("written without a file: %v", writes)
		}
		k.Use(f)
		time.Sleep(time.Hour)
		if writes := w.writes(); len(writes) != 1 {
			t.Errorf("written without a change: %v", writes)
		}
		start := time.Now()
		var lastChange time.Duration
		for i := range 1000 { // ten seconds
			w.set(hostile()[:i%4])
			k.Changed()
			lastChange = time.Since(start)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		writes := w.writes()
		if n := len(writes); n < 12 || n > 14 || writes[0] != 0 {
			t.Errorf("written %d times: %v", n, writes)
		}
		for i := 1; i < len(writes); i++ {
			if pause := writes[i] - writes[i-1]; pause < 800*time.Millisecond || pause >= time.Second {
				t.Errorf("written after %v", pause)
			}
		}
		if last := writes[len(writes)-1]; last < lastChange || last >= lastChange+time.Second {
			t.Errorf("changed at %v, written at %v", lastChange, last)
		}
		w.set(hostile()[:5])
		cancel()
		<-done
		if got, _, err := f.Read(1000); !slices.Equal(got, hostile()[:5]) {
			t.Errorf("at the end the file has %v, %v", got, err)
		}
	})
}

// TestKeeperRetries: what cannot be written is tried again, with one line when that
// begins and one when it ends; with the next change, too.
func TestKeeperRetries(t *testing.T) {
	for _, change := range []bool{false, true} {
		keeperRetries(t, change)
	}
}

func keeperRetries(t *testing.T, change bool) {
	f := leaseFile(t)
	if err := f.Write(nil); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := kept{now: hostile()[:9], full: func() {
			if err := os.MkdirAll(f.Path+".new/in the way", 0o755); err != nil {
				t.Error(err)
			}
		}}
		lines := make(chan string, 10)
		k := portmap.NewKeeper(w.list, func(format string, _ ...any) { lines <- format })
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go k.Run(ctx)
		k.Use(f)
		time.Sleep(5 * time.Minute)
		fault := k.Fault()
		if tries := w.writes(); len(tries) < 10 || len(tries) > 20 || len(lines) != 1 || !strings.Contains(fault, "file exists") {
			t.Errorf("%d tries, %d lines, fault %q", len(tries), len(lines), fault)
		}
		if err := os.RemoveAll(f.Path + ".new"); err != nil {
			t.Fatal(err)
		}
		if change { // issue 8, point 5
			k.Changed()
			time.Sleep(time.Second)
		} else {
			time.Sleep(time.Minute)
		}
		if got, _, _ := f.Read(1000); !slices.Equal(got, hostile()[:9]) || k.Fault() != "" || len(lines) != 2 {
			t.Errorf("then: %d mappings, %d lines, fault %q", len(got), len(lines), k.Fault())
		}
	})
}
