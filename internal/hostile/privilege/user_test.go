package privilege

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// Some user and its group, not the same number.
const testUser, testGroup = 1, 2

// userThreads is what a daemon keeps that is not root any more.
var userThreads = map[string]string{
	"Uid": "1 1 1 1", "Gid": "2 2 2 2", "Groups": "", "CapInh": "0000000000000000", "CapPrm": "0000000000003000",
	"CapEff": "0000000000003000", "CapBnd": "0000000000003000", "CapAmb": "0000000000000000", "NoNewPrivs": "1",
}

// accounts gives the router users of its own: its /etc/passwd is hidden by another.
func (h *house) accounts() {
	h.t.Helper()
	file := filepath.Join(h.t.TempDir(), "passwd")
	text := fmt.Sprintf("root:x:0:0::/:\nbroken:x:y:z::/:\nshort\nrouter:x:%d:%d::/:\n", testUser, testGroup)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
	h.Router.Run(h.t, "mount", "--bind", file, "/etc/passwd")
}

// owner gives the uid of a file of the router.
func (h *house) owner(name string) int {
	h.t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(h.path(name), &st); err != nil {
		h.t.Fatal(err)
	}
	return int(st.Uid)
}

// TestUser: with user = the daemon is another user in every thread, without root's
// group, and does its whole work.
func TestUser(t *testing.T) {
	h := enter(t, lab.Nftables, "user = router")
	h.accounts()
	program := filepath.Join(t.TempDir(), "upnpd") // root has more groups than one
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexec setpriv --groups 0,3,4 "+lab.Build(t)+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.run(program)
	wantThreads(t, h.daemon.PID, userThreads)
	h.life("user = router")
	h.Client(1).Add("TCP", 18083, h.Served(), 0)
	h.daemon.Stop(t)
	if got := h.Rules(lab.Nftables); got != h.before {
		t.Errorf("rules were left:\n%s\nwant\n%s", got, h.before)
	}
	if log := h.daemon.Log(); strings.Contains(log, "not permitted") || strings.Contains(log, "denied") {
		t.Error("something was not permitted")
	}
	if got := h.owner("/run/upnpd/leases"); got != testUser {
		t.Errorf("the leases are user %d's", got)
	}
	for _, user := range []string{"", "1", ""} { // root, by uid, and root once more
		h.configure("user = \"" + user + "\"")
		h.begin()
		if got := h.Reaches("TCP", 18083); got != 1 {
			t.Errorf("user = %q: a lease of the other user's was not restored", user)
		}
		h.daemon.Kill() // it leaves its socket
		if strings.Contains(h.daemon.Log(), "denied") {
			t.Errorf("user = %q: something was denied:\n%s", user, h.daemon.Log())
		}
	}
}

// TestUserReload: what the other user may not read or change is said, and the daemon
// goes on.
func TestUserReload(t *testing.T) {
	h := enter(t, lab.Nftables, "user = router")
	h.accounts()
	h.begin()
	h.Client(1).Add("TCP", 18080, h.Served(), 0)
	refused := func(why string) {
		t.Helper()
		h.again(why, func() { h.signal(syscall.SIGHUP) })
		if got := h.Reaches("TCP", 18080); got != 1 {
			t.Errorf("%s: the port reaches host %d, want 1", why, got)
		}
	}
	h.configure("user = daemon")
	refused("another user or sandbox needs a restart; the old configuration stays")
	h.configure("user = router", "port = 80")
	refused("permission denied; the old configuration stays")
	h.firewall = "iptables-nft"
	h.configure("user = router")
	refused("user = router works with nftables alone")
	if err := os.Chmod(h.path(config), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("permission denied; the old configuration stays")
	h.again("mappings kept: 1", func() {
		h.firewall = lab.Nftables
		if err := os.Chmod(h.path(config), 0o644); err != nil {
			t.Fatal(err)
		}
		h.configure("user = router", "log_level = debug", "lease_file = /etc/upnpd.leases")
		h.signal(syscall.SIGHUP)
	})
	home.Until(t, "it says that there is no lease file", func() bool {
		return strings.Contains(h.daemon.Log(), "leases would not survive a restart: open /etc/upnpd.leases.new: permission denied")
	})
}

// TestUserRefused: a daemon that cannot be who it shall be does not start.
func TestUserRefused(t *testing.T) {
	for _, tt := range []struct{ firewall, user, why string }{
		{lab.Nftables, "nosuch", "user = nosuch: there is no such user in /etc/passwd"},
		{lab.Nftables, "broken", "user = broken: there is no such user in /etc/passwd"},
		{lab.Nftables, "short", "user = short: there is no such user in /etc/passwd"},
		{lab.Nftables, "17", "user = 17: there is no such user in /etc/passwd"},
		{"iptables-legacy", "router", "user = router works with nftables alone"},
		{"iptables-nft", "router", "user = router works with nftables alone"},
	} {
		t.Run(tt.firewall+"/"+tt.user, func(t *testing.T) {
			h := enter(t, tt.firewall, "user = "+tt.user)
			h.accounts()
			_, err := h.Router.Launch(lab.Build(t), "--config", config)
			if err == nil || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("it says %v, want %q", err, tt.why)
			}
			if got := h.Rules(tt.firewall); got != h.before {
				t.Errorf("rules were left:\n%s", got)
			}
		})
	}
}

// TestBackground: in the background, too, and with a port that only root can have.
func TestBackground(t *testing.T) {
	h := enter(t, lab.Nftables, "user = router", "port = 80")
	h.accounts()
	h.Router.Run(t, lab.Build(t), "--config", config)
	pid := running(t, lab.Build(t))
	defer syscall.Kill(pid, syscall.SIGKILL)
	want := map[string]string{}
	for name, value := range userThreads {
		want[name] = strings.Replace(value, "3000", "3400", 1) // and NET_BIND_SERVICE
	}
	wantThreads(t, pid, want)
	h.For(t)
	if code := h.Client(1).Add("TCP", 18080, h.Served(), 0); code != 0 || h.Reaches("TCP", 18080) != 1 {
		t.Errorf("AddPortMapping gives %d", code)
	}
	h.Router.Run(t, "ip", "link", "set", lab.LANDev, "down")
	h.Router.Run(t, "ip", "link", "set", lab.LANDev, "up")
	home.Until(t, "port 80 is served again", func() bool {
		c, err := h.LAN1.Dial("tcp4", lab.RouterLANAddr+":80", 500*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}
