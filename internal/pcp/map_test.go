package pcp

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

const (
	annHex    = "00000000000000000000ffffc0a8010a" // her address in a header
	zero12    = "000000000000000000000000"
	nonceX    = "0102030405060708090a0b0c"
	ours      = "00000000000000000000ffff0b000002"
	theirs    = "00000000000000000000ffff0b000009"
	zeroes    = "00000000000000000000000000000000"
	mapTCP    = nonceX + "06 000000 1388 1770 " + zeroes
	success60 = "02 81 00 00 00000e10 00000010 " + zero12 + nonceX + "06 000000 1388 1770 " + ours
)

// TestPCPLayout has each packet of RFC 6887, 7220 and 7753 as it is on the wire, 16
// s after the start (SPEC 7.1).
func TestPCPLayout(t *testing.T) {
	for _, tt := range []struct{ name, request, reply string }{
		{"14.1 ANNOUNCE, ANN-1", "02 00 0000 00000000" + annHex, "02 80 00 00 00000000 00000010" + zero12},
		{"11.1 MAP", "02 01 0000 00000e10" + annHex + mapTCP, success60},
		{"reserved fields are not read", "02 01 ffff 00000e10" + annHex + nonceX + "06 ffffff 1388 1770 " + zeroes, success60},
		{"MAP-10 delete", "02 01 0000 00000000" + annHex + mapTCP,
			"02 81 00 00 00000000 00000010" + zero12 + mapTCP},
		{"reserved fields come back as zero, MAP-10", "02 01 ffff 00000000" + annHex + nonceX + "06 ffffff 1388 1770 " + ours,
			"02 81 00 00 00000000 00000010" + zero12 + nonceX + "06 000000 1388 1770 " + ours},
		{"12.1 PEER, PEER-1", "02 02 ffff 00000e10" + annHex + nonceX + "06 ffffff 1388 1770 " + zeroes + "0050 ffff" + theirs,
			"02 82 00 00 00000e10 00000010" + zero12 + nonceX + "06 000000 1388 1770" + ours + "0050 0000" + theirs},
		{"12.2 PEER, no peer", "02 02 0000 00000e10" + annHex + mapTCP + "0050 0000" + zeroes,
			"02 82 00 03 00000708 00000010" + annHex[8:] + mapTCP + "0050 0000" + zeroes},
		{"13.1 THIRD_PARTY, MAP-14", "02 01 0000 00000e10" + annHex + mapTCP + "01 00 0010" + ours,
			"02 81 00 05 00000708 00000010" + zero12 + mapTCP + "01 00 0010" + ours},
		{"13.2 PREFER_FAILURE", "02 01 0000 00000e10" + annHex + mapTCP + "02 00 0000", success60 + "02 00 0000"},
		{"13.3 FILTER, MAP-13", "02 01 0000 00000e10" + annHex + mapTCP + "03 00 0014 00 80 0050" + ours,
			success60 + "03 00 0014 00 80 0050" + ours},
		{"RFC 7220, MAP-15", "02 01 0000 00000e10" + annHex + mapTCP + "80 00 0005 67616d65 21 000000",
			success60 + "80 00 0005 67616d65 21 000000"},
		{"RFC 7753, MAP-16", "02 01 0000 00000e10" + annHex + mapTCP + "82 00 0005 0004 1388 01 000000",
			success60 + "82 00 0005 0004 1388 01 000000"},
		{"PCP-8 PREFIX64 and 255 are ignored", "02 01 0000 00000e10" + annHex + mapTCP + "81 00 0001 ff000000 ff 00 0000", success60},
		{"PCP-6 opcode 127", "02 7f 0000 00000e10" + annHex + "01020304",
			"02 ff 00 04 00000708 00000010" + zero12 + "01020304"},
		{"PCP-5 another's address", "02 00 0000 00000000" + ours, "02 80 00 0c 00000708 00000010" + zero12},
		{"PCP-4 25 bytes, and the end of the address stays", "02 00 0000 00000000" + annHex + "ff",
			"02 80 00 03 00000708 00000010" + annHex[8:] + "ff000000"},
		{"PCP-4 before PCP-5", "02 01 0000 00000e10" + ours + nonceX + "06 000000 1388 1770" + zeroes[:24],
			"02 81 00 03 00000708 00000010" + ours[8:] + nonceX + "06 000000 1388 1770" + zeroes[:24]},
		{"PCP-4 MAP of 56 bytes", "02 01 0000 00000e10" + annHex + nonceX + "06 000000 1388 1770" + zeroes[:24],
			"02 81 00 03 00000708 00000010" + annHex[8:] + nonceX + "06 000000 1388 1770" + zeroes[:24]},
		{"PCP-3 23 bytes", "02 00 0000 00000000" + annHex[:30], ""},
		{"PCP-2 a response", "02 80 0000 00000000" + annHex, ""},
		{"PCP-2 one byte", "02", ""},
	} {
		w := newWorld(t, nil)
		w.clock += 15 * time.Second
		got := w.ask(ann, unhex(tt.request))
		if !bytes.Equal(got, unhex(tt.reply)) {
			t.Errorf("%s:\n% x, want\n% x", tt.name, got, unhex(tt.reply))
		}
	}
}

