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

// expression is a step of a rule: what the kernel calls it, and its attributes.
type expression struct {
	name string
	data attributes
}

// Registers: a key of several parts stands in consecutive ones, and so does
// what a map gives. The first has 16 bytes' name, the others 4 bytes' names.
const (
	reg1, reg2, reg3 = 1, 9, 10
	spare            = 2 // 16 bytes that no key reaches
)

func meta(key, register uint32) expression {
	return expression{"meta", attributes(nil).number(unix.NFTA_META_KEY, key).number(unix.NFTA_META_DREG, register)}
}

// compare ends the rule unless what stands in the first register is data, or
// is not, by op.
func compare(op uint32, data []byte) expression {
	return expression{"cmp", attributes(nil).number(unix.NFTA_CMP_SREG, reg1).number(unix.NFTA_CMP_OP, op).value(unix.NFTA_CMP_DATA, data)}
}

// payload loads a field of the packet's network or transport header.
func payload(base, offset, length, register uint32) expression {
	return expression{"payload", attributes(nil).number(unix.NFTA_PAYLOAD_DREG, register).
		number(unix.NFTA_PAYLOAD_BASE, base).number(unix.NFTA_PAYLOAD_OFFSET, offset).number(unix.NFTA_PAYLOAD_LEN, length)}
}

// within ends the rule unless the first register is in the set.
func within(set string) expression {
	return expression{"lookup", attributes(nil).number(unix.NFTA_LOOKUP_SREG, reg1).text(unix.NFTA_LOOKUP_SET, set)}
}

// lookup replaces the key in the first registers by what the map has for it, or
// ends the rule.
func lookup(set string) expression {
	x := within(set)
	x.data = x.data.number(unix.NFTA_LOOKUP_DREG, reg1)
	return x
}

// loadMark and storeMark copy the connection's mark.
func loadMark(register uint32) expression {
	return expression{"ct", attributes(nil).number(unix.NFTA_CT_KEY, unix.NFT_CT_MARK).number(unix.NFTA_CT_DREG, register)}
}

func storeMark(register uint32) expression {
	return expression{"ct", attributes(nil).number(unix.NFTA_CT_KEY, unix.NFT_CT_MARK).number(unix.NFTA_CT_SREG, register)}
}

// bitwise makes a register (register and mask) xor xor.
func bitwise(register, mask, xor uint32) expression {
	return expression{"bitwise", attributes(nil).number(unix.NFTA_BITWISE_SREG, register).number(unix.NFTA_BITWISE_DREG, register).
		number(unix.NFTA_BITWISE_LEN, 4).value(unix.NFTA_BITWISE_MASK, host32(mask)).value(unix.NFTA_BITWISE_XOR, host32(xor))}
}

// host32 is a number as the kernel has its own integers, such as marks.
func host32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// nat changes the packet's destination or source into what the first registers
// hold.
func nat(kind uint32) expression {
	return expression{"nat", attributes(nil).number(unix.NFTA_NAT_TYPE, kind).number(unix.NFTA_NAT_FAMILY, unix.NFPROTO_IPV4).
		number(unix.NFTA_NAT_REG_ADDR_MIN, reg1).number(unix.NFTA_NAT_REG_PROTO_MIN, reg2).
		number(unix.NFTA_NAT_FLAGS, unix.NF_NAT_RANGE_PROTO_SPECIFIED)}
}
