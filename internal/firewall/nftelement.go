package firewall

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// element is one entry of one of our maps or sets. It is comparable; bytes are made
// of it at the edge to the kernel.
type element struct {
	set  string
	from netip.Addr     // RemoteHost or client; the zero Addr in dnat4
	bits int            // in a set of intervals: the length of from's prefix
	port uint16         // external, or the client's own
	peer uint16         // RemotePort
	to   netip.AddrPort // of a pinhole: a part of the key
	portmap.Protocol
	deadline time.Duration
}

// intervals reports whether a set's elements are for more than one remote host, or
// may be: with a prefix, and one remote port or any. The table sees to it that they
// do not overlap. A kernel that knows setConcat (Linux 5.7) has such sets (5.6).
func intervals(set string) bool { return strings.HasSuffix(set, "net") }

// dnat is the element that redirects to the mapping's client.
func dnat(m portmap.Mapping) element {
	e := element{
		set: dnat4, Protocol: m.Protocol, port: m.ExternalPort,
		to: netip.AddrPortFrom(m.Client, m.InternalPort), deadline: m.Deadline,
		from: m.RemoteHost, peer: m.RemotePort,
	}
	switch {
	case m.RemoteBits != 0 || m.RemotePort != 0:
		e.set, e.bits = dnat4net, m.Remote().Bits()
		if !e.from.IsValid() {
			e.from, e.bits = netip.IPv4Unspecified(), 0
		}
	case m.RemoteHost.IsValid():
		e.set = dnat4from
	}
	return e
}

// pin is the element that lets a pinhole's packets through.
func pin(m portmap.Mapping) element {
	e := element{
		set: pin6, Protocol: m.Protocol, from: m.RemoteHost, peer: m.RemotePort,
		to: netip.AddrPortFrom(m.Pinhole, m.ExternalPort), deadline: m.Deadline,
	}
	switch {
	case m.RemoteBits != 0:
		e.set, e.bits = pin6net, int(m.RemoteBits)
	case e.from.IsValid() && e.peer != 0:
		e.set = pin6both
	case e.from.IsValid():
		e.set = pin6host
	case e.peer != 0:
		e.set = pin6port
	}
	return e
}

// way is the element by which packets reach the client.
func way(m portmap.Mapping) element {
	if m.Pinhole.IsValid() {
		return pin(m)
	}
	return dnat(m)
}

// ways are the elements of all its ports.
func ways(m portmap.Mapping) (all []element) {
	for _, one := range single(&m) {
		all = append(all, way(one))
	}
	return all
}

// snat is the element that gives the client's own packets from one port the mapped
// one.
func snat(m portmap.Mapping, port uint16, external netip.Addr) element {
	return element{
		set: snat4, Protocol: m.Protocol, from: m.Client, port: port,
		to: netip.AddrPortFrom(external, m.ExternalPort+port-m.InternalPort), deadline: m.Deadline,
	}
}

// key is the element's key, or the last one of its interval: each part in units
// of 4 bytes, in network order.
func (e element) key(last bool) []byte {
	b := make([]byte, 0, 44)
	if e.from.IsValid() {
		b = append(b, e.from.AsSlice()...)
	}
	for i := e.bits; last && i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	if hasPort(e.set) {
		peer := e.peer
		if last && peer == 0 {
			peer = 65535
		}
		b = appendPort(b, peer)
	}
	b = append(b, byte(e.Protocol), 0, 0, 0)
	if e.pinhole() {
		return appendPort(append(b, e.to.Addr().AsSlice()...), e.to.Port())
	}
	return appendPort(b, e.port)
}

// value is what the element's map has for the key, nil in a set.
func (e element) value() []byte {
	if e.pinhole() {
		return nil
	}
	return appendPort(e.to.Addr().AsSlice(), e.to.Port())
}

func (e element) pinhole() bool { return e.to.Addr().Is6() }

func appendPort(b []byte, port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(b, port), 0, 0)
}

// entry is an element as the kernel has it, or is to have it.
type entry struct {
	key, value []byte        // no value in a set that is no map
	last       []byte        // of the interval that begins with key; nil in other sets
	expires    time.Duration // until the kernel ends it; 0: never
	packets    uint64
}

// entry is the form for the kernel.
func (e element) entry(now time.Duration) entry {
	n := entry{key: e.key(false), value: e.value(), expires: e.timeout(now)}
	if intervals(e.set) {
		n.last = e.key(true)
	}
	return n
}

// id tells the entries of one set apart.
func (e entry) id() string { return string(e.key) + string(e.last) }

// timeout is never zero: that would make the element permanent.
func (e element) timeout(now time.Duration) time.Duration {
	return max(e.deadline-now, 0) + grace
}

// source names what a client sends from: only one external port can be its
// source port.
type source struct {
	client netip.Addr
	portmap.Protocol
	port uint16
}

func sourceOf(m portmap.Mapping) source { return source{m.Client, m.Protocol, m.InternalPort} }

// entries gives the form for the kernel of those that belong into one map.
func entries(list []element, set string, now time.Duration) (all []entry) {
	for _, e := range list {
		if e.set == set {
			all = append(all, e.entry(now))
		}
	}
	return all
}

// mapped reads an element of dnat4, dnat4from or dnat4net, which was in force at an
// address; false: it is not one of them.
func (e entry) mapped(external []byte) (m mapped, ok bool) {
	k, v := e.key, e.value
	if n := len(k); n == 12 || n == 16 && len(e.last) == n {
		m.remote, _ = netip.AddrFromSlice(k[:4])
		k = k[4:]
	}
	if len(k) == 12 {
		m.remotePort = binary.BigEndian.Uint16(k)
		k = k[4:]
		m.widen(e.last)
	}
	address, ok := netip.AddrFromSlice(external)
	if !ok || len(k) != 8 || len(v) != 8 {
		return m, false
	}
	client, _ := netip.AddrFromSlice(v[:4])
	m.proto = k[0]
	m.external = netip.AddrPortFrom(address, binary.BigEndian.Uint16(k[4:]))
	m.client = netip.AddrPortFrom(client, binary.BigEndian.Uint16(v[4:]))
	return m, true
}

// pinhole reads an element of the sets of pinholes, which have keys of different
// lengths.
func (e entry) pinhole() (m mapped, ok bool) {
	k := e.key
	if n := len(k); n == 40 || n == 44 {
		m.remote, _ = netip.AddrFromSlice(k[:16])
		k = k[16:]
	}
	if len(k) == 28 {
		m.remotePort = binary.BigEndian.Uint16(k)
		k = k[4:]
	}
	if len(e.last) == 44 && len(e.key) == 44 {
		m.widen(e.last)
	}
	if len(k) != 24 {
		return m, false
	}
	client, _ := netip.AddrFromSlice(k[4:20])
	m.proto = k[0]
	m.client = netip.AddrPortFrom(client, binary.BigEndian.Uint16(k[20:]))
	m.external = m.client
	return m, true
}

// widen makes remote and remotePort, the first of an interval, all of it; last is
// the key at its end.
func (m *mapped) widen(last []byte) {
	first := m.remote.AsSlice()
	length := len(first) * 8
	for i, b := range first {
		length -= bits.OnesCount8(b ^ last[i])
	}
	if length == 0 {
		m.remote = netip.Addr{}
	} else if length < len(first)*8 {
		m.bits = uint8(length)
	}
	if binary.BigEndian.Uint16(last[len(first):]) != m.remotePort {
		m.remotePort = 0
	}
}
