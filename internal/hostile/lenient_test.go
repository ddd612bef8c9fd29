package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/linux-igd/upnpd/internal/lab"
)

// posts: libupnp wrote what was posted into files.
func (s *besieged) posts() {
	names := []string{"/evil", "/upnp/evil", "/../evil", "/..%2fevil", "//evil", "/gatedesc.xml/evil", "/%2e%2e/%2e%2e/tmp/evil", "/evil\\evil", "/evil?x", "/tmp/evil", "/evil/", "/" + strings.Repeat("../", 20) + "tmp/evil"}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "MKCOL", "TRACE", "CONNECT", "OPTIONS", "M-POST"} {
		for _, name := range append(names, "*", s.bad.path(s.bad.location(igd1))) {
			if status, _ := s.bad.ask(method+" "+name, "evil"); status < 400 {
				s.t.Errorf("%s %s: %d", method, name, status)
			}
		}
	}
	for _, name := range append(names, "/etc/passwd", "/../../etc/passwd", "/..%2f..%2fetc%2fpasswd") {
		if status, body := s.bad.ask("GET "+name, ""); status != 404 && status != 400 {
			s.t.Errorf("GET %s: %d %s", name, status, body)
		}
	}
	s.noFile("evil")
}

// noFile looks where the daemon might have written.
func (s *besieged) noFile(name string) {
	s.t.Helper()
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", s.pid))
	if err != nil {
		s.t.Fatal(err)
	}
	root := fmt.Sprintf("/proc/%d/root", s.pid)
	for _, dir := range []string{cwd, "/", "/tmp", "/run", "/run/upnpd", "/etc", "/etc/linuxigd", "/var/tmp", filepath.Dir(s.leases)} {
		for _, prefix := range []string{root, ""} {
			if _, err := os.Lstat(filepath.Join(prefix+dir, name)); err == nil {
				s.t.Errorf("%s is in %s", name, dir)
			}
		}
	}
}

// shells: a description is nothing but text (CVE-2014-8361 of miniigd; an address that
// is a command is TestTargets').
func (s *besieged) shells() {
	rules := s.Rules(lab.Nftables)
	for _, desc := range []string{"`touch evil`", "$(touch evil)", ";touch evil;", "| touch evil", "\" ; flush ruleset; \"", "\"; flush ruleset", "'; touch /tmp/evil; '", "--help", "-j ACCEPT", "%n%s", "</NewPortMappingDescription><NewInternalClient>11.0.0.1</NewInternalClient>",
		strings.Repeat("A", 3000), strings.Repeat("\u00e9", 1500), strings.Repeat("\"", 300), strings.Repeat("\\", 300)} {
		if _, code := s.bad.add(wanip1, "AddPortMapping", wish{external: 30000, desc: desc}); code != 0 {
			s.t.Errorf("%.40q: error %d", desc, code)
		}
		if got := s.upnpctl("list", "--json"); strings.Count(got, `"client"`) != 1 || !strings.Contains(got, lab.LAN2Addr) || len(got) > 2500 {
			s.t.Errorf("%.40q: %s", desc, got)
		}
	}
	for _, remote := range notAddresses {
		if _, code := s.bad.add(wanip1, "AddPortMapping", wish{external: 30001, remote: remote}); code != 402 {
			s.t.Errorf("RemoteHost %.40q: error %d", remote, code)
		}
	}
	if code := s.bad.remove(wanip1, "TCP", 30000, ""); code != 0 || s.Rules(lab.Nftables) != rules {
		s.t.Errorf("error %d, and the rules were\n%s\nare\n%s", code, rules, s.Rules(lab.Nftables))
	}
	s.noFile("evil")
}

