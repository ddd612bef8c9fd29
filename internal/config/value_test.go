package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestValues: what each line of the file does to the Config.
func TestValues(t *testing.T) {
	url := func(s string) *string { return &s }
	length := func(d time.Duration) portmap.DefaultLease { return portmap.DefaultLease{Length: d} }
	daily := func(d time.Duration) portmap.DefaultLease { return portmap.DefaultLease{Length: d, Daily: true} }
	for _, tt := range []struct {
		line string
		want func(c *Config)
	}{
		{`iptables_location = "/usr/sbin/iptables"`, func(c *Config) { c.IPTables.Location = "/usr/sbin/iptables" }},
		{`iptables_location=`, func(*Config) {}},
		{`debug_mode = 0`, func(c *Config) { c.LogLevel = LogError }},
		{`debug_mode = 1`, func(c *Config) { c.LogLevel = LogWarning }},
		{`debug_mode = 2`, func(c *Config) { c.LogLevel = LogInfo }},
		{`debug_mode = 3`, func(c *Config) { c.LogLevel = LogDebug }},
		{`log_level = warning`, func(c *Config) { c.LogLevel = LogWarning }},
		{`create_forward_rules = no`, func(c *Config) { c.IPTables.CreateForwardRules = false }},
		{`create_forward_rules = 0`, func(c *Config) { c.IPTables.CreateForwardRules = false }},
		{`create_forward_rules = false`, func(c *Config) { c.IPTables.CreateForwardRules = false }},
		{`forward_rules_append=yes`, func(c *Config) { c.IPTables.ForwardRulesAppend = true }},
		{`forward_rules_append = 1`, func(c *Config) { c.IPTables.ForwardRulesAppend = true }},
		{`forward_rules_append = "true"`, func(c *Config) { c.IPTables.ForwardRulesAppend = true }},
		{`forward_chain_name = zone_wan_forward2`, func(c *Config) { c.IPTables.ForwardChain = "zone_wan_forward2" }},
		{`prerouting_chain_name =   My-Chain.1`, func(c *Config) { c.IPTables.PreroutingChain = "My-Chain.1" }},
		{`upstream_bitrate = 18446744073709551615`, func(c *Config) { c.UpstreamBitrate = 1<<64 - 1 }},
		{`downstream_bitrate = 512000 # of the contract`, func(c *Config) { c.DownstreamBitrate = 512000 }},
		{`duration = 0`, func(*Config) {}},
		{`duration = 86400`, func(c *Config) { c.Policy.DefaultLease = length(24 * time.Hour) }},
		{`duration = 4294967295`, func(c *Config) { c.Policy.DefaultLease = length(4294967295 * time.Second) }},
		{`duration = 01:30`, func(c *Config) { c.Policy.DefaultLease = length(90 * time.Minute) }},
		{`duration = 168:00`, func(c *Config) { c.Policy.DefaultLease = length(168 * time.Hour) }},
		{`duration = @0`, func(c *Config) { c.Policy.DefaultLease = daily(0) }},
		{`duration = @3600`, func(c *Config) { c.Policy.DefaultLease = daily(time.Hour) }},
		{`duration = @23:59`, func(c *Config) { c.Policy.DefaultLease = daily(24*time.Hour - time.Minute) }},
		{`description_document_name = root_2.xml`, func(c *Config) { c.DescriptionName = "root_2.xml" }},
		{`xml_document_path = /etc/linuxigd`, func(*Config) {}},
		{`listenport = 49152`, func(c *Config) { c.Port = 49152 }},
		{`port = 65535`, func(c *Config) { c.Port = 65535 }},
		{`extip = 203.0.113.1`, func(c *Config) { c.ExtIP = netip.MustParseAddr("203.0.113.1") }},
		{`extip = ""`, func(*Config) {}},
		{`extip =# the device has it`, func(*Config) {}},
		{`firewall = nftables`, func(c *Config) { c.Firewall = FirewallNFTables }},
		{`secure = no`, func(c *Config) { c.Policy.Secure = false }},
		{`max_lease = 1`, func(c *Config) { c.Policy.MaxLease = time.Second }},
		{`max_mappings = 65535`, func(c *Config) { c.Policy.MaxMappings = 65535 }},
		{`max_mappings_per_client = 1`, func(c *Config) { c.Policy.MaxPerClient = 1 }},
		{`notify_interval = 30`, func(c *Config) { c.NotifyInterval = 30 * time.Second }},
		{`uuid = uuid:8D3C5A0E-52C4-4A6B-9F0E-3B1D7C2A9E54`, func(c *Config) { c.UUID = "8d3c5a0e-52c4-4a6b-9f0e-3b1d7c2a9e54" }},
		{`uuid = ""`, func(*Config) {}},
		{`friendly_name = "Router # 1"`, func(c *Config) { c.FriendlyName = "Router # 1" }},
		{`friendly_name = Router#1 # upstairs`, func(c *Config) { c.FriendlyName = "Router#1" }},
		{`friendly_name = Küche`, func(c *Config) { c.FriendlyName = "Küche" }},
		{`friendly_name = ` + strings.Repeat("ü", 63), func(c *Config) { c.FriendlyName = strings.Repeat("ü", 63) }}, // HTTP-4
		{`serial = 00-17`, func(c *Config) { c.Serial = "00-17" }},
		{`model_number = 1.2`, func(c *Config) { c.ModelNumber = "1.2" }},
		{`presentation_url = ""`, func(c *Config) { c.PresentationURL = url("") }},
		{`presentation_url = https://[fd00::1]:8443/a?b=c&d`, func(c *Config) { c.PresentationURL = url("https://[fd00::1]:8443/a?b=c&d") }},
		{`upnp = no`, func(c *Config) { c.UPnP = false }},
		{`lease_file = /var/run/upnpd/leases`, func(c *Config) { c.LeaseFile = "/var/run/upnpd/leases" }},
	} {
		settings, err := parseFile("f", strings.NewReader("# a comment\n\n  "+tt.line+"\n"))
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
			continue
		}
		got, want := defaults(), defaults()
		tt.want(want)
		if err := got.apply(settings); err != nil {
			t.Errorf("%s: %v", tt.line, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", tt.line, got, want)
		}
	}
}

