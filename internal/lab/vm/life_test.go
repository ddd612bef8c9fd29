package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// firewalls are those that routers have.
var firewalls = []string{lab.Nftables, "iptables-legacy", "iptables-nft"}

// TestLife is a home router's life on a 32-bit MIPS kernel, with each firewall
// (issue 5, points 6 and 7).
func TestLife(t *testing.T) {
	dir := os.Getenv(lifeEnv) // of the process of one life
	var all []measured
	for _, firewall := range firewalls {
		t.Run(firewall, func(t *testing.T) {
			if dir == "" {
				all = append(all, live(t, firewall)...)
				return
			}
			w := &world{t: t, firewall: firewall}
			defer w.judge(dir)
			if err := save(filepath.Join(dir, measuredFile), w.life()); err != nil {
				t.Fatal(err)
			}
		})
	}
	if dir == "" {
		t.Logf("in the virtual machine\n%s", table(all))
	}
}

// life is one from the first boot on. It gives what was measured.
func (w *world) life() (all []measured) {
	w.raise()
	w.part("package", packaged)
	w.part("privileges", privileges)
	for _, name := range []string{"map, reach, delete", "two hosts, one port", "WAN address changes", "bad input"} {
		w.part(name, func(w *world) {
			home.Jobs[name](w.t, w)
			w.stop()
			w.wantNoRules()
			w.start()
		})
	}
	w.part("leases", leasesEnd)
	w.part("restarts", restarts)
	w.part("wall clock", wallClock)
	if w.firewall == lab.Nftables {
		w.powerCut()
	}
	w.part("measure", func(w *world) {
		all = append(all, w.measureOurs())
		if peers[w.firewall] != "" {
			all = append(all, w.measurePeer())
		}
	})
	return all
}

// part runs a part of the router's life as a test of its own, the last one if it
// fails.
func (w *world) part(name string, body func(w *world)) {
	w.t.Helper()
	whole := w.t
	passed := whole.Run(name, func(t *testing.T) {
		w.t = t
		w.For(t)
		defer func() {
			if t.Failed() {
				out, err := w.vm.Sh("cat " + daemonLog + "; tail -n 20 " + syslog)
				t.Logf("log of upnpd, and of the system: %v\n%s", err, out)
			}
		}()
		body(w)
	})
	w.t = whole
	w.For(whole)
	if !passed {
		whole.FailNow()
	}
}

