package igd_test

import (
	"encoding/xml"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/igd"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// ranged gives the arguments of DeletePortMappingRange. NewManage asks for the
// mappings of all hosts, as miniupnpc does.
func ranged(start, end, protocol string) []string {
	return []string{"NewStartPort", start, "NewEndPort", end, "NewProtocol", protocol, "NewManage", "1"}
}

func listed(start, end, protocol, number string) []string {
	return append(ranged(start, end, protocol), "NewNumberOfPorts", number)
}

const listingNS = "urn:schemas-upnp-org:gw:WANIPConnection"

var listingEntry = []string{"NewRemoteHost", "NewExternalPort", "NewProtocol", "NewInternalPort", "NewInternalClient",
	"NewEnabled", "NewDescription", "NewLeaseTime"} // FIX-6

// listing reads a PortMappingList as WIP-16 has it: one line for each entry.
func listing(t testing.TB, doc string) []string {
	t.Helper()
	root, err := parseXML([]byte(doc))
	if err != nil || root.XMLName != (xml.Name{Space: listingNS, Local: "PortMappingList"}) {
		t.Fatalf("no PortMappingList (%v): %q", err, doc)
	}
	var lines []string
	for _, e := range root.Elements {
		if e.XMLName != (xml.Name{Space: listingNS, Local: "PortMappingEntry"}) || !slices.Equal(e.names(), listingEntry) {
			t.Errorf("entry %v has %q", e.XMLName, e.names())
		}
		var values []string
		for _, c := range e.Elements {
			if c.XMLName.Space != listingNS {
				t.Errorf("%v has no prefix", c.XMLName)
			}
			values = append(values, c.Text)
		}
		lines = append(lines, strings.Join(values, " "))
	}
	return lines
}

// house has mappings of two hosts, the same in all tests of ranges.
func house(t testing.TB, change ...func(*world, *igd.Config)) *world {
	w := newWorld(t, append(change, version2, func(w *world, _ *igd.Config) { w.policy.MaxMappings, w.policy.MaxPerClient = 20, 10 })...)
	add := func(from netip.Addr, args ...string) {
		w.expect(0, from, wanIPSpec2, "AddPortMapping", mapping(append([]string{"NewInternalClient", from.String()}, args...)...)...)
	}
	add(alice, "NewExternalPort", "9003")
	add(bob, "NewExternalPort", "9000")
	add(alice, "NewExternalPort", "9001", "NewInternalPort", "5001", "NewEnabled", "0", "NewLeaseDuration", "60", "NewPortMappingDescription", `<&>"']]>`)
	add(alice, "NewExternalPort", "9001", "NewRemoteHost", "11.0.0.9")
	add(alice, "NewExternalPort", "9002", "NewProtocol", "UDP")
	add(bob, "NewExternalPort", "9004")
	add(alice, "NewExternalPort", "65535")
	w.expect(0, alice6, firewall6Spec, "AddPinhole", pinhole("InternalPort", "9001")...)
	return w
}

// WIP-15, WIP-16, ACC-4.
func TestGetListOfPortMappings(t *testing.T) {
	const (
		a3   = " 9003 TCP 8080 192.168.1.10 1 web 3600"
		a1   = ` 9001 TCP 5001 192.168.1.10 0 <&>"']]> 60`
		a1of = "11.0.0.9 9001 TCP 8080 192.168.1.10 1 web 3600"
		last = " 65535 TCP 8080 192.168.1.10 1 web 3600"
		udp  = " 9002 UDP 8080 192.168.1.10 1 web 3600"
		b0   = " 9000 TCP 8080 192.168.1.20 1 web 3600"
		b4   = " 9004 TCP 8080 192.168.1.20 1 web 3600"
	)
	w := house(t)
	for _, tt := range []struct {
		from netip.Addr
		args []string
		code int
		want []string
	}{
		{alice, listed("0", "65535", "TCP", "0"), 0, []string{a3, a1, a1of, last}}, // 0: no limit; its own only
		{alice, listed("1", "65535", "tcp", "65535"), 0, []string{a3, a1, a1of, last}},
		{alice, listed("9001", "9003", "TCP", "10"), 0, []string{a3, a1, a1of}},
		{alice, listed("9001", "9001", "TCP", "10"), 0, []string{a1, a1of}},
		{alice, listed("0", "65535", "TCP", "2"), 0, []string{a3, a1}},
		{alice, listed("0", "65535", "UDP", "0"), 0, []string{udp}},
		{bob, listed("0", "65535", "TCP", "0"), 0, []string{b0, b4}},
		{alice, listed("65535", "65535", "TCP", "0"), 0, []string{last}},
		{alice, listed("9000", "9000", "TCP", "0"), 730, nil}, // another's
		{alice, listed("9004", "65534", "TCP", "0"), 730, nil},
		{bob, listed("0", "65535", "UDP", "0"), 730, nil},
		{alice6, listed("0", "65535", "TCP", "0"), 730, nil}, // its pinhole is none
		{alice, listed("9001", "9000", "TCP", "0"), 733, nil},
		{alice, listed("65535", "0", "TCP", "0"), 733, nil},
		{alice, listed("0", "65536", "TCP", "0"), 402, nil}, // WIP-17b
		{alice, listed("-1", "9000", "TCP", "0"), 402, nil},
		{alice, listed("0", "65535", "TCP", ""), 402, nil},
		{alice, listed("0", "65535", "", "0"), 601, nil}, // WIP-10
		{alice, listed("0", "65535", "any", "0"), 601, nil},
		{alice, ranged("0", "65535", "TCP"), 402, nil}, // SOAP-5
	} {
		r := w.expect(tt.code, tt.from, wanIPSpec2, "GetListOfPortMappings", tt.args...)
		if tt.code != 0 {
			continue
		}
		if got := listing(t, r.values["NewPortListing"]); !slices.Equal(got, tt.want) {
			t.Errorf("%v %q:\n%q, want\n%q", tt.from, tt.args, got, tt.want)
		}
	}
	args := listed("0", "65535", "TCP", "0")
	args[7] = "some" // NewManage is ignored, but it must be a boolean
	w.expect(402, alice, wanIPSpec2, "GetListOfPortMappings", args...)
	args[7] = "0"
	w.expect(0, alice, wanIPSpec2, "GetListOfPortMappings", args...)

	// WIP-16: miniupnpc does not decode references, and must not need to.
	resp := w.post(alice, wanIPSpec2.control, envelope(wanIPSpec2.typ, "GetListOfPortMappings", args...), "SOAPACTION", wanIPSpec2.typ+"#GetListOfPortMappings")
	if !strings.Contains(string(resp.Body), "<NewPortListing><![CDATA[<p:PortMappingList ") {
		t.Errorf("%s", resp.Body)
	}
}

// A listing has an end, also without a limit.
func TestLongListing(t *testing.T) {
	w := newWorld(t, version2, func(w *world, _ *igd.Config) { w.policy.MaxMappings, w.policy.MaxPerClient = 2000, 2000 })
	var all []portmap.Mapping
	for port := range uint16(1001) {
		all = append(all, portmap.Mapping{Client: alice, Owner: alice, InternalPort: 5000, Enabled: true, Deadline: w.clock + time.Hour,
			Key: portmap.Key{Protocol: portmap.TCP, ExternalPort: 2000 + port}})
	}
	if dropped := w.table.Restore(all); len(dropped) > 0 { // past the kernel, which would take long
		t.Fatal(dropped[0])
	}
	for number, want := range map[string]int{"0": 1000, "1": 1, "999": 999, "1000": 1000, "1001": 1000, "65535": 1000} {
		r := w.call(alice, wanIPSpec2, "GetListOfPortMappings", listed("0", "65535", "TCP", number)...)
		if got := listing(t, r.values["NewPortListing"]); len(got) != want {
			t.Errorf("NewNumberOfPorts %s: %d entries, want %d", number, len(got), want)
		}
	}
	r := w.call(alice, wanIPSpec2, "GetListOfPortMappings", listed("3000", "3000", "TCP", "0")...) // the last one
	if got := listing(t, r.values["NewPortListing"]); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

// WIP-14, ACC-4: own mappings only, all or nothing, as one change.
func TestDeletePortMappingRange(t *testing.T) {
	left := func(w *world) string {
		var ports []string
		for _, m := range w.table.List() {
			ports = append(ports, fmt.Sprintf("%v%d", m.Protocol, m.ExternalPort))
		}
		return strings.Join(ports, " ")
	}
	const all = "TCP9003 TCP9000 TCP9001 TCP9001 UDP9002 TCP9004 TCP65535 TCP9001"
	if got := left(house(t)); got != all {
		t.Fatal(got)
	}
	for _, tt := range []struct {
		from netip.Addr
		args []string
		code int
		left string
	}{
		{alice, ranged("0", "65535", "TCP"), 0, "TCP9000 UDP9002 TCP9004 TCP9001"},
		{alice, ranged("9000", "9001", "TCP"), 0, "TCP9003 TCP9000 UDP9002 TCP9004 TCP65535 TCP9001"},
		{alice, ranged("9002", "9002", "udp"), 0, "TCP9003 TCP9000 TCP9001 TCP9001 TCP9004 TCP65535 TCP9001"},
		{bob, ranged("1024", "65535", "TCP"), 0, "TCP9003 TCP9001 TCP9001 UDP9002 TCP65535 TCP9001"},
		{alice, ranged("9000", "9000", "TCP"), 730, all}, // another's
		{alice, ranged("9004", "65534", "TCP"), 730, all},
		{bob, ranged("0", "65535", "UDP"), 730, all},
		{alice6, ranged("0", "65535", "TCP"), 730, all}, // a pinhole is none
		{alice, ranged("9003", "9001", "TCP"), 733, all},
		{alice, ranged("9001", "75537", "TCP"), 402, all}, // 10001 + 65536
		{alice, ranged("", "9003", "TCP"), 402, all},
		{alice, ranged("9001", "9003", "both"), 601, all},
		{alice, ranged("9001", "9003", "TCP")[:6], 402, all},
	} {
		w := house(t)
		before := w.query(wanIPSpec2, "SystemUpdateID")
		w.expect(tt.code, tt.from, wanIPSpec2, "DeletePortMappingRange", tt.args...)
		if got := left(w); got != tt.left {
			t.Errorf("%v %q leaves %s, want %s", tt.from, tt.args, got, tt.left)
		}
		n, _ := strconv.Atoi(before)
		if tt.code == 0 {
			n++ // one change, however many went
		}
		if got := w.query(wanIPSpec2, "SystemUpdateID"); got != strconv.Itoa(n) {
			t.Errorf("%q: SystemUpdateID %s after %s", tt.args, got, before)
		}
	}
	w := house(t)
	w.kernel.Break(true)
	w.expect(501, alice, wanIPSpec2, "DeletePortMappingRange", ranged("0", "65535", "TCP")...)
	w = house(t, insecure) // a range is always the caller's own
	w.expect(730, alice, wanIPSpec2, "DeletePortMappingRange", ranged("9000", "9000", "TCP")...)
}

// WIP-3: a port that is not to be had becomes another one.
func TestAddAnyPortMapping(t *testing.T) {
	used := func(w *world, _ *igd.Config) {
		w.inUse = func(_ portmap.Protocol, p uint16) (bool, error) { return p == 8080, nil }
	}
	own := func(w *world, _ *igd.Config) {
		w.policy.Rules = []portmap.Rule{
			{Allow: true, External: portmap.PortRange{First: 7000, Last: 7001}, Internal: portmap.PortRange{First: 1, Last: 65535}, Client: netip.MustParsePrefix("0.0.0.0/0")},
			{External: portmap.PortRange{First: 0, Last: 65535}, Internal: portmap.PortRange{First: 0, Last: 65535}, Client: netip.MustParsePrefix("0.0.0.0/0"), Text: "deny all"},
		}
	}
	nothing := func(w *world, c *igd.Config) { own(w, c); w.policy.Rules = w.policy.Rules[1:] }
	busy := func(w *world, _ *igd.Config) {
		w.inUse = func(portmap.Protocol, uint16) (bool, error) { return true, nil }
	}
	full := func(w *world, _ *igd.Config) { w.policy.MaxPerClient = 0 }
	const another = "another"
	for _, tt := range []struct {
		id     string
		args   []string
		code   int
		port   string
		change func(*world, *igd.Config)
	}{
		{"free", mapping(), 0, "8080", nil},
		{"again", mapping("NewExternalPort", "9000", "NewInternalPort", "7777"), 0, "9000", nil},
		{"held by another host", mapping("NewExternalPort", "9001"), 0, another, nil},
		{"held by another host for one peer", mapping("NewExternalPort", "9001", "NewRemoteHost", "11.0.0.9"), 0, another, nil},
		{"same client, other RemoteHost", mapping("NewExternalPort", "9000", "NewRemoteHost", "11.0.0.9"), 0, "9000", nil},
		{"port 0 is any", mapping("NewExternalPort", "0"), 0, another, nil}, // WIP-6
		{"in use by the router", mapping(), 0, another, used},
		{"a port below 1024", mapping("NewExternalPort", "80"), 0, another, nil},
		{"what the rules leave", mapping("NewExternalPort", "8080"), 0, another, own},
		{"nothing permitted", mapping(), 606, "", nothing},
		{"no port free", mapping(), 728, "", busy},
		{"too many", mapping(), 728, "", full},
		{"for another host", mapping("NewInternalClient", bob.String()), 606, "", nil}, // ACC-1
		{"an internal port below 1024", mapping("NewInternalPort", "80"), 606, "", nil},
		{"for nobody", mapping("NewInternalClient", "11.0.0.9"), 606, "", nil},
		{"no InternalClient", mapping("NewInternalClient", ""), 715, "", nil}, // WIP-8
		{"internal port 0", mapping("NewInternalPort", "0"), 732, "", nil},    // WIP-7
		{"protocol", mapping("NewProtocol", "XYZ"), 601, "", nil},
		{"port", mapping("NewExternalPort", "-1"), 402, "", nil},
		{"RemoteHost", mapping("NewRemoteHost", "::"), 402, "", nil},
	} {
		t.Run(tt.id, func(t *testing.T) {
			w := newWorld(t, tt.change, version2)
			w.call(alice, wanIPSpec2, "AddPortMapping", mapping("NewExternalPort", "9000")...)
			w.call(bob, wanIPSpec2, "AddPortMapping", mapping("NewExternalPort", "9001", "NewInternalClient", bob.String())...)
			r := w.expect(tt.code, alice, wanIPSpec2, "AddAnyPortMapping", tt.args...)
			if tt.code != 0 {
				return
			}
			port := r.values["NewReservedPort"]
			n, _ := strconv.Atoi(port)
			if tt.port != another && port != tt.port || n < 1024 || tt.port == another && (port == tt.args[3] || n == 9000 || n == 9001) {
				t.Errorf("NewReservedPort %s, wished %s, want %s", port, tt.args[3], tt.port)
			}
			values := map[string]string{}
			for i := 0; i < len(tt.args); i += 2 {
				values[tt.args[i]] = tt.args[i+1]
			}
			got := w.expect(0, alice, wanIPSpec2, "GetSpecificPortMappingEntry", key(values["NewRemoteHost"], port, "TCP")...)
			if got.values["NewInternalPort"] != values["NewInternalPort"] || got.values["NewInternalClient"] != alice.String() {
				t.Errorf("%q", got.values)
			}
		})
	}
	w := newWorld(t, version2)
	w.kernel.Break(true)
	w.expect(501, alice, wanIPSpec2, "AddAnyPortMapping", mapping()...)
}

// WIP-4: what version 2 makes with lease 0 has the table's default.
func TestLeaseOfVersion2(t *testing.T) {
	w := newWorld(t, version2, func(w *world, _ *igd.Config) { w.policy.DefaultLease.Length = 2 * time.Hour })
	for _, action := range []string{"AddPortMapping", "AddAnyPortMapping"} {
		for wish, want := range map[string]string{"0": "7200", "1": "1", "604800": "604800", "604801": "604800", "4294967295": "604800"} {
			w.expect(0, alice, wanIPSpec2, action, mapping("NewLeaseDuration", wish)...)
			r := w.expect(0, alice, wanIPSpec2, "GetSpecificPortMappingEntry", key("", "8080", "TCP")...)
			if got := r.values["NewLeaseDuration"]; got != want {
				t.Errorf("%s with lease %s: %s, want %s", action, wish, got, want)
			}
		}
	}
}

// ACC-2: in version 2 no error tells who has what is refused, and for how long.
func TestErrorsOfAnother(t *testing.T) {
	for i, svc := range []serviceSpec{wanIPSpec, wanIPSpec2} {
		w := newWorld(t, []func(*world, *igd.Config){nil, version2}[i])
		w.expect(0, alice, svc, "AddPortMapping", mapping()...)
		taken := w.expect(718, bob, svc, "AddPortMapping", mapping("NewInternalClient", bob.String())...)
		others := w.expect(606, bob, svc, "DeletePortMapping", "NewRemoteHost", "", "NewExternalPort", "8080", "NewProtocol", "TCP")
		for _, r := range []reply{taken, others} {
			if tells := strings.Contains(r.text, alice.String()); tells != (i == 0) {
				t.Errorf("%s: %q", svc.typ, r.text)
			}
		}
	}
}
