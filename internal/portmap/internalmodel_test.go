//go:build go1.25

package portmap_test

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// heldPort is an external port that the model keeps for a client.
type heldPort struct {
	protocol portmap.Protocol
	port     int
	client   netip.Addr
	until    time.Duration
}

func first(m portmap.Mapping) int   { return int(m.ExternalPort) }
func last(m portmap.Mapping) int    { return int(m.ExternalPort) + portsOf(m) - 1 }
func portsOf(m portmap.Mapping) int { return max(1, int(m.Ports)) }

func sameRemote(a, b portmap.Mapping) bool {
	return a.RemoteHost == b.RemoteHost && a.RemoteBits == b.RemoteBits && a.RemotePort == b.RemotePort
}

// has reports whether the mapping has the external port, of IPv4 or of a host.
func has(m portmap.Mapping, p portmap.Protocol, port int, pinned netip.Addr) bool {
	return m.Protocol == p && m.Pinhole == pinned && first(m) <= port && port <= last(m)
}

// inside reports whether the mapping has the internal port of the client.
func inside(m portmap.Mapping, p portmap.Protocol, client netip.Addr, internal int) bool {
	return m.Protocol == p && m.Client == client && int(m.InternalPort) <= internal && internal < int(m.InternalPort)+portsOf(m)
}

// keeps reports whether an IPv4 port without a mapping is kept from the client.
func (m *model) keeps(p portmap.Protocol, port int, client netip.Addr, by portmap.Origin) bool {
	return slices.ContainsFunc(m.held, func(h heldPort) bool { // MAP-11
		return h.protocol == p && h.port == port && h.client != client && h.until > m.now()
	}) || slices.ContainsFunc(m.list, func(o portmap.Mapping) bool { // PMP-11
		return has(o, portmap.TCP+portmap.UDP-p, port, netip.Addr{}) && o.Client != client && (o.Origin == portmap.NATPMP || by == portmap.NATPMP)
	})
}

// conflict reports whether UPnP must not have the port.
func (m *model) conflict(req portmap.Request) bool {
	return !isPinhole(req.Mapping) && m.keeps(req.Protocol, first(req.Mapping), req.Client, req.Origin) ||
		slices.ContainsFunc(m.list, func(o portmap.Mapping) bool {
			return has(o, req.Protocol, first(req.Mapping), req.Pinhole) &&
				(o.Client != req.Client || o.Origin == portmap.PCP && !sides(o, req.Mapping)) // WIP-2, issue 7.3
		})
}

// available reports whether NAT-PMP or PCP may have the IPv4 port.
func (m *model) available(req portmap.Request, port int) bool {
	return port >= 1024 && port <= 65535 && !m.used[uint16(port)] && !m.keeps(req.Protocol, port, req.Client, req.Origin) &&
		!slices.ContainsFunc(m.list, func(o portmap.Mapping) bool { return has(o, req.Protocol, port, netip.Addr{}) })
}

// left gives how many more ports a client may have, by its own quota and by that
// of the table: pinholes are at most half of all.
func (m *model) left(client netip.Addr) (own, all int) {
	own, all = m.policy.MaxPerClient, m.policy.MaxMappings
	pinned := (all + 1) / 2
	for _, o := range m.list {
		n := portsOf(o)
		if all -= n; o.Client == client {
			own -= n
		}
		if isPinhole(o) {
			pinned -= n
		}
	}
	if client.Is6() {
		all = min(all, pinned)
	}
	return own, all
}

// ended notes a mapping that was deleted.
func (m *model) ended(o portmap.Mapping) {
	if isPinhole(o) || o.Origin == portmap.UPnP {
		return
	}
	for port := first(o); port <= last(o); port++ {
		m.held = slices.DeleteFunc(m.held, func(h heldPort) bool { return h.protocol == o.Protocol && h.port == port })
		m.held = append(m.held, heldPort{o.Protocol, port, o.Client, m.now() + 2*time.Minute})
	}
}

