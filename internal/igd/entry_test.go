package igd_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// WIP-24: a description comes back as text, bounded, without what could forge
// a line.
func TestDescriptions(t *testing.T) {
	for _, tt := range []struct{ name, sent, want string }{
		{"plain", "web", "web"},
		{"not trimmed", "  web  ", "  web  "},
		{"markup", `<&>"'`, `<&>"'`},
		{"end of CDATA", "]]>", "]]>"},
		{"closing tags", "</NewPortMappingDescription></u:x>", "</NewPortMappingDescription></u:x>"},
		{"entities stay text", "&amp;&#65;", "&amp;&#65;"},
		{"control characters", "a\tb\r\nc\u0085d\u007fe", "abcde"},
		{"rule syntax", `"; flush ruleset`, `"; flush ruleset`},
		{"other scripts", "игра 游戏 🎮", "игра 游戏 🎮"},
		{"3000 bytes", strings.Repeat("x", 3000), strings.Repeat("x", 256)},
		{"3000 bytes of 3-byte characters", strings.Repeat("游", 1000), strings.Repeat("游", 85)},
		{"cut at a character", "x" + strings.Repeat("🎮", 64), "x" + strings.Repeat("🎮", 63)},
		{"markup at the cut", strings.Repeat("&", 3000), strings.Repeat("&", 256)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping("NewPortMappingDescription", tt.sent)...)
			generic := w.expect(0, alice, wanIPSpec, "GetGenericPortMappingEntry", "NewPortMappingIndex", "0")
			specific := w.expect(0, alice, wanIPSpec, "GetSpecificPortMappingEntry", key("", "8080", "TCP")...)
			for _, r := range []reply{generic, specific} {
				got := r.values["NewPortMappingDescription"]
				if got != tt.want || !utf8.ValidString(got) {
					t.Errorf("%q came back as %q, want %q", tt.sent, got, tt.want)
				}
			}
		})
	}
	// What XML cannot carry is no request at all (SOAP-8).
	w := newWorld(t)
	for _, bad := range []string{"\x00", "\x01", "\x1b[2J", "\xff", "\ufffe"} {
		body := strings.Replace(envelope(wanIPSpec.typ, "AddPortMapping", mapping()...), "web", bad, 1)
		w.unchanged(func() {
			r := w.reply(wanIPSpec.typ, "AddPortMapping", w.post(alice, wanIPSpec.control, body, "SOAPACTION", wanIPSpec.typ+"#AddPortMapping"))
			if r.code != 402 {
				t.Errorf("%q: %d", bad, r.code)
			}
		})
	}
}

// WIP-17: indexes from 0 without a gap, whoever asks, and 713 beyond the last.
func TestGetGenericPortMappingEntry(t *testing.T) {
	w := newWorld(t)
	w.expect(713, alice, wanIPSpec, "GetGenericPortMappingEntry", "NewPortMappingIndex", "0")
	w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping("NewRemoteHost", "11.0.0.9")...)
	w.expect(0, bob, wanIPSpec, "AddPortMapping", mapping("NewExternalPort", "9002", "NewInternalClient", bob.String(), "NewProtocol", "UDP", "NewEnabled", "0")...)
	w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping("NewExternalPort", "9003", "NewInternalPort", "5000", "NewLeaseDuration", "0")...)

	enumerate := func(want ...string) {
		t.Helper()
		for i, line := range want {
			r := w.expect(0, bob, wanIPSpec, "GetGenericPortMappingEntry", "NewPortMappingIndex", fmt.Sprint(i))
			if got := strings.Join(r.out, " "); got != line {
				t.Errorf("entry %d is %s, want %s", i, got, line)
			}
		}
		w.expect(713, bob, wanIPSpec, "GetGenericPortMappingEntry", "NewPortMappingIndex", fmt.Sprint(len(want)))
		w.expect(713, bob, wanIPSpec, "GetGenericPortMappingEntry", "NewPortMappingIndex", "65535")
	}
	const first, third = "11.0.0.9 8080 TCP 8080 192.168.1.10 1 web 3600", " 9003 TCP 5000 192.168.1.10 1 web 604800"
	enumerate(first, " 9002 UDP 8080 192.168.1.20 0 web 3600", third)
	w.expect(0, bob, wanIPSpec, "DeletePortMapping", key("", "9002", "UDP")...)
	enumerate(first, third)                                                  // WIP-13: no gap
	for _, bad := range []string{"-1", "abc", "", "65536", "0x0", missing} { // WIP-17b
		w.expect(402, bob, wanIPSpec, "GetGenericPortMappingEntry", ordered([]string{"NewPortMappingIndex"}, map[string]string{"NewPortMappingIndex": bad})...)
	}
}

