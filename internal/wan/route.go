package wan

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// RouteDevice asks by which device the kernel would send a packet of the
// router to the IPv4 address (RTM_GETROUTE). "" means that it would send none:
// there is no route, or one that refuses (unreachable, prohibit, blackhole).
// The router's own addresses give "lo".
func (f *Follower) RouteDevice(to netip.Addr) (string, error) {
	c, _, err := f.requests()
	if err != nil {
		return "", err
	}
	if !to.Is4() {
		return "", fmt.Errorf("read route to %s: not an IPv4 address", to)
	}
	name := ""
	index, err := readRoute(c, to)
	if err == nil && index != 0 {
		request := make([]byte, unix.SizeofIfInfomsg)
		nlenc.PutInt32(request[4:8], int32(index))
		var l link
		l, err = requestLink(c, request)
		name = l.name
	}
	if f.missed(err) != nil {
		return "", fmt.Errorf("read route to %s: %w", to, err)
	}
	return name, nil
}

// SameLAN reports whether to is a host of a LAN that from is on, too, and not the
// router itself, whichever of its devices has the address: the kernel would send to it
// by the device of that LAN. A link-local address needs the LAN device as its zone.
// After any error the answer is false.
func (f *Follower) SameLAN(to, from netip.Addr) bool {
	index := f.State().together(to, from)
	c, _, err := f.requests()
	if err != nil || index == 0 {
		return false
	}
	route, err := readRoute(c, to)
	return f.missed(err) == nil && route == index
}

// readRoute returns the index of the device; 0: no way.
func readRoute(c *netlink.Conn, to netip.Addr) (int, error) {
	head := make([]byte, unix.SizeofRtMsg)
	head[0], head[1] = unix.AF_INET, byte(to.BitLen()) // the family, the length of the destination
	if to.Is6() {
		head[0] = unix.AF_INET6
	}
	replies, err := ask(c, unix.RTM_GETROUTE, 0, head, to)
	for _, refused := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, refused) { // the last two: prohibit and blackhole
			return 0, nil
		}
	}
	if err != nil {
		return 0, err
	}
	if len(replies) == 0 {
		return 0, errNoReply
	}
	return parseRoute(replies[0].Data)
}

// ask sends a request about one address, the attribute behind the header.
func ask(c *netlink.Conn, typ netlink.HeaderType, flags netlink.HeaderFlags, head []byte, addr netip.Addr) ([]netlink.Message, error) {
	const dst = unix.RTA_DST // and NDA_DST, which is the same number
	head = append(head, nlenc.Uint16Bytes(uint16(unix.SizeofRtAttr+addr.BitLen()/8))...)
	head = append(head, nlenc.Uint16Bytes(dst)...)
	return c.Execute(netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request | flags},
		Data:   append(head, addr.AsSlice()...),
	})
}

// parseRoute reads the device from the attributes behind struct rtmsg.
func parseRoute(b []byte) (int, error) {
	if len(b) < unix.SizeofRtMsg {
		return 0, errors.New("short route message")
	}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofRtMsg:])
	if err != nil {
		return 0, err
	}
	index := 0
	for ad.Next() {
		if ad.Type() == unix.RTA_OIF {
			index = int(ad.Uint32())
		}
	}
	if err := ad.Err(); err != nil {
		return 0, err
	}
	if index == 0 {
		return 0, errors.New("the kernel names no device")
	}
	return index, nil
}
