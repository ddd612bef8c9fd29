package ctl

import (
	"encoding/json"
	"net/netip"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/portmap/portmaptest"
	"github.com/linux-igd/upnpd/internal/wan"
)

// past is a time on another day than today, whenever and wherever this runs.
func past(second int) time.Time { return time.Date(2020, 1, 2, 3, 4, second, 0, time.Local) }

// decisions replaces what the journal has by what the golden outputs show.
func (w *world) decisions() {
	w.server.Journal.entries = nil
	record := func(second int, from, what, verdict string, refused bool) {
		d := portmap.Decision{Time: past(second), What: what, Verdict: verdict, Refused: refused}
		if from != "" {
			d.From = addr(from)
		}
		w.server.Journal.Record(d)
	}
	for i := range 7 {
		record(i, "192.168.1.10", "map TCP port "+strconv.Itoa(80+i)+" to 192.168.1.10 port 80", "refused: denied by the rules", true)
	}
	record(7, "192.168.1.10", "map TCP port 8080 to 192.168.1.10 port 80", "granted for 3600 s (rule: allow any)", false)
	for i := range 5 {
		record(8+i, "192.168.1.11", "delete TCP port 8080", "refused: not authorized: it belongs to 192.168.1.10", true)
	}
	record(13, "", "delete all mappings", "5 deleted", false)
	record(14, "192.168.1.12", "map "+hostile, "\x1b[2J\r\n\x9b\xff", false)
}

// Issue 4, point 3: columns that line up, stable order, the texts of all
// commands. And point 6: whatever --json prints is JSON.
func TestGolden(t *testing.T) {
	w := newWorld(t)
	w.home()
	w.decisions()
	for _, tt := range []struct {
		name string
		args string
		code int
	}{
		{"list.txt", "list", 0},
		{"list.json", "list --json", 0},
		{"status.txt", "status", 0},
		{"status.json", "--json status", 0},
		{"check.txt", "check", 0},
		{"check.json", "check json", 0},
		{"check-live.txt", "check --live", 0},
		{"log.txt", "log", 0},
	} {
		stdout, stderr, code := w.upnpctl(strings.Fields(tt.args)...)
		if code != tt.code || stderr != "" {
			t.Errorf("%s: code %d, %q", tt.args, code, stderr)
		}
		stdout = regexp.MustCompile(`"(time|unique_id)":[0-9]+`).ReplaceAllString(stdout, `"$1":0`) // local time, a random start
		golden(t, tt.name, stdout)
		if strings.HasSuffix(tt.name, ".json") && (!json.Valid([]byte(stdout)) || !strings.HasSuffix(stdout, "}\n")) {
			t.Errorf("%s is not JSON in a line", tt.args)
		}
	}
}

// A router where nothing is as it should be.
func TestGoldenTrouble(t *testing.T) {
	w := newWorld(t)
	w.fw.Break(true)
	w.daemon.status = Status{
		Version: "0.1.0", Uplink: wan.Uplink{Name: "ppp0"}, Firewall: "iptables", ForwardPath: "chain FORWARD drops; let them pass: iptables -I FORWARD",
		LeaseFile: "/var/run/upnpd/leases", LeaseFault: "no space left on device",
	}
	w.daemon.facts = Facts{
		Uplink: wan.Uplink{Name: "wan0", Index: 2, Up: true, Addr: addr("100.64.0.9")}, Route: "ppp0",
		NotForwarding: []string{"net.ipv4.ip_forward", "net.ipv4.conf.br-lan.forwarding"},
		Firewall:      "iptables", ForwardErr: errTest, LANs: []LANFacts{{Name: "br-lan", Addr: addr("192.168.1.1"), Up: true}},
		Strangers: []Stranger{{1900, []string{"miniupnpd", "minidlna\x1b"}}}, Drift: "chain UPNPD lacks 2 rules", Now: past(0),
	}
	for _, tt := range []struct {
		name, args string
		code       int
	}{
		{"trouble-list.txt", "list", 0},
		{"trouble-list.json", "list --json", 0},
		{"trouble-status.txt", "status", 0},
		{"trouble-status.json", "status --json", 0},
		{"trouble-check.txt", "check", 2},
		{"trouble-check.json", "check --json", 2},
		{"trouble-log.txt", "log", 0},
	} {
		stdout, stderr, code := w.upnpctl(strings.Fields(tt.args)...)
		if code != tt.code || stderr != "" {
			t.Errorf("%s: code %d, %q", tt.args, code, stderr)
		}
		golden(t, tt.name, stdout)
		if strings.HasSuffix(tt.name, ".json") && !json.Valid([]byte(stdout)) {
			t.Errorf("%s is not JSON", tt.args)
		}
	}
}