// TestMAP asks one after the other.
func TestMAP(t *testing.T) {
	w := newWorld(t, nil)
	w.used[7000] = true
	w.upnp(ann, portmap.TCP, 6000, 5001, 500*time.Second)
	if got := w.ask(ann, pmp(2, 5002, 6002, 600)); got[3] != 0 {
		t.Fatalf("% x", got)
	}
	prefer := [][]byte{option(2)}
	for _, tt := range []struct {
		name     string
		from     netip.Addr
		wish     wish
		result   result
		external uint16 // 1: any but what was wished
		lifetime uint32
	}{
		{"MAP-6 suggested", ann, wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 6500}, 0, 6500, 600},
		{"MAP-5 again, with another suggestion", ann, wish{lifetime: 700, nonce: 1, protocol: 6, internal: 5000, external: 6501}, 0, 6500, 700},
		{"MAP-5 PREFER_FAILURE", ann, wish{lifetime: 700, nonce: 1, protocol: 6, internal: 5000, external: 6501, options: prefer}, cannotProvide, 6501, 30},
		{"MAP-5 PREFER_FAILURE of the same", ann, wish{lifetime: 700, nonce: 1, protocol: 6, internal: 5000, external: 6500, options: prefer}, 0, 6500, 700},
		{"MAP-3 another nonce", ann, wish{lifetime: 900, nonce: 2, protocol: 6, internal: 5000, external: 9}, notAuthorized, 9, 699},
		{"MAP-3 another nonce deletes", ann, wish{nonce: 2, protocol: 6, internal: 5000}, notAuthorized, 0, 698},
		{"DESIGN: UPnP's", ann, wish{lifetime: 900, nonce: 1, protocol: 6, internal: 5001, external: 9}, notAuthorized, 9, 492},
		{"DESIGN: UPnP's, delete", ann, wish{nonce: 1, protocol: 6, internal: 5001, external: 9}, notAuthorized, 9, 491},
		{"NAT-PMP's", ann, wish{lifetime: 900, nonce: 1, protocol: 6, internal: 5002}, 0, 6002, 900},
		{"MAP-8 the other protocol is free", bob, wish{lifetime: 900, nonce: 1, protocol: 17, internal: 5000, external: 6500}, 0, 6500, 900},
		{"MAP-6 held", bob, wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 6500}, 0, 1, 600},
		{"MAP-6 held, PREFER_FAILURE", bob, wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5005, external: 6500, options: prefer}, cannotProvide, 6500, 30},
		{"MAP-7 the router's own", ann, wish{lifetime: 600, nonce: 1, protocol: 17, internal: 5003, external: 7000}, 0, 1, 600},
		{"MAP-7 UDP 5350", ann, wish{lifetime: 600, nonce: 1, protocol: 17, internal: 5350, external: 5350}, 0, 1, 600},
		{"MAP-7 UDP 5351, PREFER_FAILURE", ann, wish{lifetime: 600, nonce: 1, protocol: 17, internal: 5351, external: 5351, options: prefer}, cannotProvide, 5351, 30},
		{"MAP-9 at least", ann, wish{lifetime: 1, nonce: 1, protocol: 17, internal: 5003, external: 9}, 0, 1, 120},
		{"MAP-9 at most", ann, wish{lifetime: 1<<32 - 1, nonce: 1, protocol: 17, internal: 5003, external: 9}, 0, 1, 86400},
		{"MAP-1 both 0", ann, wish{lifetime: 600, nonce: 1}, unsuppProtocol, 0, 1800},
		{"MAP-1 all ports", ann, wish{lifetime: 600, nonce: 1, protocol: 6}, unsuppProtocol, 0, 1800},
		{"MAP-1 all protocols of a port", ann, wish{lifetime: 600, nonce: 1, internal: 5000}, malformedRequest, 0, 1800},
		{"MAP-1 and to delete", ann, wish{nonce: 1, internal: 5000}, malformedRequest, 0, 1800},
		{"7.2 SCTP", ann, wish{lifetime: 600, nonce: 1, protocol: 132, internal: 5000}, unsuppProtocol, 0, 1800},
		{"7.2 SCTP, delete", ann, wish{nonce: 1, protocol: 132, internal: 5000}, unsuppProtocol, 0, 1800},
		{"7.2 the rules", ann, wish{lifetime: 600, nonce: 1, protocol: 6, internal: 80, external: 8080}, notAuthorized, 8080, 1800},
		{"MAP-6 PREFER_FAILURE, our address", ann, wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5010, external: 6510, address: uplink, options: prefer}, 0, 6510, 600},
		{"MAP-6 PREFER_FAILURE, any address", ann, wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5010, external: 6510, address: any4, options: prefer}, 0, 6510, 600},
		{"MAP-6 PREFER_FAILURE, another address", ann, wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5010, external: 6510, address: uplink2, options: prefer}, cannotProvide, 6510, 30},
		{"MAP-6 another address", ann, wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5010, external: 6510, address: uplink2}, 0, 6510, 600},
		{"MAP-10 absent", ann, wish{nonce: 1, protocol: 6, internal: 5999, external: 9}, 0, 9, 0},
		{"MAP-10 wildcard, all ports", ann, wish{nonce: 1, protocol: 6}, 0, 0, 0},
		{"MAP-10 wildcard, everything", ann, wish{nonce: 1}, 0, 0, 0},
		{"MAP-10 delete", ann, wish{nonce: 1, protocol: 6, internal: 5000, external: 9}, 0, 9, 0},
		{"MAP-11 not for another", bob, wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5006, external: 6500, options: prefer}, cannotProvide, 6500, 30},
		{"MAP-11 for the same", ann, wish{lifetime: 600, nonce: 3, protocol: 6, internal: 5000, external: 6500, options: prefer}, 0, 6500, 600},
	} {
		got := w.pcpAsk(tt.from, tt.wish.of(tt.from))
		if right := got.external == tt.external || tt.external == 1 && got.external >= 1024 && got.external != tt.wish.external; !right ||
			got.result != byte(tt.result) || got.lifetime != tt.lifetime {
			t.Errorf("%s: %v, port %d, %d s; want %v, %d, %d s", tt.name, result(got.result), got.external, got.lifetime, tt.result, tt.external, tt.lifetime)
		}
		switch hint := tt.wish.address; {
		case tt.result == 0 && tt.wish.lifetime > 0: // MAP-12
			if got.address != uplink {
				t.Errorf("%s: assigned %v, want %v", tt.name, got.address, uplink)
			}
		case hint.IsValid() && got.address != hint, !hint.IsValid() && !got.address.IsUnspecified(): // MAP-2, MAP-10
			t.Errorf("%s: assigned %v, want what was suggested, %v", tt.name, got.address, hint)
		}
	}
}

