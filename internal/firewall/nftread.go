package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Reading elements by hand, and not by the library, costs a third of the time
// and a hundredth of the garbage, and spares the binary all expressions that the
// kernel knows.

// present is an element as the kernel has it.
type present struct {
	key, value []byte
	expires    time.Duration // until the kernel ends it
	packets    uint64
}

// errInterrupted says that a map changed while it was read.
var errInterrupted = errors.New("interrupted by a change")

// readMap gives all elements of one of our maps.
func (f *NFTables) readMap(name string) (all []present, err error) {
	for range 10 {
		if all, err = f.read(netlink.Dump, name, nil); !errors.Is(err, errInterrupted) {
			break
		}
	}
	return all, err
}

// read asks for the elements of a map, or for the one with that key.
func (f *NFTables) read(flags netlink.HeaderFlags, set string, key []byte) ([]present, error) {
	replies, err := f.ask(flags, elementQuery(set, key))
	if err != nil {
		return nil, fmt.Errorf("read map %s: %w", set, err)
	}
	var all []present
	for _, m := range replies {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return nil, fmt.Errorf("read map %s: %w", set, errInterrupted)
		}
		if len(m.Data) < nfgenmsg {
			continue
		}
		d, err := netlink.NewAttributeDecoder(attribute(m.Data[nfgenmsg:], unix.NFTA_SET_ELEM_LIST_ELEMENTS))
		if err != nil {
			return nil, fmt.Errorf("read map %s: %w", set, err)
		}
		for d.Next() {
			all = append(all, readElement(d.Bytes()))
		}
	}
	return all, nil
}

// ask sends NFT_MSG_GETSETELEM on the socket for questions and gives the
// answers.
func (f *NFTables) ask(flags netlink.HeaderFlags, body []byte) ([]netlink.Message, error) {
	if f.query == nil {
		c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return nil, err
		}
		f.query = c
	}
	f.query.SetDeadline(time.Now().Add(answerTime))
	replies, err := f.query.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM),
			Flags: netlink.Request | flags,
		},
		Data: body,
	})
	if err != nil && !errors.Is(err, unix.ENOENT) { // answers may be on their way still
		f.query.Close()
		f.query = nil
	}
	return replies, err
}

// elementQuery is the body of NFT_MSG_GETSETELEM: nfgenmsg, the names of table
// and set, and the key of one element, or nil for all.
func elementQuery(set string, key []byte) []byte {
	a := netlink.NewAttributeEncoder()
	a.String(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
	a.String(unix.NFTA_SET_ELEM_LIST_SET, set)
	if key != nil {
		a.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *netlink.AttributeEncoder) error {
			list.Nested(unix.NFTA_LIST_ELEM, func(elem *netlink.AttributeEncoder) error {
				elem.Nested(unix.NFTA_SET_ELEM_KEY, func(k *netlink.AttributeEncoder) error {
					k.Bytes(unix.NFTA_DATA_VALUE, key)
					return nil
				})
				return nil
			})
			return nil
		})
	}
	attributes, err := a.Encode()
	if err != nil {
		panic(err) // only a nested function can fail, and none does
	}
	return append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attributes...)
}

// readElement reads one element; numbers are big-endian.
func readElement(attributes []byte) present {
	counter := attribute(attribute(attributes, unix.NFTA_SET_ELEM_EXPR), unix.NFTA_EXPR_DATA)
	return present{
		key:     attribute(attribute(attributes, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE),
		value:   attribute(attribute(attributes, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VALUE),
		expires: time.Duration(number(attribute(attributes, unix.NFTA_SET_ELEM_EXPIRATION))) * time.Millisecond,
		packets: number(attribute(counter, unix.NFTA_COUNTER_PACKETS)),
	}
}

func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
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
