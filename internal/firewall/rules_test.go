package firewall

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/portmap"
)

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix

	home = portmap.Network{External: addr("11.0.0.2"), LANs: []netip.Prefix{prefix("192.168.77.1/24")}}
	web  = portmap.Mapping{
		Key:    portmap.Key{Protocol: portmap.TCP, ExternalPort: 18080},
		Client: addr("192.168.77.10"), InternalPort: 8080, Enabled: true, Description: `"; -F`,
	}
)

func only(m portmap.Mapping, remote string) portmap.Mapping {
	m.RemoteHost = addr(remote)
	return m
}

// TestRules is the text of the rules, which must not change by accident: it is
// what deletes them again.
func TestRules(t *testing.T) {
	disabled, game := web, web
	disabled.Enabled = false
	game.Protocol, game.ExternalPort, game.InternalPort = portmap.UDP, 3075, 3074
	from, filter, set := only(web, "11.0.0.1"), filtered(18080, "11.0.0.0/28", 4000), web
	set.Ports = 2
	for _, tt := range []struct {
		name string
		net  portmap.Network
		m    *portmap.Mapping
		want string
	}{
		{"TCP", home, &web, `
-A UPNPD -p tcp -m tcp --dport 18080 -j DNAT --to-destination 192.168.77.10:8080
-A UPNPD-POST -s 192.168.77.10/32 -o wan0 -p tcp -m tcp --sport 8080 -j SNAT --to-source 11.0.0.2:18080
`},
		{"WIP-25: UDP leaves from the mapped port", home, &game, `
-A UPNPD -p udp -m udp --dport 3075 -j DNAT --to-destination 192.168.77.10:3074
-A UPNPD-POST -s 192.168.77.10/32 -o wan0 -p udp -m udp --sport 3074 -j SNAT --to-source 11.0.0.2:3075
`},
		{"WIP-9: RemoteHost is a match, and comes first", home, &from, `
-I UPNPD -s 11.0.0.1/32 -p tcp -m tcp --dport 18080 -j DNAT --to-destination 192.168.77.10:8080
-I UPNPD-POST -s 192.168.77.10/32 -d 11.0.0.1/32 -o wan0 -p tcp -m tcp --sport 8080 -j SNAT --to-source 11.0.0.2:18080
`},
		{"MAP-13: a prefix and a remote port", home, &filter, `
-I UPNPD -s 11.0.0.0/28 -p udp -m udp --sport 4000 --dport 18080 -j DNAT --to-destination 192.168.77.10:8080
-I UPNPD-POST -s 192.168.77.10/32 -d 11.0.0.0/28 -o wan0 -p udp -m udp --sport 8080 -j SNAT --to-source 11.0.0.2:18080
`},
		{"MAP-16: a rule a port", home, &set, `
-A UPNPD -p tcp -m tcp --dport 18080 -j DNAT --to-destination 192.168.77.10:8080
-A UPNPD-POST -s 192.168.77.10/32 -o wan0 -p tcp -m tcp --sport 8080 -j SNAT --to-source 11.0.0.2:18080
-A UPNPD -p tcp -m tcp --dport 18081 -j DNAT --to-destination 192.168.77.10:8081
-A UPNPD-POST -s 192.168.77.10/32 -o wan0 -p tcp -m tcp --sport 8081 -j SNAT --to-source 11.0.0.2:18081
`},
		{"WIP-12: disabled", home, &disabled, "\n"},
		{"the client's address is now the router's", portmap.Network{External: addr("11.0.0.2"), LANs: []netip.Prefix{prefix("192.168.77.10/24")}}, &web, "\n"},
		{"the LAN is another now", portmap.Network{External: addr("11.0.0.2"), LANs: []netip.Prefix{prefix("10.5.5.1/24")}}, &web, "\n"},
		{"no uplink", portmap.Network{}, &web, "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			for _, r := range (ruleset{uplink: "wan0", network: tt.net}).all(tt.m) {
				r.write(&b, r.place())
			}
			if got := "\n" + b.String(); got != tt.want {
				t.Errorf("got%swant%s", got, tt.want)
			}
		})
	}
}

func TestWhole(t *testing.T) {
	n := home
	n.LANs = append(n.LANs, prefix("192.168.77.2/24"), prefix("10.0.0.1/8")) // a second address makes no second rule
	s := ruleset{uplink: "wan0", network: n}
	const want = `*filter
:UPNPD - [0:0]
-A UPNPD -m connmark --mark 0x10000000/0x10000000 -m conntrack --ctstate DNAT -j ACCEPT
COMMIT
*nat
:UPNPD-PRE - [0:0]
:UPNPD - [0:0]
:UPNPD-POST - [0:0]
-A UPNPD-PRE -d 11.0.0.2/32 -j CONNMARK --set-xmark 0x10000000/0x10000000
-A UPNPD-PRE -d 11.0.0.2/32 -j UPNPD
-A UPNPD-PRE -d 11.0.0.2/32 -j CONNMARK --set-xmark 0x0/0x10000000
-A UPNPD-POST -s 192.168.77.0/24 ! -o wan0 -m conntrack --ctstate DNAT --ctorigdst 11.0.0.2 -j MASQUERADE
-A UPNPD-POST -s 10.0.0.0/8 ! -o wan0 -m conntrack --ctstate DNAT --ctorigdst 11.0.0.2 -j MASQUERADE
-A UPNPD -p tcp -m tcp --dport 18080 -j DNAT --to-destination 192.168.77.10:8080
-A UPNPD-POST -s 192.168.77.10/32 -o wan0 -p tcp -m tcp --sport 8080 -j SNAT --to-source 11.0.0.2:18080
COMMIT
`
	if got := s.whole([]portmap.Mapping{web}, true, nil, nil); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	unmarked := regexp.MustCompile(`(?m)^.*CONNMARK.*\n`).ReplaceAllString(want[strings.Index(want, "*nat"):], "")
	if got := s.whole([]portmap.Mapping{web}, false, nil, nil); got != unmarked {
		t.Errorf("without forward rules: got\n%swant\n%s", got, unmarked)
	}
}

func TestExplain(t *testing.T) {
	const input = "*nat\n-D UPNPD -j X\nCOMMIT\n"
	for said, want := range map[string]string{
		"iptables-restore: line 2 failed\n":                                      "iptables-restore: line 2 failed (-D UPNPD -j X)",
		"iptables-nft-restore: line 2 failed: Bad rule (does it\n exist?).\n":    "iptables-nft-restore: line 2 failed: Bad rule (does it exist?). (-D UPNPD -j X)",
		"Another app is currently holding the xtables lock.":                     "Another app is currently holding the xtables lock.",
		"iptables-restore v1.8: x\nError occurred at line: 2\nTry `-h' for more": "iptables-restore v1.8: x Error occurred at line: 2 Try `-h' for more",
		"line 99 failed": "line 99 failed",
		"":               "",
	} {
		if got := explain(said, input); got != want {
			t.Errorf("explain(%q) = %q, want %q", said, got, want)
		}
	}
}
