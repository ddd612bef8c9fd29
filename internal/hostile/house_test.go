package hostile

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestMain lets more labs wait beside each other than there are processors: most of the
// time nothing is to happen in them.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// patience bounds every wait for something that must happen.
const patience = 10 * time.Second

// port is the one that the daemon serves HTTP on.
const port = 49200

// The second LAN, for which lan2 has another device.
const (
	guestDev   = "guest"
	guestPeer  = "eth1"
	guestAddr  = "192.168.88.1"
	guestAddr6 = "2001:db8:88::1"
	guestHost  = "192.168.88.20"
	guestHost6 = "2001:db8:88::20"
)

// house is a lab whose router runs the daemon with nftables and IPv6.
type house struct {
	*lab.Lab
	t      *testing.T
	daemon *lab.Daemon
	config string
	leases string
	lans   []string
}

// enter raises a house; options are lines of upnpd.conf.
func enter(t *testing.T, options ...string) *house {
	t.Helper()
	dir := t.TempDir()
	h := &house{Lab: lab.Start(t), t: t, config: filepath.Join(dir, "upnpd.conf"), leases: filepath.Join(dir, "leases"), lans: []string{lab.LANDev}}
	if err := errors.Join(h.Masquerade(lab.Nftables), h.IPv6(lab.Nftables)); err != nil {
		t.Fatal(err)
	}
	options = append(options, fmt.Sprintf("port = %d", port), "firewall = nftables", "lease_file = "+h.leases, "")
	if err := os.WriteFile(h.config, []byte(strings.Join(options, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	return h
}

// guests adds the second LAN.
func (h *house) guests() *house {
	h.t.Helper()
	pid := fmt.Sprint(h.LAN2.PID)
	h.Router.Run(h.t, "ip", "link", "add", guestDev, "type", "veth", "peer", "name", guestPeer, "netns", pid)
	for _, side := range []struct {
		host      *lab.Host
		dev, a, b string
	}{{h.Router, guestDev, guestAddr, guestAddr6}, {h.LAN2, guestPeer, guestHost, guestHost6}} {
		side.host.Run(h.t, "ip", "addr", "add", side.a+"/24", "broadcast", "+", "dev", side.dev)
		side.host.Run(h.t, "ip", "addr", "add", side.b+"/64", "dev", side.dev, "nodad")
		side.host.Run(h.t, "ip", "link", "set", side.dev, "up")
	}
	h.lans = append(h.lans, guestDev)
	return h
}

// begin starts the daemon.
func (h *house) begin() *house {
	h.t.Helper()
	args := append([]string{"--config", h.config, lab.WANDev}, h.lans...)
	h.daemon = h.Router.StartDaemon(h.t, lab.Build(h.t), args...)
	return h
}

// upnpctl runs the control client on the router.
func (h *house) upnpctl(args ...string) string {
	h.t.Helper()
	return h.Router.Run(h.t, filepath.Join(filepath.Dir(lab.Build(h.t)), "upnpctl"), args...)
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
