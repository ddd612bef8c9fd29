package igd_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/httpmsg"
	"github.com/linux-igd/upnpd/internal/igd"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// paths lists every URL path in the device's documents.
func (w *world) paths() []string {
	w.t.Helper()
	doc, _ := w.document(w.server.DescriptionPath())
	all := []string{w.server.DescriptionPath()}
	for _, m := range regexp.MustCompile(`URL>(/[^<]+)<`).FindAllSubmatch(doc, -1) {
		all = append(all, string(m[1]))
	}
	return all
}

// The two versions share no path (INT-2), whatever the description is called,
// and each knows its own.
func TestPaths(t *testing.T) {
	for _, name := range []string{"gatedesc.xml", "2", "upnp", "gateconnSCPD.xml", "WANIPConn1"} {
		named := func(_ *world, c *igd.Config) { c.DescriptionName = name }
		one, two := newWorld(t, named, withEvents), newWorld(t, named, version2, withEvents)
		if n1, n2 := len(one.paths()), len(two.paths()); n1 != 1+3*3 || n2 != 1+4*3 { // HTTP-4: each service has its own
			t.Errorf("%d and %d paths", n1, n2)
		}
		for _, tt := range []struct{ own, other *world }{{one, two}, {two, one}} {
			seen := map[string]bool{}
			for _, path := range tt.own.paths() {
				if seen[path] || !tt.own.server.Has(path) || tt.other.server.Has(path) {
					t.Errorf("%s: seen %v, its own %v, the other's %v", path, seen[path], tt.own.server.Has(path), tt.other.server.Has(path))
				}
				seen[path] = true
				if resp := tt.own.get(path); resp.Status == 404 {
					t.Errorf("%s: %d", path, resp.Status)
				}
				if resp := tt.other.get(path); resp.Status != 404 {
					t.Errorf("%s of the other version: %d", path, resp.Status)
				}
			}
		}
	}
	w := newWorld(t)
	for _, path := range []string{"", "/", "*", "/upnp/event/WANIPConn1", "/upnp/event/", "/upnp/2/"} { // no events: nowhere to subscribe
		if w.server.Has(path) {
			t.Errorf("%q is one of its paths", path)
		}
	}
}

// INT-1: with events, nothing changes in what Windows reads but the eventSubURLs.
func TestVersion1WithEvents(t *testing.T) {
	silent, w := newWorld(t), newWorld(t, withEvents)
	ids := regexp.MustCompile(`configId="[0-9]+"`)
	for _, path := range append(scpds(services), "/gatedesc.xml") {
		want, _ := silent.document(path)
		got, _ := w.document(path)
		for _, svc := range services {
			id := strings.TrimPrefix(svc.id, "urn:upnp-org:serviceId:")
			got = []byte(strings.ReplaceAll(string(got), "<eventSubURL>/upnp/event/"+id+"</eventSubURL>", "<eventSubURL></eventSubURL>"))
		}
		if got, want := ids.ReplaceAllString(string(got), ""), ids.ReplaceAllString(string(want), ""); got != want {
			t.Errorf("%s\n%s\nwant\n%s", path, got, want)
		}
	}
}

// SOAP-3: a service of version 2 serves who asks for version 1, and answers in
// that namespace. What is asked of another service, or of version 3, is 401.
func TestCallerOfVersion1(t *testing.T) {
	const urn = "urn:schemas-upnp-org:service:"
	w := newWorld(t, version2)
	old := wanIPSpec2
	old.typ = wanIPSpec.typ
	// The namespace of the reply is checked in success.
	w.expect(0, alice, old, "AddPortMapping", mapping()...)
	w.expect(0, alice, old, "GetSpecificPortMappingEntry", key("", "8080", "TCP")...)
	w.expect(732, alice, old, "AddPortMapping", mapping("NewInternalPort", "0")...) // the codes are the service's
	w.expect(0, alice, old, "DeletePortMappingRange", ranged("8080", "8080", "TCP")...)
	for _, typ := range []string{urn + "WANIPConnection:3", urn + "WANPPPConnection:1", firewall6Spec.typ, urn + "WANIPConnection:"} {
		svc := wanIPSpec2
		svc.typ = typ
		w.expect(401, alice, svc, "GetStatusInfo")
	}
	for _, svc := range []serviceSpec{layer3Spec2, wanCommonSpec2, firewall6Spec} { // these are version 1, and nothing is older
		svc.typ = svc.typ[:len(svc.typ)-1]
		w.expect(401, alice, svc, svc.actions[0].name)
		svc.typ += "2"
		w.expect(401, alice, svc, svc.actions[0].name)
	}
}

