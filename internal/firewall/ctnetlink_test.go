package firewall

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// attr writes one attribute. Its length and type are in host order, as in all
// of netlink; the test states what is in it.
func attr(typ uint16, data ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

func nested(typ uint16, parts ...[]byte) []byte {
	return attr(netlink.Nested|typ, bytes.Join(parts, nil)...)
}

// The bytes of a UDP connection from 11.0.0.1:4000 to 11.0.0.2:18080, which is
// redirected to 192.168.77.10:8080.
var (
	genmsg    = []byte{2, 0, 0, 0} // AF_INET
	wireOrig  = nested(1, nested(1, attr(1, 11, 0, 0, 1), attr(2, 11, 0, 0, 2)), nested(2, attr(1, 17), attr(2, 0x0f, 0xa0), attr(3, 0x46, 0xa0)))
	wireReply = nested(2, nested(1, attr(1, 192, 168, 77, 10), attr(2, 11, 0, 0, 1)), nested(2, attr(1, 17), attr(2, 0x1f, 0x90), attr(3, 0x0f, 0xa0)))
	wireID    = attr(12, 0xde, 0xad, 0xbe, 0xef)
	wireZone  = attr(18, 0, 7)
	wireFlow  = bytes.Join([][]byte{genmsg, wireOrig, wireReply, attr(3, 0, 0, 1, 0x8e), attr(8, 0x10, 0, 0, 0), wireID, wireZone}, nil)
)

var ap = netip.MustParseAddrPort

func TestReadFlow(t *testing.T) {
	tcp6 := nested(1, nested(1, attr(3, make([]byte, 16)...), attr(4, make([]byte, 16)...)), nested(2, attr(1, 6), attr(2, 0, 1), attr(3, 1, 0)))
	ping := nested(1, nested(1, attr(1, 11, 0, 0, 1), attr(2, 11, 0, 0, 2)), nested(2, attr(1, 1), attr(4, 8, 8), attr(5, 8), attr(6, 0)))
	for _, tt := range []struct {
		name string
		wire []byte
		want flow
		err  string
	}{
		{name: "redirected", wire: wireFlow, want: flow{
			tuple{17, ap("11.0.0.1:4000"), ap("11.0.0.2:18080")}, tuple{17, ap("192.168.77.10:8080"), ap("11.0.0.1:4000")},
		}},
		{name: "IPv6", wire: slicesJoin(genmsg, tcp6), want: flow{orig: tuple{6, ap("[::]:1"), ap("[::]:256")}}},
		{name: "no ports", wire: slicesJoin(genmsg, ping), want: flow{orig: tuple{1, ap("11.0.0.1:0"), ap("11.0.0.2:0")}}},
		{name: "nothing in it", wire: genmsg},
		{name: "short", wire: genmsg[:3], err: "short message"},
		{name: "cut off", wire: wireFlow[:30], err: "invalid"},
		{name: "address of five bytes", wire: slicesJoin(genmsg, nested(1, nested(1, attr(1, 1, 2, 3, 4, 5)))), err: "wrong length"},
		{name: "port of one byte", wire: slicesJoin(genmsg, nested(1, nested(2, attr(2, 1)))), err: "uint16"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseFlow(tt.wire)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("got %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

func slicesJoin(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestWriteRequests(t *testing.T) {
	flags := binary.NativeEndian.AppendUint32(nil, 1<<1|1<<3|1<<5) // CTA_FILTER's are in host order
	for _, tt := range []struct {
		name  string
		make  func() (netlink.Message, error)
		typ   netlink.HeaderType
		flags netlink.HeaderFlags
		want  [][]byte
		err   string
	}{
		{
			name: "all", make: func() (netlink.Message, error) { return dumpRequest(unix.AF_INET, tuple{}) },
			typ: 0x101, flags: netlink.Request | netlink.Dump, want: [][]byte{genmsg},
		},
		{
			name: "what came to a port",
			make: func() (netlink.Message, error) {
				return dumpRequest(unix.AF_INET, tuple{proto: 17, dst: ap("11.0.0.2:18080")})
			},
			typ:   0x101,
			flags: netlink.Request | netlink.Dump,
			want: [][]byte{
				genmsg,
				nested(1, nested(1, attr(2, 11, 0, 0, 2)), nested(2, attr(1, 17), attr(3, 0x46, 0xa0))),
				nested(25, attr(1, flags...)),
			},
		},
		{
			name: "one", make: func() (netlink.Message, error) {
				return getRequest(tuple{17, ap("11.0.0.1:4000"), ap("11.0.0.2:18080")})
			},
			typ: 0x101, flags: netlink.Request | netlink.Acknowledge, want: [][]byte{genmsg, wireOrig},
		},
		{
			name: "delete", make: func() (netlink.Message, error) { return deleteRequest(wireFlow) },
			typ: 0x102, flags: netlink.Request | netlink.Acknowledge, want: [][]byte{genmsg, wireOrig, wireID, wireZone},
		},
		{name: "never delete all", make: func() (netlink.Message, error) { return deleteRequest(slicesJoin(genmsg, wireReply, wireID)) }, err: "without a tuple"},
		{name: "an empty tuple", make: func() (netlink.Message, error) { return deleteRequest(slicesJoin(genmsg, nested(1), wireID)) }, err: "without a tuple"},
		{name: "no id", make: func() (netlink.Message, error) { return deleteRequest(slicesJoin(genmsg, wireOrig)) }, err: "or an id"},
		{name: "short", make: func() (netlink.Message, error) { return deleteRequest(nil) }, err: "short"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.make()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || got.Header.Type != tt.typ || got.Header.Flags != tt.flags {
				t.Fatalf("header %+v, %v; want type %#x, flags %#x", got.Header, err, tt.typ, tt.flags)
			}
			if want := slicesJoin(tt.want...); !bytes.Equal(got.Data, want) {
				t.Errorf("got\n%swant\n%s", hex.Dump(got.Data), hex.Dump(want))
			}
		})
	}
}

// FuzzFlow: whatever the kernel sends, reading it ends, and what is deleted is
// named.
func FuzzFlow(f *testing.F) {
	f.Add(wireFlow)
	f.Add(wireFlow[:30])
	f.Add(slicesJoin(genmsg, nested(1), wireID))
	f.Fuzz(func(t *testing.T, b []byte) {
		for n := range min(len(b), sizeofNfgenmsg+8) { // cut, with nothing behind
			_, _ = parseFlow(b[:n:n])
			_, _ = deleteRequest(b[:n:n])
		}
		_, _ = parseFlow(b)
		ask, err := deleteRequest(b)
		if err != nil {
			return
		}
		ad, err := netlink.NewAttributeDecoder(ask.Data[sizeofNfgenmsg:])
		if err != nil {
			t.Fatal(err)
		}
		found := map[uint16]int{}
		for ad.Next() {
			found[ad.Type()] = len(ad.Bytes())
		}
		if ad.Err() != nil || found[ctaTupleOrig] == 0 {
			t.Errorf("deletes by %v (%v) for %x", found, ad.Err(), b)
		}
	})
}
