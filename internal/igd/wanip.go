package igd

import (
	"strconv"
	"time"
)

// wanIPConnection is WANIPConnection:1 (SPEC 5.4 to 5.6).
func wanIPConnection() *service {
	return &service{
		typ:     "urn:schemas-upnp-org:service:WANIPConnection:1",
		id:      "WANIPConn1",
		file:    "gateconnSCPD.xml",
		actions: append(connectionActions(), mappingActions()...),
		vars: []variable{
			{name: "ConnectionType", typ: "string", initial: ipRouted, allowed: []string{"Unconfigured", ipRouted, "IP_Bridged"},
				get: func(*Server) string { return ipRouted }},
			{name: "PossibleConnectionTypes", typ: "string", evented: true, allowed: []string{"Unconfigured", ipRouted, "IP_Bridged"},
				get: func(*Server) string { return ipRouted }},
			{name: "ConnectionStatus", typ: "string", evented: true, allowed: []string{"Unconfigured", "Connected", "Disconnected"},
				get: (*Server).connectionStatus},
			{name: "Uptime", typ: "ui4", get: (*Server).uptime},
			{name: "LastConnectionError", typ: "string", allowed: []string{errorNone}, get: func(*Server) string { return errorNone }},
			{name: "RSIPAvailable", typ: "boolean", get: func(*Server) string { return "0" }},
			{name: "NATEnabled", typ: "boolean", get: func(*Server) string { return "1" }},
			{name: "ExternalIPAddress", typ: "string", evented: true, get: (*Server).externalIPAddress},
			{name: "PortMappingNumberOfEntries", typ: "ui2", evented: true,
				get: func(s *Server) string { return strconv.Itoa(s.table.Len()) }},
			{name: "PortMappingEnabled", typ: "boolean"},
			{name: "PortMappingLeaseDuration", typ: "ui4"},
			{name: "RemoteHost", typ: "string"},
			{name: "ExternalPort", typ: "ui2"},
			{name: "InternalPort", typ: "ui2"},
			{name: "PortMappingProtocol", typ: "string", allowed: []string{"TCP", "UDP"}},
			{name: "InternalClient", typ: "string"},
			{name: "PortMappingDescription", typ: "string"},
		},
	}
}

// wanIPConnection2 is WANIPConnection:2: what version 1 has, the actions on
// ranges, and a counter of changes.
func wanIPConnection2() *service {
	svc := wanIPConnection()
	svc.typ, svc.oldTyp = "urn:schemas-upnp-org:service:WANIPConnection:2", svc.typ
	const termination = 3 // the place of RequestTermination in SPEC 5.4
	actions := append(svc.actions[:termination:termination], action{"RequestTermination", nil, nil, (*Server).terminate})
	actions = append(actions, svc.actions[termination:]...)
	svc.actions = append(actions, rangeActions()...)

	lease := svc.variable("PortMappingLeaseDuration")
	lease.low, lease.high = 0, 604800
	internal := svc.variable("InternalPort")
	internal.low, internal.high = 1, 65535
	svc.vars = append(svc.vars,
		variable{name: "SystemUpdateID", typ: "ui4", evented: true,
			get: func(s *Server) string { return strconv.FormatUint(uint64(s.table.UpdateID()), 10) }},
		variable{name: "A_ARG_TYPE_Manage", typ: "boolean"},
		variable{name: "A_ARG_TYPE_PortListing", typ: "string"})
	return svc
}

const (
	ipRouted  = "IP_Routed"
	errorNone = "ERROR_NONE"
)

func connectionActions() []action {
	return []action{
		{"SetConnectionType", args("NewConnectionType"), nil, (*Server).setConnectionType},
		{"GetConnectionTypeInfo", nil, args("NewConnectionType", "NewPossibleConnectionTypes"),
			func(*Server, *call) ([]string, error) { return []string{ipRouted, ipRouted}, nil }},
		{"RequestConnection", nil, nil, (*Server).requestConnection},
		{"ForceTermination", nil, nil, (*Server).terminate},
		{"GetStatusInfo", nil, args("NewConnectionStatus", "NewLastConnectionError", "NewUptime"),
			func(s *Server, _ *call) ([]string, error) {
				return []string{s.connectionStatus(), errorNone, s.uptime()}, nil
			}},
		{"GetNATRSIPStatus", nil, args("NewRSIPAvailable", "NewNATEnabled"),
			func(*Server, *call) ([]string, error) { return []string{"0", "1"}, nil }},
	}
}

// setConnectionType: a router routes; nothing else can be set (WIP-19).
func (s *Server) setConnectionType(c *call) ([]string, error) {
	if s.v2 || c.text("NewConnectionType") != ipRouted {
		return nil, s.code(errActionFailed, errReadOnly).with("the connection is %s and the administrator's", ipRouted)
	}
	return nil, nil
}

// terminate refuses RequestTermination and ForceTermination (WIP-20).
func (s *Server) terminate(*call) ([]string, error) {
	return nil, s.code(errActionFailed, errNotAuthorized).with("the connection is the administrator's")
}

// requestConnection has no effect on a connection that is up (WIP-20).
func (s *Server) requestConnection(*call) ([]string, error) {
	if !s.uplink.State().Uplink.Connected() {
		return nil, errSetupFailed.with("the uplink has no address")
	}
	return nil, nil
}

func (s *Server) connectionStatus() string {
	if s.uplink.State().Uplink.Connected() {
		return "Connected"
	}
	return "Disconnected"
}

// uptime is the connection's, not the daemon's (WIP-23).
func (s *Server) uptime() string {
	up := s.uplink.State().Uplink
	if !up.Connected() {
		return "0"
	}
	return strconv.FormatInt(int64((s.now()-up.Since)/time.Second), 10)
}

// externalIPAddress is empty while there is none (WIP-22).
func (s *Server) externalIPAddress() string {
	up := s.uplink.State().Uplink
	switch {
	case !up.Connected():
		return ""
	case s.cfg.ExternalIP.IsValid():
		return s.cfg.ExternalIP.String()
	}
	return up.Addr.String()
}
