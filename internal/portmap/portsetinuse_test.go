package portmap_test

import (
	"errors"
	"testing"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestPortSetQuestions: the kernel is asked for each port, while the table is locked:
// 64 times at most.
func TestPortSetQuestions(t *testing.T) {
	for name, tt := range map[string]struct {
		used     func(port uint16) bool
		parity   bool
		external uint16
		ports    uint16
		err      error
	}{
		"none is used":           {used: func(uint16) bool { return false }, external: 6000, ports: 64},
		"the last":               {used: func(port uint16) bool { return port == 6063 }, external: 6000, ports: 63},
		"from the eleventh on":   {used: func(port uint16) bool { return port >= 6010 || port < 6000 }, external: 6000, ports: 10},
		"all":                    {used: func(uint16) bool { return true }, err: portmap.ErrFull},
		"all, parity":            {used: func(uint16) bool { return true }, parity: true, err: portmap.ErrFull},
		"all of the same parity": {used: func(port uint16) bool { return port%2 == 0 }, parity: true, err: portmap.ErrFull},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			w := newWorld(t, func(c *portmap.Config) {
				c.Policy.MaxPerClient, c.Policy.MaxMappings = 100, 150
				c.InUse = func(_ portmap.Protocol, port uint16) (bool, error) { asked++; return tt.used(port), nil }
			})
			req := set(64, pcpAsk(ann, 5000, 6000, 'a'))
			req.Parity = tt.parity
			m, err := w.MapInternal(req)
			if !errors.Is(err, tt.err) || m.ExternalPort != tt.external || m.Ports != tt.ports {
				t.Errorf("%+v, %v", m, err)
			}
			if asked != 64 {
				t.Errorf("%d questions", asked)
			}
		})
	}
}

// TestMapInternalInUse: what the kernel does not tell is not guessed.
func TestMapInternalInUse(t *testing.T) {
	w := newWorld(t, func(c *portmap.Config) {
		c.InUse = func(portmap.Protocol, uint16) (bool, error) { return false, errors.New("no answer") }
	})
	for _, req := range []portmap.Request{pmpAsk(ann, 5000, 6000), set(8, pcpAsk(ann, 5000, 80, 'a')), with(pcpAsk(ann, 5000, 6000, 'a'), prefer)} {
		if m, err := w.MapInternal(req); !errors.Is(err, portmap.ErrFirewall) || m.Client.IsValid() || len(w.List()) != 0 {
			t.Errorf("%+v, %v", m, err)
		}
	}
}
