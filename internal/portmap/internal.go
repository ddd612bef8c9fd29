package portmap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
)

// What NAT-PMP and PCP ask: a mapping is found by the client's own port.

// MapInternal maps InternalPort of Client for NAT-PMP or PCP, as req.Origin says.
// ExternalPort is a hint (0: none), unless Prefer is set. A client that has the
// port mapped already keeps the external port (SPEC PMP-8, MAP-5); it gets the
// part from InternalPort on, and not more ports than it asks for. A client of
// IPv6 gets a pinhole. What the kernel and other mappings leave of a PORT_SET is
// given, if it is one port at least. With Peer, what lets the peer in already is
// given as it is. Errors: ErrNonce, with the mapping that is there; ErrNoEntry, with
// Peer and no Lease; ErrCannotProvide, ErrFilters, ErrNotLANHost, ErrNotAuthorized,
// ErrDenied, ErrFull, ErrQuota, ErrFirewall.
func (t *Table) MapInternal(req Request) (Mapping, error) {
	t.mu.Lock()
	defer t.unlock()
	if req.Prefer = req.Prefer && req.ExternalPort != 0; req.ExternalPort == 0 {
		req.ExternalPort = req.InternalPort
	}
	if req.Pinhole = (netip.Addr{}); req.Client.Is6() {
		if req.Pinhole = req.Client; !req.Prefer {
			req.ExternalPort = req.InternalPort // so refusals name it
		}
	}
	req.Enabled, req.vouched, req.Ports = true, false, min(req.Ports, MaxPorts)
	what := req.wish()
	by, err := t.mapInternal(&req)
	m, err := t.answer(&req, what, by, err)
	if errors.Is(err, ErrNonce) {
		return req.Mapping, err
	}
	return m, err
}

// mapInternal makes of the request's mapping what is granted, or, with ErrNonce,
// what is there.
func (t *Table) mapInternal(req *Request) (by string, err error) {
	if !t.network.OnLink(req.Client) {
		return "", fmt.Errorf("%w: %v", ErrNotLANHost, req.Client)
	}
	wished, ports := req.ExternalPort, req.Ports // where they lie is not yet known
	req.ExternalPort, req.Ports = req.InternalPort, 0
	err = t.policy.entitled(req)
	if req.ExternalPort, req.Ports = wished, ports; err != nil {
		return "", err
	}
	if req.Peer {
		if by, err = t.peer(req); !errors.Is(err, ErrNoEntry) || req.Lease == 0 {
			return by, err
		}
		if err = t.leave(req); err != nil {
			return "", err
		}
	} else if e := t.holder(req.clientPort(0), req.Origin, &req.Mapping); e != nil {
		return t.renew(req, e)
	}
	if o := t.sibling(&req.Mapping); o != nil {
		err = t.join(req, o)
	} else {
		err = t.place(req)
	}
	if err != nil {
		return "", err
	}
	if by, err = t.policy.allow(req); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; %s", req.external(), by), t.grant(req, nil)
}

// clientPort is the place in Table.ports of the i-th port at the client.
func (m *Mapping) clientPort(i uint16) portKey {
	return portKey{m.Protocol, m.InternalPort + i, m.Client}
}

// holder finds the entry that has a client's port: one of the protocol that asks
// before any other, and NAT-PMP's last, since PCP takes it over. A pinhole for
// other remote hosts than those of m is no hindrance (nil: any is), nor is what
// PEER made for another peer, nor for the same one where there is a MAP; a mapping
// that forwards nothing does not help NAT-PMP.
func (t *Table) holder(k portKey, by Origin, m *Mapping) (found *entry) {
	for _, e := range t.ports[k] {
		switch {
		case e.Peer && (m == nil || by != PCP || !e.sameRemote(m)):
		case e.Origin == by && !e.Peer:
			return e
		case by == NATPMP && !e.Enabled || m != nil && e.Pinhole.IsValid() && !e.sameRemote(m):
		case found == nil || found.Origin == NATPMP || e.Peer:
			found = e
		}
	}
	return found
}

