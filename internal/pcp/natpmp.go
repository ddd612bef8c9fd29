package pcp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// The result codes of NAT-PMP (SPEC 6).
const (
	pmpSuccess = iota
	pmpUnsuppVersion
	pmpNotAuthorized
	pmpNetworkFailure
	pmpOutOfResources
	pmpUnsuppOpcode
)

// pmpHeader begins a response of n bytes.
func pmpHeader(n int, op byte, result uint16, epoch uint32) []byte {
	p := make([]byte, n)
	p[1] = op | response
	binary.BigEndian.PutUint16(p[2:], result)
	binary.BigEndian.PutUint32(p[4:], epoch)
	return p
}

// pmpAddress is the response with the external address, also as an announcement
// (PMP-4, PMP-6). The zero Addr: there is none.
func pmpAddress(external netip.Addr, epoch uint32) []byte {
	if !external.Is4() {
		return pmpHeader(12, 0, pmpNetworkFailure, epoch)
	}
	a := external.As4()
	return append(pmpHeader(8, 0, pmpSuccess, epoch), a[:]...)
}

// pmpMapped is the response to a mapping request.
func pmpMapped(op byte, result uint16, epoch uint32, internal, external uint16, lifetime uint32) []byte {
	p := pmpHeader(16, op, result, epoch)
	binary.BigEndian.PutUint16(p[8:], internal)
	binary.BigEndian.PutUint16(p[10:], external)
	binary.BigEndian.PutUint32(p[12:], lifetime)
	return p
}

// pmpUnknown is the response to an opcode that is not known: the request again
// (PMP-2).
func pmpUnknown(p []byte, epoch uint32) []byte {
	reply := make([]byte, min(max(8, len(p)), maxMessage))
	copy(reply, p)
	copy(reply, pmpHeader(8, p[1], pmpUnsuppOpcode, epoch))
	return reply
}

// natpmp answers a request of version 0. What is too short draws nothing (PMP-3).
func (s *Server) natpmp(p []byte, from netip.Addr) []byte {
	epoch := s.cfg.Epoch.Seconds()
	switch op := p[1]; {
	case op == 0:
		return pmpAddress(s.external(), epoch)
	case op > 2:
		return pmpUnknown(p, epoch)
	case len(p) < 12:
		return nil
	}
	r := pmpRequest{
		protocol: portmap.UDP, from: from,
		internal: binary.BigEndian.Uint16(p[4:]), external: binary.BigEndian.Uint16(p[6:]),
		lifetime: binary.BigEndian.Uint32(p[8:]),
	}
	if p[1] == 2 {
		r.protocol = portmap.TCP
	}
	grant := s.pmpMap
	if r.lifetime == 0 {
		grant = s.pmpDelete
	}
	external, lifetime, err := grant(r)
	return pmpMapped(p[1], pmpResult(err), epoch, r.internal, external, lifetime)
}

// pmpRequest is a mapping request.
type pmpRequest struct {
	protocol           portmap.Protocol
	from               netip.Addr
	internal, external uint16 // external is suggested; 0: any
	lifetime           uint32 // wished, in seconds; 0 deletes
}

var (
	errNoPort  = errors.New("a mapping needs an internal port")
	errNoWAN   = errors.New("there is no external address now")
	errNotYour = errors.New("UPnP or PCP made some of the mappings")
)

// pmpMap makes or renews a mapping (PMP-8 to PMP-12).
func (s *Server) pmpMap(r pmpRequest) (external uint16, lifetime uint32, err error) {
	switch {
	case r.internal == 0: // PMP-14
		err = errNoPort
	case !s.external().IsValid():
		err = errNoWAN
	}
	if err != nil {
		s.cfg.Table.Refused(r.from, "NAT-PMP mapping", err)
		return 0, 0, err
	}
	m, err := s.cfg.Table.MapInternal(portmap.Request{
		Mapping: portmap.Mapping{
			Key:    portmap.Key{Protocol: r.protocol, ExternalPort: r.external},
			Client: r.from, InternalPort: r.internal, Enabled: true,
			Description: portmap.NATPMP.String(), Origin: portmap.NATPMP, Owner: r.from,
		},
		Lease: min(time.Duration(r.lifetime)*time.Second, s.cfg.MaxLease), From: r.from,
	})
	if err != nil {
		return 0, 0, err
	}
	return m.ExternalPort, min(r.lifetime, s.remaining(m)), nil
}

// pmpDelete ends a mapping, or all of the client and the protocol (PMP-13, PMP-14).
func (s *Server) pmpDelete(r pmpRequest) (external uint16, lifetime uint32, err error) {
	if r.internal != 0 {
		err = s.cfg.Table.UnmapInternal(r.protocol, r.from, r.internal, portmap.NATPMP, [12]byte{})
		if errors.Is(err, portmap.ErrNoEntry) {
			err = nil
		}
		return 0, 0, err
	}
	kept := 0
	if r.external != 0 {
		err = errNoPort
	} else if kept, err = s.cfg.Table.UnmapAll(r.protocol, r.from); err != nil {
		return 0, 0, err
	} else if kept > 0 {
		err = errNotYour
	}
	if err != nil {
		s.cfg.Table.Refused(r.from, "NAT-PMP deletion", err)
	}
	return 0, 0, err
}

// pmpResult is the result code of what became of a request.
func pmpResult(err error) uint16 {
	switch {
	case err == nil:
		return pmpSuccess
	case errors.Is(err, errNoWAN):
		return pmpNetworkFailure
	case errors.Is(err, portmap.ErrFull), errors.Is(err, portmap.ErrFirewall):
		return pmpOutOfResources
	}
	return pmpNotAuthorized
}
