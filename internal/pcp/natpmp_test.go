package pcp

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestNATPMPLayout has each packet of RFC 6886 as it is on the wire, 16 s after
// the start (SPEC 6).
func TestNATPMPLayout(t *testing.T) {
	for _, tt := range []struct{ name, request, reply string }{
		{"3.2 external address", "00 00", "00 80 0000 00000010 0b000002"},
		{"3.3 map UDP", "00 01 0000 1388 1770 00000e10", "00 81 0000 00000010 1388 1770 00000e10"},
		{"3.3 map TCP", "00 02 0000 1388 1770 00000e10", "00 82 0000 00000010 1388 1770 00000e10"},
		{"3.4 delete", "00 02 0000 1388 1770 00000000", "00 82 0000 00000010 1388 0000 00000000"},
		{"3.4 delete all", "00 01 0000 0000 0000 00000000", "00 81 0000 00000010 0000 0000 00000000"},
		{"PMP-2 opcode 3", "00 03", "00 83 0005 00000010"},
		{"PMP-2 opcode 127 and more", "00 7f ffff ffffffff 01020304 05", "00 ff 0005 00000010 01020304 05"},
		{"PMP-2 opcode 128", "00 80 0000 00000000 0b000009", ""},
		{"PMP-2 opcode 255", "00 ff", ""},
		{"PMP-3 nothing", "", ""},
		{"PMP-3 one byte", "00", ""},
		{"PMP-3 short map", "00 01 0000 1388 1770 00000e", ""},
		{"PMP-3 long address request", "00 00 ffffffffffffffff", "00 80 0000 00000010 0b000002"},
		{"PMP-3 long map", "00 01 0000 1388 1770 00000e10 ffff", "00 81 0000 00000010 1388 1770 00000e10"},
		{"STUN of a web page", "00 01 0000 2112a442 4142434445464748494a4b4c", ""},
		{"STUN with attributes", "00 01 0008 2112a442 4142434445464748494a4b4c 8022 0004 41424344", ""},
		{"TURN", "00 03 0000 2112a442 4142434445464748494a4b4c", ""},
		{"STUN's ports, of a client", "00 01 0000 2112 a442 00000e10", "00 81 0000 00000010 2112 a442 00000e10"},
		{"reserved bytes are ignored", "00 01 ffff 1388 1770 00000e10", "00 81 0000 00000010 1388 1770 00000e10"},
	} {
		w := newWorld(t, nil)
		w.clock += 15 * time.Second
		if got := w.ask(ann, unhex(tt.request)); !bytes.Equal(got, unhex(tt.reply)) {
			t.Errorf("%s: % x, want %s", tt.name, got, tt.reply)
		}
	}
}

// TestNATPMP asks one after the other.
func TestNATPMP(t *testing.T) {
	w := newWorld(t, func(w *world, cfg *Config, _ *LAN, _ *portmap.Policy) { cfg.MaxLease = 7200 * time.Second })
	w.used[7000] = true
	w.upnp(ann, portmap.UDP, 6000, 5001, time.Hour)
	for _, tt := range []struct {
		name     string
		from     netip.Addr
		request  []byte
		result   byte
		external uint16 // 0: none; 1: any but what was wished
		lifetime uint32
	}{
		{"PMP-9 suggested", ann, pmp(1, 5000, 5500, 3600), 0, 5500, 3600},
		{"PMP-8 again, with another suggestion", ann, pmp(1, 5000, 5600, 1800), 0, 5500, 1800},
		{"PMP-8 UPnP's, no longer than asked", ann, pmp(1, 5001, 0, 60), 0, 6000, 60},
		{"PMP-9 held by another", bob, pmp(1, 5000, 5500, 3600), 0, 1, 3600},
		{"PMP-9 the router's own", ann, pmp(2, 5002, 7000, 3600), 0, 1, 3600},
		{"PMP-9 no suggestion", ann, pmp(2, 5003, 0, 3600), 0, 5003, 3600},
		{"PMP-11 the companion is Ann's", bob, pmp(2, 5500, 5500, 3600), 0, 1, 3600},
		{"PMP-11 and she gets it", ann, pmp(2, 5500, 5500, 3600), 0, 5500, 3600},
		{"PMP-10 a privileged one", ann, pmp(2, 5004, 80, 3600), 0, 1, 3600},
		{"PMP-9 all forbidden", ann, pmp(2, 80, 8080, 3600), 2, 0, 0},
		{"PMP-12 not more than the maximum", ann, pmp(2, 5005, 0, 1<<32-1), 0, 5005, 7200},
		{"PMP-12 nor than asked", ann, pmp(2, 5005, 0, 1), 0, 5005, 1},
		{"PMP-13 UPnP's", ann, pmp(1, 5001, 0, 0), 2, 0, 0},
		{"PMP-13 absent", ann, pmp(1, 5999, 5999, 0), 0, 0, 0},
		{"PMP-13 another suggestion", ann, pmp(1, 5000, 9, 0), 0, 0, 0},
		{"PMP-14 some stay", ann, pmp(1, 0, 0, 0), 2, 0, 0},
		{"PMP-14 all go", ann, pmp(2, 0, 0, 0), 0, 0, 0},
		{"PMP-14 internal 0", ann, pmp(2, 0, 5000, 3600), 2, 0, 0},
		{"PMP-14 internal 0, not all", ann, pmp(2, 0, 5000, 0), 2, 0, 0},
	} {
		got := w.ask(tt.from, tt.request)
		if len(got) != 16 || got[0] != 0 || got[1] != tt.request[1]|0x80 || got[2] != 0 || !bytes.Equal(got[8:10], tt.request[4:6]) {
			t.Fatalf("%s: % x", tt.name, got)
		}
		external, wished := uint16(got[10])<<8|uint16(got[11]), uint16(tt.request[6])<<8|uint16(tt.request[7])
		lifetime := uint32(got[12])<<24 | uint32(got[13])<<16 | uint32(got[14])<<8 | uint32(got[15])
		if right := external == tt.external || tt.external == 1 && external >= 1024 && external != wished; !right || got[3] != tt.result || lifetime != tt.lifetime {
			t.Errorf("%s: result %d, port %d, %d s; want %d, %d, %d s", tt.name, got[3], external, lifetime, tt.result, tt.external, tt.lifetime)
		}
	}
	for _, m := range w.table.List() {
		if m.Client == ann && m.Origin != portmap.UPnP {
			t.Errorf("%v is still there", m)
		}
	}
}

