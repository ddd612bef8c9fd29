package vm

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// The packages for the router are made in the checkout, of what make mipsle built.
const (
	checkout = "../../.."
	arch     = "mipsel_24kc"
)

// Files in the machine.
const (
	daemonLog    = "/run/upnpd.log"
	daemonStatus = "/run/upnpd.status" // its exit status, once it has ended
	daemonPID    = "/run/upnpd.pid"
	syslog       = "/run/messages"
	leases       = "/etc/upnpd/leases"
)

// world is a home whose router is a virtual machine with the OpenWrt package in it.
type world struct {
	*home.Home
	t        *testing.T
	packages string
	system   System
	vm       *Router
	firewall string // lab.Nftables, or a program of iptables
	before   string // the rules without the daemon
	faulty   bool   // something failed, and the machine answered later
}

// raise makes a home, and boots its router.
func (w *world) raise() {
	w.t.Helper()
	w.Home = home.Start(w.t)
	w.Slow = 3 * time.Second
	var err error
	if w.packages, err = Packages(checkout); err != nil {
		w.t.Fatal(err)
	}
	w.system = openWrt(w.t)
	if peer := peers[w.firewall]; peer != "" {
		w.system.Programs["usr/sbin/miniupnpd"] = filepath.Join(w.packages, peer, "usr/sbin/miniupnpd")
	}
	w.boot()
}

// openWrt is a small one with the package, and with the same stand-ins for uci, procd
// and netifd that the tests of the package's scripts have.
func openWrt(t *testing.T) System {
	t.Helper()
	uci := filepath.Join(t.TempDir(), "uci")
	run(t, "go", "build", "-ldflags=-s -w", "-o", uci, checkout+"/internal/openwrt/standin")
	run(t, "make", "-s", "-C", checkout, "ipk", "ARCH="+arch)
	ipks, err := filepath.Glob(filepath.Join(checkout, "dist/packages", arch, "upnpd_*.ipk"))
	if err != nil || len(ipks) != 1 {
		t.Fatalf("want one package, got %q, %v", ipks, err)
	}
	return System{
		Ipk:      ipks[0],
		Programs: map[string]string{"sbin/uci": uci},
		Tree:     checkout + "/internal/openwrt/testdata/root",
		Texts: map[string]string{
			"etc/config/network":    "config interface 'wan'\n\toption proto 'dhcp'\n\toption device '" + lab.WANDev + "'\nconfig interface 'lan'\n\toption proto 'static'\n\toption device '" + lab.LANDev + "'\n",
			"etc/config/firewall":   "config defaults\n",
			"network/wan/l3_device": lab.WANDev + "\n", "network/wan/default_route": "",
			"network/lan/l3_device": lab.LANDev + "\n",
			// firewall4 puts such a line where the chain goes on.
			"etc/fw4.nft": "table inet fw4\nflush table inet fw4\n" + home.FW4(`include "/usr/share/nftables.d/chain-post/forward/*.nft"`),
		},
	}
}

// run runs a program here.
func run(t *testing.T, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "MAKE") && !strings.HasPrefix(e, "MFLAGS=") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	if program == "go" {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0", "GOOS=linux", "GOARCH=mipsle", "GOMIPS=softfloat")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
}

// boot starts the router as far as to its firewall. What OpenWrt does after the
// installation of a package with uci-defaults, it does now.
func (w *world) boot() {
	w.t.Helper()
	w.vm = Boot(w.t, w.Lab, w.packages, w.system)
	w.t.Logf("booted in %v", w.vm.BootTime.Round(100*time.Millisecond))
	w.sh("syslogd -O %s", syslog)
	if w.firewall == lab.Nftables {
		w.sh(": >/run/fw4.state; printf '#!/bin/sh\nexec nft -f /etc/fw4.nft\n' >/sbin/fw4; chmod 755 /sbin/fw4")
	} else {
		for _, command := range lab.HomeFirewall(w.firewall) {
			w.sh("%s", "'"+strings.Join(command, "' '")+"'")
		}
	}
	w.sh("sh /etc/uci-defaults/95-upnpd")
	w.before = w.rules()
}

// sh runs a script in the machine.
func (w *world) sh(format string, args ...any) string {
	w.t.Helper()
	script, began := fmt.Sprintf(format, args...), time.Now()
	out := w.vm.Run(w.t, script)
	w.faulty = w.faulty || w.t.Failed()
	if took := time.Since(began); took > 10*time.Second {
		w.t.Logf("%.200s took %v", script, took)
	}
	return out
}