// lenient are the rows of PEERS.md 2.3 where miniupnpd answered 200.
func (s *besieged) lenient() {
	add := []string{"RemoteHost", "", "ExternalPort", "30000", "Protocol", "TCP", "InternalPort", "8080", "InternalClient", lab.LAN2Addr, "Enabled", "1", "PortMappingDescription", "", "LeaseDuration", "60"}
	for _, tt := range []struct {
		name, value string
		want        int
	}{
		{"ExternalPort", "70000", 402}, {"ExternalPort", "-1", 402}, {"ExternalPort", "5011abc", 402}, {"ExternalPort", "0", 716}, {"ExternalPort", "*", 402}, {"ExternalPort", "", 402}, {"ExternalPort", "0x1388", 402}, {"ExternalPort", "99999999999999999999", 402},
		{"InternalPort", "0", 402}, {"InternalPort", "70000", 402}, {"InternalPort", "65616", 402}, {"Protocol", "XYZ", 601}, {"Protocol", "", 601}, {"Protocol", "SCTP", 601}, {"Protocol", "TCP UDP", 601}, {"Protocol", "6", 601},
		{"LeaseDuration", "-1", 402}, {"LeaseDuration", "abc", 402}, {"LeaseDuration", "", 402}, {"LeaseDuration", "4294967296", 402}, {"Enabled", "zzz", 402}, {"Enabled", "2", 402}, {"RemoteHost", "bogus host", 402}, {"InternalClient", "slow.example.com", 402},
	} {
		args := append([]string(nil), add...)
		for i := 0; i < len(args); i += 2 {
			if args[i] == tt.name {
				args[i+1] = tt.value
			}
		}
		if _, code := s.bad.call(wanip1, "AddPortMapping", args...); code != tt.want {
			s.t.Errorf("%s %q: error %d, want %d", tt.name, tt.value, code, tt.want)
		}
	}
	if code := s.bad.remove(wanip1, "TCP", 30000, ""); code != 714 {
		s.t.Errorf("delete what is not there: error %d", code)
	}
	// An action of another service, at the URL of another, in a namespace of his own.
	for _, tt := range [][3]string{{wanip1, wanip2, "GetListOfPortMappings"}, {wanip1, wan6fw, "AddPinhole"}, {wan6fw, wanip1, "AddPortMapping"}, {wanip1, "urn:evil:service:WANIPConnection:1", "GetExternalIPAddress"}} {
		status, reply := s.bad.ask("POST "+s.bad.path(s.bad.urls[tt[0]].Control)+"\r\nSOAPAction: \""+tt[1]+"#"+tt[2]+"\"", envelope(tt[1], tt[2], ""))
		if status != 500 || leaves(reply)["errorCode"] != "401" || strings.Contains(reply, `"urn:evil`) {
			s.t.Errorf("%v: %d %s", tt, status, reply)
		}
	}
	for _, a := range []pcpAsk{{proto: 132, internal: 8080}, {proto: 132}, {proto: 0, internal: 8080}, {proto: 0}, {proto: 58, internal: 1}} { // SCTP, all
		a.lifetime, a.nonce = 60, "x"
		for _, p := range []*peer{s.bad, s.bad6} {
			if r := p.pcp(a); r.result == pcpOK {
				s.t.Errorf("%v: PCP grants protocol %d port %d", p.addr, a.proto, a.internal)
			}
		}
	}
}

// lowPorts: miniupnpd's rules did not hold for PCP by IPv6.
func (s *besieged) lowPorts() {
	for _, n := range []uint16{1, 22, 80, 443, 1023} {
		for _, p := range []*peer{s.bad, s.bad6} {
			if r := p.pcp(pcpAsk{lifetime: 60, nonce: "x", proto: protoTCP, internal: n, external: n}); r.result != pcpNotAuthorized {
				s.t.Errorf("%v: PCP port %d: result %d", p.addr, n, r.result)
			}
		}
		if _, code := s.bad6.pin(lab.LAN2Addr6, int(n), protoTCP, 60); code != 606 {
			s.t.Errorf("pinhole %d: error %d", n, code)
		}
		if _, code := s.bad.add(wanip1, "AddPortMapping", wish{external: 30000, internal: int(n)}); code != 718 {
			s.t.Errorf("internal port %d: error %d", n, code)
		}
		if result, _ := s.bad.pmp(protoTCP, n, 30000, 60); result != 2 {
			s.t.Errorf("NAT-PMP port %d: result %d", n, result)
		}
	}
}
