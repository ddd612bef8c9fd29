package clients

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestPCP: MAP with each option, over real NAT and through real pinholes (issue 7,
// points 2 and 5).
func TestPCP(t *testing.T) {
	pinVariants(t, func(t *testing.T, w *pinRouter) {
		raiseMaps(t, w)
		p := pcpFrom(t, w.LAN1, lab.LAN1Addr, lab.RouterLANAddr)
		if r := p.parse(p.exchange(p.header(pcpAnnounce, 0))); r.result != pcpOK || len(r.raw) != 24 || r.lifetime != 0 { // ANN-1
			t.Errorf("ANNOUNCE: %+v", r)
		}
		inner := net.JoinHostPort(lab.LAN1Addr, strconv.Itoa(pinPort))
		for proto, number := range map[string]byte{"tcp": tcpNumber, "udp": udpNumber} {
			r := p.mapped(18080, ask{lifetime: 3600, proto: number, internal: pinPort, external: 18080})
			if r.addr.String() != lab.WANAddr || len(r.raw) != 60 { // MAP-12
				t.Errorf("%s: assigned address %v, %d bytes", proto, r.addr, len(r.raw))
			}
			wantReached(t, w.Lab, proto, 18080, inner)
			p.mapped(18080, ask{lifetime: 600, proto: number, internal: pinPort, external: 19000}) // renewed; MAP-5
			p.gone(number, pinPort)
			wantReached(t, w.Lab, proto, 18080, "")
		}
		w.filters(p, inner)
		w.portSet(p)
		w.pcpPinholes()
		w.stop()
	})
}

// noFilter is FILTER with a prefix of length 0: what there was is no more.
var noFilter = slices.Clip(append([]byte{pcpFilter, 0, 0, 20}, make([]byte, 20)...))

// filters are prefixes and hosts, and a remote port (MAP-13).
func (w *pinRouter) filters(p *pcpHost, inner string) {
	w.t.Helper()
	to := net.JoinHostPort(lab.WANAddr, "18080")
	sees := func(what, from string, want string) {
		w.t.Helper()
		if got := reaches(w.Lab, from, "tcp", to, want != ""); got != want {
			w.t.Errorf("%s: %s gets to %q, want %q", what, from, got, want)
		}
	}
	a := ask{lifetime: 3600, proto: tcpNumber, internal: pinPort, external: 18080, options: filterOption("11.0.0.0/25", 0)}
	if r := p.mapped(18080, a); string(r.options[pcpFilter]) != string(a.options[4:]) {
		w.t.Errorf("FILTER comes back as %x", r.options[pcpFilter])
	}
	sees("a prefix", lab.InternetAddr, inner)
	sees("a prefix", secondAddr, "")
	a.options = noFilter
	p.mapped(18080, a)
	sees("no filter", secondAddr, inner)
	a.options = append(noFilter, filterOption(secondAddr+"/32", 0)...)
	p.mapped(18080, a)
	sees("a host", lab.InternetAddr, "")
	sees("a host", secondAddr, inner)
	p.gone(tcpNumber, pinPort)
	sees("deleted", secondAddr, "")
}

// portSet is of eight ports, which are one entity (MAP-16), with a description (MAP-15).
func (w *pinRouter) portSet(p *pcpHost) {
	w.t.Helper()
	const first, size = 20000, 8
	for port := uint16(first); port < first+size; port++ {
		if _, err := w.LAN1.EchoUDP(port); err != nil {
			w.t.Fatal(err)
		}
	}
	name := "games & more"
	a := ask{lifetime: 3600, proto: udpNumber, internal: first, external: 30000,
		options: append(option(pcpPortSet, 0, size, first>>8, first&0xff, 0), option(pcpDescription, []byte(name)...)...)}
	r := p.mapped(30000, a)
	if string(r.options[pcpPortSet]) != string(a.options[4:9]) || string(r.options[pcpDescription]) != name {
		w.t.Errorf("options %x", r.options)
	}
	w.together(size+2, func(i int) {
		port := 30000 - 1 + i // one before, one after
		want := ""
		if i > 0 && i <= size {
			want = net.JoinHostPort(lab.LAN1Addr, strconv.Itoa(first-1+i))
		}
		wantReached(w.t, w.Lab, "udp", port, want)
	})
	other := pcpFrom(w.t, w.LAN2, lab.LAN2Addr, lab.RouterLANAddr)
	other.want(pcpCannotProvide, ask{lifetime: 600, proto: udpNumber, internal: 9000, external: 30007, options: option(pcpPrefer)})
	if got := upnpctl(w.t, w.Lab, "list"); !strings.Contains(got, name) || !strings.Contains(got, " PCP ") || !strings.Contains(got, "30000") {
		w.t.Errorf("upnpctl list shows\n%s", got)
	}
	p.gone(udpNumber, first)
	w.together(2, func(i int) { wantReached(w.t, w.Lab, "udp", 30000+i*(size-1), "") })
}

// pcpPinholes are MAP by IPv6 (MAP-12), to the router's global and its link-local
// address.
func (w *pinRouter) pcpPinholes() {
	w.t.Helper()
	p := pcpFrom(w.t, w.LAN1, lab.LAN1Addr6, lab.RouterLANAddr6)
	if r := p.parse(p.exchange(p.header(pcpAnnounce, 0))); r.result != pcpOK {
		w.t.Errorf("ANNOUNCE by IPv6: %+v", r)
	}
	a := ask{lifetime: 3600, proto: tcpNumber, internal: pinPort, external: 19999, suggested: "2001:db8::99"}
	if r := p.mapped(pinPort, a); r.addr.String() != lab.LAN1Addr6 {
		w.t.Errorf("a pinhole at %v", r.addr)
	}
	w.wantIn("a pinhole for TCP", true, false)
	a.proto, a.options = udpNumber, filterOption(lab.InternetAddr6+"/128", 4000)
	p.mapped(pinPort, a)
	if !w.asks(lab.InternetAddr6, 4000, pinPatience) || w.asks(lab.InternetAddr6, 4001, pinSilence) {
		w.t.Error("a filter by remote port lets in another one, or not its own")
	}
	a.options = filterOption("2001:db8:ff:0:8000::/65", 0)
	p.want(pcpExcessive, a) // there is one already
	a.options = append(noFilter, a.options...)
	p.mapped(pinPort, a)
	w.wantIn("with a filter for others", true, false)
	a.options = append(noFilter, filterOption("2001:db8:ff::/65", 0)...)
	p.mapped(pinPort, a)
	w.wantIn("with a filter by prefix", true, true)
	p.another().want(pcpNotAuthorized, ask{lifetime: 600, proto: tcpNumber, internal: pinPort})
	p.gone(tcpNumber, pinPort)
	p.gone(udpNumber, pinPort)
	w.wantIn("no pinhole", false, false)
}
