//go:build go1.25

package portmap_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/portmap/portmaptest"
)

// flow is a connection that the model knows of.
type flow struct {
	protocol     portmap.Protocol
	client, peer netip.AddrPort
}

// lets reports whether what has a filter lets the one peer of req in.
func lets(o, req portmap.Mapping) bool {
	bits := int(o.RemoteBits)
	if bits == 0 {
		bits = o.RemoteHost.BitLen()
	}
	return o.Enabled && (o.RemotePort == 0 || o.RemotePort == req.RemotePort) &&
		(!o.RemoteHost.IsValid() || netip.PrefixFrom(o.RemoteHost, bits).Contains(req.RemoteHost))
}

// sides reports whether two mappings of one client may share its external port, if
// one of them is by PCP.
func sides(a, b portmap.Mapping) bool {
	if isPinhole(a) {
		return !sameRemote(a, b)
	}
	if b.Peer {
		a, b = b, a
	}
	switch {
	case a.Origin != portmap.PCP || b.Origin != portmap.PCP || !a.Peer || sameRemote(a, b), a.ExternalPort-a.InternalPort != b.ExternalPort-b.InternalPort:
		return false
	case b.Peer || b.RemoteHost.IsValid() && b.RemoteBits == 0 && b.RemotePort == 0:
		return true
	}
	return !b.RemoteHost.IsValid() && b.RemotePort == 0 || !lets(b, a) // one interval of the kernel's would lie in the other
}

// siblings gives the external ports that a new mapping must have beside those that
// there are.
func (m *model) siblings(req portmap.Request) (ports []uint16) {
	for _, o := range m.list {
		if inside(o, req.Protocol, req.Client, int(req.InternalPort)) && req.Origin == portmap.PCP && (req.Peer || o.Peer) {
			ports = append(ports, part(o, req.Mapping).ExternalPort)
		}
	}
	return ports
}

// holders gives the mappings that a request for the internal port may meet: those
// of the first origin in the order that has any. What is PEER's only a MAP for the
// same peer meets, where there is no other.
func (m *model) holders(p portmap.Protocol, client netip.Addr, internal int, by portmap.Origin, asked *portmap.Mapping) (found []portmap.Mapping) {
	const peers = 0
	order := [][]portmap.Origin{{portmap.PCP}, {peers}, {portmap.UPnP}, {portmap.NATPMP}}
	if by == portmap.NATPMP {
		order = [][]portmap.Origin{{portmap.NATPMP}, {portmap.UPnP, portmap.PCP}}
	}
	for _, origins := range order {
		for _, o := range m.list {
			as := o.Origin
			if o.Peer {
				as = peers
			}
			if !inside(o, p, client, internal) || !slices.Contains(origins, as) || by == portmap.NATPMP && !o.Enabled {
				continue
			}
			if o.Peer && (asked == nil || !sameRemote(o, *asked)) {
				continue
			}
			if o.Origin == portmap.UPnP && asked != nil && isPinhole(o) && !sameRemote(o, *asked) {
				continue
			}
			found = append(found, o)
		}
		if found != nil {
			return found
		}
	}
	return nil
}

// peers gives what PEER made for a client's port: nobody may end it (PEER-1).
func (m *model) peers(p portmap.Protocol, client netip.Addr, internal int) (found []portmap.Mapping) {
	for _, o := range m.list {
		if o.Peer && inside(o, p, client, internal) {
			found = append(found, o)
		}
	}
	return found
}

// create says whether a mapping may be made for a request that finds none of its
// own.
func (m *model) create(req *portmap.Request) error {
	ports := m.siblings(*req)
	if ports == nil {
		return m.place(*req)
	}
	if req.Ports = 0; req.Prefer && !slices.Contains(ports, req.ExternalPort) {
		return portmap.ErrCannotProvide
	}
	for _, o := range m.list {
		next := req.Mapping
		if next.ExternalPort = ports[0]; has(o, req.Protocol, int(next.ExternalPort), req.Pinhole) && !sides(o, next) {
			return portmap.ErrFilters
		}
	}
	switch own, all := m.left(req.Client); {
	case all < 1:
		return portmap.ErrFull
	case own < 1:
		return portmap.ErrQuota
	}
	return nil
}

// spot gives any port of the client, or often one where somebody has a mapping.
func (a *actor) spot(client netip.Addr, often int) (netip.Addr, uint16) {
	if len(a.m.list) > 0 && a.r.IntN(often+1) > 0 {
		o := pick(a.r, a.m.list...)
		return o.Client, o.InternalPort + uint16(a.r.IntN(portsOf(o)))
	}
	return client, uint16(1020 + a.r.IntN(30))
}

