//go:build go1.25

package portmap_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestUnmapInternal: SPEC PMP-13, MAP-3, MAP-10, INT-20.
func TestUnmapInternal(t *testing.T) {
	for name, tt := range map[string]struct {
		before   []portmap.Request
		by       portmap.Origin
		nonce    byte
		sameHost bool
		client   netip.Addr // zero: ann
		internal uint16     // 0: 5000
		gone     int        // the mapping before that has ended, from 1; 0: none
		err      error
	}{
		"PMP-13 its own":                 {before: []portmap.Request{pmpAsk(ann, 5000, 6000)}, by: portmap.NATPMP, gone: 1},
		"PMP-13 none":                    {by: portmap.NATPMP, err: portmap.ErrNoEntry},
		"PMP-13 by UPnP":                 {before: []portmap.Request{upnpTo(ann, 6000, 5000)}, by: portmap.NATPMP, err: portmap.ErrNotAuthorized},
		"PMP-13 by PCP":                  {before: []portmap.Request{pcpAsk(ann, 5000, 6000, 0)}, by: portmap.NATPMP, err: portmap.ErrNotAuthorized},
		"PMP-13 beside UPnP's":           {before: []portmap.Request{pmpAsk(ann, 5000, 6000), upnpTo(ann, 6001, 5000)}, by: portmap.NATPMP, gone: 1},
		"PMP-13 of another host":         {before: []portmap.Request{pmpAsk(bob, 5000, 6000)}, by: portmap.NATPMP, err: portmap.ErrNoEntry},
		"PMP-13 of the other protocol":   {before: []portmap.Request{with(pmpAsk(ann, 5000, 6000), udp)}, by: portmap.NATPMP, err: portmap.ErrNoEntry},
		"PMP-13 by its external port":    {before: []portmap.Request{pmpAsk(ann, 5000, 6000)}, by: portmap.NATPMP, internal: 6000, err: portmap.ErrNoEntry},
		"MAP-10 the nonce":               {before: []portmap.Request{pcpAsk(ann, 5000, 6000, 'a')}, by: portmap.PCP, nonce: 'a', gone: 1},
		"MAP-10 none":                    {by: portmap.PCP, nonce: 'a', err: portmap.ErrNoEntry},
		"MAP-3 another nonce":            {before: []portmap.Request{pcpAsk(ann, 5000, 6000, 'a')}, by: portmap.PCP, nonce: 'b', err: portmap.ErrNonce},
		"MAP-10 by UPnP":                 {before: []portmap.Request{upnpTo(ann, 6000, 5000)}, by: portmap.PCP, nonce: 'a', err: portmap.ErrNotAuthorized},
		"MAP-10 NAT-PMP's":               {before: []portmap.Request{pmpAsk(ann, 5000, 6000)}, by: portmap.PCP, nonce: 'a', gone: 1},
		"MAP-10 pinhole":                 {before: []portmap.Request{pcpAsk(ann6, 5000, 0, 'a')}, by: portmap.PCP, nonce: 'a', client: ann6, gone: 1},
		"MAP-10 pinhole beside UPnP's":   {before: []portmap.Request{with(pin(ann6, 5000), func(r *portmap.Request) { r.RemoteHost = peer6 }), pcpAsk(ann6, 5000, 0, 'a')}, by: portmap.PCP, nonce: 'a', client: ann6, gone: 2},
		"MAP-10 pinhole by UPnP":         {before: []portmap.Request{pin(ann6, 5000)}, by: portmap.PCP, nonce: 'a', client: ann6, err: portmap.ErrNotAuthorized},
		"INT-20 any nonce of the host":   {before: []portmap.Request{pcpAsk(ann, 5000, 6000, 'a')}, by: portmap.PCP, nonce: 'b', sameHost: true, gone: 1},
		"INT-20 not what is UPnP's":      {before: []portmap.Request{upnpTo(ann, 6000, 5000)}, by: portmap.PCP, nonce: 'b', sameHost: true, err: portmap.ErrNotAuthorized},
		"INT-20 not for NAT-PMP":         {before: []portmap.Request{pcpAsk(ann, 5000, 6000, 'a')}, by: portmap.NATPMP, sameHost: true, err: portmap.ErrNotAuthorized},
		"MAP-16 a set, the first port":   {before: []portmap.Request{with(pcpAsk(ann, 5000, 6000, 'a'), setOf8)}, by: portmap.PCP, nonce: 'a', gone: 1},
		"MAP-16 a set, by its last port": {before: []portmap.Request{with(pcpAsk(ann, 5000, 6000, 'a'), setOf8)}, by: portmap.PCP, nonce: 'a', internal: 5007, gone: 1},
		"MAP-16 behind a set":            {before: []portmap.Request{with(pcpAsk(ann, 5000, 6000, 'a'), setOf8)}, by: portmap.PCP, nonce: 'a', internal: 5008, err: portmap.ErrNoEntry},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *portmap.Config) { c.Policy.SameHostNonce = tt.sameHost })
			var before []portmap.Mapping
			for _, req := range tt.before {
				before = append(before, w.mustPut(req))
			}
			if !tt.client.IsValid() {
				tt.client = ann
			}
			if tt.internal == 0 {
				tt.internal = 5000
			}
			there, errThere := w.LookupInternal(&portmap.Mapping{Key: portmap.Key{Protocol: portmap.TCP}, Client: tt.client, InternalPort: tt.internal, Origin: tt.by})
			if none := errors.Is(errThere, portmap.ErrNoEntry); none != errors.Is(tt.err, portmap.ErrNoEntry) || !none && !slices.Contains(before, there) {
				t.Errorf("LookupInternal: %+v, %v", there, errThere)
			}
			if tt.gone > 0 { // first with a kernel that does not do it
				w.fw.Break(true)
				if err := w.UnmapInternal(portmap.TCP, tt.client, tt.internal, tt.by, nonceOf(tt.nonce)); !errors.Is(err, portmap.ErrFirewall) {
					t.Errorf("with a broken kernel: %v", err)
				}
				w.fw.Break(false)
				w.Sync()
				w.checkKernel()
				before = slices.Delete(before, tt.gone-1, tt.gone)
			}
			if err := w.UnmapInternal(portmap.TCP, tt.client, tt.internal, tt.by, nonceOf(tt.nonce)); !errors.Is(err, tt.err) {
				t.Errorf("%v, want %v", err, tt.err)
			}
			w.checkKernel()
			if got := w.List(); !slices.Equal(got, before) {
				t.Errorf("left %v, want %v", got, before)
			}
		})
	}
}

