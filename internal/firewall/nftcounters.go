package firewall

import (
	"github.com/linux-igd/upnpd/internal/portmap"
)

// Packets gives the packets that each mapping has redirected: the first of
// every connection, since NAT sees no others; of a pinhole all that came in. The kernel keeps the number, across
// renewals and runs. Kernels without counters in maps count nothing.
func (f *NFTables) Packets() (map[portmap.Key]uint64, error) {
	packets := map[string]uint64{}
	for _, name := range f.sets() {
		if name == snat4 { // counts nothing
			continue
		}
		elements, err := f.readSet(name)
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			packets[name+e.id()] = e.packets
		}
	}
	all := map[portmap.Key]uint64{}
	for k, m := range f.state.active {
		for _, e := range ways(m) {
			all[k] += packets[e.set+e.entry(0).id()]
		}
	}
	return all, nil
}

// keepCounts lets the elements that a transaction writes anew begin with what
// they have counted.
func (f *NFTables) keepCounts(set string, gone, come []entry) {
	for i := range come {
		for _, g := range gone {
			if set != snat4 && f.layout.counters && g.id() == come[i].id() {
				come[i].packets = f.packets(set, g)
			}
		}
	}
}

// packets asks the kernel for the counter of one element; 0 when it cannot say.
func (f *NFTables) packets(set string, e entry) uint64 {
	elements, err := f.read(0, set, []entry{e})
	if err != nil || len(elements) != 1 {
		return 0
	}
	return elements[0].packets
}
