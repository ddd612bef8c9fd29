package firewall

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestNFTVerify: what somebody else did to our table is told in words, and nothing
// else is; Sync puts it right (issue 4, point 3).
func TestNFTVerify(t *testing.T) {
	l := lab.Start(t)
	disabled, second := leased(game, time.Hour), leased(web, time.Hour)
	disabled.Enabled, disabled.ExternalPort = false, 5
	second.ExternalPort = 18081 // shares its source
	all := append(wildcards(), filtered(18090, "11.0.0.0/24", 0), netPin("2001:db8:ff::/48", 0), leased(web, time.Hour), leased(only(web, "11.0.0.9"), time.Hour), disabled, second)
	f := openNFT6(t, l)
	verify := func() (said string) {
		t.Helper()
		before := l.Router.Run(t, "nft", "-a", "list", "ruleset")
		on(t, l, func() (err error) { said, err = f.Verify(); return err })
		if got := l.Router.Run(t, "nft", "-a", "list", "ruleset"); changing.ReplaceAllString(got, "") != changing.ReplaceAllString(before, "") {
			t.Errorf("Verify made\n%s\nof\n%s", got, before)
		}
		return said
	}
	if said := verify(); said != "" {
		t.Errorf("before the first Sync: %q", said)
	}
	on(t, l, func() error { return f.Sync(home6, all) })
	last := leased(game, time.Hour)
	on(t, l, func() error { return f.Change(nil, &last) })
	all = append(all, last)
	for _, tt := range []struct {
		name, script, want string
	}{
		{"equal", "", ""},
		{"others' tables", "add table ip upnpd; add table inet x { chain prerouting { type nat hook prerouting priority 0; accept; }; }", ""},
		{"an element", "delete element inet upnpd dnat4 { tcp . 18080 }", "map dnat4 lacks 1 of 3 mappings"},
		{"a specific element", "delete element inet upnpd dnat4from { 11.0.0.9 . tcp . 18080 }", "map dnat4from lacks 1 of 1 mappings"},
		{"elements", "flush map inet upnpd dnat4; flush map inet upnpd snat4", "map dnat4 lacks 3 of 3 mappings; map snat4 lacks 2 of 2 mappings"},
		{"a foreign element", "add element inet upnpd dnat4 { tcp . 1 : 192.168.77.10 . 1 }", "map dnat4 has 1 too many"},
		{"another target", "delete element inet upnpd dnat4 { tcp . 18080 }; add element inet upnpd dnat4 { tcp . 18080 timeout 1h5s : 192.168.77.10 . 1 }",
			"map dnat4 lacks 1 of 3 mappings; map dnat4 has 1 too many"},
		{"another time", "delete element inet upnpd dnat4 { tcp . 18080 }; add element inet upnpd dnat4 { tcp . 18080 timeout 1m : 192.168.77.10 . 8080 }",
			"map dnat4 lacks 1 of 3 mappings; map dnat4 has 1 too many"},
		{"no time", "delete element inet upnpd dnat4 { tcp . 18080 }; add element inet upnpd dnat4 { tcp . 18080 : 192.168.77.10 . 8080 }",
			"map dnat4 lacks 1 of 3 mappings; map dnat4 has 1 too many"},
		{"the address", "delete element inet upnpd ext4 { 11.0.0.2 }", "set ext4 is not the uplink's address"},
		{"an address too many", "add element inet upnpd ext4 { 11.0.0.3 }", "set ext4 is not the uplink's address"},
		{"rules", "flush chain inet upnpd prerouting", "chain prerouting lacks 3 of 3 rules"},
		{"a rule too many", "insert rule inet upnpd postrouting accept", "chain postrouting has 1 too many"},
		{"a chain", "flush chain inet upnpd prerouting; delete chain inet upnpd prerouting", "chain prerouting is missing"},
		{"a chain with another policy", "add chain inet upnpd prerouting { policy drop; }", "chain prerouting is missing"},
		{"a chain and a map", "flush chain inet upnpd postrouting; delete chain inet upnpd postrouting; delete map inet upnpd snat4", "chain postrouting is missing; map snat4 is missing"},
		{"a pinhole", "flush set inet upnpd pin6both", "map pin6both lacks 1 of 1 mappings"},
		{"a pinhole too many", "add element inet upnpd pin6 { tcp . 2001:db8:77::10 . 22 }", "map pin6 has 1 too many"},
		{"an interval", "delete element inet upnpd dnat4net { 11.0.0.0/24 . 0-65535 . udp . 18090 }", "map dnat4net lacks 1 of 1 mappings"},
		{"another interval", "delete element inet upnpd dnat4net { 11.0.0.0/24 . 0-65535 . udp . 18090 }; add element inet upnpd dnat4net { 11.0.0.0/25 . 0-65535 . udp . 18090 timeout 1h5s : 192.168.77.10 . 8080 }",
			"map dnat4net lacks 1 of 1 mappings; map dnat4net has 1 too many"},
		{"an interval of pinholes", "flush set inet upnpd pin6net", "map pin6net lacks 1 of 1 mappings"},
		{"rules of pinholes", "flush chain inet upnpd forward", "chain forward lacks 5 of 5 rules"},
		{"the chain and a set of pinholes", "flush chain inet upnpd forward; delete chain inet upnpd forward; delete set inet upnpd pin6host", "chain forward is missing; map pin6host is missing"},
		{"the table", "delete table inet upnpd", "table inet upnpd is missing"},
		{"everything", "flush ruleset", "table inet upnpd is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.script != "" {
				l.Router.Run(t, "nft", tt.script)
			}
			if said := verify(); said != tt.want {
				t.Errorf("said  %q\nwant %q", said, tt.want)
			}
			if strings.Contains(tt.name, "policy") { // Sync does not set it
				l.Router.Run(t, "nft", "add chain inet upnpd prerouting { policy accept; }")
			}
			on(t, l, func() error { return f.Sync(home6, all) })
			if said := verify(); said != "" {
				t.Errorf("after Sync: %q", said)
			}
		})
	}
	on(t, l, func() error { return f.Sync(portmap.Network{LANs: []netip.Prefix{prefix("192.168.77.1/24")}}, all) })
	if said := verify(); said != "" {
		t.Errorf("without an uplink: %q", said)
	}
	on(t, l, func() error { return f.Sync(home6, all) })

	// A lease that is over, and the kernel has ended it already or not yet.
	f.now = func() time.Duration { return portmap.BootTime() + time.Hour + time.Second }
	if said := verify(); said != "" {
		t.Errorf("in the grace: %q", said)
	}
	l.Router.Run(t, "nft", "delete element inet upnpd dnat4 { tcp . 18080 }")
	if said := verify(); said != "" {
		t.Errorf("ended by the kernel: %q", said)
	}
	f.now = portmap.BootTime
	on(t, l, f.Close)
}
