package clients

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// announced waits for the first announcements of a series, of NAT-PMP and of PCP by
// both families, and checks their timing and what they tell (PMP-6, ANN-2, ANN-3).
// Each series here begins with epoch 0, at the end of a longer one.
func announced(t *testing.T, what string, all <-chan heard, address string, from map[string]netip.AddrPort, cause func()) {
	t.Helper()
	for len(all) > 0 {
		<-all
	}
	cause()
	const each = 3
	times := map[string][]time.Time{}
	timeout := time.After(patience)
	for len(times["natpmp"]) < each || len(times["pcp"]) < each || len(times["pcp6"]) < each {
		var a heard
		select {
		case a = <-all:
		case <-timeout:
			t.Fatalf("%s: announcements at %v", what, times)
		}
		kind, epoch := "natpmp", uint32(0)
		if len(a.b) == 24 {
			kind, epoch = "pcp", binary.BigEndian.Uint32(a.b[8:])
			if a.b[0] != 2 || a.b[1] != 0x80 || a.b[3] != 0 {
				t.Errorf("%s: %x", what, a.b)
			}
			if a.from.Addr().Is6() {
				kind = "pcp6"
			}
		} else {
			if !pmp(a.b, 12, 0x80, 0) {
				t.Fatalf("%s: %x", what, a.b)
			}
			epoch = binary.BigEndian.Uint32(a.b[4:])
			if got := netip.AddrFrom4([4]byte(a.b[8:])).String(); got != address {
				if len(times[kind]) > 0 {
					t.Errorf("%s: the address is %s, want %s", what, got, address)
				}
				continue // of before
			}
		}
		if a.from != from[kind] {
			t.Errorf("%s: %s comes from %v, want %v", what, kind, a.from, from[kind])
		}
		if epoch > 1 { // of before; each series here begins with 0
			if len(times[kind]) > 0 {
				t.Errorf("%s: %s with epoch %d", what, kind, epoch)
			}
			continue
		}
		times[kind] = append(times[kind], a.at)
	}
	for kind, at := range times {
		for i, want := range []time.Duration{250 * time.Millisecond, 500 * time.Millisecond} {
			if gap := at[i+1].Sub(at[i]); gap < want-20*time.Millisecond || gap > want+time.Second {
				t.Errorf("%s: gap %d of %s is %v, want %v", what, i, kind, gap, want)
			}
		}
	}
}

// TestPCPNews: what hosts are told unasked: at the start, when the external address
// is another one, and when mappings are lost (PMP-6, ANN-2 to ANN-4).
func TestPCPNews(t *testing.T) {
	t.Parallel()
	h := enter(t)
	if _, err := h.LAN1.EchoTCP(8080); err != nil {
		t.Fatal(err)
	}
	all := eavesdrop(t, h.LAN1)
	router := netip.AddrPortFrom(netip.MustParseAddr(lab.RouterLANAddr), pcpPort)
	from := map[string]netip.AddrPort{"natpmp": router, "pcp": router, "pcp6": netip.AddrPortFrom(linkLocal(t, h.Router, lab.LANDev), pcpPort)}
	announced(t, "start", all, lab.WANAddr, from, func() { h.begin() })
	p := pcpFrom(t, h.LAN1, lab.LAN1Addr, lab.RouterLANAddr)
	strict := pcpFrom(t, h.LAN1, lab.LAN1Addr, lab.RouterLANAddr)
	before := p.mapped(18080, ask{lifetime: 3600, proto: tcpNumber, internal: 8080, external: 18080})
	strict.mapped(18081, ask{lifetime: 3600, proto: tcpNumber, internal: 8081, external: 18081, suggested: lab.WANAddr, options: option(pcpPrefer)})
	until(t, "the epoch is 2", func() bool { return p.parse(p.exchange(p.header(pcpAnnounce, 0))).epoch >= 2 })

	const next = "11.0.0.3"
	announced(t, "another address", all, next, from, func() {
		h.Router.Run(t, "ip", "addr", "add", next+"/25", "dev", lab.WANDev)
		h.Router.Run(t, "ip", "addr", "del", lab.WANAddr+"/24", "dev", lab.WANDev)
	})
	for i := range 3 {
		b, err := p.next(patience)
		if err != nil {
			t.Fatalf("update %d: %v", i, err)
		}
		r := p.parse(b)
		if r.result != pcpOK || r.addr.String() != next || r.external != 18080 || string(b[24:42]) != string(before.raw[24:42]) || r.epoch > 1 || r.lifetime < 3590 {
			t.Errorf("update %d: %+v", i, r)
		}
	}
	if b, err := strict.next(patience); err != nil || strict.parse(b).result != pcpCannotProvide {
		t.Errorf("a mapping that was to keep its address: %x, %v", b, err)
	}
	to := net.JoinHostPort(next, "18080")
	if got := reaches(h.Lab, lab.InternetAddr, "tcp", to, true); got != lab.LAN1Addr+":8080" {
		t.Errorf("%s gets to %q", to, got)
	}

	for _, flush := range []func(){
		func() { upnpctl(t, h.Lab, "flush") },
		func() { h.daemon.Signal(syscall.SIGUSR1) },
	} {
		p.want(pcpOK, ask{lifetime: 3600, proto: tcpNumber, internal: 8080, external: 18080})
		until(t, "the epoch is 2", func() bool { return p.parse(p.exchange(p.header(pcpAnnounce, 0))).epoch >= 2 })
		announced(t, "flush", all, next, from, flush)
		if got := list(t, h.Lab); len(got) != 0 {
			t.Errorf("after flush: %q", got)
		}
	}
}

