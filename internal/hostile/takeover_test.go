package hostile

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// attack is something that lan2 does to lan1. do gives what came of it in words.
type attack struct {
	name string
	do   func() string
	want string
}

// TestTakeover: the LAN peer abuse of PEERS.md, section 4: no host changes, shortens,
// takes over, deletes or sees more of what another has than the standard allows, by
// any protocol, option, range, nonce or name (issue 8, point 2).
func TestTakeover(t *testing.T) {
	t.Parallel()
	h := enter(t, "max_mappings_per_client = 60").begin()
	v := h.settleDown()
	thief, thief6 := h.peer(h.LAN2, lab.LAN2Addr).find(), h.peer(h.LAN2, lab.LAN2Addr6).find()
	thief.secrets = []string{lab.LAN1Addr, lab.LAN1Addr6, " s</errorDescription>"}
	thief6.secrets = thief.secrets
	v.wrote(t, thief, 30001)
	kept := v.kept()
	if len(kept) != len(v.rows) {
		t.Fatalf("the lease file keeps %d of %d", len(kept), len(v.rows))
	}
	groups := map[string][]attack{
		"UPnP 1": byVersion1(thief), "UPnP 2": byVersion2(thief), "UPnP by IPv6": byVersion2(thief6),
		"pinholes": v.byPinholes(thief6), "pinholes by IPv4": v.byPinholes(thief),
		"NAT-PMP": byNATPMPs(thief), "PCP": v.byPCPs(thief), "PCP by IPv6": v.byPCPs6(thief6),
	}
	for name, group := range groups {
		t.Run(name, func(t *testing.T) {
			v.t, thief.t, thief6.t = t, t, t
			for _, a := range group {
				if got := a.do(); got != a.want {
					t.Errorf("%s: %s, want %s", a.name, got, a.want)
				}
				if os.Getenv("UPNPD_RACE") == "" { // upnpctl takes a second to start then
					v.unharmed(a.name)
				}
			}
			v.unharmed(name)
		})
	}
	v.t, thief.t, thief6.t = t, t, t
	v.forged(thief, thief6)
	v.reachable()
	v.wrote(t, thief, 30002)
	if got := v.kept(); !slices.Equal(got, kept) {
		t.Errorf("the lease file keeps\n%s\nkept\n%s", strings.Join(got, "\n"), strings.Join(kept, "\n"))
	}
}

// TestOnlyVersion2: where version 1 is off, nobody sees what another has, whichever
// control URL and service he writes (ACC-2, ACC-3).
func TestOnlyVersion2(t *testing.T) {
	t.Parallel()
	auto, only := enter(t).begin(), enter(t, "igd = 2").begin()
	urls := auto.peer(auto.LAN2, lab.LAN2Addr).find().urls // of both versions
	owner, thief := only.peer(only.LAN1, lab.LAN1Addr), only.peer(only.LAN2, lab.LAN2Addr)
	owner.urls, thief.urls = urls, urls
	if _, code := owner.add(wanip2, "AddPortMapping", wish{external: byUPnP}); code != 0 {
		t.Fatalf("error %d", code)
	}
	inner := "<NewPortMappingIndex>0</NewPortMappingIndex><NewRemoteHost/><NewExternalPort>20001</NewExternalPort><NewProtocol>TCP</NewProtocol>"
	for _, at := range []string{wanip1, wanip2} {
		for _, typ := range []string{wanip1, wanip2} {
			for _, action := range []string{"GetGenericPortMappingEntry", "GetSpecificPortMappingEntry", "DeletePortMapping"} {
				start := "POST " + thief.path(urls[at].Control) + "\r\nSOAPAction: \"" + typ + "#" + action + "\""
				if status, reply := thief.ask(start, envelope(typ, action, inner)); status == 200 || strings.Contains(reply, lab.LAN1Addr+"<") {
					t.Errorf("%s of %s at the URL of %s: %d %s", action, typ, at, status, reply)
				}
			}
		}
	}
	if got := only.upnpctl("list"); !strings.Contains(got, lab.LAN1Addr) {
		t.Errorf("the mapping is gone:\n%s", got)
	}
}

func code(n int) string { return fmt.Sprint("error ", n) }