// peering asks by PCP's PEER.
func (a *actor) peering() {
	client, internal := a.spot(pick(a.r, a.client(), ann, ann6), 3)
	req := pcpAsk(client, internal, pick(a.r, 0, 0, 0, uint16(1020+a.r.IntN(30))), pick[byte](a.r, 'a', 'a', 'a', 'b'))
	req.Peer, req.Prefer, req.Protocol = true, true, pick(a.r, portmap.TCP, portmap.UDP)
	req.RemoteHost, req.RemotePort = pick(a.r, peer1, peer2, peer3, netip.MustParseAddr("11.0.1.9")), pick[uint16](a.r, 7, 8)
	if client.Is6() {
		req.RemoteHost, req.Pinhole = pick(a.r, peer6, peer6.Next()), client
	}
	req.Lease, req.Description = time.Duration(a.r.IntN(120))*time.Second, pick(a.r, "", "a", "b")
	got, err := a.w.MapInternal(req)
	if a.unsure && errors.Is(err, portmap.ErrFirewall) {
		return
	}
	if req.ExternalPort == 0 {
		req.ExternalPort, req.Prefer = req.InternalPort, false
	}
	there, foreign := a.letting(req.Mapping)
	var want error
	switch {
	case !slices.ContainsFunc(a.m.lans, func(p netip.Prefix) bool { return p.Contains(client) }):
		want = portmap.ErrNotLANHost
	case there != nil:
		a.let(req, there, got, err)
		return
	case foreign:
		want = portmap.ErrCannotProvide
	case req.Lease == 0:
		want = portmap.ErrNoEntry
	default:
		want = a.outgoing(&req)
	}
	if want == nil && a.broken {
		want = portmap.ErrFirewall
	}
	if !errors.Is(err, want) {
		a.t.Fatalf("%+v: %+v, %v, want %v; table %+v", req, got, err, want, a.m.list)
	}
	if err == nil {
		a.placed(req, got)
	}
}

// outgoing says whether a mapping may be made, by the connection that there is.
func (a *actor) outgoing(req *portmap.Request) error {
	if isPinhole(req.Mapping) {
		return a.m.create(req)
	}
	port := a.m.leaves[flow{req.Protocol, netip.AddrPortFrom(req.Client, req.InternalPort), netip.AddrPortFrom(req.RemoteHost, req.RemotePort)}]
	switch {
	case a.broken: // so there is no answer
		return portmap.ErrFirewall
	case port == 0:
	case req.Prefer && req.ExternalPort != port:
		return portmap.ErrCannotProvide
	default:
		req.ExternalPort, req.Prefer = port, true
	}
	return a.m.create(req)
}

// letting gives what lets the peer in: what PEER made for it, or all else that does;
// foreign: others have something there that does not.
func (a *actor) letting(req portmap.Mapping) (there []portmap.Mapping, foreign bool) {
	for _, o := range a.m.list {
		switch {
		case !inside(o, req.Protocol, req.Client, int(req.InternalPort)):
		case o.Peer && sameRemote(o, req):
			return []portmap.Mapping{o}, false
		case lets(o, req):
			there = append(there, o)
		default:
			foreign = foreign || o.Origin != portmap.PCP && !isPinhole(o)
		}
	}
	return there, foreign
}

// let checks what PEER is told of what lets its peer in already: it may be longer,
// never shorter.
func (a *actor) let(req portmap.Request, there []portmap.Mapping, got portmap.Mapping, err error) {
	longer := there[0].Peer && req.Lease != 0 && a.now()+min(req.Lease, a.m.policy.MaxLease) > there[0].Deadline
	if longer && there[0].Nonce == req.Nonce && a.broken {
		if !errors.Is(err, portmap.ErrFirewall) {
			a.t.Fatalf("%+v: %v of %+v", req, err, there)
		}
		return
	}
	if longer && err == nil && there[0].Nonce == req.Nonce {
		a.renewed(req, there[0], got)
		return
	}
	if !slices.ContainsFunc(there, func(o portmap.Mapping) bool {
		var want error
		if o.Origin == portmap.PCP && o.Nonce != req.Nonce {
			want = portmap.ErrNonce
		}
		return errors.Is(err, want) && part(o, req.Mapping) == got
	}) {
		a.t.Fatalf("%+v: %+v, %v of %+v", req, got, err, there)
	}
}

// leaving lets a client's connection leave from a port.
func (a *actor) leaving() {
	f := flow{portmap.TCP, netip.AddrPortFrom(a.client(), uint16(1020+a.r.IntN(30))), netip.AddrPortFrom(pick(a.r, peer1, peer2), 7)}
	port := uint16(1020 + a.r.IntN(30))
	for _, f.protocol = range []portmap.Protocol{portmap.TCP, portmap.UDP} { // the test's kernel does not tell them apart
		a.m.leaves[f] = port
	}
	a.w.fw.Leaves(f.client, f.peer, port)
}

// restarts wants a table that reads the leases to be the same.
func (a *actor) restarts(t *testing.T) {
	t.Helper()
	f := portmap.LeaseFile{Path: t.TempDir() + "/leases", BootID: "boot", Now: a.now}
	want := a.w.List()
	if err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	all, bad, err := f.Read(100)
	if err != nil || bad != nil {
		t.Fatal(bad, err)
	}
	p := a.m.policy
	p.MaxLease, p.Secure = time.Hour, false // as it was when they were made
	fw := portmaptest.New(t)
	next := portmap.New(portmap.Config{Firewall: fw, Policy: p, Now: a.now, Logf: func(string, ...any) {}})
	if dropped := next.Restore(all); dropped != nil {
		t.Fatalf("not restored: %v; of %+v", dropped, want)
	}
	if err := next.SetNetwork(home); err != nil || !slices.Equal(next.List(), want) {
		t.Fatalf("restored\n%+v, %v, want\n%+v", next.List(), err, want)
	}
}