// TestPCPRestart: a daemon that was killed knows who may renew what (MAP-3), and all
// of it works on without it.
func TestPCPRestart(t *testing.T) {
	pinVariants(t, func(t *testing.T, w *pinRouter) {
		leases := filepath.Join(t.TempDir(), "leases")
		flags := raiseMaps(t, w, "lease_file = "+leases)
		p := pcpFrom(t, w.LAN1, lab.LAN1Addr, lab.RouterLANAddr)
		six := pcpFrom(t, w.LAN1, lab.LAN1Addr6, lab.RouterLANAddr6)
		a := ask{lifetime: 3600, proto: tcpNumber, internal: pinPort, external: 18080, options: filterOption("11.0.0.0/25", 0)}
		set := ask{lifetime: 3600, proto: udpNumber, internal: 9000, external: 30000, options: option(pcpPortSet, 0, 4, 9000>>8, 9000&0xff, 0)}
		pin := ask{lifetime: 3600, proto: udpNumber, internal: pinPort}
		p.mapped(18080, a)
		p.mapped(30000, set)
		six.want(pcpOK, pin)
		pmpMaps(t, w.LAN2, "tcp", pinPort, 18090, 18090, 3600)
		before := list(t, w.Lab)
		w.until("they are in the lease file", func() bool {
			b, _ := os.ReadFile(leases)
			return strings.Contains(string(b), " 18090 ") && strings.Contains(string(b), lab.LAN1Addr6)
		})
		w.daemon.Kill()
		inner := net.JoinHostPort(lab.LAN1Addr, strconv.Itoa(pinPort))
		for _, when := range []string{"killed", "again"} {
			if when == "again" {
				w.start(flags...)
			}
			wantReached(t, w.Lab, "tcp", 18080, inner)
			if reaches(w.Lab, secondAddr, "tcp", net.JoinHostPort(lab.WANAddr, "18080"), false) != "" {
				t.Error("the filter is gone")
			}
			w.wantIn(when, false, true)
		}
		after := list(t, w.Lab)
		for port, words := range before {
			if got := after[port]; len(got) < 7 || got[6] != words[6] || got[4] != words[4] {
				t.Errorf("%s was %q, is %q", port, words, got)
			}
		}
		if len(before) != 4 || len(after) != len(before) {
			t.Errorf("%d mappings, were %d", len(after), len(before))
		}
		for _, tt := range []struct {
			*pcpHost
			ask
		}{{p, a}, {p, set}, {six, pin}} {
			tt.another().want(pcpNotAuthorized, tt.ask)
			tt.want(pcpOK, tt.ask)
			tt.gone(tt.proto, tt.internal)
		}
		wantReached(t, w.Lab, "tcp", 18080, "")
		pmpMaps(t, w.LAN2, "tcp", pinPort, 0, 18090, 600)
		pmpMaps(t, w.LAN2, "tcp", pinPort, 0, 0, 0)
		w.stop()
	})
}