// TestNATPMPTrouble: no address, no room, no kernel.
func TestNATPMPTrouble(t *testing.T) {
	w := newWorld(t, func(_ *world, _ *Config, _ *LAN, p *portmap.Policy) { p.MaxPerClient = 1 })
	expect := func(name string, request []byte, want string) {
		t.Helper()
		got := w.ask(ann, request)
		copy(got[4:8], unhex("00000000")) // the epoch
		if !bytes.Equal(got, unhex(want)) {
			t.Errorf("%s: % x, want %s", name, got, want)
		}
	}
	w.fw.Break(true)
	expect("the kernel refuses", pmp(1, 5000, 5000, 60), "00 81 0004 00000000 1388 0000 00000000")
	w.fw.Break(false)
	w.want()
	expect("granted", pmp(1, 5000, 5000, 60), "00 81 0000 00000000 1388 1388 0000003c")
	expect("quota", pmp(1, 5001, 5001, 60), "00 81 0004 00000000 1389 0000 00000000")
	w.fw.Break(true)
	expect("the kernel refuses to delete all", pmp(1, 0, 0, 0), "00 81 0004 00000000 0000 0000 00000000")
	w.fw.Break(false)
	w.setUplink(netip.Addr{})
	expect("PMP-4", []byte{0, 0}, "00 80 0003 00000000 00000000")
	expect("PMP-15", pmp(1, 5002, 5002, 60), "00 81 0003 00000000 138a 0000 00000000")
	said := w.log[len(w.log)-1]
	expect("a deletion needs no address", pmp(1, 5000, 0, 0), "00 81 0000 00000000 1388 0000 00000000")
	w.want()
	if !strings.Contains(said, "refused 192.168.1.10: NAT-PMP request for UDP port 5002: NETWORK_FAILURE") {
		t.Errorf("log: %q", said)
	}
}

// TestExternalIP: extip is what clients hear, but not while the uplink is down.
func TestExternalIP(t *testing.T) {
	w := newWorld(t, func(_ *world, cfg *Config, _ *LAN, _ *portmap.Policy) {
		cfg.ExternalIP = netip.MustParseAddr("203.0.113.9")
	})
	if got := w.ask(ann, []byte{0, 0}); !bytes.Equal(got[8:], unhex("cb007109")) {
		t.Errorf("NAT-PMP says % x", got)
	}
	if got := w.pcpAsk(ann, wish{lifetime: 600, protocol: 6, internal: 5000}.of(ann)); got.address.String() != "203.0.113.9" {
		t.Errorf("PCP says %v", got.address)
	}
	w.state.Uplink.Up = false
	if got := w.ask(ann, []byte{0, 0}); got[3] != 3 {
		t.Errorf("the uplink is down: % x", got)
	}
}