// part is what a request for some of a mapping's ports learns of it.
func part(o portmap.Mapping, asked portmap.Mapping) portmap.Mapping {
	skip := asked.InternalPort - o.InternalPort
	n := min(portsOf(o)-int(skip), portsOf(asked))
	o.InternalPort += skip
	o.ExternalPort += skip
	if o.Ports = uint16(n); n == 1 {
		o.Ports = 0
	}
	return o
}

// internal asks by NAT-PMP or PCP.
func (a *actor) internal() {
	client, internal := a.spot(a.client(), 4)
	suggested := pick(a.r, 0, uint16(1020+a.r.IntN(30)))
	req := pmpAsk(client, internal, suggested)
	if client.Is6() || a.r.IntN(3) > 0 {
		req = pcpAsk(pick(a.r, client, client, client, ann6, anna6, annl6, bob6), internal, suggested, pick[byte](a.r, 'a', 'a', 'a', 'b'))
		req.Prefer, req.NoFilter = a.r.IntN(4) == 0, a.r.IntN(8) == 0
		req.Ports, req.Description = pick[uint16](a.r, 0, 0, 3), pick(a.r, "", "", "a", "b")
		switch {
		case req.Client.Is6():
			req.RemoteHost, req.RemotePort = pick(a.r, netip.Addr{}, peer6), pick[uint16](a.r, 0, 0, 7)
		case a.r.IntN(6) == 0:
			fromNet(&req)
		case a.r.IntN(4) == 0:
			req.RemoteHost, req.RemotePort = pick(a.r, netip.Addr{}, peer1), pick[uint16](a.r, 0, 7)
		}
	}
	req.Protocol = pick(a.r, portmap.TCP, portmap.UDP)
	req.Lease = time.Duration(1+a.r.IntN(120)) * time.Second
	got, err := a.w.MapInternal(req)
	if a.unsure && errors.Is(err, portmap.ErrFirewall) {
		return
	}
	if req.ExternalPort == 0 {
		req.ExternalPort, req.Prefer = req.InternalPort, false
	}
	if req.Client.Is6() {
		req.Pinhole = req.Client
	}
	there := a.m.holders(req.Protocol, req.Client, int(internal), req.Origin, &req.Mapping)
	var want error
	switch {
	case !slices.ContainsFunc(a.m.lans, func(p netip.Prefix) bool { return p.Contains(req.Client) }):
		want = portmap.ErrNotLANHost
	case there == nil:
		want = a.m.create(&req)
	case req.Origin == portmap.NATPMP && there[0].Origin != portmap.NATPMP:
		if err != nil || !slices.ContainsFunc(there, func(o portmap.Mapping) bool { return part(o, req.Mapping) == got }) {
			a.t.Fatalf("NAT-PMP gets %+v, %v of %+v", got, err, there)
		}
		return
	default:
		want = a.m.renew(&req, there[0])
	}
	if want == nil && a.broken {
		want = portmap.ErrFirewall
	}
	if !errors.Is(err, want) {
		a.t.Fatalf("%+v: %+v, %v, want %v; table %+v", req, got, err, want, a.m.list)
	}
	switch {
	case errors.Is(err, portmap.ErrNonce):
		if !slices.ContainsFunc(there, func(o portmap.Mapping) bool { return part(o, req.Mapping) == got }) {
			a.t.Fatalf("%+v: %v with %+v of %+v", req, err, got, there)
		}
	case err != nil:
	case there != nil:
		a.renewed(req, there[0], got)
	default:
		a.placed(req, got)
	}
}

