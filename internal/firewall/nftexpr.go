package firewall

import (
	"bytes"
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// attributes are netlink attributes as bytes, one behind the other. Each method
// gives them with one more. The numbers of nf_tables are big-endian.
type attributes []byte

func (a attributes) bytes(kind uint16, data []byte) attributes {
	a = binary.NativeEndian.AppendUint16(a, uint16(4+len(data)))
	a = binary.NativeEndian.AppendUint16(a, kind)
	a = append(a, data...)
	for len(a)%4 != 0 {
		a = append(a, 0)
	}
	return a
}

func (a attributes) nest(kind uint16, inner attributes) attributes {
	return a.bytes(unix.NLA_F_NESTED|kind, inner)
}

func (a attributes) number(kind uint16, n uint32) attributes {
	return a.bytes(kind, binary.BigEndian.AppendUint32(nil, n))
}

func (a attributes) long(kind uint16, n uint64) attributes {
	return a.bytes(kind, binary.BigEndian.AppendUint64(nil, n))
}

func (a attributes) text(kind uint16, s string) attributes {
	return a.bytes(kind, append([]byte(s), 0))
}

// value adds data as nf_tables wraps it.
func (a attributes) value(kind uint16, data []byte) attributes {
	return a.nest(kind, attributes(nil).bytes(unix.NFTA_DATA_VALUE, data))
}

// attribute gives the data of the first attribute of a type, nil for none.
func attribute(attributes []byte, want uint16) []byte {
	d, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return nil
	}
	for d.Next() {
		if d.Type() == want {
			return d.Bytes()
		}
	}
	return nil
}

// number reads a big-endian number of any length.
func number(b []byte) (n uint64) {
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}

// text reads a string, which ends with a zero byte.
func text(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// nftRule is a rule in the making: its expressions, as attributes.
type nftRule struct{ list attributes }

func (r *nftRule) add(name string, data attributes) {
	r.list = r.list.nest(unix.NFTA_LIST_ELEM, attributes(nil).text(unix.NFTA_EXPR_NAME, name).nest(unix.NFTA_EXPR_DATA, data))
}

// Registers: a key of several parts stands in consecutive ones, and so does
// what a map gives. The first has 16 bytes' name, the others 4 bytes' names.
const (
	reg1, reg2, reg3 = 1, 9, 10
	spare            = 2 // 16 bytes that no value of a map reaches
)

func (r *nftRule) meta(key, register uint32) {
	r.add("meta", attributes(nil).number(unix.NFTA_META_KEY, key).number(unix.NFTA_META_DREG, register))
}

// compare ends the rule unless the first register is equal to data, or is not, by
// op.
func (r *nftRule) compare(op uint32, data []byte) {
	r.add("cmp", attributes(nil).number(unix.NFTA_CMP_SREG, reg1).number(unix.NFTA_CMP_OP, op).value(unix.NFTA_CMP_DATA, data))
}

// field is a part of a packet's header: which one, offset and length.
type field uint32

const (
	saddr field = unix.NFT_PAYLOAD_NETWORK_HEADER<<16 | 12<<8 | 4
	daddr field = unix.NFT_PAYLOAD_NETWORK_HEADER<<16 | 16<<8 | 4
	sport field = unix.NFT_PAYLOAD_TRANSPORT_HEADER<<16 | 0<<8 | 2
	dport field = unix.NFT_PAYLOAD_TRANSPORT_HEADER<<16 | 2<<8 | 2

	saddr6 field = unix.NFT_PAYLOAD_NETWORK_HEADER<<16 | 8<<8 | 16
	daddr6 field = unix.NFT_PAYLOAD_NETWORK_HEADER<<16 | 24<<8 | 16
)

func (r *nftRule) load(f field, register uint32) {
	r.add("payload", attributes(nil).number(unix.NFTA_PAYLOAD_DREG, register).number(unix.NFTA_PAYLOAD_BASE, uint32(f>>16)).
		number(unix.NFTA_PAYLOAD_OFFSET, uint32(f>>8&0xff)).number(unix.NFTA_PAYLOAD_LEN, uint32(f&0xff)))
}

// within ends the rule unless the first register is in the set.
func (r *nftRule) within(set string) {
	r.add("lookup", attributes(nil).number(unix.NFTA_LOOKUP_SREG, reg1).text(unix.NFTA_LOOKUP_SET, set))
}

// lookup replaces the key in the first registers by what the map has for it, or
// ends the rule.
func (r *nftRule) lookup(set string) {
	r.add("lookup", attributes(nil).number(unix.NFTA_LOOKUP_SREG, reg1).number(unix.NFTA_LOOKUP_DREG, reg1).text(unix.NFTA_LOOKUP_SET, set))
}

// ct copies what is known of the connection to a register, or from it: where is
// unix.NFTA_CT_DREG or unix.NFTA_CT_SREG.
func (r *nftRule) ct(key uint32, where uint16, register uint32) {
	r.add("ct", attributes(nil).number(unix.NFTA_CT_KEY, key).number(where, register))
}

func (r *nftRule) mark(where uint16, register uint32) { r.ct(unix.NFT_CT_MARK, where, register) }

// ours adds our mark to the connection's.
func (r *nftRule) ours() {
	const others = ^uint32(connMark)
	r.mark(unix.NFTA_CT_DREG, spare)
	r.bitwise(spare, others, connMark)
	r.mark(unix.NFTA_CT_SREG, spare)
}

// bitwise makes a register (register and mask) xor xor.
func (r *nftRule) bitwise(register, mask, xor uint32) {
	r.add("bitwise", attributes(nil).number(unix.NFTA_BITWISE_SREG, register).number(unix.NFTA_BITWISE_DREG, register).
		number(unix.NFTA_BITWISE_LEN, 4).value(unix.NFTA_BITWISE_MASK, host32(mask)).value(unix.NFTA_BITWISE_XOR, host32(xor)))
}

// host32 is a number as the kernel has its own integers, such as marks.
func host32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// nat changes the packet's destination or source into what the first registers
// hold.
func (r *nftRule) nat(kind uint32) {
	r.add("nat", attributes(nil).number(unix.NFTA_NAT_TYPE, kind).number(unix.NFTA_NAT_FAMILY, unix.NFPROTO_IPV4).
		number(unix.NFTA_NAT_REG_ADDR_MIN, reg1).number(unix.NFTA_NAT_REG_PROTO_MIN, reg2).
		number(unix.NFTA_NAT_FLAGS, unix.NF_NAT_RANGE_PROTO_SPECIFIED))
}
