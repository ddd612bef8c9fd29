package firewall

import (
	"fmt"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestForwardPath6: the warning about pinholes is there when nothing comes through
// them, and only then; and the command it names helps. Without IPv6 there is none.
func TestForwardPath6(t *testing.T) {
	l := lab6(t)
	echo6(t, l.LAN1, "["+client6+"]:8080")
	f := openNFT6(t, l)
	all := []portmap.Mapping{pinhole("", 0)}
	port := 5000
	reaches := func() bool { // each as a connection of its own
		port++
		p := udp6(t, l.Internet, fmt.Sprintf("[%s]:%d", remote6, port))
		defer p.Close()
		return p.ask("["+client6+"]:8080") != ""
	}
	look := func() (of6 []string) {
		t.Helper()
		on(t, l, func() error {
			warning, err := f.ForwardPath()
			for _, w := range strings.Split(warning, "; chain ") {
				if strings.Contains(w, "through pinholes") {
					of6 = append(of6, w)
				}
			}
			return err
		})
		return of6
	}
	const ours = "ct mark & 0x10000000 == 0x10000000 "
	for _, tt := range []struct {
		name, script string // of nft, or of sh after "sh:"
		warn         string // what the command in it begins with; "" for no warning
	}{
		{"nothing", "", ""},
		{"policy drop", chain(""), "nft insert rule inet filter forward meta nfproto ipv6 ct mark and 0x10000000 == 0x10000000 accept"},
		{"family ip", "table ip f { chain forward { type filter hook forward priority 5; policy drop; }; }", ""},
		{"family ip6", "table ip6 f { chain passage { type filter hook forward priority 5; policy drop; }; }", "nft insert rule ip6 f passage "},
		{"our mark", chain(ours + "accept"), ""},
		{"our mark in IPv6", chain("meta nfproto ipv6 " + ours + "accept"), ""},
		{"our mark in IPv4", chain("meta nfproto ipv4 " + ours + "accept"), "nft insert rule inet filter forward "},
		{"our mark, not IPv4", chain("meta nfproto != ipv4 " + ours + "accept"), ""},
		{"our mark, redirected", chain(ours + "ct status dnat accept"), "nft insert rule inet filter forward "},
		{"redirected", chain("ct status dnat accept"), "nft insert rule inet filter forward "},
		{"everything in IPv6", chain("meta nfproto ipv6 accept"), ""},
		{"everything in IPv4", chain("meta nfproto ipv4 counter accept"), "nft insert rule inet filter forward "},
		{"drop from the uplink in IPv6", openChain("meta nfproto ipv6 iifname wan0 drop"), "nft insert rule inet filter forward "},
		{"drop from the uplink in IPv4", openChain("meta nfproto ipv4 iifname wan0 drop"), ""},
		{"OpenWrt", openwrt("", ""), "nft insert rule inet fw4 forward "},
		{"OpenWrt, our file", openwrt("meta nfproto ipv4 "+ours+"ct status dnat accept\nmeta nfproto ipv6 "+ours+"accept", ""), ""},
		{"OpenWrt, half of it", openwrt("meta nfproto ipv4 "+ours+"ct status dnat accept", ""), "nft insert rule inet fw4 forward "},
		{"ip6tables-nft", "sh: ip6tables-nft -P FORWARD DROP; ip6tables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; ip6tables-nft -A FORWARD -i br-lan -j ACCEPT",
			"ip6tables -I FORWARD -m connmark --mark 0x10000000/0x10000000 -j ACCEPT"},
		{"ip6tables-nft, our mark", "sh: ip6tables-nft -P FORWARD DROP; ip6tables-nft -A FORWARD -i br-lan -j ACCEPT; ip6tables-nft -A FORWARD -m connmark --mark 0x10000000/0x10000000 -j ACCEPT", ""},
		{"ip6tables-nft, redirected", "sh: ip6tables-nft -P FORWARD DROP; ip6tables-nft -A FORWARD -i br-lan -j ACCEPT; ip6tables-nft -A FORWARD -m conntrack --ctstate DNAT -j ACCEPT",
			"ip6tables -I FORWARD -m connmark "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.Router.Run(t, "nft", "flush ruleset")
			if script, ok := strings.CutPrefix(tt.script, "sh:"); ok {
				l.Router.Run(t, "sh", "-c", script)
			} else if script != "" {
				l.Router.Run(t, "nft", script)
			}
			on(t, l, func() error { return f.Sync(home6, all) })
			warning := strings.Join(look(), "; ")
			if (warning != "") != (tt.warn != "") || !strings.Contains(warning, "let them pass: "+tt.warn) && tt.warn != "" {
				t.Errorf("warning %q, want %q", warning, tt.warn)
			}
			if reached := reaches(); reached != (warning == "") {
				t.Errorf("a connection comes through: %v, and the warning is %q", reached, warning)
			}
			if warning == "" {
				return
			}
			f.IPv6 = false
			if said := look(); said != nil {
				t.Errorf("without IPv6: %q", said)
			}
			f.IPv6 = true
			_, command, _ := strings.Cut(warning, "let them pass: ")
			l.Router.Run(t, "sh", "-c", command)
			if after := look(); after != nil || !reaches() {
				t.Errorf("the command of %q does not help; now it is %q", warning, after)
			}
		})
	}
	on(t, l, f.Close)
}
