package openwrt

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestInJail runs the daemon with what ujail leaves it by the calls of the init
// script, and nothing else: those files, /proc, its own user, NET_ADMIN and NET_RAW
// (issue 5, point 1).
func TestInJail(t *testing.T) {
	r := newRouter(t, "config upnpd 'config'\n\toption extif '"+lab.WANDev+"'\n\tlist intif '"+lab.LANDev+"'\n")
	r.jailed()
	r.device(lab.WANDev)
	r.device(lab.LANDev)
	s := r.init("start")
	start := r.jail(s)
	l := lab.Start(t)
	upnpctl := func(args ...string) string {
		socket := r.root + "/tmp/run/upnpd/upnpd.sock"
		return l.Router.Run(t, filepath.Dir(lab.Build(t))+"/upnpctl", append([]string{"--socket", socket}, args...)...)
	}
	d := l.Router.StartDaemon(t, start)

	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Uid:\t415\t415\t415\t415", "CapEff:\t0000000000003000", "CapPrm:\t0000000000003000", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), line+"\n") {
			t.Errorf("no %q in\n%s", line, status)
		}
	}
	if out := upnpctl("check", "--live"); !strings.Contains(out, "PASS  live ") || strings.Contains(out, "FAIL") {
		t.Errorf("%s", out)
	}
	// It writes its files, and reads a configuration that was changed outside.
	l.LAN1.Run(t, "upnpc", "-a", lab.LAN1Addr, "8080", "18080", "tcp")
	if out := upnpctl("list"); !strings.Contains(out, "18080") {
		t.Errorf("%s", out)
	}
	r.must("/sbin/uci", "set", "upnpd.config.log_level=debug")
	if s := r.init("reload"); s.happened() != "gets signal 1" {
		t.Errorf("it %s", s.happened())
	}
	if err := d.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := d.WaitLog("configuration read again; mappings kept: 1"); err != nil {
		t.Fatal(err)
	}
	l.LAN1.Run(t, "upnpc", "-l")
	if !strings.Contains(d.Log(), "#GetExternalIPAddress") { // a line of log_level debug
		t.Errorf("the jail has not seen the new configuration:\n%s", d.Log())
	}
	d.Stop(t)
	if leases := r.read("/tmp/run/upnpd/leases"); !strings.Contains(leases, " 18080 ") {
		t.Errorf("leases: %q", leases)
	}
	r.owner("/tmp/run/upnpd/leases", 415)
}

// jail makes a program that goes where ujail would go by the calls of the init script,
// and becomes upnpd there.
func (r *router) jail(s service) (program string) {
	r.t.Helper()
	root := r.t.TempDir()
	script := "#!/bin/sh -e\ncd " + root + "\nmkdir -p proc usr/sbin\n"
	bind := func(path, option string) {
		outside := r.root + strings.Replace(path, "/var/", "/tmp/", 1)
		info, err := os.Stat(outside)
		if err != nil {
			r.t.Fatal(err)
		}
		make := "mkdir -p"
		if !info.IsDir() {
			script += "mkdir -p ." + filepath.Dir(path) + "\n"
			make = "touch"
		}
		script += fmt.Sprintf("%[1]s .%[2]s\nmount -o bind %[3]s .%[2]s\nmount -o remount,bind,%[4]s .%[2]s\n", make, path, outside, option)
	}
	bind("/usr/sbin/upnpd", "ro")
	for _, path := range s.args("procd_add_jail_mount") {
		bind(path, "ro")
	}
	for _, path := range s.args("procd_add_jail_mount_rw") {
		bind(path, "rw")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err == nil {
		err = copyProgram(setpriv, root, "/bin/setpriv") // who changes the user must be there, too
	}
	if err != nil {
		r.t.Fatal(err)
	}
	var sets struct{ Inheritable, Ambient []string }
	if err := json.Unmarshal([]byte(r.read("/etc/capabilities/upnpd.json")), &sets); err != nil {
		r.t.Fatal(err)
	}
	words := func(set []string) string {
		return strings.ToLower(strings.ReplaceAll("-all,"+strings.Join(set, ","), "CAP_", "+"))
	}
	script += fmt.Sprintf("mount -t proc proc proc\nmount -o bind,ro proc/sys proc/sys\n"+
		"exec chroot . /bin/setpriv --reuid 415 --regid 415 --clear-groups --no-new-privs"+
		" --inh-caps=%s --ambient-caps=%s %s\n", words(sets.Inheritable), words(sets.Ambient),
		strings.TrimPrefix(s.args("procd_set_param")[0], "command "))
	r.write("/jail", script)
	r.write("/start", "#!/bin/sh\nexec unshare --mount "+r.root+"/jail\n")
	r.executable("/jail", "/start")
	return r.root + "/start"
}
