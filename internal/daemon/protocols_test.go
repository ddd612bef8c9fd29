package daemon

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab/home"
)

// The shortest requests of NAT-PMP and of PCP (SPEC 6, ANN-1), the second by
// 127.0.0.2.
const (
	pmpAddress  = "0000"
	pcpAnnounce = "020000000000000000000000000000000000ffff7f000002"
)

// asks sends a request as 127.0.0.2, and gives the reply in hexadecimal: "" when the
// port is closed.
func (w *loopback) asks(request string) string {
	w.t.Helper()
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(w.pcpPort)})
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	p, _ := hex.DecodeString(request)
	if _, err := c.Write(p); err != nil {
		w.t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	reply := make([]byte, 1100)
	n, err := c.Read(reply)
	if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
		w.t.Fatal(err)
	}
	return hex.EncodeToString(reply[:n])
}

// epoch is what NAT-PMP says, or -1.
func (w *loopback) epoch() int {
	p, _ := hex.DecodeString(w.asks(pmpAddress))
	if len(p) < 12 {
		return -1 // between two generations
	}
	return int(binary.BigEndian.Uint32(p[4:]))
}

// TestEpoch: it goes on through a reload, and begins anew with another external
// address, whoever changed it, and when all mappings are gone (PMP-5, ANN-3).
func TestEpoch(t *testing.T) {
	w := startLoopback(t)
	reload := func(args ...string) func() {
		return func() {
			generations := strings.Count(w.log.String(), "Advertisements Sent")
			w.reloadGives(testConfig(t, args...), nil)
			w.signals <- unix.SIGHUP
			home.Until(t, "it starts anew", func() bool { return strings.Count(w.log.String(), "Advertisements Sent") > generations })
		}
	}
	for _, tt := range []struct {
		name   string
		event  func()
		resets bool
	}{
		{"reload", reload("--min-lease", "60"), false},
		{"the uplink's address is another one", func() { w.SetWAN("11.0.0.3") }, true},
		{"the uplink was down", func() { w.SetWAN(""); w.SetWAN("11.0.0.3") }, false},
		{"USR1", func() { w.signals <- unix.SIGUSR1 }, true},
		{"another address is reported", reload("--min-lease", "60", "--extip", "11.0.0.9"), true},
	} {
		before := 0
		home.Until(t, "time passes", func() bool { before = w.epoch(); return before >= 2 })
		tt.event()
		if tt.resets {
			home.Until(t, tt.name+": the epoch begins anew", func() bool { now := w.epoch(); return now >= 0 && now < before })
		} else if now := w.epoch(); now < before {
			t.Errorf("%s: the epoch is %d after %d", tt.name, now, before)
		}
	}
}

// TestProtocols: each can be off; then the other says so, or the port is closed
// (PCP-9, PMP-16).
func TestProtocols(t *testing.T) {
	for _, tt := range []struct {
		args, natpmp, pcp string // what the replies begin with
	}{
		{"--upnp no", "00800000", "02800000"},
		{"--pcp no", "00800000", "00800001"},
		{"--upnp no --natpmp no", "02800001", "02800000"},
		{"--natpmp no --pcp no", "", ""},
	} {
		w := startLoopback(t, strings.Fields(tt.args)...)
		for request, want := range map[string]string{pmpAddress: tt.natpmp, pcpAnnounce: tt.pcp} {
			if got := w.asks(request); want == "" && got != "" || !strings.HasPrefix(got, want) {
				t.Errorf("%s: the reply to %s is %q, want %s...", tt.args, request, got, want)
			}
		}
		w.stop()
	}
}