// byVersion1 are attacks by WANIPConnection:1, which has one code for all that is not
// the caller's, 718.
func byVersion1(p *peer) (all []attack) {
	add := func(name string, w wish) {
		all = append(all, attack{name, func() string { _, c := p.add(wanip1, "AddPortMapping", w); return code(c) }, "error 718"})
	}
	for _, client := range []string{"", lab.LAN1Addr, lab.LAN1Addr + " "} {
		for _, port := range []int{byUPnP, byPCP, byFilter, byRemote, disabled} {
			add(fmt.Sprintf("take port %d for %q", port, client), wish{external: port, client: client, lease: 1})
		}
		for _, port := range []int{byNATPMP, byPortSet, byPortSet + 3} {
			add(fmt.Sprintf("take UDP port %d for %q", port, client), wish{external: port, client: client, proto: "UDP", lease: 1})
		}
		add("switch it off", wish{external: byUPnP, client: client, disabled: true})
		add("take it for one remote host", wish{external: byUPnP, client: client, remote: lab.InternetAddr})
		add("take the rest of one for a remote host", wish{external: byRemote, client: client})
		add("take it for a neighbour of its remote host", wish{external: byFilter, client: client, remote: "11.0.0.9"})
	}
	add("open another port of the victim", wish{external: 20100, client: lab.LAN1Addr, internal: 9999})
	all = append(all, deletes(p, wanip1)...)
	for _, port := range []int{0, byPCP} {
		all = append(all, attack{"delete with a wildcard", func() string { return code(p.remove(wanip1, "TCP", port, "0.0.0.0")) },
			map[int]string{0: "error 714", byPCP: "error 606"}[port]})
	}
	return all
}

// deletes tries to delete all of them.
func deletes(p *peer, typ string) (all []attack) {
	for _, m := range []struct {
		proto  string
		port   int
		remote string
		want   int
	}{
		{"TCP", byUPnP, "", 606}, {"TCP", byRemote, lab.InternetAddr, 606}, {"TCP", byRemote, "", 714}, {"UDP", byNATPMP, "", 606}, {"TCP", byPCP, "", 606},
		{"TCP", byFilter, lab.InternetAddr, 606}, {"TCP", byFilter, "", 714}, {"UDP", byPortSet, "", 606}, {"UDP", byPortSet + 1, "", 714}, {"TCP", disabled, "", 606},
		{"TCP", served, "", 714}, {"UDP", served, "", 714},
	} {
		all = append(all, attack{fmt.Sprint("delete ", m.proto, " ", m.port, " of ", m.remote),
			func() string { return code(p.remove(typ, m.proto, m.port, m.remote)) }, code(m.want)})
	}
	return all
}

// byVersion2 are attacks by WANIPConnection:2, where a host sees only its own.
func byVersion2(p *peer) (all []attack) {
	self := lab.LAN2Addr // also of who asks by IPv6: by its MAC address it is the same host
	add := func(client string, port int, want string) {
		all = append(all, attack{fmt.Sprintf("take port %d for %q", port, client), func() string {
			_, c := p.add(wanip2, "AddPortMapping", wish{external: port, client: client, lease: 1})
			return code(c)
		}, want})
	}
	for _, port := range []int{byUPnP, byRemote, disabled} {
		add(lab.LAN1Addr, port, "error 606")
		add(self, port, "error 718")
	}
	call := func(want, action string, args ...string) {
		all = append(all, attack{fmt.Sprint(action, args), func() string { _, c := p.call(wanip2, action, args...); return code(c) }, want})
	}
	for _, manage := range []string{"0", "1"} {
		for _, proto := range []string{"TCP", "UDP"} {
			want := "error 730"
			for _, r := range [][2]string{{"0", "29999"}, {"20000", "20030"}, {"20010", "20013"}} {
				call(want, "DeletePortMappingRange", "StartPort", r[0], "EndPort", r[1], "Protocol", proto, "Manage", manage)
				call(want, "GetListOfPortMappings", "StartPort", r[0], "EndPort", r[1], "Protocol", proto, "Manage", manage, "NumberOfPorts", "0")
			}
		}
	}
	call("error 606", "GetSpecificPortMappingEntry", "RemoteHost", "", "ExternalPort", fmt.Sprint(byUPnP), "Protocol", "TCP")
	call("error 713", "GetGenericPortMappingEntry", "PortMappingIndex", "1") // 0 is its own
	any := func(client string, want string) {
		all = append(all, attack{"AddAnyPortMapping of the victim's port for " + client, func() string {
			port, c := p.add(wanip2, "AddAnyPortMapping", wish{external: byUPnP, client: client})
			if c == 0 && port != byUPnP && p.remove(wanip2, "TCP", port, "") == 0 {
				return "another port"
			}
			return fmt.Sprint("port ", port, ", ", code(c))
		}, want})
	}
	any(lab.LAN1Addr, "port 0, error 606")
	if p.addr.Is4() {
		any(self, "another port")
	}
	return append(all, deletes(p, wanip2)...)
}

