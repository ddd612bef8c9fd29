package firewall

import (
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// fw4 is what OpenWrt's firewall makes of its stock configuration, as far as
// forwarding goes; %s is the place of chain-post/forward.
const fw4 = `table inet fw4 {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname "br-lan" jump forward_lan comment "!fw4: Handle lan IPv4/IPv6 forward traffic"
		iifname "wan0" jump forward_wan comment "!fw4: Handle wan IPv4/IPv6 forward traffic"
		%s
		jump handle_reject
	}
	chain handle_reject {
		meta l4proto tcp reject with tcp reset comment "!fw4: Reject TCP traffic"
		reject with icmpx port-unreachable comment "!fw4: Reject any other traffic"
	}
	chain forward_lan { jump accept_to_wan; jump accept_to_lan; }
	chain forward_wan {
		icmpv6 type { destination-unreachable, time-exceeded, echo-request } limit rate 1000/second counter accept
		meta l4proto esp counter jump accept_to_lan
		udp dport 500 counter jump accept_to_lan
		%s
		jump reject_to_wan
	}
	chain accept_to_lan { oifname "br-lan" counter accept; }
	chain accept_to_wan { meta nfproto ipv4 oifname "wan0" ct state invalid counter drop; oifname "wan0" counter accept; }
	chain reject_to_wan { oifname "wan0" counter jump handle_reject; }
}`

func openwrt(forward, wan string) string {
	return strings.Replace(strings.Replace(fw4, "%s", forward, 1), "%s", wan, 1)
}

// chain is a forward chain as people write it.
func chain(rules string) string {
	return "table inet filter { chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; iifname br-lan accept; " + rules + "; } ; }"
}

// openChain is one that drops little.
func openChain(rules string) string {
	return "table inet filter { chain forward { type filter hook forward priority 0; policy accept; ct state established,related accept; " + rules + "; }; }"
}

// TestForwardPath: the warning is there when a mapped connection does not come
// through, and only then; and the command it names helps.
func TestForwardPath(t *testing.T) {
	l := lab.Start(t)
	if _, err := l.LAN1.EchoTCP(8080); err != nil {
		t.Fatal(err)
	}
	f := openNFT(t, l)
	all := []portmap.Mapping{leased(web, time.Hour)}
	reaches := func() bool {
		_, err := l.ReachTCP(l.Internet, lab.WANAddr+":18080", 300*time.Millisecond)
		return err == nil
	}
	look := func() (warning string) {
		on(t, l, func() (err error) { warning, err = f.ForwardPath(); return err })
		return warning
	}
	for _, tt := range []struct {
		name, script string // of nft, or of sh after "sh:"
		warn         string // what the command in it begins with; "" for no warning
	}{
		{"nothing", "", ""},
		{"accept all", "table inet filter { chain forward { type filter hook forward priority 0; policy accept; tcp dport 1 drop; }; }", ""},
		{"policy drop", chain(""), "nft insert rule inet filter forward ct mark and 0x10000000 == 0x10000000 ct status dnat accept"},
		{"family ip", "table ip f { chain passage { type filter hook forward priority 5; policy drop; }; }", "nft insert rule ip f passage "},
		{"two of them", chain("") + "\ntable ip f { chain passage { type filter hook forward priority 5; policy drop; }; }", "nft insert rule "},
		{"our mark", chain("ct mark & 0x10000000 == 0x10000000 accept"), ""},
		{"our mark alone", chain("ct mark 0x10000000 accept"), ""},
		{"our mark, not zero", chain("meta nfproto ipv4 ct mark and 0x10000000 != 0 ct status dnat accept"), ""},
		{"our mark, to the LAN", chain("oifname br-lan ip daddr 192.168.77.0/24 ct mark & 0x10000000 != 0 accept"), ""},
		{"another mark", chain("ct mark & 0x20000000 != 0 accept"), "nft insert rule inet filter forward "},
		{"redirected", chain("ct status dnat accept"), ""},
		{"redirected, by devices", chain("iif wan0 oifname br-lan ct status dnat accept"), ""},
		{"redirected, dropped", chain("ct status dnat drop"), "nft insert rule inet filter forward "},
		{"everything", chain("counter accept"), ""},
		{"not from the uplink", chain("iifname != wan0 accept"), "nft insert rule inet filter forward "},
		{"to the uplink", chain("oifname wan0 accept"), "nft insert rule inet filter forward "},
		{"map of devices, our mark", "table inet filter { chain up { ct mark & 0x10000000 != 0 accept; }; chain forward { type filter hook forward priority 0; policy drop; iifname . oifname vmap { wan0 . br-lan : goto up, br-lan . wan0 : accept }; ct state established accept; }; }", ""},
		{"drop from the uplink", openChain("iifname wan0 drop"), "nft insert rule inet filter forward "},
		{"reject from the uplink to the LAN", openChain(`iifname "wan0" oifname "br-lan" counter reject`), "nft insert rule inet filter forward "},
		{"drop what is not from the LAN", openChain("iifname != br-lan log drop"), "nft insert rule inet filter forward "},
		{"drop from another device", openChain("iifname wan9 drop"), ""},
		{"drop to another device", openChain("iifname wan0 oifname wan0 drop"), ""},
		{"drop for another reason", openChain("iifname wan0 tcp dport 9 drop"), ""},
		{"drop behind our mark", openChain("ct mark & 0x10000000 != 0 accept; iifname wan0 drop"), ""},
		{"drop before our mark", openChain("iifname wan0 ct state new drop; iifname wan0 drop; ct mark & 0x10000000 != 0 accept"), "nft insert rule inet filter forward "},
		{"only for other protocols", "table ip6 f { chain forward { type filter hook forward priority 0; policy drop; }; }", ""},
		{"OpenWrt", openwrt("", ""), "nft insert rule inet fw4 forward "},
		{"OpenWrt, our file", openwrt(`ct mark & 0x10000000 == 0x10000000 accept comment "upnpd"`, ""), ""},
		{"OpenWrt, a redirect in wan", openwrt("", `ct status dnat accept comment "!fw4: Accept port redirections"`), ""},
		{"iptables-nft", "sh: iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables-nft -A FORWARD -i br-lan -j ACCEPT",
			"iptables -I FORWARD -m connmark --mark 0x10000000/0x10000000 -j ACCEPT"},
		{"iptables-nft, our mark", "sh: iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -i br-lan -j ACCEPT; iptables-nft -A FORWARD -m comment --comment x -m connmark --mark 0x10000000/0x10000000 -j ACCEPT", ""},
		{"iptables-nft, redirected", "sh: iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -i br-lan -j ACCEPT; iptables-nft -N x; iptables-nft -A FORWARD -i wan+ -j x; iptables-nft -A x -m conntrack --ctstate DNAT -j ACCEPT", ""},
		{"iptables-nft, drop by devices", "sh: iptables-nft -A FORWARD -i wan0 -o br-lan -m conntrack --ctstate ESTABLISHED -j ACCEPT; iptables-nft -A FORWARD -i wan0 -o br-lan -j DROP",
			"iptables -I FORWARD -m connmark --mark 0x10000000/0x10000000 -j ACCEPT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.Router.Run(t, "nft", "flush ruleset")
			if script, ok := strings.CutPrefix(tt.script, "sh:"); ok {
				l.Router.Run(t, "sh", "-c", script)
			} else if script != "" {
				l.Router.Run(t, "nft", script)
			}
			on(t, l, func() error { return f.Sync(home, all) })
			warning := look()
			if (warning != "") != (tt.warn != "") || !strings.Contains(warning, "let them pass: "+tt.warn) && tt.warn != "" {
				t.Errorf("warning %q, want %q", warning, tt.warn)
			}
			if reached := reaches(); reached != (warning == "") {
				t.Errorf("a connection comes through: %v, and the warning is %q", reached, warning)
			}
			if warning == "" {
				return
			}
			for _, w := range strings.Split(warning, "; chain ") {
				_, command, _ := strings.Cut(w, "let them pass: ")
				l.Router.Run(t, "sh", "-c", command)
			}
			if after := look(); after != "" || !reaches() {
				t.Errorf("the command of %q does not help; now it is %q", warning, after)
			}
		})
	}
	on(t, l, f.Close)
}
