package igd_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/igd"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// missing as a value leaves the argument out.
const missing = "\x00missing"

// mapping gives the arguments of AddPortMapping, with some changed. Names that
// are none of its arguments come last.
func mapping(changes ...string) []string {
	values := map[string]string{
		"NewRemoteHost": "", "NewExternalPort": "8080", "NewProtocol": "TCP", "NewInternalPort": "8080",
		"NewInternalClient": alice.String(), "NewEnabled": "1", "NewPortMappingDescription": "web", "NewLeaseDuration": "3600",
	}
	var more []string
	for i := 0; i < len(changes); i += 2 {
		if _, ok := values[changes[i]]; !ok {
			more = append(more, changes[i], changes[i+1])
			continue
		}
		values[changes[i]] = changes[i+1]
	}
	return append(ordered(wholeMapping, values), more...)
}

// key gives the arguments of GetSpecificPortMappingEntry and DeletePortMapping.
func key(host, port, protocol string) []string {
	return ordered(mappingKey, map[string]string{"NewRemoteHost": host, "NewExternalPort": port, "NewProtocol": protocol})
}

func ordered(names []string, values map[string]string) []string {
	var args []string
	for _, name := range names {
		if values[name] != missing {
			args = append(args, name, values[name])
		}
	}
	return args
}

func allowLow(w *world, _ *igd.Config) {
	anywhere := netip.MustParsePrefix("0.0.0.0/0")
	all := portmap.PortRange{First: 1, Last: 65535}
	w.policy.Rules = []portmap.Rule{
		{External: portmap.PortRange{First: 6000, Last: 6009}, Internal: all, Client: anywhere, Text: "deny 6000-6009 0.0.0.0/0 1-65535"},
		{Allow: true, External: all, Internal: all, Client: anywhere},
	}
}

func insecure(w *world, _ *igd.Config) { w.policy.Secure = false }

// plain is what mapping() asks for.
var plain = portmap.Mapping{
	Key:    portmap.Key{Protocol: portmap.TCP, ExternalPort: 8080},
	Client: alice, InternalPort: 8080, Enabled: true, Description: "web",
	Origin: portmap.UPnP, Owner: alice,
}

