package pcp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
)

// pcpMap answers a MAP request (RFC 6887, section 11.3).
func (s *Server) pcpMap(p []byte, packet sock.Packet, r *request) []byte {
	var o options
	m, err := parseMap(p)
	if err == success {
		o, err = parseOptions(p[mapLen:], r, &m)
	}
	protocol := portmap.Protocol(m.protocol)
	wildcard := m.internal == 0 && (m.protocol == 0 || protocol == portmap.TCP || protocol == portmap.UDP)
	switch {
	case err != success:
	case wildcard && r.lifetime == 0: // MAP-10: none was ever made
		return s.mapped(p, r, &o, &portmap.Mapping{Key: portmap.Key{ExternalPort: m.external}}, m.address)
	case protocol != portmap.TCP && protocol != portmap.UDP, m.internal == 0: // MAP-1
		err = unsuppProtocol
	case r.lifetime == 0:
		return s.unmap(p, r, &m, &o)
	default:
		return s.grant(p, packet, r, &m, &o)
	}
	return s.refuse(p, r.client, fmt.Sprintf("PCP MAP of %v port %d", protocol, m.internal), err)
}

// grant makes or renews a mapping.
func (s *Server) grant(p []byte, packet sock.Packet, r *request, m *mapRequest, o *options) []byte {
	req := s.wish(r, m, o)
	address := r.client // MAP-12
	if !s.lan.IPv6 {
		address = s.external()
	}
	// The table knows ports only.
	elsewhere := o.prefer && !m.address.IsUnspecified() && m.address != address
	switch {
	case !address.IsValid():
		return s.refuse(p, r.client, "PCP "+req.Mapping.String(), networkFailure)
	case elsewhere: // MAP-6
		return s.refuse(p, r.client, "PCP "+req.Mapping.String(), cannotProvide)
	}
	got, err := s.cfg.Table.MapInternal(req)
	if err != nil {
		return s.refused(p, err, got)
	}
	reply := s.mapped(p, r, o, &got, address)
	s.remember(packet, &got, o.prefer && !m.address.IsUnspecified(), address, reply)
	return reply
}

// wish is what a MAP request asks of the table.
func (s *Server) wish(r *request, m *mapRequest, o *options) portmap.Request {
	lease := min(max(time.Duration(r.lifetime)*time.Second, s.cfg.MinLease), s.cfg.MaxLease) // MAP-9
	req := portmap.Request{
		Mapping: portmap.Mapping{
			Key: o.filter, Client: r.client, InternalPort: m.internal, Enabled: true,
			Origin: portmap.PCP, Owner: r.client, Nonce: m.nonce, Ports: o.ports,
		},
		Lease: lease, From: r.client,
		Prefer: o.prefer, Parity: o.parity, NoFilter: o.cleared,
	}
	req.Protocol, req.ExternalPort = portmap.Protocol(m.protocol), m.external
	switch {
	case o.readable:
		req.Description, req.NoDescription = o.description, o.description == ""
	default:
		old, err := s.cfg.Table.LookupInternal(req.Protocol, r.client, m.internal, portmap.PCP)
		if err != nil || old.Origin == portmap.NATPMP { // a new one says at least who made it
			req.Description = portmap.PCP.String()
		}
	}
	return req
}

// unmap ends a mapping (MAP-10).
func (s *Server) unmap(p []byte, r *request, m *mapRequest, o *options) []byte {
	protocol := portmap.Protocol(m.protocol)
	err := s.cfg.Table.UnmapInternal(protocol, r.client, m.internal, portmap.PCP, m.nonce)
	if err != nil && !errors.Is(err, portmap.ErrNoEntry) {
		held, _ := s.cfg.Table.LookupInternal(protocol, r.client, m.internal, portmap.PCP)
		return s.refused(p, err, held)
	}
	s.forget(told{r.client, protocol, m.internal}, nil)
	none := portmap.Mapping{Key: portmap.Key{ExternalPort: m.external}, InternalPort: m.internal, Ports: o.ports, Description: o.description}
	return s.mapped(p, r, o, &none, m.address)
}

// mapped is the response to what succeeded.
func (s *Server) mapped(p []byte, r *request, o *options, m *portmap.Mapping, address netip.Addr) []byte {
	lifetime := uint32(0)
	if r.lifetime != 0 {
		lifetime = s.remaining(*m)
	}
	reply := granted(p, lifetime, s.cfg.Epoch.Seconds(), m.ExternalPort, address)
	return answerOptions(reply, p[mapLen:], o, m)
}

// refused is the response to what the table refused. held is what was in the way.
func (s *Server) refused(p []byte, err error, held portmap.Mapping) []byte {
	r := resultOf(err)
	lifetime := r.lifetime()
	if r == notAuthorized && held.Client.IsValid() { // MAP-3
		lifetime = s.remaining(held)
	}
	return failure(p, r, lifetime, s.cfg.Epoch.Seconds())
}

// resultOf is the result code for an error of the table.
func resultOf(err error) result {
	for _, known := range [...]struct {
		err error
		result
	}{
		{portmap.ErrQuota, userExQuota}, // which is an ErrFull, too
		{portmap.ErrFull, noResources},
		{portmap.ErrFirewall, noResources},
		{portmap.ErrCannotProvide, cannotProvide},
		{portmap.ErrFilters, excessivePeers},
	} {
		if errors.Is(err, known.err) {
			return known.result
		}
	}
	return notAuthorized
}
