//go:build go1.25

package pcp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

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
