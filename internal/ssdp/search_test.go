package ssdp

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/sock"
)

// mSearch makes a search with these headers after HOST.
func mSearch(headers ...string) string {
	return "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n" +
		strings.Join(headers, "\r\n") + "\r\n\r\n"
}

const (
	man = `MAN: "ssdp:discover"`
	all = "ST: ssdp:all"
)

func TestParseSearch(t *testing.T) {
	full := mSearch(man, "MX: 2", all)
	for _, tt := range []struct {
		name, datagram string
		multicast      time.Duration // MX taken from a multicast search, 0: dropped
		unicast        bool          // answered when it came by unicast
	}{
		{"plain", full, 2 * time.Second, true},
		{"names in any case", mSearch(`man: "ssdp:discover"`, "mX:1", "st: ssdp:all"), time.Second, true},          // SSDP-4
		{"unknown headers", mSearch("CPFN.UPNP.ORG: x", man, "MX: 1", "X-y:", all), time.Second, true},             // SSDP-4
		{"a body", full + "body", 2 * time.Second, true},                                                           // SSDP-3
		{"HOST of the router", strings.Replace(full, "239.255.255.250", "192.168.77.1", 1), 2 * time.Second, true}, // INT-11

		{"MAN between blanks", mSearch("MAN:  \"ssdp:discover\" \t", "MX: 1", all), time.Second, true}, // SSDP-40
		{"MAN without quotes", mSearch("MAN: ssdp:discover", "MX: 1", all), 0, false},                  // SSDP-40
		{"MAN wrong", mSearch(`MAN: "ssdp:discovery"`, "MX: 1", all), 0, false},                        // SSDP-40
		{"MAN in capitals", mSearch(`MAN: "SSDP:DISCOVER"`, "MX: 1", all), 0, false},                   // SSDP-40, SSDP-4
		{"MAN missing", mSearch("MX: 1", all), 0, false},                                               // SSDP-40
		{"MAN twice", mSearch(man, man, "MX: 1", all), 0, false},                                       // SSDP-40

		{"MX missing", mSearch(man, all), 0, true},                                                 // SSDP-41, SSDP-42
		{"MX empty", mSearch(man, "MX:", all), 0, true},                                            // SSDP-41
		{"MX a word", mSearch(man, "MX: soon", all), 0, true},                                      // SSDP-41
		{"MX negative", mSearch(man, "MX: -1", all), 0, true},                                      // SSDP-41
		{"MX with sign", mSearch(man, "MX: +1", all), 0, true},                                     // SSDP-41
		{"MX a fraction", mSearch(man, "MX: 1.5", all), 0, true},                                   // SSDP-41
		{"MX twice", mSearch(man, "MX: 1", "MX: 2", all), 0, true},                                 // SSDP-41
		{"MX 0", mSearch(man, "MX: 0", all), time.Second, true},                                    // SSDP-41
		{"MX 5", mSearch(man, "MX: 5", all), 5 * time.Second, true},                                // SSDP-41
		{"MX 6", mSearch(man, "MX: 6", all), 5 * time.Second, true},                                // SSDP-41
		{"MX 120", mSearch(man, "MX: 120", all), 5 * time.Second, true},                            // SSDP-41
		{"MX above 64 bits", mSearch(man, "MX: 99999999999999999999", all), 5 * time.Second, true}, // SSDP-41
		{"MX overlong", mSearch(man, "MX: "+strings.Repeat("9", 300), all), 0, true},

		{"ST between blanks", mSearch(man, "MX: 1", "ST:   ssdp:all  "), time.Second, true}, // SSDP-49
		{"ST missing", mSearch(man, "MX: 1"), 0, false},
		{"ST empty", mSearch(man, "MX: 1", "ST:"), 0, false},
		{"ST twice", mSearch(man, "MX: 1", all, all), 0, false},
		{"ST of 256 bytes", mSearch(man, "MX: 1", "ST: uuid:"+strings.Repeat("a", 251)), time.Second, true}, // SSDP-49
		{"ST of 257 bytes", mSearch(man, "MX: 1", "ST: uuid:"+strings.Repeat("a", 252)), 0, false},          // SSDP-49
		{"ST uuid of 2000 bytes", mSearch(man, "MX: 1", "ST: uuid:"+strings.Repeat("a", 2000)), 0, false},   // CVE-2012-5958
		{"ST with a control character", mSearch(man, "MX: 1", "ST: ssdp:\x01all"), 0, false},                // SSDP-49
		{"ST with a tab", mSearch(man, "MX: 1", "ST: ssdp:\tall"), 0, false},                                // SSDP-49
		{"ST with a blank inside", mSearch(man, "MX: 1", "ST: ssdp: all"), 0, false},
		{"ST not ASCII", mSearch(man, "MX: 1", "ST: ssdp:\xe4ll"), 0, false},

		{"a response", strings.Replace(full, "M-SEARCH * HTTP/1.1", "HTTP/1.1 200 OK", 1), 0, false}, // SSDP-50
		{"a NOTIFY", strings.Replace(full, "M-SEARCH", "NOTIFY", 1), 0, false},                       // SSDP-50
		{"GET", strings.Replace(full, "M-SEARCH", "GET", 1), 0, false},                               // SSDP-50
		{"m-search", strings.Replace(full, "M-SEARCH", "m-search", 1), 0, false},                     // SSDP-50
		{"another URI", strings.Replace(full, "*", "/", 1), 0, false},                                // SSDP-50
		{"HTTP/1.0", strings.Replace(full, "HTTP/1.1", "HTTP/1.0", 1), 0, false},                     // SSDP-3
		{"blank after the version", strings.Replace(full, "HTTP/1.1", "HTTP/1.1 ", 1), 0, false},     // SSDP-3

		{"empty", "", 0, false},
		{"start line alone", "M-SEARCH * HTTP/1.1\r\n\r\n", 0, false},
		{"no line end at all", "M-SEARCH * HTTP/1.1", 0, false},                           // CVE-2013-0229
		{"last line without end", strings.TrimSuffix(full, "\r\n\r\n"), 0, false},         // CVE-2013-0229
		{"a line without colon", mSearch(man, "MX: 1", all, "nonsense"), 0, false},        // SSDP-4
		{"blank before the colon", mSearch(man, "MX: 1", "ST : ssdp:all"), 0, false},      // SSDP-4
		{"zero bytes", strings.Repeat("\x00", 100), 0, false},                             // SSDP-4
		{"1500 bytes", full + strings.Repeat("x", 1500-len(full)), 2 * time.Second, true}, // SSDP-51
		{"1501 bytes", full + strings.Repeat("x", 1501-len(full)), 0, false},              // SSDP-51
	} {
		q, ok := parseSearch([]byte(tt.datagram), true)
		if ok != (tt.multicast > 0) || ok && q.mx != tt.multicast {
			t.Errorf("%s: multicast search with MX %v, %t; want MX %v", tt.name, q.mx, ok, tt.multicast)
		}
		if q, ok := parseSearch([]byte(tt.datagram), false); ok != tt.unicast || q.mx != 0 {
			t.Errorf("%s: unicast search %t with MX %v, want %t", tt.name, ok, q.mx, tt.unicast)
		}
	}
}

