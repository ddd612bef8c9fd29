package portmap

import (
	"net/netip"
	"time"
)

// After the end of a NAT-PMP or PCP mapping by deletion, its external port is for
// the same client only: packets to it may still be on their way (SPEC MAP-11).
const (
	holdFor  = 2 * time.Minute
	mostHeld = 1000 // ports; beyond that the oldest is free
)

// hold keeps one external port.
type hold struct {
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
		if len(t.held) >= mostHeld {
			t.releaseOldest()
		}
		t.held[m.portKey().plus(i).heldPort()] = hold{m.Client, t.now() + holdFor}
	}
}

func (t *Table) releaseOldest() {
	var oldest heldPort
	for k, h := range t.held {
		if oldest == 0 || h.until < t.held[oldest].until {
			oldest = k
		}
	}
	delete(t.held, oldest)
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

// excludes reports whether a mapping keeps another one of the same client off its
// port. The owner of a nonce must not lose it, nor share the port with what has
// none. Pinholes only differ in where from.
func (m *Mapping) excludes(o *Mapping) bool {
	return (m.Origin == PCP || o.Origin == PCP) && (!m.Pinhole.IsValid() || m.sameRemote(o))
}

func (m *Mapping) sameRemote(o *Mapping) bool {
	return m.RemoteHost == o.RemoteHost && m.RemoteBits == o.RemoteBits && m.RemotePort == o.RemotePort
}
