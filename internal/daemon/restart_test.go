package daemon

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// inVariants runs a body on each of the routers, at the same time.
func inVariants(t *testing.T, body func(*testing.T, *inLab)) {
	for _, v := range variants {
		t.Run(v, func(t *testing.T) {
			t.Parallel()
			body(t, startInLab(t, v))
		})
	}
}

// restart starts the daemon again.
func (w *inLab) restart(flags ...string) {
	w.t.Helper()
	w.For(w.t) // its port may be another one
	w.start(flags...)
}

// TestNothingLost: what passes through mappings does not notice that the daemon
// is killed, or hands over, and started again (issue 4, point 2).
func TestNothingLost(t *testing.T) {
	inVariants(t, func(t *testing.T, w *inLab) {
		w.mirror(1, 9000)
		c := w.Client(1)
		c.Add("UDP", 19000, 9000, 0)
		c.Add("TCP", 19000, 9000, 0)
		for port := 20000; port < 20050; port++ {
			c.Add("TCP", port, w.Served(), 0)
		}
		w.kept(52)
		p := w.pass(19000)
		for _, end := range []func(){w.daemonKilled, w.daemonHandsOver, w.daemonKilled, w.daemonHandsOver, w.daemonKilled} {
			p.more(50)
			end()
			p.more(50)
			w.restart()
		}
		p.more(50)
		p.wantAll()
		if got := w.redirects(); len(got) != 52 {
			t.Errorf("after all that the kernel has\n%s", strings.Join(got, "\n"))
		}
		w.daemon.Stop(t)
		w.wantNoRules()
	})
}

func (w *inLab) daemonKilled() { w.daemon.Kill() }

// daemonHandsOver ends the daemon with USR2.
func (w *inLab) daemonHandsOver() {
	w.t.Helper()
	before := w.redirects()
	w.daemon.Signal(syscall.SIGUSR2)
	<-w.daemon.Ended()
	if err := w.daemon.Quit(); err != nil {
		w.t.Errorf("USR2: %v", err)
	}
	if got := w.redirects(); !slices.Equal(got, before) {
		w.t.Errorf("USR2 left\n%s\nof\n%s", strings.Join(got, "\n"), strings.Join(before, "\n"))
	}
}

// someMappings has two hosts make five mappings, one of them disabled.
func someMappings(w *inLab) {
	w.t.Helper()
	for i, m := range []struct {
		client               int
		proto, port, remote  string
		enabled, description string
		lease                string
	}{
		{1, "TCP", "18080", "", "1", "web & <more>", "3600"},
		{2, "UDP", "18081", "", "1", "", "604800"},
		{1, "TCP", "18082", lab.InternetAddr, "1", "  blanks ", "7200"},
		{2, "TCP", "18083", "", "0", "disabled", "100"},
		{1, "UDP", "18080", "11.0.0.9", "1", "a\nTCP 22", "0"},
	} {
		if _, code := w.Client(m.client).Call("AddPortMapping", "NewRemoteHost", m.remote, "NewExternalPort", m.port, "NewProtocol", m.proto,
			"NewInternalPort", strconv.Itoa(w.Served()), "NewInternalClient", w.Client(m.client).Addr, "NewEnabled", m.enabled,
			"NewPortMappingDescription", m.description, "NewLeaseDuration", m.lease); code != 0 {
			w.t.Fatalf("mapping %d: error %d", i, code)
		}
	}
}

// entries gives what the clients see: all mappings in their order, without what is
// left of the leases, and that.
func (w *inLab) entries() (all []string, leases []int) {
	w.t.Helper()
	for i := 0; ; i++ {
		out, code := w.Client(1).Call("GetGenericPortMappingEntry", "NewPortMappingIndex", strconv.Itoa(i))
		if code != 0 {
			return all, leases
		}
		key := []string{"NewRemoteHost", out["NewRemoteHost"], "NewExternalPort", out["NewExternalPort"], "NewProtocol", out["NewProtocol"]}
		same, code := w.Client(2).Call("GetSpecificPortMappingEntry", key...)
		if code != 0 {
			w.t.Errorf("GetSpecificPortMappingEntry %q: error %d", key, code)
		}
		lease, _ := strconv.Atoi(same["NewLeaseDuration"])
		maps.DeleteFunc(same, func(name, _ string) bool { return name == "NewLeaseDuration" || !strings.HasPrefix(name, "New") })
		all, leases = append(all, fmt.Sprint(key, same)), append(leases, lease)
	}
}

