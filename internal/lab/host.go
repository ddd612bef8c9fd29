package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holder is the process that a host's namespace lives in. It waits on a pipe
// that this process holds, so it sees our end however we end: Close, a panic
// or kill -9. Then it ends what still runs in the namespace, even programs that
// went to the background, and so the namespace itself. It touches nothing when
// it finds itself in the namespace of its maker.
const holder = `
maker=$PPID
[ /proc/$$/ns/net -ef /proc/$maker/ns/net ] && exit 1
[ /proc/$$/ns/mnt -ef /proc/$maker/ns/mnt ] && exit 1
mount --make-rprivate / && mount -t tmpfs run /run || exit 1
echo ready
read -r _
for round in 1 2 3; do
	for p in /proc/[0-9]*; do
		[ "$p" = /proc/$$ ] || [ "$p" = /proc/$maker ] && continue
		[ "$p/ns/net" -ef /proc/$$/ns/net ] && kill -9 "${p#/proc/}"
	done
done 2>/dev/null
exit 0
`

// Host is one machine of the lab.
type Host struct {
	// Name is router, lan1, lan2 or internet.
	Name string
	// Addr is the host's address, for the router the one on the LAN; Addr6 the
	// IPv6 one, once Lab.IPv6 gave it.
	Addr, Addr6 netip.Addr
	// PID is a process in the host's namespaces, for "nsenter -t PID -n -m".
	PID int

	holder *exec.Cmd
	pipe   io.Closer
	netns  *os.File

	mu      sync.Mutex
	servers []io.Closer
}

// newHost makes a namespace with nothing in it but its holder. The host has a
// /run of its own, too, where daemons keep their sockets, locks and leases.
func newHost(name string, addr netip.Addr) (*Host, error) {
	cmd := exec.Command("sh", "-c", holder)
	// A group of its own keeps the terminal's Ctrl-C away from the holder.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	ready, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	h := &Host{Name: name, Addr: addr, PID: cmd.Process.Pid, holder: cmd, pipe: pipe}
	if _, err := io.ReadFull(ready, make([]byte, len("ready\n"))); err != nil {
		return nil, errors.Join(fmt.Errorf("make host %s: no namespace of its own: %w", name, err), h.close())
	}
	h.netns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", h.PID))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make host %s: %w", name, err), h.close())
	}
	return h, nil
}

// close ends the host's servers and processes and with them the namespace.
func (h *Host) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.servers {
		_ = s.Close() // a test may have closed it already
	}
	h.servers = nil
	_ = h.pipe.Close() // a second close is no error of the lab
	if h.netns != nil {
		_ = h.netns.Close()
	}
	if h.holder.ProcessState != nil {
		return nil
	}
	if err := h.holder.Wait(); err != nil {
		return fmt.Errorf("take host %s down: %w", h.Name, err)
	}
	return nil
}

// Command returns a command that runs on the host. It is killed when ctx ends.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	here, _ := os.Getwd() // it would begin at /
	enter := []string{"-t", strconv.Itoa(h.PID), "-n", "-m", "-r", "--wd=" + here, "--", name}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	// Plain su leaves the sbin directories, where ip and iptables are, out.
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	return cmd
}

// Run runs a command on the host and returns what it printed on both outputs.
// The test fails when the command does, or when it takes 30 seconds.
func (h *Host) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := h.output(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// output is Run for callers without a test; the error carries the output.
func (h *Host) output(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	out, err := h.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("on %s: %s %s: %w\n%s", h.Name, name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// ip runs the lines of batch through one ip command on the host.
func (h *Host) ip(ctx context.Context, batch string) error {
	cmd := h.Command(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.TrimLeft(batch, "\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set up %s: ip -batch: %w: %s", h.Name, err, bytes.TrimSpace(out))
	}
	return nil
}

// Do runs f on a thread that is in the host's namespace: sockets that f opens
// itself (not in goroutines it starts) belong to the host for their life.
func (h *Host) Do(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", h.Name, err)
	}
	defer home.Close()
	if err := unix.Setns(int(h.netns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", h.Name, err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			// Going on would put the caller's next socket on the wrong host.
			panic(fmt.Sprintf("leave %s: %v", h.Name, err))
		}
		runtime.UnlockOSThread()
	}()
	return f()
}
