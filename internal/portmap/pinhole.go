package portmap

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// sound checks that a mapping is all IPv4, or a pinhole and all IPv6. The kernel
// would refuse another, and with it all that come in the same change.
func (m *Mapping) sound() error {
	six, pcp := m.Pinhole.IsValid(), m.Origin == PCP
	if !routed(m.Client, six) {
		return fmt.Errorf("%w: %v", ErrNotLANHost, m.Client)
	}
	if m.RemoteBits != 0 {
		p, _ := m.RemoteHost.Prefix(int(m.RemoteBits))
		if !pcp || p.Addr() != m.RemoteHost || int(m.RemoteBits) >= m.RemoteHost.BitLen() || p.Addr().Is4() == six || p.Addr().Is4In6() {
			return errMixed
		}
	} else if m.RemoteHost.IsValid() && !routed(m.RemoteHost, six) {
		return errMixed
	}
	if six && (m.Pinhole != m.Client || m.ExternalPort != m.InternalPort) || !six && m.RemotePort != 0 && !pcp || m.Peer && (!pcp || m.RemotePort == 0) {
		return errMixed
	}
	if m.Ports != 0 && (!pcp || m.Ports > MaxPorts || max(int(m.ExternalPort), int(m.InternalPort))+m.count() > 1<<16) {
		return errNoPort
	}
	return nil
}

// routed reports whether packets to the address may come from another network: to
// one of IPv6 when it is global or unique local (SPEC PIN-10).
func routed(a netip.Addr, six bool) bool {
	if !six {
		return a.Is4() && !a.IsUnspecified()
	}
	return a.Is6() && !a.Is4In6() && a.Zone() == "" && a.IsGlobalUnicast()
}

// pinhole is String for a pinhole.
func (m *Mapping) pinhole() string {
	return fmt.Sprintf("%s of %v from %s", m.external(), m.Pinhole, m.remote())
}

// wish says what a request asks for.
func (r *Request) wish() string {
	if r.Pinhole.IsValid() {
		return "open pinhole " + r.pinhole()
	}
	return "map " + r.Mapping.String()
}

// owner is the host that asks: by the address that it asks for, if that is its
// own, so that the next run knows, too, that it asked for itself.
func (r *Request) owner() netip.Addr {
	if r.vouched {
		return r.Client
	}
	return r.From
}

// logMade writes the line of a mapping that was made or changed. The first address
// among the args of a line is the host that it is about (Config.Logf), also where
// the text has none.
func (t *Table) logMade(m *Mapping, lease time.Duration) {
	seconds := int(lease / time.Second)
	if m.Pinhole.IsValid() {
		t.logf("AddPinhole: %[2]s ID: %[3]d Lease: %[4]d s", m.Client, m.pinhole(), m.ID, seconds)
		return
	}
	t.logf("AddPortMap: RemoteHost: %s Prot: %v ExtPort: %d Int: %v.%d Lease: %d s Desc: %q",
		hostOrAny(m.Key), m.Protocol, m.ExternalPort, m.Client, m.InternalPort, seconds, m.Description)
}

// logEnd writes the line of a mapping's end, which is "Delete" or "Expire".
func (t *Table) logEnd(m *Mapping, end, why string) {
	kind := "PortMap"
	switch {
	case m.Pinhole.IsValid():
		kind = "Pinhole"
	case end == "Expire":
		kind = "Mapping"
	}
	what := fmt.Sprintf("Proto:%v Port:%d", m.Protocol, m.ExternalPort)
	if m.Pinhole.IsValid() {
		what = m.pinhole()
	}
	t.logf("%[2]s%[3]s: %[4]s%[5]s", m.Client, end, kind, what, why)
}

// end takes a mapping that the kernel no longer has off the table, for the host
// that asked for it or by the table's own decision.
func (t *Table) end(e *entry, from netip.Addr, end, why string) {
	t.remove(e)
	if end == "Delete" {
		t.hold(&e.Mapping)
	}
	said := ""
	if end == "Delete" && !from.IsValid() {
		said = " (" + why + ")"
	}
	t.logEnd(&e.Mapping, end, said)
	t.decide(Decision{From: from, What: "delete " + e.Mapping.String(), Verdict: why})
}

// endAll ends the mappings that which picks as one change, and gives them.
func (t *Table) endAll(which func(*Mapping) bool, from netip.Addr, why string) (gone []Mapping, err error) {
	var picked []*entry
	for _, list := range [...][]*entry{t.order, t.pinned} {
		for _, e := range list {
			if which(&e.Mapping) {
				picked = append(picked, e)
				gone = append(gone, e.Mapping)
			}
		}
	}
	if len(gone) == 0 {
		return nil, nil
	}
	if err := t.change(gone, nil); err != nil {
		return nil, err
	}
	for _, e := range picked {
		t.end(e, from, "Delete", why)
	}
	return gone, nil
}

