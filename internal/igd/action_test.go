package igd_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/igd"
	"github.com/linux-igd/upnpd/internal/wan"
)

// query asks for a state variable that must be known.
func (w *world) query(svc serviceSpec, variable string) string {
	w.t.Helper()
	r := w.queryReply(svc, variable)
	if r.code != 0 || len(r.out) != 1 {
		w.t.Errorf("QueryStateVariable %s: %d %s, %q", variable, r.code, r.text, r.out)
		return ""
	}
	return r.values["return"]
}

func (w *world) queryReply(svc serviceSpec, variable string) reply {
	w.t.Helper()
	return w.reply(controlNS, "QueryStateVariable", w.post(alice, svc.control,
		envelope(controlNS, "QueryStateVariable", "varName", variable),
		"CONTENT-TYPE", xmlType, "SOAPACTION", `"`+controlNS+`#QueryStateVariable"`))
}

// wanDown are the ways in which there is no connection.
var wanDown = map[string]wan.Uplink{
	"no device":  {Name: "wan0"},
	"no carrier": {Name: "wan0", Index: 2, Addr: wanIP, Speed: 1e9},
	"no address": {Name: "wan0", Index: 2, Up: true, Speed: 1e9},
}

func TestConnection(t *testing.T) {
	w := newWorld(t)
	connected := func(status, address, uptime string) {
		t.Helper()
		r := w.expect(0, alice, wanIPSpec, "GetStatusInfo")
		if want := []string{status, "ERROR_NONE", uptime}; !slices.Equal(r.out, want) {
			t.Errorf("GetStatusInfo %q, want %q", r.out, want)
		}
		r = w.expect(0, alice, wanIPSpec, "GetExternalIPAddress")
		if r.out[0] != address {
			t.Errorf("GetExternalIPAddress %q, want %q", r.out[0], address)
		}
		for variable, want := range map[string]string{"ConnectionStatus": status, "ExternalIPAddress": address, "Uptime": uptime} {
			if got := w.query(wanIPSpec, variable); got != want {
				t.Errorf("%s %q, want %q", variable, got, want)
			}
		}
	}
	connected("Connected", "11.0.0.2", "3000") // WIP-23: 50 minutes, the daemon's age does not matter
	w.clock += 1999 * time.Millisecond
	connected("Connected", "11.0.0.2", "3001")
	up := w.uplink.state.Uplink
	for name, down := range wanDown { // WIP-22
		t.Log(name)
		w.uplink.state.Uplink = down
		connected("Disconnected", "", "0")
	}
	w.uplink.state.Uplink = up
	w.uplink.state.Uplink.Since = w.clock
	connected("Connected", "11.0.0.2", "0")
	w.uplink.state.Uplink.Addr = netip.MustParseAddr("100.64.3.4")
	connected("Connected", "100.64.3.4", "0") // WIP-22: the real address, private or not
}

// The configured address is reported, but not while there is no connection.
func TestExternalIP(t *testing.T) {
	w := newWorld(t, func(_ *world, c *igd.Config) { c.ExternalIP = netip.MustParseAddr("11.0.0.99") })
	if r := w.expect(0, alice, wanIPSpec, "GetExternalIPAddress"); r.out[0] != "11.0.0.99" {
		t.Errorf("got %q", r.out)
	}
	w.uplink.state.Uplink.Up = false
	if r := w.expect(0, alice, wanIPSpec, "GetExternalIPAddress"); r.out[0] != "" { // WIP-22
		t.Errorf("disconnected, but %q", r.out)
	}
}

// A mapping can be made and read while the WAN is down.
func TestMappingWithoutWAN(t *testing.T) {
	w := newWorld(t)
	w.uplink.state.Uplink = wanDown["no device"]
	w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping()...)
	w.expect(0, alice, wanIPSpec, "GetGenericPortMappingEntry", "NewPortMappingIndex", "0")
}

