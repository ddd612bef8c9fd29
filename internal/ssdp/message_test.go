package ssdp

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

const (
	uuidR = "6d0f8a10-5c2e-5a31-9c7b-02005e100001"
	uuidW = "6d0f8a10-5c2e-5a31-9c7b-02005e100002"
	uuidC = "6d0f8a10-5c2e-5a31-9c7b-02005e100003"
)

// v1 is the tree of SPEC 1.3, row by row.
func v1() Device {
	return Device{Path: "/v1/rootDesc.xml", ConfigID: 4711, Announce: true, Targets: []Target{
		{"upnp:rootdevice", uuidR},
		{"uuid:" + uuidR, uuidR},
		{"urn:schemas-upnp-org:device:InternetGatewayDevice:1", uuidR},
		{"urn:schemas-upnp-org:service:Layer3Forwarding:1", uuidR},
		{"uuid:" + uuidW, uuidW},
		{"urn:schemas-upnp-org:device:WANDevice:1", uuidW},
		{"urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1", uuidW},
		{"uuid:" + uuidC, uuidC},
		{"urn:schemas-upnp-org:device:WANConnectionDevice:1", uuidC},
		{"urn:schemas-upnp-org:service:WANIPConnection:1", uuidC},
	}}
}

// v2 is v1 in version 2, under other UUIDs (INT-2).
func v2() Device {
	d := v1()
	d.Path, d.ConfigID, d.Announce = "/v2/rootDesc.xml", 815, false
	for i, t := range d.Targets {
		t.UUID = strings.Replace(t.UUID, "6d0f", "7e1f", 1)
		if strings.HasPrefix(t.NT, "uuid:") {
			t.NT = "uuid:" + t.UUID
		}
		if !strings.Contains(t.NT, "Layer3") && !strings.Contains(t.NT, "Common") {
			t.NT = strings.Replace(t.NT, ":1", ":2", 1)
		}
		d.Targets[i] = t
	}
	d.Targets = append(d.Targets, Target{
		"urn:schemas-upnp-org:service:WANIPv6FirewallControl:1", d.Targets[9].UUID,
	})
	return d
}

var (
	routerAddr = netip.MustParseAddr("192.168.77.1")
	hostAddr1  = netip.MustParseAddrPort("192.168.77.10:50123")
	lanPrefix  = netip.MustParsePrefix("192.168.77.0/24")
)

// The router and a host in IPv6.
var (
	routerLink = netip.MustParseAddr("fe80::5054:ff:fe12:3456")
	routerSite = netip.MustParseAddr("fd12:3456:789a:1::1")
	hostLink   = netip.MustParseAddrPort("[fe80::aa]:50123")
	hostSite   = netip.MustParseAddrPort("[fd12:3456:789a:1::aa]:50123")

	linkGroup, siteGroup = Groups6()
	linkScope            = Scope{linkGroup, routerLink}
	siteScope            = Scope{siteGroup, routerSite}
)

const lanIndex = 3

func testLAN6(scopes ...Scope) LAN {
	return LAN{Scopes: scopes, IfIndex: lanIndex, OnLink: func(a netip.Addr) bool {
		return a.IsLinkLocalUnicast() || netip.MustParsePrefix("fd12:3456:789a:1::/64").Contains(a)
	}}
}

func testLAN() LAN {
	return LAN{
		Scopes:  []Scope{{Group4(), routerAddr}},
		IfIndex: lanIndex, OnLink: lanPrefix.Contains,
	}
}

func testConfig(devices ...Device) Config {
	return Config{
		Devices:  devices,
		Server:   "Linux/6.6 UPnP/1.1 upnpd/1.0",
		BootID:   1735689600,
		MaxAge:   1800 * time.Second,
		Refresh:  900 * time.Second,
		HTTPPort: 49152,
	}
}

func crlf(text string) string {
	return strings.ReplaceAll(strings.TrimPrefix(text, "\n"), "\n", "\r\n") + "\r\n"
}

