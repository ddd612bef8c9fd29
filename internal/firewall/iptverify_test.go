package firewall

import (
	"net/netip"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestVerify: what somebody else did to our rules is told in words, and nothing
// else is; Sync puts it right (issue 4, point 3).
func TestVerify(t *testing.T) {
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		disabled, from := game, only(web, "11.0.0.9")
		disabled.Enabled, disabled.ExternalPort = false, 5
		all := []portmap.Mapping{web, from, disabled}
		f, err := open(t, l, options(v))
		if err != nil {
			t.Fatal(err)
		}
		on(t, l, func() error { return f.Sync(home, all) })
		on(t, l, func() error { return f.Change(nil, &game) })
		verify := func() (said string) {
			t.Helper()
			before := l.Rules(v)
			on(t, l, func() (err error) { said, err = f.Verify(); return err })
			if got := l.Rules(v); got != before {
				t.Errorf("Verify made\n%s\nof\n%s", got, before)
			}
			return said
		}
		all = append(all, game)
		for _, tt := range []struct {
			name, script, want string
		}{
			{"equal", "", ""},
			{"others' rules", "$ipt -N x; $ipt -A x -j RETURN; $ipt -t nat -I PREROUTING -p tcp --dport 1 -j DNAT --to 192.168.77.10:1; $ipt -A FORWARD -i lo -j UPNPD", ""},
			{"one mapping", "$ipt -t nat -D UPNPD -s 11.0.0.9 -p tcp --dport 18080 -j DNAT --to-destination 192.168.77.10:8080", "chain UPNPD of table nat lacks 1 of 3 rules"},
			{"all mappings, a jump", "$ipt -t nat -F UPNPD; $ipt -t nat -F PREROUTING", "chain UPNPD of table nat lacks 3 of 3 rules; jump PREROUTING -j UPNPD-PRE is missing"},
			{"a jump of ours is gone, not that of the administrator", "$ipt -D FORWARD -j UPNPD", "jump FORWARD -j UPNPD is missing"},
			{"filter", "$ipt -F UPNPD", "chain UPNPD of table filter lacks 1 of 1 rules"},
			{"another target", "$ipt -t nat -R UPNPD 1 -p tcp --dport 18080 -j DNAT --to-destination 192.168.77.10:8081", "chain UPNPD of table nat lacks 1 of 3 rules; chain UPNPD of table nat has 1 too many"},
			{"a rule too many", "$ipt -t nat -I UPNPD -p tcp --dport 99 -j DNAT --to-destination 192.168.77.10:99", "chain UPNPD of table nat has 1 too many"},
			{"a rule twice", "$ipt -A UPNPD -m connmark --mark 0x10000000/0x10000000 -m conntrack --ctstate DNAT -j ACCEPT", "chain UPNPD of table filter has 1 too many"},
			{"sources", "$ipt -t nat -F UPNPD-POST; $ipt -t nat -F UPNPD-PRE", "chain UPNPD-PRE of table nat lacks 3 of 3 rules; chain UPNPD-POST of table nat lacks 4 of 4 rules"},
			{"everything", "$ipt -t nat -F; $ipt -t nat -X; $ipt -F", "chain UPNPD-PRE of table nat lacks 3 of 3 rules; chain UPNPD of table nat lacks 3 of 3 rules; chain UPNPD-POST of table nat lacks 4 of 4 rules; " +
				"jump PREROUTING -j UPNPD-PRE is missing; jump POSTROUTING -j UPNPD-POST is missing; " +
				"chain UPNPD of table filter lacks 1 of 1 rules; jump FORWARD -j UPNPD is missing"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				l.Router.Run(t, "sh", "-c", "ipt="+v+"; "+tt.script)
				if said := verify(); said != tt.want {
					t.Errorf("said  %q\nwant %q", said, tt.want)
				}
				on(t, l, func() error { return f.Sync(home, all) })
				if said := verify(); said != "" {
					t.Errorf("after Sync: %q", said)
				}
			})
		}
		on(t, l, func() error { return f.Change([]portmap.Mapping{web}, nil) })
		on(t, l, func() error { return f.Sync(portmap.Network{LANs: []netip.Prefix{prefix("192.168.77.1/24")}}, all) })
		if said := verify(); said != "" {
			t.Errorf("without an uplink: %q", said)
		}
		on(t, l, f.Close)
	})
}
