package pcp

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestOptions asks for one new mapping each, of IPv4 or IPv6.
func TestOptions(t *testing.T) {
	third := func(p []byte) []byte { return option(1, p...) }
	a4, b4, a6 := unhex(annHex), unhex(ours), ann6.As16()
	set := func(size byte) []byte { return option(130, 0, size, 0x13, 0x88, 0) }
	long := strings.Repeat("ä", 200)
	for _, tt := range []struct {
		name    string
		six     bool
		gone    bool // lifetime 0
		options [][]byte
		result  result
		remote  string // of the mapping then
		answer  []byte
	}{
		{name: "MAP-14 THIRD_PARTY, another", options: [][]byte{third(b4)}, result: unsuppOption},
		{name: "MAP-14 THIRD_PARTY, the source", options: [][]byte{third(a4)}, result: malformedRequest},
		{name: "MAP-14 THIRD_PARTY, the source of IPv6", six: true, options: [][]byte{third(a6[:])}, result: malformedRequest},
		{name: "MAP-14 THIRD_PARTY, short", options: [][]byte{third(b4[:12])}, result: malformedOption},
		{name: "PREFER_FAILURE, long", options: [][]byte{option(2, 1)}, result: malformedOption},
		{name: "PREFER_FAILURE twice", options: [][]byte{option(2), option(2)}, result: malformedOption},
		{name: "PREFER_FAILURE, delete", gone: true, options: [][]byte{option(2)}, result: malformedOption},
		{name: "MAP-13 one host", options: [][]byte{filterOption(128, 0, "::ffff:11.0.0.9")}, remote: "11.0.0.9/32"},
		{name: "MAP-13 a prefix, masked", options: [][]byte{filterOption(120, 0, "::ffff:11.0.0.9")}, remote: "11.0.0.0/24"},
		{name: "MAP-13 a port of all", options: [][]byte{filterOption(96, 80, "::ffff:11.0.0.9")}, remote: "invalid Prefix 80"},
		{name: "MAP-13 prefix too short", options: [][]byte{filterOption(95, 0, "::ffff:11.0.0.9")}, result: malformedOption},
		{name: "MAP-13 prefix too long", options: [][]byte{filterOption(129, 0, "::ffff:11.0.0.9")}, result: malformedOption},
		{name: "MAP-13 of the other family", options: [][]byte{filterOption(128, 0, "2001:db8::9")}, result: malformedOption},
		{name: "MAP-13 IPv6 host", six: true, options: [][]byte{filterOption(128, 80, "2001:db8::9")}, remote: "2001:db8::9/128 80"},
		{name: "MAP-13 IPv6 prefix", six: true, options: [][]byte{filterOption(32, 0, "2001:db8::9")}, remote: "2001:db8::/32"},
		{name: "MAP-13 IPv6, of the other family", six: true, options: [][]byte{filterOption(128, 0, "::ffff:11.0.0.9")}, result: malformedOption},
		{name: "MAP-13 two", options: [][]byte{filterOption(128, 0, "::ffff:11.0.0.9"), filterOption(128, 0, "::ffff:11.0.0.8")}, result: excessivePeers},
		{name: "MAP-13 cleared between", options: [][]byte{filterOption(128, 0, "::ffff:11.0.0.9"), filterOption(0, 0, "::"), filterOption(128, 0, "::ffff:11.0.0.8")}, remote: "11.0.0.8/32"},
		{name: "MAP-13 cleared", options: [][]byte{filterOption(128, 9, "::ffff:11.0.0.9"), filterOption(0, 7, "::")}},
		{name: "MAP-13 short", options: [][]byte{option(3, make([]byte, 16)...)}, result: malformedOption},
		{name: "MAP-13 delete", gone: true, options: [][]byte{filterOption(128, 0, "::ffff:11.0.0.9")}, result: malformedOption},
		{name: "MAP-15 invalid UTF-8", options: [][]byte{option(128, 'a', 0xff)}, answer: []byte{}},
		{name: "MAP-15 empty", options: [][]byte{option(128)}},
		{name: "MAP-15 long", options: [][]byte{option(128, []byte(long)...)}, answer: option(128, []byte(long)[:256]...)},
		{name: "MAP-15 control characters", options: [][]byte{option(128, []byte("a\nb")...)}, answer: option(128, []byte("ab")...)},
		{name: "MAP-15 twice", options: [][]byte{option(128, 'a'), option(128, 'b')}, result: malformedOption},
		{name: "MAP-16 size 0", options: [][]byte{set(0)}, result: malformedOption},
		{name: "MAP-16 twice", options: [][]byte{set(4), set(4)}, result: malformedOption},
		{name: "MAP-16 with PREFER_FAILURE", options: [][]byte{set(4), option(2)}, result: malformedOption},
		{name: "MAP-16 after PREFER_FAILURE", options: [][]byte{option(2), set(4)}, result: malformedOption},
		{name: "MAP-16 short", options: [][]byte{option(130, 0, 4, 0x13, 0x88)}, result: malformedOption},
		{name: "MAP-16 one port only", options: [][]byte{set(1)}, answer: []byte{}},
		{name: "MAP-16 fewer", options: [][]byte{set(200)}, answer: set(10)}, // max_mappings_per_client
		{name: "MAP-16 IPv6", six: true, options: [][]byte{set(3)}, answer: set(3)},
		{name: "7.2 unknown, mandatory", options: [][]byte{option(4)}, result: unsuppOption},
		{name: "7.2 unknown, mandatory, 127", options: [][]byte{option(127)}, result: unsuppOption},
		{name: "PCP-8 optional", options: [][]byte{option(255, 1, 2, 3), option(129), option(131)}, answer: []byte{}},
		{name: "PCP-8 the first fault counts", options: [][]byte{option(4), option(2, 1)}, result: unsuppOption},
		{name: "all in order", options: [][]byte{option(128, 'x'), option(200), option(2), filterOption(128, 0, "::ffff:11.0.0.9")}, remote: "11.0.0.9/32",
			answer: bytes.Join([][]byte{option(128, 'x'), option(2), filterOption(128, 0, "::ffff:11.0.0.9")}, nil)},
		{name: "7.2 longer than the packet", options: [][]byte{{128, 0, 0, 5, 1, 2, 3, 4}}, result: malformedOption},
		{name: "7.2 longest", options: [][]byte{{128, 0, 0xff, 0xff}}, result: malformedOption},
	} {
		w, client := newWorld(t, nil), ann
		if tt.six {
			w, client = newWorld(t, ipv6), ann6
		}
		m := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 5000, options: tt.options}
		if tt.gone {
			m.lifetime = 0
		}
		got := w.pcpAsk(client, m.of(client))
		if got.result != byte(tt.result) {
			t.Errorf("%s: %v, want %v", tt.name, result(got.result), tt.result)
		}
		if tt.answer == nil || tt.result != 0 { // PCP-7
			tt.answer = bytes.Join(tt.options, nil)
		}
		if !bytes.Equal(got.options, tt.answer) {
			t.Errorf("%s: options % x, want % x", tt.name, got.options, tt.answer)
		}
		list := w.table.List()
		if (len(list) == 1) != (tt.result == 0) {
			t.Errorf("%s: the table has %v", tt.name, list)
		}
		if len(list) == 1 {
			if remote := remoteOf(list[0]); remote != tt.remote {
				t.Errorf("%s: from %q, want %q", tt.name, remote, tt.remote)
			}
		}
	}
}

