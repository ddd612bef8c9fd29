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
// port mappings, in the order of the standard. In version 2 a host reads only
// its own (SPEC ACC-2, ACC-3), and a refusal has more codes. Which ports may be
// mapped is the table's policy in both.
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
	m, err := s.mappingAt(int(c.ui2("NewPortMappingIndex")), c.from)
	if err != nil {
		return nil, errNoIndex // WIP-17: 713 ends every client's loop
	}
	return s.entry(m), nil
}

// mappingAt numbers the mappings that the host may see. Their number is
// PortMappingNumberOfEntries in version 1 only: the variable is evented, the
// same for all, and counts all.
func (s *Server) mappingAt(i int, from netip.Addr) (portmap.Mapping, error) {
	if s.v2 {
		return s.table.AtOwn(i, from)
	}
	return s.table.At(i)
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
	if s.v2 && m.Client != c.from {
		return nil, s.refuse(c, errNotAuthorized.with("the mapping is another host's")) // WIP-18, ACC-2
	}
	return s.target(m), nil
}

// entry gives the out arguments that describe a mapping.
func (s *Server) entry(m portmap.Mapping) []string {
	return append([]string{remoteHost(m), port(m.ExternalPort), m.Protocol.String()}, s.target(m)...)
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
	req, err := s.mappingRequest(c, false)
	if err != nil {
		return nil, s.refuse(c, err)
	}
	_, err = s.table.Map(req)
	return nil, s.mapError(err)
}

// mappingRequest reads the arguments of AddPortMapping and AddAnyPortMapping,
// which takes port 0 for any.
func (s *Server) mappingRequest(c *call, anyPort bool) (portmap.Request, error) {
	k, err := mappingKey(c)
	if err != nil {
		return portmap.Request{}, err
	}
	client, err := s.internalClient(c)
	if err != nil {
		return portmap.Request{}, err
	}
	if k.ExternalPort == 0 && !anyPort {
		return portmap.Request{}, errWildcardPort // WIP-6
	}
	internal := c.ui2("NewInternalPort")
	if internal == 0 {
		return portmap.Request{}, s.code(errInvalidArgs, errInternalPort).with("NewInternalPort is 0") // WIP-7
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

// mapError gives the code for a refused mapping. WANIPConnection:1 has no 606: a
// refusal by policy is 718 there (ACC-6), which also makes clients try another
// port.
func (s *Server) mapError(err error) error {
	code := errActionFailed
	switch {
	case err == nil:
		return nil
	case errors.Is(err, portmap.ErrNotLANHost): // no other host than the caller: ACC-1
		return s.code(errInvalidArgs, errNotAuthorized).with("NewInternalClient: %v", err)
	case errors.Is(err, portmap.ErrNotAuthorized), errors.Is(err, portmap.ErrDenied):
		code = s.code(errConflict, errNotAuthorized)
	case errors.Is(err, portmap.ErrInUse), errors.Is(err, portmap.ErrOtherMechanism): // WIP-11
		code = s.code(errConflict, errInUse)
	case errors.Is(err, portmap.ErrConflict):
		code = errConflict
	case errors.Is(err, portmap.ErrFull):
		code = s.code(errActionFailed, errFull)
	}
	if s.v2 && ofAnother(err) {
		return code
	}
	return code.with("%v", err)
}

// ofAnother reports whether an error says what another host has, and for how long:
// in version 2 a host sees only its own (ACC-2). The log has it.
func ofAnother(err error) bool {
	return errors.Is(err, portmap.ErrConflict) || errors.Is(err, portmap.ErrNotOwner)
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
	case s.v2 && ofAnother(err):
		return nil, errNotAuthorized
	case errors.Is(err, portmap.ErrNotAuthorized):
		return nil, errNotAuthorized.with("%v", err)
	default:
		return nil, errActionFailed.with("%v", err)
	}
}

func mappingKey(c *call) (portmap.Key, error) {
	host, err := parseHost(c, "NewRemoteHost", "IPv4", isIPv4)
	return portmap.Key{Protocol: c.protocol("NewProtocol"), ExternalPort: c.ui2("NewExternalPort"), RemoteHost: host}, err
}

// parseHost reads the address of a host, the zero Addr for any. Clients write
// "", "*" or 0.0.0.0 for any (WIP-9); names are not looked up.
func parseHost(c *call, name, family string, is func(netip.Addr) bool) (netip.Addr, error) {
	text := strings.Trim(c.text(name), " \t\r\n")
	if text == "" || text == "*" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || !is(a) || a.IsMulticast() || a.IsLoopback() {
		return netip.Addr{}, errInvalidArgs.with("%s is %q, not an %s host address", name, text, family)
	}
	if a.IsUnspecified() {
		return netip.Addr{}, nil
	}
	return a, nil
}

func isIPv4(a netip.Addr) bool { return a.Is4() && a != broadcast }

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// internalClient reads the LAN host. Some games leave it empty and mean
// themselves (WIP-8), which only version 1 lets pass.
func (s *Server) internalClient(c *call) (netip.Addr, error) {
	text := strings.Trim(c.text("NewInternalClient"), " \t\r\n")
	switch {
	case text == "" && s.v2:
		return netip.Addr{}, errNoClient
	case text == "" && !c.from.Is4():
		return netip.Addr{}, errInvalidArgs.with("NewInternalClient is empty, and %v is not an IPv4 address", c.from)
	case text == "":
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
