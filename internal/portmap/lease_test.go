//go:build go1.25

package portmap_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// live runs body with a Table whose Run is running, on a clock that jumps to
// the next thing that happens.
func live(t *testing.T, change func(*portmap.Config), body func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		w := newWorld(t, func(c *portmap.Config) {
			c.Now = func() time.Duration { return 1000*time.Second + time.Since(start) }
			if change != nil {
				change(c)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { w.Run(ctx); close(done) }()
		body(t, w)
		cancel()
		synctest.Wait()
		select {
		case <-done:
		default:
			t.Error("Run goes on after its context ended")
		}
	})
}

// after sleeps and waits until Run has done what is due.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) externalPorts() []uint16 {
	var list []uint16
	for _, m := range w.List() {
		list = append(list, m.ExternalPort)
	}
	return list
}

// TestExpiry: leases end when they are due and in that order, disabled ones
// too (WIP-5, SPEC 5.5 "Relationships"), those of one moment with one change of
// the kernel.
func TestExpiry(t *testing.T) {
	live(t, nil, func(t *testing.T, w *world) {
		for i, seconds := range []int{30, 10, 20, 10} {
			req := ask(ann, 5000+uint16(i))
			req.Lease, req.Enabled = time.Duration(seconds)*time.Second, i != 2
			w.mustMap(req)
		}
		calls := w.fw.Calls()
		for _, tt := range []struct {
			wait time.Duration
			want []uint16
		}{
			{10*time.Second - 1, []uint16{5000, 5001, 5002, 5003}},
			{1, []uint16{5000, 5002}},
			{10*time.Second - 1, []uint16{5000, 5002}},
			{1, []uint16{5000}},
			{10 * time.Second, nil},
		} {
			after(tt.wait)
			if got := w.externalPorts(); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			w.checkKernel()
		}
		if n := w.fw.Calls() - calls; n != 3 || w.fw.Repairs() != 0 {
			t.Errorf("%d calls of the kernel for 4 leases, two of them at once, %d repairs", n, w.fw.Repairs())
		}
		if n := count(w.log, "ExpireMapping: Proto:TCP Port:500"); n != 4 {
			t.Errorf("log %q", w.log)
		}
		w.mustMap(ask(bob, 5000)) // the port is free again
	})
}

// TestRenewal: a renewal moves the end of the lease, forward or back, and a
// deleted mapping's end does nothing to its successor.
func TestRenewal(t *testing.T) {
	live(t, nil, func(t *testing.T, w *world) {
		req := ask(ann, 5000)
		req.Lease = 10 * time.Second
		for range 5 {
			w.mustMap(req)
			after(9 * time.Second)
		}
		if w.Len() != 1 {
			t.Error("ended in spite of renewals")
		}
		after(time.Second)
		if w.Len() != 0 {
			t.Error("goes on after its lease")
		}

		req.Lease = time.Hour
		w.mustMap(req)
		req.Lease = time.Second
		w.mustMap(req) // shorter
		after(time.Second)
		if w.Len() != 0 {
			t.Error("a shorter lease is not kept")
		}

		req.Lease = 10 * time.Second
		w.mustMap(req)
		if err := w.Unmap(req.Key, ann); err != nil {
			t.Error(err)
		}
		after(5 * time.Second)
		w.mustMap(ask(bob, 5000))
		after(10 * time.Second)
		if w.Len() != 1 {
			t.Error("the end of a deleted mapping's lease took its successor")
		}
		w.checkKernel()
	})
}

// TestManyLeases: the heap of leases stays right through deletions.
func TestManyLeases(t *testing.T) {
	live(t, nil, func(t *testing.T, w *world) {
		for i := range 100 {
			req := ask(ann, 5000+uint16(i))
			req.Lease = time.Duration(1+(i*37)%100) * time.Second // each second one
			w.mustMap(req)
		}
		for i := 0; i < 100; i += 3 {
			if err := w.Unmap(key(portmap.TCP, 5000+uint16(i), netip.Addr{}), ann); err != nil {
				t.Fatal(err)
			}
		}
		for second := 1; second <= 100; second++ {
			after(time.Second)
			for _, m := range w.List() {
				if i := int(m.ExternalPort - 5000); 1+(i*37)%100 <= second {
					t.Fatalf("second %d: port %d is still there", second, m.ExternalPort)
				}
			}
			want := 0
			for i := range 100 {
				if i%3 != 0 && 1+(i*37)%100 > second {
					want++
				}
			}
			if w.Len() != want {
				t.Fatalf("second %d: %d mappings, want %d", second, w.Len(), want)
			}
		}
	})
}