// TestUnmapAll: SPEC PMP-14. Only what NAT-PMP made ends, of one protocol and host.
func TestUnmapAll(t *testing.T) {
	w := newWorld(t, nil)
	one, two := w.mustPut(pmpAsk(ann, 5000, 6000)), w.mustPut(pmpAsk(ann, 5001, 0))
	rest := []portmap.Mapping{
		w.mustPut(with(pmpAsk(ann, 5000, 0), udp)), w.mustPut(pmpAsk(bob, 5000, 7000)),
		w.mustPut(upnpTo(ann, 8000, 5002)), w.mustPut(pcpAsk(ann, 5003, 8001, 'a')),
	}
	w.fw.Break(true)
	if _, err := w.UnmapAll(portmap.TCP, ann); !errors.Is(err, portmap.ErrFirewall) || len(w.List()) != 6 {
		t.Errorf("with a broken kernel: %v, %v", err, w.List())
	}
	w.fw.Break(false)
	w.Sync()
	calls := w.fw.Calls()
	if kept, err := w.UnmapAll(portmap.TCP, ann); kept != 2 || err != nil || w.fw.Calls() != calls+1 {
		t.Errorf("kept %d, %v, %d calls; %v %v", kept, err, w.fw.Calls()-calls, one, two)
	}
	if got := w.List(); !slices.Equal(got, rest) {
		t.Errorf("left %v", got)
	}
	w.checkKernel()
	if kept, err := w.UnmapAll(portmap.UDP, ann); kept != 0 || err != nil || len(w.List()) != 3 {
		t.Errorf("UDP: kept %d, %v, %v", kept, err, w.List())
	}
	if kept, err := w.UnmapAll(portmap.UDP, ann); kept != 0 || err != nil {
		t.Errorf("nothing there: %d, %v", kept, err)
	}
}