// TestRules: the grammar of rules, from the file and from flags.
func TestRules(t *testing.T) {
	all := portmap.PortRange{First: 0, Last: 65535}
	one := func(p uint16) portmap.PortRange { return portmap.PortRange{First: p, Last: p} }
	prefix := netip.MustParsePrefix
	for _, tt := range []struct {
		line string
		want portmap.Rule
	}{
		// miniupnpd's lines work as they are.
		{"allow 1024-65535 192.168.0.0/24 1024-65535", portmap.Rule{Allow: true,
			External: portmap.PortRange{First: 1024, Last: 65535}, Internal: portmap.PortRange{First: 1024, Last: 65535},
			Client: prefix("192.168.0.0/24")}},
		{"deny 0-65535 0.0.0.0/0 0-65535", portmap.Rule{External: all, Internal: all, Client: prefix("0.0.0.0/0")}},
		{"allow 12345 192.168.7.113/32 54321", portmap.Rule{Allow: true, External: one(12345), Internal: one(54321),
			Client: prefix("192.168.7.113/32")}},
		{"deny any 192.168.1.5 any", portmap.Rule{External: all, Internal: all, Client: prefix("192.168.1.5/32")}},
		{"deny any 192.168.1.77/255.255.255.192 any tcp", portmap.Rule{External: all, Internal: all,
			Client: prefix("192.168.1.64/26"), Protocol: portmap.TCP}},
		{"allow any 10.0.0.0/0.0.0.0 any UDP from 10.0.0.2", portmap.Rule{Allow: true, External: all, Internal: all,
			Client: prefix("0.0.0.0/0"), Protocol: portmap.UDP, From: prefix("10.0.0.2/32")}},
		{"deny any 10.0.0.0/8 any from 10.1.0.0/255.255.255.255", portmap.Rule{External: all, Internal: all,
			Client: prefix("10.0.0.0/8"), From: prefix("10.1.0.0/32")}},
		{"deny 5-5 10.0.0.0/8 0", portmap.Rule{External: one(5), Internal: one(0), Client: prefix("10.0.0.0/8")}},
	} {
		tt.want.Text = tt.line
		verb, rule, _ := strings.Cut(tt.line, " ")
		spread := verb + " \t" + strings.ReplaceAll(rule, " ", "\t ") + "  # why"
		for how, c := range map[string]*Config{
			"file": mustParse(t, spread+"\n", "a", "b"),
			"flag": mustParse(t, "", "a", "b", "--"+verb, rule),
		} {
			if len(c.Policy.Rules) != 1 || c.Policy.Rules[0] != tt.want {
				t.Errorf("%s: %s:\ngot  %+v\nwant %+v", how, tt.line, c.Policy.Rules, tt.want)
			}
		}
	}
}

