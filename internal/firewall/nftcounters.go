package firewall

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// Counters gives the packets that each mapping has redirected: the first of
// every connection, since NAT sees no others. Mappings without elements, and
// kernels without element counters, have none.
func (f *NFTables) Counters() (map[portmap.Key]uint64, error) {
	if err := f.connect(); err != nil {
		return nil, err
	}
	packets := map[string]uint64{}
	for _, name := range []string{dnat4, dnat4from} {
		elements, err := f.conn.GetSetElements(f.layout.set(name))
		if err != nil {
			return nil, fmt.Errorf("read map %s: %w", name, err)
		}
		for _, e := range elements {
			if e.Counter != nil {
				packets[name+string(e.Key)] = e.Counter.Packets
			}
		}
	}
	all := map[portmap.Key]uint64{}
	for k, m := range f.state.active {
		e := dnat(m)
		all[k] = f.counted[k] + packets[e.set+string(e.key())]
	}
	return all, nil
}

// keep remembers what the elements that a transaction writes anew have counted:
// their counters begin at zero again. Whoever is gone is forgotten.
func (f *NFTables) keep(c changes) {
	for k, m := range c.active {
		have, was := f.state.active[k]
		switch {
		case m == nil:
			delete(f.counted, k)
		case was && f.layout.counters:
			if n := f.packets(dnat(have)); n > 0 {
				f.counted[k] += n
			}
		}
	}
}

// count remembers the counters of elements that Sync writes anew.
func (f *NFTables) count(set string, gone []nftables.SetElement) {
	lost := map[string]uint64{}
	for _, e := range gone {
		if e.Counter != nil {
			lost[string(e.Key)] = e.Counter.Packets
		}
	}
	if len(lost) == 0 {
		return
	}
	for k, m := range f.state.active {
		if e := dnat(m); e.set == set {
			f.counted[k] += lost[string(e.key())]
		}
	}
}

// packets asks the kernel for the counter of one element; 0 when it cannot say.
func (f *NFTables) packets(e element) uint64 {
	if f.query == nil {
		c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return 0
		}
		f.query = c
	}
	reply, err := f.query.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM),
			Flags: netlink.Request,
		},
		Data: elementQuery(e),
	})
	if err != nil || len(reply) == 0 || len(reply[0].Data) < 4 {
		return 0
	}
	return elementPackets(reply[0].Data[4:])
}

// elementQuery is the body of NFT_MSG_GETSETELEM for one key: nfgenmsg, and the
// names of table and set with the element.
func elementQuery(e element) []byte {
	a := netlink.NewAttributeEncoder()
	a.ByteOrder = binary.BigEndian
	a.String(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
	a.String(unix.NFTA_SET_ELEM_LIST_SET, e.set)
	a.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *netlink.AttributeEncoder) error {
		list.Nested(unix.NFTA_LIST_ELEM, func(elem *netlink.AttributeEncoder) error {
			elem.Nested(unix.NFTA_SET_ELEM_KEY, func(key *netlink.AttributeEncoder) error {
				key.Bytes(unix.NFTA_DATA_VALUE, e.key())
				return nil
			})
			return nil
		})
		return nil
	})
	attributes, err := a.Encode()
	if err != nil {
		panic(err) // only a nested function can fail, and none does
	}
	return append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attributes...)
}

// elementPackets finds the counter in the attributes of the answer: elements,
// element, expression, data, packets.
func elementPackets(attributes []byte) uint64 {
	for _, step := range []uint16{
		unix.NFTA_SET_ELEM_LIST_ELEMENTS, unix.NFTA_LIST_ELEM, unix.NFTA_SET_ELEM_EXPR,
		unix.NFTA_EXPR_DATA, unix.NFTA_COUNTER_PACKETS,
	} {
		if attributes = attribute(attributes, step); attributes == nil {
			return 0
		}
	}
	if len(attributes) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(attributes)
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
