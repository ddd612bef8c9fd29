package firewall

import (
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestSourcePort: where a client's connection leaves from (PEER-1). One that does not
// leave by the uplink has no external port.
func TestSourcePort(t *testing.T) {
	flowsLab(t, func(t *testing.T, l *lab.Lab, f backend) {
		one, two := newPeer(t, l.LAN1, "192.168.77.10:9090"), newPeer(t, l.LAN2, "192.168.77.20:9090")
		far := newPeer(t, l.Internet, "11.0.0.1:4000")
		want := func(what, client, peer string, want uint16) {
			t.Helper()
			on(t, l, func() error {
				m := portmap.Mapping{Client: ap(client).Addr(), InternalPort: ap(client).Port()}
				m.Protocol, m.RemoteHost, m.RemotePort = portmap.UDP, ap(peer).Addr(), ap(peer).Port()
				got, err := f.SourcePort(&m)
				if got != want {
					t.Errorf("%s: %d, want %d", what, got, want)
				}
				return err
			})
		}
		want("nothing sent", "192.168.77.10:9090", "11.0.0.1:4000", 0)
		for _, p := range []peer{one, two} {
			var from string
			until(t, "to the internet", func() bool {
				from = far.got(p, "11.0.0.1:4000", p.LocalAddr().String())
				return from != ""
			})
			want("to the internet", p.LocalAddr().String(), "11.0.0.1:4000", ap(from).Port())
		}
		want("to another port", "192.168.77.10:9090", "11.0.0.1:4001", 0)
		if _, err := one.WriteToUDPAddrPort([]byte("x"), ap("192.168.77.1:4000")); err != nil {
			t.Fatal(err)
		}
		tracker := newTracker(t, l)
		until(t, "a connection that stays inside", func() bool {
			return tracker.list()[tuple{17, ap("192.168.77.10:9090"), ap("192.168.77.1:4000")}]
		})
		want("not by the uplink", "192.168.77.10:9090", "192.168.77.1:4000", 0)
		on(t, l, func() error { // a flood of PEER asks while the table is locked
			m, start := filtered(18080, "11.0.0.1/32", 4001), time.Now()
			for range 500 {
				if _, err := f.SourcePort(&m); err != nil {
					return err
				}
			}
			t.Logf("a question takes %v", time.Since(start)/500)
			return nil
		})
		on(t, l, f.Close)
	})
}
