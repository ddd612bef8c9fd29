package firewall

import (
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// errInterrupted says that what was read changed meanwhile, again and again.
var errInterrupted = errors.New("interrupted by changes")

// readSet gives all elements of one of our sets or maps.
func (f *NFTables) readSet(name string) ([]entry, error) { return f.read(netlink.Dump, name, nil) }

// read asks for the elements of a set, or for those with the keys of some.
func (f *NFTables) read(flags netlink.HeaderFlags, set string, some []entry) ([]entry, error) {
	which := setHead(set)
	if some != nil {
		which = which.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, listOf(some, true))
	}
	replies, err := f.ask(unix.NFT_MSG_GETSETELEM, flags, which)
	if err != nil {
		return nil, fmt.Errorf("read set %s: %w", set, err)
	}
	var all []entry
	for _, m := range replies {
		d, err := netlink.NewAttributeDecoder(attribute(m.Data[nfgenmsg:], unix.NFTA_SET_ELEM_LIST_ELEMENTS))
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", set, err)
		}
		for d.Next() {
			all = append(all, readElement(d.Bytes()))
		}
	}
	return all, nil
}

// ask sends a question about our table on the socket for questions and gives the
// answers.
func (f *NFTables) ask(what int, flags netlink.HeaderFlags, a attributes) ([]netlink.Message, error) {
	if f.query == nil {
		c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return nil, err
		}
		f.query = c
	}
	wait := longAnswerTime
	if f.proved { // we know how much there is to tell
		wait = answerTime + time.Duration(len(f.state.active))*time.Millisecond
	}
	replies, err := ask(f.query, wait, what, flags, unix.NFPROTO_INET, a)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, errInterrupted) { // answers may be on their way still
		f.query.Close()
		f.query = nil
	}
	return replies, err
}

// ask sends a message of the type NFT_MSG_GET... and gives the answers. It asks
// again when the kernel says that there was a change between them.
func ask(c *netlink.Conn, wait time.Duration, what int, flags netlink.HeaderFlags, family byte, a attributes) ([]netlink.Message, error) {
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	question := netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | what), Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, a...),
	}
	for range 10 {
		replies, err := c.Execute(question)
		interrupted := false
		for _, m := range replies {
			interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
			if len(m.Data) < nfgenmsg {
				return nil, errors.New("a short message")
			}
		}
		if err != nil || !interrupted {
			return replies, err
		}
	}
	return nil, errInterrupted
}

// readElement reads one element; numbers are big-endian.
func readElement(attributes []byte) entry {
	counter := attribute(attribute(attributes, unix.NFTA_SET_ELEM_EXPR), unix.NFTA_EXPR_DATA)
	return entry{
		key:     attribute(attribute(attributes, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE),
		last:    attribute(attribute(attributes, setElemKeyEnd), unix.NFTA_DATA_VALUE),
		value:   attribute(attribute(attributes, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VALUE),
		expires: time.Duration(number(attribute(attributes, unix.NFTA_SET_ELEM_EXPIRATION))) * time.Millisecond,
		packets: number(attribute(counter, unix.NFTA_COUNTER_PACKETS)),
	}
}
