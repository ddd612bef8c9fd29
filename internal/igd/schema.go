package igd

import (
	"fmt"
	"strings"
)

// service is a UPnP service as one table: its SCPD is written from it and its
// actions are run by it, so that the two cannot differ.
type service struct {
	typ     string // urn:schemas-upnp-org:service:...
	oldTyp  string // of the version before, whose callers are served, too (SPEC SOAP-3)
	id      string // the last part of the serviceId
	file    string // of the SCPD
	actions []action
	vars    []variable
}

type action struct {
	name string
	in   []argument
	out  []argument
	// do runs the action. Its values are the out arguments, in order.
	do func(*Server, *call) ([]string, error)
}

type argument struct {
	name    string
	related string // state variable
}

// variable is a state variable. The data types are those of the UPnP Device
// Architecture: string, boolean, ui2, ui4.
type variable struct {
	name    string
	typ     string
	evented bool
	allowed []string
	initial string // defaultValue
	// low and high are the allowedValueRange; high 0: none. The actions see to
	// it, as each has its own code for what is outside.
	low, high uint32
	// get gives the value for QueryStateVariable; nil where the variable only
	// describes arguments.
	get func(*Server) string
}

// args makes an argument list of names alone: the related variable of NewX is X.
func args(names ...string) []argument {
	list := make([]argument, len(names))
	for i, n := range names {
		related := strings.TrimPrefix(n, "New")
		for _, r := range relatedVariable {
			if r[0] == n {
				related = r[1]
			}
		}
		list[i] = argument{n, related}
	}
	return list
}

// relatedVariable has the arguments whose variable is named otherwise (SPEC 5.4,
// 5.10).
var relatedVariable = [...][2]string{
	{"NewPortMappingIndex", "PortMappingNumberOfEntries"},
	{"NewProtocol", "PortMappingProtocol"},
	{"NewEnabled", "PortMappingEnabled"},
	{"NewLeaseDuration", "PortMappingLeaseDuration"},

	{"NewReservedPort", "ExternalPort"},
	{"NewStartPort", "ExternalPort"},
	{"NewEndPort", "ExternalPort"},
	{"NewNumberOfPorts", "PortMappingNumberOfEntries"},
	{"NewManage", "A_ARG_TYPE_Manage"},
	{"NewPortListing", "A_ARG_TYPE_PortListing"},

	{"RemoteHost", "A_ARG_TYPE_IPv6Address"},
	{"RemotePort", "A_ARG_TYPE_Port"},
	{"InternalClient", "A_ARG_TYPE_IPv6Address"},
	{"InternalPort", "A_ARG_TYPE_Port"},
	{"Protocol", "A_ARG_TYPE_Protocol"},
	{"LeaseTime", "A_ARG_TYPE_LeaseTime"},
	{"NewLeaseTime", "A_ARG_TYPE_LeaseTime"},
	{"UniqueID", "A_ARG_TYPE_UniqueID"},
	{"PinholePackets", "A_ARG_TYPE_PinholePackets"},
	{"IsWorking", "A_ARG_TYPE_Boolean"},
	{"OutboundPinholeTimeout", "A_ARG_TYPE_OutboundPinholeTimeout"},
}

func (s *service) action(name string) *action {
	for i := range s.actions {
		if s.actions[i].name == name {
			return &s.actions[i]
		}
	}
	return nil
}

func (s *service) variable(name string) *variable {
	for i := range s.vars {
		if s.vars[i].name == name {
			return &s.vars[i]
		}
	}
	return nil
}

// scpd writes the service description (SPEC HTTP-3). Everything in it comes
// from the tables of this package, so nothing needs escaping.
func (s *service) scpd(configID uint32) string {
	var b strings.Builder
	fmt.Fprintf(&b, xmlDeclaration+`<scpd xmlns="urn:schemas-upnp-org:service-1-0" configId="%d">
  <specVersion><major>1</major><minor>1</minor></specVersion>
  <actionList>
`, configID)
	for _, a := range s.actions {
		a.scpd(&b)
	}
	b.WriteString("  </actionList>\n  <serviceStateTable>\n")
	for _, v := range s.vars {
		v.scpd(&b)
	}
	b.WriteString("  </serviceStateTable>\n</scpd>\n")
	return b.String()
}

const xmlDeclaration = `<?xml version="1.0" encoding="utf-8"?>` + "\n"

func (a *action) scpd(b *strings.Builder) {
	fmt.Fprintf(b, "    <action>\n      <name>%s</name>\n", a.name)
	if len(a.in)+len(a.out) > 0 {
		b.WriteString("      <argumentList>\n")
		for _, g := range a.in {
			g.scpd(b, "in")
		}
		for _, g := range a.out {
			g.scpd(b, "out")
		}
		b.WriteString("      </argumentList>\n")
	}
	b.WriteString("    </action>\n")
}

func (g argument) scpd(b *strings.Builder, direction string) {
	fmt.Fprintf(b, `        <argument>
          <name>%s</name>
          <direction>%s</direction>
          <relatedStateVariable>%s</relatedStateVariable>
        </argument>
`, g.name, direction, g.related)
}

func (v *variable) scpd(b *strings.Builder) {
	events := "no"
	if v.evented {
		events = "yes"
	}
	fmt.Fprintf(b, "    <stateVariable sendEvents=%q>\n      <name>%s</name>\n      <dataType>%s</dataType>\n", events, v.name, v.typ)
	if v.initial != "" {
		fmt.Fprintf(b, "      <defaultValue>%s</defaultValue>\n", v.initial)
	}
	if len(v.allowed) > 0 {
		b.WriteString("      <allowedValueList>\n")
		for _, a := range v.allowed {
			fmt.Fprintf(b, "        <allowedValue>%s</allowedValue>\n", a)
		}
		b.WriteString("      </allowedValueList>\n")
	}
	if v.high != 0 {
		fmt.Fprintf(b, `      <allowedValueRange>
        <minimum>%d</minimum>
        <maximum>%d</maximum>
      </allowedValueRange>
`, v.low, v.high)
	}
	b.WriteString("    </stateVariable>\n")
}
