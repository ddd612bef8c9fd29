package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// installed puts the program where every user of the router may run it, under its
// two names.
func (w *inLab) installed() *inLab {
	w.t.Helper()
	w.Router.Run(w.t, "sh", "-c", "mkdir -m 755 /run/bin && cp '"+lab.Build(w.t)+"' /run/bin/upnpd && chmod 755 /run/bin/upnpd && ln -s upnpd /run/bin/upnpctl")
	return w
}

// ctl runs upnpctl on the router.
func (w *inLab) ctl(args ...string) (stdout, stderr string, code int) {
	w.t.Helper()
	return w.run(append([]string{"/run/bin/upnpctl"}, args...)...)
}

func (w *inLab) run(args ...string) (stdout, stderr string, code int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var out, fault strings.Builder
	cmd := w.Router.Command(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &fault
	_ = cmd.Run() // the exit code says it
	for _, text := range []string{out.String(), fault.String()} {
		if strings.Contains(text, "\x1b") {
			w.t.Errorf("%q prints %q", args, text)
		}
	}
	return out.String(), fault.String(), cmd.ProcessState.ExitCode()
}

// says wants success, silence on stderr, and the parts in their order.
func (w *inLab) says(args string, parts ...string) string {
	w.t.Helper()
	stdout, stderr, code := w.ctl(strings.Fields(args)...)
	if code != 0 || stderr != "" {
		w.t.Fatalf("upnpctl %s: exit code %d, %s", args, code, stderr)
	}
	wantLines(w.t, stdout, parts...)
	return stdout
}

// fails wants an exit code, one line on stderr with that part, and nothing on
// stdout.
func (w *inLab) fails(code int, part string, args ...string) {
	w.t.Helper()
	stdout, stderr, got := w.ctl(args...)
	if got != code || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "upnpctl: ") || !strings.Contains(stderr, part) {
		w.t.Errorf("upnpctl %q: exit code %d, stdout %q, stderr %q; want %d, %q", args, got, stdout, stderr, code, part)
	}
}

// TestUpnpctlShows: each command that shows something, of a real daemon (issue 4,
// points 3 and 6).
func TestUpnpctlShows(t *testing.T) {
	w := startInLab(t, lab.Nftables).installed()
	w.says("list", "no mappings")
	w.says("log", "no decisions yet")
	someMappings(w)
	w.wantReached(map[string]int{"TCP 18080": 1, "TCP 18082": 1})
	w.Reaches("TCP", 18080)
	if code := w.Client(2).Add("TCP", 80, w.Served(), 0); code != 718 {
		t.Errorf("port 80: error %d", code)
	}

	w.showsList()
	refusal := lab.LAN2Addr + "  map TCP port 80 to " + lab.LAN2Addr + " port 8080: refused: denied by the rules: ports below 1024 need an allow rule\n"
	w.showsStatus(refusal)
	w.says("log", lab.LAN1Addr+"  map TCP port 18080 to "+lab.LAN1Addr+" port 8080: granted for 3600 s (default: ports from 1024 on)\n", refusal)
	noTime := regexp.MustCompile(`:\d{10}:`)
	for args, want := range map[string]string{
		"export": "TCP:18080:192.168.77.10:8080:T:web & <more>\nUDP:18081:192.168.77.20:8080:T:\n" +
			"TCP:18082:192.168.77.10:8080:T:  blanks \nUDP:18080:192.168.77.10:8080:T:aTCP 22\n",
		"export --remote-host": "TCP:18080::192.168.77.10:8080:T:web & <more>\nUDP:18081::192.168.77.20:8080:T:\n" +
			"TCP:18082:11.0.0.1:192.168.77.10:8080:T:  blanks \nUDP:18080:11.0.0.9:192.168.77.10:8080:T:aTCP 22\n",
	} {
		if got := noTime.ReplaceAllString(w.says(args), ":T:"); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", args, got, want)
		}
	}
}

