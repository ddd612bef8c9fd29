package pcp

import (
	"reflect"
	"testing"
)

// FuzzReceive: whatever arrives, nothing panics, no reply is longer than 1100
// bytes or than it may be for its request, what is a response draws none, and what
// fails changes nothing (PCP-7).
func FuzzReceive(f *testing.F) {
	m := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 6000}
	for _, p := range [][]byte{
		{}, {0}, {0, 0}, {0, 128}, {0, 3}, {0, 127, 1, 2, 3}, {1, 0}, {2, 0}, {255, 127}, pmp(1, 5000, 5000, 60), pmp(2, 5000, 5000, 0),
		pmp(1, 0, 0, 0), pmp(2, 0, 1, 1), pmp(1, 5000, 5000, 60)[:10], header(0, 0, ann), header(0, 0, ann6), header(2, 0, ann), m.of(ann), m.of(ann6), m.of(bob),
		wish{protocol: 6, internal: 5000}.of(ann), wish{protocol: 6}.of(ann), wish{lifetime: 1}.of(ann), wish{lifetime: 1, internal: 1}.of(ann),
	} {
		f.Add(p)
	}
	for _, o := range [][]byte{
		option(1, unhex(annHex)...), option(1, unhex(ours)...), option(2), filterOption(128, 80, "::ffff:11.0.0.9"), filterOption(0, 0, "::"),
		filterOption(96, 0, "::ffff:0.0.0.0"), filterOption(32, 0, "2001:db8::"), option(128, []byte("game")...), option(128), option(129, 1),
		option(130, 0, 4, 0x13, 0x88, 1), option(130, 255, 255, 0x13, 0x88, 0), {128, 0, 255, 255}, {128, 0, 0, 8, 1, 2, 3, 4}, option(130, 0, 4), option(3, make([]byte, 16)...), {2, 0, 0, 1, 0, 0, 0, 0}, make([]byte, 1040), make([]byte, 1044),
	} {
		m := m
		m.options = [][]byte{o}
		f.Add(m.of(ann))
		m.options = [][]byte{o, o}
		f.Add(m.of(ann6))
		f.Add(m.peerOf(ann, far))
		f.Add(m.peerOf(ann6, far6))
	}
	for _, p := range [][]byte{m.peerOf(ann, far), m.peerOf(ann6, far6), m.peerOf(ann, far6), wish{protocol: 6, internal: 5000}.peerOf(ann, far)} {
		f.Add(p)
		f.Add(p[:76])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > maxMessage+1 {
			p = p[:maxMessage+1] // as the socket does
		}
		for _, six := range []bool{false, true} {
			w, client := newWorld(t, nil), ann
			if six {
				w, client = newWorld(t, ipv6), ann6
			}
			for range 2 { // a renewal, too
				before := w.table.List()
				reply := w.ask(client, p)
				checkReply(t, p, reply)
				failed := reply == nil || reply[3] != 0
				if after := w.table.List(); failed && !reflect.DeepEqual(before, after) || len(after) > 1 {
					t.Errorf("% x: reply % x, the table had %v and has %v", p, reply, before, after)
				}
			}
		}
	})
}

func checkReply(t *testing.T, p, reply []byte) {
	t.Helper()
	switch {
	case reply == nil:
		return
	case len(p) < 2 || p[1] >= 128:
		t.Errorf("% x: a reply: % x", p, reply)
	case len(reply) > maxMessage || reply[1] < 128:
		t.Errorf("% x: % x", p, reply)
	case reply[0] == 0 && len(reply) > max(16, len(p)):
		t.Errorf("% x: NAT-PMP's reply has %d bytes", p, len(reply))
	case reply[0] == 2 && (len(reply) > max(24, (len(p)+3)/4*4) || len(reply)%4 != 0):
		t.Errorf("% x: PCP's reply has %d bytes", p, len(reply))
	case reply[0] != 0 && reply[0] != 2:
		t.Errorf("% x: version %d", p, reply[0])
	}
}