// idFor gives the UniqueID of a pinhole that replaces old, or a new one: not used
// before the others have been (SPEC PIN-8). The quotas leave some.
func (t *Table) idFor(old *entry) uint16 {
	if old != nil {
		return old.ID
	}
	for n := 0; n < 1<<16; n++ {
		t.lastID++
		if t.lastID != 0 && t.ids[t.lastID] == nil {
			break
		}
	}
	return t.lastID
}

// vouch asks whether the request comes from another address of the host that it
// is for (SPEC PIN-9). The answer may take a second, and packets to that host: if
// something else speaks against the request, that is the error, and nobody is
// asked.
func (t *Table) vouch(req *Request) error {
	if !t.unclear(req.Client, req.From) {
		return nil
	}
	t.mu.Lock()
	req.vouched = true
	_, err := t.policy.permit(t.network, req)
	ask := err == nil && t.policy.Secure
	t.mu.Unlock()
	req.vouched = ask && t.sameHost(req.Client, req.From)
	return err
}

// unclear reports whether two addresses may be one host's. Between IPv4 addresses
// nobody is asked: there the address is the host.
func (t *Table) unclear(client, from netip.Addr) bool {
	return client != from && (client.Is6() || from.Is6()) && t.sameHost != nil
}

// own finds an entry on behalf of the host from, and leaves the table locked:
// ErrNoEntry, ErrNotAuthorized. vouched says that from is another address of its
// host.
func (t *Table) own(find func() *entry, from netip.Addr) (e *entry, vouched bool, err error) {
	t.mu.Lock()
	e = find()
	if e != nil && t.policy.Secure && t.unclear(e.Client, from) {
		client := e.Client
		t.mu.Unlock()
		vouched = t.sameHost(client, from)
		t.mu.Lock()
		if again := find(); again != e { // it has ended, and its name may be another's
			e, vouched = again, false
		}
	}
	return e, vouched, t.owns(e, from, vouched)
}

func (t *Table) ownPinhole(id uint16, from netip.Addr) (e *entry, vouched bool, err error) {
	return t.own(func() *entry { return t.ids[id] }, from)
}

// Pinhole finds a pinhole by its UniqueID, on behalf of the host from:
// ErrNoEntry, ErrNotAuthorized.
func (t *Table) Pinhole(id uint16, from netip.Addr) (Mapping, error) {
	e, _, err := t.ownPinhole(id, from)
	defer t.mu.Unlock()
	if err != nil {
		return Mapping{}, err
	}
	return e.Mapping, nil
}

// UpdatePinhole sets the time that is left to a pinhole (SPEC PIN-6). Errors:
// those of Map, and ErrNoEntry. One that the policy no longer allows goes on to
// its end, but not longer.
func (t *Table) UpdatePinhole(id uint16, lease time.Duration, from netip.Addr) error {
	e, vouched, err := t.ownPinhole(id, from)
	defer t.unlock()
	req := Request{Lease: lease, From: from, vouched: vouched}
	by := ""
	if err == nil {
		req.Mapping = e.Mapping
		by, err = t.mapLocked(&req)
	}
	_, err = t.answer(&req, "renew pinhole "+strconv.Itoa(int(id)), by, err)
	return err
}

// DeletePinhole ends a pinhole on behalf of the host from: ErrNoEntry,
// ErrNotAuthorized, ErrFirewall.
func (t *Table) DeletePinhole(id uint16, from netip.Addr) error {
	e, _, err := t.ownPinhole(id, from)
	defer t.unlock()
	return t.unmapLocked(e, from, "delete pinhole "+strconv.Itoa(int(id)), err)
}

// awayGrace is for how long a prefix may be away until its pinholes end: a LAN
// that is made anew has it back in seconds. The kernel closes them at once.
const awayGrace = 30 * time.Second

// moveAway notes the pinholes to hosts that are on a LAN now and will not be with
// the network n, and those that are back.
func (t *Table) moveAway(n Network) {
	for _, e := range t.pinned {
		switch on := n.OnLink(e.Client); {
		case on:
			e.away = false
		case t.network.OnLink(e.Client):
			e.away, t.awayAt = true, t.now()+awayGrace
			t.awaken()
		}
	}
}

// endAway ends the pinholes whose prefix has not come back, and gives them.
func (t *Table) endAway() (gone []Mapping) {
	t.awayAt = 0
	for i := len(t.pinned) - 1; i >= 0; i-- {
		if e := t.pinned[i]; e.away {
			t.end(e, netip.Addr{}, "Delete", "its address is no longer on a LAN")
			gone = append(gone, e.Mapping)
		}
	}
	return gone
}