// AddPortMapping that succeeds, and what is then in the table.
func TestAddPortMapping(t *testing.T) {
	with := func(change func(*portmap.Mapping)) portmap.Mapping {
		m := plain
		change(&m)
		return m
	}
	for _, tt := range []struct {
		id     string
		args   []string
		want   portmap.Mapping
		lease  time.Duration
		change func(*world, *igd.Config)
	}{
		{id: "WIP-1", args: mapping(), want: plain},
		{id: "WIP-1 UDP", args: mapping("NewProtocol", "UDP"), want: with(func(m *portmap.Mapping) { m.Protocol = portmap.UDP })},
		{id: "WIP-4 lease 0", args: mapping("NewLeaseDuration", "0"), want: plain, lease: 604800 * time.Second},
		{id: "WIP-4 lease 1", args: mapping("NewLeaseDuration", "1"), want: plain, lease: time.Second},
		{id: "WIP-4 lease above the maximum", args: mapping("NewLeaseDuration", "99999999"), want: plain, lease: 604800 * time.Second},
		{id: "WIP-4 highest ui4", args: mapping("NewLeaseDuration", "4294967295"), want: plain, lease: 604800 * time.Second},
		{id: "WIP-7 ports that differ", args: mapping("NewInternalPort", "5001"), want: with(func(m *portmap.Mapping) { m.InternalPort = 5001 })},
		{id: "WIP-7 lowest and highest port", args: mapping("NewExternalPort", "65535", "NewInternalPort", "1"), change: allowLow,
			want: with(func(m *portmap.Mapping) { m.ExternalPort, m.InternalPort = 65535, 1 })},
		{id: "WIP-8 empty InternalClient is the caller", args: mapping("NewInternalClient", ""), want: plain},
		{id: "WIP-8 blank InternalClient is the caller", args: mapping("NewInternalClient", " \n"), want: plain},
		{id: "WIP-9 RemoteHost *", args: mapping("NewRemoteHost", "*"), want: plain},
		{id: "WIP-9 RemoteHost 0.0.0.0", args: mapping("NewRemoteHost", "0.0.0.0"), want: plain},
		{id: "WIP-9 RemoteHost", args: mapping("NewRemoteHost", " 11.0.0.9\n"), want: with(func(m *portmap.Mapping) { m.RemoteHost = netip.MustParseAddr("11.0.0.9") })},
		{id: "WIP-12 not enabled", args: mapping("NewEnabled", "0"), want: with(func(m *portmap.Mapping) { m.Enabled = false })},
		{id: "SOAP-5 an argument more", args: mapping("NewColour", "blue"), want: plain},
		{id: "SOAP-5 another order", want: plain, args: []string{
			"NewLeaseDuration", "3600", "NewPortMappingDescription", "web", "NewEnabled", "1", "NewInternalClient", alice.String(),
			"NewInternalPort", "8080", "NewProtocol", "TCP", "NewExternalPort", "8080", "NewRemoteHost", ""}},
		{id: "SOAP-6 white space", want: plain, args: mapping("NewExternalPort", "\n 8080\t", "NewProtocol", " TCP\r\n",
			"NewInternalClient", "\t192.168.1.10 ", "NewEnabled", " 1 ", "NewLeaseDuration", " 3600 ", "NewRemoteHost", " \n")},
		{id: "SOAP-6 tcp", args: mapping("NewProtocol", "tcp"), want: plain},
		{id: "SOAP-6 true", args: mapping("NewEnabled", "true"), want: plain},
		{id: "SOAP-6 Yes", args: mapping("NewEnabled", "Yes"), want: plain},
		{id: "SOAP-6 false", args: mapping("NewEnabled", "false"), want: with(func(m *portmap.Mapping) { m.Enabled = false })},
		{id: "SOAP-6 no", args: mapping("NewEnabled", "no"), want: with(func(m *portmap.Mapping) { m.Enabled = false })},
		{id: "SOAP-7 sign", args: mapping("NewExternalPort", "+8080"), want: plain},
		{id: "SOAP-7 leading zeros", args: mapping("NewExternalPort", "0000000008080"), want: plain},
		{id: "PEERS 2.3 description blank", args: mapping("NewPortMappingDescription", ""), want: with(func(m *portmap.Mapping) { m.Description = "" })},
		{id: "insecure: for another host", args: mapping("NewInternalClient", bob.String()), change: insecure,
			want: with(func(m *portmap.Mapping) { m.Client = bob })},
	} {
		t.Run(tt.id, func(t *testing.T) {
			w := newWorld(t, tt.change)
			w.expect(0, alice, wanIPSpec, "AddPortMapping", tt.args...)
			want := tt.want
			want.Deadline = w.clock + cmp.Or(tt.lease, time.Hour)
			if got := w.table.List(); len(got) != 1 || got[0] != want {
				t.Errorf("table\n%+v\nwant\n%+v", got, want)
			}
		})
	}
}

