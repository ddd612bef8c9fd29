package hostile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// The victim's external ports.
const (
	byUPnP    = 20001
	byNATPMP  = 20002
	byPCP     = 20003
	byFilter  = 20004
	byRemote  = 20005
	byPortSet = 20010 // four
	disabled  = 20020
	served    = 8080 // its own port, for all that can have the same
)

// victim is lan1, which has something of every kind, and lan2 wants it.
type victim struct {
	*house
	nonce   string
	pinhole string // the UniqueID of the one by UPnP
	began   time.Time
	rows    []row
	rules   []string
}

// row is a mapping as upnpctl list --json has it.
type row map[string]any

// settleDown makes the victim's mappings.
func (h *house) settleDown() *victim {
	h.t.Helper()
	v := &victim{house: h, nonce: "0123456789ab"}
	for _, serve := range []func(uint16) error{
		func(p uint16) error { _, err := h.LAN1.EchoTCP(p); return err }, func(p uint16) error { _, err := h.LAN1.EchoUDP(p); return err },
		func(p uint16) error { _, err := h.LAN1.EchoTCP6(p); return err }, func(p uint16) error { _, err := h.LAN1.EchoUDP6(p); return err },
	} {
		if err := serve(served); err != nil {
			h.t.Fatal(err)
		}
	}
	own, own6 := h.peer(h.LAN1, lab.LAN1Addr).find(), h.peer(h.LAN1, lab.LAN1Addr6).find()
	codes := map[string]int{}
	_, codes["UPnP"] = own.add(wanip1, "AddPortMapping", wish{external: byUPnP, desc: "a victim's", lease: 7200})
	_, codes["UPnP for one"] = own.add(wanip1, "AddPortMapping", wish{external: byRemote, remote: lab.InternetAddr, lease: 7200})
	_, codes["disabled"] = own.add(wanip1, "AddPortMapping", wish{external: disabled, disabled: true, lease: 7200})
	v.pinhole, codes["pinhole"] = own6.pin(lab.LAN1Addr6, served, protoTCP, 7200)
	result, external := own.pmp(protoUDP, served, byNATPMP, 7200)
	codes["NAT-PMP"] = int(result) + byNATPMP - int(external)
	filter := option(optFilter, append([]byte{0, 128, 0, 0}, slices.Concat(make([]byte, 10), []byte{0xff, 0xff, 11, 0, 0, 1})...)...)
	for name, a := range map[string]pcpAsk{
		"PCP":      {proto: protoTCP, internal: 8081, external: byPCP},
		"FILTER":   {proto: protoTCP, internal: 8082, external: byFilter, options: filter},
		"PORT_SET": {proto: protoUDP, internal: 8090, external: byPortSet, options: option(optPortSet, 0, 4, 0x1f, 0x9a, 0)},
		"PEER":     {proto: protoUDP, internal: 8083, external: 20006, peer: netip.MustParseAddrPort("11.0.0.1:9")},
	} {
		a.lifetime, a.nonce = 7200, v.nonce
		r := own.pcp(a)
		if codes[name] = int(r.result); r.external != a.external {
			codes[name] = -int(r.external)
		}
	}
	codes["PCP pinhole"] = int(own6.pcp(pcpAsk{lifetime: 7200, nonce: v.nonce, proto: protoUDP, internal: served}).result)
	for name, code := range codes {
		if code != 0 {
			h.t.Fatalf("the victim's mapping by %s: error %d", name, code)
		}
	}
	v.began, v.rows, v.rules = time.Now(), v.list(), v.kernel()
	v.reachable()
	return v
}

// list gives the mappings of lan1.
func (v *victim) list() (rows []row) {
	v.t.Helper()
	var all struct{ Mappings []row }
	d := json.NewDecoder(bytes.NewReader([]byte(v.upnpctl("list", "--json"))))
	if err := d.Decode(&all); err != nil {
		v.t.Fatal(err)
	}
	for _, m := range all.Mappings {
		if client := fmt.Sprint(m["client"]); slices.Contains([]string{lab.LAN1Addr, lab.LAN1Addr6}, client) {
			rows = append(rows, m)
		}
	}
	return rows
}

