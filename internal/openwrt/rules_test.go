package openwrt

import (
	"slices"
	"strings"
	"testing"
)

// rule is a perm_rule with these options.
func rule(options ...string) string {
	return "\nconfig perm_rule\n\t" + strings.Join(options, "\n\t") + "\n"
}

// TestPermRules: sections in their order; what miniupnpd lets out means deny and any
// (OPENWRT.md 1.1).
func TestPermRules(t *testing.T) {
	tests := []struct {
		name  string
		rules string
		want  []string
	}{
		{"order", rule("option action allow", "option ext_ports 80", "option int_addr 192.168.1.10", "option int_ports 8080") +
			rule("option action deny", "option ext_ports 0-65535", "option int_addr 192.168.1.0/24", "option int_ports 0-65535") +
			rule("option action allow", "option ext_ports 1024-65535", "option int_addr 0.0.0.0/0", "option int_ports 1024-65535"),
			[]string{"allow 80 192.168.1.10 8080", "deny 0-65535 192.168.1.0/24 0-65535", "allow 1024-65535 0.0.0.0/0 1024-65535"}},
		{"nothing", "\nconfig perm_rule\n", []string{"deny any 0.0.0.0/0 any"}},
		{"colons", rule("option action allow", "option ext_ports 1024:2000", "option int_ports 1:65535"),
			[]string{"allow 1024-2000 0.0.0.0/0 1-65535"}},
		{"protocol and who asks", rule("option action allow", "option proto udp", "option from 10.0.0.0/8") + rule("option from 10.0.0.1"),
			[]string{"allow any 0.0.0.0/0 any udp from 10.0.0.0/8", "deny any 0.0.0.0/0 any from 10.0.0.1"}},
		{"comments", rule("option comment 'it''s \"mine\" # $(x)'", "option action allow", "option ext_ports 80") +
			rule("option comment 'two\nextif = eth9'", "option action allow", "option ext_ports 81"),
			[]string{"allow 80 0.0.0.0/0 any", "allow 81 0.0.0.0/0 any"}},
		{"a name", "\nconfig perm_rule 'web'\n\toption action allow\n\toption ext_ports 443\n", []string{"allow 443 0.0.0.0/0 any"}},
		{"lists first", "\toption allow '22 10.0.0.1 22'\n\tlist deny 'any 10.0.0.2 any'\n" + rule("option action allow"),
			[]string{"deny any 10.0.0.2 any", "allow 22 10.0.0.1 22", "allow any 0.0.0.0/0 any"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRouter(t, section()+tt.rules)
			s := r.init("start")
			if got := rules(r.conf()); !slices.Equal(got, tt.want) || len(s.log) > 0 {
				t.Errorf("%q, want %q; log: %q", got, tt.want, s.log)
			}
		})
	}
}

// TestBadRules: the line in the log names the option of the rule.
func TestBadRules(t *testing.T) {
	for option, log := range map[string]string{
		"option action permit":            `upnpd.@perm_rule[1].action: "permit": want allow or deny`,
		"option ext_ports http":           `upnpd.@perm_rule[1].ext_ports: deny "http 0.0.0.0/0 any": "http": want a port, FIRST-LAST or any, from 0 to 65535`,
		"option int_ports 70000":          `upnpd.@perm_rule[1].int_ports: deny "any 0.0.0.0/0 70000": "70000": want a port, FIRST-LAST or any, from 0 to 65535`,
		"option int_addr 192.168.1.300":   `upnpd.@perm_rule[1].int_addr: deny "any 192.168.1.300 any": "192.168.1.300": want an IPv4 or IPv6 address, alone or with /MASK`,
		"option int_addr ::ffff:10.0.0.1": `upnpd.@perm_rule[1].int_addr: deny "any ::ffff:10.0.0.1 any": "::ffff:10.0.0.1": want an IPv4 or IPv6 address, alone or with /MASK`,
		"option proto icmp":               `upnpd.@perm_rule[1].proto: deny "any 0.0.0.0/0 any icmp": "icmp": want [tcp|udp] [from HOST[/MASK]] after the ports, and nothing more`,
		"option from me":                  `upnpd.@perm_rule[1].from: deny "any 0.0.0.0/0 any from me": "me": want an IPv4 or IPv6 address, alone or with /MASK`,
		"option ext_ports '80 10.0.0.1'":  `upnpd.@perm_rule[1].ext_ports: "80 10.0.0.1": want one word`,
		"option int_addr '1.2.3.4\nx'":    "upnpd.@perm_rule[1].int_addr: \"1.2.3.4\nx\": want one word",
	} {
		t.Run(option, func(t *testing.T) {
			r := newRouter(t, section()+rule("option action allow")+rule(option))
			if strings.Contains(option, "\n") {
				log = strings.ReplaceAll(log, "\n", " ")
			}
			r.refuses(log)
		})
	}
}

// shipped is what miniupnpd 2.3.9 of OpenWrt comes with (OPENWRT.md 1.1).
const shipped = `
config upnpd 'config'
	option enabled '0'
	option enable_natpmp '1'
	option enable_upnp '1'
	option secure_mode '1'
	option log_output '0'
	option download '1024'
	option upload '512'
	option internal_iface 'lan'
	option port '5000'
	option upnp_lease_file '/var/run/miniupnpd.leases'
	option igdv1 '1'
	option ext_allow_private_ipv4 '0'

config perm_rule
	option action 'allow'
	option ext_ports '1024-65535'
	option int_addr '0.0.0.0/0'
	option int_ports '1024-65535'
	option comment 'Allow high ports'

config perm_rule
	option action 'deny'
	option ext_ports '0-65535'
	option int_addr '0.0.0.0/0'
	option int_ports '0-65535'
	option comment 'Default deny'
`

