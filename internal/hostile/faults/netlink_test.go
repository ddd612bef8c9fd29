package faults

import (
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestNetlink: the n-th message of each change is refused by the kernel, for each n,
// or has no answer. Messages are those of nf_tables, rtnetlink, ctnetlink and
// sock_diag.
func TestNetlink(t *testing.T) {
	t.Parallel()
	for _, modes := range turns([][]string{{"ENOBUFS", "EPERM", "ENOMEM"}, {"lost"}}) {
		parts := map[string][]step{"all": script}
		if modes[0] == "lost" { // each takes its time
			parts = map[string][]step{"mappings": script[:5], "network": script[5:6], "whole": script[6:]}
		}
		for name, steps := range parts {
			t.Run(strings.Join(modes, ",")+"/"+name, func(t *testing.T) {
				t.Parallel()
				h := enter(t, lab.Nftables)
				s := supervise(t, lab.Build(t))
				h.begin(s.program)
				h.swept(h.sweep(modes, steps, s.arm))
				s.mu.Lock()
				defer s.mu.Unlock()
				t.Logf("messages by netlink protocol: %v", s.total)
			})
		}
	}
}
