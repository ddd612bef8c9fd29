package igd_test

// The tables of SPEC 5.2 to 5.5 for version 2, and of SPEC 5.10.

var layer3Spec2 = at2(layer3Spec)
var wanCommonSpec2 = at2(wanCommonSpec)

// at2 is the same service in the tree of version 2 (SPEC 1.3).
func at2(svc serviceSpec) serviceSpec {
	svc.scpd = "/upnp/2" + svc.scpd[len("/upnp"):]
	svc.control = "/upnp/2" + svc.control[len("/upnp"):]
	return svc
}

var wanIPSpec2 = serviceSpec{ // SPEC 5.4, 5.5
	typ: "urn:schemas-upnp-org:service:WANIPConnection:2", id: "urn:upnp-org:serviceId:WANIPConn1",
	scpd: "/upnp/2/scpd/gateconnSCPD.xml", control: "/upnp/2/control/WANIPConn1",
	actions: []actionSpec{
		{"SetConnectionType", []string{"NewConnectionType"}, nil},
		{"GetConnectionTypeInfo", nil, []string{"NewConnectionType", "NewPossibleConnectionTypes"}},
		{"RequestConnection", nil, nil},
		{"RequestTermination", nil, nil},
		{"ForceTermination", nil, nil},
		{"GetStatusInfo", nil, []string{"NewConnectionStatus", "NewLastConnectionError", "NewUptime"}},
		{"GetNATRSIPStatus", nil, []string{"NewRSIPAvailable", "NewNATEnabled"}},
		{"GetGenericPortMappingEntry", []string{"NewPortMappingIndex"}, wholeMapping},
		{"GetSpecificPortMappingEntry", mappingKey, mappingTarget},
		{"AddPortMapping", wholeMapping, nil},
		{"DeletePortMapping", mappingKey, nil},
		{"GetExternalIPAddress", nil, []string{"NewExternalIPAddress"}},
		{"AddAnyPortMapping", wholeMapping, []string{"NewReservedPort"}}, // FIX-6
		{"DeletePortMappingRange", portRange, nil},
		{"GetListOfPortMappings", append(portRange[:4:4], "NewNumberOfPorts"), []string{"NewPortListing"}},
	},
	vars: []varSpec{
		{name: "ConnectionType", typ: "string", allowed: []string{"Unconfigured", "IP_Routed", "IP_Bridged"}, initial: "IP_Routed"},
		{name: "PossibleConnectionTypes", typ: "string", evented: true, allowed: []string{"Unconfigured", "IP_Routed", "IP_Bridged"}},
		{name: "ConnectionStatus", typ: "string", evented: true, allowed: []string{"Unconfigured", "Connected", "Disconnected"}},
		{name: "Uptime", typ: "ui4"},
		{name: "LastConnectionError", typ: "string", allowed: []string{"ERROR_NONE"}},
		{name: "RSIPAvailable", typ: "boolean"},
		{name: "NATEnabled", typ: "boolean"},
		{name: "ExternalIPAddress", typ: "string", evented: true},
		{name: "PortMappingNumberOfEntries", typ: "ui2", evented: true},
		{name: "PortMappingEnabled", typ: "boolean"},
		{name: "PortMappingLeaseDuration", typ: "ui4", low: "0", high: "604800"},
		{name: "RemoteHost", typ: "string"},
		{name: "ExternalPort", typ: "ui2"},
		{name: "InternalPort", typ: "ui2", low: "1", high: "65535"},
		{name: "PortMappingProtocol", typ: "string", allowed: []string{"TCP", "UDP"}},
		{name: "InternalClient", typ: "string"},
		{name: "PortMappingDescription", typ: "string"},
		{name: "SystemUpdateID", typ: "ui4", evented: true},
		{name: "A_ARG_TYPE_Manage", typ: "boolean"},
		{name: "A_ARG_TYPE_PortListing", typ: "string"},
	},
}

var portRange = []string{"NewStartPort", "NewEndPort", "NewProtocol", "NewManage"}
var pinholeFlow = []string{"RemoteHost", "RemotePort", "InternalClient", "InternalPort", "Protocol"}

var firewall6Spec = serviceSpec{ // SPEC 5.10
	typ: "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1", id: "urn:upnp-org:serviceId:WANIPv6Firewall1",
	scpd: "/upnp/2/scpd/gate6fwSCPD.xml", control: "/upnp/2/control/WANIPv6Firewall1",
	actions: []actionSpec{
		{"GetFirewallStatus", nil, []string{"FirewallEnabled", "InboundPinholeAllowed"}},
		{"GetOutboundPinholeTimeout", pinholeFlow, []string{"OutboundPinholeTimeout"}},
		{"AddPinhole", append(pinholeFlow[:5:5], "LeaseTime"), []string{"UniqueID"}},
		{"UpdatePinhole", []string{"UniqueID", "NewLeaseTime"}, nil},
		{"DeletePinhole", []string{"UniqueID"}, nil},
		{"GetPinholePackets", []string{"UniqueID"}, []string{"PinholePackets"}},
		{"CheckPinholeWorking", []string{"UniqueID"}, []string{"IsWorking"}},
	},
	vars: []varSpec{
		{name: "FirewallEnabled", typ: "boolean", evented: true},
		{name: "InboundPinholeAllowed", typ: "boolean", evented: true},
		{name: "A_ARG_TYPE_OutboundPinholeTimeout", typ: "ui4", low: "120", high: "7440"},
		{name: "A_ARG_TYPE_IPv6Address", typ: "string"},
		{name: "A_ARG_TYPE_Port", typ: "ui2"},
		{name: "A_ARG_TYPE_Protocol", typ: "ui2"},
		{name: "A_ARG_TYPE_LeaseTime", typ: "ui4", low: "1", high: "86400"},
		{name: "A_ARG_TYPE_UniqueID", typ: "ui2"},
		{name: "A_ARG_TYPE_PinholePackets", typ: "ui4"},
		{name: "A_ARG_TYPE_Boolean", typ: "boolean"},
	},
}

var services2 = []serviceSpec{layer3Spec2, wanCommonSpec2, wanIPSpec2, firewall6Spec}

// related2 is the rule of SPEC 5.4 for the arguments of version 2, and what the
// variables of SPEC 5.10 are for.
func related2(argument string) string {
	switch argument {
	case "NewReservedPort", "NewStartPort", "NewEndPort":
		return "ExternalPort"
	case "NewNumberOfPorts":
		return "PortMappingNumberOfEntries"
	case "NewManage":
		return "A_ARG_TYPE_Manage"
	case "NewPortListing":
		return "A_ARG_TYPE_PortListing"
	case "RemoteHost", "InternalClient":
		return "A_ARG_TYPE_IPv6Address"
	case "RemotePort", "InternalPort":
		return "A_ARG_TYPE_Port"
	case "Protocol", "UniqueID", "LeaseTime", "PinholePackets", "OutboundPinholeTimeout":
		return "A_ARG_TYPE_" + argument
	case "NewLeaseTime":
		return "A_ARG_TYPE_LeaseTime"
	case "IsWorking":
		return "A_ARG_TYPE_Boolean"
	}
	return ""
}
