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
	return Device{Path: "/v1/rootDesc.xml", Announce: true, Targets: []Target{
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
	d.Path, d.Announce = "/v2/rootDesc.xml", false
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

const lanIndex = 3

func testLAN() LAN {
	return LAN{Addr: routerAddr, IfIndex: lanIndex, OnLink: lanPrefix.Contains}
}

func testConfig(devices ...Device) Config {
	return Config{
		Devices:  devices,
		Server:   "Linux/6.6 UPnP/1.1 upnpd/1.0",
		BootID:   1735689600,
		ConfigID: 4711,
		MaxAge:   1800 * time.Second,
		Refresh:  900 * time.Second,
		HTTPPort: 49152,
	}
}

func crlf(text string) string {
	return strings.ReplaceAll(strings.TrimPrefix(text, "\n"), "\n", "\r\n") + "\r\n"
}

func TestMessages(t *testing.T) { // SSDP-1, SSDP-3, the table of SPEC 1.2
	s := New(testConfig(v1()), testLAN(), nil)
	service := Target{"urn:schemas-upnp-org:service:WANIPConnection:1", uuidC}
	now := time.Date(2025, 1, 2, 4, 4, 5, 0, time.FixedZone("", 3600))
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"alive of a service", s.alive(service, "/v1/rootDesc.xml"), `
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
		{"alive of a uuid", s.alive(Target{"uuid:" + uuidR, uuidR}, "/d.xml"), `
NOTIFY * HTTP/1.1
HOST: 239.255.255.250:1900
CACHE-CONTROL: max-age=1800
LOCATION: http://192.168.77.1:49152/d.xml
NT: uuid:6d0f8a10-5c2e-5a31-9c7b-02005e100001
NTS: ssdp:alive
SERVER: Linux/6.6 UPnP/1.1 upnpd/1.0
USN: uuid:6d0f8a10-5c2e-5a31-9c7b-02005e100001
BOOTID.UPNP.ORG: 1735689600
CONFIGID.UPNP.ORG: 4711
`},
		{"byebye", s.byebye(Target{"upnp:rootdevice", uuidR}), `
NOTIFY * HTTP/1.1
HOST: 239.255.255.250:1900
NT: upnp:rootdevice
NTS: ssdp:byebye
USN: uuid:6d0f8a10-5c2e-5a31-9c7b-02005e100001::upnp:rootdevice
BOOTID.UPNP.ORG: 1735689600
CONFIGID.UPNP.ORG: 4711
`},
		{"response", s.response(answer{service, "/v1/rootDesc.xml"}, now), `
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
	lan.Addr = netip.MustParseAddr("192.168.177.254")
	cfg := testConfig(v1(), v2())
	cfg.Server = "OpenWrt-SNAPSHOT/r27893-0123456789 UPnP/1.1 upnpd/10.11.12-rc3"
	cfg.BootID, cfg.ConfigID, cfg.HTTPPort = 1<<31-1, 1<<24-1, 65535
	cfg.MaxAge = 7 * 24 * time.Hour
	s := New(cfg, lan, nil)
	longest := 0
	for _, d := range cfg.Devices {
		for _, row := range d.Targets {
			for _, msg := range [][]byte{
				s.alive(row, d.Path), s.byebye(row), s.response(answer{row, d.Path}, time.Now()),
			} {
				longest = max(longest, len(msg))
			}
		}
	}
	if longest >= 512 {
		t.Errorf("the longest message has %d bytes, want below 512", longest)
	}
}

func TestLocation(t *testing.T) { // SSDP-6, SSDP-11
	for _, tt := range []struct{ addr, want string }{
		{"192.168.77.1", "http://192.168.77.1:49152/d.xml"},
		{"fd00::1", "http://[fd00::1]:49152/d.xml"},
		{"fe80::1%br-lan", "http://[fe80::1]:49152/d.xml"},
	} {
		s := New(testConfig(), LAN{Addr: netip.MustParseAddr(tt.addr)}, nil)
		if got := s.location("/d.xml"); got != tt.want {
			t.Errorf("location on %s = %q, want %q", tt.addr, got, tt.want)
		}
	}
}

func TestSameOnAllLANs(t *testing.T) { // SSDP-11
	other := LAN{Addr: netip.MustParseAddr("10.9.8.7"), IfIndex: 9}
	a, b := New(testConfig(v1()), testLAN(), nil), New(testConfig(v1()), other, nil)
	for _, row := range v1().Targets {
		here, there := string(a.alive(row, "/")), string(b.alive(row, "/"))
		there = strings.Replace(there, "LOCATION: http://10.9.8.7:", "LOCATION: http://192.168.77.1:", 1)
		if here != there {
			t.Errorf("alive differs in more than LOCATION:\n%s\n%s", here, there)
		}
	}
}