// TestMAPHeld: a port that is deleted is nobody else's for two minutes (MAP-11).
func TestMAPHeld(t *testing.T) {
	w := newWorld(t, nil)
	m := wish{lifetime: 600, nonce: 1, protocol: 17, internal: 5000, external: 6500, options: [][]byte{option(2)}}
	w.pcpAsk(ann, m.of(ann))
	w.pcpAsk(ann, wish{nonce: 1, protocol: 17, internal: 5000}.of(ann))
	w.clock += 117 * time.Second
	if got := w.pcpAsk(bob, m.of(bob)); result(got.result) != cannotProvide {
		t.Errorf("after 118 s: %v", result(got.result))
	}
	w.clock += 2 * time.Second
	if got := w.pcpAsk(bob, m.of(bob)); got.result != 0 {
		t.Errorf("after 121 s: %v", result(got.result))
	}
}

// TestMAPTrouble: results with a short life (SPEC 7.2), and the lines in the log.
func TestMAPTrouble(t *testing.T) {
	w := newWorld(t, func(_ *world, _ *Config, _ *LAN, p *portmap.Policy) { p.MaxMappings, p.MaxPerClient = 2, 1 })
	m := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000}
	expect := func(name string, from netip.Addr, m wish, want result, lifetime uint32, line string) {
		t.Helper()
		if got := w.pcpAsk(from, m.of(from)); got.result != byte(want) || got.lifetime != lifetime {
			t.Errorf("%s: %v, %d s; want %v, %d s", name, result(got.result), got.lifetime, want, lifetime)
		}
		if last := w.log[len(w.log)-1]; !strings.Contains(last, line) {
			t.Errorf("%s: log %q, want %q", name, last, line)
		}
	}
	w.fw.Break(true)
	expect("the kernel refuses", ann, m, noResources, 30, "refused 192.168.1.10: map TCP port 5000")
	w.fw.Break(false)
	w.setUplink(netip.Addr{})
	expect("no address", ann, m, networkFailure, 30, "refused 192.168.1.10: PCP MAP of TCP port 5000: NETWORK_FAILURE")
	w.want()
	w.setUplink(uplink)
	expect("granted", ann, m, success, 600, "AddPortMap")
	other := m
	other.internal = 5001
	expect("MAP-8 quota of a client", ann, other, userExQuota, 30, "max_mappings_per_client")
	expect("granted", bob, m, success, 600, "AddPortMap")
	carol := bob.Next()
	expect("table full", carol, m, noResources, 30, "max_mappings")
	w.setUplink(netip.Addr{})
	expect("a deletion needs no address", bob, wish{nonce: 1, protocol: 6, internal: 5000}, success, 0, "DeletePortMap")
	expect("malformed", ann, wish{lifetime: 600, options: [][]byte{{2, 0, 0, 1}}}, malformedOption, 1800, "refused 192.168.1.10: PCP request: MALFORMED_OPTION")
}

