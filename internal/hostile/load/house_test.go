package load

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// patience bounds every wait for something that must happen.
const patience = 20 * time.Second

// house is a lab with a daemon, an attacker on LAN1 and a client on LAN2.
type house struct {
	*lab.Lab
	daemon  *lab.Daemon
	web     string // address and port of the daemon's HTTP
	control string // path of WANIPConnection:1
	events  string // path of its events
	config  string
}

func enter(t *testing.T) *house {
	t.Helper()
	h := &house{Lab: lab.Start(t), config: filepath.Join(t.TempDir(), "upnpd.conf")}
	if err := errors.Join(h.Masquerade(lab.Nftables), os.WriteFile(h.config, []byte("firewall = nftables\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	h.daemon = h.begin(t)
	cp := home.Discover(t, lab.LAN2Addr, lab.RouterLANAddr+":1900", h.LAN2.Dial)
	at, path, ok := strings.Cut(strings.TrimPrefix(cp.Control, "http://"), "/")
	if !ok {
		t.Fatalf("control URL %q", cp.Control)
	}
	h.web, h.control = at, "/"+path
	return h
}

func (h *house) begin(t *testing.T) *lab.Daemon {
	t.Helper()
	return h.Router.StartDaemon(t, lab.Build(t), "--config", h.config, lab.WANDev, lab.LANDev)
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// memory is a figure of the daemon in kB: VmHWM, the most that was ever resident, or
// VmRSS.
func memory(t testing.TB, d *lab.Daemon, name string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), name+":")
	n, err := strconv.Atoi(strings.Fields(rest + " ?")[0])
	if err != nil {
		t.Fatalf("%s of the daemon: %v", name, err)
	}
	return n
}

// descriptors counts the daemon's.
func descriptors(t testing.TB, d *lab.Daemon) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// goroutines ends the daemon by a signal at which Go shows them all.
func goroutines(t testing.TB, d *lab.Daemon) int {
	t.Helper()
	before := len(d.Log())
	if err := d.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.Ended():
	case <-time.After(patience):
		t.Error("it does not end")
	}
	d.Kill()
	return strings.Count(d.Log()[before:], "\ngoroutine ")
}

// dial connects from a host to the daemon's HTTP. Closing leaves nothing in
// TIME_WAIT.
func (h *house) dial(from *lab.Host) (*net.TCPConn, error) {
	c, err := from.Dial("tcp4", h.web, patience)
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	tcp.SetLinger(0)
	tcp.SetDeadline(time.Now().Add(patience))
	return tcp, nil
}
