package firewall

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/portmap"
)

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
			c.gone = append(c.gone, ways(have)...)
			c.active[m.Key] = nil
			for _, one := range single(&have) {
				src := sourceOf(one)
				c.sources[src] = slices.DeleteFunc(slices.Clone(c.owners(s, src)), func(k portmap.Key) bool { return k == m.Key })
			}
		}
	}
	if add == nil || !add.Enabled || !n.OnLink(add.Client) || !oneFamily(add) {
		c.follow(s)
		return c
	}
	c.come = append(c.come, ways(*add)...)
	c.active[add.Key] = add
	for _, one := range single(add) {
		if one.Pinhole.IsValid() {
			break
		}
		src := sourceOf(one)
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
			c.gone = append(c.gone, snat(*before, src.port, c.external))
		}
		if after != nil {
			c.come = append(c.come, snat(*after, src.port, c.external))
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
		for src, keys := range s.sources {
			if s.external.Is4() {
				list = append(list, snat(s.active[keys[0]], src.port, s.external))
			}
		}
		return list
	}
	for _, m := range s.active {
		for _, e := range ways(m) {
			if e.set == set {
				list = append(list, e)
			}
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
	want := map[string]entry{}
	for _, e := range s.all(set) {
		n := e.entry(now)
		want[n.id()] = n
	}
	packets := map[string]uint64{}
	seen := map[string]bool{} // a dump may show an element twice while the map grows
	for _, h := range have {
		id := h.id()
		if seen[id] {
			continue
		}
		seen[id] = true
		e, ok := want[id]
		if ok && bytes.Equal(e.value, h.value) && (h.expires-e.expires).Abs() < slack {
			delete(want, id)
			continue
		}
		gone = append(gone, h)
		packets[id] = h.packets
	}
	for id, n := range want {
		n.packets = packets[id]
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
		if e.last != nil {
			elem = elem.value(setElemKeyEnd, e.last)
		}
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
