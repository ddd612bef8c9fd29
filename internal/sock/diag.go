package sock

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// sockDiagByFamily is SOCK_DIAG_BY_FAMILY (linux/sock_diag.h).
const sockDiagByFamily = 20

// States of sockets for inet_diag, as bits (include/net/tcp_states.h).
const (
	listenBit = 1 << 10 // TCP_LISTEN
	closeBit  = 1 << 7  // TCP_CLOSE: a UDP socket that is not connected
)

// diagTime bounds the wait for answers, which are there at once or never come:
// somebody waits for a mapping.
const diagTime = time.Second / 2

// diag asks sock_diag(7) for sockets with the local port, which looks only at
// those that can answer: /proc/net/tcp makes the kernel walk the table of all
// connections, milliseconds where the other takes a fraction of one.
func diag(tcp bool, port uint16) (bool, error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return false, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(diagTime)); err != nil {
		return false, err
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		replies, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump},
			Data:   diagRequest(family, tcp, port),
		})
		if err != nil {
			return false, fmt.Errorf("sock_diag: %w", err)
		}
		if len(replies) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// diagRequest is struct inet_diag_req_v2 (linux/inet_diag.h): numbers in the
// host's order, but for the port, by which the kernel filters.
func diagRequest(family byte, tcp bool, port uint16) []byte {
	b := make([]byte, 56)
	protocol, states := byte(unix.IPPROTO_UDP), uint32(closeBit)
	if tcp {
		protocol, states = unix.IPPROTO_TCP, listenBit
	}
	b[0], b[1] = family, protocol
	binary.NativeEndian.PutUint32(b[4:], states)
	binary.BigEndian.PutUint16(b[8:], port)
	return b
}