// AddPortMapping that is refused: the code says why and nothing has changed.
func TestAddPortMappingRefused(t *testing.T) {
	type row struct {
		id     string
		code   int
		args   []string
		change func(*world, *igd.Config)
	}
	rows := []row{
		{id: "WIP-6 external port 0", code: 716, args: mapping("NewExternalPort", "0")},
		{id: "WIP-7 internal port 0", code: 402, args: mapping("NewInternalPort", "0")},
		{id: "WIP-11 port of the router", code: 718, args: mapping(), change: func(w *world, _ *igd.Config) {
			w.inUse = func(p portmap.Protocol, port uint16) (bool, error) { return p == portmap.TCP && port == 8080, nil }
		}},
		{id: "WIP-11 cannot tell", code: 501, args: mapping(), change: func(w *world, _ *igd.Config) {
			w.inUse = func(portmap.Protocol, uint16) (bool, error) { return false, errors.New("no /proc") }
		}},
		{id: "ACC-6 another host", code: 718, args: mapping("NewInternalClient", bob.String())},
		{id: "ACC-6 external port below 1024", code: 718, args: mapping("NewExternalPort", "80")},
		{id: "ACC-6 internal port below 1024", code: 718, args: mapping("NewInternalPort", "22")},
		{id: "ACC-6 denied by a rule", code: 718, args: mapping("NewExternalPort", "6005"), change: allowLow},
		{id: "quota of the table", code: 501, args: mapping(), change: func(w *world, _ *igd.Config) { w.policy.MaxMappings = 0 }},
		{id: "quota of the client", code: 501, args: mapping(), change: func(w *world, _ *igd.Config) { w.policy.MaxPerClient = 0 }},
	}
	for _, name := range wholeMapping {
		rows = append(rows, row{id: "SOAP-5 no " + name, code: 402, args: mapping(name, missing)})
	}
	for name, values := range map[string][]string{ // WIP-17b, SOAP-7: never truncated
		"NewExternalPort": {"70000", "65536", "-1", "5011abc", "", "*", "8080.0", "0x1f90", "8 080", "８０８０", "+", "++1", "1e3",
			"18446744073709559696", "99999999999999999999999999"},
		"NewInternalPort":  {"70000", "-1", "5011abc", "", "8080,8081", "4294975376"},
		"NewLeaseDuration": {"-1", "abc", "", "4294967296", "3600s", "3600.5"},
		"NewEnabled":       {"zzz", "", "2", "-1", "on", "yes1"},
		"NewInternalClient": {"1.1.1.1", "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", // WIP-8
			router.String(), wanIP.String(), "192.168.1.0", "192.168.1.255", "192.168.2.10",
			"192.168.1.10:80", "192.168.1.010", "192.168.1", "3232235786", "::ffff:192.168.1.10", "fe80::1", "fe80::1%eth0",
			"`touch x`", ";reboot", "192.168.1.10 -j ACCEPT", "192.168.1.10/24"}, // PEERS 4: CVE-2014-8361
		"NewRemoteHost": {"bogus host", "host.example", "255.255.255.255", "224.0.0.1", "127.0.0.1", // WIP-9
			"1.2.3", "1.2.3.4/8", "2001:db8::1", "::", "**", "-1"},
	} {
		for _, v := range values {
			rows = append(rows, row{id: "WIP-17b " + name + " " + v, code: 402, args: mapping(name, v)})
		}
	}
	for _, v := range []string{"XYZ", "", "6", "TCP UDP", "TCP,UDP", "T CP", "both", "SCTP"} { // WIP-10, FIX-5
		rows = append(rows, row{id: "FIX-5 protocol " + v, code: 601, args: mapping("NewProtocol", v)})
	}
	for _, tt := range rows {
		t.Run(tt.id, func(t *testing.T) {
			w := newWorld(t, tt.change)
			for _, other := range []string{"9001", "9002"} { // something that could be damaged
				if r := w.call(bob, wanIPSpec, "AddPortMapping", mapping("NewExternalPort", other, "NewInternalClient", bob.String())...); r.code != 0 && tt.change == nil {
					t.Fatal(r.text)
				}
			}
			w.expect(tt.code, alice, wanIPSpec, "AddPortMapping", tt.args...)
		})
	}
}

// A name as an address is refused at once; nobody is asked for it.
func TestNamesAreNotResolved(t *testing.T) {
	before := net.DefaultResolver
	defer func() { net.DefaultResolver = before }()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("a name was looked up") // WIP-9, PEERS 2.3: miniupnpd hangs here
		return nil, errors.New("no network in this test")
	}}
	w := newWorld(t)
	for _, name := range []string{"host.example", "localhost", "router.lan", "a"} {
		w.expect(402, alice, wanIPSpec, "AddPortMapping", mapping("NewInternalClient", name)...)
		w.expect(402, alice, wanIPSpec, "AddPortMapping", mapping("NewRemoteHost", name)...)
		w.expect(402, alice, wanIPSpec, "GetSpecificPortMappingEntry", key(name, "8080", "TCP")...)
		w.expect(402, alice, wanIPSpec, "DeletePortMapping", key(name, "8080", "TCP")...)
	}
}

