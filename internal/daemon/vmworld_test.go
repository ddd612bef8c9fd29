//go:build vm

package daemon

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/vm"
)

// inVM is the daemon as routers get it, for 32-bit MIPS, in a virtual machine
// that stands in the place of a lab's router (issue 5, point 7).
type inVM struct {
	inLab
	vm *vm.Router
}

// The daemon's files in the machine.
const (
	vmLog    = "/run/upnpd.log"
	vmStatus = "/run/upnpd.status" // its exit status, once it has ended
	vmPID    = "/run/upnpd.pid"
)

// bootVM makes a lab with a virtual machine as its router, whose LAN hosts serve.
func bootVM(t *testing.T, iptables string, programs map[string]string) *inVM {
	t.Helper()
	w := &inVM{inLab: inLab{Lab: lab.Start(t), t: t, iptables: iptables, hosts: map[int]*controlPoint{}, slow: time.Second}}
	packages, err := vm.Packages("../..")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("make", "-s", "-C", "../..", "mipsle").CombinedOutput(); err != nil {
		t.Fatalf("make mipsle: %v\n%s", err, out)
	}
	files := map[string]string{"usr/sbin/upnpd": "../../dist/upnpd-mipsle"}
	for name, path := range programs {
		files[name] = filepath.Join(packages, path)
	}
	w.vm = vm.Boot(t, w.Lab, packages, files)
	w.sh("ln -s upnpd /usr/sbin/upnpctl")
	for _, command := range lab.HomeFirewall(iptables) {
		w.sh("'" + strings.Join(command, "' '") + "'")
	}
	w.before = w.rules()
	w.serveHosts()
	return w
}

// sh runs a script in the machine.
func (w *inVM) sh(format string, args ...any) string {
	w.t.Helper()
	return w.vm.Run(w.t, fmt.Sprintf(format, args...))
}

// rules are all of the machine's rules.
func (w *inVM) rules() string {
	w.t.Helper()
	if w.iptables == lab.Nftables {
		return w.sh("nft list ruleset")
	}
	return w.sh("%[1]s -w -t filter -S && %[1]s -w -t nat -S", w.iptables)
}

// start runs the daemon and waits until it serves.
func (w *inVM) start(flags ...string) {
	w.t.Helper()
	clear(w.hosts)
	w.sh(`rm -f %[1]s
{ sh -c 'echo $$ >%[2]s; exec upnpd -f %[3]s' >%[4]s 2>&1; echo $? >%[1]s; } &`,
		vmStatus, vmPID, strings.Join(w.args(flags...), " "), vmLog)
	w.wait("upnpd serves", "grep -q 'Advertisements Sent' "+vmLog, vmStatus)
}

// wait waits in the machine for a condition, at most 20 seconds, and no longer
// than there is no file of that name.
func (w *inVM) wait(what, condition, unless string) {
	w.t.Helper()
	_, err := w.vm.Sh(fmt.Sprintf("for i in $(seq 200); do if %s; then exit 0; fi; [ ! -e %s ] || break; usleep 100000; done; exit 1",
		condition, unless))
	if err != nil {
		w.t.Fatalf("%s: not within 20 s: %v\n%s", what, err, w.sh("cat "+vmLog))
	}
}

// stop ends the daemon with SIGTERM.
func (w *inVM) stop() {
	w.t.Helper()
	w.sh("kill $(cat %s)", vmPID)
	w.wait("upnpd ends", "[ -s "+vmStatus+" ]", "/none")
	if got := w.sh("cat " + vmStatus); got != "0\n" {
		w.t.Errorf("upnpd ended with status %s:\n%s", got, w.sh("cat "+vmLog))
	}
}

// kill ends the daemon with kill -9.
func (w *inVM) kill() {
	w.t.Helper()
	w.sh("kill -9 $(cat %s)", vmPID)
	w.wait("upnpd is gone", "[ -s "+vmStatus+" ]", "/none")
}

func (w *inVM) client(n int) *controlPoint {
	c := w.inLab.client(n)
	c.web.Timeout = 30 * time.Second // its processor is a slow one
	return c
}

func (w *inVM) setWAN(addr string) {
	w.t.Helper()
	w.sh("ip -4 addr flush dev %s", lab.WANDev)
	if addr != "" {
		w.sh("ip addr add %s/24 dev %s; ip route add default via %s", addr, lab.WANDev, lab.InternetAddr)
	}
	w.wan = addr
}

// wantNoRules checks that the firewall is as it was without the daemon.
func (w *inVM) wantNoRules() {
	w.t.Helper()
	if got := w.rules(); got != w.before {
		w.t.Errorf("rules were left:\n%s\nwant\n%s", got, w.before)
	}
}

// listed gives the daemon's mappings as upnpctl tells them.
func (w *inVM) listed() []listed {
	w.t.Helper()
	return parseList(w.t, []byte(w.sh("upnpctl list --json")))
}

// packets gives what upnpctl list says of a mapping.
func (w *inVM) packets(proto string, external int) int {
	w.t.Helper()
	all := w.listed()
	i := slices.IndexFunc(all, func(m listed) bool { return m.Protocol == proto && m.ExternalPort == external })
	if i < 0 || all[i].Packets == nil {
		w.t.Fatalf("no packets of %s %d in %+v", proto, external, all)
	}
	return *all[i].Packets
}