// remoteOf says where a mapping is reached from, "" for anywhere.
func remoteOf(m portmap.Mapping) string {
	s := m.Remote().String()
	if m.RemotePort != 0 {
		return s + " " + strconv.Itoa(int(m.RemotePort))
	}
	return strings.TrimPrefix(s, "invalid Prefix")
}

// TestRenewOptions: what is not said stays, what is said is added or cleared.
func TestRenewOptions(t *testing.T) {
	w := newWorld(t, nil)
	first, second, none := filterOption(128, 0, "::ffff:11.0.0.9"), filterOption(128, 0, "::ffff:11.0.0.8"), filterOption(0, 0, "::")
	for _, tt := range []struct {
		name        string
		options     [][]byte
		result      result
		remote      string
		description string
	}{
		{"made", [][]byte{first, option(128, []byte("game")...)}, success, "11.0.0.9/32", "game"},
		{"nothing said", nil, success, "11.0.0.9/32", "game"},
		{"MAP-13 the same", [][]byte{first}, success, "11.0.0.9/32", "game"},
		{"MAP-13 one more", [][]byte{second}, excessivePeers, "11.0.0.9/32", "game"},
		{"MAP-13 another instead", [][]byte{none, second}, success, "11.0.0.8/32", "game"},
		{"MAP-13 cleared", [][]byte{none}, success, "", "game"},
		{"MAP-13 added to none", [][]byte{first}, success, "11.0.0.9/32", "game"},
		{"MAP-15 another", [][]byte{option(128, []byte("voice")...)}, success, "11.0.0.9/32", "voice"},
		{"MAP-15 not UTF-8", [][]byte{option(128, 0xff)}, success, "11.0.0.9/32", "voice"},
		{"MAP-15 erased", [][]byte{option(128)}, success, "11.0.0.9/32", ""},
	} {
		m := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, options: tt.options}
		if got := w.pcpAsk(ann, m.of(ann)); got.result != byte(tt.result) {
			t.Errorf("%s: %v, want %v", tt.name, result(got.result), tt.result)
		}
		list := w.table.List()
		if len(list) != 1 || remoteOf(list[0]) != tt.remote || list[0].Description != tt.description {
			t.Errorf("%s: the table has %v", tt.name, list)
		}
	}
}