func TestDefaultConnectionService2(t *testing.T) {
	w := newWorld(t, version2)
	_, root := w.document(w.server.DescriptionPath())
	udn := root.child("device", "deviceList", "device", "deviceList", "device", "UDN").Text
	want := udn + ":WANConnectionDevice:2,urn:upnp-org:serviceId:WANIPConn1" // SPEC 5.2: the served version
	if r := w.expect(0, alice, layer3Spec2, "GetDefaultConnectionService"); r.out[0] != want {
		t.Errorf("%q, want %q", r.out, want)
	}
	w.expect(0, alice, layer3Spec2, "SetDefaultConnectionService", "NewDefaultConnectionService", want)
	w.expect(720, alice, layer3Spec2, "SetDefaultConnectionService", "NewDefaultConnectionService", strings.Replace(want, "Device:2", "Device:1", 1))
}

// The same request, the code of each version.
func TestCodes(t *testing.T) {
	low := func(w *world, _ *igd.Config) {
		w.policy.Rules = []portmap.Rule{{Allow: true, External: portmap.PortRange{First: 80, Last: 80},
			Internal: portmap.PortRange{First: 80, Last: 80}, Client: netip.MustParsePrefix("0.0.0.0/0")}}
	}
	used := func(w *world, _ *igd.Config) {
		w.inUse = func(portmap.Protocol, uint16) (bool, error) { return true, nil }
	}
	full := func(w *world, _ *igd.Config) { w.policy.MaxPerClient = 0 }
	for _, tt := range []struct {
		id     string
		v1, v2 int
		action string
		args   []string
		change func(*world, *igd.Config)
	}{
		{"WIP-2 again", 0, 0, "AddPortMapping", mapping("NewExternalPort", "9000"), nil},
		{"WIP-2 held by another host", 718, 718, "AddPortMapping", mapping("NewExternalPort", "9001"), nil},
		{"ACC-1 for another host", 718, 606, "AddPortMapping", mapping("NewInternalClient", bob.String()), nil},
		{"ACC-1 for the router", 402, 606, "AddPortMapping", mapping("NewInternalClient", router.String()), nil},
		{"ACC-1 for nobody", 402, 606, "AddPortMapping", mapping("NewInternalClient", "11.0.0.9"), nil},
		{"ACC-1 a port below 1024", 718, 606, "AddPortMapping", mapping("NewExternalPort", "80"), nil},
		{"ACC-1 an internal port below 1024", 718, 606, "AddPortMapping", mapping("NewInternalPort", "80"), nil},
		{"ACC-1 unless a rule allows it", 0, 0, "AddPortMapping", mapping("NewExternalPort", "80", "NewInternalPort", "80"), low},
		{"WIP-4 lease 0", 0, 0, "AddPortMapping", mapping("NewLeaseDuration", "0"), nil},
		{"WIP-4 above the highest lease", 0, 0, "AddPortMapping", mapping("NewLeaseDuration", "604801"), nil},
		{"WIP-6 external port 0", 716, 716, "AddPortMapping", mapping("NewExternalPort", "0"), nil},
		{"WIP-6 both ports 0", 716, 716, "AddPortMapping", mapping("NewExternalPort", "0", "NewInternalPort", "0"), nil},
		{"WIP-7 internal port 0", 402, 732, "AddPortMapping", mapping("NewInternalPort", "0"), nil},
		{"WIP-8 no InternalClient", 0, 715, "AddPortMapping", mapping("NewInternalClient", ""), nil},
		{"WIP-8 blank InternalClient", 0, 715, "AddPortMapping", mapping("NewInternalClient", " \n"), nil},
		{"WIP-8 broadcast", 402, 606, "AddPortMapping", mapping("NewInternalClient", "255.255.255.255", "NewProtocol", "UDP"), nil},
		{"WIP-9 RemoteHost", 0, 0, "AddPortMapping", mapping("NewRemoteHost", "11.0.0.9"), nil},
		{"WIP-9 a name", 402, 402, "AddPortMapping", mapping("NewRemoteHost", "host.example"), nil},
		{"WIP-9 IPv6", 402, 402, "AddPortMapping", mapping("NewRemoteHost", "2001:db8::1"), nil},
		{"WIP-9 IPv6, any", 402, 402, "AddPortMapping", mapping("NewRemoteHost", "::"), nil},
		{"WIP-10 protocol", 601, 601, "AddPortMapping", mapping("NewProtocol", "SCTP"), nil},
		{"WIP-11 in use by the router", 718, 729, "AddPortMapping", mapping(), used},
		{"WIP-17b port", 402, 402, "AddPortMapping", mapping("NewExternalPort", "70000"), nil},
		{"too many", 501, 728, "AddPortMapping", mapping(), full},
		{"WIP-13 another host's", 606, 606, "DeletePortMapping", key("", "9001", "TCP"), nil},
		{"WIP-13 absent", 714, 714, "DeletePortMapping", key("", "9002", "TCP"), nil},
		{"WIP-18 another host's", 0, 606, "GetSpecificPortMappingEntry", key("", "9001", "TCP"), nil}, // ACC-2
		{"WIP-18 absent", 714, 714, "GetSpecificPortMappingEntry", key("", "9002", "TCP"), nil},
		{"WIP-19 the same type", 0, 731, "SetConnectionType", []string{"NewConnectionType", "IP_Routed"}, nil},
		{"WIP-19 another type", 501, 731, "SetConnectionType", []string{"NewConnectionType", "IP_Bridged"}, nil},
		{"WIP-19 no type", 601, 601, "SetConnectionType", []string{"NewConnectionType", "PPPoE_Bridged"}, nil},
		{"WIP-20 request", 0, 0, "RequestConnection", nil, nil},
		{"WIP-20 force", 501, 606, "ForceTermination", nil, nil},
		{"WIP-20 terminate", 401, 606, "RequestTermination", nil, nil}, // optional, and new here
		{"SPEC 5.4", 401, 0, "AddAnyPortMapping", mapping(), nil},
		{"SPEC 5.4", 401, 0, "DeletePortMappingRange", ranged("9000", "9001", "TCP"), nil},
		{"SPEC 5.4", 401, 0, "GetListOfPortMappings", append(ranged("9000", "9001", "TCP"), "NewNumberOfPorts", "0"), nil},
	} {
		for version, code := range map[int]int{1: tt.v1, 2: tt.v2} {
			t.Run(fmt.Sprintf("%s, version %d", tt.id, version), func(t *testing.T) {
				w, svc := newWorld(t, tt.change), wanIPSpec
				if version == 2 {
					w, svc = newWorld(t, tt.change, version2), wanIPSpec2
				}
				w.call(alice, svc, "AddPortMapping", mapping("NewExternalPort", "9000")...)
				w.call(bob, svc, "AddPortMapping", mapping("NewExternalPort", "9001", "NewInternalClient", bob.String())...)
				w.expect(code, alice, svc, tt.action, tt.args...)
			})
		}
	}
}

