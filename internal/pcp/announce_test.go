//go:build go1.25

package pcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
)

// sent is one datagram that the server sent.
type sent struct {
	at   time.Duration // since the start
	to   netip.AddrPort
	src  netip.Addr
	data []byte
}

type arrival struct {
	data   []byte
	packet sock.Packet
	err    error
}

// fakeConn is the socket of a Server in a bubble of testing/synctest.
type fakeConn struct {
	begun time.Time
	in    chan arrival

	mu   sync.Mutex
	sent []sent
	fail error
}

func (c *fakeConn) ReadFrom(ctx context.Context, p []byte) (int, sock.Packet, error) {
	select {
	case <-ctx.Done():
		return 0, sock.Packet{}, ctx.Err()
	case a := <-c.in:
		if len(a.data) > len(p) {
			a.err = fmt.Errorf("read: %w", sock.ErrTruncated)
		}
		return copy(p, a.data), a.packet, a.err
	}
}

func (c *fakeConn) WriteTo(ctx context.Context, p []byte, to netip.AddrPort, src netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	c.sent = append(c.sent, sent{time.Since(c.begun), to, src, slices.Clone(p)})
	return nil
}

// take returns what was sent since the last call.
func (c *fakeConn) take() []sent {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.sent
	c.sent = nil
	return list
}

// running is a Server that runs in a bubble.
type running struct {
	*world
	*fakeConn
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, change func(*world, *Config, *LAN, *portmap.Policy)) *running {
	r := &running{fakeConn: &fakeConn{begun: time.Now(), in: make(chan arrival)}, done: make(chan error, 1)}
	r.world = newWorld(t, func(w *world, cfg *Config, lan *LAN, p *portmap.Policy) {
		cfg.Now = func() time.Duration { return 1000*time.Second + time.Since(r.begun) }
		if change != nil {
			change(w, cfg, lan, p)
		}
	})
	r.conn = r.fakeConn
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	t.Cleanup(stop)
	go func() { r.done <- r.Run(ctx) }()
	synctest.Wait()
	return r
}

func (r *running) end() {
	r.world.t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		r.world.t.Errorf("Run returned %v after its context ended", err)
	}
}

// request lets p arrive, and gives the reply.
func (r *running) request(p []byte, src, dst netip.Addr) sent {
	r.world.t.Helper()
	r.take()
	r.in <- arrival{data: p, packet: *packet(src, dst)}
	list := r.take()
	if len(list) != 1 || list[0].src != dst || list[0].to != netip.AddrPortFrom(src, 4000) { // ANN-5
		r.world.t.Fatalf("replies %+v", list)
	}
	return list[0]
}

// sorted gives the announcements of NAT-PMP and PCP among the datagrams, and the
// others.
func sorted(list []sent) (natpmp, pcp, others []sent) {
	for _, m := range list {
		switch {
		case m.to.Addr().Is4() && !m.to.Addr().IsMulticast() || m.to.Addr().Is6() && m.to.Addr() == ann6:
			others = append(others, m)
		case m.data[0] == 0:
			natpmp = append(natpmp, m)
		default:
			pcp = append(pcp, m)
		}
	}
	return natpmp, pcp, others
}

var series = []time.Duration{0, 250, 750, 1750, 3750, 7750, 15750, 31750, 63750, 127750} // ms; PMP-6

// checkSeries wants n announcements that began at from, of an epoch that is 0 at
// reset.
func checkSeries(t *testing.T, list []sent, n int, from, reset time.Duration, group string, src netip.Addr, want func(epoch uint32) string) {
	t.Helper()
	if len(list) != n {
		t.Errorf("%d announcements, want %d", len(list), n)
		return
	}
	for i, m := range list {
		if at := from + series[i]*time.Millisecond; m.at != at || m.to.String() != group || m.src != src {
			t.Errorf("announcement %d at %v to %v from %v, want at %v to %s from %v", i, m.at, m.to, m.src, at, group, src)
		}
		if want := unhex(want(uint32((m.at - reset) / time.Second))); !bytes.Equal(m.data, want) { // ANN-3
			t.Errorf("announcement %d is % x, want % x", i, m.data, want)
		}
	}
}