func TestConnectionType(t *testing.T) {
	w := newWorld(t)
	if r := w.expect(0, alice, wanIPSpec, "GetConnectionTypeInfo"); !slices.Equal(r.out, []string{"IP_Routed", "IP_Routed"}) {
		t.Errorf("GetConnectionTypeInfo %q", r.out)
	}
	if r := w.expect(0, alice, wanIPSpec, "GetNATRSIPStatus"); !slices.Equal(r.out, []string{"0", "1"}) {
		t.Errorf("GetNATRSIPStatus %q", r.out)
	}
	for value, code := range map[string]int{ // WIP-19
		"IP_Routed": 0, " IP_Routed\n": 0,
		"IP_Bridged": 501, "Unconfigured": 501,
		"PPPoE_Bridged": 601, "": 601, "IP_Routed,IP_Bridged": 601,
	} {
		w.expect(code, alice, wanIPSpec, "SetConnectionType", "NewConnectionType", value)
	}
	w.expect(402, alice, wanIPSpec, "SetConnectionType")
}

// WIP-20: nobody on the LAN ends the connection.
func TestRequestConnection(t *testing.T) {
	w := newWorld(t)
	w.expect(0, alice, wanIPSpec, "RequestConnection")
	w.expect(501, alice, wanIPSpec, "ForceTermination")
	for name, down := range wanDown {
		t.Log(name)
		w.uplink.state.Uplink = down
		w.expect(704, alice, wanIPSpec, "RequestConnection")
		w.expect(501, alice, wanIPSpec, "ForceTermination")
	}
}

// SPEC 5.3.
func TestCommonLinkProperties(t *testing.T) {
	for _, tt := range []struct {
		name                 string
		speed                uint64
		up                   bool
		configUp, configDown uint64
		want                 []string
	}{
		{"gigabit", 1e9, true, 0, 0, []string{"Ethernet", "1000000000", "1000000000", "Up"}},
		{"highest ui4", 4294967295, true, 0, 0, []string{"Ethernet", "4294967295", "4294967295", "Up"}},
		{"one more", 4294967296, true, 0, 0, []string{"Ethernet", "4294967295", "4294967295", "Up"}},
		{"10 gigabit", 10e9, true, 0, 0, []string{"Ethernet", "4294967295", "4294967295", "Up"}}, // PEERS 2.3
		{"unknown speed", 0, true, 0, 0, []string{"Ethernet", "0", "0", "Up"}},
		{"configured", 1e9, true, 20e6, 100e6, []string{"Ethernet", "20000000", "100000000", "Up"}},
		{"configured above ui4", 1e9, true, 1e12, 8e9, []string{"Ethernet", "4294967295", "4294967295", "Up"}},
		{"one configured", 1e9, true, 20e6, 0, []string{"Ethernet", "20000000", "1000000000", "Up"}},
		{"down", 0, false, 0, 0, []string{"Ethernet", "0", "0", "Down"}},
	} {
		w := newWorld(t, func(_ *world, c *igd.Config) { c.UpstreamBitrate, c.DownstreamBitrate = tt.configUp, tt.configDown })
		w.uplink.state.Uplink.Speed, w.uplink.state.Uplink.Up = tt.speed, tt.up
		if r := w.expect(0, alice, wanCommonSpec, "GetCommonLinkProperties"); !slices.Equal(r.out, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, r.out, tt.want)
		}
		for i, v := range []string{"WANAccessType", "Layer1UpstreamMaxBitRate", "Layer1DownstreamMaxBitRate", "PhysicalLinkStatus"} {
			if got := w.query(wanCommonSpec, v); got != tt.want[i] {
				t.Errorf("%s: %s %q, want %q", tt.name, v, got, tt.want[i])
			}
		}
	}
}

// Counters wrap at 2^32 (SPEC 5.3): a clamp would stand still for ever.
func TestCounters(t *testing.T) {
	w := newWorld(t)
	w.uplink.counters = wan.Counters{BytesSent: 1<<32 + 7, BytesReceived: 1<<40 - 1, PacketsSent: 1 << 32, PacketsReceived: 12345}
	for name, want := range map[string]string{
		"TotalBytesSent": "7", "TotalBytesReceived": "4294967295", "TotalPacketsSent": "0", "TotalPacketsReceived": "12345",
	} {
		if r := w.expect(0, alice, wanCommonSpec, "Get"+name); r.out[0] != want {
			t.Errorf("Get%s %q, want %s", name, r.out, want)
		}
		if got := w.query(wanCommonSpec, name); got != want {
			t.Errorf("%s %q, want %s", name, got, want)
		}
	}
	w.uplink.err = errors.New("no such device")
	for _, name := range []string{"TotalBytesSent", "TotalBytesReceived", "TotalPacketsSent", "TotalPacketsReceived"} {
		w.expect(501, alice, wanCommonSpec, "Get"+name)
	}
}

