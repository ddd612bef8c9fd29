package portmap_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestAwayByPCP: a prefix that is away takes PCP's pinholes, too (SPEC PIN-10). They
// cannot be renewed meanwhile. Of what ends by itself nothing is held, and what is
// held stays so (MAP-11).
func TestAwayByPCP(t *testing.T) {
	w := newWorld(t, func(c *portmap.Config) { c.Policy.MaxMappings = 20 })
	away := func() {
		t.Helper()
		if err := w.SetNetwork(portmap.Network{External: home.External, LANs: home.LANs[:2]}); err != nil {
			t.Error(err)
		}
	}
	w.mustPut(pcpAsk(bob, 5000, 6000, 'b'))
	if err := w.UnmapInternal(portmap.TCP, bob, 5000, portmap.PCP, nonceOf('b')); err != nil {
		t.Fatal(err)
	}
	renewal := set(8, pcpAsk(ann6, 5000, 0, 'a'))
	w.mustPut(renewal)
	one := w.mustPut(pcpAsk(bob6, 5000, 0, 'b'))
	away()
	w.after(20 * time.Second)
	if m, err := w.MapInternal(renewal); !errors.Is(err, portmap.ErrNotLANHost) {
		t.Errorf("renewed: %+v, %v", m, err)
	}
	if err := w.UnmapInternal(portmap.TCP, bob6, 5000, portmap.PCP, nonceOf('b')); err != nil {
		t.Errorf("delete %v: %v", one, err)
	}
	if err := w.SetNetwork(home); err != nil {
		t.Error(err)
	}
	pinhole := w.mustPut(renewal)
	w.after(time.Minute)
	if got := w.List(); !slices.Equal(got, []portmap.Mapping{pinhole}) || pinhole.Ports != 8 {
		t.Errorf("back: %v", got)
	}
	w.checkKernel()

	away()
	w.after(30 * time.Second)
	if got := w.List(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	if m := w.mustPut(pcpAsk(ann, 5000, 6000, 'a')); m.ExternalPort == 6000 { // bob's for 10 s more
		t.Errorf("given what is held: %v", m)
	}
	if err := w.SetNetwork(home); err != nil {
		t.Error(err)
	}
	// Another nonce, and all the ports that pinholes may have.
	if m := w.mustPut(set(64, pcpAsk(ann6, 5000, 0, 'c'))); m.Ports != 10 {
		t.Errorf("%d ports", m.Ports)
	}
	w.checkKernel()
}