// TestSameHostNonce: INT-20.
func TestSameHostNonce(t *testing.T) {
	for _, relaxed := range []bool{false, true} {
		w := newWorld(t, func(_ *world, _ *Config, _ *LAN, p *portmap.Policy) { p.SameHostNonce = relaxed })
		m := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000}
		w.pcpAsk(ann, m.of(ann))
		m.nonce = 2
		if got := w.pcpAsk(ann, m.of(ann)); (got.result == 0) != relaxed {
			t.Errorf("relaxed %v: a renewal gets %v", relaxed, result(got.result))
		}
		if got := w.pcpAsk(ann, wish{nonce: 3, protocol: 6, internal: 5000}.of(ann)); (got.result == 0) != relaxed {
			t.Errorf("relaxed %v: a deletion gets %v", relaxed, result(got.result))
		}
	}
}

// TestMAP6: by IPv6 a MAP opens a pinhole (MAP-12), also without a WAN address.
func TestMAP6(t *testing.T) {
	w := newWorld(t, ipv6)
	w.setUplink(netip.Addr{})
	m := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 9, address: uplink}
	got := w.pcpAsk(ann6, m.of(ann6))
	if got.result != 0 || got.external != 5000 || got.address != ann6 || got.lifetime != 600 {
		t.Errorf("%+v", got)
	}
	w.want("PCP TCP port 5000 of 2001:db8:1::10 from any 600 s")
	m.nonce = 2
	if got := w.pcpAsk(ann6, m.of(ann6)); result(got.result) != notAuthorized || got.lifetime != 599 { // MAP-3
		t.Errorf("another nonce: %v, %d s", result(got.result), got.lifetime)
	}
	prefer := wish{lifetime: 600, nonce: 1, protocol: 17, internal: 5001, external: 5001, address: ann6, options: [][]byte{option(2)}}
	if got := w.pcpAsk(ann6, prefer.of(ann6)); got.result != 0 {
		t.Errorf("PREFER_FAILURE of its own: %v", result(got.result))
	}
	for _, change := range []func(*wish){func(m *wish) { m.external = 5002 }, func(m *wish) { m.address = uplink }} {
		m := prefer
		change(&m)
		if got := w.pcpAsk(ann6, m.of(ann6)); result(got.result) != cannotProvide {
			t.Errorf("PREFER_FAILURE of %v port %d: %v", m.address, m.external, result(got.result))
		}
	}
	privileged := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 80} // no path around a rule
	if got := w.pcpAsk(ann6, privileged.of(ann6)); result(got.result) != notAuthorized {
		t.Errorf("port 80: %v", result(got.result))
	}
	local := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000}
	if got := w.pcpAsk(annLL, local.of(annLL)); result(got.result) != notAuthorized { // it is not routed
		t.Errorf("a link-local address: %v", result(got.result))
	}
	if got := w.pcpAsk(ann6, wish{nonce: 1, protocol: 6, internal: 5000}.of(ann6)); got.result != 0 {
		t.Errorf("delete: %v", result(got.result))
	}
	w.want("PCP UDP port 5001 of 2001:db8:1::10 from any 595 s")
}
