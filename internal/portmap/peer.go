package portmap

import (
	"fmt"
	"time"
)

// peer answers PCP's PEER at a port of the client that is mapped already, by what
// lets the peer in (SPEC PEER-1); e is what a MAP would meet. Only what PEER made
// may get a longer lease, and nothing gets a shorter one. Errors: ErrNoEntry when
// there is nothing; ErrCannotProvide when that is for other peers; ErrNonce.
func (t *Table) peer(req *Request, e *entry) (by string, err error) {
	for _, o := range t.ports[req.clientPort(0)] {
		if o.lets(&req.Mapping) && (e == nil || !e.lets(&req.Mapping)) {
			e = o
		}
	}
	switch {
	case e == nil:
		return "", ErrNoEntry
	case !e.lets(&req.Mapping):
		return "", fmt.Errorf("%w: the client's port has %s", ErrCannotProvide, e.Mapping)
	case e.Peer && req.Lease != 0 && t.now()+t.policy.lease(req.Lease, time.Now()) > e.Deadline:
		req.Prefer = false
		return t.renew(req, e)
	case e.Origin == PCP:
		err = t.nonce(e, req.From, req.Nonce)
	}
	req.Mapping = e.part(&req.Mapping)
	return "it is there by " + e.Origin.String(), err
}

// lets reports whether the one remote peer of o gets through the mapping.
func (m *Mapping) lets(o *Mapping) bool {
	return m.Enabled && (!m.RemoteHost.IsValid() || m.Remote().Contains(o.RemoteHost)) &&
		(m.RemotePort == 0 || m.RemotePort == o.RemotePort)
}
