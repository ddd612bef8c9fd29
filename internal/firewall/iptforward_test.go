package firewall

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

const established = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"

// docker is what Docker 28 makes of the filter table.
const docker = `-P FORWARD DROP
-N DOCKER
-N DOCKER-CT
-N DOCKER-FORWARD
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -o docker0 -j DOCKER
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i br-lan -j ACCEPT`

// fw3 is OpenWrt's firewall of old, as far as forwarding goes; %s is its rule
// for redirected connections.
const fw3 = `-P FORWARD DROP
-N forwarding_rule
-N reject
-N zone_wan_forward
-N zone_lan_dest_ACCEPT
-N zone_wan_dest_REJECT
-A FORWARD -m comment --comment "!fw3: Custom forwarding rule chain" -j forwarding_rule
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment !fw3 -j ACCEPT
-A FORWARD -i br-lan -m comment --comment !fw3 -j ACCEPT
-A FORWARD -i wan0 -m comment --comment !fw3 -j zone_wan_forward
-A FORWARD -m comment --comment !fw3 -j reject
-A reject -p tcp -m comment --comment !fw3 -j REJECT --reject-with tcp-reset
-A reject -m comment --comment !fw3 -j REJECT --reject-with icmp-port-unreachable
-A zone_lan_dest_ACCEPT -o br-lan -m comment --comment !fw3 -j ACCEPT
-A zone_wan_dest_REJECT -o wan0 -m comment --comment !fw3 -j reject
-A zone_wan_forward -p esp -m comment --comment "!fw3: Allow-IPSec-ESP \" -j ACCEPT" -j zone_lan_dest_ACCEPT
%s
-A zone_wan_forward -m comment --comment !fw3 -j zone_wan_dest_REJECT`

// forwardPaths are filter tables as iptables gets its arguments, a line each.
var forwardPaths = []struct {
	name, rules       string
	ours, dnat, plain bool // warn: with our forward rules at its head; for the mark; for an unmarked connection
}{
	{"nothing", "", false, false, false},
	{"policy", "-P FORWARD DROP", false, true, true},
	{"accepts the rest", "-P FORWARD DROP\n-A FORWARD -j ACCEPT", false, false, false},
	{"accepts from the uplink", "-P FORWARD DROP\n-A FORWARD -i wan+ -j ACCEPT\n-A FORWARD " + established, false, false, false},
	{"accepts for the uplink", "-P FORWARD DROP\n-A FORWARD " + established + "\n-A FORWARD -o wan0 -j ACCEPT", false, true, true},
	{"accepts our mark", "-P FORWARD DROP\n-A FORWARD " + established + "\n-A FORWARD -m connmark --mark 0x10000000/0x10000000 -j ACCEPT", false, false, true},
	{"accepts our mark, not zero", "-P FORWARD DROP\n-A FORWARD " + established + "\n-A FORWARD -m connmark ! --mark 0/0x10000000 -j ACCEPT", false, false, true},
	{"accepts another mark", "-P FORWARD DROP\n-A FORWARD -m connmark --mark 0x20000000/0x20000000 -j ACCEPT", false, true, true},
	{"accepts what is redirected", "-P FORWARD DROP\n-A FORWARD " + established + "\n-A FORWARD -i wan0 -m conntrack --ctstate NEW,DNAT -j ACCEPT", false, false, false},
	{"accepts what is not redirected", "-P FORWARD DROP\n-A FORWARD -m conntrack ! --ctstate DNAT -j ACCEPT", false, true, true},
	{"drops at the end", "-A FORWARD " + established + "\n-A FORWARD -j DROP", false, true, true},
	{"drops what comes in", "-A FORWARD " + established + "\n-A FORWARD -i wan0 -j DROP", false, true, true},
	{"drops what comes from elsewhere", "-A FORWARD " + established + "\n-A FORWARD ! -i br-lan -j REJECT", false, true, true},
	{"drops others", "-A FORWARD -i eth9 -j DROP\n-A FORWARD -i wan0 -o eth9 -j DROP\n-A FORWARD -o wan0 -s 9.9.9.9 -j DROP\n-A FORWARD ! -i wan0 -s 9.9.9.9 -j DROP", false, false, false},
	{"drops in a chain", "-N x\n-A x -p tcp -j RETURN\n-A x -j DROP\n-A FORWARD " + established + "\n-N y\n-A y -s 9.9.9.9 -j ACCEPT\n-A y -j REJECT\n-A FORWARD -p udp -j x\n-A FORWARD -g y", false, true, true},
	{"a comment", "-A FORWARD " + established + "\n-A FORWARD -m comment --comment \"all \\\"the rest\\\" -j ACCEPT\" -j DROP", false, true, true},
	{"returns", "-N x\n-A x -i wan0 -j RETURN\n-A x -j DROP\n-A FORWARD " + established + "\n-A FORWARD -j x", false, false, false},
	{"Docker", docker, false, true, true},
	{"fw3", strings.Replace(fw3, "%s\n", "", 1), false, true, true},
	{"fw3 with redirects", strings.Replace(fw3, "%s", `-A zone_wan_forward -m conntrack --ctstate DNAT -m comment --comment "!fw3: Accept port forwards" -j ACCEPT`, 1), false, false, false},
}