// What a control point may do that came by IPv6: mappings are for IPv4 hosts,
// and which one it is nobody knows.
func TestMappingOverIPv6(t *testing.T) {
	for version, w := range map[int]*world{1: newWorld(t), 2: newWorld(t, version2)} {
		svc, empty, other := wanIPSpec, 402, 718
		if version == 2 {
			svc, empty, other = wanIPSpec2, 715, 606
		}
		r := w.expect(empty, alice6, svc, "AddPortMapping", mapping("NewInternalClient", "")...) // WIP-8
		if version == 1 && !strings.Contains(r.text, "2001:db8:1::10 is not an IPv4 address") {
			t.Errorf("%q", r.text)
		}
		w.expect(other, alice6, svc, "AddPortMapping", mapping()...)
		w.expect(402, alice6, svc, "AddPortMapping", mapping("NewInternalClient", alice6.String())...)
		w.expect(0, alice, svc, "AddPortMapping", mapping()...)
		w.expect(606, alice6, svc, "DeletePortMapping", key("", "8080", "TCP")...)
		w.expect(0, alice6, svc, "GetExternalIPAddress")
		w.expect(map[int]int{1: 0, 2: 713}[version], alice6, svc, "GetGenericPortMappingEntry", "NewPortMappingIndex", "0")
	}
	open := newWorld(t, insecure)
	open.expect(0, alice6, wanIPSpec, "AddPortMapping", mapping()...)
	open.expect(402, alice6, wanIPSpec, "AddPortMapping", mapping("NewInternalClient", "")...)
}

