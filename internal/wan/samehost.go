package wan

import (
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// How long, and for how many callers at a time, SameHost waits for the kernel.
const (
	askTime = time.Second
	askMost = 4
)

// SameHost reports whether a and b are addresses of one host on a LAN (SPEC
// PIN-9): both are on-link on the same device, and the kernel has both as
// NeighborReachable with the same MAC. One that the kernel does not know is
// asked for (Resolve), which takes a second at most. Four callers can wait for
// that; for others the answer is false, and so it is after any error.
//
// A link-local address needs the LAN device as its zone: a host of another LAN
// may have the same one.
//
// It is as true as ARP and neighbour discovery are: hosts behind a repeater
// that puts its own MAC in the place of theirs are one host.
func (f *Follower) SameHost(a, b netip.Addr) bool {
	p := pair{index: f.State().together(a, b), addrs: [2]netip.Addr{a.WithZone(""), b.WithZone("")}}
	if p.index == 0 || a == b {
		return p.index != 0
	}
	if f.look(&p) == nil && !p.known() {
		if f.asking.Add(1) <= askMost {
			f.ask(&p)
		}
		f.asking.Add(-1)
	}
	return p.known() && p.macs[0] == p.macs[1]
}

// together returns the index of the first LAN device on which both addresses
// are on-link; 0: none, or one of them is the router's own.
func (s State) together(a, b netip.Addr) int {
	index := 0
	for _, l := range s.LANs {
		if l.Local(a.WithZone("")) || l.Local(b.WithZone("")) {
			return 0
		}
		if index == 0 && l.hasHost(a) && l.hasHost(b) {
			index = l.Index
		}
	}
	return index
}

// hasHost is OnLink, but a zone is a LAN's name, and link-local addresses of IPv6
// are nobody's without.
func (l LAN) hasHost(a netip.Addr) bool {
	everywhere := a.Zone() == "" && !(a.Is6() && a.IsLinkLocalUnicast())
	return (everywhere || a.Zone() == l.Name) && l.OnLink(a.WithZone(""))
}

// pair is what the neighbour table says of two addresses.
type pair struct {
	index int // of the LAN device
	addrs [2]netip.Addr
	macs  [2][6]byte // zero: not known
}

func (p *pair) learn(n Neighbor) {
	for i, a := range p.addrs {
		if n.Addr != a || n.Index != p.index {
			continue
		}
		p.macs[i] = [6]byte{}
		const group = 1 // a broadcast address has the MAC of a group
		if n.State == NeighborReachable && n.MAC[0]&group == 0 {
			p.macs[i] = n.MAC
		}
	}
}

func (p *pair) known() bool { return p.macs[0] != [6]byte{} && p.macs[1] != [6]byte{} }

// look reads the table.
func (f *Follower) look(p *pair) error {
	all, err := f.Neighbors()
	for _, n := range all {
		p.learn(n)
	}
	return err
}

// ask makes the kernel find out what is not known, and waits for its events
// (RTM_NEWNEIGH) until all is, or until there is an error.
func (f *Follower) ask(p *pair) {
	events, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: 1 << (unix.RTNLGRP_NEIGH - 1)})
	if err != nil {
		return
	}
	if err = events.SetReadDeadline(time.Now().Add(askTime)); err == nil {
		err = f.look(p) // nothing after this is missed
	}
	for i, a := range p.addrs {
		if err == nil && p.macs[i] == [6]byte{} {
			err = f.resolve(p.index, a)
		}
	}
	for err == nil && !p.known() {
		var news []netlink.Message
		news, err = events.Receive()
		for i := 0; i < len(news) && err == nil; i++ {
			err = p.hear(news[i])
		}
	}
	_ = events.Close()
}

// hear learns from an event.
func (p *pair) hear(m netlink.Message) error {
	if m.Header.Type != unix.RTM_NEWNEIGH {
		return nil
	}
	n, err := parseNeighbor(m.Data)
	if err == nil {
		p.learn(n)
	}
	return err
}
