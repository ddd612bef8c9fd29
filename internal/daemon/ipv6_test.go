package daemon

import (
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// TestUpnpctlIPv6: status shows the LAN's IPv6 addresses that hosts beyond the link
// can use, and check looks whether IPv6 is forwarded, but not with ipv6 = no.
func TestUpnpctlIPv6(t *testing.T) {
	for _, ipv6 := range []bool{true, false} {
		w := raise(t, lab.Nftables)
		if err := w.IPv6(lab.Nftables); err != nil {
			t.Fatal(err)
		}
		args := []string{"--ipv6", "yes"}
		if !ipv6 {
			args[1] = "no"
		}
		w.start(args...)
		w.installed()
		addrs := lab.RouterLANAddr + "/24"
		if ipv6 {
			addrs += ", " + lab.RouterULA + "/64, " + lab.RouterLANAddr6 + "/64"
		}
		home.Until(t, "the LAN's addresses", func() bool { return strings.Contains(w.says("status"), addrs+", served") })
		const wrong = "net.ipv6.conf.all.forwarding = 0"
		if text, _, _ := w.ctl("check"); strings.Contains(text, wrong) {
			t.Errorf("check: %s", text)
		}
		w.Router.Run(t, "sysctl", "-w", "net.ipv6.conf.all.forwarding=0")
		if text, _, code := w.ctl("check"); strings.Contains(text, wrong) != ipv6 || ipv6 != (code == 2) {
			t.Errorf("ipv6 %v: check: exit code %d\n%s", ipv6, code, text)
		}
	}
}
