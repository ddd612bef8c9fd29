package portmap

import (
	"fmt"
	"net/netip"
	"time"
)

// sound checks that a mapping is all IPv4, or a pinhole and all IPv6. The kernel
// would refuse another, and with it all that come in the same change.
func (m *Mapping) sound() error {
	is, pinhole := netip.Addr.Is4, m.Pinhole.IsValid()
	if pinhole {
		is = routed6
	}
	if !is(m.Client) {
		return fmt.Errorf("%w: %v", ErrNotLANHost, m.Client)
	}
	if r := m.RemoteHost; r.IsValid() && (!is(r) || r.IsUnspecified()) {
		return fmt.Errorf("%w: %v is no remote host for %v", ErrDenied, r, m.Client)
	}
	if pinhole && (m.Pinhole != m.Client || m.ExternalPort != m.InternalPort) || !pinhole && m.RemotePort != 0 {
		return fmt.Errorf("%w: a pinhole translates nothing, and a mapping is for all remote ports", ErrDenied)
	}
	return nil
}

// routed6 reports whether packets to the address may come from the internet or
// another site: a global or unique local one (SPEC PIN-10).
func routed6(a netip.Addr) bool {
	return a.Is6() && !a.Is4In6() && a.Zone() == "" && a.IsGlobalUnicast()
}

// pinhole is String for a pinhole.
func (m *Mapping) pinhole() string {
	from, port := "any", ""
	if m.RemoteHost.IsValid() {
		from = m.RemoteHost.String()
	}
	if m.RemotePort != 0 {
		port = fmt.Sprintf(" port %d", m.RemotePort)
	}
	return fmt.Sprintf("%v port %d of %v from %s%s", m.Protocol, m.ExternalPort, m.Pinhole, from, port)
}

// wish says what a request asks for.
func (r *Request) wish() string {
	if r.Pinhole.IsValid() {
		return fmt.Sprintf("open pinhole %v %v", r.Protocol, netip.AddrPortFrom(r.Client, r.InternalPort))
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

// logMade writes the line of a mapping that was made or changed.
func (t *Table) logMade(m *Mapping, lease time.Duration) {
	seconds := int(lease / time.Second)
	if m.Pinhole.IsValid() {
		t.logf("AddPinhole: ID:%d %v Lease: %d s", m.ID, *m, seconds)
		return
	}
	t.logf("AddPortMap: RemoteHost: %s Prot: %v ExtPort: %d Int: %v.%d Lease: %d s Desc: %q",
		hostOrAny(m.RemoteHost), m.Protocol, m.ExternalPort, m.Client, m.InternalPort, seconds, m.Description)
}

// logEnd writes the line of a mapping's end, which is "Delete" or "Expire".
func (t *Table) logEnd(end string, m *Mapping, why string) {
	if why != "" {
		why = " (" + why + ")"
	}
	switch {
	case m.Pinhole.IsValid():
		t.logf("%sPinhole: ID:%d %v%s", end, m.ID, *m, why)
	case end == "Expire":
		t.logf("ExpireMapping: Proto:%v Port:%d%s", m.Protocol, m.ExternalPort, why)
	default:
		t.logf("DeletePortMap: Proto:%v Port:%d%s", m.Protocol, m.ExternalPort, why)
	}
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
	req.vouched = false
	if !req.Pinhole.IsValid() || req.Client == req.From || t.sameHost == nil {
		return nil
	}
	same := *req
	same.vouched = true
	t.mu.Lock()
	_, err := t.policy.permit(t.network, &same)
	ask := err == nil && t.policy.Secure
	t.mu.Unlock()
	req.vouched = ask && t.sameHost(req.Client, req.From)
	return err
}

// ownPinhole finds the pinhole on behalf of the host from, and leaves the table
// locked: ErrNoEntry, ErrNotAuthorized. vouched says that from is another address
// of its host.
func (t *Table) ownPinhole(id uint16, from netip.Addr) (e *entry, vouched bool, err error) {
	t.mu.Lock()
	e = t.ids[id]
	if e != nil && e.Client != from && t.policy.Secure && t.sameHost != nil {
		client := e.Client
		t.mu.Unlock()
		vouched = t.sameHost(client, from)
		t.mu.Lock()
		if t.ids[id] != e { // it has ended, and the ID may be another's
			e, vouched = t.ids[id], false
		}
	}
	return e, vouched, t.owns(e, from, vouched)
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
	var m Mapping
	by := ""
	if err == nil {
		req.Mapping = e.Mapping
		m, by, err = t.mapLocked(&req)
	}
	_, err = t.answer(&req, fmt.Sprintf("renew pinhole %d", id), m, by, err)
	return err
}

// DeletePinhole ends a pinhole on behalf of the host from: ErrNoEntry,
// ErrNotAuthorized, ErrFirewall.
func (t *Table) DeletePinhole(id uint16, from netip.Addr) error {
	e, _, err := t.ownPinhole(id, from)
	defer t.unlock()
	return t.unmapLocked(e, from, fmt.Sprintf("delete pinhole %d", id), err)
}

// moveAway ends the pinholes to hosts that are on a LAN now and will not be with
// the network n. The caller makes the kernel follow.
func (t *Table) moveAway(n Network) {
	for i := len(t.pinned) - 1; i >= 0; i-- {
		e := t.pinned[i]
		if t.network.OnLink(e.Client) && !n.OnLink(e.Client) {
			const why = "its address is no longer on a LAN"
			t.remove(e)
			t.logEnd("Expire", &e.Mapping, why)
			t.decide(Decision{What: "delete " + e.Mapping.String(), Verdict: why})
		}
	}
}