// TestFileErrors: one line that says where, what and what would be right.
func TestFileErrors(t *testing.T) {
	const (
		wantDevice = "want the name of a network device, 1 to 15 bytes"
		wantClock  = "want seconds, HH:MM, or the time of day when leases end as @HH:MM or @SECONDS"
		wantHost   = "want the IPv4 address of a host"
		wantUUID   = "want a UUID that no other device has, like 8d3c5a0e-52c4-4a6b-9f0e-3b1d7c2a9e54"
		wantURL    = `want http://... or https://..., or "" for none`
		wantRule   = "want EXTPORTS HOST[/MASK] INTPORTS [tcp|udp] [from HOST[/MASK]]"
		wantPorts  = "want a port, FIRST-LAST or any, from 0 to 65535"
		wantMask   = "want a mask from 0 to 32, or like 255.255.255.0"
		wantText   = "characters of UTF-8 text without control characters"
	)
	for _, tt := range []struct{ line, want string }{
		{`max_lease = abc`, `f:2: max_lease = "abc": want seconds from 1 to 604800`},
		{`max_lease = 0`, `f:2: max_lease = "0": want seconds from 1 to 604800`},
		{`max_lease = 604801`, `f:2: max_lease = "604801": want seconds from 1 to 604800`},
		{`max_lease = -1`, `f:2: max_lease = "-1": want seconds from 1 to 604800`},
		{`max_lease = +1`, `f:2: max_lease = "+1": want seconds from 1 to 604800`},
		{`max_lease = 1e3`, `f:2: max_lease = "1e3": want seconds from 1 to 604800`},
		{`max_lease = 1_000`, `f:2: max_lease = "1_000": want seconds from 1 to 604800`},
		{`max_lease = 0x10`, `f:2: max_lease = "0x10": want seconds from 1 to 604800`},
		{`max_lease = 18446744073709551617`, `f:2: max_lease = "18446744073709551617": want seconds from 1 to 604800`},
		{`max_lease = 3600 seconds`, `f:2: max_lease = "3600 seconds": want seconds from 1 to 604800`},
		{`max_lease =`, `f:2: max_lease = "": want seconds from 1 to 604800`},
		{`port = 65536`, `f:2: port = "65536": want a number from 0 to 65535`},
		{`listenport = 131072`, `f:2: listenport = "131072": want a number from 0 to 65535`},
		{`debug_mode = 4`, `f:2: debug_mode = "4": want a number from 0 to 3`},
		{`max_mappings = 0`, `f:2: max_mappings = "0": want a number from 1 to 65535`},
		{`max_mappings_per_client = 65536`, `f:2: max_mappings_per_client = "65536": want a number from 1 to 65535`},
		{`notify_interval = 29`, `f:2: notify_interval = "29": want seconds from 30 to 43200`},
		{`upstream_bitrate = 10M`, `f:2: upstream_bitrate = "10M": want bits per second, or 0 for the link's speed`},
		{`downstream_bitrate = 18446744073709551616`, `f:2: downstream_bitrate = "18446744073709551616": want bits per second, or 0 for the link's speed`},
		{`secure = maybe`, `f:2: secure = "maybe": want yes or no`},
		{`upnp = YES`, `f:2: upnp = "YES": want yes or no`},
		{`log_level = verbose`, `f:2: log_level = "verbose": want one of error, warning, info, debug`},
		{`firewall = pf`, `f:2: firewall = "pf": want auto, iptables or nftables`},
		{`duration = 4294967296`, `f:2: duration = "4294967296": ` + wantClock},
		{`duration = 1:2`, `f:2: duration = "1:2": ` + wantClock},
		{`duration = 1:60`, `f:2: duration = "1:60": ` + wantClock},
		{`duration = 169:00`, `f:2: duration = "169:00": ` + wantClock},
		{`duration = 1:00:00`, `f:2: duration = "1:00:00": ` + wantClock},
		{`duration = @24:00`, `f:2: duration = "@24:00": ` + wantClock},
		{`duration = @86400`, `f:2: duration = "@86400": ` + wantClock},
		{`duration = @`, `f:2: duration = "@": ` + wantClock},
		{`extif = /dev/ppp`, `f:2: extif = "/dev/ppp": ` + wantDevice},
		{`extif = abcdefghijklmnop`, `f:2: extif = "abcdefghijklmnop": ` + wantDevice},
		{`extif = eth0:1`, `f:2: extif = "eth0:1": ` + wantDevice},
		{`extif = ppp+`, `f:2: extif = "ppp+": ` + wantDevice},
		{`extif = -x`, `f:2: extif = "-x": ` + wantDevice},
		{`extif = ..`, `f:2: extif = "..": ` + wantDevice},
		{`intif = br0 br1`, `f:2: intif = "br0 br1": ` + wantDevice},
		{`intif = ""`, `f:2: intif = "": ` + wantDevice},
		{`extip = 1.2.3`, `f:2: extip = "1.2.3": ` + wantHost},
		{`extip = 224.0.0.1`, `f:2: extip = "224.0.0.1": ` + wantHost},
		{`extip = 255.255.255.255`, `f:2: extip = "255.255.255.255": ` + wantHost},
		{`extip = 240.0.0.1`, `f:2: extip = "240.0.0.1": ` + wantHost},
		{`extip = 0.0.0.0`, `f:2: extip = "0.0.0.0": ` + wantHost},
		{`extip = 127.0.0.1`, `f:2: extip = "127.0.0.1": ` + wantHost},
		{`extip = 2001:db8::1`, `f:2: extip = "2001:db8::1": ` + wantHost},
		{`extip = ::ffff:1.2.3.4`, `f:2: extip = "::ffff:1.2.3.4": ` + wantHost},
		{`extip = router.example.com`, `f:2: extip = "router.example.com": ` + wantHost},
		{`uuid = 1234`, `f:2: uuid = "1234": ` + wantUUID},
		{`uuid = 00000000-0000-0000-0000-000000000000`, `f:2: uuid = "00000000-0000-0000-0000-000000000000": ` + wantUUID},
		{`uuid = 8d3c5a0e052c4-4a6b-9f0e-3b1d7c2a9e54`, `f:2: uuid = "8d3c5a0e052c4-4a6b-9f0e-3b1d7c2a9e54": ` + wantUUID},
		{`uuid = 8d3c5a0e-52c4-4a6b-9f0e-3b1d7c2a9e5g`, `f:2: uuid = "8d3c5a0e-52c4-4a6b-9f0e-3b1d7c2a9e5g": ` + wantUUID},
		{`friendly_name = ""`, `f:2: friendly_name = "": want 1 to 63 ` + wantText},
		{`friendly_name = ` + strings.Repeat("x", 64), `f:2: friendly_name = "` + strings.Repeat("x", 64) + `": want 1 to 63 ` + wantText}, // HTTP-4
		{"serial = a\x1bb", `f:2: serial = "a\x1bb": want 0 to 63 ` + wantText},
		{"serial = \xff", `f:2: serial = "\xff": want 0 to 63 ` + wantText},
		{`model_number = ` + strings.Repeat("1", 32), `f:2: model_number = "` + strings.Repeat("1", 32) + `": want 0 to 31 ` + wantText}, // HTTP-4
		{`presentation_url = ftp://x/`, `f:2: presentation_url = "ftp://x/": ` + wantURL},
		{`presentation_url = http://`, `f:2: presentation_url = "http://": ` + wantURL},
		{`presentation_url = http:///x`, `f:2: presentation_url = "http:///x": ` + wantURL},
		{`presentation_url = http://a b`, `f:2: presentation_url = "http://a b": ` + wantURL},
		{`presentation_url = http://<b>`, `f:2: presentation_url = "http://<b>": ` + wantURL},
		{`lease_file = leases`, `f:2: lease_file = "leases": want a path that begins with /`},
		{`iptables_location = iptables`, `f:2: iptables_location = "iptables": want a path that begins with /`},
		{`forward_chain_name = "A B"`, `f:2: forward_chain_name = "A B": want the name of a chain: 1 to 28 letters, digits, ., _ or -`},
		{`prerouting_chain_name = UPNPD`, `f:2: prerouting_chain_name = "UPNPD": want another name: chains UPNPD* are the daemon's own, this one gets the jump to them`},
		{`forward_chain_name = INPUT`, `f:2: forward_chain_name = "INPUT": packets to forward do not pass there: want FORWARD or a chain of your own`},
		{`prerouting_chain_name = FORWARD`, `f:2: prerouting_chain_name = "FORWARD": packets to forward do not pass there: want PREROUTING or a chain of your own`},
		{`prerouting_chain_name = -j`, `f:2: prerouting_chain_name = "-j": want the name of a chain: 1 to 28 letters, digits, ., _ or -`},
		{`prerouting_chain_name = ` + strings.Repeat("x", 29), `f:2: prerouting_chain_name = "` + strings.Repeat("x", 29) + `": want the name of a chain: 1 to 28 letters, digits, ., _ or -`},
		{`description_document_name = ../x`, `f:2: description_document_name = "../x": want a file's name: 1 to 64 letters, digits, ., _ or -, the first a letter or digit`},

		// names
		{`max_leas = 1`, `f:2: "max_leas": unknown option, did you mean max_lease?`},
		{`xforward_chain_name=A`, `f:2: "xforward_chain_name": unknown option, did you mean forward_chain_name?`}, // linux-igd took it
		{`Secure = yes`, `f:2: "Secure": unknown option, did you mean secure?`},
		{`max-lease = 1`, `f:2: "max-lease": unknown option, did you mean max_lease?`},
		{`ext_ifname=eth0`, `f:2: "ext_ifname": unknown option, did you mean extif?`}, // miniupnpd's
		{`foreground = yes`, `f:2: "foreground": unknown option`},
		{`= 1`, `f:2: "": unknown option`},
		{"\x1b[2J = 1", `f:2: "\x1b[2J": unknown option`},
		{`allow = 1`, `f:2: allow "= 1": ` + wantRule},
		{`secure yes`, `f:2: "secure yes": want NAME = VALUE, allow RULE, deny RULE or # COMMENT`},

		// quotes
		{`serial = "a" b`, `f:2: serial = "\"a\" b": want one value in double quotes, and nothing after it but a # comment`},
		{`serial = "a`, `f:2: serial = "\"a": want one value in double quotes, and nothing after it but a # comment`},

		// rules
		{`allow`, `f:2: allow "": ` + wantRule},
		{`allow 1-2 10.0.0.1`, `f:2: allow "1-2 10.0.0.1": ` + wantRule},
		{`allow 70000 10.0.0.1 1`, `f:2: allow "70000 10.0.0.1 1": "70000": ` + wantPorts},
		{`allow 1 10.0.0.1 9-8`, `f:2: allow "1 10.0.0.1 9-8": "9-8": ` + wantPorts},
		{`deny 1- 10.0.0.1 1`, `f:2: deny "1- 10.0.0.1 1": "1-": ` + wantPorts},
		{`deny 1-2-3 10.0.0.1 1`, `f:2: deny "1-2-3 10.0.0.1 1": "1-2-3": ` + wantPorts},
		{`deny 1 10.0.0.1/33 1`, `f:2: deny "1 10.0.0.1/33 1": "10.0.0.1/33": ` + wantMask},
		{`deny 1 10.0.0.1/255.0.255.0 1`, `f:2: deny "1 10.0.0.1/255.0.255.0 1": "10.0.0.1/255.0.255.0": ` + wantMask},
		{`deny 1 10.0.0.1/ 1`, `f:2: deny "1 10.0.0.1/ 1": "10.0.0.1/": ` + wantMask},
		{`deny 1 pc.lan 1`, `f:2: deny "1 pc.lan 1": "pc.lan": want an IPv4 or IPv6 address, alone or with /MASK`},
		{`deny 1 fd00::1%br0 1`, `f:2: deny "1 fd00::1%br0 1": "fd00::1%br0": want an IPv4 or IPv6 address, alone or with /MASK`},
		{`deny 1 ::ffff:10.0.0.1 1`, `f:2: deny "1 ::ffff:10.0.0.1 1": "::ffff:10.0.0.1": want an IPv4 or IPv6 address, alone or with /MASK`},
		{`deny 1 fd00::/129 1`, `f:2: deny "1 fd00::/129 1": "fd00::/129": want a prefix length from 0 to 128`},
		{`deny 1 fd00::/255.0.0.0 1`, `f:2: deny "1 fd00::/255.0.0.0 1": "fd00::/255.0.0.0": want a prefix length from 0 to 128`},
		{`igd = 3`, `f:2: igd = "3": want auto, 1 or 2`},
		{`pcp_nonce = any`, `f:2: pcp_nonce = "any": want strict or same-host`},
		{`min_lease = 0`, `f:2: min_lease = "0": want seconds from 1 to 86400`},
		{`natpmp = 1.1`, `f:2: natpmp = "1.1": want yes or no`},
		{`ipv6 = 6`, `f:2: ipv6 = "6": want yes or no`},
		{`deny 1 10.0.0.1 1 sctp`, `f:2: deny "1 10.0.0.1 1 sctp": "sctp": want [tcp|udp] [from HOST[/MASK]] after the ports, and nothing more`},
		{`deny 1 10.0.0.1 1 from`, `f:2: deny "1 10.0.0.1 1 from": "from": want [tcp|udp] [from HOST[/MASK]] after the ports, and nothing more`},
		{`deny 1 10.0.0.1 1 from x`, `f:2: deny "1 10.0.0.1 1 from x": "x": want an IPv4 or IPv6 address, alone or with /MASK`},
		{`deny 1 10.0.0.1 1 "Skype"`, `f:2: deny "1 10.0.0.1 1 \"Skype\"": "\"Skype\"": want [tcp|udp] [from HOST[/MASK]] after the ports, and nothing more`},

		// twice
		{"port = 1\nport = 2", `f:3: port = "2": set already by f:2: port = "1"`},
		{"port = 1\n\nlistenport = 2", `f:4: listenport = "2": set already by f:2: port = "1"`},
		{"debug_mode = 1\nlog_level = info", `f:3: log_level = "info": set already by f:2: debug_mode = "1"`},
		{"intif = a\nintif = a", `f:3: intif = "a": the same INTIF twice`},

		// no text
		{"serial = a\x00b", "f:2: a NUL byte: this is not a text file"},
		{"#" + strings.Repeat("x", maxLine), "f:2: longer than 1024 bytes"},
		{strings.Repeat("\n", maxFile), "f: longer than 64 KiB: is this a configuration?"},
	} {
		settings, err := parseFile("f", strings.NewReader("# first\n"+tt.line+"\n"))
		if err == nil {
			err = defaults().apply(settings)
		}
		if got := fmt.Sprint(err); got != tt.want {
			t.Errorf("%.80q:\ngot  %s\nwant %s", tt.line, got, tt.want)
		}
	}
}