// byPinholes are attacks on pinholes, by their numbers and by the victim's addresses.
func (v *victim) byPinholes(p *peer) (all []attack) {
	for action, args := range map[string][]string{"UpdatePinhole": {"LeaseTimeNew", "1"}, "DeletePinhole": nil, "GetPinholePackets": nil, "CheckPinholeWorking": nil} {
		all = append(all, attack{action, func() string {
			_, c := p.call(wan6fw, action, append([]string{"UniqueID", v.pinhole}, args...)...)
			return code(c)
		}, "error 606"})
	}
	all = append(all, attack{"all numbers", func() string {
		var n int
		fmt.Sscan(v.pinhole, &n)
		for i := n - 3; i <= n+3; i++ {
			if _, c := p.call(wan6fw, "DeletePinhole", "UniqueID", fmt.Sprint(uint16(i))); c != 606 && c != 704 {
				return code(c)
			}
		}
		return "none"
	}, "none"})
	for _, client := range []string{lab.LAN1Addr6, lab.LAN1Other6, lab.LAN1ULA} {
		for _, port := range []int{served, 9999} {
			for _, proto := range []byte{protoTCP, protoUDP} {
				all = append(all, attack{fmt.Sprint("pin ", client, " ", port, " ", proto), func() string {
					_, c := p.pin(client, port, proto, 60)
					return code(c)
				}, "error 606"})
			}
		}
	}
	return all
}

// byNATPMPs are attacks by NAT-PMP: there is nothing in a request that names another.
func byNATPMPs(p *peer) (all []attack) {
	for _, proto := range []byte{protoTCP, protoUDP} {
		for _, port := range []uint16{byUPnP, byNATPMP, byPCP, byFilter, byRemote, byPortSet, byPortSet + 3, disabled} {
			all = append(all, attack{fmt.Sprint("suggest ", proto, " ", port), func() string {
				result, got := p.pmp(proto, 9000, port, 600)
				if p.pmp(proto, 9000, 0, 0); result != 0 || got == port {
					return fmt.Sprint("result ", result, ", port ", got)
				}
				return "another port"
			}, "another port"}) // the companion of the other protocol, too (PMP-11)
		}
		for _, internal := range []uint16{0, served, 8081, 8090} {
			all = append(all, attack{fmt.Sprint("delete ", proto, " ", internal), func() string {
				result, _ := p.pmp(proto, internal, 0, 0)
				return fmt.Sprint("result ", result)
			}, map[bool]string{true: "result 2", false: "result 0"}[internal == 0 && proto == protoTCP]}) // lan2 has one by UPnP
		}
	}
	return all
}

// byPCPs are attacks by PCP.
func (v *victim) byPCPs(p *peer) (all []attack) {
	ask := func(name, want string, change func(a *pcpAsk)) {
		a := pcpAsk{lifetime: 600, nonce: v.nonce, proto: protoTCP, internal: 9000, external: byUPnP}
		change(&a)
		all = append(all, attack{name, func() string {
			r := p.pcp(a)
			got := fmt.Sprint("result ", r.result)
			if r.result == 0 && a.lifetime != 0 {
				for i := range r.ports {
					if taken := []uint16{byUPnP, byNATPMP, byPCP, byFilter, byRemote, byPortSet, byPortSet + 1, byPortSet + 2, byPortSet + 3}; slices.Contains(taken, r.external+i) {
						got = fmt.Sprint("port ", r.external, " of ", r.ports)
					}
				}
				a.lifetime, a.options = 0, nil
				p.pcp(a)
			}
			return got
		}, want})
	}
	for _, port := range []uint16{byUPnP, byPCP, byFilter, byRemote, disabled} {
		ask("suggest", "result 0", func(a *pcpAsk) { a.external = port })
		ask("PREFER_FAILURE", "result 11", func(a *pcpAsk) { a.external, a.options = port, option(optPrefer) })
	}
	for _, port := range []uint16{byNATPMP, byPortSet, byPortSet + 3} {
		ask("PREFER_FAILURE", "result 11", func(a *pcpAsk) { a.proto, a.external, a.options = protoUDP, port, option(optPrefer) })
	}
	ask("PORT_SET over the victim's", "result 0", func(a *pcpAsk) {
		a.proto, a.external, a.options = protoUDP, byPortSet-4, option(optPortSet, 0, 16, 0x23, 0x28, 0)
	})
	ask("PORT_SET over all", "result 0", func(a *pcpAsk) { a.external, a.options = 19990, option(optPortSet, 0, 60, 0x23, 0x28, 0) })
	ask("PEER by its port", "result 11", func(a *pcpAsk) { a.peer = netip.MustParseAddrPort("11.0.0.1:9") })
	for _, internal := range []uint16{served, 8081, 8082, 8090} {
		for _, proto := range []byte{protoTCP, protoUDP} {
			ask(fmt.Sprint("delete with the right nonce ", proto, internal), "result 0", func(a *pcpAsk) { a.lifetime, a.proto, a.internal = 0, proto, internal })
		}
	}
	for _, target := range []string{lab.LAN1Addr, "0.0.0.0", "::", lab.LAN1Addr6} {
		ask("THIRD_PARTY "+target, "result 5", func(a *pcpAsk) { a.internal, a.options = 8081, third(target) })
		ask("delete by THIRD_PARTY "+target, "result 5", func(a *pcpAsk) { a.lifetime, a.internal, a.options = 0, 8081, third(target) })
		ask("PEER by THIRD_PARTY", "result 5", func(a *pcpAsk) {
			a.internal, a.peer, a.options = 8081, netip.MustParseAddrPort("11.0.0.1:9"), third(target)
		})
	}
	all = append(all, attack{"the victim's address in the header", func() string {
		r := p.pcpRaw(pcpMAP(netip.MustParseAddr(lab.LAN1Addr), pcpAsk{nonce: v.nonce, proto: protoTCP, internal: 8081}))
		return fmt.Sprint("result ", r.result)
	}, "result 12"})
	return all
}

