package portmap

import (
	"fmt"
	"net/netip"
	"time"
)

// After the end of a NAT-PMP or PCP mapping by deletion, its external port is for
// the same client only: packets to it may still be on their way (SPEC MAP-11).
const (
	holdFor  = 2 * time.Minute
	mostHeld = 1000 // ports
	oneHolds = 250  // of them, one client, when there are more
)

// hold keeps one external port.
type hold struct {
	port   heldPort
	client netip.Addr
	until  time.Duration // on the boot clock
}

// heldPort is a protocol's number and the external port.
type heldPort uint32

func (k portKey) heldPort() heldPort { return heldPort(k.protocol)<<16 | heldPort(k.port) }

// hold keeps the ports of a mapping that was deleted.
func (t *Table) hold(m *Mapping) {
	if m.Pinhole.IsValid() || m.Origin != NATPMP && m.Origin != PCP {
		return
	}
	for i := range uint16(m.count()) {
		if len(t.holds) >= mostHeld {
			t.release()
		}
		h := hold{m.portKey().plus(i).heldPort(), m.Client, t.now() + holdFor}
		t.held[h.port] = h
		t.holds = append(t.holds, h)
	}
}

// release makes room for a hold. No client pushes out what is held for others: the
// oldest ports of one that has more than its share are free. If there is none, the
// oldest of all is.
func (t *Table) release() {
	has := map[netip.Addr]int{}
	for _, h := range t.holds {
		has[h.client]++
	}
	now, rest := t.now(), t.holds[:0]
	for _, h := range t.holds {
		if h.until > now && has[h.client] <= oneHolds {
			rest = append(rest, h)
			continue
		}
		has[h.client]--
		t.unhold(h)
	}
	if len(rest) >= mostHeld {
		t.unhold(rest[0])
		rest = rest[1:]
	}
	t.holds = rest
}

func (t *Table) unhold(h hold) {
	if t.held[h.port] == h { // and not once more, later
		delete(t.held, h.port)
	}
}

// kept says why a host may not have an external port that it does not have: it is
// one of NAT-PMP and PCP themselves (SPEC MAP-7: ErrInUse), or kept for another
// host (ErrOtherMechanism), the client of its last mapping for a while, or, with
// NAT-PMP, of the companion, the same port of the other protocol (SPEC PMP-11).
func (t *Table) kept(k portKey, req *Request) error {
	if k.host.IsValid() {
		return nil
	}
	if k.protocol == UDP && (k.port == 5350 || k.port == 5351) {
		return ErrInUse
	}
	if h, ok := t.held[k.heldPort()]; ok && h.client != req.Client && h.until > t.now() {
		return ErrOtherMechanism
	}
	k.protocol ^= TCP ^ UDP
	for _, e := range t.ports[k] {
		if e.Client != req.Client && (e.Origin == NATPMP || req.Origin == NATPMP) {
			return ErrOtherMechanism
		}
	}
	return nil
}

// open reports whether req could have the external port: no mapping has it, and
// it is kept for nobody else.
func (t *Table) open(k portKey, req *Request) bool {
	return len(t.ports[k]) == 0 && t.kept(k, req) == nil
}

// free checks that the router itself does not use the port.
func (t *Table) free(protocol Protocol, port uint16) error {
	used, err := t.inUse(protocol, port)
	if err != nil {
		return fmt.Errorf("%w: cannot tell whether the router uses the port: %w", ErrFirewall, err)
	}
	if used {
		return fmt.Errorf("%w: %v port %d", ErrInUse, protocol, port)
	}
	return nil
}

// excludes reports whether a mapping keeps another one of the same client off its
// port. The owner of a nonce must not lose it, nor share the port with what has
// none. Pinholes only differ in where from.
func (m *Mapping) excludes(o *Mapping) bool {
	return (m.Origin == PCP || o.Origin == PCP) && (!m.Pinhole.IsValid() && !m.beside(o) || m.sameRemote(o))
}

func (m *Mapping) sameRemote(o *Mapping) bool {
	return m.RemoteHost == o.RemoteHost && m.RemoteBits == o.RemoteBits && m.RemotePort == o.RemotePort
}