// renew gives the request what there is.
func (t *Table) renew(req *Request, e *entry) (by string, err error) {
	next := *req
	next.Mapping, next.renews = e.Mapping, e
	asked := req.Mapping
	req.Mapping = e.part(&asked)
	if asked.Origin == NATPMP && e.Origin != NATPMP {
		return "it is there by " + e.Origin.String(), nil
	}
	if err := t.nonce(e, req.From, asked.Nonce); err != nil {
		return "", err
	}
	if req.Prefer && req.ExternalPort != asked.ExternalPort {
		return "", fmt.Errorf("%w: it is %d already", ErrCannotProvide, req.ExternalPort)
	}
	if next.Origin = asked.Origin; e.Origin != PCP {
		next.Nonce = asked.Nonce
	}
	if asked.Description != "" || req.NoDescription {
		next.Description = asked.Description
	}
	next.Peer = asked.Peer
	if err := next.filter(&asked); err != nil {
		return "", err
	}
	by, err = t.mapLocked(&next)
	if errors.Is(err, ErrConflict) { // where from
		why := ErrNonce
		if errors.Is(err, ErrOtherMechanism) { // PEER's
			why = ErrFilters
		}
		err = fmt.Errorf("%w: %v", why, err)
	}
	req.Mapping = e.part(&asked)
	return by, err
}

// nonce says why PCP may not touch the entry, nil when it may (SPEC MAP-3,
// INT-20). What is NAT-PMP's it takes over: the client has learned PCP.
func (t *Table) nonce(e *entry, from netip.Addr, nonce [12]byte) error {
	if e.Origin == NATPMP || e.Origin == PCP && (e.Nonce == nonce || t.policy.SameHostNonce && e.Owner == from) {
		return nil
	}
	return fmt.Errorf("%w: it is there by %v for another %d s", ErrNonce, e.Origin, t.seconds(&e.Mapping))
}

// part is what a request for some of the entry's internal ports learns of it.
func (e *entry) part(asked *Mapping) Mapping {
	m := e.Mapping
	skip := asked.InternalPort - m.InternalPort
	left := min(m.count()-int(skip), asked.count())
	if m.InternalPort, m.ExternalPort, m.Ports = m.InternalPort+skip, m.ExternalPort+skip, 0; left > 1 {
		m.Ports = uint16(left)
	}
	return m
}

// filter puts the filter that is asked for in the place of what there is: without
// NoFilter, only where there is none.
func (r *Request) filter(asked *Mapping) error {
	if !r.NoFilter {
		if !asked.filtered() {
			return nil
		}
		if r.filtered() && !r.sameRemote(asked) {
			return fmt.Errorf("%w: from %s", ErrFilters, r.remote())
		}
	}
	r.RemoteHost, r.RemoteBits, r.RemotePort = asked.RemoteHost, asked.RemoteBits, asked.RemotePort
	return nil
}

// place chooses the ports of a new mapping.
func (t *Table) place(req *Request) error {
	wished := req.count()
	req.Ports = 0
	if err := t.quota(&req.Mapping); err != nil {
		return err
	}
	n := min(wished, t.policy.MaxMappings-t.total, t.policy.MaxPerClient-t.perClient[req.Client], 1<<16-int(req.InternalPort))
	if req.Pinhole.IsValid() {
		n = min(n, t.pinsLeft())
	}
	for i := 1; i < n; i++ {
		if len(t.ports[req.clientPort(uint16(i))]) > 0 {
			n = i
		}
	}
	var err error
	if req.Pinhole.IsValid() {
		if req.Prefer && req.ExternalPort != req.InternalPort {
			return fmt.Errorf("%w: a pinhole has the port of its host", ErrCannotProvide)
		}
		req.ExternalPort = req.InternalPort
		n, err = t.run(req, int(req.ExternalPort), n)
		n = max(n, 1) // why there is none says allow
	} else {
		n, err = t.search(req, n)
	}
	if n > 1 {
		req.Ports = uint16(n)
	}
	return err
}

// run gives how many ports from port on req can have: n at most, and as many as
// may still be asked for.
func (t *Table) run(req *Request, port, n int) (got int, err error) {
	one := *req
	for got < n && port+got <= 65535 {
		one.ExternalPort, one.InternalPort = uint16(port+got), req.InternalPort+uint16(got)
		if allowed, _, _ := t.policy.verdict(&one, one.ExternalPort); !allowed {
			break
		}
		if !req.Pinhole.IsValid() {
			if req.asked == mostInUse || !t.open(one.portKey(), req) {
				break
			}
			req.asked++
			if err := t.free(one.Protocol, one.ExternalPort); errors.Is(err, ErrInUse) {
				break
			} else if err != nil {
				return 0, err
			}
		}
		got++
	}
	return got, nil
}

