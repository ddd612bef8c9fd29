package wan

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// eventBuffer holds the usual link message many times over. A longer one is
// cut and then counts as an event that matters.
const eventBuffer = 16 << 10

// sockets are the two rtnetlink sockets: requests would have to sort their
// replies out of the events if there was only one.
type sockets struct {
	events   *netlink.Conn
	raw      syscall.RawConn // of events
	requests *netlink.Conn
	buf      []byte
}

func dial() (*sockets, error) {
	const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)
	events, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: groups})
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink for events: %w", err)
	}
	s := &sockets{events: events, buf: make([]byte, eventBuffer)}
	if s.raw, err = events.SyscallConn(); err == nil {
		s.requests, err = netlink.Dial(unix.NETLINK_ROUTE, nil)
	}
	if err != nil {
		_ = events.Close()
		return nil, fmt.Errorf("open rtnetlink for requests: %w", err)
	}
	return s, nil
}

func (s *sockets) close() error {
	return errors.Join(s.events.Close(), s.requests.Close())
}

// await blocks until an event matters to one of the devices, or until events
// were lost; then it empties the queue, so that a burst is answered by one
// reading. That order also makes the kernel queue again after a loss: it
// drops all events between an overrun and an empty queue.
func (s *sockets) await(d devices) error {
	for matters := false; !matters; {
		var err error
		if matters, err = s.receive(true, d); err != nil {
			return err
		}
	}
	for {
		_, err := s.receive(false, d)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// receive reads one datagram of events and reports whether it matters. It
// waits for one, or gives EAGAIN when there is none.
func (s *sockets) receive(wait bool, d devices) (bool, error) {
	var n int
	var err error
	pollErr := s.raw.Read(func(fd uintptr) bool {
		// MSG_TRUNC: n is the whole length, even if that is more than fits.
		n, _, err = unix.Recvfrom(int(fd), s.buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		return !wait || err != unix.EAGAIN
	})
	switch {
	case pollErr != nil:
		return false, fmt.Errorf("read rtnetlink events: %w", pollErr)
	case err == unix.EINTR:
		return false, nil
	case err == unix.ENOBUFS:
		return true, nil // events were lost
	case err != nil:
		return false, fmt.Errorf("read rtnetlink events: %w", err)
	case n > len(s.buf):
		return true, nil
	}
	return d.matters(s.buf[:n]), nil
}

// devices are the followed names and, of those that exist, the indexes.
type devices struct {
	names   []string
	indexes []int
}

// devices returns what to look for in events after this state.
func (s State) devices() devices {
	d := devices{names: []string{s.Uplink.Name}, indexes: []int{s.Uplink.Index}}
	for _, l := range s.LANs {
		d.names = append(d.names, l.Name)
		d.indexes = append(d.indexes, l.Index)
	}
	return d
}

// matters reports whether a datagram holds a message about one of the devices
// under its index, or a link that has now one of the names. What cannot be
// read matters.
func (d devices) matters(datagram []byte) bool {
	msgs, err := syscall.ParseNetlinkMessage(datagram)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(msgs, d.matter)
}

func (d devices) matter(m syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, err := parseLink(m.Data)
		if err != nil {
			return true
		}
		// Bridges and others report their ports under families of their own.
		return l.family == unix.AF_UNSPEC &&
			(slices.Contains(d.indexes, l.index) || slices.Contains(d.names, l.name))
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, err := parseAddress(m.Data)
		return err != nil || slices.Contains(d.indexes, a.index)
	default:
		return false
	}
}
