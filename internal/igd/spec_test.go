package igd_test

import "strings"

// The tables of SPEC 5.2 to 5.5 for the v1 services, as this device has them:
// what is required, and of the optional parts the counters. spec2_test.go has
// those of version 2.

type serviceSpec struct {
	typ, id, scpd, control string
	actions                []actionSpec
	vars                   []varSpec
}

// actionSpec has the arguments in the order of the standard.
type actionSpec struct {
	name    string
	in, out []string
}

type varSpec struct {
	name, typ string
	evented   bool
	allowed   []string
	initial   string
	low, high string // allowedValueRange
}

var mappingKey = []string{"NewRemoteHost", "NewExternalPort", "NewProtocol"}
var mappingTarget = []string{"NewInternalPort", "NewInternalClient", "NewEnabled", "NewPortMappingDescription", "NewLeaseDuration"}
var wholeMapping = []string{
	"NewRemoteHost", "NewExternalPort", "NewProtocol",
	"NewInternalPort", "NewInternalClient", "NewEnabled", "NewPortMappingDescription", "NewLeaseDuration",
}

var layer3Spec = serviceSpec{ // SPEC 5.2
	typ: "urn:schemas-upnp-org:service:Layer3Forwarding:1", id: "urn:upnp-org:serviceId:L3Forwarding1",
	scpd: "/upnp/scpd/gatel3fSCPD.xml", control: "/upnp/control/L3Forwarding1",
	actions: []actionSpec{
		{"SetDefaultConnectionService", []string{"NewDefaultConnectionService"}, nil},
		{"GetDefaultConnectionService", nil, []string{"NewDefaultConnectionService"}},
	},
	vars: []varSpec{{name: "DefaultConnectionService", typ: "string", evented: true}},
}

var wanCommonSpec = serviceSpec{ // SPEC 5.3
	typ: "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1", id: "urn:upnp-org:serviceId:WANCommonIFC1",
	scpd: "/upnp/scpd/gateicfgSCPD.xml", control: "/upnp/control/WANCommonIFC1",
	actions: []actionSpec{
		{"GetCommonLinkProperties", nil, []string{
			"NewWANAccessType", "NewLayer1UpstreamMaxBitRate", "NewLayer1DownstreamMaxBitRate", "NewPhysicalLinkStatus"}},
		{"GetTotalBytesSent", nil, []string{"NewTotalBytesSent"}},
		{"GetTotalBytesReceived", nil, []string{"NewTotalBytesReceived"}},
		{"GetTotalPacketsSent", nil, []string{"NewTotalPacketsSent"}},
		{"GetTotalPacketsReceived", nil, []string{"NewTotalPacketsReceived"}},
	},
	vars: []varSpec{
		{name: "WANAccessType", typ: "string", allowed: []string{"DSL", "POTS", "Cable", "Ethernet"}},
		{name: "Layer1UpstreamMaxBitRate", typ: "ui4"},
		{name: "Layer1DownstreamMaxBitRate", typ: "ui4"},
		{name: "PhysicalLinkStatus", typ: "string", evented: true, allowed: []string{"Up", "Down", "Initializing", "Unavailable"}},
		{name: "TotalBytesSent", typ: "ui4"},
		{name: "TotalBytesReceived", typ: "ui4"},
		{name: "TotalPacketsSent", typ: "ui4"},
		{name: "TotalPacketsReceived", typ: "ui4"},
	},
}

var wanIPSpec = serviceSpec{ // SPEC 5.4, 5.5
	typ: "urn:schemas-upnp-org:service:WANIPConnection:1", id: "urn:upnp-org:serviceId:WANIPConn1",
	scpd: "/upnp/scpd/gateconnSCPD.xml", control: "/upnp/control/WANIPConn1",
	actions: []actionSpec{
		{"SetConnectionType", []string{"NewConnectionType"}, nil},
		{"GetConnectionTypeInfo", nil, []string{"NewConnectionType", "NewPossibleConnectionTypes"}},
		{"RequestConnection", nil, nil},
		{"ForceTermination", nil, nil},
		{"GetStatusInfo", nil, []string{"NewConnectionStatus", "NewLastConnectionError", "NewUptime"}},
		{"GetNATRSIPStatus", nil, []string{"NewRSIPAvailable", "NewNATEnabled"}},
		{"GetGenericPortMappingEntry", []string{"NewPortMappingIndex"}, wholeMapping},
		{"GetSpecificPortMappingEntry", mappingKey, mappingTarget},
		{"AddPortMapping", wholeMapping, nil},
		{"DeletePortMapping", mappingKey, nil},
		{"GetExternalIPAddress", nil, []string{"NewExternalIPAddress"}},
	},
	vars: []varSpec{
		{name: "ConnectionType", typ: "string", allowed: []string{"Unconfigured", "IP_Routed", "IP_Bridged"}, initial: "IP_Routed"},
		{name: "PossibleConnectionTypes", typ: "string", evented: true, allowed: []string{"Unconfigured", "IP_Routed", "IP_Bridged"}},
		{name: "ConnectionStatus", typ: "string", evented: true, allowed: []string{"Unconfigured", "Connected", "Disconnected"}},
		{name: "Uptime", typ: "ui4"},
		{name: "LastConnectionError", typ: "string", allowed: []string{"ERROR_NONE"}},
		{name: "RSIPAvailable", typ: "boolean"},
		{name: "NATEnabled", typ: "boolean"}, // FIX-3: not NATEEnabled
		{name: "ExternalIPAddress", typ: "string", evented: true},
		{name: "PortMappingNumberOfEntries", typ: "ui2", evented: true},
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

var services = []serviceSpec{layer3Spec, wanCommonSpec, wanIPSpec}

// related is the rule of SPEC 5.4.
func related(argument string) string {
	switch argument {
	case "NewPortMappingIndex":
		return "PortMappingNumberOfEntries"
	case "NewProtocol":
		return "PortMappingProtocol"
	case "NewEnabled":
		return "PortMappingEnabled"
	case "NewLeaseDuration":
		return "PortMappingLeaseDuration"
	}
	if variable := related2(argument); variable != "" {
		return variable
	}
	return strings.TrimPrefix(argument, "New")
}

// outArguments gives the out arguments of an action of the standard.
func outArguments(typ, action string) ([]string, bool) {
	for _, svc := range append(services2, wanIPSpec) {
		for _, a := range svc.actions {
			if svc.typ == typ && a.name == action {
				return a.out, true
			}
		}
	}
	return nil, false
}
