package igd

import (
	"errors"
	"net/netip"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// The errors of WANIPv6FirewallControl (SPEC 5.10). 702 FirewallDisabled and 703
// InboundPinholeNotAllowed, which would come before all others (PIN-1), never
// do: the tree has this service only where pinholes can be made.
var (
	errPinholesFull     = upnpError{701, "PinholeSpaceExhausted"}
	errNoPinhole        = upnpError{704, "NoSuchEntry"}
	errPinholeProtocol  = upnpError{705, "ProtocolNotSupported"}
	errPinholePort      = upnpError{706, "InternalPortWildcardingNotAllowed"}
	errPinholeProtocols = upnpError{707, "ProtocolWildcardingNotAllowed"}
	errPinholeClient    = upnpError{708, "WildCardNotPermittedInSrcIP"}
	errNoTraffic        = upnpError{709, "NoTrafficReceived"}
)

// wanIPv6FirewallControl is WANIPv6FirewallControl:1 (SPEC 5.10): pinholes, by
// which a host of the LAN is reached under its own IPv6 address.
func wanIPv6FirewallControl() *service {
	yes := func(*Server) string { return "1" }
	flow := args("RemoteHost", "RemotePort", "InternalClient", "InternalPort", "Protocol")
	return &service{
		typ:  "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1",
		id:   "WANIPv6Firewall1",
		file: "gate6fwSCPD.xml",
		actions: []action{
			{"GetFirewallStatus", nil, args("FirewallEnabled", "InboundPinholeAllowed"),
				func(*Server, *call) ([]string, error) { return []string{"1", "1"}, nil }},
			{"GetOutboundPinholeTimeout", flow, args("OutboundPinholeTimeout"), (*Server).getOutboundPinholeTimeout},
			{"AddPinhole", append(flow[:len(flow):len(flow)], args("LeaseTime")...), args("UniqueID"), (*Server).addPinhole},
			{"UpdatePinhole", args("UniqueID", "NewLeaseTime"), nil, (*Server).updatePinhole},
			{"DeletePinhole", args("UniqueID"), nil, func(s *Server, c *call) ([]string, error) {
				return nil, pinholeError(s.table.DeletePinhole(c.ui2("UniqueID"), c.from))
			}},
			{"GetPinholePackets", args("UniqueID"), args("PinholePackets"), func(s *Server, c *call) ([]string, error) {
				n, err := s.pinholePackets(c)
				return []string{low32(n)}, err
			}},
			{"CheckPinholeWorking", args("UniqueID"), args("IsWorking"), (*Server).checkPinholeWorking},
		},
		vars: []variable{
			{name: "FirewallEnabled", typ: "boolean", evented: true, get: yes},
			{name: "InboundPinholeAllowed", typ: "boolean", evented: true, get: yes},
			{name: "A_ARG_TYPE_OutboundPinholeTimeout", typ: "ui4", low: udpTimeout, high: tcpTimeout},
			{name: "A_ARG_TYPE_IPv6Address", typ: "string"},
			{name: "A_ARG_TYPE_Port", typ: "ui2"},
			{name: "A_ARG_TYPE_Protocol", typ: "ui2"},
			{name: "A_ARG_TYPE_LeaseTime", typ: "ui4", low: 1, high: maxPinholeLease},
			{name: "A_ARG_TYPE_UniqueID", typ: "ui2"},
			{name: "A_ARG_TYPE_PinholePackets", typ: "ui4"},
			{name: "A_ARG_TYPE_Boolean", typ: "boolean"},
		},
	}
}

const maxPinholeLease = 86400

// What the kernel's connection tracking gives an idle connection that was
// answered, in seconds: UDP by default, TCP the least of what RFC 5382 allows
// (REQ-5), which OpenWrt sets; the kernel's own default is longer.
const (
	udpTimeout = 120
	tcpTimeout = 7440
)

// getOutboundPinholeTimeout says how long the way back stays open for an idle
// connection that the host itself began.
func (s *Server) getOutboundPinholeTimeout(c *call) ([]string, error) {
	for _, name := range []string{"RemoteHost", "InternalClient"} {
		if _, err := parseHost(c, name, "IPv6", isIPv6); err != nil {
			return nil, err
		}
	}
	switch c.ui2("Protocol") {
	case uint16(portmap.TCP):
		return []string{port(tcpTimeout)}, nil
	case uint16(portmap.UDP), anyProtocol: // the shorter one is right for all
		return []string{port(udpTimeout)}, nil
	}
	return nil, errPinholeProtocol
}

const anyProtocol = 65535

func (s *Server) addPinhole(c *call) ([]string, error) {
	req, err := pinholeRequest(c)
	if err != nil {
		return nil, s.refuse(c, err)
	}
	m, err := s.table.Map(req)
	if err != nil {
		return nil, pinholeError(err)
	}
	return []string{port(m.ID)}, nil
}

// pinholeRequest reads the arguments of AddPinhole (PIN-2).
func pinholeRequest(c *call) (portmap.Request, error) {
	remote, err := parseHost(c, "RemoteHost", "IPv6", isIPv6)
	if err != nil {
		return portmap.Request{}, err
	}
	client, err := parseHost(c, "InternalClient", "IPv6", isIPv6) // PIN-10
	if err != nil {
		return portmap.Request{}, err
	}
	lease, err := pinholeLease(c, "LeaseTime")
	if err != nil {
		return portmap.Request{}, err
	}
	protocol, internal := c.ui2("Protocol"), c.ui2("InternalPort")
	switch {
	case !client.IsValid():
		return portmap.Request{}, errPinholeClient
	case internal == 0:
		return portmap.Request{}, errPinholePort
	case protocol == anyProtocol:
		return portmap.Request{}, errPinholeProtocols
	case protocol != uint16(portmap.TCP) && protocol != uint16(portmap.UDP):
		return portmap.Request{}, errPinholeProtocol.with("%d is neither 6, TCP, nor 17, UDP", protocol)
	}
	return portmap.Request{
		Mapping: portmap.Mapping{
			Key: portmap.Key{
				Protocol: portmap.Protocol(protocol), ExternalPort: internal, RemoteHost: remote,
				Pinhole: client, RemotePort: c.ui2("RemotePort"),
			},
			Client: client, InternalPort: internal, Enabled: true, Origin: portmap.UPnP,
		},
		Lease: lease,
		From:  c.from,
	}, nil
}

// isIPv6 wants an address that means the same everywhere: link-local ones
// and those with a zone do not, and IPv4-mapped ones are never on a wire.
func isIPv6(a netip.Addr) bool {
	return a.Is6() && !a.Is4In6() && a.Zone() == "" && !a.IsLinkLocalUnicast()
}

// pinholeLease is 402 outside the range, as in other gateways (PIN-4).
func pinholeLease(c *call, name string) (time.Duration, error) {
	seconds := c.ui4(name)
	if seconds < 1 || seconds > maxPinholeLease {
		return 0, errInvalidArgs.with("%s is %d, not from 1 to %d", name, seconds, maxPinholeLease)
	}
	return time.Duration(seconds) * time.Second, nil
}

func (s *Server) updatePinhole(c *call) ([]string, error) {
	lease, err := pinholeLease(c, "NewLeaseTime")
	if err != nil {
		return nil, s.refuse(c, err)
	}
	return nil, pinholeError(s.table.UpdatePinhole(c.ui2("UniqueID"), lease, c.from))
}

// checkPinholeWorking: what came through shows that it works (PIN-7).
func (s *Server) checkPinholeWorking(c *call) ([]string, error) {
	n, err := s.pinholePackets(c)
	if err == nil && n == 0 {
		err = errNoTraffic
	}
	return []string{"1"}, err
}

// pinholePackets counts the packets that the pinhole let in.
func (s *Server) pinholePackets(c *call) (uint64, error) {
	m, err := s.table.Pinhole(c.ui2("UniqueID"), c.from)
	if err != nil {
		return 0, pinholeError(err)
	}
	packets, err := s.table.Packets()
	return packets[m.Key], err
}

// pinholeError gives the code for what the table refused.
func pinholeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, portmap.ErrNoEntry):
		return errNoPinhole
	case errors.Is(err, portmap.ErrFull):
		return errPinholesFull.with("%v", err)
	case ofAnother(err): // PCP's, by its nonce, or another host's
		return errNotAuthorized
	case errors.Is(err, portmap.ErrNotLANHost), errors.Is(err, portmap.ErrNotAuthorized), errors.Is(err, portmap.ErrDenied):
		return errNotAuthorized.with("%v", err) // PIN-3
	}
	return errActionFailed.with("%v", err)
}