// The documented fields, and the values of one mapping in both forms.
func TestListJSON(t *testing.T) {
	w := newWorld(t)
	w.home()
	var got struct {
		Mappings []struct {
			Protocol     string  `json:"protocol"`
			ExternalPort uint16  `json:"external_port"`
			RemoteHost   *string `json:"remote_host"`
			Client       string  `json:"client"`
			Host         *string `json:"host"`
			InternalPort uint16  `json:"internal_port"`
			Lease        int     `json:"lease"`
			MadeBy       string  `json:"made_by"`
			Owner        string  `json:"owner"`
			Enabled      bool    `json:"enabled"`
			Packets      *uint64 `json:"packets"`
			Description  *string `json:"description"`
			RemotePort   *uint16 `json:"remote_port"`
			UniqueID     *uint16 `json:"unique_id"`
			Ports        uint16  `json:"ports"`
		} `json:"mappings"`
	}
	decode(t, w.says(0, "", "list", "--json"), &got)
	if len(got.Mappings) != 9 {
		t.Fatalf("%d mappings", len(got.Mappings))
	}
	m := got.Mappings[1] // TCP 8080
	if m.Protocol != "TCP" || m.ExternalPort != 8080 || m.RemoteHost != nil || m.Client != "192.168.1.66" || m.Host != nil ||
		m.Lease != 59 || m.MadeBy != "NAT-PMP" || m.Owner != "192.168.1.2" || !m.Enabled || *m.Packets != 8080 || m.Ports != 1 || *m.Description != hostile {
		t.Errorf("got %+v", m)
	}
	if m = got.Mappings[3]; m.Client != "2001:db8::5" || m.RemoteHost != nil || *m.RemotePort != 5000 || *m.UniqueID == 0 || *m.UniqueID == *got.Mappings[2].UniqueID {
		t.Errorf("got %+v, a pinhole", m)
	}
	m = got.Mappings[6]
	if *m.RemoteHost != "11.0.0.20" || *m.Host != "家庭" || m.Enabled {
		t.Errorf("got %+v; want remote hosts in numeric order", m)
	}
	if m = got.Mappings[7]; m.Description != nil {
		t.Errorf("got %+v, want null for no description", m)
	}
}

// The order is that of protocol, port and remote host, as numbers.
func TestListOrder(t *testing.T) {
	all := make([]portmap.Mapping, 500)
	for i := range all {
		n := uint32(i) * 2654435761 // Knuth's multiplicative hash
		k := portmap.Key{Protocol: []portmap.Protocol{portmap.UDP, portmap.TCP}[n>>31], ExternalPort: uint16(n>>20)&15 + 1}
		if n&(1<<16) != 0 {
			k.RemoteHost = netip.AddrFrom4([4]byte{11, byte(n >> 8), 0, byte(n)})
		}
		all[i].Key = k
	}
	sort.Sort(byKey(all))
	if !slices.IsSortedFunc(all, portmaptest.Compare) {
		t.Error("not sorted")
	}
}

func TestStatusJSON(t *testing.T) {
	w := newWorld(t)
	w.home()
	w.decisions()
	var got struct {
		Version         string  `json:"version"`
		Uptime          int     `json:"uptime"`
		Uplink          string  `json:"uplink"`
		UplinkUp        bool    `json:"uplink_up"`
		UplinkAddress   string  `json:"uplink_address"`
		UplinkSpeed     uint64  `json:"uplink_speed"`
		ExternalAddress string  `json:"external_address"`
		Firewall        string  `json:"firewall"`
		ForwardPath     *string `json:"forward_path"`
		ForwardErr      *string `json:"forward_path_error"`
		LANs            []struct {
			Device    string   `json:"device"`
			Addresses []string `json:"addresses"`
			Served    bool     `json:"served"`
			Reason    *string  `json:"reason"`
		} `json:"lans"`
		Mappings        int     `json:"mappings"`
		MaxMappings     int     `json:"max_mappings"`
		MaxPerClient    int     `json:"max_mappings_per_client"`
		LargestClient   string  `json:"largest_client"`
		LargestHost     string  `json:"largest_host"`
		LargestMappings int     `json:"largest_mappings"`
		LeaseFile       string  `json:"lease_file"`
		LeaseFileError  *string `json:"lease_file_error"`
		Refusals        []struct {
			Time    int64  `json:"time"`
			From    string `json:"from"`
			What    string `json:"what"`
			Verdict string `json:"verdict"`
			Times   int    `json:"times"`
		} `json:"refusals"`
	}
	decode(t, w.says(0, "", "status", "--json"), &got)
	if got.Uptime != 76*3600+5*60+6 || !got.UplinkUp || got.UplinkSpeed != 1e9 || len(got.LANs) != 2 || len(got.LANs[0].Addresses) != 2 ||
		got.Mappings != 9 || got.MaxPerClient != 200 || got.LargestClient != "192.168.1.5" || got.LargestHost != "家庭" || got.LargestMappings != 3 ||
		got.ForwardPath != nil || got.LeaseFileError != nil || *got.LANs[1].Reason != "there is no such device" {
		t.Errorf("got %+v", got)
	}
	if len(got.Refusals) != 5 {
		t.Fatalf("%d refusals, want the last 5", len(got.Refusals))
	}
	if r := got.Refusals[4]; r.Time != past(12).Unix() || r.Times != 5 || r.From != "192.168.1.11" || r.What != "delete TCP port 8080" {
		t.Errorf("last refusal %+v", r)
	}
	if r := got.Refusals[0]; r.What != "map TCP port 83 to 192.168.1.10 port 80" {
		t.Errorf("first refusal %+v", r)
	}
}