// byPCPs6 are attacks on the pinhole that PCP made.
func (v *victim) byPCPs6(p *peer) (all []attack) {
	for _, client := range []string{lab.LAN1Addr6, lab.LAN1ULA, lab.LAN1Addr} {
		for _, lifetime := range []uint32{0, 1} {
			all = append(all, attack{"the header says " + client, func() string {
				return fmt.Sprint("result ", p.pcpRaw(pcpMAP(netip.MustParseAddr(client), pcpAsk{lifetime: lifetime, nonce: v.nonce, proto: protoUDP, internal: served})).result)
			}, "result 12"}, attack{"THIRD_PARTY " + client, func() string {
				return fmt.Sprint("result ", p.pcp(pcpAsk{lifetime: lifetime, nonce: v.nonce, proto: protoUDP, internal: served, options: third(client)}).result)
			}, "result 5"})
		}
	}
	return all
}

// forged sends as the victim, from another port of the switch and from another LAN.
// NAT-PMP alone has no proof of who asks: only what it made could be hurt, and that is
// not tried from the same LAN.
func (v *victim) forged(thief, thief6 *peer) {
	v.t.Helper()
	wire, mac := tap(v.t, v.LAN2, lab.HostDev, false), hardware(v.t, v.Router, lab.LANDev)
	four, six := netip.MustParseAddr(lab.LAN1Addr), netip.MustParseAddr(lab.LAN1Addr6)
	send := func(src netip.Addr, to string, body []byte) {
		wire.send(mac, packet{src: netip.AddrPortFrom(src, 4000), dst: netip.AddrPortFrom(netip.MustParseAddr(to), pcpPort), proto: protoUDP, body: body})
	}
	for _, lifetime := range []uint32{0, 1} {
		a := pcpAsk{lifetime: lifetime, nonce: "another one", proto: protoUDP, internal: served}
		send(six, lab.RouterLANAddr6, pcpMAP(six, a))
		for internal, proto := range map[uint16]byte{served: protoTCP, 8081: protoTCP, 8082: protoTCP, 8083: protoUDP, 8090: protoUDP, 8093: protoUDP} {
			a.proto, a.internal, a.peer = proto, internal, netip.MustParseAddrPort("11.0.0.1:9")
			send(four, lab.RouterLANAddr, pcpMAP(four, a))
			if internal == 8083 && lifetime > 0 { // beside PEER's that would be a new one, as on any free port
				continue
			}
			a.peer = netip.AddrPort{}
			send(four, lab.RouterLANAddr, pcpMAP(four, a))
			op := map[byte]byte{protoUDP: 1, protoTCP: 2}[proto]
			send(four, lab.RouterLANAddr, []byte{0, op, 0, 0, byte(internal >> 8), byte(internal), 0, 0, 0, 0, 0, byte(lifetime)})
		}
	}
	for _, p := range []*peer{thief, thief6} { // whose answers come after those
		p.pcpRaw(pcpHeader(p.addr, 0, 0))
	}
	v.unharmed("forged requests")
}