// TestMiniupnpd: a configuration that miniupnpd left behind (issue 5, point 2).
func TestMiniupnpd(t *testing.T) {
	const ignored = "daemon.notice upnpd: ignored, since this version has no such thing: ext_allow_private_ipv4"
	r := newRouter(t, shipped)
	if s := r.init("start"); s.happened() != "" || len(s.log) != 1 || !strings.Contains(s.log[0], "disabled") {
		t.Errorf("enabled 0: it %s; log: %q", s.happened(), s.log)
	}
	r.must("/sbin/uci", "set", "upnpd.config.enabled=1")
	s := r.init("start")
	if s.happened() != "starts" || !slices.Equal(s.log, []string{ignored}) {
		t.Errorf("it %s; log: %q", s.happened(), s.log)
	}
	want := flags(t, "--extif", "eth1", "--intif", "br-lan", "--port", "5000", "--igd", "1", "--log-level", "info",
		"--downstream-bitrate", "8388608", "--upstream-bitrate", "4194304",
		"--allow", "1024-65535 0.0.0.0/0 1024-65535", "--deny", "0-65535 0.0.0.0/0 0-65535", "--allow", "any 0.0.0.0/0 any")
	if got, want := describe(r.conf()), describe(want); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if s := r.init("reload"); s.happened() != "stays" || len(s.log) > 0 {
		t.Errorf("at a reload it %s; log: %q", s.happened(), s.log)
	}
	// Our own names beside its own do not change the units.
	r.must("/sbin/uci", "set", "upnpd.config.extif=wan")
	r.init("reload")
	if c := r.conf(); c.UpstreamBitrate != 4194304 {
		t.Errorf("upload 512: %d bit/s", c.UpstreamBitrate)
	}
}

// TestMiniupnpdEdited: what people set, and a section of another name.
func TestMiniupnpdEdited(t *testing.T) {
	r := newRouter(t, `
config perm_rule
	option action 'allow'
	option ext_ports '80:90'
	option int_addr '192.168.1.2'
	option comment 'it''s mine'

config upnpd 'settings'
	option external_iface 'wan'
	option external_iface6 'wan6'
	option external_ip '203.0.113.9'
	option internal_iface 'lan guest'
	option upload '100'
	option download '1000'
	option enable_upnp '1'
	option enable_natpmp '0'
	option ipv6_disable '1'
	option igdv1 '0'
	option uuid 'a1b2c3d4-0000-4000-8000-000000000001'
	option serial_number '12345678'
	option model_number '1'
	option notify_interval '900'
	option presentation_url 'http://192.168.1.1/'
	option use_stun '1'
	option stun_host 'stun.example.net'
	option nonsense '1'
	list nonsense2 '1'
	list nonsense2 '2'

config internal_network
	option interface 'lan'

config internal_network
	option interface 'guest'
`)
	r.networks(with(map[string]network{"guest": {"option proto static\noption device br-guest", "br-guest", false}}))
	s := r.init("start")
	wantLog := []string{
		"daemon.notice upnpd: ignored, since this version has no such thing: use_stun stun_host",
		"daemon.notice upnpd: ignored, since unknown: nonsense nonsense2; sections internal_network",
	}
	if s.happened() != "starts" || !slices.Equal(s.log, wantLog) {
		t.Errorf("it %s; log: %q, want %q", s.happened(), s.log, wantLog)
	}
	want := flags(t, "--extif", "eth1", "--intif", "br-lan", "--intif", "br-guest", "--extip", "203.0.113.9",
		"--downstream-bitrate", "8192000", "--upstream-bitrate", "819200", "--serial", "12345678", "--model-number", "1",
		"--uuid", "a1b2c3d4-0000-4000-8000-000000000001", "--ipv6", "no", "--natpmp", "no", "--pcp", "no", "--presentation-url", "http://192.168.1.1/",
		"--allow", "80-90 192.168.1.2 any", "--allow", "any 0.0.0.0/0 any")
	if got, want := describe(r.conf()), describe(want); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestIgnored: options of features that are not there yet, unless they ask for what
// is there anyway.
func TestIgnored(t *testing.T) {
	const lacking = "daemon.notice upnpd: ignored, since this version has no such thing: "
	for options, log := range map[string]string{
		"extif6 wan6":  "", // pinholes need no device
		"use_stun 1":   lacking + "use_stun",
		"use_stun 0":   "",
		"max_leases 1": "daemon.notice upnpd: ignored, since unknown: max_leases",
	} {
		r := newRouter(t, section("option "+options))
		if s := r.init("start"); strings.Join(s.log, "\n") != log || s.happened() != "starts" {
			t.Errorf("%s: it %s; log: %q, want %q", options, s.happened(), s.log, log)
		}
	}
}

// TestSections: the one called config, else the first of its type; with none, or a
// file that cannot be read, there is a line.
func TestSections(t *testing.T) {
	r := newRouter(t, "config upnpd 'first'\n\toption port 1\nconfig upnpd 'config'\n\toption port 2\nconfig upnpd 'last'\n\toption port 3\n")
	r.init("start")
	if c := r.conf(); c.Port != 2 {
		t.Errorf("port %d", c.Port)
	}
	r = newRouter(t, "config upnpd\n\toption port 1\nconfig upnpd 'last'\n\toption port 3\n")
	r.init("start")
	if c := r.conf(); c.Port != 1 {
		t.Errorf("port %d", c.Port)
	}
	for _, text := range []string{"\n", "config other 'config'\n", "config upnpd 'config'\n\toption port '1\n"} {
		r := newRouter(t, text)
		r.refuses(`/etc/config/upnpd has no section "config upnpd 'config'"`)
	}
}