// place says whether there is something for a request that is the first of its
// internal port.
func (m *model) place(req portmap.Request) error {
	own, all := m.left(req.Client)
	switch {
	case all < 1:
		return portmap.ErrFull
	case own < 1:
		return portmap.ErrQuota
	case isPinhole(req.Mapping) && req.Prefer && req.ExternalPort != req.InternalPort:
		return portmap.ErrCannotProvide
	case !isPinhole(req.Mapping) && req.Prefer && (!m.available(req, first(req.Mapping)) || req.InternalPort < 1024):
		return portmap.ErrCannotProvide
	case req.InternalPort < 1024:
		return portmap.ErrDenied
	}
	return nil
}

// most is how many ports of a set there are for a new one.
func (m *model) most(req portmap.Request) int {
	own, all := m.left(req.Client)
	n := min(portsOf(req.Mapping), all, own)
	for i := 1; i < n; i++ {
		if slices.ContainsFunc(m.list, func(o portmap.Mapping) bool { return inside(o, req.Protocol, req.Client, int(req.InternalPort)+i) }) {
			return i
		}
	}
	return n
}

// placed checks and records a new mapping.
func (a *actor) placed(req portmap.Request, got portmap.Mapping) {
	n, wished := a.m.most(req), 0
	beside := a.m.siblings(req)
	for wished < n && a.m.available(req, first(req.Mapping)+wished) {
		wished++
	}
	switch {
	case isPinhole(req.Mapping):
		req.ExternalPort = req.InternalPort
	case slices.Contains(beside, got.ExternalPort):
		req.ExternalPort = got.ExternalPort
	case req.Prefer:
		n = wished
	case wished < n: // anywhere else
		req.ExternalPort = got.ExternalPort
		for i := range n {
			if !a.m.available(req, first(got)+i) {
				a.t.Fatalf("%+v is given %+v, table %+v", req, got, a.m.list)
			}
		}
	}
	if req.Ports = uint16(n); n == 1 {
		req.Ports = 0
	}
	req.Deadline, req.Owner, req.ID, req.Enabled = a.now()+min(req.Lease, a.m.policy.MaxLease), req.From, got.ID, true
	if got != req.Mapping || (got.ID != 0) != isPinhole(got) {
		a.t.Fatalf("given %+v, want %+v", got, req.Mapping)
	}
	if !isPinhole(got) {
		a.m.update++
	}
	a.m.list = append(a.m.list, got)
}

// renew says whether o is renewed by the request.
func (m *model) renew(req *portmap.Request, o portmap.Mapping) error {
	none := portmap.Mapping{}
	switch {
	case o.Origin == portmap.UPnP, o.Origin == portmap.PCP && o.Nonce != req.Nonce: // MAP-3
		return portmap.ErrNonce
	case req.Prefer && part(o, req.Mapping).ExternalPort != req.ExternalPort: // MAP-5
		return portmap.ErrCannotProvide
	case !req.NoFilter && !sameRemote(req.Mapping, none) && !sameRemote(o, none) && !sameRemote(o, req.Mapping): // MAP-13
		return portmap.ErrFilters
	}
	next := m.next(req, o)
	for _, other := range m.list {
		if other.Key == o.Key || req.Origin == portmap.NATPMP {
			continue
		}
		for port := first(o); port <= last(o); port++ {
			if has(other, o.Protocol, port, o.Pinhole) && !sides(other, next) {
				if other.Peer {
					return portmap.ErrFilters
				}
				return portmap.ErrNonce
			}
		}
	}
	return nil
}

// next is what o becomes.
func (m *model) next(req *portmap.Request, o portmap.Mapping) portmap.Mapping {
	if o.Origin != portmap.PCP {
		o.Nonce = req.Nonce
	}
	o.Origin, o.Peer = req.Origin, req.Peer
	if req.NoFilter || !sameRemote(req.Mapping, portmap.Mapping{}) {
		o.RemoteHost, o.RemoteBits, o.RemotePort = req.RemoteHost, req.RemoteBits, req.RemotePort
	}
	if req.Description != "" {
		o.Description = req.Description
	}
	o.Owner, o.Deadline = req.From, m.now()+min(req.Lease, m.policy.MaxLease)
	return o
}

