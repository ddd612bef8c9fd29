package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// TestBehindFW4: mappings work behind the stock configuration of OpenWrt 22.03 and
// later, with the snippet of the package, and through all that /etc/init.d/firewall
// does (issue 5, point 5; OPENWRT.md section 4).
func TestBehindFW4(t *testing.T) {
	snippet, err := os.ReadFile("../../files/20-upnpd.nft")
	if err != nil {
		t.Fatal(err)
	}
	stock, ours := home.FW4(""), home.FW4(string(snippet))
	w := bare(t, lab.Nftables)
	w.Router.Run(t, "nft", ours)
	w.start()
	c := w.Client(1)
	c.Add("TCP", 18080, w.Served(), 0)
	c.Add("UDP", 18080, w.Served(), 0)
	works := func() bool { return w.Reaches("TCP", 18080) == 1 && w.Reaches("UDP", 18080) == 1 }
	if !works() {
		t.Fatal("mappings do not work behind fw4")
	}
	for _, event := range []struct{ name, script string }{
		{"fw4 reload", "flush table inet fw4\n" + ours},
		{"fw4 restart", "delete table inet fw4\n" + ours},
		{"firewall stop", "flush ruleset"}, // every table, ours too
		{"firewall start", ours},
		{"stop and start at once", "flush ruleset\n" + ours},
	} {
		w.Router.Run(t, "nft", event.script)
		begin := time.Now()
		home.Until(t, "mappings work after "+event.name, works)
		t.Logf("%s: works after %v", event.name, time.Since(begin).Round(time.Millisecond))
	}
	if code := c.Add("TCP", 18081, w.Served(), 0); code != 0 || w.Reaches("TCP", 18081) != 1 {
		t.Errorf("a new mapping: error %d, or it does not work", code)
	}
	w.Router.Run(t, "nft", "flush table inet fw4\n"+stock)
	home.Until(t, "without the snippet fw4 refuses, so the test can fail", func() bool { return !works() })
	if err := w.daemon.WaitLog("chain forward of table inet fw4 drops connections to mapped ports"); err != nil {
		t.Error(err)
	}
}

// fw3Stock is what OpenWrt's firewall3 makes of its stock configuration.
const fw3Stock = `*nat
-A POSTROUTING -o wan0 -m comment --comment "!fw3" -j MASQUERADE
COMMIT
*filter
:FORWARD DROP
:zone_wan_forward - [0:0]
:zone_lan_forward - [0:0]
:reject - [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "!fw3" -j ACCEPT
-A FORWARD -i br-lan -m comment --comment "!fw3: Zone lan forwarding" -j zone_lan_forward
-A FORWARD -i wan0 -m comment --comment "!fw3: Zone wan forwarding" -j zone_wan_forward
-A FORWARD -m comment --comment "!fw3" -j reject
-A zone_lan_forward -o wan0 -m comment --comment "!fw3" -j ACCEPT
-A zone_wan_forward -m conntrack --ctstate DNAT -m comment --comment "!fw3: Accept port forwards" -j ACCEPT
-A reject -p tcp -m comment --comment "!fw3" -j REJECT --reject-with tcp-reset
-A reject -m comment --comment "!fw3" -j REJECT
COMMIT
`

// TestBehindFW3: the same with iptables, where the firewall's include tells the
// daemon that the rules are new.
func TestBehindFW3(t *testing.T) {
	w := bare(t, "iptables-legacy")
	dir := t.TempDir()
	stock := filepath.Join(dir, "fw3")
	load := "iptables-legacy-restore --noflush " + stock
	if err := os.WriteFile(stock, []byte(fw3Stock), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Router.Run(t, "sh", "-c", load)
	w.start()
	include, err := filepath.Abs("../../files/firewall.include")
	if err != nil {
		t.Fatal(err)
	}
	// procd's part of `ubus call service signal`.
	ubus := fmt.Sprintf("#!/bin/sh\n[ \"$*\" = '-t 5 call service signal {\"name\":\"upnpd\",\"signal\":1}' ] && kill -HUP %d\n", w.daemon.PID)
	if err := os.WriteFile(filepath.Join(dir, "ubus"), []byte(ubus), 0o700); err != nil {
		t.Fatal(err)
	}
	w.Client(1).Add("TCP", 18080, w.Served(), 0)
	w.Client(1).Add("UDP", 18080, w.Served(), 0)
	works := func() bool { return w.Reaches("TCP", 18080) == 1 && w.Reaches("UDP", 18080) == 1 }
	if !works() {
		t.Fatal("mappings do not work behind fw3")
	}
	const flush = "for t in filter nat; do iptables-legacy -t $t -F; iptables-legacy -t $t -X; done; iptables-legacy -P FORWARD ACCEPT; "
	own := "iptables-legacy-save | grep -v -- '!fw3' | iptables-legacy-restore; " + load
	for _, event := range []struct{ name, script string }{
		{"fw3 reload", own}, // what is not its own stays
		{"fw3 restart", flush + load},
		{"firewall stop and start", flush + "sleep 0.2; " + load},
	} {
		w.Router.Run(t, "sh", "-c", event.script)
		if strings.Contains(event.script, "-F") && works() {
			t.Errorf("%s: nothing was flushed; the test looks at nothing", event.name)
		}
		w.Router.Run(t, "env", "PATH="+dir+":"+os.Getenv("PATH"), "busybox", "ash", include)
		begin := time.Now()
		home.Until(t, "mappings work after "+event.name, works)
		t.Logf("%s: works after %v", event.name, time.Since(begin).Round(time.Millisecond))
	}
}