func (w *inLab) showsList() {
	w.t.Helper()
	w.says("list", "PROTO", "EXTERNAL", "FROM", "CLIENT", "INTERNAL", "LEASE", "BY", "PACKETS", "DESCRIPTION\n",
		"TCP", "18080", " - ", lab.LAN1Addr, "8080", "UPnP", "2", "web & <more>\n",
		"TCP", "18082", lab.InternetAddr, lab.LAN1Addr, "UPnP", "1", "blanks \n", "TCP", "18083", " - ", lab.LAN2Addr, "disabled", "disabled\n",
		"UDP", "18080", "11.0.0.9", lab.LAN1Addr, "aTCP 22\n", "UDP", "18081", " - ", lab.LAN2Addr, "UPnP", "0", " -\n")
	var shown []string
	for _, m := range parseList(w.t, []byte(w.says("list --json"))) {
		shown = append(shown, fmt.Sprintf("%s %d %s:%d %t %s %s %q %t", m.Protocol, m.ExternalPort, m.Client, m.InternalPort, m.Enabled,
			m.MadeBy, *m.Owner, m.Description, m.Host == nil))
	}
	if want := []string{
		`TCP 18080 192.168.77.10:8080 true UPnP 192.168.77.10 "web & <more>" true`,
		`TCP 18082 192.168.77.10:8080 true UPnP 192.168.77.10 "  blanks " true`,
		`TCP 18083 192.168.77.20:8080 false UPnP 192.168.77.20 "disabled" true`,
		`UDP 18080 192.168.77.10:8080 true UPnP 192.168.77.10 "aTCP 22" true`,
		`UDP 18081 192.168.77.20:8080 true UPnP 192.168.77.20 "" true`,
	}; !slices.Equal(shown, want) {
		w.t.Errorf("list --json:\n%s\nwant\n%s", strings.Join(shown, "\n"), strings.Join(want, "\n"))
	}
}

func (w *inLab) showsStatus(refusal string) {
	w.t.Helper()
	w.says("status", "upnpd", ", up 0:00:", "uplink", lab.WANDev+", up, "+lab.WANAddr, "external", lab.WANAddr, "firewall", "nftables\n",
		"LAN "+lab.LANDev, lab.RouterLANAddr+"/24, served", "mappings", "5 of ", lab.LAN1Addr, "3 of ",
		"leases", "/var/run/upnpd/leases\n", "refused", refusal)
	var status struct {
		Version         string
		Uptime          *int
		ExternalAddress string `json:"external_address"`
		Firewall        string
		ForwardPath     *string `json:"forward_path"`
		LANs            []struct {
			Device string
			Served bool
		}
		Mappings  int
		LeaseFile string `json:"lease_file"`
		Refusals  []struct{ From, What, Verdict string }
	}
	text := w.says("status --json")
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		w.t.Fatalf("%v in %s", err, text)
	}
	if status.Version == "" || status.Uptime == nil || status.ExternalAddress != lab.WANAddr || status.Firewall != "nftables" || status.ForwardPath != nil ||
		len(status.LANs) != 1 || status.LANs[0].Device != lab.LANDev || !status.LANs[0].Served || status.Mappings != 5 ||
		status.LeaseFile != "/var/run/upnpd/leases" || len(status.Refusals) != 1 || status.Refusals[0].From != lab.LAN2Addr {
		w.t.Errorf("status --json: %s", text)
	}
}

// TestUpnpctlLogFollows: a decision is shown when it is made, and the end of the
// daemon is the end of it.
func TestUpnpctlLogFollows(t *testing.T) {
	w := startInLab(t, lab.Nftables).installed()
	w.Client(1).Add("TCP", 18080, w.Served(), 0)
	out := &lockedBuffer{}
	cmd := w.Router.Command(context.Background(), "/run/bin/upnpctl", "log", "-f")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	home.Until(t, "the past is shown", func() bool { return strings.Contains(out.String(), "map TCP port 18080 to ") })
	w.Client(1).Delete("TCP", 18080)
	home.Until(t, "what comes is shown", func() bool { return strings.Contains(out.String(), "delete TCP port 18080: granted\n") })
	w.daemon.Stop(t)
	ended := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
	if _ = cmd.Wait(); !ended.Stop() {
		t.Error("it does not end with the daemon")
	}
}