func pmpSeries(address string) func(uint32) string {
	return func(epoch uint32) string { return fmt.Sprintf("00 80 0000 %08x %s", epoch, address) }
}

func pcpSeries(epoch uint32) string {
	return fmt.Sprintf("02 80 00 00 00000000 %08x", epoch) + zero12
}

const (
	toAll4 = "224.0.0.1:5350"
	toAll6 = "[ff02::1]:5350"
)

// TestAnnounce: PMP-6, ANN-2, and nothing more after the series.
func TestAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, nil)
		time.Sleep(24 * time.Hour)
		natpmp, pcp, others := sorted(r.take())
		checkSeries(t, natpmp, 10, 0, 0, toAll4, router, pmpSeries("0b000002"))
		checkSeries(t, pcp, 10, 0, 0, toAll4, router, pcpSeries)
		if len(others) > 0 {
			t.Errorf("also sent: %+v", others)
		}
		r.end()
		if list := r.take(); len(list) > 0 {
			t.Errorf("at the end: %+v", list)
		}
	})
}

// TestAnnounceProtocols: each is announced only where it is spoken.
func TestAnnounceProtocols(t *testing.T) {
	for _, tt := range []struct {
		natpmp, pcp, six bool
		address          netip.Addr
		pmps, pcps       int
	}{
		{true, false, false, uplink, 10, 0},
		{false, true, false, uplink, 0, 10},
		{true, true, false, netip.Addr{}, 0, 10}, // PMP-6: there is nothing to say
		{true, true, true, uplink, 0, 10},
		{true, true, true, netip.Addr{}, 0, 10},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, func(w *world, cfg *Config, lan *LAN, p *portmap.Policy) {
				cfg.NATPMP, cfg.PCP, w.state.Uplink.Addr = tt.natpmp, tt.pcp, tt.address
				if tt.six {
					ipv6(w, cfg, lan, p)
				}
			})
			time.Sleep(time.Hour)
			group, src := toAll4, router
			if tt.six {
				group, src = toAll6, routerLL
			}
			natpmp, pcp, _ := sorted(r.take())
			checkSeries(t, natpmp, tt.pmps, 0, 0, group, src, pmpSeries("0b000002"))
			checkSeries(t, pcp, tt.pcps, 0, 0, group, src, pcpSeries)
			r.end()
		})
	}
}

// TestAnnounceAgain: a newer event begins the series anew (PMP-6), and the epoch
// with it (ANN-3).
func TestAnnounceAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, nil)
		time.Sleep(2*time.Second - time.Millisecond)
		natpmp, pcp, _ := sorted(r.take())
		checkSeries(t, natpmp, 4, 0, 0, toAll4, router, pmpSeries("0b000002"))
		checkSeries(t, pcp, 4, 0, 0, toAll4, router, pcpSeries)
		time.Sleep(time.Millisecond)
		r.setUplink(uplink2)
		r.cfg.Epoch.Reset()
		r.Announce()
		time.Sleep(time.Hour)
		natpmp, pcp, _ = sorted(r.take())
		checkSeries(t, natpmp, 10, 2*time.Second, 2*time.Second, toAll4, router, pmpSeries("0b000003"))
		checkSeries(t, pcp, 10, 2*time.Second, 2*time.Second, toAll4, router, pcpSeries)
		r.setUplink(netip.Addr{}) // and after the end of a series
		r.Announce()
		time.Sleep(time.Hour)
		natpmp, pcp, _ = sorted(r.take())
		checkSeries(t, natpmp, 0, 0, 0, toAll4, router, nil)
		checkSeries(t, pcp, 10, 3602*time.Second, 2*time.Second, toAll4, router, pcpSeries)
		r.end()
	})
}

