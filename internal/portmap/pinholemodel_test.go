//go:build go1.25

package portmap_test

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// pinhole asks for one, at times from another address.
func (a *actor) pinhole() {
	req := pin(pick(a.r, ann6, ann6, anna6, annl6, bob6, bob6, netip.MustParseAddr("2001:db8:3::1")), uint16(1020+a.r.IntN(10)))
	req.Protocol = pick(a.r, portmap.TCP, portmap.UDP)
	req.RemoteHost, req.RemotePort = pick(a.r, netip.Addr{}, netip.Addr{}, peer6), pick(a.r, uint16(0), 0, 4000)
	req.Lease = time.Duration(a.r.IntN(120)) * time.Second
	req.From = pick(a.r, req.Client, req.Client, req.Client, ann, anna6, bob6)
	a.ask(req)
}

// byID asks for, renews or deletes a pinhole by its UniqueID.
func (a *actor) byID() {
	id, from, lease := uint16(a.r.IntN(1<<16)), pick(a.r, ann, ann6, anna6, bob6), time.Duration(1+a.r.IntN(120))*time.Second
	if pinned := a.m.all()[len(a.m.ofIPv4()):]; len(pinned) > 0 {
		id = pick(a.r, pinned...).ID
	}
	var want error
	i := slices.IndexFunc(a.m.list, func(o portmap.Mapping) bool { return isPinhole(o) && o.ID == id })
	switch {
	case i < 0:
		want = portmap.ErrNoEntry
	case a.m.policy.Secure && a.m.list[i].Client != from && !annAlone(a.m.list[i].Client, from):
		want = portmap.ErrNotAuthorized
	}
	if got, err := a.w.Pinhole(id, from); !errors.Is(err, want) || err == nil && got != a.m.list[i] {
		a.t.Fatalf("Pinhole %d for %v: %+v, %v, want %v", id, from, got, err, want)
	}
	remove := a.r.IntN(3) == 0
	switch {
	case want != nil:
	case !remove && a.m.away[a.m.list[i].Key]:
		want = portmap.ErrNotLANHost
	case a.broken:
		want = portmap.ErrFirewall
	}
	var err error
	if remove {
		err = a.w.DeletePinhole(id, from)
	} else {
		err = a.w.UpdatePinhole(id, lease, from)
	}
	if a.unsure && errors.Is(err, portmap.ErrFirewall) {
		return
	}
	if !errors.Is(err, want) {
		a.t.Fatalf("pinhole %d by %v, delete %v: %v, want %v", id, from, remove, err, want)
	}
	switch {
	case err != nil:
	case remove:
		a.m.list = slices.Delete(a.m.list, i, i+1)
	default:
		o := &a.m.list[i]
		o.Deadline, o.Owner = a.now()+min(lease, a.m.policy.MaxLease), from
		if a.m.policy.Secure {
			o.Owner = o.Client
		}
	}
}

// unmappingRange ends some of a client's own.
func (a *actor) unmappingRange() {
	p, from, first := pick(a.r, portmap.TCP, portmap.UDP), a.client(), uint16(1020+a.r.IntN(30))
	last := first + uint16(a.r.IntN(8))
	picked := func(o portmap.Mapping) bool {
		return !isPinhole(o) && o.Protocol == p && o.Client == from && first <= o.ExternalPort && int(o.ExternalPort)+portsOf(o)-1 <= int(last)
	}
	var want error
	switch {
	case !slices.ContainsFunc(a.m.list, picked):
		want = portmap.ErrNoEntry
	case a.broken:
		want = portmap.ErrFirewall
	}
	n, err := a.w.UnmapRange(p, first, last, from)
	if a.unsure && errors.Is(err, portmap.ErrFirewall) {
		return
	}
	before := len(a.m.list)
	if want == nil {
		a.gone(picked)
	}
	if !errors.Is(err, want) || n != before-len(a.m.list) {
		a.t.Fatalf("unmap %v %d to %d by %v: %d, %v, want %v", p, first, last, from, n, err, want)
	}
}

// move changes the network. Pinholes of a prefix that is gone end 30 seconds later
// (PIN-10).
func (a *actor) move() {
	before := len(a.m.lans)
	a.m.lans = pick(a.r, home.LANs, home.LANs, home.LANs[:3])
	gone := before == 4 && len(a.m.lans) == 3
	if gone || len(a.m.lans) == 4 {
		a.m.away = map[portmap.Key]bool{}
	}
	for _, o := range a.m.list {
		if gone && o.Pinhole == annl6 {
			a.m.away[o.Key], a.m.awayAt = true, a.now()+30*time.Second
		}
	}
	a.w.SetNetwork(portmap.Network{External: pick(a.r, home.External, peer1, peer2), LANs: a.m.lans})
}
