package pcp

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
)

// pcp answers a request of version 2, nil for none.
func (s *Server) pcp(p []byte, packet *sock.Packet) []byte {
	q := &request{packet: p}
	q.From = packet.Src.Addr()
	err := unsuppOpcode
	switch {
	case len(p) < headerLen: // PCP-3
		return nil
	case len(p) > maxMessage, len(p)%4 != 0, len(p) < least(p[1]): // PCP-4
		err = malformedRequest
	case addrAt(p, 8) != q.From: // PCP-5
		err = addressMismatch
	case p[1] == opAnnounce: // ANN-1
		if err = q.parseOptions(p[headerLen:]); err == success {
			return s.respond(nil, success, 0)
		}
	case p[1] == opMap, p[1] == opPeer:
		if err = q.parseMap(); q.Peer && (q.RemoteHost == packet.Dst || q.RemoteHost == s.external()) {
			err = malformedRequest
		}
		if err == success {
			return s.pcpMap(q, packet)
		}
	}
	return s.refuse(q, err)
}

// refuse answers a request that the table was not asked for, with a line in the
// log.
func (s *Server) refuse(q *request, r result) []byte {
	what := "PCP request"
	if q.InternalPort != 0 {
		if what = "PCP MAP"; q.Peer {
			what = "PCP PEER"
		}
		what = fmt.Sprintf("%s of %v port %d", what, q.Protocol, q.InternalPort)
	}
	s.cfg.Table.Refused(q.From, what, r)
	return s.respond(q.packet, r, r.lifetime())
}

// pcpMap answers a MAP or PEER request (RFC 6887, sections 11.3 and 12.3).
func (s *Server) pcpMap(q *request, packet *sock.Packet) []byte {
	known := q.Protocol == portmap.TCP || q.Protocol == portmap.UDP
	switch {
	case q.lifetime == 0 && q.InternalPort == 0 && (known || q.Protocol == 0): // MAP-10: such a mapping was never made
	case !known, q.InternalPort == 0: // MAP-1
		return s.refuse(q, unsuppProtocol)
	case q.lifetime != 0, q.Peer:
		return s.grant(q, packet)
	default:
		if r := s.unmap(&q.Request); r != success {
			held, _ := s.lookup(&q.Request)
			return s.refused(q, r, held)
		}
		s.remember(q, nil)
	}
	return q.appendOptions(s.granted(q, 0), &q.Mapping)
}

// granted begins the response to a MAP request that was done.
func (s *Server) granted(q *request, lifetime uint32) []byte {
	reply := s.respond(q.packet[:q.size], success, lifetime)
	clear(reply[37:40]) // reserved
	return reply
}

// grant makes or renews a mapping.
func (s *Server) grant(q *request, packet *sock.Packet) []byte {
	address := q.Client // MAP-12
	if !s.lan.IPv6 {
		address = s.external()
	}
	strict := q.Prefer && !q.address.IsUnspecified()
	_, mapped := s.lookup(&q.Request)
	switch {
	case !address.IsValid():
		return s.refuse(q, networkFailure)
	case strict && q.address != address && !(q.Peer && mapped): // MAP-6, PEER-1; the table knows ports only
		return s.refuse(q, cannotProvide)
	case q.Ports > 1 && !s.limit.allow(s.cfg.Now(), q.From, min(q.Ports, portmap.MaxPorts)-1): // PCP-10
		return s.refuse(q, noResources)
	}
	if q.lifetime != 0 {
		q.Lease = max(time.Duration(q.lifetime)*time.Second, s.cfg.MinLease) // MAP-9
	}
	m, r := s.mapInternal(&q.Request)
	if r != success {
		return s.refused(q, r, m)
	}
	reply := s.granted(q, s.remaining(m))
	if q.Peer {
		clear(reply[mapLen+2 : mapLen+4])
		strict = false
	}
	if m.Client.IsValid() { // not where PEER asks for 0 s of nothing
		binary.BigEndian.PutUint16(reply[42:], m.ExternalPort)
		assign(reply, address)
	}
	reply = q.appendOptions(reply, m)
	if !s.lan.IPv6 && m.Peer == q.Peer { // a pinhole has no external address; the maker of a mapping is told
		s.remember(q, &client{packet: *packet, reply: reply, until: m.Deadline, nonce: m.Nonce, strict: strict, address: address})
	}
	return reply
}

// refused answers a request that the table refused. held is what was in the way.
func (s *Server) refused(q *request, r result, held *portmap.Mapping) []byte {
	lifetime := r.lifetime()
	if r == notAuthorized && held.Client.IsValid() { // MAP-3
		lifetime = s.remaining(held)
	}
	return s.respond(q.packet, r, lifetime)
}

// mapInternal asks the table for a mapping. MaxLease bounds the lease.
func (s *Server) mapInternal(q *portmap.Request) (*portmap.Mapping, result) {
	q.Lease = min(q.Lease, s.cfg.MaxLease)
	m, err := s.cfg.Table.MapInternal(*q)
	return &m, resultOf(err)
}

// unmap asks the table to end one.
func (s *Server) unmap(q *portmap.Request) result {
	return resultOf(s.cfg.Table.UnmapInternal(q.Protocol, q.Client, q.InternalPort, q.Origin, q.Nonce))
}

// lookup gives what the client of the mapping has now at its own port.
func (s *Server) lookup(m *portmap.Request) (*portmap.Mapping, bool) {
	held, err := s.cfg.Table.LookupInternal(&m.Mapping)
	return &held, err == nil
}

// remaining is what is left of a mapping's lease, in seconds.
func (s *Server) remaining(m *portmap.Mapping) uint32 {
	return uint32(s.cfg.Table.Remaining(*m) / time.Second)
}
