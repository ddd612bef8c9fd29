package hostile

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// other addresses of the router, where no LAN is, or on another device than the LAN's.
const (
	secondWAN   = "11.0.0.3"
	routerElse  = "192.168.77.254" // as keepalived has it
	routerElse6 = "2001:db8:77::fe"
)

// TestTargets: UPnProxy (EternalSilence), VU#357851, CVE-2014-8361, and a name that
// hung miniupnpd: whoever asks for what is no host of his own LAN gets nothing, with
// secure = no, too, and the kernel never hears of it (issue 8, point 2).
func TestTargets(t *testing.T) {
	t.Parallel()
	for _, secure := range []string{"yes", "no"} {
		t.Run("secure = "+secure, func(t *testing.T) {
			t.Parallel()
			h := enter(t, "secure = "+secure, "allow 1-65535 0.0.0.0/0 1-65535").guests()
			h.Router.Run(t, "ip", "addr", "add", secondWAN+"/24", "dev", lab.WANDev)
			h.Router.Run(t, "ip", "link", "add", "vrrp", "type", "bridge")
			h.Router.Run(t, "ip", "link", "set", "vrrp", "up")
			h.Router.Run(t, "ip", "addr", "add", routerElse+"/32", "dev", "vrrp")
			h.Router.Run(t, "ip", "addr", "add", routerElse6+"/128", "dev", "vrrp", "nodad")
			h.begin()
			rules := h.Rules(lab.Nftables)
			four, six := h.peer(h.LAN1, lab.LAN1Addr).find(), h.peer(h.LAN1, lab.LAN1Addr6).find()
			for _, p := range []*peer{four, six} {
				h.targets(p)
				h.pinTargets(p)
			}
			h.thirdParties(four)
			if got := h.upnpctl("list"); got != "no mappings\n" {
				t.Errorf("it has\n%s", got)
			}
			if got := h.Rules(lab.Nftables); got != rules {
				t.Errorf("the rules are\n%s\nwere\n%s", got, rules)
			}
			// The same for oneself is granted.
			if _, code := four.add(wanip1, "AddPortMapping", wish{external: 80, internal: 80}); code != 0 {
				t.Errorf("for itself: error %d", code)
			}
			_, code := four.add(wanip2, "AddPortMapping", wish{external: 81, internal: 80, client: lab.LAN2Addr})
			if want := map[string]int{"yes": 606, "no": 0}[secure]; code != want {
				t.Errorf("for another host of its LAN: error %d, want %d", code, want)
			}
		})
	}
}

// notAddresses are for whoever resolves names, has a shell or quotes badly.
var notAddresses = []string{
	"lan1", "localhost", "router.lan", "slow.example.com", "192.168.77", "192.168.77.010", "0x7f000001", "2130706433", "192.168.77.20/24", "192.168.77.20:80",
	"::ffff:192.168.77.10", "::ffff:127.0.0.1", "[192.168.77.10]", "192.168.77.10%eth0",
	"`touch /tmp/x`", "$(reboot)", ";reboot", "|reboot", "192.168.77.10;reboot", "192.168.77.10\n192.168.77.1", "192.168.77.10 -j ACCEPT", "\"; flush ruleset; \"",
	"192.168.77.10 }; flush ruleset", "%s%n%s%n", strings.Repeat("1", 5000), "192.168.77.10\x7f", "١٩٢.168.77.10",
}

// targets asks for all that must never be an InternalClient.
func (h *house) targets(p *peer) {
	h.t.Helper()
	never := []string{lab.RouterLANAddr, lab.WANAddr, secondWAN, routerElse, guestAddr, "192.168.77.0", "192.168.77.255", "0.0.0.0", "255.255.255.255", "127.0.0.1", "127.1.2.3",
		"224.0.0.1", "239.255.255.250", "240.0.0.1", "169.254.1.1", guestHost, "192.168.88.0", "192.168.88.255", "192.168.99.5", "10.0.0.1",
		lab.InternetAddr, "1.1.1.1", "11.0.0.255", lab.RouterLANAddr6, lab.LAN1Addr6, "::1", "::"}
	for _, client := range append(never, notAddresses...) {
		for action, typ := range map[string]string{"AddPortMapping": wanip1, "AddPortMapping ": wanip2, "AddAnyPortMapping": wanip2} {
			port, code := p.add(typ, strings.TrimSpace(action), wish{external: 40000, internal: 80, client: client})
			if code != 402 && code != 606 && code != 718 || port != 0 {
				h.t.Errorf("%v: %s for %.60q: error %d, port %d", p.addr, action, client, code, port)
			}
		}
	}
	for _, remote := range append([]string{"224.0.0.1", "127.0.0.1", "255.255.255.255", "::1", lab.InternetAddr6}, notAddresses...) {
		if _, code := p.add(wanip1, "AddPortMapping", wish{external: 40000, client: lab.LAN1Addr, remote: remote}); code != 402 {
			h.t.Errorf("%v: RemoteHost %.60q: error %d, want 402", p.addr, remote, code)
		}
	}
}

// pinTargets does the same with pinholes.
func (h *house) pinTargets(p *peer) {
	h.t.Helper()
	never := []string{lab.RouterLANAddr6, lab.RouterULA, lab.WANAddr6, routerElse6, guestAddr6, guestHost6, lab.InternetAddr6, "2001:db8:77::", "2001:db8:77::ffff:ffff:ffff:ffff", "2606:4700::1111",
		"::1", "::", "", "*", "ff02::1", "ff05::c", "fe80::1", linkLocal(h.t, h.LAN1, lab.HostDev).String(), linkLocal(h.t, h.Router, lab.LANDev).String(),
		lab.LAN1Addr, "2001:db8:77::20%eth0", "64:ff9b::1.1.1.1", "2002:0a00:0001::1"}
	for _, client := range append(never, notAddresses...) {
		if id, code := p.pin(client, 80, protoTCP, 600); code != 402 && code != 606 && code != 708 || id != "" {
			h.t.Errorf("%v: AddPinhole for %.60q: error %d, ID %s", p.addr, client, code, id)
		}
	}
}

// thirdParties asks for them by PCP: with the option, and in the header.
func (h *house) thirdParties(p *peer) {
	h.t.Helper()
	for _, target := range []string{lab.RouterLANAddr, lab.WANAddr, lab.LAN2Addr, guestHost, "192.168.77.255", "192.168.77.0", "224.0.0.1", "127.0.0.1", "0.0.0.0", "1.1.1.1", "::1", lab.LAN2Addr6} {
		a := netip.MustParseAddr(target)
		ask := pcpAsk{lifetime: 600, nonce: "x", proto: protoTCP, internal: 80, external: 80, options: third(target)}
		if r := p.pcp(ask); r.result != pcpUnsuppOption {
			h.t.Errorf("THIRD_PARTY %v: result %d", a, r.result)
		}
		ask.options = nil
		if r := p.pcpRaw(pcpMAP(a, ask)); r.result != pcpWrongAddress {
			h.t.Errorf("the header says %v: result %d", a, r.result)
		}
	}
	for _, remote := range []string{lab.WANAddr, lab.RouterLANAddr, "0.0.0.0", "::1", "2001:db8::1"} { // PEER-1
		ask := pcpAsk{lifetime: 600, nonce: "x", proto: protoTCP, internal: 81, external: 81, peer: netip.AddrPortFrom(netip.MustParseAddr(remote), 80)}
		if r := p.pcp(ask); r.result == pcpOK {
			h.t.Errorf("PEER with %s: %s", remote, fmt.Sprint(r))
		}
	}
}
