package sock

import (
	"bytes"
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FuzzInfo: whatever control messages come with a datagram, reading them ends, and
// what is said of its arrival is in them.
func FuzzInfo(f *testing.F) {
	four := unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: 7, Addr: [4]byte{239, 255, 255, 250}})
	six := unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: 7, Addr: netip.MustParseAddr("ff02::c").As16()})
	other := unix.UnixRights(1, 2)
	short := func(b []byte) []byte { // with 4 bytes of data
		b = bytes.Clone(b)
		(*unix.Cmsghdr)(unsafe.Pointer(&b[0])).SetLen(unix.CmsgLen(4))
		return b[:unix.CmsgLen(4)]
	}
	for _, b := range [][]byte{nil, four, six, append(other, four...), four[:len(four)-1], six[:unix.SizeofCmsghdr], other, make([]byte, 64), short(four), short(six)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, oob []byte) {
		var p Packet
		if err := p.setInfo(bytes.Clone(oob)); err != nil {
			if p != (Packet{}) {
				t.Errorf("%x: %v, but %+v", oob, err, p)
			}
			return
		}
		if len(oob) < unix.CmsgLen(unix.SizeofInet4Pktinfo) || !p.Dst.IsValid() || !bytes.Contains(oob, p.Dst.AsSlice()) || p.Src.IsValid() {
			t.Errorf("%x is %+v", oob, p)
		}
	})
}
