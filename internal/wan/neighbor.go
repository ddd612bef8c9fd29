package wan

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// Neighbor is a host on a served LAN device, as the kernel's neighbour table
// has it (rtnetlink(7), arp(7)).
type Neighbor struct {
	Addr  netip.Addr
	MAC   [6]byte // zero: not known
	Index int     // of the LAN device
	State NeighborState
}

// NeighborState says whether the host is there. A host that is not in the
// table is NeighborUnknown, too: nobody asked for a while.
type NeighborState uint8

const (
	// NeighborUnknown: the kernel is asking, or has nothing to say (NUD_NONE,
	// NUD_INCOMPLETE).
	NeighborUnknown NeighborState = iota
	// NeighborReachable: it answered when last asked, which may be long ago,
	// or needs no asking (NUD_REACHABLE, STALE, DELAY, PROBE, PERMANENT; NOARP
	// with a MAC).
	NeighborReachable
	// NeighborFailed: it did not answer (NUD_FAILED).
	NeighborFailed
)

// Neighbors reads the neighbour tables: the IPv4 and IPv6 hosts on the served
// LAN devices, in the kernel's order. Link-local addresses are among them, of
// which two devices may have the same one. A device that is gone has none. The
// kernel bounds the tables (net.ipv4.neigh.default.gc_thresh3 and that of
// net.ipv6, 1024 each).
func (f *Follower) Neighbors() ([]Neighbor, error) {
	c, s, err := f.requests()
	if err != nil {
		return nil, err
	}
	replies, err := dump(c, unix.RTM_GETNEIGH, unix.AF_UNSPEC, unix.SizeofNdMsg)
	if f.missed(err) != nil {
		return nil, fmt.Errorf("read neighbours: %w", err)
	}
	var hosts []Neighbor
	for _, m := range replies {
		n, err := parseNeighbor(m.Data)
		if err != nil {
			return nil, fmt.Errorf("read neighbours: %w", err)
		}
		// Groups are in the table, too, where they have a MAC.
		if n.Addr.IsValid() && !n.Addr.IsMulticast() && s.serves(n.Index) {
			hosts = append(hosts, n)
		}
	}
	return hosts, nil
}

// serves reports whether a LAN device has the index.
func (s State) serves(index int) bool {
	for _, l := range s.LANs {
		if l.Index == index && index != 0 {
			return true
		}
	}
	return false
}

// parseNeighbor reads struct ndmsg and the attributes behind it. Without an
// address Addr is invalid.
func parseNeighbor(b []byte) (Neighbor, error) {
	if len(b) < unix.SizeofNdMsg {
		return Neighbor{}, errors.New("short neighbour message")
	}
	n := Neighbor{Index: int(nlenc.Int32(b[4:8]))}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofNdMsg:])
	if err != nil {
		return Neighbor{}, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.NDA_DST:
			if b[0] != unix.AF_BRIDGE { // there it is the far end of a tunnel
				n.Addr, _ = netip.AddrFromSlice(ad.Bytes())
			}
		case unix.NDA_LLADDR:
			if mac := ad.Bytes(); len(mac) == len(n.MAC) {
				n.MAC = [6]byte(mac)
			}
		}
	}
	const answered = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT
	switch nud := nlenc.Uint16(b[8:10]); {
	case nud&answered != 0, nud&unix.NUD_NOARP != 0 && n.MAC != [6]byte{}:
		n.State = NeighborReachable
	case nud&unix.NUD_FAILED != 0:
		n.State = NeighborFailed
	}
	return n, ad.Err()
}

// Resolve makes the kernel find out whether the host is there, on the first
// LAN device that has it on-link, and returns at once; Neighbors tells later.
// With the kernel's usual settings an absent host is NeighborFailed after 3
// seconds, or after 8 when it was known: until then the old answer counts. One
// that answered within the last half minute or so is not asked. A host also
// fails when its device has no carrier or is down (LAN.Up).
//
// It needs CAP_NET_ADMIN, and sends nothing by itself: the entry is marked as
// used (NTF_USE), as by a packet to the host.
func (f *Follower) Resolve(addr netip.Addr) error {
	for _, l := range f.State().LANs {
		if l.OnLink(addr) {
			return f.resolve(l.Index, addr)
		}
	}
	return fmt.Errorf("resolve %s: it is in no LAN's prefix", addr)
}

func (f *Follower) resolve(index int, addr netip.Addr) error {
	c, _, err := f.requests()
	if err != nil {
		return err
	}
	head := make([]byte, unix.SizeofNdMsg)
	head[0] = unix.AF_INET
	if addr.Is6() {
		head[0] = unix.AF_INET6
	}
	nlenc.PutInt32(head[4:8], int32(index))
	head[10] = unix.NTF_USE
	if _, err = ask(c, unix.RTM_NEWNEIGH, netlink.Acknowledge|netlink.Create, head, addr); f.missed(err) != nil {
		return fmt.Errorf("resolve %s (needs root or CAP_NET_ADMIN): %w", addr, err)
	}
	return nil
}