// TestIPTablesForwardPath: the warning is there when a mapped connection does not
// come through, and only then; and the command that it names helps (issue 4,
// point 3).
func TestIPTablesForwardPath(t *testing.T) {
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		if _, err := l.LAN1.EchoTCP(8080); err != nil {
			t.Fatal(err)
		}
		o := options(v)
		for _, tt := range forwardPaths {
			for _, forward := range []bool{true, false} {
				t.Run(tt.name+map[bool]string{true: ", our forward rules"}[forward], func(t *testing.T) {
					o.ForwardRules = forward
					fillFilter(t, l, v, tt.rules)
					f, err := open(t, l, o)
					if err != nil {
						t.Fatal(err)
					}
					on(t, l, func() error { return f.Sync(home, []portmap.Mapping{web}) })
					want := tt.plain
					if forward {
						want = tt.ours
					}
					checkForwardPath(t, l, want, f.ForwardPath)
					on(t, l, f.Close)
				})
			}
		}
		o.ForwardRules, o.ForwardAppend = true, true
		fillFilter(t, l, v, "-A FORWARD "+established+"\n-A FORWARD -j DROP")
		f, err := open(t, l, o)
		if err != nil {
			t.Fatal(err)
		}
		on(t, l, func() error { return f.Sync(home, []portmap.Mapping{web}) })
		checkForwardPath(t, l, true, f.ForwardPath)
		on(t, l, f.Close)
	})
}

// TestIPTablesBesideNFTables: a forward chain that iptables does not list drops as
// well (issue 4, point 3).
func TestIPTablesBesideNFTables(t *testing.T) {
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		if _, err := l.LAN1.EchoTCP(8080); err != nil {
			t.Fatal(err)
		}
		f, err := open(t, l, options(v))
		if err != nil {
			t.Fatal(err)
		}
		on(t, l, func() error { return f.Sync(home, []portmap.Mapping{web}) })
		checkForwardPath(t, l, false, f.ForwardPath)
		l.Router.Run(t, "nft", "add table inet fw4; add chain inet fw4 forward { type filter hook forward priority 0; policy drop; }; "+
			"add rule inet fw4 forward ct state established,related accept")
		var warning string
		look := func() (err error) { warning, err = f.ForwardPath(); return err }
		on(t, l, look)
		_, command, ok := strings.Cut(warning, "chain forward of table inet fw4 drops connections to mapped ports; let them pass: ")
		if !ok || strings.Contains(warning, "table ip filter") {
			t.Fatalf("the warning is %q", warning)
		}
		l.Router.Run(t, "sh", "-c", command)
		checkForwardPath(t, l, false, f.ForwardPath)
		on(t, l, f.Close)
	})
}

// TestLegacyForwardPath: legacy rules see what nf_tables has redirected.
func TestLegacyForwardPath(t *testing.T) {
	l := lab.Start(t)
	if _, err := l.LAN1.EchoTCP(8080); err != nil {
		t.Fatal(err)
	}
	look := func() (string, error) { return LegacyForwardPath(context.Background(), lab.WANDev) }
	f := openNFT(t, l)
	on(t, l, func() error { return f.Sync(home, []portmap.Mapping{leased(web, time.Hour)}) })
	checkForwardPath(t, l, false, look)
	on(t, l, func() error {
		if legacy := LegacyTables(); legacy != "" {
			t.Errorf("looking put tables in force: %s", legacy)
		}
		return nil
	})
	for _, tt := range forwardPaths {
		t.Run(tt.name, func(t *testing.T) {
			fillFilter(t, l, "iptables-legacy", tt.rules)
			checkForwardPath(t, l, tt.dnat, look)
		})
	}
	on(t, l, f.Close)
}

// fillFilter makes the filter table equal to the rules.
func fillFilter(t *testing.T, l *lab.Lab, iptables, rules string) {
	t.Helper()
	l.Router.Run(t, "sh", "-c", "ipt="+iptables+"\n$ipt -F; $ipt -X; $ipt -P FORWARD ACCEPT\n"+
		"{ echo '*filter'; cat; echo COMMIT; } <<'END' | $ipt-restore -n\n"+strings.ReplaceAll(rules, "-P FORWARD DROP", ":FORWARD DROP")+"\nEND\n")
}

// checkForwardPath compares what look says with what becomes of a connection, and
// follows its advice.
func checkForwardPath(t *testing.T, l *lab.Lab, warn bool, look func() (string, error)) {
	t.Helper()
	var warning string
	ask := func() error { w, err := look(); warning = w; return err }
	reaches := func() bool {
		patience := 2 * time.Second
		if warning != "" {
			patience = 50 * time.Millisecond
		}
		_, err := l.ReachTCP(l.Internet, lab.WANAddr+":18080", patience)
		return err == nil
	}
	on(t, l, ask)
	if (warning != "") != warn {
		t.Errorf("the warning is %q", warning)
	}
	if reached := reaches(); reached != (warning == "") {
		t.Errorf("a connection comes through: %v, and the warning is %q", reached, warning)
	}
	if warning == "" {
		return
	}
	_, command, ok := strings.Cut(warning, "chain FORWARD of table ip filter drops connections to mapped ports; let them pass: ")
	if !ok {
		t.Errorf("the warning is %q", warning)
	}
	l.Router.Run(t, "sh", "-c", command)
	if on(t, l, ask); warning != "" || !reaches() {
		t.Errorf("the command %q does not help; now it is %q", command, warning)
	}
}
