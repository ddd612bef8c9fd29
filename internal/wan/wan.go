// Package wan follows the uplink and every served LAN device by name: link,
// addresses (of the uplink IPv4 ones only), MAC and counters.
//
// It listens on rtnetlink(7) (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR and
// RTNLGRP_IPV6_IFADDR) and never polls. Devices may be absent at start, appear, change, vanish, be renamed
// or made again with another index, as PPPoE does. After any event of a
// followed device the truth is read from the kernel again and compared.
//
// On request it also tells which hosts are on the LANs, and by which device
// the kernel would send.
package wan

import (
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Uplink is the device towards the internet.
type Uplink struct {
	Name  string
	Index int  // 0: there is no such device now
	Up    bool // set up, with carrier where the device can tell (RFC 2863 operational status up or unknown)

	// Addr is the primary IPv4 address. Addresses of link scope and of
	// 169.254.0.0/16 do not count. Invalid: none.
	Addr netip.Addr

	// Since is the boot clock's time when the device last became Connected
	// with this address; 0 when it is not.
	Since time.Duration

	Speed uint64 // bit/s as the driver reports it; 0: unknown
}

// Connected reports whether the uplink is up and has an address.
func (u Uplink) Connected() bool { return u.Up && u.Addr.IsValid() }

// LAN is a served device.
type LAN struct {
	Name  string
	Index int  // 0: there is no such device now
	Up    bool // as in Uplink
	MAC   [6]byte

	// Prefixes are the router's own IPv4 addresses, each with the length of
	// its on-link prefix, in the kernel's order.
	Prefixes []netip.Prefix

	// Prefixes6 are the same in IPv6, link-local ones included, without those
	// that may be another host's (tentative, dadfailed). The last Deprecated6
	// of them are deprecated (RFC 4862 section 5.5.4): still in use, but not
	// for anything new. That is how the end of a prefix begins.
	Prefixes6   []netip.Prefix
	Deprecated6 int
}

// Addr returns the router's first IPv4 address on the device; invalid: none.
func (l LAN) Addr() netip.Addr {
	if len(l.Prefixes) == 0 {
		return netip.Addr{}
	}
	return l.Prefixes[0].Addr()
}

// LinkLocal returns the router's first link-local IPv6 address (fe80::/10) on
// the device; invalid: none.
func (l LAN) LinkLocal() netip.Addr {
	for _, p := range l.Prefixes6 {
		if p.Addr().IsLinkLocalUnicast() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// Global6 returns the router's first global IPv6 address on the device, else
// the first unique local one (fc00::/7, RFC 4193), of those that are not
// deprecated; invalid: none.
func (l LAN) Global6() netip.Addr {
	var local netip.Addr
	for _, p := range l.Prefixes6[:len(l.Prefixes6)-l.Deprecated6] {
		switch a := p.Addr(); {
		case !a.IsGlobalUnicast(): // which ULAs are, too
		case !a.IsPrivate():
			return a
		case !local.IsValid():
			local = a
		}
	}
	return local
}

// OnLink reports whether a is in one of the prefixes and not the router's own
// address. It does not refuse network and broadcast addresses.
func (l LAN) OnLink(a netip.Addr) bool {
	contains := func(p netip.Prefix) bool { return p.Contains(a) }
	return (slices.ContainsFunc(l.Prefixes, contains) || slices.ContainsFunc(l.Prefixes6, contains)) && !l.Local(a)
}

// Local reports whether a is the router's own address on the device.
func (l LAN) Local(a netip.Addr) bool {
	is := func(p netip.Prefix) bool { return p.Addr() == a }
	return slices.ContainsFunc(l.Prefixes, is) || slices.ContainsFunc(l.Prefixes6, is)
}

func (l LAN) equal(o LAN) bool {
	return l.Name == o.Name && l.Index == o.Index && l.Up == o.Up && l.MAC == o.MAC &&
		slices.Equal(l.Prefixes, o.Prefixes) && l.equal6(o)
}

// equal6 compares the IPv6 addresses.
func (l LAN) equal6(o LAN) bool {
	return l.Deprecated6 == o.Deprecated6 && slices.Equal(l.Prefixes6, o.Prefixes6)
}

// State is what is known of all followed devices at one time.
type State struct {
	Uplink Uplink
	LANs   []LAN // one per configured name, in the configured order
}

// Equal reports whether the states are the same in every field.
func (s State) Equal(o State) bool {
	return s.Uplink == o.Uplink && slices.EqualFunc(s.LANs, o.LANs, LAN.equal)
}

// Counters are the uplink's totals since the device was made, as the device
// sees them (IFLA_STATS64).
type Counters struct {
	BytesSent, BytesReceived, PacketsSent, PacketsReceived uint64
}

// next makes the state from what the kernel says now and, where it depends
// on the past, from the state before. speed is asked for an uplink that is up.
func next(prev State, k kernel, now time.Duration, speed func(name string) uint64) State {
	s := State{
		Uplink: nextUplink(prev.Uplink, k, now),
		LANs:   make([]LAN, len(prev.LANs)),
	}
	if s.Uplink.Up {
		s.Uplink.Speed = speed(s.Uplink.Name)
	}
	for i, old := range prev.LANs {
		l, ok := k.links[old.Name]
		if !ok {
			s.LANs[i] = LAN{Name: old.Name}
			continue
		}
		s.LANs[i] = LAN{Name: old.Name, Index: l.index, Up: l.up(), MAC: l.mac}
		s.LANs[i].take(k.addrs)
	}
	return s
}

// take gives the LAN those of the addresses that are its device's.
func (l *LAN) take(addrs []address) {
	var deprecated []netip.Prefix
	for _, a := range addrs {
		list := &l.Prefixes6
		switch {
		case a.index != l.Index, a.flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0:
			continue
		case a.prefix.Addr().Is4():
			list = &l.Prefixes
		case a.flags&unix.IFA_F_DEPRECATED != 0:
			list = &deprecated
		}
		*list = append(*list, a.prefix)
	}
	l.Prefixes6, l.Deprecated6 = append(l.Prefixes6, deprecated...), len(deprecated)
}

func nextUplink(prev Uplink, k kernel, now time.Duration) Uplink {
	l, ok := k.links[prev.Name]
	if !ok {
		return Uplink{Name: prev.Name}
	}
	u := Uplink{Name: prev.Name, Index: l.index, Up: l.up()}
	u.Addr = chooseAddr(prev.Addr, l.index, k.addrs)
	switch {
	case !u.Connected():
	case prev.Connected() && prev.Addr == u.Addr && prev.Index == u.Index:
		u.Since = prev.Since
	default:
		u.Since = now
	}
	return u
}

// chooseAddr keeps the present address while the device has it; else it takes
// the first primary one, else the first.
func chooseAddr(present netip.Addr, index int, addrs []address) netip.Addr {
	var first, primary netip.Addr
	for _, a := range addrs {
		addr := a.prefix.Addr()
		if a.index != index || !addr.Is4() || !a.global() {
			continue
		}
		if addr == present {
			return present
		}
		if !first.IsValid() {
			first = addr
		}
		if !primary.IsValid() && a.flags&unix.IFA_F_SECONDARY == 0 {
			primary = addr
		}
	}
	if primary.IsValid() {
		return primary
	}
	return first
}
