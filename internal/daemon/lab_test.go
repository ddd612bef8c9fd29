package daemon

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// inLab is the real daemon on the router of a lab, with real rules.
type inLab struct {
	*home.Home
	t        *testing.T
	iptables string
	before   string // the rules without the daemon
	daemon   *lab.Daemon
}

// variants are the routers that the bodies run on: with either iptables, and
// without any.
var (
	iptablesVariants = []string{"iptables-legacy", "iptables-nft"}
	variants         = append([]string{lab.Nftables}, iptablesVariants...)
)

// raise makes a lab whose LAN hosts serve, without the daemon.
func raise(t *testing.T, iptables string) *inLab {
	t.Helper()
	w := bare(t, iptables)
	if err := w.Masquerade(iptables); err != nil {
		t.Fatal(err)
	}
	w.before = w.Rules(iptables)
	return w
}

// bare is raise without rules.
func bare(t *testing.T, iptables string) *inLab {
	t.Helper()
	return &inLab{Home: home.Start(t), t: t, iptables: iptables}
}

func (w *inLab) start(flags ...string) {
	w.t.Helper()
	w.daemon = w.Router.StartDaemon(w.t, lab.Build(w.t), w.args(flags...)...)
}

// args are the daemon's for this router, after the flags.
func (w *inLab) args(flags ...string) []string {
	switch {
	case w.iptables == lab.Nftables:
		flags = append(flags, "--firewall", "nftables")
	case !slices.Contains(flags, "--iptables-location"):
		flags = append(flags, "--iptables-location", "/usr/sbin/"+w.iptables)
	}
	if !slices.Contains(flags, "--config") {
		flags = append(flags, "--config", "/dev/null")
	}
	return append(flags, lab.WANDev, lab.LANDev)
}

func startInLab(t *testing.T, iptables string, flags ...string) *inLab {
	t.Helper()
	w := raise(t, iptables)
	w.start(flags...)
	return w
}

func (w *inLab) SetWAN(addr string) {
	w.WAN = addr
	w.Router.Run(w.t, "ip", "-4", "addr", "flush", "dev", lab.WANDev)
	if addr != "" {
		w.Router.Run(w.t, "ip", "addr", "add", addr+"/24", "dev", lab.WANDev)
		w.Router.Run(w.t, "ip", "route", "replace", "default", "via", lab.InternetAddr)
	}
}

// wantNoRules checks that the firewall is as it was without the daemon.
func (w *inLab) wantNoRules() {
	w.t.Helper()
	if got := w.Rules(w.iptables); got != w.before {
		w.t.Errorf("rules were left:\n%s\nwant\n%s", got, w.before)
	}
}

func TestLab(t *testing.T) {
	for _, v := range variants {
		for name, body := range home.Jobs {
			t.Run(v+"/"+name, func(t *testing.T) {
				w := startInLab(t, v)
				body(t, w)
				w.daemon.Stop(t)
				w.wantNoRules()
			})
		}
	}
}

// TestFlushedRules: a change repairs what somebody flushed, and HUP does.
func TestFlushedRules(t *testing.T) {
	for _, v := range iptablesVariants {
		t.Run(v, func(t *testing.T) {
			w := startInLab(t, v)
			c := w.Client(1)
			c.Add("TCP", 18080, w.Served(), 0)
			flush := func() {
				w.Router.Run(t, v, "-t", "nat", "-F", "UPNPD")
				if w.Reaches("TCP", 18080) != 0 {
					t.Fatal("flushing changed nothing")
				}
			}
			flush()
			if code := c.Delete("TCP", 18080); code != 0 {
				t.Errorf("DeletePortMapping with flushed rules: error %d", code)
			}
			c.Add("TCP", 18080, w.Served(), 0)
			c.Add("UDP", 18080, w.Served(), 0)
			flush()
			if err := w.daemon.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			home.Until(t, "HUP puts the rules back", func() bool { return w.Reaches("TCP", 18080) == 1 && w.Reaches("UDP", 18080) == 1 })
			w.Router.Run(t, v, "-t", "nat", "-F") // the jumps too
			w.Masquerade(v)
			if code := c.Add("TCP", 18080, w.Served(), 0); code != 0 || w.Reaches("TCP", 18080) != 1 {
				t.Errorf("a renewal after the whole table was flushed: error %d, reaches %d", code, w.Reaches("TCP", 18080))
			}
			w.daemon.Signal(syscall.SIGUSR1)
			home.Until(t, "USR1 deletes them", func() bool { return w.Reaches("TCP", 18080) == 0 })
		})
	}
}

