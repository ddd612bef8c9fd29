package hostile

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestRouterPorts: what the router itself listens on is given to nobody, by no
// protocol, whatever the family and the address of the socket (issue 8, point 2;
// miniupnpd missed dual-stack sockets).
func TestRouterPorts(t *testing.T) {
	t.Parallel()
	h := enter(t, "max_mappings_per_client = 1000")
	tcp, udp := []uint16{port}, []uint16{1900, 5350, 5351}
	h.onlyIPv4(20900)
	tcp, udp = append(tcp, 20900), append(udp, 20900)
	for i, addr := range []string{"::", lab.WANAddr, lab.RouterLANAddr, lab.WANAddr6, lab.RouterLANAddr6, "127.0.0.1", "::1"} {
		n := uint16(21000 + 10*i)
		l, err := h.Router.ListenTCP(netip.AddrPortFrom(netip.MustParseAddr(addr), n).String())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := h.Router.ListenUDP(netip.AddrPortFrom(netip.MustParseAddr(addr), n+1000).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		tcp, udp = append(tcp, n), append(udp, n+1000)
	}
	h.begin()
	p, six := h.peer(h.LAN1, lab.LAN1Addr).find(), h.peer(h.LAN1, lab.LAN1Addr6).find()
	for _, n := range tcp {
		h.routerPort(p, six, protoTCP, "TCP", n)
	}
	for _, n := range udp {
		h.routerPort(p, six, protoUDP, "UDP", n)
	}
	if got := h.upnpctl("list"); got != "no mappings\n" {
		t.Errorf("it has\n%s", got)
	}
	// The other protocol's port of the same number is nobody's.
	if _, code := p.add(wanip1, "AddPortMapping", wish{external: 21000, proto: "UDP"}); code != 0 {
		t.Errorf("UDP beside a TCP listener: error %d", code)
	}
}

// onlyIPv4 listens on 0.0.0.0, which Go makes a dual-stack socket unless it is told.
func (h *house) onlyIPv4(n int) {
	h.t.Helper()
	err := h.Router.Do(func() error {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: n})
		if err != nil {
			return err
		}
		h.t.Cleanup(func() { l.Close() })
		c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: n})
		if err == nil {
			h.t.Cleanup(func() { c.Close() })
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// routerPort asks for one port in every way.
func (h *house) routerPort(p, six *peer, proto byte, name string, n uint16) {
	h.t.Helper()
	complain := func(how string, got any) { h.t.Helper(); h.t.Errorf("%s port %d by %s: %v", name, n, how, got) }
	w := wish{external: int(n), proto: name, client: p.addr.String()}
	for typ, want := range map[string]int{wanip1: 718, wanip2: 729} {
		for _, remote := range []string{"", lab.InternetAddr} {
			w.remote = remote
			if _, code := p.add(typ, "AddPortMapping", w); code != want {
				complain("AddPortMapping", code)
			}
		}
		w.remote, w.disabled = "", true
		if _, code := p.add(typ, "AddPortMapping", w); code != want {
			complain("AddPortMapping, disabled", code)
		}
		w.disabled = false
	}
	if _, code := six.add(wanip2, "AddPortMapping", w); code != 729 {
		complain("AddPortMapping by IPv6", code)
	}
	got, code := p.add(wanip2, "AddAnyPortMapping", w)
	if code != 0 || got == int(n) || p.remove(wanip2, name, got, "") != 0 {
		complain("AddAnyPortMapping", fmt.Sprint(got, " ", code))
	}
	if result, got := p.pmp(proto, 8080, n, 600); result != 0 || got == n {
		complain("NAT-PMP", got)
	}
	p.pmp(proto, 8080, 0, 0)
	a := pcpAsk{lifetime: 600, proto: proto, internal: 9000, external: n}
	if r := p.pcp(a); r.result != pcpOK || r.external == n {
		complain("PCP", r)
	}
	gone := a
	gone.lifetime = 0
	p.pcp(gone)
	prefer, peer, set := a, a, a
	prefer.options, peer.peer = option(optPrefer), netip.MustParseAddrPort("11.0.0.1:9")
	for how, a := range map[string]pcpAsk{"PREFER_FAILURE": prefer, "PEER": peer} {
		if r := p.pcp(a); r.result != pcpCannotProvide {
			complain(how, r)
		}
	}
	set.external, set.options = n-3, option(optPortSet, 0, 8, 0x23, 0x28, 0)
	if r := p.pcp(set); r.result != pcpOK || r.external <= n && r.external+r.ports > n {
		complain("PORT_SET", r)
	}
	p.pcp(gone)
}
