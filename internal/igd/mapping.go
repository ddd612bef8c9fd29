package igd

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// mappingActions are the actions of WANIPConnection:1 that read and change
// port mappings, in the order of the standard.
func mappingActions() []action {
	key := args("NewRemoteHost", "NewExternalPort", "NewProtocol")
	target := args("NewInternalPort", "NewInternalClient", "NewEnabled", "NewPortMappingDescription", "NewLeaseDuration")
	entry := append(key[:len(key):len(key)], target...)
	return []action{
		{"GetGenericPortMappingEntry", args("NewPortMappingIndex"), entry, (*Server).getGenericPortMappingEntry},
		{"GetSpecificPortMappingEntry", key, target, (*Server).getSpecificPortMappingEntry},
		{"AddPortMapping", entry, nil, (*Server).addPortMapping},
		{"DeletePortMapping", key, nil, (*Server).deletePortMapping},
		{"GetExternalIPAddress", nil, args("NewExternalIPAddress"),
			func(s *Server, _ *call) ([]string, error) { return []string{s.externalIPAddress()}, nil }},
	}
}

func (s *Server) getGenericPortMappingEntry(c *call) ([]string, error) {
	m, err := s.table.At(int(c.ui2("NewPortMappingIndex")))
	if err != nil {
		return nil, errNoIndex // WIP-17: 713 ends every client's loop
	}
	key := []string{remoteHost(m), port(m.ExternalPort), m.Protocol.String()}
	return append(key, s.target(m)...), nil
}

func (s *Server) getSpecificPortMappingEntry(c *call) ([]string, error) {
	k, err := mappingKey(c)
	if err != nil {
		return nil, err
	}
	m, err := s.table.Lookup(k)
	if err != nil {
		return nil, errNoEntry
	}
	return s.target(m), nil
}

// target gives the out arguments that describe a mapping beyond its key.
func (s *Server) target(m portmap.Mapping) []string {
	enabled := "0"
	if m.Enabled {
		enabled = "1"
	}
	// WIP-5. All leases end, and 0 would mean that this one does not.
	left := max(s.table.Remaining(m), time.Second)
	return []string{port(m.InternalPort), m.Client.String(), enabled, m.Description, strconv.FormatInt(int64(left/time.Second), 10)}
}

func (s *Server) addPortMapping(c *call) ([]string, error) {
	req, err := mappingRequest(c)
	if err != nil {
		return nil, s.refuse(c, err)
	}
	_, err = s.table.Map(req)
	return nil, mapError(err)
}

func mappingRequest(c *call) (portmap.Request, error) {
	k, err := mappingKey(c)
	if err != nil {
		return portmap.Request{}, err
	}
	client, err := internalClient(c)
	if err != nil {
		return portmap.Request{}, err
	}
	if k.ExternalPort == 0 {
		return portmap.Request{}, errWildcardPort // WIP-6
	}
	internal := c.ui2("NewInternalPort")
	if internal == 0 {
		return portmap.Request{}, errInvalidArgs.with("NewInternalPort is 0") // WIP-7
	}
	return portmap.Request{
		Mapping: portmap.Mapping{
			Key: k, Client: client, InternalPort: internal,
			Enabled:     c.boolean("NewEnabled"),
			Description: c.text("NewPortMappingDescription"),
			Origin:      portmap.UPnP,
		},
		Lease: time.Duration(c.ui4("NewLeaseDuration")) * time.Second,
		From:  c.from,
	}, nil
}

// mapError gives the code of WANIPConnection:1 for a refused mapping. That
// service has no 606: a refusal by policy is 718 (ACC-6), which also makes
// clients try another port.
func mapError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, portmap.ErrNotLANHost):
		return errInvalidArgs.with("NewInternalClient: %v", err)
	case errors.Is(err, portmap.ErrNotAuthorized), errors.Is(err, portmap.ErrDenied),
		errors.Is(err, portmap.ErrConflict), errors.Is(err, portmap.ErrInUse):
		return errConflict.with("%v", err)
	}
	return errActionFailed.with("%v", err)
}

func (s *Server) deletePortMapping(c *call) ([]string, error) {
	k, err := mappingKey(c)
	if err != nil {
		return nil, s.refuse(c, err)
	}
	switch err := s.table.Unmap(k, c.from); {
	case err == nil:
		return nil, nil
	case errors.Is(err, portmap.ErrNoEntry):
		return nil, errNoEntry // WIP-13
	case errors.Is(err, portmap.ErrNotAuthorized):
		return nil, errNotAuthorized.with("%v", err)
	default:
		return nil, errActionFailed.with("%v", err)
	}
}

func mappingKey(c *call) (portmap.Key, error) {
	host, err := parseRemoteHost(c.text("NewRemoteHost"))
	return portmap.Key{Protocol: c.protocol("NewProtocol"), ExternalPort: c.ui2("NewExternalPort"), RemoteHost: host}, err
}

// parseRemoteHost reads a host on the internet. Clients write "", "*" or
// 0.0.0.0 for any (WIP-9); names are not looked up.
func parseRemoteHost(text string) (netip.Addr, error) {
	text = strings.Trim(text, " \t\r\n")
	if text == "" || text == "*" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() || a.IsMulticast() || a.IsLoopback() || a == broadcast {
		return netip.Addr{}, errInvalidArgs.with("NewRemoteHost is %q, not an IPv4 host address", text)
	}
	if a.IsUnspecified() {
		return netip.Addr{}, nil
	}
	return a, nil
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// internalClient reads the LAN host. Some games leave it empty and mean
// themselves (WIP-8).
func internalClient(c *call) (netip.Addr, error) {
	text := strings.Trim(c.text("NewInternalClient"), " \t\r\n")
	if text == "" {
		return c.from, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() {
		return netip.Addr{}, errInvalidArgs.with("NewInternalClient is %q, not an IPv4 address", text)
	}
	return a, nil
}

func remoteHost(m portmap.Mapping) string {
	if !m.RemoteHost.IsValid() {
		return ""
	}
	return m.RemoteHost.String()
}

func port(p uint16) string { return strconv.Itoa(int(p)) }
