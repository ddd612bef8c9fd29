package portmap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
)

// What WANIPConnection:2 asks beyond version 1.

// firstAny is the lowest port that is given without being wished.
const firstAny = 1024

// mostInUse bounds the questions of one MapAny or MapInternal to the kernel.
const mostInUse = 64

// MapAny is Map for IPv4 mappings, but where the wished ExternalPort is held, in
// use or not permitted, another is taken that is free and permitted (SPEC WIP-3);
// 0 wishes none. ErrFull when there is none, ErrDenied when none is permitted,
// never ErrConflict or ErrInUse.
func (t *Table) MapAny(req Request) (Mapping, error) {
	req.Pinhole, req.RemotePort, req.vouched = netip.Addr{}, 0, false
	if t.unclear(req.Client, req.From) {
		req.vouched = t.sameHost(req.Client, req.From)
	}
	t.mu.Lock()
	defer t.unlock()
	what := req.wish() + ", or any other port"
	by, err := t.mapAnyLocked(&req)
	return t.answer(&req, what, fmt.Sprintf("port %d; %s", req.ExternalPort, by), err)
}

func (t *Table) mapAnyLocked(req *Request) (by string, err error) {
	permitted := false
	if req.ExternalPort != 0 {
		by, err = t.mapLocked(req)
		permitted = !errors.Is(err, ErrDenied)
		if permitted && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrInUse) {
			return by, err
		}
	}
	if err := t.policy.entitled(req); err != nil {
		return "", err
	}
	asked := 0
	for _, port := range [...]int{firstAny + rand.IntN(1<<16-firstAny), firstAny} { // to the end, and once more from the first
		for ; asked < mostInUse; port++ {
			var some bool
			port, some = t.unheld(req, port)
			permitted = permitted || some
			if port > 65535 {
				break
			}
			req.ExternalPort = uint16(port)
			if by, err = t.mapLocked(req); !errors.Is(err, ErrInUse) {
				return by, err
			}
			asked++
		}
	}
	if !permitted {
		return "", fmt.Errorf("%w: no port is permitted", ErrDenied)
	}
	return "", fmt.Errorf("%w: no port that is permitted is free", ErrFull)
}

// unheld gives the first port from port on that the policy permits and that is
// open, 65536 when there is none, and whether it permits any of those before.
func (t *Table) unheld(req *Request, port int) (free int, permitted bool) {
	k := portKey{protocol: req.Protocol}
	for port <= 65535 {
		allowed, _, last := t.policy.verdict(req, uint16(port))
		if !allowed {
			port = int(last) + 1
			continue
		}
		permitted = true
		for ; port <= int(last); port++ {
			if k.port = uint16(port); t.open(k, req) {
				return port, true
			}
		}
	}
	return port, permitted
}

// UnmapRange ends from's own IPv4 mappings of the protocol with external ports
// from first to last, as one change, and gives their number (SPEC WIP-14). Errors:
// ErrNoEntry when there is none, ErrFirewall.
func (t *Table) UnmapRange(p Protocol, first, last uint16, from netip.Addr) (int, error) {
	t.mu.Lock()
	defer t.unlock()
	gone, err := t.endAll(func(m *Mapping) bool {
		return m.Protocol == p && first <= m.ExternalPort && int(m.ExternalPort)+m.count()-1 <= int(last) && m.Client == from && !m.Pinhole.IsValid()
	}, from, "granted")
	if err == nil && len(gone) == 0 {
		err = ErrNoEntry
	}
	if err != nil {
		t.refuse(from, fmt.Sprintf("delete %v ports %d to %d", p, first, last), err)
	}
	return len(gone), err
}

// AtOwn is At among the mappings whose Client is owner: the others do not count.
func (t *Table) AtOwn(i int, owner netip.Addr) (Mapping, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.order {
		if e.Client != owner {
			continue
		}
		if i == 0 {
			return e.Mapping, nil
		}
		i--
	}
	return Mapping{}, ErrNoEntry
}

// UpdateID is SystemUpdateID: it rises by one with each change of IPv4 mappings,
// renewals included, however many mappings one change makes or ends.
func (t *Table) UpdateID() uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.updateID
}