// WIP-18: the key must match whole.
func TestGetSpecificPortMappingEntry(t *testing.T) {
	w := newWorld(t)
	w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping()...)
	w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping("NewRemoteHost", "11.0.0.9", "NewInternalPort", "9999")...)
	w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping("NewRemoteHost", "11.0.0.9", "NewExternalPort", "8082")...)
	for _, tt := range []struct {
		host, port, protocol string
		code                 int
		internal             string
	}{
		{"", "8080", "TCP", 0, "8080"},
		{"*", "8080", "tcp", 0, "8080"}, // WIP-9, SOAP-6
		{"0.0.0.0", "8080", "TCP", 0, "8080"},
		{"11.0.0.9", "8080", "TCP", 0, "9999"},
		{"11.0.0.10", "8080", "TCP", 714, ""},
		{"", "8082", "TCP", 714, ""}, // the wildcard is a key of its own
		{"", "8080", "UDP", 714, ""},
		{"", "8081", "TCP", 714, ""},
		{"", "0", "TCP", 714, ""},
		{"", "73616", "TCP", 402, ""}, // 8080 + 65536
		{"", "8080", "XYZ", 601, ""},  // PEERS 2.3: miniupnpd answers with the TCP entry
		{"", "8080", "", 601, ""},
		{"bogus host", "8080", "TCP", 402, ""},
		{missing, "8080", "TCP", 402, ""},
		{"", missing, "TCP", 402, ""},
		{"", "8080", missing, 402, ""},
	} {
		r := w.expect(tt.code, bob, wanIPSpec, "GetSpecificPortMappingEntry", key(tt.host, tt.port, tt.protocol)...)
		if r.values["NewInternalPort"] != tt.internal {
			t.Errorf("%q: NewInternalPort %q, want %q", tt, r.values["NewInternalPort"], tt.internal)
		}
	}
}

// WIP-13.
func TestDeletePortMapping(t *testing.T) {
	w := newWorld(t)
	w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping()...)
	w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping("NewRemoteHost", "11.0.0.9")...)
	for _, tt := range []struct {
		from                 netip.Addr
		host, port, protocol string
		code                 int
	}{
		{bob, "", "8080", "TCP", 606}, // another host's
		{bob, "11.0.0.9", "8080", "TCP", 606},
		{alice, "", "8081", "TCP", 714},
		{alice, "", "8080", "UDP", 714},
		{alice, "11.0.0.10", "8080", "TCP", 714},
		{alice, "", "0", "TCP", 714},
		{alice, "", "73616", "TCP", 402}, // WIP-17b
		{alice, "", "8080abc", "TCP", 402},
		{alice, "", "8080", "XYZ", 601}, // WIP-10
		{alice, "bogus host", "8080", "TCP", 402},
		{alice, missing, "8080", "TCP", 402}, // SOAP-5
		{alice, "", missing, "TCP", 402},
		{alice, "", "8080", missing, 402},
		{alice, "*", "8080", "tcp", 0},
		{alice, "", "8080", "TCP", 714}, // gone; PEERS 2.3: miniupnpd 200
		{alice, "11.0.0.9", "8080", "TCP", 0},
		{alice, "11.0.0.9", "8080", "TCP", 714},
	} {
		w.expect(tt.code, tt.from, wanIPSpec, "DeletePortMapping", key(tt.host, tt.port, tt.protocol)...)
	}
	if n := w.table.Len(); n != 0 {
		t.Errorf("%d mappings left", n)
	}
	open := newWorld(t, insecure)
	open.expect(0, alice, wanIPSpec, "AddPortMapping", mapping()...)
	open.expect(0, bob, wanIPSpec, "DeletePortMapping", key("", "8080", "TCP")...)
}

// WIP-5: the rest of the lease, enabled or not. It is never 0, which would
// mean for ever.
func TestRemainingLease(t *testing.T) {
	for _, enabled := range []string{"1", "0"} {
		w := newWorld(t)
		w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping("NewLeaseDuration", "100", "NewEnabled", enabled)...)
		for _, tt := range []struct {
			at   time.Duration
			want string
		}{
			{0, "100"}, {999 * time.Millisecond, "100"}, {time.Second, "99"}, {99 * time.Second, "1"},
			{99*time.Second + 999*time.Millisecond, "1"},
			{100 * time.Second, "1"}, // over, but not yet taken out of the table
		} {
			w.clock = time.Hour + tt.at
			generic := w.expect(0, bob, wanIPSpec, "GetGenericPortMappingEntry", "NewPortMappingIndex", "0")
			specific := w.expect(0, bob, wanIPSpec, "GetSpecificPortMappingEntry", key("", "8080", "TCP")...)
			for _, r := range []reply{generic, specific} {
				if got := r.values["NewLeaseDuration"]; got != tt.want || r.values["NewEnabled"] != enabled {
					t.Errorf("after %v: lease %s, enabled %s; want %s, %s", tt.at, got, r.values["NewEnabled"], tt.want, enabled)
				}
			}
		}
	}
}