// SPEC 5.2: there is one connection service, and it is the default.
func TestDefaultConnectionService(t *testing.T) {
	w := newWorld(t)
	_, root := w.document("/gatedesc.xml")
	udn := root.child("device", "deviceList", "device", "deviceList", "device", "UDN").Text
	want := udn + ":WANConnectionDevice:1,urn:upnp-org:serviceId:WANIPConn1"
	if r := w.expect(0, alice, layer3Spec, "GetDefaultConnectionService"); r.out[0] != want {
		t.Errorf("%q, want %q", r.out, want)
	}
	if got := w.query(layer3Spec, "DefaultConnectionService"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for value, code := range map[string]int{
		want: 0,
		"uuid:" + strings.ToUpper(strings.TrimPrefix(want[:41], "uuid:")) + want[41:]:   0, // SSDP-48
		"uuid:" + rootUUID + ":WANConnectionDevice:1,urn:upnp-org:serviceId:WANIPConn1": 720,
		"":                              720,
		udn + ":WANConnectionDevice:1":  721,
		udn + ":WANConnectionDevice:1,": 721,
		udn + ":WANConnectionDevice:1,urn:upnp-org:serviceId:WANPPPConn1": 721,
	} {
		w.expect(code, alice, layer3Spec, "SetDefaultConnectionService", "NewDefaultConnectionService", value)
	}
	w.expect(402, alice, layer3Spec, "SetDefaultConnectionService")
}

// SOAP-12: every variable that has a value of its own, and 404 for all else.
func TestQueryStateVariable(t *testing.T) {
	perMapping := []string{"PortMappingEnabled", "PortMappingLeaseDuration", "RemoteHost", "ExternalPort", "InternalPort",
		"PortMappingProtocol", "InternalClient", "PortMappingDescription"}
	w := newWorld(t)
	w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping()...)
	for _, svc := range services {
		for _, v := range svc.vars {
			if slices.Contains(perMapping, v.name) {
				if r := w.queryReply(svc, v.name); r.code != 404 {
					t.Errorf("%s: %d, %q", v.name, r.code, r.out)
				}
				continue
			}
			value := w.query(svc, v.name)
			if len(v.allowed) > 0 && !slices.Contains(v.allowed, value) {
				t.Errorf("%s is %q, not one of %q", v.name, value, v.allowed)
			}
		}
	}
	for variable, want := range map[string]string{
		"RSIPAvailable": "0", "NATEnabled": "1", "PortMappingNumberOfEntries": "1",
		"LastConnectionError": "ERROR_NONE", " ConnectionStatus\n": "Connected",
	} {
		if got := w.query(wanIPSpec, variable); got != want {
			t.Errorf("%s is %q, want %q", variable, got, want)
		}
	}
	for _, unknown := range []string{"SystemUpdateID", "connectionstatus", "", "<b>", strings.Repeat("x", 3000), "TotalBytesSent"} {
		if r := w.queryReply(wanIPSpec, unknown); r.code != 404 || len(r.out) > 0 {
			t.Errorf("%.20q: %d %q", unknown, r.code, r.out)
		}
	}
	for body, code := range map[string]int{
		envelope(controlNS, "QueryStateVariable"):                                                           402,
		envelope(controlNS, "QueryStateVariable", "VarName", "NATEnabled"):                                  402,
		envelope(wanIPSpec.typ, "QueryStateVariable", "varName", "NATEnabled"):                              401,
		envelope(controlNS, "QueryStateVariables", "varName", "NATEnabled"):                                 401,
		strings.ReplaceAll(envelope(controlNS, "QueryStateVariable", "varName", "x"), "/s:Body", "/s:body"): 402,
	} {
		r := w.reply(controlNS, "QueryStateVariable", w.post(alice, wanIPSpec.control, body, "SOAPACTION", controlNS+"#QueryStateVariable"))
		if r.code != code {
			t.Errorf("%s: %d, want %d", body, r.code, code)
		}
	}
	r := w.reply(controlNS, "SetStateVariable", w.post(alice, wanIPSpec.control,
		envelope(controlNS, "SetStateVariable", "varName", "NATEnabled"), "SOAPACTION", controlNS+"#SetStateVariable"))
	if r.code != 401 {
		t.Errorf("SetStateVariable: %d", r.code)
	}
}
