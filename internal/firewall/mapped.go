package firewall

import (
	"errors"
	"net/netip"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// mapped is what identifies a mapping's connections.
type mapped struct {
	proto    uint8
	remote   netip.Addr     // RemoteHost; the zero Addr: any
	bits     uint8          // RemoteBits; 0: remote is one host, or any
	external netip.AddrPort // where peers send to
	client   netip.AddrPort // where they are redirected to; a pinhole's is the same

	remotePort uint16 // 0: any
}

// change is a mapping that ends or begins.
type change struct {
	mapped
	begun bool
}

// pinhole: nothing is redirected, so nobody has known the connections as others
// before, and what the client sends out from its port is its own matter.
func (m mapped) pinhole() bool { return m.client.Addr().Is6() }

// newMapped is about m, at an address of the uplink if it is no pinhole.
func newMapped(external netip.Addr, m *portmap.Mapping) mapped {
	if m.Pinhole.IsValid() {
		external = m.Pinhole
	}
	return mapped{
		proto: uint8(m.Protocol), remote: m.RemoteHost, bits: m.RemoteBits, remotePort: m.RemotePort,
		external: netip.AddrPortFrom(external, m.ExternalPort),
		client:   netip.AddrPortFrom(m.Client, m.InternalPort),
	}
}

// inward and outward are the original tuples of its connections: inward, with a
// peer that is one of the remote hosts.
func (m mapped) inward() tuple {
	return tuple{m.proto, netip.AddrPortFrom(m.host(), m.remotePort), m.external}
}

// onePeer: the client's connections to that one are its own matter, whoever may come
// in: PCP's PEER is asked for those that there are.
func (m mapped) onePeer() bool { return m.remotePort != 0 && m.host().IsValid() }

func (m mapped) outward() tuple {
	return tuple{m.proto, m.client, netip.AddrPortFrom(m.host(), 0)}
}

// host is the remote host if it is a single one.
func (m mapped) host() netip.Addr {
	if m.bits != 0 {
		return netip.Addr{}
	}
	return m.remote
}

// peer reports whether a is one of the remote hosts, as far as there is a prefix.
func (m mapped) peer(a netip.Addr) bool {
	p, _ := a.Prefix(int(m.bits))
	return m.bits == 0 || p.Addr() == m.remote
}

// single gives each port of a mapping as a mapping.
func single(m *portmap.Mapping) []portmap.Mapping {
	all := make([]portmap.Mapping, max(1, m.Ports))
	for i := range all {
		one := &all[i]
		*one = *m
		one.ExternalPort += uint16(i)
		one.InternalPort += uint16(i)
		one.Ports = 0
	}
	return all
}

// filters gives the dumps that show all connections of the batch, which is of one
// family, and few more: of what its mappings have in common. In IPv6 the kernel is
// asked for protocol and ports only: with an address it shows all connections but
// those that have it (seen with Linux 6.18).
func filters(batch []change) []tuple {
	var in, out tuple
	ended := 0
	for i, m := range batch {
		if i == 0 {
			in = m.inward()
		}
		in = in.common(m.inward())
		if m.begun || m.pinhole() || m.onePeer() {
			continue
		}
		if ended++; ended == 1 {
			out = m.outward()
		}
		out = out.common(m.outward())
	}
	switch {
	case batch[0].pinhole():
		return []tuple{{in.proto, netip.AddrPortFrom(netip.Addr{}, in.src.Port()), netip.AddrPortFrom(netip.Addr{}, in.dst.Port())}}
	case ended == 0:
		return []tuple{in}
	case !out.src.Addr().IsValid(): // several clients: nearly everything
		return []tuple{{}}
	}
	return []tuple{in, out}
}

// matcher finds the mapping of a connection by the address and port at one end.
type matcher map[tuple][]change

func newMatcher(batch []change) matcher {
	w := matcher{}
	for _, m := range batch {
		in := tuple{proto: m.proto, dst: m.external}
		w[in] = append(w[in], m)
		if !m.begun && !m.pinhole() && !m.onePeer() {
			out := tuple{proto: m.proto, src: m.client}
			w[out] = append(w[out], m)
		}
	}
	return w
}

// wants reports whether the connection c ends. Its replies come from where it
// was redirected to, and go to what its source was changed into.
func (w matcher) wants(c flow) bool {
	for _, m := range w[tuple{proto: c.orig.proto, dst: c.orig.dst}] {
		redirected := c.reply.src == m.client && !m.begun
		if m.inward().has(c.orig) && m.peer(c.orig.src.Addr()) && (redirected || c.reply.src == m.external) {
			return true
		}
	}
	for _, m := range w[tuple{proto: c.orig.proto, src: c.orig.src}] {
		if m.outward().has(c.orig) && c.reply.dst == m.external {
			return true
		}
	}
	return false
}

// inForce knows which mappings are in the kernel, and has Flows do what follows
// from each change of them.
type inForce struct {
	flows   *Flows
	network portmap.Network
	mapped  map[mapped]uint16 // the first external port of the PORT_SET, or their own; 0: of an earlier run
}

func newInForce(flows *Flows) *inForce {
	return &inForce{flows: flows, mapped: map[mapped]uint16{}}
}

// of gives what identifies the connections of each port of m; none: m is not in
// the kernel.
func (f *inForce) of(m *portmap.Mapping) (all []mapped) {
	if !m.Enabled || !f.network.External.IsValid() && !m.Pinhole.IsValid() || !f.network.OnLink(m.Client) {
		return nil
	}
	for _, one := range single(m) {
		all = append(all, newMapped(f.network.External, &one))
	}
	return all
}

// adopt notes what an earlier run has left.
func (f *inForce) adopt(m mapped) { f.mapped[m] = 0 }

func (f *inForce) has(m mapped) bool {
	_, ok := f.mapped[m]
	return ok
}

// change follows a portmap.Firewall's Change that the kernel has taken. A
// renewal ends nothing.
func (f *inForce) change(remove []portmap.Mapping, add *portmap.Mapping) {
	var added []mapped
	if add != nil {
		added = f.of(add)
	}
	for i := range remove {
		for _, m := range f.of(&remove[i]) {
			stays := !f.has(m)
			for _, a := range added {
				stays = stays || a == m
			}
			if !stays {
				delete(f.mapped, m)
				f.flows.end(m)
			}
		}
	}
	for _, m := range added {
		if !f.has(m) {
			f.flows.begin(m)
		}
		f.mapped[m] = add.ExternalPort
	}
}

// sync follows a portmap.Firewall's Sync that the kernel has taken. What was
// mapped at another address of the uplink ends.
func (f *inForce) sync(n portmap.Network, all []portmap.Mapping) {
	before := f.mapped
	f.network, f.mapped = n, make(map[mapped]uint16, len(all))
	for i := range all {
		for _, m := range f.of(&all[i]) {
			f.mapped[m] = all[i].ExternalPort
		}
	}
	for m := range before {
		if !f.has(m) {
			f.flows.end(m)
		}
	}
	for m := range f.mapped {
		if _, was := before[m]; !was {
			f.flows.begin(m)
		}
	}
}

// close ends everything, and Flows.
func (f *inForce) close() error {
	f.sync(portmap.Network{}, nil)
	return errors.Join(f.flows.forget(), f.flows.Close())
}