// rules are all of the machine's rules.
func (w *world) rules() string {
	w.t.Helper()
	if w.firewall == lab.Nftables {
		return w.sh("nft -s list ruleset")
	}
	return w.sh("%[1]s -w -t filter -S && %[1]s -w -t nat -S", w.firewall)
}

// install makes the package's service run, as a user does.
func (w *world) install() {
	w.t.Helper()
	script := "uci set upnpd.config.extif=wan\nuci set upnpd.config.lease_file=" + leases + "\n"
	if w.firewall != lab.Nftables {
		script += "uci set upnpd.config.iptables_location=/usr/sbin/" + w.firewall + "\n"
	}
	w.restart(script + "uci commit upnpd\n")
}

// restart calls the init script, after another script, and starts what it had procd
// start.
func (w *world) restart(before string) {
	w.t.Helper()
	if out := w.sh("%s/etc/init.d/upnpd restart", before); out != "" {
		w.t.Errorf("the init script said\n%s", out)
	}
	if log := w.sh("grep daemon.err %s || true", syslog); log != "" {
		w.t.Errorf("the init script logged\n%s", log)
	}
	w.start()
}

// start runs the daemon as procd was told to, and waits until it serves.
func (w *world) start() {
	w.t.Helper()
	w.For(w.t)
	w.sh(`command=$(sed -n 's/^command //p' /procd/running)
[ -n "$command" ] || exit 1
rm -f %[1]s
{ sh -c "echo \$\$ >%[2]s; exec $command" >%[3]s 2>&1; echo $? >%[1]s; } &`, daemonStatus, daemonPID, daemonLog)
	w.wait("upnpd serves", "grep -q 'Advertisements Sent' "+daemonLog, daemonStatus)
}

// wait waits in the machine for a condition, at most a minute, and no longer than
// there is no file of that name.
func (w *world) wait(what, condition, unless string) {
	w.t.Helper()
	_, err := w.vm.Sh(fmt.Sprintf("for i in $(seq 600); do if %s; then exit 0; fi; [ ! -e %s ] || break; usleep 100000; done; exit 1",
		condition, unless))
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", what, err, w.sh("cat %s", daemonLog))
	}
}

// stop ends the daemon as procd does.
func (w *world) stop() {
	w.t.Helper()
	w.sh("kill $(cat %s)", daemonPID)
	w.wait("upnpd ends", "[ -s "+daemonStatus+" ]", "/none")
	if got := w.sh("cat %s", daemonStatus); got != "0\n" {
		w.t.Errorf("upnpd ended with status %s:\n%s", got, w.sh("cat %s", daemonLog))
	}
}

// kill ends the daemon with kill -9.
func (w *world) kill() {
	w.t.Helper()
	w.sh("kill -9 $(cat %s)", daemonPID)
	w.wait("upnpd is gone", "[ -s "+daemonStatus+" ]", "/none")
}

func (w *world) SetWAN(addr string) {
	w.t.Helper()
	w.sh("ip -4 addr flush dev %s", lab.WANDev)
	if addr != "" {
		w.sh("ip addr add %s/24 dev %s; ip route add default via %s", addr, lab.WANDev, lab.InternetAddr)
	}
	w.WAN = addr
}

// wantNoRules checks that the firewall is as it was without the daemon.
func (w *world) wantNoRules() {
	w.t.Helper()
	if got := w.rules(); got != w.before {
		w.t.Errorf("rules were left:\n%s\nwant\n%s", got, w.before)
	}
}

// mapping is one that upnpctl lists.
type mapping struct {
	Protocol string `json:"protocol"`
	Port     int    `json:"external_port"`
	Packets  *int   `json:"packets"`
}

func (w *world) listed() []mapping {
	w.t.Helper()
	var list struct {
		Mappings []mapping `json:"mappings"`
	}
	text := w.sh("upnpctl list --json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		w.t.Fatalf("upnpctl list: %v in\n%s", err, text)
	}
	return list.Mappings
}

// packets gives what upnpctl list says of a mapping.
func (w *world) packets(proto string, external int) int {
	w.t.Helper()
	all := w.listed()
	i := slices.IndexFunc(all, func(m mapping) bool { return m.Protocol == proto && m.Port == external })
	if i < 0 || all[i].Packets == nil {
		w.t.Fatalf("no packets of %s %d in %+v", proto, external, all)
	}
	return *all[i].Packets
}