func TestMessages(t *testing.T) { // SSDP-1, SSDP-3, SSDP-6, the table of SPEC 1.2
	s := New(testConfig(v1()), testLAN(), nil)
	v4, device := testLAN().Scopes[0], &Device{Path: "/v1/rootDesc.xml", ConfigID: 4711}
	service := Target{"urn:schemas-upnp-org:service:WANIPConnection:1", uuidC}
	now := time.Date(2025, 1, 2, 4, 4, 5, 0, time.FixedZone("", 3600))
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"alive of a service", s.alive(v4, device, service), `
NOTIFY * HTTP/1.1
HOST: 239.255.255.250:1900
CACHE-CONTROL: max-age=1800
LOCATION: http://192.168.77.1:49152/v1/rootDesc.xml
NT: urn:schemas-upnp-org:service:WANIPConnection:1
NTS: ssdp:alive
SERVER: Linux/6.6 UPnP/1.1 upnpd/1.0
USN: uuid:6d0f8a10-5c2e-5a31-9c7b-02005e100003::urn:schemas-upnp-org:service:WANIPConnection:1
BOOTID.UPNP.ORG: 1735689600
CONFIGID.UPNP.ORG: 4711
`},
		{"alive of a uuid", s.alive(v4, &Device{Path: "/d.xml", ConfigID: 16777215}, Target{"uuid:" + uuidR, uuidR}), `
NOTIFY * HTTP/1.1
HOST: 239.255.255.250:1900
CACHE-CONTROL: max-age=1800
LOCATION: http://192.168.77.1:49152/d.xml
NT: uuid:6d0f8a10-5c2e-5a31-9c7b-02005e100001
NTS: ssdp:alive
SERVER: Linux/6.6 UPnP/1.1 upnpd/1.0
USN: uuid:6d0f8a10-5c2e-5a31-9c7b-02005e100001
BOOTID.UPNP.ORG: 1735689600
CONFIGID.UPNP.ORG: 16777215
`},
		{"byebye", s.byebye(v4, device, Target{"upnp:rootdevice", uuidR}), `
NOTIFY * HTTP/1.1
HOST: 239.255.255.250:1900
NT: upnp:rootdevice
NTS: ssdp:byebye
USN: uuid:6d0f8a10-5c2e-5a31-9c7b-02005e100001::upnp:rootdevice
BOOTID.UPNP.ORG: 1735689600
CONFIGID.UPNP.ORG: 4711
`},
		{"alive on the link", s.alive(linkScope, device, Target{"upnp:rootdevice", uuidR}), `
NOTIFY * HTTP/1.1
HOST: [FF02::C]:1900
CACHE-CONTROL: max-age=1800
LOCATION: http://[fe80::5054:ff:fe12:3456]:49152/v1/rootDesc.xml
NT: upnp:rootdevice
NTS: ssdp:alive
SERVER: Linux/6.6 UPnP/1.1 upnpd/1.0
USN: uuid:6d0f8a10-5c2e-5a31-9c7b-02005e100001::upnp:rootdevice
BOOTID.UPNP.ORG: 1735689600
CONFIGID.UPNP.ORG: 4711
`},
		{"byebye in the site", s.byebye(siteScope, device, Target{"upnp:rootdevice", uuidR}), `
NOTIFY * HTTP/1.1
HOST: [FF05::C]:1900
NT: upnp:rootdevice
NTS: ssdp:byebye
USN: uuid:6d0f8a10-5c2e-5a31-9c7b-02005e100001::upnp:rootdevice
BOOTID.UPNP.ORG: 1735689600
CONFIGID.UPNP.ORG: 4711
`},
		{"response", s.response(v4, answer{service, device}, now), `
HTTP/1.1 200 OK
CACHE-CONTROL: max-age=1800
LOCATION: http://192.168.77.1:49152/v1/rootDesc.xml
SERVER: Linux/6.6 UPnP/1.1 upnpd/1.0
USN: uuid:6d0f8a10-5c2e-5a31-9c7b-02005e100003::urn:schemas-upnp-org:service:WANIPConnection:1
ST: urn:schemas-upnp-org:service:WANIPConnection:1
EXT:
DATE: Thu, 02 Jan 2025 03:04:05 GMT
BOOTID.UPNP.ORG: 1735689600
CONFIGID.UPNP.ORG: 4711
`},
	} {
		if want := crlf(tt.want); string(tt.got) != want {
			t.Errorf("%s:\n%s\nwant:\n%s", tt.name, tt.got, want)
		}
	}
}

func TestMessageLength(t *testing.T) { // SSDP-5
	lan := testLAN()
	lan.Scopes = []Scope{
		{Group4(), netip.MustParseAddr("192.168.177.254")},
		{siteGroup, netip.MustParseAddr("2001:db8:1234:5678:9abc:def0:1234:5678")},
	}
	cfg := testConfig(v1(), v2())
	cfg.Server = "OpenWrt-SNAPSHOT/r27893-0123456789 UPnP/1.1 upnpd/10.11.12-rc3"
	cfg.BootID, cfg.HTTPPort = 1<<31-1, 65535
	cfg.MaxAge = 7 * 24 * time.Hour
	s := New(cfg, lan, nil)
	for _, scope := range lan.Scopes {
		longest := 0
		for _, d := range cfg.Devices {
			d.ConfigID = 1<<24 - 1
			for _, row := range d.Targets {
				for _, msg := range [][]byte{
					s.alive(scope, &d, row), s.byebye(scope, &d, row), s.response(scope, answer{row, &d}, time.Now()),
				} {
					longest = max(longest, len(msg))
				}
			}
		}
		if longest >= 512 {
			t.Errorf("%s: the longest message has %d bytes, want below 512", scope.Group, longest)
		}
	}
}

func TestLocation(t *testing.T) { // SSDP-6, SSDP-11
	for _, tt := range []struct{ addr, want string }{
		{"192.168.77.1", "http://192.168.77.1:49152/d.xml"},
		{"fd00::1", "http://[fd00::1]:49152/d.xml"},
		{"fe80::1%br-lan", "http://[fe80::1]:49152/d.xml"},
	} {
		s := New(testConfig(), LAN{}, nil)
		if got := s.location(Scope{Addr: netip.MustParseAddr(tt.addr)}, &Device{Path: "/d.xml"}); got != tt.want {
			t.Errorf("location on %s = %q, want %q", tt.addr, got, tt.want)
		}
	}
}

func TestSameOnAllLANs(t *testing.T) { // SSDP-11
	s, device := New(testConfig(v1()), testLAN(), nil), v1()
	for _, row := range device.Targets {
		here := string(s.alive(testLAN().Scopes[0], &device, row))
		there := string(s.alive(Scope{Group4(), netip.MustParseAddr("10.9.8.7")}, &device, row))
		there = strings.Replace(there, "LOCATION: http://10.9.8.7:", "LOCATION: http://192.168.77.1:", 1)
		if here != there {
			t.Errorf("alive differs in more than LOCATION:\n%s\n%s", here, there)
		}
		there = string(s.alive(siteScope, &device, row))
		there = strings.Replace(there, "LOCATION: http://[fd12:3456:789a:1::1]:", "LOCATION: http://192.168.77.1:", 1)
		there = strings.Replace(there, "HOST: [FF05::C]:", "HOST: 239.255.255.250:", 1)
		if here != there {
			t.Errorf("alive differs in more than HOST and LOCATION:\n%s\n%s", here, there)
		}
	}
}