// decode wants exactly the fields that v has.
func decode(t *testing.T, text string, v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// PEERS.md 2.6 and OPENWRT.md, section 6: the lines of miniupnpd, in the order
// of the table; what is not enabled is no open port.
func TestExport(t *testing.T) {
	w := newWorld(t)
	w.home()
	now := time.Now().Unix()
	for _, tt := range []struct{ name, option string }{{"export.txt", ""}, {"export-remote.txt", "--remote-host"}} {
		stdout := w.says(0, "", strings.Fields("export "+tt.option)...)
		for _, line := range strings.Split(strings.TrimSpace(stdout), "\n") {
			expiry, err := strconv.ParseInt(regexp.MustCompile(`[0-9]{10}`).FindString(line), 10, 64)
			left := expiry - now
			if err != nil || left < 59 || left > 604800+30 {
				t.Errorf("%s: %d s are left, %v", line, left, err)
			}
		}
		golden(t, tt.name, regexp.MustCompile(`[0-9]{10}`).ReplaceAllString(stdout, "EXPIRY"))
	}
}

// No output moves the cursor, forges a line or turns the writing direction.
func TestHostileStrings(t *testing.T) {
	var evil strings.Builder
	for r := rune(0); r < 0x100; r++ {
		evil.WriteRune(r)
	}
	evil.WriteString("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\ufeff\U000e0020\xff\xc0\x80\t\"\\")
	s := evil.String()
	w := newWorld(t)
	w.mapping("192.168.1.5", 8080, func(r *portmap.Request) { r.Description = s })
	w.leases("9 aa:aa:aa:aa:aa:aa 192.168.1.5 na\x1b\u202eme\x00 *\n")
	w.daemon.status.Version, w.daemon.status.Uplink.Name, w.daemon.status.Firewall = s, s, s
	w.daemon.status.ForwardPath, w.daemon.status.LeaseFile, w.daemon.status.LeaseFault = s, s, s
	w.daemon.status.LANs = []LANStatus{{Name: s, Why: s}}
	w.daemon.facts.Uplink.Name, w.daemon.facts.Firewall, w.daemon.facts.ForwardPath, w.daemon.facts.Drift = s, s, s, s
	w.daemon.facts.LANs[0].Name = s
	w.daemon.facts.Strangers = []Stranger{{1900, []string{s}}, {5351, []string{s}}}
	w.daemon.facts.NotForwarding = []string{s}
	w.server.Journal.entries = nil
	w.server.Journal.Record(portmap.Decision{What: s, Verdict: s, Refused: true})
	for _, tt := range []struct {
		args  string
		lines int
	}{
		{"list", 2}, {"list --json", 1}, {"status", 10}, {"status --json", 1}, {"check", 11}, {"check --json", 1}, {"check --live", 12},
		{"log", 1}, {"export", 1}, {"export --remote-host", 1},
		{"delete \x1b[2J\u202e", 1}, {"list \u202e\x07", 1}, {"\u2028", 1}, {"delete TCP 8080", 1},
	} {
		args, lines := tt.args, tt.lines
		stdout, stderr, _ := w.upnpctl(strings.Split(args, " ")...)
		got := stdout + stderr
		if n := strings.Count(got, "\n"); n != lines || !strings.HasSuffix(got, "\n") {
			t.Errorf("%q: %d lines, want %d:\n%q", args, n, lines, got)
		}
		if bad := unprintable(got); bad != "" {
			t.Errorf("%q prints %s", args, bad)
		}
		if strings.HasSuffix(args, "--json") && !json.Valid([]byte(got)) {
			t.Errorf("%q is no JSON: %s", args, got)
		}
	}
}

// unprintable shows what must reach no terminal, "" when nothing does.
func unprintable(s string) string {
	for i, r := range s {
		if r != '\n' && !strconv.IsPrint(r) || r == 0xFFFD {
			return strconv.Quote(s[max(0, i-10):min(len(s), i+10)])
		}
	}
	return ""
}