func TestFlagErrors(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "missing EXTIF, the uplink's device (usage: upnpd [flags] EXTIF INTIF...)"},
		{[]string{"-f", "ppp0"}, "missing INTIF, the LAN's device (usage: upnpd [flags] EXTIF INTIF...)"}, // crashed linux-igd
		{[]string{"--extif", "ppp0"}, "missing INTIF, the LAN's device (usage: upnpd [flags] EXTIF INTIF...)"},
		{[]string{"--intif", "br0"}, "missing EXTIF, the uplink's device (usage: upnpd [flags] EXTIF INTIF...)"},
		{[]string{"eth0", "br0", "eth0"}, `"eth0" is both EXTIF and INTIF: the uplink cannot be a served LAN`},
		{[]string{"eth0", "br0", "br0"}, `INTIF "br0": the same INTIF twice`},
		{[]string{"", "br0"}, `EXTIF "": want the name of a network device, 1 to 15 bytes`},
		{[]string{"eth0", "b/0"}, `INTIF "b/0": want the name of a network device, 1 to 15 bytes`},
		{[]string{"--extif", "eth0", "eth1", "br0"}, `"eth1": want EXTIF INTIF... or --extif and --intif, not both`},
		{[]string{"a", "b", "--max-lease", "abc"}, `--max-lease "abc": want seconds from 1 to 604800`},
		{[]string{"a", "b", "--max-lease=1", "--max-lease=2"}, `--max-lease "2": set already by --max-lease "1"`},
		{[]string{"a", "b", "--port=1", "--listenport=2"}, `--listenport "2": set already by --port "1"`},
		{[]string{"a", "b", "--allow", "1 2 3"}, `--allow "1 2 3": "2": want an IPv4 or IPv6 address, alone or with /MASK`},
		{[]string{"a", "b", "--secure"}, "--secure: want a value after it"},
		{[]string{"a", "b", "--max-leese", "1"}, "--max-leese: unknown option, did you mean --max-lease?"},
		{[]string{"a", "b", "--xyzzy"}, "--xyzzy: unknown option"},
		{[]string{"a", "b", "-x"}, "unknown shorthand flag: 'x' in -x; usage: upnpd [flags] EXTIF INTIF..."},
		{[]string{"a", "b", "--=1"}, "bad flag syntax: --=1; usage: upnpd [flags] EXTIF INTIF..."},
	} {
		if _, _, err := with(t, "", tt.args...); fmt.Sprint(err) != tt.want {
			t.Errorf("%q:\ngot  %v\nwant %s", tt.args, err, tt.want)
		}
	}
}

// TestFlagWarning: a flag without a meaning says so too.
func TestFlagWarning(t *testing.T) {
	_, warnings, err := with(t, "", "a", "b", "--xml-document-path", "/etc")
	const want = `--xml-document-path "/etc" has no meaning here: the descriptions are built in`
	if err != nil || len(warnings) != 1 || warnings[0] != want {
		t.Errorf("%v, %q, want %q", err, warnings, want)
	}
}