func (a *actor) renewed(req portmap.Request, o, got portmap.Mapping) {
	i := slices.Index(a.m.list, o)
	a.m.list[i] = a.m.next(&req, o)
	if want := part(a.m.list[i], req.Mapping); got != want {
		a.t.Fatalf("renewed: %+v, want %+v", got, want)
	}
	if !isPinhole(o) {
		a.m.update++
	}
}

// unmappingInternal deletes by NAT-PMP or PCP.
func (a *actor) unmappingInternal() {
	p, client, internal := pick(a.r, portmap.TCP, portmap.UDP), a.client(), uint16(1020+a.r.IntN(30))
	by, nonce := pick(a.r, portmap.NATPMP, portmap.PCP), nonceOf(pick[byte](a.r, 'a', 'a', 'b'))
	if len(a.m.list) > 0 && a.r.IntN(4) > 0 {
		o := pick(a.r, a.m.list...)
		p, client, internal = o.Protocol, o.Client, o.InternalPort+uint16(a.r.IntN(portsOf(o)))
	}
	there := a.m.holders(p, client, int(internal), by, nil)
	if there == nil && by == portmap.PCP {
		there = a.m.peers(p, client, int(internal))
	}
	var want error
	switch {
	case there == nil:
		want = portmap.ErrNoEntry
	case there[0].Origin == portmap.UPnP, there[0].Peer, by == portmap.NATPMP && there[0].Origin == portmap.PCP:
		want = portmap.ErrNotAuthorized
	case there[0].Origin == portmap.PCP && there[0].Nonce != nonce:
		want = portmap.ErrNonce
	case a.broken:
		want = portmap.ErrFirewall
	}
	if m, err := a.w.LookupInternal(&portmap.Mapping{Key: portmap.Key{Protocol: p}, Client: client, InternalPort: internal, Origin: by}); there == nil && !errors.Is(err, portmap.ErrNoEntry) || there != nil && !slices.Contains(there, m) {
		a.t.Fatalf("LookupInternal: %+v, %v, want one of %+v", m, err, there)
	}
	err := a.w.UnmapInternal(p, client, internal, by, nonce)
	if a.unsure && errors.Is(err, portmap.ErrFirewall) {
		return
	}
	if !errors.Is(err, want) {
		a.t.Fatalf("unmap %v %v port %d by %v: %v, want %v; %+v", p, client, internal, by, err, want, there)
	}
	if err == nil {
		a.gone(func(o portmap.Mapping) bool { return o == there[0] })
	}
}

// unmappingAll deletes all that a client has by NAT-PMP.
func (a *actor) unmappingAll() {
	p, client := pick(a.r, portmap.TCP, portmap.UDP), a.client()
	kept, picked := 0, func(o portmap.Mapping) bool {
		return o.Protocol == p && o.Client == client && o.Origin == portmap.NATPMP
	}
	for _, o := range a.m.list {
		if o.Protocol == p && o.Client == client && !picked(o) {
			kept++
		}
	}
	var want error
	if a.broken && slices.ContainsFunc(a.m.list, picked) {
		want = portmap.ErrFirewall
	}
	n, err := a.w.UnmapAll(p, client)
	if a.unsure && errors.Is(err, portmap.ErrFirewall) {
		return
	}
	if !errors.Is(err, want) || n != kept {
		a.t.Fatalf("unmap all: %d, %v, want %d, %v", n, err, kept, want)
	}
	if err == nil {
		a.gone(picked)
	}
}

// gone ends mappings by one deletion.
func (a *actor) gone(picked func(portmap.Mapping) bool) {
	changed := false
	a.m.list = slices.DeleteFunc(a.m.list, func(o portmap.Mapping) bool {
		if !picked(o) {
			return false
		}
		a.m.ended(o)
		changed = changed || !isPinhole(o)
		return true
	})
	if changed {
		a.m.update++
	}
}
