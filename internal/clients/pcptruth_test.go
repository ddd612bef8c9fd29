package clients

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestOneTruth: the three protocols have one table, and none takes what is another's
// (issue 7, point 3).
func TestOneTruth(t *testing.T) {
	h := enter(t, "igd = auto").begin()
	one, two := h.person(h.LAN1, lab.LAN1Addr), h.person(h.LAN2, lab.LAN2Addr)
	old := one.read(one.locate(igd1)).service("WANIPConnection:1")
	young := one.read(one.locate(igd2)).service("WANIPConnection:2")
	p := pcpFrom(t, h.LAN1, lab.LAN1Addr, lab.RouterLANAddr)
	q := pcpFrom(t, h.LAN2, lab.LAN2Addr, lab.RouterLANAddr)

	// UPnP's, which is of port 8080 at lan1.
	if code := one.add(old, 18080, 600); code != 0 {
		t.Fatalf("AddPortMapping: error %d", code)
	}
	for _, a := range []ask{
		{lifetime: 3600, proto: tcpNumber, internal: 8080, external: 18080},
		{lifetime: 3600, proto: tcpNumber, internal: 8080, external: 19999},
		{proto: tcpNumber, internal: 8080},
	} {
		if r := p.want(pcpNotAuthorized, a); r.lifetime < 590 && a.lifetime != 0 || r.lifetime > 600 && a.lifetime != 0 {
			t.Errorf("UPnP's is refused for %d s, want what is left", r.lifetime)
		}
	}
	q.want(pcpCannotProvide, ask{lifetime: 600, proto: tcpNumber, internal: 9000, external: 18080, options: option(pcpPrefer)})
	if r := q.want(pcpOK, ask{lifetime: 600, proto: tcpNumber, internal: 9000, external: 18080}); r.external == 18080 {
		t.Error("lan2 gets lan1's port")
	}
	q.gone(tcpNumber, 9000)
	pmpMaps(t, h.LAN1, "tcp", 8080, 19999, 18080, 60) // PMP-8
	if got := list(t, h.Lab)["TCP 18080"]; len(got) < 7 || got[6] != "UPnP" || got[5] < "0:09:00" {
		t.Errorf("NAT-PMP has made of it %q", got)
	}

	// PCP's and NAT-PMP's.
	p.mapped(18081, ask{lifetime: 3600, proto: tcpNumber, internal: 9081, external: 18081, options: option(pcpDescription, []byte("by PCP")...)})
	pmpMaps(t, h.LAN1, "tcp", 9082, 18082, 18082, 3600)
	p.mapped(18083, ask{lifetime: 3600, proto: tcpNumber, internal: 8083, external: 18083})
	for _, tt := range []struct {
		what      string
		got, want int
	}{
		{"PCP's port by its client, version 1", one.add(old, 18081, 0), 718},
		{"PCP's port by its client, version 2", one.add(young, 18081, 0), 729},
		{"PCP's port by another", two.add(old, 18081, 0), 718},
		{"NAT-PMP's port by another", two.add(old, 18082, 0), 718},
		{"NAT-PMP's companion by another", two.udp(old, 18082), 718},
		{"NAT-PMP's companion by its client", one.udp(old, 18082), 0},
		{"another's PCP mapping deleted", two.remove(old, 18081), 606},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: error %d, want %d", tt.what, tt.got, tt.want)
		}
	}
	h.shown(one, old)
}

// udp maps an external UDP port.
func (p *person) udp(s service, external int) int {
	p.t.Helper()
	_, code := p.call(s, "AddPortMapping", "RemoteHost", "", "ExternalPort", strconv.Itoa(external), "Protocol", "UDP",
		"InternalPort", "8080", "InternalClient", p.addr.String(), "Enabled", "1", "PortMappingDescription", "", "LeaseDuration", "0")
	return code
}

// shown checks what TestOneTruth has made in upnpctl's list and in UPnP's.
func (h *house) shown(p *person, s service) {
	h.t.Helper()
	want := map[string]string{"TCP 18080": "UPnP", "TCP 18081": "PCP", "TCP 18082": "NAT-PMP", "TCP 18083": "PCP", "UDP 18082": "UPnP"}
	got := list(h.t, h.Lab)
	for port, by := range want {
		if words := got[port]; len(words) < 7 || words[6] != by {
			h.t.Errorf("upnpctl list shows %s as %q, want it by %s", port, words, by)
		}
	}
	var all []string
	for i := range len(want) {
		out, code := p.call(s, "GetGenericPortMappingEntry", "PortMappingIndex", fmt.Sprint(i))
		if code != 0 {
			h.t.Fatalf("GetGenericPortMappingEntry %d: error %d", i, code)
		}
		all = append(all, out["NewProtocol"]+" "+out["NewExternalPort"])
		if out["NewExternalPort"] == "18081" && (out["NewPortMappingDescription"] != "by PCP" || out["NewInternalPort"] != "9081" || out["NewInternalClient"] != lab.LAN1Addr) {
			h.t.Errorf("PCP's is shown as %q", out)
		}
	}
	for port := range want {
		if !slices.Contains(all, port) {
			h.t.Errorf("GetGenericPortMappingEntry does not show %s", port)
		}
	}
}
