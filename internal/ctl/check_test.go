package ctl

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/wan"
)

func at(a string) func(*Facts) { return func(f *Facts) { f.Uplink.Addr = addr(a) } }

func lan(change func(*LANFacts)) func(*Facts) { return func(f *Facts) { change(&f.LANs[0]) } }

func year(y int) func(*Facts) {
	return func(f *Facts) { f.Now = time.Date(y, 6, 1, 0, 0, 0, 0, time.UTC) }
}

var judgeCases = []struct {
	name   string
	change func(*Facts)
	want   string // result and name
	parts  string // of what was found and the advice, separated by |
}{
	{"all is well", func(*Facts) {}, "PASS uplink", "wan0 is up with 11.0.0.2"},

	{"no device", func(f *Facts) { f.Uplink = wan.Uplink{Name: "wan0"} }, "FAIL uplink", "no device wan0|EXTIF"},
	{"link down", func(f *Facts) { f.Uplink.Up = false }, "FAIL uplink", "wan0 is down|cable"},
	{"no address", func(f *Facts) { f.Uplink.Addr = netip.Addr{} }, "FAIL uplink", "wan0 has no IPv4 address|DHCP or PPPoE"},

	{"public", at("9.9.9.9"), "PASS address", "9.9.9.9 is public"},
	{"10/8", at("10.1.2.3"), "WARN address", "private: double NAT|extip"},
	{"172.16/12", at("172.31.255.255"), "WARN address", "private: double NAT|bridge"},
	{"beside 172.16/12", at("172.32.0.0"), "PASS address", "public"},
	{"192.168/16", at("192.168.0.2"), "WARN address", "double NAT"},
	{"100.64/10", at("100.127.255.254"), "FAIL address", "carrier-grade NAT|ask the provider"},
	{"beside 100.64/10", at("100.63.0.1"), "PASS address", "public"},
	{"192.0.0/24", at("192.0.0.2"), "FAIL address", "DS-Lite|ask the provider"},
	{"198.18/15", at("198.19.0.1"), "FAIL address", "benchmarks|nobody can connect"},
	{"240/4", at("255.255.255.254"), "FAIL address", "reserved"},
	{"169.254/16", at("169.254.0.1"), "FAIL address", "link only"},
	{"documents", at("203.0.113.1"), "FAIL address", "documents"},

	{"extip, private here", func(f *Facts) { f.Uplink.Addr, f.ExtIP = addr("10.0.0.2"), addr("9.9.9.9") }, "PASS address",
		"10.0.0.2 is private, extip = 9.9.9.9 is reported, which is public|must pass the ports on"},
	{"extip, shared here", func(f *Facts) { f.Uplink.Addr, f.ExtIP = addr("100.64.0.2"), addr("9.9.9.9") }, "PASS address", "extip = 9.9.9.9"},
	{"extip is private", func(f *Facts) { f.ExtIP = addr("10.0.0.9") }, "WARN address", "extip = 10.0.0.9 is reported, which is private|correct extip"},
	{"extip beside a public address", func(f *Facts) { f.ExtIP = addr("9.9.9.9") }, "WARN address", "11.0.0.2 is public|remove extip"},
	{"extip is the same", func(f *Facts) { f.ExtIP = f.Uplink.Addr }, "PASS address", "11.0.0.2 is public"},

	{"no route", func(f *Facts) { f.Route = "" }, "FAIL route", "none|set a default route by wan0"},
	{"route elsewhere", func(f *Facts) { f.Route = "ppp0" }, "WARN route", "by ppp0, but the mappings are at wan0|EXTIF"},
	{"route not known", func(f *Facts) { f.Route, f.RouteErr = "", errTest }, "WARN route", "this is a test"},

	{"not forwarding", func(f *Facts) { f.NotForwarding = []string{"net.ipv4.ip_forward"} }, "FAIL forwarding",
		"net.ipv4.ip_forward = 0|sysctl -w net.ipv4.ip_forward=1"},
	{"two not forwarding", func(f *Facts) { f.NotForwarding = []string{"a", "b"} }, "FAIL forwarding", "a = 0, b = 0|sysctl -w a=1 b=1"},

	{"forward path", func(f *Facts) { f.ForwardPath = "chain x drops; nft insert" }, "FAIL firewall", "nftables, chain x drops; nft insert"},
	{"forward path not known", func(f *Facts) { f.ForwardErr = errTest }, "WARN firewall", "this is a test"},

	{"live", func(f *Facts) { f.Live = &Live{Passed: true} }, "PASS live", "arrived"},
	{"live lost", func(f *Facts) { f.Live = &Live{} }, "FAIL live", "lost|drops it"},
	{"live not tried", func(f *Facts) { f.Live = &Live{Err: errTest} }, "WARN live", "could not be tried: this is a test"},

	{"no LAN", func(f *Facts) { f.LANs = nil }, "FAIL LAN", "no LAN is served|INTIF"},
	{"LAN error", lan(func(l *LANFacts) { l.Err = errTest }), "FAIL LAN br-lan", "this is a test"},
	{"LAN down", lan(func(l *LANFacts) { l.Up = false }), "FAIL LAN br-lan", "down or missing"},
	{"LAN without address", lan(func(l *LANFacts) { l.Addr = netip.Addr{} }), "FAIL LAN br-lan", "no IPv4 address"},
	{"upnp = no", lan(func(l *LANFacts) { l.Off, l.Joined, l.Answered = true, false, false }), "PASS LAN br-lan", "upnp = no"},
	{"not joined", lan(func(l *LANFacts) { l.Joined = false }), "FAIL LAN br-lan", "multicast is not heard|ip link set br-lan multicast on"},
	{"not answered", lan(func(l *LANFacts) { l.Answered = false }), "FAIL LAN br-lan", "not answered at 192.168.1.1|UDP port 1900"},

	{"SSDP taken", func(f *Facts) { f.Strangers = []Stranger{{1900, []string{"miniupnpd", "minidlnad"}}} }, "WARN UDP 1900",
		"also used by miniupnpd, minidlnad|stop that"},
	{"PCP taken", func(f *Facts) { f.Strangers = []Stranger{{5351, []string{"natpmpd"}}} }, "WARN UDP 5351", "natpmpd|PCP"},

	{"drift", func(f *Facts) { f.Drift = "map dnat4 lacks TCP port 80" }, "FAIL kernel", "map dnat4 lacks TCP port 80|kill -HUP"},
	{"drift not known", func(f *Facts) { f.DriftErr = errTest }, "WARN kernel", "this is a test"},
	{"mappings", func(f *Facts) { f.Mappings = 77 }, "PASS kernel", "77"},

	{"1970", year(1970), "WARN clock", "1970-06-01|leases do not depend on it"},
	{"2024", year(2024), "WARN clock", "NTP"},
	{"2025", year(2025), "PASS clock", "2025"},
	{"2100", year(2100), "PASS clock", "2100"},
	{"2101", year(2101), "WARN clock", "2101"},
}

