//go:build go1.25

package pcp

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestUpdates: ANN-4. Three clients have mappings when the address changes: one
// does not notice, one asks again after the first update, and one wanted the old
// address or none.
func TestUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, nil)
		time.Sleep(time.Hour)
		third := bob.Next()
		idle := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 6000, options: [][]byte{option(128, 'x')}}
		busy := wish{lifetime: 600, nonce: 2, protocol: 17, internal: 5001}
		strict := wish{lifetime: 600, nonce: 3, protocol: 6, internal: 5002, external: 6002, address: uplink, options: [][]byte{option(2)}}
		r.request(idle.of(ann), ann, router)
		r.request(busy.of(bob), bob, router)
		r.request(strict.of(third), third, router)
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
			case third:
				if result(got.result) != cannotProvide || got.lifetime != 30 || got.address != uplink || got.external != 6002 {
					t.Errorf("Carol hears % x", m.data)
				}
			}
		}
		if busyAgain.address != uplink2 || busyAgain.result != 0 {
			t.Errorf("Bob gets %+v", busyAgain)
		}
		for _, m := range r.mappings() {
			if strings.Contains(m, third.String()) {
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

// Issue 8, 4: a host with very many mappings keeps no other out.
func TestUpdatesShare(t *testing.T) {
	third := netip.MustParseAddr("192.168.1.12")
	w := newWorld(t, nil)
	remember := func(a netip.Addr, n int) {
		for i := range n {
			w.remember(&request{packet: wish{protocol: 6, internal: uint16(1 + i)}.of(a)}, &client{until: w.clock + time.Hour})
		}
	}
	of := func(a netip.Addr) (n int) {
		for k := range w.told {
			if b := a.As16(); [16]byte(k[:16]) == b {
				n++
			}
		}
		return n
	}
	remember(ann, 3)
	remember(bob, maxTold) // 3 more than there is room for
	remember(third, 3)
	if of(ann) != 3 || of(third) != 3 || of(bob) < oneTold || len(w.told) > maxTold {
		t.Errorf("remembered are %d, %d and %d mappings, want 3, at least %d and 3", of(ann), of(bob), of(third), oneTold)
	}
}
