package clients

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestWhoMayPin: a host opens pinholes for itself, from whichever of its addresses it
// asks (SPEC PIN-3, PIN-9, PIN-10), and for nobody else.
func TestWhoMayPin(t *testing.T) {
	pinVariants(t, func(t *testing.T, w *pinRouter) {
		w.start()
		own := func(h *lab.Host, addrs ...string) (all []*pinPoint) {
			for _, a := range append(addrs, pinLinkLocal(t, h, lab.HostDev)) {
				all = append(all, w.point(h, a))
			}
			return all
		}
		one := own(w.LAN1, lab.LAN1Addr6, lab.LAN1Other6, lab.LAN1ULA, lab.LAN1Addr)
		two := own(w.LAN2, lab.LAN2Addr6, lab.LAN2Other6, lab.LAN2ULA, lab.LAN2Addr)

		for _, p := range one {
			for _, client := range []string{lab.LAN1Addr6, lab.LAN1Other6, lab.LAN1ULA} {
				if _, code := p.try("", 0, client, pinPort, "TCP", 600); code != 0 {
					t.Errorf("%v asks for its own %s: error %d", p.from, client, code)
				}
			}
		}
		id := one[0].add("", 0, "TCP", 600)
		for _, p := range two {
			for _, client := range []string{lab.LAN1Addr6, lab.LAN1Other6, lab.LAN1ULA} {
				if _, code := p.try("", 0, client, pinPort, "TCP", 600); code != 606 {
					t.Errorf("%v asks for another host's %s: error %d, want 606", p.from, client, code)
				}
			}
			for _, action := range []string{"DeletePinhole", "GetPinholePackets", "CheckPinholeWorking"} {
				p.want(action, id, "", 606)
			}
			if code := p.update(id, 1); code != 606 {
				t.Errorf("%v updates another host's pinhole: error %d, want 606", p.from, code)
			}
		}
		if !w.comes("TCP", lan1at(pinPort), true) {
			t.Error("the pinhole no longer works")
		}

		w.refuses(one)
		for _, p := range one { // its own, from any address
			again := one[0].add("", 0, "TCP", 600)
			p.packets(again)
			if code := p.update(again, 60); code != 0 {
				t.Errorf("%v updates its own: error %d", p.from, code)
			}
			p.want("DeletePinhole", again, "", 0)
		}
		if w.comes("TCP", lan1at(pinPort), false) {
			t.Error("after DeletePinhole it comes in")
		}
		w.stop()
	})
}

// refuses checks what nobody may ask for.
func (w *pinRouter) refuses(points []*pinPoint) {
	w.t.Helper()
	link := pinLinkLocal(w.t, w.LAN1, lab.HostDev)
	for client, want := range map[string]int{
		lab.RouterLANAddr6: 606, lab.RouterULA: 606, lab.WANAddr6: 606, lab.InternetAddr6: 606, "2001:db8:99::10": 606,
		link: 402, "fe80::1": 402, "ff02::1": 402, "ff0e::1": 402, "::ffff:" + lab.LAN1Addr: 402, lab.LAN1Addr: 402, "::1": 402,
		"::": 708, "": 708,
	} {
		for _, p := range points {
			if _, code := p.try("", 0, client, pinPort, "UDP", 600); code != want {
				w.t.Errorf("%v asks for %q: error %d, want %d", p.from, client, code, want)
			}
		}
	}
	if w.comes("UDP", lan1at(pinPort), false) {
		w.t.Error("one of those was opened")
	}
}

// TestPinLowPort: a port below 1024 needs a rule that allows it.
func TestPinLowPort(t *testing.T) {
	t.Parallel()
	w := raisePin(t, lab.Nftables)
	if _, err := w.LAN1.EchoTCP6(80); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "upnpd.conf")
	configure := func(text string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	configure("")
	w.start("--config", conf)
	p := w.point(w.LAN1, lab.LAN1Addr6)
	const read = "configuration read again"
	for i, tt := range []struct {
		rules string
		code  int
	}{
		{"", 606},
		{"allow 80 2001:db8:77::/64 80\n", 0},
		{"allow 80 2001:db8:88::/64 80\n", 606},
		{"allow 80 0.0.0.0/0 80\n", 0},
		{"allow 80 192.168.77.0/24 80\n", 606},
		{"allow 80 ::/0 80 udp\n", 606},
		{"allow 80 ::/0 80 tcp\n", 0},
		{"deny 80 0.0.0.0/0 80\nallow 1-65535 ::/0 1-65535\n", 606},
	} {
		configure(tt.rules)
		w.daemon.Signal(syscall.SIGHUP)
		w.logged(read, i+1)
		id, code := p.try("", 0, lab.LAN1Addr6, 80, "TCP", 600)
		if code != tt.code {
			t.Errorf("%q: error %d, want %d", tt.rules, code, tt.code)
		}
		if open := code == 0; w.comes("TCP", lan1at(80), open) != open {
			t.Errorf("%q: port 80 open is not %v", tt.rules, open)
		}
		if code == 0 {
			p.want("DeletePinhole", id, "", 0)
		}
	}
}