// wantEntries wants what entries gave before, with leases that run on.
func (w *inLab) wantEntries(before []string, leases []int) {
	w.t.Helper()
	after, now := w.entries()
	if !slices.Equal(after, before) {
		w.t.Errorf("mappings\n%s\nwant\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
		return
	}
	for i := range now {
		if now[i] > leases[i] || now[i] < leases[i]-10 {
			w.t.Errorf("%s: %d s left, %d before", after[i], now[i], leases[i])
		}
	}
}

func (w *inLab) wantReached(want map[string]int) {
	w.t.Helper()
	for name, host := range want {
		proto, port, _ := strings.Cut(name, " ")
		number, _ := strconv.Atoi(port)
		if got := w.Reaches(proto, number); got != host {
			w.t.Errorf("%s reaches host %d, want %d", name, got, host)
		}
	}
}

// TestCleanStop: no rules are left, the lease file is, and the next start restores
// every mapping (issue 4, point 2).
func TestCleanStop(t *testing.T) {
	inVariants(t, func(t *testing.T, w *inLab) {
		someMappings(w)
		before, leases := w.entries()
		reached := map[string]int{"TCP 18080": 1, "UDP 18081": 2, "TCP 18082": 1, "TCP 18083": 0, "UDP 18080": 0}
		w.wantReached(reached)
		w.daemon.Stop(t) // also the changes of the last second are kept
		w.wantNoRules()
		if lines := w.leaseLines(); len(lines) != 5 {
			t.Fatalf("lease file after the stop:\n%s", strings.Join(lines, "\n"))
		}
		w.wantReached(map[string]int{"TCP 18080": 0, "UDP 18081": 0, "TCP 18082": 0})
		w.restart()
		w.wantEntries(before, leases)
		w.wantReached(reached)
		w.daemon.Kill()
		w.restart()
		w.wantEntries(before, leases)
	})
}

// TestDamagedLeases: the good lines are kept, the bad one is named, the daemon
// starts (issue 4, point 1).
func TestDamagedLeases(t *testing.T) {
	w := startInLab(t, lab.Nftables)
	someMappings(w)
	before, leases := w.entries()
	w.kept(5)
	w.daemon.Kill()
	w.editLeases(func(lines []string) []string {
		lines[2] = strings.Replace(lines[2], "18081", "18089", 1)
		return append(lines, "\x00\x00 not a line")
	})
	w.restart()
	w.wantEntries(slices.Delete(before, 1, 2), slices.Delete(leases, 1, 2))
	w.wantReached(map[string]int{"TCP 18080": 1, "UDP 18081": 0, "UDP 18089": 0, "TCP 18082": 1})
	for _, want := range []string{
		"leases: not restored: /var/run/upnpd/leases:3: damaged line: the checksum is wrong",
		"leases: not restored: /var/run/upnpd/leases:7: damaged line: it has no end",
		"leases: mappings restored from /var/run/upnpd/leases: 4",
	} {
		if !strings.Contains(w.daemon.Log(), want+"\n") {
			t.Errorf("no line %q in\n%s", want, w.daemon.Log())
		}
	}
	w.kept(4)
	w.daemon.Kill()
	w.restart()
	if strings.Contains(w.daemon.Log(), "not restored") {
		t.Errorf("the file was not put right:\n%s", w.daemon.Log())
	}
}

// TestDeletedStaysDeleted: what USR1 deleted does not return.
func TestDeletedStaysDeleted(t *testing.T) {
	inVariants(t, func(t *testing.T, w *inLab) {
		someMappings(w)
		w.kept(5)
		w.daemon.Signal(syscall.SIGUSR1)
		w.kept(0)
		w.daemon.Kill()
		w.restart()
		if all, _ := w.entries(); all != nil || len(w.redirects()) != 0 {
			t.Errorf("returned: %v, %v", all, w.redirects())
		}
		w.wantReached(map[string]int{"TCP 18080": 0, "UDP 18081": 0})
	})
}

// TestNotRestored: what the kernel has and the lease file has not is closed by the
// next start, with its flows (issue 4, point 2).
func TestNotRestored(t *testing.T) {
	inVariants(t, func(t *testing.T, w *inLab) {
		c := w.Client(1)
		c.Add("UDP", 18080, w.Served(), 0)
		c.Add("TCP", 18080, w.Served(), 0)
		w.kept(2)
		w.daemon.Kill()
		if got := w.Answers(18080); got != 1 {
			t.Fatalf("while the daemon is dead, host %d answers", got)
		}
		w.editLeases(without("UDP"))
		w.restart()
		w.wantReached(map[string]int{"UDP 18080": 0, "TCP 18080": 1})
		home.Until(t, "the open flow ends", func() bool { return w.Answers(18080) == 0 })
		if got := w.redirects(); len(got) != 1 {
			t.Errorf("the kernel has %q", got)
		}
		if code := w.Client(2).Add("UDP", 18080, w.Served(), 0); code != 0 {
			t.Errorf("another host takes the port: error %d", code)
		}
		home.Until(t, "the other host gets the flow", func() bool { return w.Answers(18080) == 2 })
	})
}

// TestOtherLeaseFile: HUP changes to another file.
func TestOtherLeaseFile(t *testing.T) {
	w := raise(t, lab.Nftables)
	conf := filepath.Join(t.TempDir(), "upnpd.conf")
	configure := func(text string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const other = "/run/flash/upnpd.leases"
	configure("# nothing\n")
	w.start("--config", conf)
	w.Client(1).Add("TCP", 18080, w.Served(), 0)
	w.kept(1)
	configure("lease_file = " + other + "\n")
	w.daemon.Signal(syscall.SIGHUP)
	home.Until(t, "the other file is written", func() bool { return len(w.linesOf(other)) == 1 })
	w.Client(1).Add("TCP", 18081, w.Served(), 0)
	home.Until(t, "changes go there", func() bool { return len(w.linesOf(other)) == 2 })
	if lines := w.leaseLines(); len(lines) != 1 {
		t.Errorf("the old file has become\n%s", strings.Join(lines, "\n"))
	}
	w.daemon.Stop(t)
	w.restart("--config", conf)
	w.wantReached(map[string]int{"TCP 18080": 1, "TCP 18081": 1})
	if status := string(w.request("status")); !strings.Contains(status, other) {
		t.Errorf("status does not name the file:\n%s", status)
	}
}

// TestOtherFirewall: after a crash the next run uses another firewall. The
// mappings go on there, and what the first has left is gone.
func TestOtherFirewall(t *testing.T) {
	for _, v := range [][2]string{
		{lab.Nftables, "iptables-legacy"}, {lab.Nftables, "iptables-nft"},
		{"iptables-legacy", lab.Nftables}, {"iptables-nft", lab.Nftables},
	} {
		t.Run(v[0]+" to "+v[1], func(t *testing.T) {
			t.Parallel()
			w := startInLab(t, v[0])
			if v[0] != lab.Nftables { // what its forward chain needs for the other
				w.Router.Run(t, v[0], "-I", "FORWARD", "-m", "connmark", "--mark", "0x10000000/0x10000000", "-j", "ACCEPT")
			}
			w.Client(1).Add("TCP", 18080, w.Served(), 0)
			w.Client(1).Add("UDP", 18081, w.Served(), 0)
			if got := w.Answers(18081); got != 1 {
				t.Fatalf("host %d answers", got)
			}
			w.kept(2)
			w.daemon.Kill()
			w.iptables = v[1]
			w.restart()
			if got := w.Reaches("TCP", 18080); got != 1 {
				t.Errorf("host %d is reached by the other firewall", got)
			}
			if after := w.Rules(v[0]); strings.Contains(after, "table inet upnpd") && v[0] == lab.Nftables ||
				strings.Contains(after, "UPNPD") && v[0] != lab.Nftables {
				t.Errorf("the first has left\n%s", after)
			}
			home.Until(t, "new connections pass", func() bool { return w.Answers(18081) == 1 })
		})
	}
}

// TestLockIsLeft: the lock of a killed daemon can outlive it for a moment, in a
// child that is on its way to become iptables. The next daemon waits for that.
func TestLockIsLeft(t *testing.T) {
	w := raise(t, lab.Nftables)
	lab.Build(t) // takes its time, once
	var held net.Listener
	if err := w.Router.Do(func() (err error) {
		held, err = net.Listen("unix", "@upnpd")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	released := time.AfterFunc(200*time.Millisecond, func() { held.Close() })
	w.start()
	if released.Stop() {
		t.Error("it serves while another holds the lock")
	}
}
