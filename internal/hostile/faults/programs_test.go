package faults

import (
	"context"
	"fmt"
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

// standIn runs in the place of each of the four programs. At the n-th call that
// "armed" counts down to it does what "mode" says, once.
const standIn = `#!/bin/sh
dir=${0%%/*}
name=${0##*/}
real=/usr/sbin/$(echo $name | sed 's/tables/tables-%s/')
if [ -e $dir/armed ]; then
	read -r n <$dir/armed
	if [ "$n" -gt 1 ]; then
		echo $((n-1)) >$dir/armed
	else
		rm $dir/armed
		read -r mode <$dir/mode
		case $mode,$name in
		killed,*) kill -9 $$ ;;
		late,*) read -r _ <$dir/fifo; exec $real "$@" ;;
		stuck,*) read -r _ <$dir/fifo; exit 4 ;;
		half,*-restore) sed /^COMMIT/q | $real "$@"; kill -9 $$ ;;
		silent,*-restore) exec >&- 2>&- <&-; exit 4 ;;
		silent,*) exec >&- 2>&-; exit 0 ;;
		garbage,*-restore) head -c 70000 /dev/urandom >&2; exit 1 ;;
		garbage,*) head -c 70000 /dev/urandom; exit 0 ;;
		esac
		echo 'the kernel says no' >&2
		exit 4
	fi
fi
exec $real "$@"
`

// programFaults are the ways in which a program fails: it says so, it says nothing that
// is true, it takes its time.
var programFaults = [][]string{{"fails", "half", "killed"}, {"silent", "garbage"}, {"stuck", "late"}}

// programs are the stand-ins in a directory.
type programs struct {
	t   *testing.T
	dir string
}

// newPrograms makes stand-ins for "legacy" or "nft".
func newPrograms(t *testing.T, kind string) *programs {
	t.Helper()
	p := &programs{t, t.TempDir()}
	for _, name := range []string{"iptables", "iptables-restore", "ip6tables", "ip6tables-restore"} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(fmt.Sprintf(standIn, kind)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(p.dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// option is the line that makes the daemon use them.
func (p *programs) option() string {
	return "iptables_location = " + filepath.Join(p.dir, "iptables")
}

func (p *programs) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text+"\n"), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// arm makes the n-th call from now on fail. The result ends the fault, and tells
// whether it came to that.
func (p *programs) arm(mode string, n int) (disarm func() (fired bool)) {
	p.t.Helper()
	p.write("mode", mode)
	p.write("armed", strconv.Itoa(n))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	released := make(chan struct{})
	if mode != "stuck" && mode != "late" {
		cancel()
	}
	go func() {
		defer close(released)
		p.release(ctx)
	}()
	return func() bool {
		fired := os.Remove(filepath.Join(p.dir, "armed")) != nil
		if !fired {
			cancel()
		}
		<-released
		cancel()
		return fired
	}
}

// release lets a program go on that is stuck, a moment after it was.
func (p *programs) release(ctx context.Context) {
	for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		fifo, err := os.OpenFile(filepath.Join(p.dir, "fifo"), os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			continue // nobody reads
		}
		time.Sleep(100 * time.Millisecond)
		fmt.Fprintln(fifo)
		fifo.Close()
		return
	}
}

// step is one change of the script, and what undoes it.
type step struct {
	name     string
	do, undo func(h *house)
}

// script has each kind of change that the kernel is told.
var script = []step{
	{"add", func(h *house) { h.asked(h.Client(1).Add("TCP", 18080, h.Served(), 0)) },
		func(h *house) { h.Client(1).Delete("TCP", 18080) }},
	{"renew", func(h *house) { h.asked(h.Client(1).Add("TCP", 19000, h.Served(), 3600)) }, nil},
	{"overwrite", func(h *house) { h.asked(h.Client(1).Add("TCP", 19000, 9000, 3600)) },
		func(h *house) { h.Client(1).Add("TCP", 19000, h.Served(), 0) }},
	{"delete", func(h *house) { h.asked(h.Client(1).Delete("TCP", 19001)) },
		func(h *house) { h.Client(1).Add("TCP", 19001, h.Served(), 0) }},
	{"expire", func(h *house) { h.expire() }, nil},
	{"WAN change", func(h *house) { h.moveWAN("11.0.0.77") }, func(h *house) { h.moveWAN(lab.WANAddr) }},
	{"reload", func(h *house) { h.reload() }, nil},
	{"flush", func(h *house) {
		h.daemon.Signal(syscall.SIGUSR1)
		home.Until(h.t, "USR1 is obeyed", func() bool { return !h.mapped("TCP", 19000) })
	}, func(h *house) { h.baseline() }},
}

// baseline are the mappings that are there before each step.
func (h *house) baseline() {
	h.t.Helper()
	for port := 19000; port < 19003; port++ {
		if code := h.Client(1).Add("TCP", port, h.Served(), 0); code != 0 {
			h.t.Fatalf("AddPortMapping %d: error %d", port, code)
		}
	}
}

// asked wants success, or the error that says that the kernel refuses.
func (h *house) asked(code int) {
	h.t.Helper()
	if code != 0 && code != 501 {
		h.t.Errorf("error %d, want none or 501", code)
	}
}

// expire waits for the end of a lease that began before; see sweep.
func (h *house) expire() {
	h.t.Helper()
	home.Until(h.t, "the lease ends", func() bool { return !h.mapped("UDP", 18099) })
}

// mapped asks by UPnP, which needs no program and no netlink.
func (h *house) mapped(proto string, port int) bool {
	h.t.Helper()
	_, code := h.Client(1).Call("GetSpecificPortMappingEntry", "NewRemoteHost", "", "NewExternalPort", strconv.Itoa(port), "NewProtocol", proto)
	return code == 0
}

// moveWAN gives the uplink another address, and waits until the daemon knows it.
func (h *house) moveWAN(addr string) {
	h.t.Helper()
	h.WAN = addr
	h.Router.Run(h.t, "ip", "-4", "addr", "flush", "dev", lab.WANDev)
	h.Router.Run(h.t, "ip", "addr", "add", addr+"/24", "dev", lab.WANDev)
	h.Router.Run(h.t, "ip", "route", "replace", "default", "via", lab.InternetAddr)
	home.Until(h.t, "the address is known", func() bool { return h.Client(1).ExternalAddress() == addr })
}

// reload sends HUP and waits until it is done.
func (h *house) reload() {
	h.t.Helper()
	n := h.logged("configuration read again")
	h.daemon.Signal(syscall.SIGHUP)
	home.Until(h.t, "the configuration is read again", func() bool { return h.logged("configuration read again") > n })
}

// sweep runs each step of the script with a fault at its first call, then at its
// second, and so on, until a step needs no more. The modes take turns. arm is
// programs.arm, or what is like it. It gives how many faults there were.
func (h *house) sweep(modes []string, steps []step, arm func(mode string, n int) func() bool) (faults int) {
	h.t.Helper()
	h.baseline()
	for i, s := range steps {
		for n := 1; ; n++ {
			mode := modes[(i+n)%len(modes)]
			if s.name == "expire" {
				h.Client(1).Add("UDP", 18099, h.Served(), 1)
			}
			disarm := arm(mode, n)
			s.do(h)
			fired := disarm()
			fault := fmt.Sprintf("%s at call %d of %s", mode, n, s.name)
			h.mended(fault)
			h.alive()
			if s.undo != nil {
				s.undo(h)
			}
			if h.t.Failed() || !fired {
				break
			}
			faults++
		}
		h.checked(s.name)
	}
	return faults
}

// turns are the modes that take turns in a sweep, for each sweep; in the long form each
// mode has a sweep of its own.
func turns(groups [][]string) (sweeps [][]string) {
	if os.Getenv("UPNPD_LONG") == "" {
		return groups
	}
	for _, mode := range slices.Concat(groups...) {
		sweeps = append(sweeps, []string{mode})
	}
	return sweeps
}

// TestPrograms: iptables fails at the n-th call of each change, for each n, in every
// way that a program can fail.
func TestPrograms(t *testing.T) {
	t.Parallel()
	for kind, groups := range map[string][][]string{"legacy": programFaults, "nft": programFaults[:1]} {
		for _, modes := range turns(groups) {
			t.Run(kind+"/"+strings.Join(modes, ","), func(t *testing.T) {
				t.Parallel()
				h := enter(t, "iptables-"+kind)
				p := newPrograms(t, kind)
				h.configure(p.option())
				h.begin("")
				h.swept(h.sweep(modes, script, p.arm))
			})
		}
	}
}

// swept judges a sweep.
func (h *house) swept(faults int) {
	h.t.Helper()
	h.t.Logf("%d faults; the slowest repair took %v", faults, h.slowest.Round(time.Millisecond))
	if faults < 5 {
		h.t.Errorf("only %d faults", faults)
	}
	if got := h.Reaches("TCP", 19000); got != 1 {
		h.t.Errorf("after all that the port reaches host %d", got)
	}
}
