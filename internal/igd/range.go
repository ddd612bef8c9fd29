package igd

import (
	"errors"
	"fmt"
	"slices"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/soap"
)

// rangeActions are the mapping actions that only WANIPConnection:2 has. Nobody
// is authenticated here, so NewManage, which asks for other hosts' mappings, is
// read and ignored (SPEC WIP-14, ACC-4).
func rangeActions() []action {
	whole := args("NewRemoteHost", "NewExternalPort", "NewProtocol", "NewInternalPort", "NewInternalClient",
		"NewEnabled", "NewPortMappingDescription", "NewLeaseDuration")
	return []action{
		{"AddAnyPortMapping", whole, args("NewReservedPort"), (*Server).addAnyPortMapping},
		{"DeletePortMappingRange", args("NewStartPort", "NewEndPort", "NewProtocol", "NewManage"), nil, (*Server).deletePortMappingRange},
		{"GetListOfPortMappings", args("NewStartPort", "NewEndPort", "NewProtocol", "NewManage", "NewNumberOfPorts"),
			args("NewPortListing"), (*Server).getListOfPortMappings},
	}
}

// addAnyPortMapping takes another port where the wished one is not to be had
// (WIP-3). Port 0 wishes for any (WIP-6).
func (s *Server) addAnyPortMapping(c *call) ([]string, error) {
	req, err := s.mappingRequest(c, true)
	if err != nil {
		return nil, s.refuse(c, err)
	}
	m, err := s.table.MapAny(req)
	if err != nil {
		return nil, s.mapError(err)
	}
	return []string{port(m.ExternalPort)}, nil
}

func portRange(c *call) (portmap.PortRange, error) {
	r := portmap.PortRange{First: c.ui2("NewStartPort"), Last: c.ui2("NewEndPort")}
	if r.First > r.Last {
		return r, errInconsistent.with("NewStartPort is above NewEndPort")
	}
	return r, nil
}

func (s *Server) deletePortMappingRange(c *call) ([]string, error) {
	r, err := portRange(c)
	if err != nil {
		return nil, s.refuse(c, err)
	}
	switch _, err := s.table.UnmapRange(c.protocol("NewProtocol"), r.First, r.Last, c.from); {
	case err == nil:
		return nil, nil
	case errors.Is(err, portmap.ErrNoEntry):
		return nil, errNotFound
	default:
		return nil, errActionFailed.with("%v", err)
	}
}

// maxListed bounds a listing, whose number of entries 0 does not bound (WIP-15).
const maxListed = 1000

// getListOfPortMappings lists the caller's own mappings, in the order of their
// making.
func (s *Server) getListOfPortMappings(c *call) ([]string, error) {
	r, err := portRange(c)
	if err != nil {
		return nil, err
	}
	limit := int(c.ui2("NewNumberOfPorts"))
	if limit == 0 || limit > maxListed {
		limit = maxListed
	}
	protocol, found := c.protocol("NewProtocol"), 0
	list := []byte(listingHead)
	for _, m := range s.table.List() {
		if found == limit {
			break
		}
		if cap(list)-len(list) < 4<<10 { // doubled: append would leave more behind
			list = slices.Grow(list, cap(list)+4<<10)
		}
		if m.Client == c.from && !m.Pinhole.IsValid() && m.Protocol == protocol && r.Contains(m.ExternalPort) {
			list = s.appendListed(list, m)
			found++
		}
	}
	if found == 0 {
		return nil, errNotFound
	}
	return []string{string(append(list, "</p:PortMappingList>"...))}, nil
}

const listingHead = `<p:PortMappingList xmlns:p="urn:schemas-upnp-org:gw:WANIPConnection"` +
	` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="urn:schemas-upnp-org:gw:WANIPConnection` +
	` http://www.upnp.org/schemas/gw/WANIPConnection-v2.xsd">`

// appendListed writes one entry of a PortMappingList (WIP-16, FIX-6).
func (s *Server) appendListed(b []byte, m portmap.Mapping) []byte {
	names := [...]string{"NewRemoteHost", "NewExternalPort", "NewProtocol", "NewInternalPort", "NewInternalClient",
		"NewEnabled", "NewDescription", "NewLeaseTime"}
	b = append(b, "<p:PortMappingEntry>"...)
	for i, value := range s.entry(m) {
		b = fmt.Appendf(b, "<p:%s>", names[i])
		b = soap.AppendEscaped(b, value)
		b = fmt.Appendf(b, "</p:%s>", names[i])
	}
	return append(b, "</p:PortMappingEntry>"...)
}
