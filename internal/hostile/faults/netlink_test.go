package faults

import (
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestNetlink: the n-th message of each change is refused by the kernel, for each n,
// or has no answer. Messages are those of nf_tables, rtnetlink, ctnetlink and
// sock_diag.
func TestNetlink(t *testing.T) {
	t.Parallel()
	for mode := range netlinkFaults {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			h := enter(t, lab.Nftables)
			s := supervise(t, lab.Build(t))
			h.begin(s.program)
			h.swept(h.sweep(mode, s.arm))
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Logf("messages by netlink protocol: %v", s.total)
		})
	}
}