// TestUpnpctlDeletes: mapping, flow and lease are gone (issue 4, point 3).
func TestUpnpctlDeletes(t *testing.T) {
	inVariants(t, func(t *testing.T, w *inLab) {
		w.installed()
		one, two := w.Client(1), w.Client(2)
		for _, proto := range []string{"TCP", "UDP"} {
			one.Add(proto, 18080, w.Served(), 0)
			one.Add(proto, 18081, w.Served(), 0)
			two.Add(proto, 18082, w.Served(), 0)
		}
		w.kept(6)
		if got := w.Answers(18080); got != 1 {
			t.Fatalf("host %d answers", got)
		}
		w.says("delete UDP 18080", "deleted UDP port 18080 to "+lab.LAN1Addr+" port 8080")
		home.Until(t, "the open flow ends", func() bool { return w.Answers(18080) == 0 })
		w.wantReached(map[string]int{"UDP 18080": 0, "TCP 18080": 1, "UDP 18081": 1})
		w.kept(5)
		w.fails(1, "no such mapping", "delete", "UDP", "18080")

		w.says("delete "+lab.LAN1Addr, "TCP port 18080", "TCP port 18081", "UDP port 18081")
		w.wantReached(map[string]int{"TCP 18080": 0, "TCP 18081": 0, "UDP 18081": 0, "TCP 18082": 2, "UDP 18082": 2})
		w.kept(2)
		if _, code := two.Call("GetSpecificPortMappingEntry", "NewRemoteHost", "", "NewExternalPort", "18080", "NewProtocol", "TCP"); code != 714 {
			t.Errorf("GetSpecificPortMappingEntry of what was deleted: error %d", code)
		}
		w.says("flush", "2")
		w.wantReached(map[string]int{"TCP 18082": 0, "UDP 18082": 0})
		w.kept(0)
		w.daemon.Kill()
		w.restart()
		if got := w.table(); len(got) != 0 || len(w.redirects()) != 0 {
			t.Errorf("returned: %v", got)
		}
		wantLines(t, w.says("log"), "no decisions yet")
	})
}

// TestUpnpctlErrors: what cannot be done says what can, with exit code 2.
func TestUpnpctlErrors(t *testing.T) {
	w := startInLab(t, lab.Nftables).installed()
	for _, args := range []string{"", "lst", "list all", "delete", "delete TCP", "delete TCP 0", "delete SCTP 80", "delete 1 2 3", "--jsn list", "flush everything", "--socket"} {
		w.fails(2, "upnpctl", strings.Fields(args)...)
	}
	w.fails(1, "no such mapping", "delete", "TCP", "80")
	w.fails(1, "no such mapping", "delete", "192.168.77.99")

	info, err := os.Lstat(w.file(socketPath))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	nobody := append(strings.Fields("setpriv --reuid 65534 --regid 65534 --clear-groups /run/bin/upnpctl"), "flush")
	if stdout, stderr, code := w.run(nobody...); code != 2 || stdout != "" || !strings.Contains(stderr, "run upnpctl as root") {
		t.Errorf("another user: exit code %d, %q, %q", code, stdout, stderr)
	}

	w.daemon.Kill()
	w.fails(2, "upnpd is not running", "list")
	if _, err := os.Lstat(w.file(socketPath)); err != nil {
		t.Errorf("this test wants the socket of a killed daemon: %v", err)
	}
	w.restart()
	w.says("list", "no mappings")
	w.daemon.Stop(t)
	if _, err := os.Lstat(w.file(socketPath)); !os.IsNotExist(err) {
		t.Errorf("after a clean stop the socket is there: %v", err)
	}
	w.fails(2, "upnpd is not running", "status")
}

