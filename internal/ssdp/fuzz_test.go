package ssdp

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/sock"
)

// FuzzReceive: whatever arrives, nothing panics, only a whole M-SEARCH draws
// an answer (SSDP-4, SSDP-50), and no answer says more than it should. All
// scopes give the same answers.
func FuzzReceive(f *testing.F) {
	for _, st := range []string{
		"ssdp:all", "upnp:rootdevice", "uuid:" + uuidR, "uuid:" + strings.ToUpper(uuidC),
		"urn:schemas-upnp-org:service:WANIPConnection:1",
		"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
		"uuid:" + strings.Repeat("a", 2000), "uuid:::", "urn:::1", // CVE-2012-5958
	} {
		f.Add([]byte(mSearch(man, "MX: 2", "ST: "+st)), true)
		f.Add([]byte(mSearch(man, "MX: 120", "ST: "+st)), true)
		f.Add([]byte(mSearch(man, "ST: "+st)), false)
	}
	f.Add([]byte(mSearch(man, "MX: 2", "ST: ssdp:all")+strings.Repeat("x", maxDatagram)), true)
	f.Add([]byte("M-SEARCH * HTTP/1.1"), true) // CVE-2013-0229
	f.Add([]byte("HTTP/1.1 200 OK\r\nST: ssdp:all\r\n\r\n"), true)
	f.Add([]byte("NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\n\r\n"), true)

	cfg := testConfig(v1(), v2())
	rows := map[string]bool{}
	for _, d := range cfg.Devices {
		for _, t := range d.Targets {
			rows["uuid:"+t.UUID] = true
		}
	}
	f.Fuzz(func(t *testing.T, p []byte, multicast bool) {
		now, packet := time.Unix(1000, 0), sock.Packet{IfIndex: lanIndex}
		at := func(scope Scope, lan LAN, src netip.AddrPort) (*Server, burst, bool) {
			packet.Src, packet.Dst = src, scope.Addr
			if multicast {
				packet.Dst = scope.Group
			}
			s := New(cfg, lan, nil)
			b, ok := s.receive(p, packet, now)
			if ok && b.scope != scope {
				t.Errorf("asked %v, %v answers", scope, b.scope)
			}
			return s, b, ok
		}
		s, b, ok := at(testLAN().Scopes[0], testLAN(), hostAddr1)
		lan6 := testLAN6(linkScope, siteScope)
		for _, scope := range lan6.Scopes {
			if _, other, found := at(scope, lan6, hostLink); found != ok || len(other.answers) != len(b.answers) {
				t.Errorf("%s: %d answers, but %d in IPv4", scope.Group, len(other.answers), len(b.answers))
			}
		}
		if !ok {
			return
		}
		if !bytes.HasPrefix(p, []byte("M-SEARCH * HTTP/1.1")) || len(p) > maxDatagram ||
			!bytes.Contains(p, []byte(`"ssdp:discover"`)) {
			t.Errorf("answered: %q", p)
		}
		if b.to != hostAddr1 || len(b.answers) == 0 || len(b.answers) > 10 ||
			(b.mx == 0) == multicast || b.mx > maxMX {
			t.Errorf("%d answers to %s with MX %v", len(b.answers), b.to, b.mx)
		}
		for _, a := range b.answers {
			if !bytes.Contains(p, []byte(a.NT)) && !bytes.Contains(p, []byte("ssdp:all")) &&
				!bytes.Contains(bytes.ToLower(p), []byte(a.NT)) {
				t.Errorf("answer with ST %q to %q", a.NT, p)
			}
			msg := s.response(b.scope, a, now)
			if n := bytes.Count(msg, []byte("\r\n")); n != 11 || !rows["uuid:"+a.UUID] {
				t.Errorf("answer of %d lines: %q", n, msg)
			}
		}
	})
}
