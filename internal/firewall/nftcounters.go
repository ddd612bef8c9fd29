package firewall

import (
	"github.com/linux-igd/upnpd/internal/portmap"
)

// Counters gives the packets that each mapping has redirected: the first of
// every connection, since NAT sees no others. Kernels without counters in maps
// count nothing.
func (f *NFTables) Counters() (map[portmap.Key]uint64, error) {
	packets := map[string]uint64{}
	for _, name := range []string{dnat4, dnat4from} {
		elements, err := f.readMap(name)
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			packets[name+string(e.key)] = e.packets
		}
	}
	all := map[portmap.Key]uint64{}
	for k, m := range f.state.active {
		e := dnat(m)
		all[k] = f.counted[k] + packets[e.set+string(e.key())]
	}
	return all, nil
}

// rewritten gives what the elements that a transaction writes anew have counted:
// their counters begin at zero again.
func (f *NFTables) rewritten(c changes) map[portmap.Key]uint64 {
	lost := map[portmap.Key]uint64{}
	for k, m := range c.active {
		if have, was := f.state.active[k]; was && m != nil && f.layout.counters {
			lost[k] = f.packets(dnat(have))
		}
	}
	return lost
}

// rewrittenIn is rewritten for the elements that Sync takes out of one map.
func (f *NFTables) rewrittenIn(set string, gone []entry, lost map[portmap.Key]uint64) {
	packets := map[string]uint64{}
	for _, e := range gone {
		if e.packets > 0 {
			packets[string(e.key)] = e.packets
		}
	}
	if len(packets) == 0 {
		return
	}
	for k, m := range f.state.active {
		if e := dnat(m); e.set == set {
			lost[k] += packets[string(e.key())]
		}
	}
}

// addUp keeps what was lost.
func (f *NFTables) addUp(lost map[portmap.Key]uint64) {
	for k, n := range lost {
		if n > 0 {
			f.counted[k] += n
		}
	}
}

// packets asks the kernel for the counter of one element; 0 when it cannot say.
func (f *NFTables) packets(e element) uint64 {
	elements, err := f.read(0, e.set, e.key())
	if err != nil || len(elements) != 1 {
		return 0
	}
	return elements[0].packets
}