func rows(answers []answer) []string {
	var list []string
	for _, a := range answers {
		list = append(list, a.NT+" | "+a.USN()+" | "+a.device.Path)
	}
	return list
}

func TestMatch(t *testing.T) {
	const (
		igd  = "urn:schemas-upnp-org:device:InternetGatewayDevice:"
		wip  = "urn:schemas-upnp-org:service:WANIPConnection:"
		path = " | /v1/rootDesc.xml"
	)
	for _, tt := range []struct {
		st   string
		want []string
	}{
		{"upnp:rootdevice", []string{"upnp:rootdevice | uuid:" + uuidR + "::upnp:rootdevice" + path}}, // SSDP-45
		{"uuid:" + uuidW, []string{"uuid:" + uuidW + " | uuid:" + uuidW + path}},                      // SSDP-45
		{"uuid:" + strings.ToUpper(uuidW), []string{"uuid:" + uuidW + " | uuid:" + uuidW + path}},     // SSDP-48
		{"uuid:" + uuidW + "0", nil},
		{"uuid:" + uuidW + "::upnp:rootdevice", nil}, // SSDP-45
		{"uuid:" + uuidR + "::", nil},                // CVE-2012-5958
		{"uuid:", nil},
		{uuidR, nil},
		{igd + "1", []string{igd + "1 | uuid:" + uuidR + "::" + igd + "1" + path}}, // SSDP-45
		{wip + "1", []string{wip + "1 | uuid:" + uuidC + "::" + wip + "1" + path}}, // SSDP-45
		{wip + "2", nil},                    // SSDP-46
		{wip + "3", nil},                    // SSDP-46
		{wip + "0", nil},                    // SSDP-46
		{wip + "01", nil},                   // SSDP-46
		{wip + "-1", nil},                   // SSDP-46
		{wip + "+1", nil},                   // SSDP-46
		{wip + "1 ", nil},                   // SSDP-46
		{wip + "1x", nil},                   // SSDP-46
		{wip, nil},                          // SSDP-46
		{wip + "18446744073709551617", nil}, // SSDP-46: 1 modulo 2^64
		{wip[:len(wip)-1], nil},
		{strings.ToLower(wip) + "1", nil}, // SSDP-48
		{"urn:schemas-upnp-org:device:WANIPConnection:1", nil},
		{"urn:schemas-example-com:service:WANIPConnection:1", nil},
		{"urn:schemas-upnp-org:service:WANPPPConnection:1", nil}, // SSDP-45
		{"SSDP:ALL", nil},  // SSDP-4
		{"ssdp:alll", nil}, // SSDP-45
		{"upnp:rootdevice:1", nil},
		{"", nil},
		{":", nil},
		{"urn:", nil},
	} {
		if got := rows(match([]Device{v1()}, tt.st)); !slices.Equal(got, tt.want) {
			t.Errorf("match(%q) =\n%s\nwant\n%s", tt.st, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
	// Each listed type finds its own row, and only that (SSDP-45).
	for _, row := range v1().Targets {
		want := []string{row.NT + " | " + row.USN() + path}
		if got := rows(match([]Device{v1()}, row.NT)); !slices.Equal(got, want) {
			t.Errorf("match(%q) = %q, want %q", row.NT, got, want)
		}
	}
}

// A device of version 2 answers for both versions, in the words of the
// question.
func TestMatchOlderVersion(t *testing.T) { // SSDP-46
	device := v2()
	device.Announce = true
	for st, want := range map[string]int{
		"urn:schemas-upnp-org:service:WANIPConnection:1":        1,
		"urn:schemas-upnp-org:service:WANIPConnection:2":        1,
		"urn:schemas-upnp-org:service:WANIPConnection:3":        0,
		"urn:schemas-upnp-org:service:WANIPConnection:10":       0,
		"urn:schemas-upnp-org:service:Layer3Forwarding:1":       1,
		"urn:schemas-upnp-org:service:Layer3Forwarding:2":       0,
		"urn:schemas-upnp-org:service:WANIPv6FirewallControl:1": 1,
	} {
		got := match([]Device{device}, st)
		if len(got) != want {
			t.Errorf("match(%q) has %d answers, want %d", st, len(got), want)
		}
		for _, a := range got {
			if a.NT != st || !strings.HasSuffix(a.USN(), "::"+st) {
				t.Errorf("match(%q) answers ST %q, USN %q", st, a.NT, a.USN())
			}
		}
	}
}

func TestMatchSeveralDevices(t *testing.T) { // SSDP-47
	device := v1()
	const link = "urn:schemas-upnp-org:service:WANEthernetLinkConfig:1"
	device.Targets = append(device.Targets, Target{link, uuidW}, Target{link, uuidC})
	want := []string{
		link + " | uuid:" + uuidW + "::" + link + " | /v1/rootDesc.xml",
		link + " | uuid:" + uuidC + "::" + link + " | /v1/rootDesc.xml",
	}
	if got := rows(match([]Device{device}, link)); !slices.Equal(got, want) {
		t.Errorf("a service under two devices: %q, want %q", got, want)
	}
}

// The second face is found only by what the first does not have.
func TestMatchTwoFaces(t *testing.T) { // INT-1, INT-2
	faces := []Device{v1(), v2()}
	second := "uuid:" + v2().Targets[0].UUID
	for st, want := range map[string]string{
		"urn:schemas-upnp-org:device:InternetGatewayDevice:1":   "/v1/rootDesc.xml",
		"urn:schemas-upnp-org:device:InternetGatewayDevice:2":   "/v2/rootDesc.xml",
		"urn:schemas-upnp-org:service:Layer3Forwarding:1":       "/v1/rootDesc.xml",
		"urn:schemas-upnp-org:service:WANIPv6FirewallControl:1": "/v2/rootDesc.xml",
		"uuid:" + uuidR:   "/v1/rootDesc.xml",
		second:            "/v2/rootDesc.xml",
		"upnp:rootdevice": "/v1/rootDesc.xml",
	} {
		got := match(faces, st)
		if len(got) != 1 || got[0].device.Path != want {
			t.Errorf("match(%q) = %q, want one answer with %s", st, rows(got), want)
		}
	}
	if got, want := rows(match(faces, "ssdp:all")), rows(matchAll(faces[:1])); !slices.Equal(got, want) {
		t.Errorf("ssdp:all = %q, want %q", got, want)
	}
}

func TestAdmits(t *testing.T) {
	group, wan := Group4().String(), "11.0.0.2"
	for _, tt := range []struct {
		name, src, dst string
		ifIndex        int
		multicast, ok  bool
	}{
		{"multicast", "192.168.77.10:50000", group, lanIndex, true, true},
		{"unicast", "192.168.77.10:50000", "192.168.77.1", lanIndex, false, true}, // SSDP-42, INT-11
		{"from port 1900", "192.168.77.10:1900", group, lanIndex, true, true},

		{"another device", "192.168.77.10:50000", group, lanIndex + 1, false, false},          // SSDP-8
		{"by the WAN", "192.168.77.10:50000", "192.168.77.1", lanIndex + 1, false, false},     // SSDP-8
		{"to the WAN address", "192.168.77.10:50000", wan, lanIndex, false, false},            // SSDP-8
		{"off-link, multicast", "11.0.0.1:50000", group, lanIndex, true, false},               // SSDP-51
		{"off-link, unicast", "11.0.0.1:50000", "192.168.77.1", lanIndex, false, false},       // SSDP-51
		{"no address yet", "0.0.0.0:50000", group, lanIndex, true, false},                     // SSDP-51
		{"from loopback", "127.0.0.1:50000", group, lanIndex, true, false},                    // SSDP-51
		{"from a group", "239.255.255.250:50000", group, lanIndex, true, false},               // SSDP-51
		{"from broadcast", "255.255.255.255:50000", group, lanIndex, true, false},             // SSDP-51
		{"from port 0", "192.168.77.10:0", group, lanIndex, true, false},                      // SSDP-51
		{"to the broadcast", "192.168.77.10:50000", "192.168.77.255", lanIndex, false, false}, // SSDP-51
		{"to all", "192.168.77.10:50000", "255.255.255.255", lanIndex, false, false},          // SSDP-51
		{"another group", "192.168.77.10:50000", "224.0.0.251", lanIndex, false, false},

		{"the router itself", "192.168.77.1:50000", "192.168.77.1", lanIndex, false, true},
		{"the router itself, multicast", "192.168.77.1:50000", group, lanIndex, true, true},
		{"our own socket", "192.168.77.1:1900", group, lanIndex, true, false},                    // SSDP-51
		{"our own socket, unicast", "192.168.77.1:1900", "192.168.77.1", lanIndex, false, false}, // SSDP-51
		{"the router itself, port 0", "192.168.77.1:0", group, lanIndex, true, false},
	} {
		packet := sock.Packet{
			Src:     netip.MustParseAddrPort(tt.src),
			Dst:     netip.MustParseAddr(tt.dst),
			IfIndex: tt.ifIndex,
		}
		lan := testLAN()
		// As careless as a caller can be.
		lan.OnLink = func(a netip.Addr) bool { return !netip.MustParsePrefix("11.0.0.0/8").Contains(a) }
		scope, multicast, ok := lan.admits(packet)
		if ok != tt.ok || ok && (multicast != tt.multicast || scope != lan.Scopes[0]) {
			t.Errorf("%s: admits = %t, %t, want %t, %t", tt.name, multicast, ok, tt.multicast, tt.ok)
		}
		lan.OnLink = nil
		if _, _, ok := lan.admits(packet); ok && packet.Src.Addr() != routerAddr {
			t.Errorf("%s: admitted without OnLink", tt.name)
		}
	}
}

// The scope that was asked answers (SSDP-6).
func TestAdmits6(t *testing.T) {
	link, site, none := linkScope, siteScope, Scope{}
	const host, far = "[fe80::aa]:50123", "[2001:db8:99::1]:50123"
	for _, tt := range []struct {
		name, src, dst string
		multicast      bool
		want           Scope
	}{
		{"the link's group", host, "ff02::c", true, link},
		{"the site's group", "[fd12:3456:789a:1::aa]:50123", "ff05::c", true, site},
		{"the site's group, from link-local", host, "ff05::c", true, site},
		{"the link's group, from global", "[fd12:3456:789a:1::aa]:50123", "ff02::c", true, link},
		{"unicast, link-local", host, routerLink.String(), false, link}, // SSDP-42
		{"unicast, unique local", host, routerSite.String(), false, site},
		{"ourselves", "[" + routerSite.String() + "]:50000", "ff02::c", true, link},

		{"our socket in the other scope", "[" + routerSite.String() + "]:1900", "ff02::c", true, none}, // SSDP-51
		{"our socket", "[" + routerLink.String() + "]:1900", "ff02::c", true, none},                    // SSDP-51
		{"off-link", far, "ff02::c", true, none},                                                       // SSDP-51
		{"off-link, unicast", far, routerSite.String(), false, none},                                   // SSDP-51
		{"no address yet", "[::]:50000", "ff02::c", true, none},                                        // SSDP-51
		{"from loopback", "[::1]:50000", "ff02::c", true, none},                                        // SSDP-51
		{"from a group", "[ff02::c]:50000", "ff02::c", true, none},                                     // SSDP-51
		{"from port 0", "[fe80::aa]:0", "ff02::c", true, none},                                         // SSDP-51
		{"all nodes", host, "ff02::1", true, none},
		{"another of our addresses", host, "fd12:3456:789a:1::2", false, none},
		{"IPv4", "192.168.77.10:50123", Group4().String(), true, none},
	} {
		lan := testLAN6(link, site)
		// As careless as a caller can be.
		lan.OnLink = func(a netip.Addr) bool { return a != netip.MustParseAddrPort(far).Addr() }
		packet := sock.Packet{Src: netip.MustParseAddrPort(tt.src), Dst: netip.MustParseAddr(tt.dst), IfIndex: lanIndex}
		scope, multicast, ok := lan.admits(packet)
		if ok != (tt.want != none) || ok && (scope != tt.want || multicast != tt.multicast) {
			t.Errorf("%s: admitted %t by %v, multicast %t; want %v", tt.name, ok, scope, multicast, tt.want)
		}
		packet.IfIndex++ // SSDP-8
		if _, _, ok := lan.admits(packet); ok {
			t.Errorf("%s: admitted on another device", tt.name)
		}
		// Without a global address there is no site.
		lan.Scopes = []Scope{link}
		packet.IfIndex = lanIndex
		if _, _, ok := lan.admits(packet); ok && tt.want != link && packet.Src.Addr() != routerSite { // no longer known as ours
			t.Errorf("%s: admitted without that scope", tt.name)
		}
	}
}
