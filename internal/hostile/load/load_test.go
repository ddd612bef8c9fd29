package load

import (
	"strconv"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// Issue 8, 4.
func TestLoad(t *testing.T) {
	h := enter(t)
	h.start = descriptors(t, h.daemon)
	for _, attack := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"nothing else", h.nothing},
		{"slow requests", h.slow},
		{"half-open connections", h.halfOpen},
		{"connections", h.connections},
		{"large requests", h.large},
		{"subscriptions", h.subscribe},
		{"mappings", h.mappings},
		{"searches", h.searches},
		{"NAT-PMP and PCP", h.mapRequests},
		{"slow requests from the beginning", h.hold(t)},
		{"slow requests of many addresses", h.slowOfMany},
	} {
		t.Run(attack.name, func(t *testing.T) { h.beside(t, attack.run) })
	}
	until(t, "all descriptors are back", func() bool { return descriptors(t, h.daemon) <= h.start })
	if n := memory(t, h.daemon, "VmHWM"); n >= mostMemory {
		t.Errorf("the daemon had %d kB, want less than %d", n, mostMemory)
	}
	h.readable(t)
	served := goroutines(t, h.daemon)
	if fresh := goroutines(t, h.begin(t)); served > fresh+few {
		t.Errorf("%d goroutines at the end, a new daemon has %d", served, fresh)
	}
}

const (
	mostMemory = 16 << 10 // kB
	few        = 4        // goroutines, of reads that begin or end
	mostLines  = 900      // of the log: 50 about each address, and a few in the minute that all this takes
)

// readable looks at the log: a screen or two, and the number of the lines that are
// left out.
func (h *house) readable(t *testing.T) {
	const leftOut = " more lines about " + lab.LAN1Addr + " were left out"
	if err := h.daemon.WaitLog(leftOut); h.flooded && err != nil {
		t.Error(err)
	}
	lines, omitted := strings.Split(h.daemon.Log(), "\n"), 0
	for _, line := range lines {
		if text, ok := strings.CutSuffix(line, leftOut); ok {
			n, _ := strconv.Atoi(text)
			omitted += n
		}
	}
	t.Logf("%d lines in the log, and %d about the attacker left out", len(lines), omitted)
	if len(lines) > mostLines {
		t.Errorf("want at most %d", mostLines)
	}
}
