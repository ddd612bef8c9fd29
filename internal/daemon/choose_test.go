package daemon

import (
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
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
			c := home.Discover(t, lab.LAN1Addr, lab.RouterLANAddr+":1900", l.LAN1.Dial)
			if code := c.Add("TCP", 18080, 8080, 0); code != 0 {
				t.Errorf("AddPortMapping: error %d", code)
			}
		})
	}
}

// TestForwardWarning: a forward chain that drops what is mapped is named once,
// with the line that helps, and following it helps.
func TestForwardWarning(t *testing.T) {
	for router, chain := range map[string]string{"nft": "inet router forward", "iptables-nft": "FORWARD"} {
		t.Run(router, func(t *testing.T) {
			w := raise(t, lab.Nftables)
			w.Router.Run(t, "nft", "flush ruleset")
			if router == "nft" {
				w.Router.Run(t, "nft", "table inet router { chain forward { type filter hook forward priority filter; policy drop;\n}\n}")
			} else if err := w.Masquerade(router); err != nil {
				t.Fatal(err)
			}
			w.start()
			c := w.Client(1)
			c.Add("TCP", 18080, w.Served(), 0)
			if err := w.daemon.WaitLog(chain); err != nil {
				t.Fatal(err)
			}
			if w.Reaches("TCP", 18080) != 0 {
				t.Fatal("the mapping works: nothing to warn of")
			}
			_, line, ok := strings.Cut(w.daemon.Log(), "let them pass: ")
			line, _, _ = strings.Cut(line, "\n")
			if !ok {
				t.Fatalf("no line to add in\n%s", w.daemon.Log())
			}
			w.Router.Run(t, "sh", "-c", line)
			if w.Reaches("TCP", 18080) != 1 && router != "nft" { // there the answers are dropped as well
				t.Errorf("after %q the mapping does not work", line)
			}
			if n := strings.Count(w.daemon.Log(), line); n != 1 {
				t.Errorf("warned %d times:\n%s", n, w.daemon.Log())
			}
		})
	}
}