// ACC-3, WIP-17: a host sees its own mappings, numbered without gaps, and 713
// beyond the last; version 1 sees all of the same table.
func TestGetGenericPortMappingEntry2(t *testing.T) {
	w := newWorld(t, version2)
	one := igd.New(testConfig(), w.table, w.uplink, nil)
	for i, client := range []netip.Addr{alice, bob, alice, bob, bob} {
		w.expect(0, client, wanIPSpec2, "AddPortMapping", mapping("NewExternalPort", fmt.Sprint(9000+i), "NewInternalClient", client.String())...)
	}
	w.expect(0, alice6, firewall6Spec, "AddPinhole", pinhole()...) // is no mapping
	enumerate := func(from netip.Addr, svc serviceSpec, want ...string) {
		t.Helper()
		var got []string
		for i := range 10 {
			r := w.call(from, svc, "GetGenericPortMappingEntry", "NewPortMappingIndex", fmt.Sprint(i))
			if r.code != 0 {
				got = append(got, fmt.Sprint(r.code))
				break
			}
			got = append(got, r.values["NewExternalPort"])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v sees %q, want %q", from, got, want)
		}
	}
	enumerate(alice, wanIPSpec2, "9000", "9002", "713")
	enumerate(bob, wanIPSpec2, "9001", "9003", "9004", "713")
	enumerate(alice6, wanIPSpec2, "713")
	w.expect(0, bob, wanIPSpec2, "DeletePortMapping", key("", "9003", "TCP")...)
	enumerate(bob, wanIPSpec2, "9001", "9004", "713")
	if n := w.query(wanIPSpec2, "PortMappingNumberOfEntries"); n != "4" { // evented, so the same for all
		t.Errorf("PortMappingNumberOfEntries %s", n)
	}
	w.server = one
	enumerate(alice, wanIPSpec, "9000", "9001", "9002", "9004", "713")
}

// SPEC 5.5: +1 for each change.
func TestSystemUpdateID(t *testing.T) {
	w := newWorld(t, version2)
	want := 0
	check := func(change int, what string) {
		t.Helper()
		want += change
		if got := w.query(wanIPSpec2, "SystemUpdateID"); got != fmt.Sprint(want) {
			t.Fatalf("after %s: %s, want %d", what, got, want)
		}
	}
	fmt.Sscan(w.query(wanIPSpec2, "SystemUpdateID"), &want)
	w.expect(0, alice, wanIPSpec2, "AddPortMapping", mapping()...)
	check(1, "a new mapping")
	w.expect(0, alice, wanIPSpec2, "AddPortMapping", mapping()...)
	check(1, "a renewal") // WIP-2
	w.expect(606, alice, wanIPSpec2, "AddPortMapping", mapping("NewExternalPort", "80")...)
	check(0, "a refusal")
	w.expect(0, alice, wanIPSpec2, "AddAnyPortMapping", mapping("NewExternalPort", "0")...)
	check(1, "any port")
	w.expect(0, alice6, firewall6Spec, "AddPinhole", pinhole()...)
	check(0, "a pinhole")
	w.expect(0, alice, wanIPSpec2, "DeletePortMappingRange", ranged("0", "65535", "TCP")...)
	check(1, "two deleted at once") // WIP-14
}

// The event URLs take only what is of events.
func TestEventMethods(t *testing.T) {
	w := newWorld(t, version2, withEvents)
	for _, svc := range services2 {
		path := strings.Replace(svc.control, "control", "event", 1)
		for method, status := range map[string]int{"GET": 405, "POST": 405, "SUBSCRIBE": 412, "UNSUBSCRIBE": 412, "BREW": 501} {
			resp := w.server.Handle(&httpmsg.Request{Method: method, Target: path, Minor: 1,
				Local: netip.AddrPortFrom(router, 49152), Remote: netip.AddrPortFrom(alice, 50000)})
			if resp.Status != status { // HTTP-11, GENA-3
				t.Errorf("%s %s: %d, want %d", method, path, resp.Status, status)
			}
		}
	}
}
