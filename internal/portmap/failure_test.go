package portmap_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/portmap/portmaptest"
)

// steps are changes of every kind, each a call for the kernel.
func steps(w *world) []func() error {
	mapping := func(client netip.Addr, port, internal uint16) func() error {
		return func() error {
			req := ask(client, port)
			req.InternalPort = internal
			_, err := w.Map(req)
			return err
		}
	}
	return []func() error{
		mapping(ann, 5000, 5000),
		mapping(bob, 5001, 5001),
		mapping(ann, 5000, 6000), // overwrites
		func() error { return w.Unmap(key(portmap.TCP, 5001, netip.Addr{}), bob) },
		mapping(ann, 5001, 5001),
		func() error { return w.Unmap(key(portmap.TCP, 5000, netip.Addr{}), ann) },
	}
}

// TestOneRefusal: a kernel that refuses once, whichever call it is, is put
// right and asked again: nobody notices.
func TestOneRefusal(t *testing.T) {
	for n := 1; n <= 6; n++ {
		w := newWorld(t, nil)
		w.fw.Refuse(n)
		for i, step := range steps(w) {
			if err := step(); err != nil {
				t.Errorf("refusal %d: step %d: %v", n, i+1, err)
			}
			w.checkKernel()
		}
		if w.Len() != 1 || w.fw.Repairs() != 0 {
			t.Errorf("refusal %d: %v, %d repairs", n, w.List(), w.fw.Repairs())
		}
	}
}

// TestBrokenKernel: while the kernel refuses everything, each change is
// answered ErrFirewall (501) with the cause, and nothing is recorded; when it
// works again, so does the table.
func TestBrokenKernel(t *testing.T) {
	for n := range 6 {
		w := newWorld(t, nil)
		for i, step := range steps(w) {
			if i == n {
				before := w.List()
				w.fw.Break(true)
				for range 20 {
					if err := step(); !errors.Is(err, portmap.ErrFirewall) || !errors.Is(err, portmaptest.ErrRefused) {
						t.Errorf("step %d: %v", i+1, err)
					}
				}
				if !slices.Equal(w.List(), before) {
					t.Errorf("step %d: refused, but left %v of %v", i+1, w.List(), before)
				}
				w.checkKernel()
				w.fw.Break(false)
			}
			if err := step(); err != nil {
				t.Errorf("broken at %d: step %d: %v", n+1, i+1, err)
			}
			w.checkKernel()
		}
		if n := count(w.log, "the kernel is not equal to the table"); n != 1 {
			t.Errorf("%d lines about the kernel, want 1: %q", n, w.log)
		}
		if n := count(w.log, "the kernel is equal to the table again"); n != 1 {
			t.Errorf("%d lines about the repair, want 1: %q", n, w.log)
		}
	}
}

// TestQuotaAfterRefusal: what the kernel refused does not count.
func TestQuotaAfterRefusal(t *testing.T) {
	w := newWorld(t, func(c *portmap.Config) { c.Policy.MaxPerClient = 1 })
	w.fw.Break(true)
	for port := uint16(5000); port < 5005; port++ {
		w.refusedByKernel(ask(ann, port))
	}
	w.fw.Break(false)
	w.mustMap(ask(ann, 5000))
	w.fw.Break(true)
	if err := w.Unmap(ask(ann, 5000).Key, ann); !errors.Is(err, portmap.ErrFirewall) {
		t.Error(err)
	}
	w.fw.Break(false)
	w.refused(ask(ann, 5001), portmap.ErrFull) // the first is still there
}

func (w *world) refusedByKernel(req portmap.Request) {
	w.t.Helper()
	if _, err := w.Map(req); !errors.Is(err, portmap.ErrFirewall) {
		w.t.Errorf("%v: %v", req.Mapping, err)
	}
}

// TestStaleNetwork: after a Sync that the kernel refused, the next change
// brings the network too: what a Change says builds on it.
func TestStaleNetwork(t *testing.T) {
	w := newWorld(t, nil)
	w.mustMap(ask(ann, 5000))
	moved := portmap.Network{External: netip.MustParseAddr("11.0.0.77"), LANs: home.LANs}
	w.fw.Refuse(1)
	w.SetNetwork(moved)
	if w.fw.External() != home.External {
		t.Fatal("the refusal did nothing")
	}
	if err := w.Unmap(ask(ann, 5000).Key, ann); err != nil {
		t.Error(err)
	}
	if w.fw.External() != moved.External {
		t.Errorf("the kernel has %v, want %v", w.fw.External(), moved.External)
	}
	w.checkKernel()
}

