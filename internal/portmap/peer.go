package portmap

import (
	"fmt"
	"time"
)

// peer answers PCP's PEER at a port of the client by what lets the peer in already
// (SPEC PEER-1): first of all, what PEER made for it. Only that may get a longer
// lease, and nothing gets a shorter one. Errors: ErrNoEntry when a mapping for the
// peer may be made; ErrCannotProvide when the port is another protocol's, for others;
// ErrNonce.
func (t *Table) peer(req *Request) (by string, err error) {
	e, others := t.letting(&req.Mapping)
	switch {
	case e == nil && others != nil:
		return "", fmt.Errorf("%w: the client's port has %s", ErrCannotProvide, others.Mapping)
	case e == nil:
		return "", ErrNoEntry
	case e.Peer && req.Lease != 0 && t.now()+t.policy.lease(req.Lease, time.Now()) > e.Deadline:
		req.Prefer = false
		return t.renew(req, e)
	case e.Origin == PCP:
		err = t.nonce(e, req.From, req.Nonce)
	}
	req.Mapping = e.part(&req.Mapping)
	return "it is there by " + e.Origin.String(), err
}

// letting finds what lets the one remote peer of m in, at the client's port, and what
// other protocols have there for others.
func (t *Table) letting(m *Mapping) (e, others *entry) {
	for _, o := range t.ports[m.clientPort(0)] {
		switch {
		case o.lets(m):
			if e == nil || o.Peer {
				e = o
			}
		case o.Origin != PCP && !o.Pinhole.IsValid():
			others = o
		}
	}
	return e, others
}

// lets reports whether the one remote peer of o gets through the mapping.
func (m *Mapping) lets(o *Mapping) bool {
	return m.Enabled && (!m.RemoteHost.IsValid() || m.Remote().Contains(o.RemoteHost)) &&
		(m.RemotePort == 0 || m.RemotePort == o.RemotePort)
}

// leave has the external port of a connection to the peer that is there already:
// it cannot get another one. ErrCannotProvide when that is not the wished one.
func (t *Table) leave(req *Request) error {
	if req.Pinhole.IsValid() {
		return nil
	}
	port, err := t.fw.SourcePort(&req.Mapping)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrFirewall, err)
	case port == 0:
		return nil
	case req.Prefer && req.ExternalPort != port:
		return fmt.Errorf("%w: the connection has %d", ErrCannotProvide, port)
	}
	req.ExternalPort, req.Prefer = port, true
	return nil
}

// sibling finds a mapping by PCP whose external port another one of the same client's
// port may have, too; nil: none. One of the two is PEER's.
func (t *Table) sibling(m *Mapping) *entry {
	for _, o := range t.ports[m.clientPort(0)] {
		if m.Origin == PCP && (m.Peer || o.Peer) {
			return o
		}
	}
	return nil
}

// join places a new mapping beside its sibling.
func (t *Table) join(req *Request, o *entry) error {
	port := o.part(&req.Mapping).ExternalPort
	if req.Prefer && req.ExternalPort != port {
		return fmt.Errorf("%w: the client's port has %d", ErrCannotProvide, port)
	}
	req.ExternalPort, req.Ports = port, 0
	if _, err := t.conflict(req); err != nil {
		return fmt.Errorf("%w: %v", ErrFilters, err)
	}
	return t.quota(&req.Mapping)
}

// beside reports whether two mappings of a client may have one external port: those
// by PCP for the same port of the client, when one is PEER's, and the kernel
// can tell them apart.
func (m *Mapping) beside(o *Mapping) bool {
	if m.Origin != PCP || o.Origin != PCP || m.ExternalPort-m.InternalPort != o.ExternalPort-o.InternalPort {
		return false
	}
	switch {
	case o.Peer:
		m, o = o, m
	case !m.Peer:
		return false
	}
	return o.Peer || !o.ranges() || !o.lets(m)
}

// ranges reports whether the kernel keeps the mapping as a range of remote hosts or
// ports, of which one cannot lie in another.
func (m *Mapping) ranges() bool { return m.RemoteBits != 0 || m.RemotePort != 0 }
