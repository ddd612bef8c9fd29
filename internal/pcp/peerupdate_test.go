//go:build go1.25

package pcp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestUpdatesPEER: the owner of a mapping by PEER hears of its new address as it
// asked, and that of a MAP is not disturbed by a PEER for the same port (ANN-4).
func TestUpdatesPEER(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, nil)
		time.Sleep(time.Hour)
		m := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 6000, address: uplink}
		asked := [][]byte{m.peerOf(ann, far), m.of(bob), m.peerOf(ann, far2)}
		binary.BigEndian.PutUint32(asked[2][4:], 700)
		r.request(asked[0], ann, router)
		r.request(asked[2], ann, router)
		r.request(asked[1], bob, router)
		r.request(m.peerOf(bob, far), bob, router)
		r.setUplink(uplink2)
		r.Announce()
		time.Sleep(time.Hour)
		_, _, updates := sorted(r.take())
		for i, from := range []netip.Addr{ann, bob, ann} {
			n := 0
			for _, u := range updates {
				if u.to.Addr() != from || from == ann && !bytes.Equal(u.data[60:], asked[i][60:]) {
					continue
				}
				n++
				if got := read(u.data); got.result != 0 || got.address != uplink2 || u.data[1] != asked[i][1]|0x80 || !bytes.Equal(u.data[60:], asked[i][60:]) {
					t.Errorf("%v hears % x", from, u.data)
				}
			}
			if n != 3 {
				t.Errorf("%v hears %d updates, want 3", from, n)
			}
		}
		r.end()
	})
}