// Issue 4, point 3: each line of check. A fact is changed, and only the lines
// about it change.
func TestJudge(t *testing.T) {
	for _, tt := range judgeCases {
		f := goodFacts()
		tt.change(&f)
		found := false
		worst := "PASS"
		for _, line := range judge(f) {
			if len(line) != 3 && len(line) != 4 {
				t.Fatalf("%s: %q", tt.name, line)
			}
			if strings.Compare(rank[line[0]], rank[worst]) > 0 {
				worst = line[0]
			}
			if line[0]+" "+line[1] != tt.want {
				if line[0] != "PASS" {
					t.Errorf("%s: also %q", tt.name, line)
				}
				continue
			}
			found = true
			for _, part := range strings.Split(tt.parts, "|") {
				if !strings.Contains(strings.Join(line[2:], "; "), part) {
					t.Errorf("%s: %q, want %q in it", tt.name, line, part)
				}
			}
		}
		if !found {
			t.Errorf("%s: %q, want %s", tt.name, judge(f), tt.want)
		}
		if code, _ := check(judge(f), false); code != strings.Index("PWF", worst[:1]) {
			t.Errorf("%s: exit code %d", tt.name, code)
		}
	}
}

var rank = map[string]string{"PASS": "0", "WARN": "1", "FAIL": "2"}

// live is a fact only when it is asked for.
func TestCheckLive(t *testing.T) {
	w := newWorld(t)
	if got := w.says(0, "passed: 10, warnings: 0, failures: 0", "check"); strings.Contains(got, "live") {
		t.Errorf("nobody asked for live:\n%s", got)
	}
	w.says(0, "PASS  live ", "check", "--live")
	w.daemon.facts.Route = "ppp0"
	w.says(1, "passed: 9, warnings: 1, failures: 0", "check")
	w.says(1, `"passed":9,"warnings":1,"failures":0`, "check", "--json")
	w.daemon.facts.Uplink.Up = false
	w.says(2, "passed: 7, warnings: 1, failures: 1", "check") // nothing to say of the address
}