// TestHeld: SPEC MAP-11. For two minutes after its deletion a port is for the same
// client only.
func TestHeld(t *testing.T) {
	deletions := map[string]func(w *world, m portmap.Mapping) error{
		"by itself": func(w *world, m portmap.Mapping) error {
			return w.UnmapInternal(m.Protocol, m.Client, m.InternalPort, m.Origin, m.Nonce)
		},
		"by UPnP": func(w *world, m portmap.Mapping) error { return w.Unmap(m.Key, m.Client) },
		"by UPnP, a range": func(w *world, m portmap.Mapping) error {
			_, err := w.UnmapRange(m.Protocol, 1, 65535, m.Client)
			return err
		},
		"by order": func(w *world, m portmap.Mapping) error {
			_, err := w.Revoke(func(*portmap.Mapping) bool { return true }, "x")
			return err
		},
	}
	for name, end := range deletions {
		for _, req := range []portmap.Request{pmpAsk(ann, 5000, 6000), pcpAsk(ann, 5000, 6000, 'a'), with(pcpAsk(ann, 5000, 5998, 'a'), setOf8)} {
			w := newWorld(t, nil)
			if err := end(w, w.mustPut(req)); err != nil || len(w.List()) != 0 {
				t.Fatalf("%s: %v, %v", name, err, w.List())
			}
			w.clock += 2*time.Minute - time.Second
			w.refused(ask(bob, 6000), portmap.ErrConflict)
			if m := w.mustPut(pmpAsk(bob, 6000, 6000)); m.ExternalPort == 6000 {
				t.Errorf("%s: %v is given the held port", name, bob)
			}
			if m, err := w.MapAny(with(ask(bob, 6000), fromOne)); err != nil || m.ExternalPort == 6000 {
				t.Errorf("%s: MapAny gives %v, %v", name, m, err)
			}
			if m := w.mustPut(with(pmpAsk(bob, 6000, 6000), udp)); m.ExternalPort != 6000 {
				t.Errorf("%s: UDP is held, too: %v", name, m)
			}
			w.UnmapInternal(portmap.UDP, bob, 6000, portmap.NATPMP, [12]byte{})
			if m := w.mustPut(pcpAsk(ann, 5001, 6000, 'b')); m.ExternalPort != 6000 {
				t.Errorf("%s: the same client gets %v", name, m)
			}
			if err := w.UnmapInternal(portmap.TCP, ann, 5001, portmap.PCP, nonceOf('b')); err != nil { // held once more, from now on
				t.Fatal(err)
			}
			w.clock += 2*time.Minute - 1
			w.refused(ask(bob, 6000), portmap.ErrConflict)
			w.clock++
			w.mustMap(ask(bob, 6000))
		}
	}
}

// TestNotHeld: not after expiry, nor what UPnP made, nor after a flush.
func TestNotHeld(t *testing.T) {
	live(t, nil, func(t *testing.T, w *world) {
		w.mustPut(pmpAsk(ann, 5000, 6000))
		after(time.Hour)
		w.mustMap(ask(bob, 6000))
	})
	w := newWorld(t, nil)
	if err := w.Unmap(w.mustMap(ask(ann, 6000)).Key, ann); err != nil {
		t.Fatal(err)
	}
	w.mustMap(ask(bob, 6000))
	w.Flush()
	if err := w.Unmap(w.mustPut(pmpAsk(ann, 6000, 6000)).Key, ann); err != nil {
		t.Fatal(err)
	}
	w.Flush()
	w.mustMap(ask(bob, 6000))
}

// TestHeldBound: at most 1000 ports are held. Who has more than 250 of them then
// loses his oldest, and keeps nobody else's from being held (issue 8, 4); without
// such a one the oldest of all is given up.
func TestHeldBound(t *testing.T) {
	w := newWorld(t, func(c *portmap.Config) { c.Logf = func(string, ...any) {} })
	deleted := func(client netip.Addr, first uint16, n int) {
		t.Helper()
		for i := range uint16(n) {
			w.clock += time.Millisecond
			m, err := w.MapInternal(pmpAsk(client, 5000, first+i))
			if err != nil || m.ExternalPort != first+i {
				t.Fatal(m, err)
			}
			if err := w.UnmapInternal(portmap.TCP, client, 5000, portmap.NATPMP, [12]byte{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	others := []netip.Addr{bob, netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.3")}
	asker := netip.MustParseAddr("10.9.0.9")
	check := func(free map[uint16]bool) {
		t.Helper()
		for port, free := range free {
			m, err := w.Map(ask(asker, port))
			if (err == nil) != free {
				t.Errorf("port %d: %v", port, err)
			}
			if err == nil {
				w.Unmap(m.Key, asker)
			}
		}
	}
	deleted(ann, 6000, 2)
	deleted(bob, 7000, 999) // the 998th is the last for which there is room
	check(map[uint16]bool{6000: false, 6001: false, 7000: true, 7747: true, 7748: false, 7998: false})
	for i, client := range others {
		deleted(client, uint16(10000+1000*i), 250)
	}
	deleted(ann, 20000, 248) // bob's first ones went when there were too many
	check(map[uint16]bool{6000: false, 7998: true, 10000: false, 10249: false, 12249: false, 20247: false})
	deleted(asker, 30000, 1) // now each has its share
	check(map[uint16]bool{6000: true, 6001: false, 10000: false})
}

// TestHeldAgain: a port that its client has had again is held from its last deletion
// on, also when others are held since the first would have ended.
func TestHeldAgain(t *testing.T) {
	w := newWorld(t, nil)
	deleted := func(external uint16) {
		t.Helper()
		w.mustPut(pmpAsk(ann, 5000, external))
		if err := w.UnmapInternal(portmap.TCP, ann, 5000, portmap.NATPMP, [12]byte{}); err != nil {
			t.Fatal(err)
		}
	}
	deleted(6000)
	w.clock += time.Minute
	deleted(6000)
	w.clock += time.Minute
	deleted(6001) // looks at what has ended
	w.refused(ask(bob, 6000), portmap.ErrConflict)
	w.clock += time.Minute
	w.mustMap(ask(bob, 6000))
	w.refused(ask(bob, 6001), portmap.ErrConflict)
}
