package pcp

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
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

// pmpResult is NAT-PMP's word for a result of PCP.
func pmpResult(r result) byte {
	switch r {
	case success:
		return pmpSuccess
	case networkFailure:
		return pmpNetworkFailure
	case noResources, userExQuota:
		return pmpOutOfResources
	}
	return pmpNotAuthorized
}

// pmpResponse begins a response of n bytes.
func (s *Server) pmpResponse(n int, op, result byte) []byte {
	p := make([]byte, n)
	p[1], p[3] = op|response, result
	binary.BigEndian.PutUint32(p[4:], s.cfg.Epoch.Seconds())
	return p
}

// pmpAddress is the response with the external address, also as an announcement
// (PMP-4, PMP-6).
func (s *Server) pmpAddress() []byte {
	external := s.external()
	if !external.Is4() {
		return s.pmpResponse(12, 0, pmpNetworkFailure)
	}
	p, a := s.pmpResponse(12, 0, pmpSuccess), external.As4()
	copy(p[8:], a[:])
	return p
}

// natpmp answers a request of version 0, nil for none.
func (s *Server) natpmp(p []byte, packet *sock.Packet) []byte {
	op := p[1]
	switch {
	case isSTUN(p):
		return nil
	case op == 0:
		return s.pmpAddress()
	case op > 2: // PMP-2
		reply := s.pmpResponse(min(max(8, len(p)), maxMessage), op, pmpUnsuppOpcode)
		copy(reply[8:], p[min(8, len(p)):])
		return reply
	case len(p) < 12: // PMP-3
		return nil
	}
	var q portmap.Request
	q.From, q.Origin = packet.Src.Addr(), portmap.NATPMP
	q.Client = q.From
	if q.Protocol = portmap.UDP; op == 2 {
		q.Protocol = portmap.TCP
	}
	q.InternalPort, q.ExternalPort = binary.BigEndian.Uint16(p[4:]), binary.BigEndian.Uint16(p[6:])
	m, lifetime, r := s.pmpMap(&q, binary.BigEndian.Uint32(p[8:]))
	reply := s.pmpResponse(16, op, pmpResult(r))
	copy(reply[8:], p[4:6])
	if lifetime != 0 {
		binary.BigEndian.PutUint16(reply[10:], m.ExternalPort)
		binary.BigEndian.PutUint32(reply[12:], lifetime)
	}
	return reply
}

// isSTUN reports whether p is of STUN (RFC 8489 section 5), whose binding request
// begins like a request to map UDP: its magic cookie would be the ports 8466 and
// 42050. Web pages can have a browser send it to any address and port (WebRTC).
func isSTUN(p []byte) bool {
	return len(p) >= 20 && binary.BigEndian.Uint32(p[4:]) == 0x2112a442
}

// pmpMap does what a request asks for: 0 seconds delete, and of internal port 0 all
// that NAT-PMP made (PMP-13, PMP-14). The lifetime is 0 unless there is a mapping.
func (s *Server) pmpMap(q *portmap.Request, wished uint32) (m *portmap.Mapping, lifetime uint32, r result) {
	switch {
	case wished == 0 && q.InternalPort != 0:
		return nil, 0, s.unmap(q)
	case wished == 0 && q.ExternalPort == 0:
		kept, err := s.cfg.Table.UnmapAll(q.Protocol, q.Client)
		if r = resultOf(err); r != success {
			return nil, 0, r
		}
		if kept > 0 {
			r = notAuthorized
		}
	case q.InternalPort == 0:
		r = notAuthorized
	case !s.external().IsValid():
		r = networkFailure
	default:
		q.Lease = time.Duration(wished) * time.Second
		if m, r = s.mapInternal(q); r == success {
			lifetime = min(wished, s.remaining(m)) // PMP-12
		}
		return m, lifetime, r
	}
	if r != success {
		s.cfg.Table.Refused(q.From, fmt.Sprintf("NAT-PMP request for %v port %d", q.Protocol, q.InternalPort), r)
	}
	return nil, 0, r
}