// TestPortSet: one entity (MAP-16).
func TestPortSet(t *testing.T) {
	w := newWorld(t, nil)
	set := [][]byte{option(130, 0, 4, 0x13, 0x89, 1)}
	m := wish{lifetime: 600, nonce: 1, protocol: 17, internal: 5001, external: 6000, options: set}
	got := w.pcpAsk(ann, m.of(ann))
	if got.result != 0 || got.external%2 != 1 || !bytes.Equal(got.options, set[0]) { // with parity
		t.Errorf("%+v", got)
	}
	m.external = 0
	if again := w.pcpAsk(ann, m.of(ann)); again.external != got.external || again.lifetime != 600 || w.table.Len() != 1 {
		t.Errorf("renewed: %+v", again)
	}
	if gone := w.pcpAsk(ann, wish{nonce: 1, protocol: 17, internal: 5001, options: set}.of(ann)); gone.result != 0 || w.table.Len() != 0 {
		t.Errorf("deleted: %+v, %v", gone, w.mappings())
	}
}

// TestAnnounceOptions: ANNOUNCE has none.
func TestAnnounceOptions(t *testing.T) {
	for _, tt := range []struct {
		name   string
		option []byte
		result result
		size   int // an error has them all
	}{
		{"optional", option(200, 1, 2, 3), success, 24},
		{"DESCRIPTION", option(128, 0xff), success, 24},
		{"PREFER_FAILURE", option(2), unsuppOption, 28},
		{"THIRD_PARTY", option(1, make([]byte, 16)...), unsuppOption, 44},
		{"malformed", []byte{200, 0, 0, 1}, malformedOption, 28},
	} {
		w := newWorld(t, nil)
		got := w.ask(ann, append(header(0, 0, ann), tt.option...))
		if len(got) != tt.size || got[3] != byte(tt.result) {
			t.Errorf("%s: % x", tt.name, got)
		}
	}
}

// TestRespondLimits: 1100 bytes, and never more than the request (PCP-4, PCP-7).
func TestRespondLimits(t *testing.T) {
	for _, tt := range []struct{ size, reply int }{
		{24, 24}, {60, 60}, {1096, 1096}, {1099, 1100}, {1100, 1100}, {1101, 1100}, {1104, 1100},
	} {
		w := newWorld(t, nil)
		p := make([]byte, tt.size)
		copy(p, header(9, 0, ann))
		want := unsuppOpcode
		if tt.size%4 != 0 || tt.size > 1100 {
			want = malformedRequest
		}
		if got := w.ask(ann, p); len(got) != tt.reply || got[3] != byte(want) {
			t.Errorf("%d bytes: reply of %d bytes, %v", tt.size, len(got), result(got[3]))
		}
	}
	w := newWorld(t, nil)
	p := make([]byte, 1101)
	p[1] = 5
	if got := w.ask(ann, p); len(got) != 1100 || got[3] != 5 {
		t.Errorf("NAT-PMP: reply of %d bytes", len(got))
	}
	if got := (result(excessivePeers)).Error(); got != "EXCESSIVE_REMOTE_PEERS" || len(resultNames) != 14 {
		t.Errorf("result 13 is %q", got)
	}
}

// TestLifetimes of results, 1 to 13 (SPEC 7.2).
func TestLifetimes(t *testing.T) {
	want := [...]uint32{1800, 1800, 1800, 1800, 1800, 1800, 30, 30, 1800, 30, 30, 1800, 1800}
	for i, life := range want {
		if got := result(i + 1).lifetime(); got != life {
			t.Errorf("result %d lives %d s, want %d", i+1, got, life)
		}
	}
}