// search finds n external ports in one place: at the wished port, or else at any;
// if there is no such place, then where most of those were that it looked at.
func (t *Table) search(req *Request, n int) (best int, err error) {
	wished, at := req.ExternalPort, 0
	odd := func(port int) bool { return req.Parity && (port^int(req.InternalPort))&1 != 0 }
	permitted, _, _ := t.policy.verdict(req, wished)
	if !odd(int(wished)) {
		best, err = t.run(req, int(wished), n)
		at = int(wished)
	}
	if req.Prefer && best == 0 && err == nil {
		return 0, fmt.Errorf("%w: %v port %d", ErrCannotProvide, req.Protocol, wished)
	}
	for _, port := range [...]int{firstAny + rand.IntN(1<<16-firstAny), firstAny} {
		for req.asked < mostInUse && best < n && err == nil && !req.Prefer {
			var some bool
			port, some = t.unheld(req, port)
			if permitted = permitted || some; port > 65535 {
				break
			}
			got := 0
			if !odd(port) {
				got, err = t.run(req, port, n)
			}
			if got > best {
				best, at = got, port
			}
			port += got + 1
		}
	}
	switch {
	case err != nil:
		return 0, err
	case best > 0:
		req.ExternalPort = uint16(at)
		return best, nil
	case req.Parity:
		req.Parity = false
		return t.search(req, n)
	case !permitted:
		return 0, fmt.Errorf("%w: no port is permitted", ErrDenied)
	}
	return 0, fmt.Errorf("%w: no port that is permitted is free", ErrFull)
}

// LookupInternal finds what the protocol m.Origin would end at the client's port of
// m, or, with m.Peer, what lets that peer in; ErrNoEntry when there is none.
func (t *Table) LookupInternal(m *Mapping) (Mapping, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.ending(m.clientPort(0), m.Origin)
	if m.Peer {
		e, _ = t.letting(m)
	}
	if e == nil {
		return Mapping{}, ErrNoEntry
	}
	return e.Mapping, nil
}

// ending finds what a request to end the mapping of a client's port is about. What
// only PEER made PCP may not end; for NAT-PMP it is not there.
func (t *Table) ending(k portKey, by Origin) *entry {
	e := t.holder(k, by, nil)
	if all := t.ports[k]; e == nil && by == PCP && len(all) > 0 {
		e = all[0]
	}
	return e
}

// UnmapInternal ends the mapping of a client's port for NAT-PMP or PCP: of a
// PORT_SET, the whole. Errors: ErrNoEntry; ErrNonce (SPEC MAP-3);
// ErrNotAuthorized, when it is another protocol's that does not give it away;
// ErrFirewall.
func (t *Table) UnmapInternal(p Protocol, client netip.Addr, internal uint16, by Origin, nonce [12]byte) error {
	t.mu.Lock()
	defer t.unlock()
	e := t.ending(portKey{p, internal, client}, by)
	if e == nil {
		return ErrNoEntry
	}
	var err error
	switch {
	case by == NATPMP && e.Origin != NATPMP, e.Origin != NATPMP && e.Origin != PCP, e.Peer: // SPEC PMP-13, PEER-1
		err = fmt.Errorf("%w: it is there by %v", ErrNotAuthorized, e.Origin)
	case by == PCP:
		err = t.nonce(e, client, nonce)
	}
	return t.unmapLocked(e, client, "delete "+e.Mapping.String(), err)
}

// UnmapAll ends all mappings of the protocol that the client made by NAT-PMP, and
// gives the number of its others (SPEC PMP-14). Errors: ErrFirewall.
func (t *Table) UnmapAll(p Protocol, client netip.Addr) (kept int, err error) {
	t.mu.Lock()
	defer t.unlock()
	_, err = t.endAll(func(m *Mapping) bool {
		if m.Protocol != p || m.Client != client {
			return false
		}
		if m.Origin != NATPMP {
			kept++
		}
		return m.Origin == NATPMP
	}, client, "granted")
	if err != nil {
		t.refuse(client, fmt.Sprintf("delete all %v mappings", p), err)
	}
	return kept, err
}