var passing = regexp.MustCompile(` (expires|timeout) [0-9a-z]+| counter packets \d+ bytes \d+`)

// kernel gives all rules and elements but for what changes by itself, and what is
// lan2's.
func (v *victim) kernel() (lines []string) {
	v.t.Helper()
	text := strings.ReplaceAll(v.Router.Run(v.t, "nft", "list", "table", "inet", "upnpd"), ",\n", "\n")
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(passing.ReplaceAllString(line, ""))
		line = strings.TrimPrefix(line, "elements = { ")
		for _, element := range strings.Split(strings.TrimSuffix(line, " }"), ", ") {
			if strings.Contains(element, lab.LAN1Addr) || strings.Contains(element, lab.LAN1Addr6) {
				lines = append(lines, element)
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// unharmed checks that all the victim has is as it was, to the second of its leases.
func (v *victim) unharmed(after string) {
	v.t.Helper()
	now := v.list()
	if len(now) != len(v.rows) {
		v.t.Fatalf("after %s lan1 has\n%v\nhad\n%v", after, now, v.rows)
	}
	passed := time.Since(v.began).Seconds()
	for i, is := range now {
		was := v.rows[i]
		left, had := is["lease"].(float64), was["lease"].(float64)
		if left > had || left < had-passed-2 {
			v.t.Errorf("after %s %v of %v s are left, %v s ago it was %v: %v", after, left, had, passed, had, is)
		}
		for name := range was {
			if name != "lease" && name != "packets" && fmt.Sprint(is[name]) != fmt.Sprint(was[name]) {
				v.t.Errorf("after %s %s is %v, was %v: %v", after, name, is[name], was[name], was)
			}
		}
	}
	if rules := v.kernel(); !slices.Equal(rules, v.rules) {
		v.t.Errorf("after %s the kernel has\n%s\nhad\n%s", after, strings.Join(rules, "\n"), strings.Join(v.rules, "\n"))
	}
}

// reachable checks that the internet still gets to lan1.
func (v *victim) reachable() {
	v.t.Helper()
	for _, tt := range []struct {
		reach func(*lab.Host, string, time.Duration) (string, error)
		to    string
	}{
		{v.ReachTCP, fmt.Sprintf("%s:%d", lab.WANAddr, byUPnP)},
		{v.ReachTCP, fmt.Sprintf("%s:%d", lab.WANAddr, byRemote)},
		{v.ReachUDP, fmt.Sprintf("%s:%d", lab.WANAddr, byNATPMP)},
		{v.ReachTCP, net.JoinHostPort(lab.LAN1Addr6, fmt.Sprint(served))},
		{v.ReachUDP, net.JoinHostPort(lab.LAN1Addr6, fmt.Sprint(served))},
	} {
		if answer, err := tt.reach(v.Internet, tt.to, patience); err != nil || !strings.HasPrefix(answer, "lan1 ") {
			v.t.Errorf("%s answers %q, %v; want lan1", tt.to, answer, err)
		}
	}
}

// kept gives the lines of the lease file about lan1, without what is rewritten each
// time: their checksum, and the time that is left by other clocks than the boot's.
func (v *victim) kept() (lines []string) {
	v.t.Helper()
	text, err := os.ReadFile(v.leases)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		v.t.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		f := strings.Fields(line)
		if len(f) > 15 && (f[5] == lab.LAN1Addr || f[5] == lab.LAN1Addr6) {
			lines = append(lines, strings.Join(slices.Concat(f[1:14], f[16:]), " "))
		}
	}
	slices.Sort(lines)
	return lines
}

// wrote waits until the lease file tells of a new mapping of lan2, and so of all that
// was before.
func (v *victim) wrote(t testing.TB, p *peer, external int) {
	t.Helper()
	if _, code := p.add(wanip1, "AddPortMapping", wish{external: external, internal: 7001}); code != 0 {
		t.Fatalf("lan2 maps port %d for itself: error %d", external, code)
	}
	until(t, "the lease file is written", func() bool {
		text, _ := os.ReadFile(v.leases)
		return strings.Contains(string(text), fmt.Sprintf(" %d ", external))
	})
}