// WIP-2: what a second AddPortMapping meets.
func TestConflictMatrix(t *testing.T) {
	const peer, other = "11.0.0.9", "11.0.0.10"
	from := func(a netip.Addr, changes ...string) func() (netip.Addr, []string) {
		return func() (netip.Addr, []string) {
			return a, mapping(append([]string{"NewInternalClient", a.String()}, changes...)...)
		}
	}
	for _, tt := range []struct {
		name          string
		first, second func() (netip.Addr, []string)
		code, entries int
	}{
		{"protocol differs", from(alice), from(bob, "NewProtocol", "UDP"), 0, 2},
		{"external port differs", from(alice), from(bob, "NewExternalPort", "8081"), 0, 2},
		{"the same again", from(alice), from(alice), 0, 1},
		{"same key and client, other values", from(alice), from(alice, "NewInternalPort", "9999", "NewEnabled", "0", "NewLeaseDuration", "60", "NewPortMappingDescription", "new"), 0, 1},
		{"same RemoteHost and client", from(alice, "NewRemoteHost", peer), from(alice, "NewRemoteHost", peer), 0, 1}, // PEERS 2.3: miniupnpd 718
		{"same key, other client", from(alice), from(bob), 718, 1},
		{"same RemoteHost, other client", from(alice, "NewRemoteHost", peer), from(bob, "NewRemoteHost", peer), 718, 1},
		{"other RemoteHost, other client", from(alice, "NewRemoteHost", peer), from(bob, "NewRemoteHost", other), 718, 1},
		{"wildcard against RemoteHost, other client", from(alice, "NewRemoteHost", peer), from(bob), 718, 1},
		{"RemoteHost against wildcard, other client", from(alice), from(bob, "NewRemoteHost", peer), 718, 1},
		{"other RemoteHost, same client", from(alice, "NewRemoteHost", peer), from(alice, "NewRemoteHost", other), 0, 2},
		{"RemoteHost and wildcard, same client", from(alice, "NewRemoteHost", peer), from(alice), 0, 2},
		{"disabled still conflicts", from(alice, "NewEnabled", "0"), from(bob), 718, 1}, // WIP-12
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			client, args := tt.first()
			w.expect(0, client, wanIPSpec, "AddPortMapping", args...)
			w.clock += 100 * time.Second
			client, args = tt.second()
			w.expect(tt.code, client, wanIPSpec, "AddPortMapping", args...)
			if got := w.query(wanIPSpec, "PortMappingNumberOfEntries"); got != fmt.Sprint(tt.entries) {
				t.Errorf("PortMappingNumberOfEntries %s, want %d", got, tt.entries)
			}
			if tt.code != 0 {
				return
			}
			values := map[string]string{}
			for i := 0; i < len(args); i += 2 {
				values[args[i]] = args[i+1]
			}
			r := w.expect(0, alice, wanIPSpec, "GetSpecificPortMappingEntry", ordered(mappingKey, values)...)
			for _, name := range mappingTarget { // all of it is replaced
				if r.values[name] != values[name] {
					t.Errorf("%s is %q, want %q", name, r.values[name], values[name])
				}
			}
		})
	}
}

// A kernel that refuses leaves nothing behind: 501.
func TestKernelRefuses(t *testing.T) {
	w := newWorld(t)
	w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping()...)
	w.kernel.Break(true)
	w.expect(501, alice, wanIPSpec, "AddPortMapping", mapping("NewExternalPort", "8081")...)
	w.expect(501, alice, wanIPSpec, "AddPortMapping", mapping("NewInternalPort", "8081")...)
	w.expect(501, alice, wanIPSpec, "DeletePortMapping", key("", "8080", "TCP")...)
	w.kernel.Break(false)
	w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping("NewExternalPort", "8081")...)
	w.expect(0, alice, wanIPSpec, "DeletePortMapping", key("", "8080", "TCP")...)
}

func TestQuota(t *testing.T) {
	w := newWorld(t) // 6 in all, 4 for one client
	for port := 9001; port <= 9004; port++ {
		w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping("NewExternalPort", fmt.Sprint(port))...)
	}
	w.expect(501, alice, wanIPSpec, "AddPortMapping", mapping("NewExternalPort", "9005")...)
	w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping("NewExternalPort", "9004", "NewInternalPort", "7777")...)
	for port := 9005; port <= 9006; port++ {
		w.expect(0, bob, wanIPSpec, "AddPortMapping", mapping("NewExternalPort", fmt.Sprint(port), "NewInternalClient", bob.String())...)
	}
	w.expect(501, bob, wanIPSpec, "AddPortMapping", mapping("NewExternalPort", "9007", "NewInternalClient", bob.String())...)
	w.expect(0, alice, wanIPSpec, "DeletePortMapping", key("", "9001", "TCP")...)
	w.expect(0, bob, wanIPSpec, "AddPortMapping", mapping("NewExternalPort", "9007", "NewInternalClient", bob.String())...)
}

// Handle is called by many connections at once.
func TestConcurrentRequests(t *testing.T) {
	w := newWorld(t, func(w *world, _ *igd.Config) { w.policy.MaxMappings, w.policy.MaxPerClient = 100, 100 })
	var done sync.WaitGroup
	for i := range 8 {
		done.Add(1)
		go func() {
			defer done.Done()
			port := fmt.Sprint(9000 + i)
			for range 10 {
				for action, args := range map[string][]string{
					"AddPortMapping": mapping("NewExternalPort", port), "GetSpecificPortMappingEntry": key("", port, "TCP"),
					"GetGenericPortMappingEntry": {"NewPortMappingIndex", "0"}, "GetStatusInfo": nil,
				} {
					w.call(alice, wanIPSpec, action, args...)
				}
				w.get("/gatedesc.xml")
			}
		}()
	}
	done.Wait()
	w.inStep()
	if n := w.table.Len(); n != 8 {
		t.Errorf("%d mappings, want 8", n)
	}
}
