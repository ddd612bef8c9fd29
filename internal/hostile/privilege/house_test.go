package privilege

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// TestMain: with C in it, as for the race detector, a Go program cannot change what all
// its threads may do. No daemon is shipped like that.
func TestMain(m *testing.M) {
	os.Unsetenv("UPNPD_RACE")
	os.Setenv("CGO_ENABLED", "0")
	os.Exit(m.Run())
}

// firewalls are the routers that the tests run on.
var firewalls = []string{lab.Nftables, "iptables-legacy", "iptables-nft"}

// house is a router with the daemon.
type house struct {
	*home.Home
	t        *testing.T
	firewall string
	before   string // its rules without the daemon
	daemon   *lab.Daemon
}

// enter raises a house; options are lines of upnpd.conf.
func enter(t *testing.T, firewall string, options ...string) *house {
	t.Helper()
	h := &house{Home: home.Start(t), t: t, firewall: firewall}
	if err := h.Masquerade(firewall); err != nil {
		t.Fatal(err)
	}
	h.before = h.Rules(firewall)
	h.configure(options...)
	return h
}

// config is on the router.
const config = "/run/upnpd.conf"

func (h *house) configure(options ...string) {
	h.t.Helper()
	if h.firewall == lab.Nftables {
		options = append(options, "firewall = nftables")
	} else {
		options = append(options, "iptables_location = /usr/sbin/"+h.firewall)
	}
	text := strings.Join(append(options, "extif = "+lab.WANDev, "intif = "+lab.LANDev, ""), "\n")
	if err := os.WriteFile(h.path(config), []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// begin starts the daemon.
func (h *house) begin() { h.run(lab.Build(h.t)) }

// run starts a program that becomes the daemon.
func (h *house) run(program string) {
	h.t.Helper()
	h.daemon = h.Router.StartDaemon(h.t, program, "--config", config)
	h.For(h.t)
}

// SetWAN makes the house a home.World.
func (h *house) SetWAN(addr string) {
	h.WAN = addr
	h.Router.Run(h.t, "ip", "-4", "addr", "flush", "dev", lab.WANDev)
	if addr != "" {
		h.Router.Run(h.t, "ip", "addr", "add", addr+"/24", "dev", lab.WANDev)
		h.Router.Run(h.t, "ip", "route", "replace", "default", "via", lab.InternetAddr)
	}
}

// until waits for a line of the log to come again.
func (h *house) again(line string, do func()) {
	h.t.Helper()
	n := strings.Count(h.daemon.Log(), line)
	do()
	home.Until(h.t, line, func() bool { return strings.Count(h.daemon.Log(), line) > n })
}

func (h *house) signal(sig syscall.Signal) {
	h.t.Helper()
	if err := h.daemon.Signal(sig); err != nil {
		h.t.Fatal(err)
	}
}

// path is a file of the router, which has a /run of its own.
func (h *house) path(name string) string { return fmt.Sprintf("/proc/%d/root%s", h.Router.PID, name) }

// privileges are the lines of /proc/PID/status that say what a thread may do.
var privileges = []string{"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"}

// wantThreads holds every thread of a process against the privileges.
func wantThreads(t *testing.T, pid int, want map[string]string) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("%d threads found: %v", len(tasks), err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		for _, line := range strings.Split(string(text), "\n") {
			name, value, _ := strings.Cut(line, ":")
			value = strings.Join(strings.Fields(value), " ")
			if w, ok := want[name]; ok && slices.Contains(privileges, name) && value != w {
				t.Errorf("%s: %s is %q, want %q", task, name, value, w)
			}
		}
	}
}

// rootThreads is what root keeps: NET_ADMIN and NET_RAW (linux/capability.h).
var rootThreads = map[string]string{
	"Uid": "0 0 0 0", "Gid": "0 0 0 0", "CapInh": "0000000000000000", "CapPrm": "0000000000003000",
	"CapEff": "0000000000003000", "CapBnd": "0000000000003000", "CapAmb": "0000000000000000", "NoNewPrivs": "1",
}

// running finds the process of a program that only this test has started.
func running(t *testing.T, program string) int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil && path == program {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			return pid
		}
	}
	t.Fatalf("no process runs %s", program)
	return 0
}
