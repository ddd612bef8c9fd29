package daemon

import (
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestHostLeavesLAN: with idle_timeout, the mapping of a host that was unplugged
// is removed and logged, and that of the other stays (issue 4, point 4).
func TestHostLeavesLAN(t *testing.T) {
	inVariants(t, func(t *testing.T, w *inLab) {
		for name, value := range map[string]string{ // an absent host is found out within 3 seconds, not a minute
			"base_reachable_time_ms": "500", "delay_first_probe_time": "1", "retrans_time_ms": "300", "gc_stale_time": "1",
		} {
			w.Router.Run(t, "sh", "-c", "echo "+value+" >/proc/sys/net/ipv4/neigh/"+lab.LANDev+"/"+name)
		}
		w.daemon.Stop(t)
		w.restart("--idle-timeout", "3")
		one, two := w.Client(1), w.Client(2)
		one.Add("TCP", 18080, w.Served(), 0)
		one.Add("UDP", 18080, w.Served(), 0)
		two.Add("TCP", 18081, w.Served(), 0)
		w.kept(3)
		w.LAN1.Run(t, "ip", "link", "set", lab.HostDev, "down")
		const said = "DeletePortMap: Proto:UDP Port:18080 (its host has left the LAN: no answer and no new connection for 3 s)"
		if w.daemon.WaitLog(said) != nil { // twice as long, for a busy machine
			if err := w.daemon.WaitLog(said); err != nil {
				t.Fatal(err)
			}
		}
		w.kept(1)
		if got := w.redirects(); len(got) != 1 || !strings.Contains(got[0], "tcp 18081") {
			t.Errorf("the kernel has %q", got)
		}
		w.wantReached(map[string]int{"TCP 18081": 2, "TCP 18080": 0})
		w.LAN1.Run(t, "ip", "link", "set", lab.HostDev, "up")
		w.LAN1.Run(t, "ip", "route", "add", "default", "via", lab.RouterLANAddr)
		one.Add("TCP", 18080, w.Served(), 0)
		w.wantReached(map[string]int{"TCP 18081": 2, "TCP 18080": 1})
		if n := strings.Count(w.daemon.Log(), "has left the LAN"); n != 2 {
			t.Errorf("%d lines of hosts that left:\n%s", n, w.daemon.Log())
		}
	})
}