// TestIdle: without leases and failures, Run waits for ever: in a bubble a
// ticker would make time pass.
func TestIdle(t *testing.T) {
	live(t, nil, func(t *testing.T, w *world) {
		calls := w.fw.Calls()
		after(1000 * time.Hour)
		w.mustMap(ask(ann, 5000))
		after(time.Hour)
		if w.Len() != 0 || w.fw.Calls() != calls+2 {
			t.Errorf("%d mappings, %d calls", w.Len(), w.fw.Calls()-calls)
		}
	})
}

// TestDailyExpiry: `duration = @HH:MM` ends a lease at that time of day. The
// clock of synctest begins at midnight UTC.
func TestDailyExpiry(t *testing.T) {
	live(t, func(c *portmap.Config) {
		now := time.Now()
		midnight := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
		c.Policy.DefaultLease = portmap.DefaultLease{Length: now.Sub(midnight) + time.Hour, Daily: true}
		if c.Policy.DefaultLease.Length >= 24*time.Hour {
			c.Policy.DefaultLease.Length -= 24 * time.Hour
		}
	}, func(t *testing.T, w *world) {
		after(10 * time.Minute)
		req := ask(ann, 5000)
		req.Lease = 0
		if m := w.mustMap(req); w.Remaining(m) != 50*time.Minute {
			t.Errorf("remaining %v, want 50 minutes", w.Remaining(m))
		}
		after(50 * time.Minute)
		if w.Len() != 0 {
			t.Error("goes on after the time of day")
		}
	})
}

// TestExpiryRefused: a kernel that refuses does not keep a lease alive; it is
// asked again every half second, with one line for the whole spell (issue 8, point 5).
func TestExpiryRefused(t *testing.T) {
	live(t, nil, func(t *testing.T, w *world) {
		for port := uint16(5000); port < 5010; port++ {
			w.mustMap(ask(ann, port))
		}
		w.fw.Break(true)
		calls := w.fw.Calls()
		after(time.Hour)
		if w.Len() != 0 {
			t.Errorf("%d mappings outlive their leases", w.Len())
		}
		if n := w.fw.Calls() - calls; n != 1 {
			t.Errorf("%d calls for 10 leases, want 1 refused, the rest with the repair", n)
		}
		const gap = time.Second / 2 // and half a second more for the kernel
		for range 12 {
			calls = w.fw.Calls()
			after(gap - 1)
			if w.fw.Calls() != calls {
				t.Errorf("asked again before %v", gap)
			}
			after(1)
			if n := w.fw.Calls() - calls; n != 1 {
				t.Errorf("after %v: %d calls, want 1", gap, n)
			}
		}
		if n := count(w.log, "the kernel is not equal to the table"); n != 1 {
			t.Errorf("%d lines for 13 refusals", n)
		}
		w.fw.Break(false)
		after(gap)
		w.checkKernel()
		calls = w.fw.Calls()
		after(time.Hour)
		if w.fw.Calls() != calls {
			t.Error("repairs go on after the repair")
		}

		// The next failure is repaired as soon.
		w.mustMap(ask(ann, 5000))
		w.fw.Refuse(1)
		after(time.Hour)
		if w.Len() != 0 || len(w.fw.Mappings()) != 1 {
			t.Errorf("%v, kernel %v", w.List(), w.fw.Mappings())
		}
		after(time.Second)
		w.checkKernel()
	})
}

// TestPortOfRefusedExpiry: while the kernel still has an ended mapping, its
// port is given to nobody without taking the old one out.
func TestPortOfRefusedExpiry(t *testing.T) {
	live(t, nil, func(t *testing.T, w *world) {
		w.mustMap(ask(ann, 5000))
		w.fw.Refuse(1)
		after(time.Hour)
		if w.Len() != 0 || len(w.fw.Mappings()) != 1 {
			t.Fatalf("%v, kernel %v", w.List(), w.fw.Mappings())
		}
		w.mustMap(ask(bob, 5000))
	})
}

