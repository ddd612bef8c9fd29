package vm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// mappings is how many mappings the daemons are measured with; timed of them
// are timed.
const mappings, timed = 100, 50

// measured is what a daemon needs in the virtual machine.
type measured struct {
	Program, Firewall string
	Empty, Full       int           // VmRSS in kB without mappings and with mappings
	Add               time.Duration // the median of timed times AddPortMapping
}

// measure measures a running daemon, whose process id is in a file.
func (w *world) measure(program, pidFile string) (m measured) {
	w.t.Helper()
	m = measured{Program: program, Firewall: w.firewall}
	c := w.Client(1)
	m.Empty = w.resident(pidFile)
	var took []time.Duration
	for n := range mappings {
		began := time.Now()
		if code := c.Add("TCP", 20000+n, w.Served(), 3600); code != 0 {
			w.t.Fatalf("%s: AddPortMapping %d: error %d", program, n, code)
		}
		took = append(took, time.Since(began))
		if took[n] > 2*time.Second {
			w.t.Logf("%s: AddPortMapping %d took %v", program, n, took[n])
		}
	}
	m.Full = w.resident(pidFile)
	took = took[:timed]
	slices.Sort(took)
	m.Add = took[len(took)/2]
	for _, port := range []int{20000, 20000 + mappings - 1} {
		if got := w.Reaches("TCP", port); got != 1 {
			w.t.Errorf("%s: port %d reaches host %d, want 1", program, port, got)
		}
	}
	return m
}

// resident gives a process's memory in kB.
func (w *world) resident(pidFile string) int {
	w.t.Helper()
	kB, err := strconv.Atoi(strings.TrimSpace(w.sh("sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/$(cat %s)/status", pidFile)))
	if err != nil {
		w.t.Fatal(err)
	}
	return kB
}

func (w *world) measureOurs() measured {
	w.t.Helper()
	w.stop()
	w.start() // with nothing left of what it did before
	m := w.measure("upnpd", daemonPID)
	w.stop()
	w.wantNoRules()
	return m
}

// peers are Debian's packages of miniupnpd by firewall.
var peers = map[string]string{lab.Nftables: "miniupnpd-nftables", "iptables-legacy": "miniupnpd-iptables"}

// peerConfig is miniupnpd's in the machine; what it does not name is as
// delivered.
const peerConfig = `ext_ifname=` + lab.WANDev + `
listening_ip=` + lab.LANDev + `
port=0
enable_natpmp=no
ipv6_disable=yes
secure_mode=yes
force_igd_desc_v1=yes
uuid=6f1d0c9e-7f0a-4c53-9a70-3b2d5e8c1f64
allow 1024-65535 0.0.0.0/0 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`

// peerChains are what miniupnpd's own scripts make for it.
var peerChains = map[string]string{
	lab.Nftables: `nft 'add table inet filter
add chain inet filter forward { type filter hook forward priority -1; }
add chain inet filter prerouting { type nat hook prerouting priority -100; }
add chain inet filter postrouting { type nat hook postrouting priority 99; }
add chain inet filter miniupnpd
add chain inet filter prerouting_miniupnpd
add chain inet filter postrouting_miniupnpd
add rule inet filter forward jump miniupnpd
add rule inet filter prerouting jump prerouting_miniupnpd
add rule inet filter postrouting jump postrouting_miniupnpd
insert rule inet fw4 forward ct status dnat accept'`,
	"iptables-legacy": `set -e
iptables-legacy -t nat -N MINIUPNPD
iptables-legacy -t nat -I PREROUTING -i ` + lab.WANDev + ` -j MINIUPNPD
iptables-legacy -t mangle -N MINIUPNPD
iptables-legacy -t mangle -I PREROUTING -i ` + lab.WANDev + ` -j MINIUPNPD
iptables-legacy -N MINIUPNPD
iptables-legacy -I FORWARD -i ` + lab.WANDev + ` ! -o ` + lab.WANDev + ` -j MINIUPNPD
iptables-legacy -t nat -N MINIUPNPD-POSTROUTING
iptables-legacy -t nat -I POSTROUTING -o ` + lab.WANDev + ` -j MINIUPNPD-POSTROUTING`,
}

// measurePeer measures miniupnpd; the machine's rules are not put right after.
func (w *world) measurePeer() measured {
	w.t.Helper()
	w.sh("%s", peerChains[w.firewall])
	w.sh("printf '%%s' '%s' >/run/peer.conf && miniupnpd -f /run/peer.conf -P /run/peer.pid", peerConfig)
	w.wait("miniupnpd has its process id written", "[ -s /run/peer.pid ]", "/none")
	w.wait("miniupnpd listens", "netstat -lun | grep -q :1900", "/none")
	w.For(w.t)
	return w.measure("miniupnpd", "/run/peer.pid")
}

// table compares the daemons. scripts/test.sh shows lines with "vm: ".
func table(all []measured) string {
	var b strings.Builder
	fmt.Fprintf(&b, "vm: %-16s %-10s %8s %18s %15s\n", "firewall", "daemon", "RSS, kB", strconv.Itoa(mappings)+" mappings, kB", "AddPortMapping")
	for _, m := range all {
		fmt.Fprintf(&b, "vm: %-16s %-10s %8d %18d %15v\n", m.Firewall, m.Program, m.Empty, m.Full, m.Add.Round(100*time.Microsecond))
	}
	return b.String()
}
