package load

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// patience bounds every wait for something that must happen.
const patience = 20 * time.Second

// house is a lab with a daemon, an attacker on LAN1 and a client on LAN2.
type house struct {
	*lab.Lab
	daemon   *lab.Daemon
	web      string // address and port of the daemon's HTTP
	control  string // path of WANIPConnection:1
	events   string // path of its events
	control2 string // path of WANIPConnection:2
	config   string
	start    int  // descriptors of the daemon
	flooded  bool // thousands of lines are due about the attacker
}

func enter(t *testing.T) *house {
	t.Helper()
	h := &house{Lab: lab.Start(t), config: filepath.Join(t.TempDir(), "upnpd.conf")}
	if err := errors.Join(h.Masquerade(lab.Nftables), os.WriteFile(h.config, []byte("firewall = nftables\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	h.daemon = h.begin(t)
	h.control, h.events = h.find(t, wanIP1)
	h.control2, _ = h.find(t, wanIP2)
	return h
}

// find searches for a service and reads where it is.
func (h *house) find(t *testing.T, service string) (control, events string) {
	t.Helper()
	c, err := h.LAN2.Dial("udp4", lab.RouterLANAddr+":1900", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, search(service))
	c.SetDeadline(time.Now().Add(patience))
	b := make([]byte, 1500)
	n, _ := c.Read(b)
	_, location, _ := strings.Cut(string(b[:n]), "LOCATION: http://")
	location, _, _ = strings.Cut(location, "\r\n")
	at, path, _ := strings.Cut(location, "/")
	h.web = at
	doc, err := h.ask(h.LAN2, fmt.Sprintf("GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, at))
	_, doc, _ = strings.Cut(doc, service)
	_, control, ok := strings.Cut(doc, "<controlURL>")
	_, events, ok2 := strings.Cut(doc, "<eventSubURL>")
	if !ok || !ok2 {
		t.Fatalf("description at %q: %v", location, err)
	}
	control, _, _ = strings.Cut(control, "<")
	events, _, _ = strings.Cut(events, "<")
	return control, events
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
func (h *house) dial(from *lab.Host) (*net.TCPConn, error) { return h.dialFrom(from, from.Addr) }

// dialFrom is dial for one address of the host.
func (h *house) dialFrom(host *lab.Host, from netip.Addr) (tcp *net.TCPConn, err error) {
	err = host.Do(func() error {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: patience}
		c, err := d.Dial("tcp4", h.web)
		if err == nil {
			tcp = c.(*net.TCPConn)
			tcp.SetLinger(0)
			tcp.SetDeadline(time.Now().Add(patience))
		}
		return err
	})
	return tcp, err
}
