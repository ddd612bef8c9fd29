package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// The messages of ctnetlink, as linux/netfilter/nfnetlink_conntrack.h has
// them. Every number in them is big-endian, but for the flags of CTA_FILTER.
const (
	ctGet    = netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | 1)
	ctDelete = netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | 2)

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaMark       = 8
	ctaID         = 12
	ctaZone       = 18
	ctaMarkMask   = 21
	ctaFilter     = 25

	ctaTupleIP    = 1 // in a tuple
	ctaTupleProto = 2

	ctaIPv4Src = 1 // in CTA_TUPLE_IP
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum     = 1 // in CTA_TUPLE_PROTO
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3

	ctaFilterOrigFlags = 1 // in CTA_FILTER
)

// The flags of CTA_FILTER say which fields of the tuple beside it count.
const (
	filterSrc     = 1 << 0
	filterDst     = 1 << 1
	filterProto   = 1 << 3
	filterSrcPort = 1 << 4
	filterDstPort = 1 << 5
)

// sizeofNfgenmsg is the length of struct nfgenmsg, which begins each message:
// address family, version 0 and a resource number.
const sizeofNfgenmsg = 4

// tuple is one direction of a connection. In a filter, what is zero may be
// anything.
type tuple struct {
	proto    uint8 // by its IANA number
	src, dst netip.AddrPort
}

// flow is one tracked connection.
type flow struct {
	orig, reply tuple
}

// dumpRequest asks for the connections of an address family whose original tuple
// has what is set in want (a port only with its protocol). Before Linux 5.8 the
// kernel does not know CTA_FILTER and sends all connections.
func dumpRequest(family byte, want tuple) (netlink.Message, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	if flags := want.flags(); flags != 0 {
		ae.Nested(ctaTupleOrig, want.encode)
		ae.Nested(ctaFilter, func(nae *netlink.AttributeEncoder) error {
			nae.Bytes(ctaFilterOrigFlags, nlenc.Uint32Bytes(flags)) // host order
			return nil
		})
	}
	return request(family, ctGet, netlink.Dump, ae)
}

// markedRequest asks for the connections that have our mark.
// Kernels that cannot filter by it send others, too.
func markedRequest() netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: ctGet, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{unix.AF_UNSPEC, 0, 0, 0}, attributes(nil).number(ctaMark, connMark).number(ctaMarkMask, connMark)...),
	}
}

// getRequest asks for the one IPv4 connection with this original tuple.
func getRequest(orig tuple) (netlink.Message, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Nested(ctaTupleOrig, orig.encode)
	return request(unix.AF_INET, ctGet, netlink.Acknowledge, ae)
}

// deleteRequest removes exactly the connection that the kernel told of in the
// message b, and none that has taken its place: it is named by its original
// tuple and its CTA_ID, and by CTA_ZONE where it has one, as the kernel wrote
// them. Without a tuple the kernel would delete all connections.
func deleteRequest(b []byte) (netlink.Message, error) {
	if len(b) < sizeofNfgenmsg {
		return netlink.Message{}, errors.New("short message")
	}
	ad, err := netlink.NewAttributeDecoder(b[sizeofNfgenmsg:])
	if err != nil {
		return netlink.Message{}, err
	}
	ae := netlink.NewAttributeEncoder()
	var tuple, id bool
	for ad.Next() {
		switch ad.Type() {
		case ctaTupleOrig:
			orig := ad.Bytes()
			ae.Bytes(netlink.Nested|ctaTupleOrig, orig)
			tuple = len(orig) > 0
		case ctaID:
			ae.Bytes(ctaID, ad.Bytes())
			id = true
		case ctaZone:
			ae.Bytes(ctaZone, ad.Bytes())
		}
	}
	if err := ad.Err(); err != nil {
		return netlink.Message{}, err
	}
	if !tuple || !id {
		return netlink.Message{}, errors.New("a tracked connection without a tuple or an id")
	}
	return request(b[0], ctDelete, netlink.Acknowledge, ae)
}

func request(family byte, what netlink.HeaderType, flags netlink.HeaderFlags, ae *netlink.AttributeEncoder) (netlink.Message, error) {
	attrs, err := ae.Encode()
	if err != nil {
		return netlink.Message{}, fmt.Errorf("write a request to ctnetlink: %w", err)
	}
	return netlink.Message{
		Header: netlink.Header{Type: what, Flags: netlink.Request | flags},
		Data:   append([]byte{family, 0, 0, 0}, attrs...),
	}, nil
}