// TestFlushRefused: the table is empty at once, and the kernel with the next
// change.
func TestFlushRefused(t *testing.T) {
	w := newWorld(t, nil)
	w.mustMap(ask(ann, 5000))
	w.fw.Refuse(1)
	w.Flush()
	if w.Len() != 0 || len(w.fw.Mappings()) != 1 {
		t.Fatalf("%v, kernel %v", w.List(), w.fw.Mappings())
	}
	w.mustMap(ask(bob, 5000)) // the kernel still had it for ann
	w.mustMap(ask(ann, 5001))
}

func count(lines []string, prefix string) int {
	n := 0
	for _, l := range lines {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

// slowKernel is one in which a change takes its time.
type slowKernel struct {
	noKernel
	busy, end chan struct{}
}

func (k slowKernel) Change([]portmap.Mapping, *portmap.Mapping) error {
	k.busy <- struct{}{}
	<-k.end
	return nil
}

// TestListDoesNotWait: a slow kernel does not keep the lease file from being
// written (issue 4, point 1), nor one host's many wishes others from reading (issue 8, 4).
func TestListDoesNotWait(t *testing.T) {
	k := slowKernel{busy: make(chan struct{}), end: make(chan struct{})}
	w := newWorld(t, func(c *portmap.Config) { c.Firewall = k })
	done := make(chan error)
	go func() {
		_, err := w.Map(ask(ann, 5000))
		done <- err
	}()
	<-k.busy
	listed := make(chan int)
	go func() {
		_, err := w.At(0)
		_, err2 := w.Lookup(portmap.Key{Protocol: portmap.TCP, ExternalPort: 5000})
		if n := w.Len(); n != 0 || err == nil || err2 == nil {
			t.Errorf("%d mappings, %v, %v", n, err, err2)
		}
		listed <- len(w.List())
	}()
	select {
	case n := <-listed:
		if n != 0 {
			t.Errorf("%d mappings before the kernel has any", n)
		}
	case <-time.After(5 * time.Second):
		t.Error("who reads waits for the kernel")
	}
	close(k.end)
	if err := <-done; err != nil || len(w.List()) != 1 {
		t.Errorf("%v, %v", err, w.List())
	}
}

// TestNothingBeforeTheNetwork: what an earlier run left in the kernel stays until
// it is known where the router is, and then it is set right, even by nothing.
func TestNothingBeforeTheNetwork(t *testing.T) {
	w := &world{t: t, fw: portmaptest.New(t)}
	w.Table = portmap.New(portmap.Config{Firewall: w.fw, Policy: policy(), Now: func() time.Duration { return 0 }, Logf: t.Logf})
	w.Sync()
	w.Flush()
	if n := w.fw.Calls(); n != 0 {
		t.Errorf("%d calls before the network is known", n)
	}
	if err := w.SetNetwork(portmap.Network{}); err != nil || w.fw.Syncs() != 1 {
		t.Errorf("%d syncs with the first network, %v", w.fw.Syncs(), err)
	}
	w.SetNetwork(portmap.Network{})
	if n := w.fw.Syncs(); n != 1 {
		t.Errorf("%d syncs with the same one", n)
	}
}

// TestLostKernel: after somebody flushed our rules, the next request and Sync
// put them back.
func TestLostKernel(t *testing.T) {
	w := newWorld(t, nil)
	w.mustMap(ask(ann, 5000))
	w.mustMap(ask(ann, 5001))
	w.fw.Lose()
	if err := w.Unmap(key(portmap.TCP, 5000, netip.Addr{}), ann); err != nil {
		t.Error(err)
	}
	w.checkKernel()
	w.fw.Lose()
	w.mustMap(ask(ann, 5001)) // a renewal
	w.fw.Lose()
	w.Sync()
	w.checkKernel()
}
