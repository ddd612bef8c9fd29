package daemon

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// inLab is the real daemon on the router of a lab, with real rules.
type inLab struct {
	*lab.Lab
	t        *testing.T
	iptables string
	before   string // the rules without the daemon
	daemon   *lab.Daemon
	hosts    map[int]*controlPoint
	peer     *net.UDPConn // on the internet, with a fixed port; nil until needed

	wan  string        // the uplink's address, where the lab's router has none
	slow time.Duration // is added to the waits for answers from outside
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
	w := &inLab{Lab: lab.Start(t), t: t, iptables: iptables, hosts: map[int]*controlPoint{}}
	if err := w.Masquerade(iptables); err != nil {
		t.Fatal(err)
	}
	w.before = w.Rules(iptables)
	w.serveHosts()
	return w
}

// serveHosts starts the servers of the LAN hosts.
func (w *inLab) serveHosts() {
	w.t.Helper()
	for _, h := range []*lab.Host{w.LAN1, w.LAN2} {
		if _, err := h.EchoTCP(uint16(w.served())); err != nil {
			w.t.Fatal(err)
		}
		if _, err := h.EchoUDP(uint16(w.served())); err != nil {
			w.t.Fatal(err)
		}
	}
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

func (w *inLab) host(n int) *lab.Host {
	return []*lab.Host{w.Internet, w.LAN1, w.LAN2}[n]
}

func (w *inLab) client(n int) *controlPoint {
	if w.hosts[n] == nil {
		w.hosts[n] = discover(w.t, w.host(n).Addr.String(), lab.RouterLANAddr+":1900", w.host(n).Dial)
	}
	return w.hosts[n]
}

func (w *inLab) reaches(proto string, external int) int {
	reach, timeout := w.ReachTCP, 2*time.Second
	if proto == "UDP" {
		reach, timeout = w.ReachUDP, 400*time.Millisecond
	}
	answer, err := reach(w.Internet, net.JoinHostPort(w.wanAddr(), strconv.Itoa(external)), timeout+w.slow)
	if err != nil {
		return 0
	}
	return w.who(answer)
}

// who tells which LAN host gave an answer.
func (w *inLab) who(answer string) int {
	for n := 1; n <= 2; n++ {
		if strings.HasPrefix(answer, w.host(n).Name+" ") {
			return n
		}
	}
	w.t.Fatalf("an unknown host answered: %q", answer)
	return 0
}

func (w *inLab) answers(external int) int {
	w.t.Helper()
	var err error
	if w.peer == nil {
		if w.peer, err = w.Internet.ListenUDP(lab.InternetAddr + ":4000"); err != nil {
			w.t.Fatal(err)
		}
	}
	to := netip.AddrPortFrom(netip.MustParseAddr(w.wanAddr()), uint16(external))
	if _, err := w.peer.WriteToUDPAddrPort([]byte("x"), to); err != nil {
		w.t.Fatal(err)
	}
	w.peer.SetReadDeadline(time.Now().Add(300*time.Millisecond + w.slow))
	answer := make([]byte, 200)
	n, err := w.peer.Read(answer)
	if err != nil {
		return 0
	}
	return w.who(string(answer[:n]))
}

var inet = regexp.MustCompile(`inet ([0-9.]+)/`)

func (w *inLab) wanAddr() string {
	found := inet.FindStringSubmatch(w.Router.Run(w.t, "ip", "-4", "addr", "show", "dev", lab.WANDev))
	if found == nil {
		return cmp.Or(w.wan, lab.WANAddr)
	}
	return found[1]
}

func (w *inLab) setWAN(addr string) {
	w.Router.Run(w.t, "ip", "-4", "addr", "flush", "dev", lab.WANDev)
	if addr != "" {
		w.Router.Run(w.t, "ip", "addr", "add", addr+"/24", "dev", lab.WANDev)
		w.Router.Run(w.t, "ip", "route", "replace", "default", "via", lab.InternetAddr)
	}
}

func (w *inLab) served() int { return 8080 }

// wantNoRules checks that the firewall is as it was without the daemon.
func (w *inLab) wantNoRules() {
	w.t.Helper()
	if got := w.Rules(w.iptables); got != w.before {
		w.t.Errorf("rules were left:\n%s\nwant\n%s", got, w.before)
	}
}

func TestLab(t *testing.T) {
	for _, v := range variants {
		for name, body := range bodies {
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
			c := w.client(1)
			c.add("TCP", 18080, w.served(), 0)
			flush := func() {
				w.Router.Run(t, v, "-t", "nat", "-F", "UPNPD")
				if w.reaches("TCP", 18080) != 0 {
					t.Fatal("flushing changed nothing")
				}
			}
			flush()
			if code := c.delete("TCP", 18080); code != 0 {
				t.Errorf("DeletePortMapping with flushed rules: error %d", code)
			}
			c.add("TCP", 18080, w.served(), 0)
			c.add("UDP", 18080, w.served(), 0)
			flush()
			if err := w.daemon.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			until(t, "HUP puts the rules back", func() bool { return w.reaches("TCP", 18080) == 1 && w.reaches("UDP", 18080) == 1 })
			w.Router.Run(t, v, "-t", "nat", "-F") // the jumps too
			w.Masquerade(v)
			if code := c.add("TCP", 18080, w.served(), 0); code != 0 || w.reaches("TCP", 18080) != 1 {
				t.Errorf("a renewal after the whole table was flushed: error %d, reaches %d", code, w.reaches("TCP", 18080))
			}
			w.daemon.Signal(syscall.SIGUSR1)
			until(t, "USR1 deletes them", func() bool { return w.reaches("TCP", 18080) == 0 })
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
	c := w.client(1)
	if err := os.WriteFile(refuse, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if code := c.add("TCP", 18080, w.served(), 0); code != 501 {
		t.Errorf("AddPortMapping that the kernel refuses: error %d, want 501", code)
	}
	if _, code := c.call("GetGenericPortMappingEntry", "NewPortMappingIndex", "0"); code != 713 {
		t.Errorf("the refused mapping is in the table (error %d, want 713)", code)
	}
	os.Remove(refuse)
	if w.reaches("TCP", 18080) != 0 {
		t.Error("the refused mapping works")
	}
	if code := c.add("TCP", 18080, w.served(), 0); code != 0 {
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
	c := w.client(1)
	if got := c.externalAddress(); got != "" {
		t.Errorf("ExternalIPAddress without an uplink is %q", got)
	}
	if code := c.add("TCP", 18080, w.served(), 0); code != 0 {
		t.Fatalf("AddPortMapping: error %d", code)
	}
	w.Router.Run(t, "ip", "link", "set", "later", "name", lab.WANDev)
	w.Router.Run(t, "ip", "link", "set", lab.WANDev, "up")
	w.setWAN(lab.WANAddr)
	until(t, "the mapping works", func() bool { return w.reaches("TCP", 18080) == 1 })
}

// TestSourcePorts: two consoles with the same internal port each send from
// their own mapped port (SPEC WIP-25, INT-6), and a LAN host reaches another
// by the external address.
func TestSourcePorts(t *testing.T) {
	for _, v := range variants {
		t.Run(v, func(t *testing.T) {
			w := startInLab(t, v)
			w.client(1).add("UDP", 3074, 3074, 0)
			w.client(2).add("UDP", 3075, 3074, 0)
			if _, err := w.Internet.EchoUDP(7777); err != nil {
				t.Fatal(err)
			}
			for n, want := range map[int]string{1: lab.WANAddr + ":3074", 2: lab.WANAddr + ":3075"} {
				if got := w.seenAs(n, 3074); got != want {
					t.Errorf("host %d, port 3074, is seen as %s, want %s", n, got, want)
				}
			}
			w.client(1).add("TCP", 18080, w.served(), 0)
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
	c, err := w.host(n).ListenUDP(fmt.Sprintf("%s:%d", w.host(n).Addr, port))
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
				_, code := w.client(1).call("AddPortMapping", append(slices.Clone(args), "NewInternalPort", "8080",
					"NewInternalClient", lab.LAN1Addr, "NewEnabled", "1", "NewPortMappingDescription", "", "NewLeaseDuration", "0")...)
				if code != 0 {
					t.Fatalf("AddPortMapping for %s: error %d", remote, code)
				}
				if got := w.reaches("TCP", 18090); got != want {
					t.Errorf("with RemoteHost %s the peer %s reaches %d, want %d", remote, lab.InternetAddr, got, want)
				}
				if _, code := w.client(1).call("DeletePortMapping", args...); code != 0 {
					t.Errorf("DeletePortMapping for %s: error %d", remote, code)
				}
			}
		})
	}
}

// TestNothingOnWAN: no answer of any kind on the WAN side (SPEC SSDP-8, HTTP-13).
func TestNothingOnWAN(t *testing.T) {
	w := startInLab(t, "iptables-legacy")
	w.Internet.Run(t, "ip", "route", "add", lab.LANPrefix, "via", lab.WANAddr)
	w.Router.Run(t, "iptables-legacy", "-P", "FORWARD", "ACCEPT") // even so
	_, port, err := net.SplitHostPort(strings.Split(w.client(1).control, "/")[2])
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{lab.WANAddr, lab.RouterLANAddr} {
		if c, err := w.Internet.Dial("tcp4", addr+":"+port, time.Second); err == nil {
			c.Close()
			t.Errorf("%s:%s accepts a connection from the internet", addr, port)
		}
		c, err := w.Internet.Dial("udp4", addr+":1900", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: ssdp:all\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if n, err := c.Read(make([]byte, 1500)); err == nil {
			t.Errorf("%s:1900 answers the internet with %d bytes", addr, n)
		}
		c.Close()
	}
}
