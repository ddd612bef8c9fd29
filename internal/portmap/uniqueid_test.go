package portmap_test

import (
	"errors"
	"testing"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestUniqueID: never 0, never one in use, and not used again before the others
// (SPEC PIN-8); it begins somewhere else each time.
func TestUniqueID(t *testing.T) {
	run := func() *world {
		return newWorld(t, func(c *portmap.Config) {
			c.Firewall, c.Logf = noKernel{}, func(string, ...any) {}
			c.Policy.MaxMappings, c.Policy.MaxPerClient = 65535, 65535
		})
	}
	starts := map[uint16]bool{}
	for range 4 {
		m, _ := run().Map(pin(ann6, 8080))
		starts[m.ID] = true
	}
	if len(starts) < 2 {
		t.Errorf("each run begins with %v", starts)
	}
	w := run()
	first, err := w.Map(pin(ann6, 8080))
	if err != nil {
		t.Fatal(err)
	}
	used := map[uint16]int{}
	for i := range 70000 {
		m, err := w.Map(pin(bob6, 8080))
		if err != nil || m.ID == 0 || m.ID == first.ID {
			t.Fatalf("ID %d, %d is in use: %v", m.ID, first.ID, err)
		}
		if before, ok := used[m.ID]; ok && i-before < 65534 {
			t.Fatalf("ID %d again after %d", m.ID, i-before)
		}
		used[m.ID] = i
		if err := w.DeletePinhole(m.ID, bob6); err != nil {
			t.Fatal(err)
		}
	}
	// As many as there may be.
	ids := map[uint16]bool{first.ID: true}
	for i := range 32767 {
		req := pin(bob6, uint16(8080+i/2))
		if i%2 == 1 {
			req.Protocol = portmap.UDP
		}
		m, err := w.Map(req)
		if err != nil || m.ID == 0 || ids[m.ID] {
			t.Fatalf("the %d.: ID %d: %v", i+2, m.ID, err)
		}
		ids[m.ID] = true
	}
	if _, err := w.Map(pin(annl6, 8080)); !errors.Is(err, portmap.ErrFull) {
		t.Error(err)
	}
}
