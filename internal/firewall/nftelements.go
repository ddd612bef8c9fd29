package firewall

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// element is one entry of one of our maps or sets. It is comparable; bytes are made
// of it at the edge to the kernel.
type element struct {
	set  string
	from netip.Addr     // RemoteHost or client; the zero Addr in dnat4
	port uint16         // external, the client's own, or RemotePort
	to   netip.AddrPort // of a pinhole: a part of the key
	portmap.Protocol
	deadline time.Duration
}

// dnat is the element that redirects to the mapping's client.
func dnat(m portmap.Mapping) element {
	e := element{
		set: dnat4, Protocol: m.Protocol, port: m.ExternalPort,
		to: netip.AddrPortFrom(m.Client, m.InternalPort), deadline: m.Deadline,
	}
	if m.RemoteHost.IsValid() {
		e.set, e.from = dnat4from, m.RemoteHost
	}
	return e
}

// pin is the element that lets a pinhole's packets through.
func pin(m portmap.Mapping) element {
	e := element{
		set: pin6, Protocol: m.Protocol, from: m.RemoteHost, port: m.RemotePort,
		to: netip.AddrPortFrom(m.Pinhole, m.ExternalPort), deadline: m.Deadline,
	}
	switch {
	case e.from.IsValid() && e.port != 0:
		e.set = pin6both
	case e.from.IsValid():
		e.set = pin6host
	case e.port != 0:
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

// snat is the element that gives the client's own packets the mapped port.
func snat(m portmap.Mapping, external netip.Addr) element {
	return element{
		set: snat4, Protocol: m.Protocol, from: m.Client, port: m.InternalPort,
		to: netip.AddrPortFrom(external, m.ExternalPort), deadline: m.Deadline,
	}
}

// key is the element's key: each part in units of 4 bytes, in network order.
func (e element) key() []byte {
	b := make([]byte, 0, 44)
	if e.from.IsValid() {
		b = append(b, e.from.AsSlice()...)
	}
	if hasPort(e.set) {
		b = appendPort(b, e.port)
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
	expires    time.Duration // until the kernel ends it; 0: never
	packets    uint64
}

// entry is the form for the kernel.
func (e element) entry(now time.Duration) entry {
	return entry{key: e.key(), value: e.value(), expires: e.timeout(now)}
}

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

// mapped reads an element of dnat4 or dnat4from, which was in force at an
// address; false: it is not one of them.
func (e entry) mapped(external []byte) (m mapped, ok bool) {
	k, v := e.key, e.value
	if len(k) == 12 {
		m.remote, _ = netip.AddrFromSlice(k[:4])
		k = k[4:]
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
	if len(k) != 24 {
		return m, false
	}
	client, _ := netip.AddrFromSlice(k[4:20])
	m.proto = k[0]
	m.client = netip.AddrPortFrom(client, binary.BigEndian.Uint16(k[20:]))
	m.external = m.client
	return m, true
}

// elements knows what is in the maps and sets: every active mapping, and for each source
// the mappings that share it, the oldest first. That one is in snat4.
type elements struct {
	external netip.Addr
	active   map[portmap.Key]portmap.Mapping
	sources  map[source][]portmap.Key
}

func newElements() elements {
	return elements{active: map[portmap.Key]portmap.Mapping{}, sources: map[source][]portmap.Key{}}
}

// changes is a transaction, and what elements is after it.
type changes struct {
	gone, come []element
	external   netip.Addr
	active     map[portmap.Key]*portmap.Mapping // nil: no longer
	sources    map[source][]portmap.Key
}

func (c changes) empty() bool { return len(c.gone)+len(c.come) == 0 }

// change works out the transaction for removing some mappings and adding one.
// Disabled mappings, and those whose client is no host of a LAN, have no
// elements. A pinhole is no source: its packets are not changed.
func (s elements) change(n portmap.Network, remove []portmap.Mapping, add *portmap.Mapping) changes {
	c := changes{external: n.External, active: map[portmap.Key]*portmap.Mapping{}, sources: map[source][]portmap.Key{}}
	for _, m := range remove {
		if have, ok := s.active[m.Key]; ok {
			c.gone = append(c.gone, way(have))
			c.active[m.Key] = nil
			src := sourceOf(have)
			c.sources[src] = slices.DeleteFunc(slices.Clone(c.owners(s, src)), func(k portmap.Key) bool { return k == m.Key })
		}
	}
	if add == nil || !add.Enabled || !n.OnLink(add.Client) || !oneFamily(add) {
		c.follow(s)
		return c
	}
	c.come = append(c.come, way(*add))
	c.active[add.Key] = add
	if !add.Pinhole.IsValid() {
		src := sourceOf(*add)
		keys := c.owners(s, src)
		at := slices.Index(s.sources[src], add.Key) // a renewal keeps its place
		if at < 0 || at > len(keys) {
			at = len(keys)
		}
		c.sources[src] = append(append(slices.Clone(keys[:at]), add.Key), keys[at:]...)
	}
	c.follow(s)
	return c
}

// oneFamily: all addresses are of the family that the maps take.
func oneFamily(m *portmap.Mapping) bool {
	six := m.Pinhole.IsValid()
	return m.Client.Is6() == six && (!m.RemoteHost.IsValid() || m.RemoteHost.Is6() == six)
}

// owners are the keys that share a source, as the transaction leaves them.
func (c changes) owners(s elements, src source) []portmap.Key {
	if keys, ok := c.sources[src]; ok {
		return keys
	}
	return s.sources[src]
}

// follow lets the oldest mapping of each source be the one in snat4.
func (c *changes) follow(s elements) {
	if !c.external.Is4() {
		return
	}
	for src, keys := range c.sources {
		var before, after *portmap.Mapping
		if old := s.sources[src]; len(old) > 0 {
			m := s.active[old[0]]
			before = &m
		}
		if len(keys) > 0 {
			if m, changed := c.active[keys[0]]; changed {
				after = m
			} else {
				m := s.active[keys[0]]
				after = &m
			}
		}
		if before != nil && after != nil && *before == *after {
			continue
		}
		if before != nil {
			c.gone = append(c.gone, snat(*before, c.external))
		}
		if after != nil {
			c.come = append(c.come, snat(*after, c.external))
		}
	}
}

// commit makes a transaction's result the state.
func (s *elements) commit(c changes) {
	s.external = c.external
	for k, m := range c.active {
		if m == nil {
			delete(s.active, k)
		} else {
			s.active[k] = *m
		}
	}
	for src, keys := range c.sources {
		if len(keys) == 0 {
			delete(s.sources, src)
		} else {
			s.sources[src] = keys
		}
	}
}

// all gives the elements of one map.
func (s elements) all(set string) []element {
	var list []element
	if set == snat4 {
		for _, keys := range s.sources {
			if s.external.Is4() {
				list = append(list, snat(s.active[keys[0]], s.external))
			}
		}
		return list
	}
	for _, m := range s.active {
		if e := way(m); e.set == set {
			list = append(list, e)
		}
	}
	return list
}

// slack is how far a timeout in the kernel may be from the table's before the
// element is written anew.
const slack = 2 * time.Second

// compare tells what must go from a map and what must come. An element whose
// value or timeout is wrong does both, and keeps its count.
func (s elements) compare(set string, have []entry, now time.Duration) (gone, come []entry) {
	want := map[string]element{}
	for _, e := range s.all(set) {
		want[string(e.key())] = e
	}
	packets := map[string]uint64{}
	seen := map[string]bool{} // a dump may show an element twice while the map grows
	for _, h := range have {
		if seen[string(h.key)] {
			continue
		}
		seen[string(h.key)] = true
		e, ok := want[string(h.key)]
		if ok && bytes.Equal(e.value(), h.value) && (h.expires-e.timeout(now)).Abs() < slack {
			delete(want, string(h.key))
			continue
		}
		gone = append(gone, h)
		packets[string(h.key)] = h.packets
	}
	for key, e := range want {
		n := e.entry(now)
		n.packets = packets[key]
		come = append(come, n)
	}
	return gone, come
}

// chunk is how many elements fit into one message (16-bit attribute lengths).
const chunk = 500

// elements adds messages of the type NFT_MSG_NEWSETELEM or NFT_MSG_DELSETELEM.
func (b *batch) elements(what int, set string, list []entry) {
	flags := 0
	if what == unix.NFT_MSG_NEWSETELEM {
		flags = unix.NLM_F_CREATE
	}
	for len(list) > 0 {
		n := min(chunk, len(list))
		b.add(what, flags, setHead(set).nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, listOf(list[:n], flags == 0)))
		list = list[n:]
	}
}

// listOf writes entries, or only their keys: to delete or ask for one needs
// no more.
func listOf(list []entry, keys bool) (a attributes) {
	for _, e := range list {
		elem := attributes(nil).value(unix.NFTA_SET_ELEM_KEY, e.key)
		if e.expires != 0 && !keys {
			elem = elem.long(unix.NFTA_SET_ELEM_TIMEOUT, uint64(e.expires/time.Millisecond))
		}
		if e.packets != 0 && !keys {
			elem = elem.nest(unix.NFTA_SET_ELEM_EXPR, attributes(nil).text(unix.NFTA_EXPR_NAME, "counter").
				nest(unix.NFTA_EXPR_DATA, attributes(nil).long(unix.NFTA_COUNTER_PACKETS, e.packets)))
		}
		if e.value != nil && !keys {
			elem = elem.value(unix.NFTA_SET_ELEM_DATA, e.value)
		}
		a = a.nest(unix.NFTA_LIST_ELEM, elem)
	}
	return a
}
