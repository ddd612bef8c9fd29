package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestProgramsMissing: while iptables is not there, requests are answered with 501 and
// leases end in the table; when it is back, the kernel is made equal.
func TestProgramsMissing(t *testing.T) {
	t.Parallel()
	h := enter(t, "iptables-legacy")
	p := newPrograms(t, "legacy")
	h.configure(p.option())
	h.begin("")
	h.baseline()
	h.Client(1).Add("UDP", 18099, h.Served(), 1)
	away := p.dir + ".away"
	if err := os.Rename(p.dir, away); err != nil {
		t.Fatal(err)
	}
	if code := h.Client(1).Add("TCP", 18080, h.Served(), 0); code != 501 {
		t.Errorf("AddPortMapping without iptables: error %d, want 501", code)
	}
	if code := h.Client(1).Delete("TCP", 19001); code != 501 {
		t.Errorf("DeletePortMapping without iptables: error %d, want 501", code)
	}
	h.expire()
	h.moveWAN("11.0.0.77")
	h.daemon.Signal(hangUp)
	h.alive()
	if err := os.Rename(away, p.dir); err != nil {
		t.Fatal(err)
	}
	h.mended("iptables is missing")
	h.checked("iptables is back")
	if err := h.daemon.WaitLog("the kernel is equal to the table again"); err != nil {
		t.Fatal(err)
	}
	for words, most := range map[string]int{"the kernel is not equal to the table: ": 1, "the kernel is equal to the table again": 1, "no such file": 8} {
		if n := h.logged(words); n < 1 || n > most {
			t.Errorf("%d lines with %q, want 1 to %d", n, words, most)
		}
	}
	if got := h.Reaches("TCP", 19000); got != 1 {
		t.Errorf("then the port reaches host %d", got)
	}
}

// TestStartWithoutPrograms: a start that cannot work ends with the program's name and
// what to do.
func TestStartWithoutPrograms(t *testing.T) {
	t.Parallel()
	h := enter(t, "iptables-legacy", "iptables_location = /nowhere/iptables")
	_, err := h.Router.Launch(lab.Build(t), "--config", h.config, lab.WANDev, lab.LANDev)
	for _, words := range []string{"find /nowhere/iptables", "install it, or set iptables_location"} {
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q is not in: %v", words, err)
		}
	}
}

// TestStartFails: iptables fails at the n-th call of a start after a crash: the daemon
// serves and the kernel is equal to the table, or it ends, says which program failed,
// and leaves nothing behind but what the crash has left.
func TestStartFails(t *testing.T) {
	t.Parallel()
	h := enter(t, "iptables-legacy")
	p := newPrograms(t, "legacy")
	h.configure(p.option())
	h.begin("")
	h.baseline()
	ends, fired := 0, true
	for n := 1; fired && n < 30; n++ {
		h.kept(3)
		h.daemon.Kill()
		disarm := p.arm("fails", n)
		d, err := h.Router.Launch(lab.Build(t), "--config", h.config, lab.WANDev, lab.LANDev)
		fired = disarm()
		if err != nil {
			ends++
			if !strings.Contains(err.Error(), filepath.Join(p.dir, "ip")) || !strings.Contains(err.Error(), "the kernel says no") {
				t.Errorf("call %d: it ended without a word about the program: %v", n, err)
			}
			if !fired {
				t.Fatalf("the start fails without a fault: %v", err)
			}
			if d, err = h.Router.Launch(lab.Build(t), "--config", h.config, lab.WANDev, lab.LANDev); err != nil {
				t.Fatal(err)
			}
		}
		h.daemon = d
		t.Cleanup(d.Kill)
		h.For(t)
		h.mended(fmt.Sprintf("call %d of the start fails", n))
		if got := len(h.table()); got != 3 {
			t.Errorf("call %d: %d mappings after the crash, want 3", n, got)
		}
	}
	t.Logf("%d failures ended the start", ends)
	h.checked("after all starts")
}