// TestEpoch: seconds of the boot clock since the reset, at any fraction (ANN-3, PMP-5).
func TestEpoch(t *testing.T) {
	now := 1234*time.Second + 900*time.Millisecond
	e := NewEpoch(func() time.Duration { return now })
	var last uint32
	for range 500 { // a client accepts a step of 1 s, and a drift of 2 s
		now += 300 * time.Millisecond
		if got := e.Seconds(); got < last || got > last+1 {
			t.Fatalf("epoch %d after %d", got, last)
		} else {
			last = got
		}
	}
	if last < 149 || last > 151 {
		t.Errorf("epoch %d after 150 s", last)
	}
	if e.Reset(); e.Seconds() != 0 {
		t.Errorf("epoch %d after Reset", e.Seconds())
	}
}

// TestUpdates: ANN-4. Three clients have mappings when the address changes: one
// does not notice, one asks again after the first update, and one wanted the old
// address or none.
func TestUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, nil)
		time.Sleep(time.Hour)
		carol := bob.Next()
		idle := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 6000, options: [][]byte{option(128, 'x')}}
		busy := wish{lifetime: 600, nonce: 2, protocol: 17, internal: 5001}
		strict := wish{lifetime: 600, nonce: 3, protocol: 6, internal: 5002, external: 6002, address: uplink, options: [][]byte{option(2)}}
		r.request(idle.of(ann), ann, router)
		r.request(busy.of(bob), bob, router)
		r.request(strict.of(carol), carol, router)
		gone := wish{lifetime: 600, nonce: 4, protocol: 6, internal: 5003}
		r.request(gone.of(ann), ann, router)
		gone.lifetime = 0
		r.request(gone.of(ann), ann, router)
		r.request(pmp(1, 5004, 5004, 600), ann, router) // NAT-PMP has no updates

		time.Sleep(100 * time.Second)
		r.setUplink(uplink2)
		r.cfg.Epoch.Reset()
		r.Announce()
		changed := time.Hour + 100*time.Second
		_, _, first := sorted(r.take())
		time.Sleep(100 * time.Millisecond)
		busyAgain := read(r.request(busy.of(bob), bob, router).data)
		time.Sleep(time.Hour)
		_, _, rest := sorted(r.take())
		if len(first) != 3 || len(rest) != 4 {
			t.Fatalf("%d and %d updates, want 3 and 4", len(first), len(rest))
		}
		for i, m := range append(first, rest...) {
			if want := changed + series[max(0, (i-1)/2)]*time.Millisecond; m.at != want || m.src != router || m.to.Port() != 4000 {
				t.Errorf("update %d at %v from %v to %v, want at %v", i, m.at, m.src, m.to, want)
			}
			got := read(m.data)
			switch m.to.Addr() {
			case ann:
				if got.result != 0 || got.address != uplink2 || got.external != 6000 || got.lifetime != 500 || got.epoch != 0 ||
					!bytes.Equal(got.options, option(128, 'x')) || !bytes.Equal(m.data[24:42], idle.of(ann)[24:42]) {
					t.Errorf("Ann hears % x", m.data)
				}
			case bob:
				if i > 2 || got.address != uplink2 {
					t.Errorf("Bob hears % x at %v", m.data, m.at)
				}
			case carol:
				if result(got.result) != cannotProvide || got.lifetime != 30 || got.address != uplink || got.external != 6002 {
					t.Errorf("Carol hears % x", m.data)
				}
			}
		}
		if busyAgain.address != uplink2 || busyAgain.result != 0 {
			t.Errorf("Bob gets %+v", busyAgain)
		}
		for _, m := range r.mappings() {
			if strings.Contains(m, carol.String()) {
				t.Errorf("Carol still has %s", m)
			}
		}
		r.end()
	})
}