// TestRefusedNetwork: a Sync that fails outside of Run is repaired by Run.
func TestRefusedNetwork(t *testing.T) {
	live(t, nil, func(t *testing.T, w *world) {
		w.mustMap(ask(ann, 5000))
		for what, change := range map[string]func(){
			"SetNetwork": func() { w.SetNetwork(portmap.Network{External: peer1, LANs: home.LANs}) },
			"Sync":       func() { w.fw.Lose(); w.Sync() },
			"Flush":      func() { w.Flush() },
		} {
			w.fw.Refuse(1)
			calls := w.fw.Calls()
			change()
			synctest.Wait()
			if n := w.fw.Calls() - calls; n != 1 {
				t.Errorf("%s: %d calls at once", what, n)
			}
			after(time.Second)
			if n := w.fw.Calls() - calls; n != 2 {
				t.Errorf("%s: %d calls after the first retry, want 2", what, n)
			}
			w.checkKernel()
		}
	})
}

// TestClientsDoNotSetThePace: requests while the kernel is broken neither
// delay its repair nor fill the log.
func TestClientsDoNotSetThePace(t *testing.T) {
	live(t, nil, func(t *testing.T, w *world) {
		w.mustMap(ask(ann, 5000))
		w.fw.Break(true)
		for i := range 100 {
			w.refusedByKernel(ask(bob, 6000))
			if i == 0 {
				w.fw.Lose()
			}
		}
		w.log = slices.DeleteFunc(w.log, func(line string) bool { return strings.HasPrefix(line, "refused 192.168.1.11: ") }) // his share
		if len(w.log) != 2 {                                                                                                  // granted, the kernel
			t.Errorf("%d lines: %q", len(w.log), w.log)
		}
		w.fw.Break(false)
		after(time.Second)
		w.checkKernel()
	})
}

// TestConcurrent: all methods at once, for the race detector and the strict
// kernel, which stands no two calls at a time.
func TestConcurrent(t *testing.T) {
	live(t, func(c *portmap.Config) {
		c.Logf = func(string, ...any) {}
		c.SameHost = func(a, b netip.Addr) bool { return a.AsSlice()[15] == b.AsSlice()[3] }
	}, func(t *testing.T, w *world) {
		done := make(chan struct{})
		const workers = 8
		for i := range workers {
			go func() {
				defer func() { done <- struct{}{} }()
				client := netip.AddrFrom4([4]byte{192, 168, 1, byte(10 + i)})
				for n := range 200 {
					req := ask(client, uint16(5000+(n*7+i)%50))
					req.Lease = time.Duration(1+n%5) * time.Second
					if m, err := w.Map(req); err == nil {
						w.Lookup(m.Key)
						w.Remaining(m)
					}
					host := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 5: 1, 15: byte(10 + i)})
					hole := pin(host, uint16(8080+n%3))
					hole.From, hole.Lease = client, req.Lease
					if m, err := w.Map(hole); err == nil {
						w.UpdatePinhole(m.ID, 2*time.Second, client)
						w.Pinhole(m.ID, host)
						w.DeletePinhole(m.ID+uint16(n%2), client)
					} else {
						t.Error(err)
					}
					w.MapAny(req)
					w.UpdateID()
					if n%3 == 0 {
						w.Unmap(req.Key, client)
					}
					switch n % 40 {
					case 10:
						w.SetPolicy(policy())
					case 20:
						w.SetNetwork(portmap.Network{External: peer1, LANs: home.LANs})
						w.SetNetwork(home)
					case 25:
						w.SetNetwork(portmap.Network{External: peer1, LANs: home.LANs[:3]})
					case 30:
						w.Sync()
					case 39:
						time.Sleep(time.Second)
					}
					if n%7 == 0 {
						w.UnmapRange(portmap.TCP, 5000, 5020, client)
					}
					w.AtOwn(n%5, client)
					w.At(n)
					w.Len()
					w.List()
				}
			}()
		}
		for range workers {
			<-done
		}
		synctest.Wait() // Run may be about to end a lease
		w.checkKernel()
		after(time.Minute)
		if w.Len() != 0 {
			t.Errorf("%d mappings left", w.Len())
		}
		w.checkKernel()
		if r := w.fw.Repairs(); r != 0 {
			t.Errorf("%d repairs: %s", r, fmt.Sprint(w.fw.Mappings()))
		}
	})
}