// TestFailingKernel: a refused change is 501 and leaves nothing. The kernel's
// refusal is played by a program in front of the real ones.
func TestFailingKernel(t *testing.T) {
	w := raise(t, "iptables-nft")
	dir := t.TempDir()
	refuse := filepath.Join(dir, "refuse")
	for _, name := range []string{"iptables", "iptables-restore"} {
		script := fmt.Sprintf("#!/bin/sh\nif [ -e %s ]; then echo 'the kernel says no' >&2; exit 4; fi\nexec %s \"$@\"\n",
			refuse, strings.Replace("/usr/sbin/"+name, "iptables", "iptables-nft", 1))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.start("--iptables-location", filepath.Join(dir, "iptables"))
	c := w.Client(1)
	if err := os.WriteFile(refuse, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if code := c.Add("TCP", 18080, w.Served(), 0); code != 501 {
		t.Errorf("AddPortMapping that the kernel refuses: error %d, want 501", code)
	}
	if _, code := c.Call("GetGenericPortMappingEntry", "NewPortMappingIndex", "0"); code != 713 {
		t.Errorf("the refused mapping is in the table (error %d, want 713)", code)
	}
	os.Remove(refuse)
	if w.Reaches("TCP", 18080) != 0 {
		t.Error("the refused mapping works")
	}
	if code := c.Add("TCP", 18080, w.Served(), 0); code != 0 {
		t.Errorf("AddPortMapping once the kernel takes it: error %d", code)
	}
}

// TestUplinkAppearsLater: EXTIF is waited for.
func TestUplinkAppearsLater(t *testing.T) {
	w := raise(t, "iptables-legacy")
	w.Router.Run(t, "ip", "link", "set", lab.WANDev, "down")
	w.Router.Run(t, "ip", "link", "set", lab.WANDev, "name", "later")
	w.start()
	if !strings.Contains(w.daemon.Log(), "waiting for it") {
		t.Errorf("no line says that %s is waited for:\n%s", lab.WANDev, w.daemon.Log())
	}
	c := w.Client(1)
	if got := c.ExternalAddress(); got != "" {
		t.Errorf("ExternalIPAddress without an uplink is %q", got)
	}
	if code := c.Add("TCP", 18080, w.Served(), 0); code != 0 {
		t.Fatalf("AddPortMapping: error %d", code)
	}
	w.Router.Run(t, "ip", "link", "set", "later", "name", lab.WANDev)
	w.Router.Run(t, "ip", "link", "set", lab.WANDev, "up")
	w.SetWAN(lab.WANAddr)
	home.Until(t, "the mapping works", func() bool { return w.Reaches("TCP", 18080) == 1 })
}

// TestSourcePorts: two consoles with the same internal port each send from
// their own mapped port (SPEC WIP-25, INT-6), and a LAN host reaches another
// by the external address.
func TestSourcePorts(t *testing.T) {
	for _, v := range variants {
		t.Run(v, func(t *testing.T) {
			w := startInLab(t, v)
			w.Client(1).Add("UDP", 3074, 3074, 0)
			w.Client(2).Add("UDP", 3075, 3074, 0)
			if _, err := w.Internet.EchoUDP(7777); err != nil {
				t.Fatal(err)
			}
			for n, want := range map[int]string{1: lab.WANAddr + ":3074", 2: lab.WANAddr + ":3075"} {
				if got := w.seenAs(n, 3074); got != want {
					t.Errorf("host %d, port 3074, is seen as %s, want %s", n, got, want)
				}
			}
			w.Client(1).Add("TCP", 18080, w.Served(), 0)
			for _, from := range []*lab.Host{w.LAN2, w.LAN1} { // another, and itself
				answer, err := w.ReachTCP(from, lab.WANAddr+":18080", 2*time.Second)
				if err != nil || !strings.HasPrefix(answer, "lan1 ") {
					t.Errorf("hairpin from %s: %q, %v", from.Name, answer, err)
				}
			}
		})
	}
}

// seenAs tells from which address a LAN host's datagram arrives outside.
func (w *inLab) seenAs(n, port int) string {
	w.t.Helper()
	c, err := w.Host(n).ListenUDP(fmt.Sprintf("%s:%d", w.Host(n).Addr, port))
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	c.WriteTo([]byte("who am I"), &net.UDPAddr{IP: net.ParseIP(lab.InternetAddr), Port: 7777})
	answer := make([]byte, 200)
	k, err := c.Read(answer)
	if err != nil {
		w.t.Fatalf("no answer from outside: %v", err)
	}
	_, seen, _ := strings.Cut(string(answer[:k]), "-")
	return seen
}

// TestRemoteHost: RemoteHost is a source match.
func TestRemoteHost(t *testing.T) {
	for _, v := range variants {
		t.Run(v, func(t *testing.T) {
			w := startInLab(t, v)
			for remote, want := range map[string]int{"11.0.0.9": 0, lab.InternetAddr: 1} {
				args := []string{"NewRemoteHost", remote, "NewExternalPort", "18090", "NewProtocol", "TCP"}
				_, code := w.Client(1).Call("AddPortMapping", append(slices.Clone(args), "NewInternalPort", "8080",
					"NewInternalClient", lab.LAN1Addr, "NewEnabled", "1", "NewPortMappingDescription", "", "NewLeaseDuration", "0")...)
				if code != 0 {
					t.Fatalf("AddPortMapping for %s: error %d", remote, code)
				}
				if got := w.Reaches("TCP", 18090); got != want {
					t.Errorf("with RemoteHost %s the peer %s reaches %d, want %d", remote, lab.InternetAddr, got, want)
				}
				if _, code := w.Client(1).Call("DeletePortMapping", args...); code != 0 {
					t.Errorf("DeletePortMapping for %s: error %d", remote, code)
				}
			}
		})
	}
}