// flags names the fields that are set.
func (t tuple) flags() uint32 {
	var flags uint32
	if t.src.Addr().IsValid() {
		flags |= filterSrc
	}
	if t.dst.Addr().IsValid() {
		flags |= filterDst
	}
	if t.proto != 0 {
		flags |= filterProto
	}
	if t.src.Port() != 0 {
		flags |= filterSrcPort
	}
	if t.dst.Port() != 0 {
		flags |= filterDstPort
	}
	return flags
}

// encode writes the fields that are set.
func (t tuple) encode(ae *netlink.AttributeEncoder) error {
	flags := t.flags()
	ae.Nested(ctaTupleIP, func(nae *netlink.AttributeEncoder) error {
		if flags&filterSrc != 0 {
			nae.Bytes(kindOf(t.src.Addr(), ctaIPv4Src, ctaIPv6Src), t.src.Addr().AsSlice())
		}
		if flags&filterDst != 0 {
			nae.Bytes(kindOf(t.dst.Addr(), ctaIPv4Dst, ctaIPv6Dst), t.dst.Addr().AsSlice())
		}
		return nil
	})
	ae.Nested(ctaTupleProto, func(nae *netlink.AttributeEncoder) error {
		if flags&filterProto != 0 {
			nae.Uint8(ctaProtoNum, t.proto)
		}
		if flags&filterSrcPort != 0 {
			nae.Uint16(ctaProtoSrcPort, t.src.Port())
		}
		if flags&filterDstPort != 0 {
			nae.Uint16(ctaProtoDstPort, t.dst.Port())
		}
		return nil
	})
	return nil
}

// kindOf is the type of an attribute that holds the address.
func kindOf(a netip.Addr, four, six uint16) uint16 {
	if a.Is6() {
		return six
	}
	return four
}

// has reports whether u has everything that is set in t.
func (t tuple) has(u tuple) bool {
	return (t.proto == 0 || t.proto == u.proto) && hasAddrPort(t.src, u.src) && hasAddrPort(t.dst, u.dst)
}

// common keeps what is the same in t and u.
func (t tuple) common(u tuple) tuple {
	if t.proto != u.proto {
		t.proto = 0 // and then no port can be asked for
		t.src, t.dst = netip.AddrPortFrom(t.src.Addr(), 0), netip.AddrPortFrom(t.dst.Addr(), 0)
	}
	t.src, t.dst = commonAddrPort(t.src, u.src), commonAddrPort(t.dst, u.dst)
	return t
}

func commonAddrPort(a, b netip.AddrPort) netip.AddrPort {
	addr, port := a.Addr(), a.Port()
	if addr != b.Addr() {
		addr = netip.Addr{}
	}
	if port != b.Port() {
		port = 0
	}
	return netip.AddrPortFrom(addr, port)
}

func hasAddrPort(want, a netip.AddrPort) bool {
	return (!want.Addr().IsValid() || want.Addr() == a.Addr()) && (want.Port() == 0 || want.Port() == a.Port())
}

// parseFlow reads one message of a dump.
func parseFlow(b []byte) (flow, error) {
	if len(b) < sizeofNfgenmsg {
		return flow{}, errors.New("short message")
	}
	ad, err := netlink.NewAttributeDecoder(b[sizeofNfgenmsg:])
	if err != nil {
		return flow{}, err
	}
	ad.ByteOrder = binary.BigEndian
	var f flow
	for ad.Next() {
		switch ad.Type() {
		case ctaTupleOrig:
			ad.Nested(f.orig.decode)
		case ctaTupleReply:
			ad.Nested(f.reply.decode)
		}
	}
	return f, ad.Err()
}

func (t *tuple) decode(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case ctaTupleIP:
			ad.Nested(t.decodeIP)
		case ctaTupleProto:
			ad.Nested(t.decodeProto)
		}
	}
	return nil // the outer decoder asks ad for its error
}

func (t *tuple) decodeIP(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		addr, ok := netip.AddrFromSlice(ad.Bytes())
		switch ad.Type() {
		case ctaIPv4Src, ctaIPv6Src:
			t.src = netip.AddrPortFrom(addr, t.src.Port())
		case ctaIPv4Dst, ctaIPv6Dst:
			t.dst = netip.AddrPortFrom(addr, t.dst.Port())
		default:
			ok = true
		}
		if !ok {
			return errors.New("an address of a wrong length")
		}
	}
	return nil
}

func (t *tuple) decodeProto(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case ctaProtoNum:
			t.proto = ad.Uint8()
		case ctaProtoSrcPort:
			t.src = netip.AddrPortFrom(t.src.Addr(), ad.Uint16())
		case ctaProtoDstPort:
			t.dst = netip.AddrPortFrom(t.dst.Addr(), ad.Uint16())
		}
	}
	return nil
}