// TestUpdatesBack: the address changes, and back before the client asks again; it
// has heard of the first change. The mapping ends, and there is no more to hear.
func TestUpdatesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, nil)
		time.Sleep(time.Hour)
		m := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000}
		r.request(m.of(ann), ann, router)
		heard := func(name string, uplink netip.Addr, want ...netip.Addr) {
			t.Helper()
			r.setUplink(uplink)
			r.Announce()
			time.Sleep(10 * time.Second)
			var got []netip.Addr
			_, _, others := sorted(r.take())
			for _, m := range others {
				got = append(got, read(m.data).address)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: heard of %v, want %v", name, got, want)
			}
		}
		heard("the same address", uplink)
		heard("another", uplink2, uplink2, uplink2, uplink2)
		heard("none", netip.Addr{})
		heard("the same again", uplink2)
		heard("the first", uplink, uplink, uplink, uplink)
		r.table.Flush()
		heard("another, but the mapping is gone", uplink2)
		r.upnp(ann, portmap.TCP, 5000, 5000, 600*time.Second)
		heard("the first, and UPnP has the port", uplink)
		r.end()
	})
}

// TestUpdatesBound: the clients that are remembered are few, and those whose leases
// have ended are forgotten first.
func TestUpdatesBound(t *testing.T) {
	w := newWorld(t, nil)
	a := netip.MustParseAddr("10.0.0.0")
	remember := func(n int, until time.Duration) {
		for range n {
			a = a.Next()
			w.remember(&request{packet: wish{protocol: 6, internal: 5000}.of(a)}, &client{until: until})
		}
	}
	remember(1000, w.clock+time.Second)
	remember(1000, w.clock+time.Hour)
	if len(w.told) != maxTold {
		t.Errorf("%d are remembered", len(w.told))
	}
	w.clock += time.Second
	remember(10, w.clock+time.Hour)
	if len(w.told) != 24+10 {
		t.Errorf("%d are remembered, want 34", len(w.told))
	}
	for lifetime, want := range map[uint32]int{600: 35, 0: 34} {
		m := wish{nonce: 1, protocol: 6, internal: 5000}
		w.pcpAsk(ann, m.of(ann)) // in any order of the two
		m.lifetime = lifetime
		if w.pcpAsk(ann, m.of(ann)); len(w.told) != want {
			t.Errorf("%d are remembered after a lifetime of %d s, want %d", len(w.told), lifetime, want)
		}
	}
}

// TestRun: the context ends it, a broken socket does with its error; a datagram
// that is too long is answered, and what cannot be sent is said once.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, nil)
		time.Sleep(time.Hour)
		long := make([]byte, 1500)
		copy(long, header(0, 0, ann))
		if m := r.request(long, ann, router); len(m.data) != 1100 || result(m.data[3]) != malformedRequest {
			t.Errorf("reply of %d bytes: % x", len(m.data), m.data[:24])
		}
		r.fakeConn.mu.Lock()
		r.fail = errors.New("network is unreachable")
		r.fakeConn.mu.Unlock()
		lines := len(r.log)
		for range 20 {
			r.in <- arrival{data: []byte{0, 0}, packet: *packet(ann, router)}
		}
		r.Announce()
		time.Sleep(time.Second)
		synctest.Wait()
		if got := r.log[lines:]; len(got) != 1 || got[0] != "pcp: network is unreachable" {
			t.Errorf("log: %q", got)
		}
		r.in <- arrival{err: fmt.Errorf("read: %w", os.ErrClosed)}
		if err := <-r.done; !errors.Is(err, os.ErrClosed) {
			t.Errorf("Run returned %v", err)
		}
	})
}

// TestRunIPv6: a client asks the link-local address of its router, as its default
// route says, from a global one (ANN-5).
func TestRunIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, ipv6)
		time.Sleep(time.Hour)
		got := read(r.request(wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000}.of(ann6), ann6, routerLL).data)
		if got.result != 0 || got.address != ann6 {
			t.Errorf("%+v", got)
		}
		r.setUplink(uplink2)
		r.Announce()
		time.Sleep(time.Hour)
		if _, _, others := sorted(r.take()); len(others) > 0 { // a pinhole has no external address
			t.Errorf("updates %+v", others)
		}
		r.end()
	})
}
