package firewall

import (
	"fmt"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestTracked: a datagram through a mapping is tracked, and only once; one that
// the forward chain drops is not, nor are other connections taken for it (issue
// 4, check --live).
func TestTracked(t *testing.T) {
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		f, err := open(t, l, options(v))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.LAN1.EchoUDP(8080); err != nil {
			t.Fatal(err)
		}
		on(t, l, func() error { return f.Sync(home, []portmap.Mapping{game}) })
		p := newPeer(t, l.Internet, "11.0.0.1:4000")
		client := "192.168.77.10:8080"
		want := func(want bool, proto portmap.Protocol, src, dst string) {
			t.Helper()
			on(t, l, func() error {
				got, err := Tracked(proto, ap(src), ap(dst), ap(client))
				if err == nil && got != want {
					err = fmt.Errorf("%v from %s to %s is tracked: %v", proto, src, dst, got)
				}
				return err
			})
		}
		if p.ask("11.0.0.2:18080") == "" {
			t.Fatal("no answer")
		}
		want(false, portmap.TCP, "11.0.0.1:4000", "11.0.0.2:18080")
		want(false, portmap.UDP, "11.0.0.1:4000", "11.0.0.2:18081")
		want(false, portmap.UDP, "11.0.0.1:4001", "11.0.0.2:18080")
		want(true, portmap.UDP, "11.0.0.1:4000", "11.0.0.2:18080")
		want(false, portmap.UDP, "11.0.0.1:4000", "11.0.0.2:18080") // deleted
		k := newTracker(t, l)
		if left := k.list(); left[tuple{17, ap("11.0.0.1:4000"), ap("11.0.0.2:18080")}] {
			t.Error("it is still there")
		}
		if p.ask("11.0.0.2:18080") == "" {
			t.Fatal("no answer")
		}
		client = "192.168.77.20:8080" // somebody else's redirect is no mapping that works
		want(false, portmap.UDP, "11.0.0.1:4000", "11.0.0.2:18080")
		client = "192.168.77.10:8080"
		want(false, portmap.UDP, "11.0.0.1:4000", "11.0.0.2:18080") // deleted, too
		l.Router.Run(t, v, "-I", "FORWARD", "-i", lab.WANDev, "-j", "DROP")
		if p.ask("11.0.0.2:18080") != "" {
			t.Fatal("an answer")
		}
		want(false, portmap.UDP, "11.0.0.1:4000", "11.0.0.2:18080")
		if _, err := Tracked(portmap.UDP, ap("[fe80::1]:1"), ap("[fe80::2]:1"), ap("[fe80::3]:1")); err == nil {
			t.Error("no error for IPv6")
		}
		on(t, l, f.Close)
	})
}
