package load

import (
	"strings"
	"testing"
)

// Issue 8, 4.
func TestLoad(t *testing.T) {
	h := enter(t)
	start := descriptors(t, h.daemon)
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
	} {
		t.Run(attack.name, func(t *testing.T) { h.beside(t, attack.run) })
	}
	until(t, "all descriptors are back", func() bool { return descriptors(t, h.daemon) <= start })
	if n := memory(t, h.daemon, "VmHWM"); n >= mostMemory {
		t.Errorf("the daemon had %d kB, want less than %d", n, mostMemory)
	}
	lines := strings.Count(h.daemon.Log(), "\n")
	t.Logf("%d lines in the log", lines)
	served := goroutines(t, h.daemon)
	if fresh := goroutines(t, h.begin(t)); served != fresh {
		t.Errorf("%d goroutines at the end, a new daemon has %d", served, fresh)
	}
}

// mostMemory is in kB.
const mostMemory = 16 << 10