// packaged: the package has brought all of its files, and its service starts.
func packaged(w *world) {
	list, err := os.ReadFile(checkout + "/scripts/package/files")
	if err != nil {
		w.t.Fatal(err)
	}
	var want, paths []string
	for _, line := range strings.Split(string(list), "\n") {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] == "#" {
			continue
		}
		paths = append(paths, f[2])
		mode := strings.TrimPrefix(f[0], "0")
		if mode == "link" {
			mode = "777"
		}
		want = append(want, fmt.Sprintf("%s 0:0 %s", mode, f[2]))
	}
	if got := w.sh("stat -c '%%a %%u:%%g %%n' %s 2>&1 || true", strings.Join(paths, " ")); got != strings.Join(want, "\n")+"\n" || len(want) < 8 {
		w.t.Errorf("the package's files are\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	w.install()
	conf := w.sh("cat /var/etc/upnpd.conf")
	for _, line := range []string{`extif = "` + lab.WANDev + `"`, `intif = "` + lab.LANDev + `"`, `lease_file = "` + leases + `"`} {
		if !strings.Contains(conf, "\n"+line) {
			w.t.Errorf("no line %s in upnpd.conf:\n%s", line, conf)
		}
	}
}

// inTime calls f with a lease, and once more with a longer one when that has ended
// before f did. It gives the lease, and when it began.
func (w *world) inTime(f func(lease int) error) (lease int, began time.Time) {
	w.t.Helper()
	for lease = 5; lease <= 80; lease *= 2 {
		began = time.Now()
		err := f(lease)
		if time.Since(began) < time.Duration(lease-1)*time.Second {
			if err != nil {
				w.t.Fatal(err)
			}
			return lease, began
		}
		w.t.Logf("%v for what must be done within %d s", time.Since(began), lease)
	}
	w.t.Fatal("this machine is too slow for any lease")
	return 0, began
}

// opens maps a port by TCP and UDP, and tries it.
func (w *world) opens(external, lease int) error {
	w.t.Helper()
	for _, proto := range []string{"TCP", "UDP"} {
		if code := w.Client(1).Add(proto, external, w.Served(), lease); code != 0 {
			return fmt.Errorf("%s %d: AddPortMapping: error %d", proto, external, code)
		}
	}
	for _, proto := range []string{"TCP", "UDP"} {
		if got := w.Reaches(proto, external); got != 1 {
			return fmt.Errorf("%s %d: host %d is reached, want 1", proto, external, got)
		}
	}
	return nil
}

func (w *world) reached(external, want int, when string) {
	w.t.Helper()
	for _, proto := range []string{"TCP", "UDP"} {
		if got := w.Reaches(proto, external); got != want {
			w.t.Errorf("%s %d: %s host %d is reached, want %d", proto, external, when, got, want)
		}
	}
}

func (w *world) closed(external int) func() bool {
	return func() bool { return w.Reaches("TCP", external) == 0 && w.Reaches("UDP", external) == 0 }
}

// wantPorts checks which ports upnpctl lists.
func (w *world) wantPorts(want ...int) {
	w.t.Helper()
	got := map[int]int{}
	for _, m := range w.listed() {
		got[m.Port]++
	}
	for _, port := range want {
		if got[port] != 2 {
			w.t.Errorf("port %d has %d mappings, want TCP and UDP", port, got[port])
		}
	}
	if len(got) != len(want) {
		w.t.Errorf("ports %v are listed, want %v", got, want)
	}
}

// leasesEnd: the daemon ends a lease; with nftables the kernel does, too, when there
// is no daemon. A renewed lease goes on, also in this kernel, which ignores the new
// timeout of an element that it has; and so does its counter.
func leasesEnd(w *world) {
	const ends, renewed = 18081, 18082
	lease, began := w.inTime(func(lease int) error {
		if err := w.opens(renewed, lease); err != nil {
			return err
		}
		before := w.packets("TCP", renewed)
		for _, proto := range []string{"TCP", "UDP"} {
			if code := w.Client(1).Add(proto, renewed, w.Served(), 3600); code != 0 {
				return fmt.Errorf("%s: renewal: error %d", proto, code)
			}
		}
		if after := w.packets("TCP", renewed); before == 0 || after < before {
			w.t.Errorf("%d packets after the renewal, %d before", after, before)
		}
		return nil
	})
	past := began.Add(time.Duration(lease+1) * time.Second)
	w.inTime(func(lease int) error { return w.opens(ends, lease) })
	home.Until(w.t, "the daemon ends the lease", w.closed(ends))
	w.wantPorts(renewed)
	if w.firewall == lab.Nftables {
		w.inTime(func(lease int) error { return w.opens(ends, lease) })
		w.kill()
		home.Until(w.t, "the kernel closes the ports", w.closed(ends))
		past = past.Add(5 * time.Second) // which it keeps so much longer
	}
	time.Sleep(time.Until(past))
	w.reached(renewed, 1, "after the first lease's end")
	if w.firewall == lab.Nftables {
		w.start()
	}
	w.wantPorts(renewed)
	for _, proto := range []string{"TCP", "UDP"} {
		if code := w.Client(1).Delete(proto, renewed); code != 0 {
			w.t.Errorf("%s: DeletePortMapping: error %d", proto, code)
		}
	}
	w.reached(renewed, 0, "deleted,")
}

// restarts: mappings outlive a kill -9 and a clean stop.
func restarts(w *world) {
	const port = 18083
	if err := w.opens(port, 3600); err != nil {
		w.t.Fatal(err)
	}
	w.saved(port)
	w.kill()
	w.reached(port, 1, "after kill -9")
	w.start()
	w.reached(port, 1, "adopted by the next run,")
	if got := w.packets("TCP", port); got < 2 {
		w.t.Errorf("the next run counts %d packets, 3 have come", got)
	}
	w.stop()
	w.wantNoRules()
	w.reached(port, 0, "after the stop")
	w.start()
	w.reached(port, 1, "restored")
	for _, proto := range []string{"TCP", "UDP"} {
		if code := w.Client(1).Delete(proto, port); code != 0 {
			w.t.Errorf("%s: DeletePortMapping: error %d", proto, code)
		}
	}
	w.reached(port, 0, "deleted,")
}

// saved waits until the lease file has a port's mappings.
func (w *world) saved(port int) {
	w.t.Helper()
	w.wait("the lease file is written", fmt.Sprintf("[ $(grep -c %d %s) = 2 ]", port, leases), daemonStatus)
}

// powerCut: mappings come back after the router lost its power. Its flash are the
// files in /etc that it wrote.
func (w *world) powerCut() {
	const port = 18084
	w.part("before a power cut", func(w *world) {
		if err := w.opens(port, 3600); err != nil {
			w.t.Fatal(err)
		}
		w.saved(port)
		for _, path := range []string{leases, "/etc/config/upnpd", "/etc/config/firewall"} {
			w.system.Texts[path[1:]] = w.sh("cat %s", path)
		}
	})
	w.vm.PowerOff()
	w.boot()
	w.part("after a power cut", func(w *world) {
		w.reached(port, 0, "without upnpd")
		w.restart("")
		w.wantPorts(port)
		w.reached(port, 1, "restored")
		for _, proto := range []string{"TCP", "UDP"} {
			if code := w.Client(1).Delete(proto, port); code != 0 {
				w.t.Errorf("%s: DeletePortMapping: error %d", proto, code)
			}
		}
	})
}

// privileges: every thread of the daemon has two capabilities and gets no others, and
// with nftables a filter of system calls (issue 8, point 6).
func privileges(w *world) {
	filter := "0"
	if w.firewall == lab.Nftables {
		filter = "2"
	}
	const set = "0000000000003000"
	want := fmt.Sprintf("CapPrm:\t%[1]s\nCapEff:\t%[1]s\nCapBnd:\t%[1]s\nNoNewPrivs:\t1\nSeccomp:\t%[2]s\n", set, filter)
	got := w.sh("for t in /proc/$(pidof upnpd)/task/*; do grep -E '^(Cap(Prm|Eff|Bnd)|NoNewPrivs|Seccomp):' $t/status; done")
	threads := strings.Count(got, "CapPrm")
	if threads < 2 || got != strings.Repeat(want, threads) {
		w.t.Errorf("%d threads with\n%s\nwant each\n%s", threads, got, want)
	}
}
