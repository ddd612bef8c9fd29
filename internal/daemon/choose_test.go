package daemon

import (
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestFirewallAuto: which backend is taken, and that one line says why.
func TestFirewallAuto(t *testing.T) {
	for router, want := range map[string]string{
		"":                "firewall: nftables, since the kernel has it and no legacy tables are in force",
		lab.Nftables:      "firewall: nftables, since the kernel has it and no legacy tables are in force",
		"iptables-legacy": "firewall: iptables, since legacy tables are in force: ",
	} {
		t.Run("router "+router, func(t *testing.T) {
			l := lab.Start(t)
			if router != "" {
				if err := l.Masquerade(router); err != nil {
					t.Fatal(err)
				}
			}
			d := l.Router.StartDaemon(t, lab.Build(t), "--config", "/dev/null", lab.WANDev, lab.LANDev)
			if log := d.Log(); strings.Count(log, "firewall: ") != 1 || !strings.Contains(log, want) {
				t.Errorf("want one line %q in\n%s", want, log)
			}
			c := discover(t, lab.LAN1Addr, lab.RouterLANAddr+":1900", l.LAN1.Dial)
			if code := c.add("TCP", 18080, 8080, 0); code != 0 {
				t.Errorf("AddPortMapping: error %d", code)
			}
		})
	}
}
