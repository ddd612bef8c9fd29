package openwrt

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/config"
)

// daemonOptions are the options in upnpd.conf(5), which a test of package config
// holds against the code.
func daemonOptions(t *testing.T) (all []string) {
	t.Helper()
	page, err := os.ReadFile("../../doc/upnpd.conf.5")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range regexp.MustCompile(`(?m)^\.T[PQ].*\n`).Split(string(page), -1) {
		if m := regexp.MustCompile(`^\\fB([a-z0-9_]+)\\fR `).FindStringSubmatch(part); m != nil {
			all = append(all, strings.ReplaceAll(m[1], `\-`, "-"))
		}
	}
	if len(all) < 30 {
		t.Fatalf("%d options", len(all))
	}
	return all
}

// flags is the configuration that these flags of the daemon make; those of UCI shall
// be equal.
func flags(t *testing.T, args ...string) *config.Config {
	t.Helper()
	c, _, err := config.Parse(append([]string{"-f", "--config", "/dev/null"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// describe is all that a configuration means, as text.
func describe(c *config.Config) string {
	page := "own"
	if c.PresentationURL != nil {
		page = *c.PresentationURL
	}
	x := *c
	x.Path, x.Places, x.PresentationURL, x.Policy.Rules = "", nil, nil, nil
	text := fmt.Sprintf("%+v page %q", x, page)
	for _, r := range c.Policy.Rules {
		r.Text = ""
		text += fmt.Sprintf("\n%+v", r)
	}
	return text
}

// options are each option of the daemon with a value that is not its default, in
// UCI, and what it means as flags.
var options = []struct {
	uci   string
	flags string
}{
	{"option extip 203.0.113.5", "--extip 203.0.113.5"},
	{"option external_ip 203.0.113.5", "--extip 203.0.113.5"},
	{"list allow '80 192.168.1.10 8080 tcp'", "--allow|80 192.168.1.10 8080 tcp"},
	{"option allow '80 192.168.1.10 8080'", "--allow|80 192.168.1.10 8080"},
	{"list deny 'any 192.168.1.128/25 any'\n\tlist deny '1-9 0.0.0.0/0 any udp from 10.0.0.0/8'",
		"--deny|any 192.168.1.128/25 any|--deny|1-9 0.0.0.0/0 any udp from 10.0.0.0/8"},
	{"option secure 0", "--secure no"},
	{"option secure off", "--secure no"},
	{"option secure_mode no", "--secure no|--allow|any 0.0.0.0/0 any"},
	{"option max_mappings 50", "--max-mappings 50"},
	{"option max_mappings_per_client 5", "--max-mappings-per-client 5"},
	{"option max_lease 3600", "--max-lease 3600"},
	{"option duration @04:00", "--duration @04:00"},
	{"option idle_timeout 60", "--idle-timeout 60"},
	{"option lease_file /etc/upnpd/leases", "--lease-file /etc/upnpd/leases"},
	{"option lease_file none", "--lease-file|"},
	{"option upnp_lease_file /etc/l", "--lease-file /etc/l|--allow|any 0.0.0.0/0 any"},
	{"option upnp_lease_file /var/run/miniupnpd.leases", "--allow|any 0.0.0.0/0 any"},
	{"option firewall iptables", "--firewall iptables"},
	{"option firewall nft", "--firewall nftables"},
	{"option iptables_location /usr/sbin/iptables", "--iptables-location /usr/sbin/iptables"},
	{"option create_forward_rules disabled", "--create-forward-rules no"},
	{"option forward_rules_append enabled", "--forward-rules-append yes"},
	{"option forward_chain_name forwarding_rule", "--forward-chain-name forwarding_rule"},
	{"option prerouting_chain_name prerouting_rule", "--prerouting-chain-name prerouting_rule"},
	{"option upnp 0", "--upnp no"},
	{"option enable_upnp 0", "--upnp no|--allow|any 0.0.0.0/0 any"},
	{"option natpmp 0", "--natpmp no"},
	{"option pcp off", "--pcp no"},
	{"option enable_natpmp 0", "--natpmp no|--pcp|no|--allow|any 0.0.0.0/0 any"},
	{"option enable_natpmp 1", "--allow|any 0.0.0.0/0 any"},
	{"option enable_natpmp 0\n\toption pcp 1", "--natpmp no|--allow|any 0.0.0.0/0 any"},
	{"option pcp_nonce same-host", "--pcp-nonce same-host"},
	{"option min_lease 60", "--min-lease 60"},
	{"option igd 2", "--igd 2"},
	{"option igd auto", ""},
	{"option igdv1 1", "--igd 1|--allow|any 0.0.0.0/0 any"},
	{"option igdv1 0", "--igd auto|--allow|any 0.0.0.0/0 any"},
	{"option ipv6 0", "--ipv6 no"},
	{"option ipv6_disable 1", "--ipv6 no"},
	{"option ipv6_disable no", "--ipv6 yes"},
	{"option port 5000", "--port 5000"},
	{"option http_port 5000", "--port 5000"},
	{"option listenport 5000", "--listenport 5000"},
	{"option notify_interval 60", "--notify-interval 60"},
	{"option friendly_name 'My  router'", "--friendly-name|My  router"},
	{"option uuid 8d3c5a0e-52c4-4a6b-9f0e-3b1d7c2a9e54", "--uuid 8d3c5a0e-52c4-4a6b-9f0e-3b1d7c2a9e54"},
	{"option uuid 00000000-0000-0000-0000-000000000000", ""},
	{"option uuid nocli", ""},
	{"option serial 42", "--serial 42"},
	{"option serial_number 42", "--serial 42"},
	{"option model_number 7", "--model-number 7"},
	{"option presentation_url https://192.168.1.1/luci", "--presentation-url https://192.168.1.1/luci"},
	{"option presentation_url none", "--presentation-url|"},
	{"option upstream_bitrate 1000000", "--upstream-bitrate 1000000"},
	{"option downstream_bitrate 1000000", "--downstream-bitrate 1000000"},
	{"option upload 40000", "--upstream-bitrate 40000000"},
	{"option download 100000", "--downstream-bitrate 100000000"},
	{"option download 0", ""},
	{"option description_document_name root.xml", "--description-document-name root.xml"},
	{"option xml_document_path /etc/linuxigd", "--xml-document-path /etc/linuxigd"},
	{"option control_socket /var/run/upnpd/other", "--control-socket /var/run/upnpd/other"},
	{"option control_socket none", "--control-socket|"},
	{"option user upnpd", "--user upnpd"},
	{"option sandbox 0", "--sandbox no"},
	{"option log_level debug", "--log-level debug"},
	{"option debug_mode 3", "--debug-mode 3"},
	{"option log_output 1", "--log-level debug|--allow|any 0.0.0.0/0 any"},
	{"option log_output 0", "--log-level info|--allow|any 0.0.0.0/0 any"},
	{"option log_output info", "--log-level info|--allow|any 0.0.0.0/0 any"},
}

// split makes arguments of a row's flags.
func split(text string) (args []string) {
	if strings.Contains(text, "|") {
		head, rest, _ := strings.Cut(text, "|")
		args = strings.Split(rest, "|")
		return append(strings.Fields(head), args...)
	}
	return strings.Fields(text)
}

// TestOptions: every option of the daemon, and each alias, means in UCI what it means
// to the daemon (issue 5, point 2).
func TestOptions(t *testing.T) {
	seen := map[string]bool{"extif": true, "intif": true} // TestUplink, TestLANs
	for _, o := range options {
		seen[strings.Fields(o.uci)[1]] = true
		t.Run(o.uci, func(t *testing.T) {
			r := newRouter(t, section(o.uci))
			s := r.init("start")
			if s.happened() != "starts" {
				t.Fatalf("it %s: %q", s.happened(), s.log)
			}
			want := flags(t, append(split(o.flags), "--extif", "eth1", "--intif", "br-lan")...)
			if got, want := describe(r.conf()), describe(want); got != want {
				t.Errorf("%s\nwant %s", got, want)
			}
			if len(s.log) > 0 {
				t.Errorf("log: %q", s.log)
			}
		})
	}
	for _, name := range daemonOptions(t) {
		if !seen[name] {
			t.Errorf("%s is an option of the daemon, and not tried in UCI", name)
		}
	}
}

// TestSpecialCharacters: what is special to a shell is not.
func TestSpecialCharacters(t *testing.T) {
	for _, name := range []string{"$(touch /x)", "`id`", `it's # 1`, `back\slash`, `a;b&c|d*?[x]`, "Küche", "# no comment"} {
		r := newRouter(t, "")
		r.must("/sbin/uci", "set", "upnpd.config.friendly_name="+name)
		s := r.init("start")
		if got := r.conf().FriendlyName; got != name || len(s.log) > 0 {
			t.Errorf("%q, want %q; log %q", got, name, s.log)
		}
	}
}

// TestBadValues: one line that names the option, and nothing that is started by half
// (issue 5, point 1).
func TestBadValues(t *testing.T) {
	tests := []struct {
		option string
		log    string
	}{
		{"option enabled maybe", `upnpd.config.enabled: "maybe": want 1 or 0`},
		{"option extip 10.0.0", `upnpd.config.extip: extip = "10.0.0": want the IPv4 address of a host`},
		{"option external_ip ::1", `upnpd.config.external_ip: extip = "::1": want the IPv4 address of a host`},
		{"option max_lease 0", `upnpd.config.max_lease: max_lease = "0": want seconds from 1 to 604800`},
		{"option max_mappings many", `upnpd.config.max_mappings: max_mappings = "many": want a number from 1 to 65535`},
		{"option port 70000", `upnpd.config.port: port = "70000": want a number from 0 to 65535`},
		{"option secure maybe", `upnpd.config.secure: secure = "maybe": want yes or no`},
		{"option secure_mode 2", `upnpd.config.secure_mode: secure = "2": want yes or no`},
		{"option firewall pf", `upnpd.config.firewall: firewall = "pf": want auto, iptables or nftables`},
		{"option log_level loud", `upnpd.config.log_level: log_level = "loud": want one of error, warning, info, debug`},
		{"option log_output loud", `upnpd.config.log_output: log_level = "loud": want one of error, warning, info, debug`},
		{"option lease_file leases", `upnpd.config.lease_file: lease_file = "leases": want a path that begins with /`},
		{"option upload 12k", `upnpd.config.upload: "12k": want a number, in kbit/s`},
		{"option upload 010", `upnpd.config.upload: "010": want a number, in kbit/s`},
		{"option download 9999999999999", `upnpd.config.download: "9999999999999": want a number, in kbit/s`},
		{"option download -1\n\toption secure_mode 1", `upnpd.config.download: "-1": want a number, in kByte/s`},
		{"option upload 1\n\toption upstream_bitrate 1", `upnpd.config.upload: upstream_bitrate = "1000": set already by upnpd.config.upstream_bitrate: upstream_bitrate = "1"`},
		{`option friendly_name 'a "name"'`, `upnpd.config.friendly_name: a value cannot have a double quote or a line break`},
		{"option friendly_name 'a\nsecure = no'", `upnpd.config.friendly_name: a value cannot have a double quote or a line break`},
		{"option extif 'a\nsecure = no'", `upnpd.config.extif: a value cannot have a double quote or a line break`},
		{"option extif 'wan wan2'", `upnpd.config.extif: extif = "wan wan2": want the name of a network device, 1 to 15 bytes`},
		{"option extif /dev/ppp", `upnpd.config.extif: extif = "/dev/ppp": want the name of a network device, 1 to 15 bytes`},
		{"list intif lann", `upnpd.config.intif: "lann" is neither a network nor a device`},
		{"option internal_iface '*'", `upnpd.config.internal_iface: "*" is neither a network nor a device`},
		{"list intif wan", `upnpd.config.intif: "wan" is the uplink, eth1`},
		{"list intif eth1", `upnpd.config.intif: "eth1" is the uplink, eth1`},
		{"option external_zone lan", `upnpd.config.external_zone: "lan": want a zone of the firewall with a network`},
		{"list allow '80 1.2.3'", `upnpd.config.allow: allow "80 1.2.3": want EXTPORTS HOST[/MASK] INTPORTS [tcp|udp] [from HOST[/MASK]]`},
		{"list deny '80 1.2.3.4 80\nsecure = no'", `upnpd.config.deny: a rule cannot have a # or a line break`},
		{"list deny '80 1.2.3.4 80 # x'", `upnpd.config.deny: a rule cannot have a # or a line break`},
	}
	for _, tt := range tests {
		t.Run(tt.option, func(t *testing.T) {
			r := newRouter(t, "config upnpd 'config'\n\toption extif wan\n\t"+tt.option+"\n")
			if strings.Contains(tt.option, "external_zone") {
				r.write("/etc/config/upnpd", "config upnpd 'config'\n\t"+tt.option+"\n")
			}
			r.refuses(tt.log)
		})
	}
}

// TestUplinkIsLAN: an access point has its default route on the LAN; there is nothing
// to map.
func TestUplinkIsLAN(t *testing.T) {
	r := newRouter(t, "config upnpd 'config'\n")
	r.networks(map[string]network{"lan": {"option proto dhcp\noption device br-lan", "br-lan", true}})
	s := r.init("start")
	if want := `daemon.err upnpd: upnpd.config.intif: "lan" is the uplink, br-lan`; s.happened() != "" || !slices.Equal(s.log, []string{want}) {
		t.Errorf("it %s; log: %q, want %q", s.happened(), s.log, want)
	}
}

// refuses checks that the log has this one line, and that nothing starts, nor stops
// at a reload.
func (r *router) refuses(line string) {
	r.t.Helper()
	faulty := r.read("/etc/config/upnpd")
	for _, command := range []string{"start", "reload"} {
		s := r.init(command)
		if s.happened() != "" || len(s.args("procd_open_instance")) > 0 || strings.Contains(strings.Join(s.calls, "\n"), "set_param") {
			r.t.Errorf("%s: it %s: %q", command, s.happened(), s.calls)
		}
		var bad []string
		for _, l := range s.log {
			if text, ok := strings.CutPrefix(l, "daemon.err upnpd: "); ok {
				bad = append(bad, text)
			}
		}
		if len(bad) != 1 || bad[0] != line {
			r.t.Errorf("%s: log %q, want %q", command, bad, line)
		}
		if !slices.Contains(s.args("procd_add_reload_trigger"), "upnpd") {
			r.t.Errorf("%s: no trigger for a better configuration: %q", command, s.calls)
		}
	}
	if left := r.read("/tmp/etc/upnpd.conf") + r.read("/tmp/etc/upnpd.conf.new"); left != "" {
		r.t.Errorf("files are left:\n%s", left)
	}
	// A daemon that runs goes on.
	r.write("/etc/config/upnpd", section())
	r.init("start")
	before := r.read("/tmp/etc/upnpd.conf")
	r.write("/etc/config/upnpd", faulty)
	s := r.init("reload")
	if s.happened() != "" || s.err == nil || r.read("/tmp/etc/upnpd.conf") != before {
		r.t.Errorf("what ran %s, err %v", s.happened(), s.err)
	}
}