// TestOtherControlSocket: HUP changes to it, and to none.
func TestOtherControlSocket(t *testing.T) {
	w := raise(t, lab.Nftables).installed()
	conf := filepath.Join(t.TempDir(), "upnpd.conf")
	reload := func(text string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if w.daemon == nil {
			w.start("--config", conf)
			return
		}
		n := strings.Count(w.daemon.Log(), "configuration read again")
		w.daemon.Signal(syscall.SIGHUP)
		home.Until(t, "it is read", func() bool { return strings.Count(w.daemon.Log(), "configuration read again") > n })
	}
	reload("# nothing\n")
	w.Client(1).Add("TCP", 18080, w.Served(), 0)
	w.says("list", "18080")
	reload("control_socket = /run/other/sock\n")
	w.says("--socket /run/other/sock list", "18080")
	w.fails(2, "upnpd is not running", "list")
	reload("control_socket =\n")
	w.fails(2, "upnpd is not running", "--socket=/run/other/sock", "list")
	reload("# nothing\n")
	w.says("list", "18080")
	if !strings.Contains(w.daemon.Log(), "mappings kept: 1") || w.Reaches("TCP", 18080) != 1 {
		t.Errorf("the mapping did not stay:\n%s", w.daemon.Log())
	}
}

// TestUnprivilegedDaemon: with two capabilities and a directory of its own the
// daemon needs no root, and root's upnpctl works with it (issue 4, point 3).
func TestUnprivilegedDaemon(t *testing.T) {
	w := raise(t, lab.Nftables).installed()
	w.Router.Run(t, "sh", "-c", `mkdir -m 755 /run/upnpd && chown 65534:65534 /run/upnpd && printf '#!/bin/sh\n%s\n' "$1" >/run/bin/start && chmod 755 /run/bin/start`, "sh",
		`exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps +net_admin,+net_raw --ambient-caps +net_admin,+net_raw /run/bin/upnpd "$@"`)
	start := func() {
		w.For(w.t)
		w.daemon = w.Router.StartDaemon(t, "/run/bin/start", w.args()...)
	}
	start()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.daemon.PID))
	if err != nil || !strings.Contains(string(status), "Uid:\t65534\t65534\t65534") || !strings.Contains(string(status), "CapEff:\t0000000000003000") {
		t.Fatalf("%v: the daemon is not what this test is about:\n%s", err, status)
	}
	someMappings(w)
	before, leases := w.entries()
	reached := map[string]int{"TCP 18080": 1, "UDP 18081": 2, "TCP 18082": 1}
	w.wantReached(reached)
	w.kept(5)
	for _, path := range []string{socketPath, leasesPath} {
		info, err := os.Lstat(w.file(path))
		if err != nil || info.Mode().Perm() != 0o600 || info.Sys().(*syscall.Stat_t).Uid != 65534 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if got := parseList(t, []byte(w.says("list --json"))); len(got) != 5 || got[0].Packets == nil || *got[0].Packets != 1 {
		t.Errorf("list: %+v", got)
	}
	for range 2 {
		w.daemon.Kill()
		start()
		w.wantEntries(before, leases)
		w.wantReached(reached)
	}
	w.says("delete UDP 18081", "deleted")
	w.wantReached(map[string]int{"UDP 18081": 0})
	if log := w.daemon.Log(); slices.ContainsFunc([]string{"denied", "permitted", "not restored"}, func(s string) bool { return strings.Contains(log, s) }) {
		t.Errorf("something was not permitted:\n%s", log)
	}
	w.daemon.Stop(t)
	w.wantNoRules()
	if lines := w.leaseLines(); len(lines) != 4 {
		t.Errorf("the file has %q", lines)
	}
}
