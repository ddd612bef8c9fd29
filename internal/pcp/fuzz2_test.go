package pcp

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// FuzzTogether: whatever two hosts ask in turn, neither changes what the other has,
// no reply says more than its request could hold, and quotas stay (issue 8, point 2).
func FuzzTogether(f *testing.F) {
	m := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 6000}
	with := func(change func(*wish)) wish {
		w := m
		change(&w)
		return w
	}
	other, gone := with(func(w *wish) { w.nonce = 2 }), with(func(w *wish) { w.lifetime = 0 })
	long := with(func(w *wish) {
		w.options = [][]byte{option(128, make([]byte, 300)...), option(130, 0, 4, 0x13, 0x88, 1)}
	})
	filter := with(func(w *wish) { w.options = [][]byte{filterOption(128, 80, "::ffff:11.0.0.9")} })
	third := with(func(w *wish) { w.options = [][]byte{option(1, unhex(annHex)...)} })
	for _, s := range [][3][]byte{
		{m.of(ann), m.of(bob), gone.of(ann)}, {m.of(ann), other.of(bob), other.of(ann)}, {long.of(ann), gone.of(bob), m.of(ann)},
		{filter.of(ann), pmp(1, 5000, 6000, 60), pmp(2, 5000, 0, 0)}, {pmp(1, 5000, 5000, 60), pmp(2, 0, 0, 0), m.of(ann)},
		{m.peerOf(ann, far), other.peerOf(bob, far), filter.of(ann)}, {m.of(ann), third.of(bob), third.of(bob)},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, one, two, three []byte) {
		w := newWorld(t, nil)
		for i, p := range [][]byte{one, two, three} {
			from, others := ann, bob
			if i == 1 {
				from, others = bob, ann
			}
			p = p[:min(len(p), maxMessage+1)]
			before, all := w.of(others), w.table.List()
			reply := w.ask(from, p)
			checkReply(t, p, reply)
			if after := w.of(others); !reflect.DeepEqual(before, after) {
				t.Errorf("%v asked % x: %v had %v, has %v", from, p, others, before, after)
			}
			if after := w.table.List(); (reply == nil || reply[3] != 0) && !reflect.DeepEqual(all, after) {
				t.Errorf("%v asked % x: reply % x, the table had %v and has %v", from, p, reply, all, after)
			}
			ports := 0
			for _, m := range w.of(from) {
				ports += max(1, int(m.Ports))
			}
			if ports > 10 {
				t.Errorf("%v has %d ports", from, ports)
			}
		}
	})
}

// of gives the mappings of a host.
func (w *world) of(host netip.Addr) (all []portmap.Mapping) {
	for _, m := range w.table.List() {
		if m.Client == host {
			all = append(all, m)
		}
	}
	return all
}
