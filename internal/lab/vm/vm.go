// Package vm puts a MIPS router in the router's place of a lab: a virtual
// machine with a 32-bit kernel of Debian, 64 MB of memory, and two network cards,
// one on the lab's LAN bridge, one with the internet host. It is for tests.
//
// The machine is controlled by a virtio port: a command is one line, a shell
// script in base64; the answer is one line, the exit status and what the script
// printed in base64.
package vm

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

const (
	// memory is the router's, in MB.
	memory = 64
	// bootTimeout bounds the start, commandTimeout every command.
	bootTimeout    = 2 * time.Minute
	commandTimeout = 70 * time.Second
	// The addresses of the network cards.
	lanCard = "52:54:00:00:00:01"
	wanCard = "52:54:00:00:00:02"
)

// Router is a virtual machine that runs. It ends with the test, and with the
// lab's router, in whose namespace it lives.
type Router struct {
	// BootTime is how long the machine took from power on to the end of its
	// init.
	BootTime time.Duration

	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan string // closed at the end of the machine
	console string      // the file with what the kernel says
	mu      sync.Mutex  // one command at a time
}

// Packages returns the directory with Debian's unpacked packages for mipsel,
// which are fetched when they are not here yet. root is the repository.
func Packages(root string) (string, error) {
	cmd := exec.Command(filepath.Join(root, "scripts/vm-packages.sh"))
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("packages for the virtual machine: %w\n%s", err, said.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// Boot replaces the lab's router by a virtual machine with the given programs,
// path in the router to path here, and waits until it is up.
func Boot(t testing.TB, l *lab.Lab, packages string, extra map[string]string) *Router {
	t.Helper()
	dir := t.TempDir()
	initramfs := filepath.Join(dir, "initramfs")
	data, err := newImage(packages, extra)
	if err == nil {
		err = os.WriteFile(initramfs, data, 0o600)
	}
	if err != nil {
		t.Fatalf("pack the router: %v", err)
	}
	plug(t, l)
	kernels, err := filepath.Glob(filepath.Join(packages, "kernel/boot/vmlinu*"))
	if err != nil || len(kernels) != 1 {
		t.Fatalf("want one kernel in %s, got %q", packages, kernels)
	}
	r := &Router{console: filepath.Join(dir, "console"), answers: make(chan string, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	r.cmd = l.Router.Command(ctx, "qemu-system-mipsel",
		"-machine", "malta", "-cpu", "24Kc", "-m", strconv.Itoa(memory), "-nodefaults", "-no-reboot",
		"-display", "none", "-monitor", "none", "-serial", "file:"+r.console,
		"-device", "virtio-serial-pci", "-chardev", "stdio,id=control,signal=off", "-device", "virtserialport,chardev=control",
		"-kernel", kernels[0], "-initrd", initramfs, "-append", "console=ttyS0 panic=-1 quiet",
		"-netdev", "tap,id=lan,ifname=tap-lan,script=no,downscript=no", "-device", "virtio-net-pci,netdev=lan,romfile=,mac="+lanCard,
		"-netdev", "tap,id=wan,ifname=tap-wan,script=no,downscript=no", "-device", "virtio-net-pci,netdev=wan,romfile=,mac="+wanCard)
	start := time.Now()
	if err := r.start(t); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case _, running := <-r.answers:
			if !running {
				t.Error("the virtual machine ended by itself, or somebody ended it")
			}
		default:
		}
		cancel()
		for range r.answers { // until it has ended
		}
		_ = r.cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("console of the virtual machine:\n%s", r.Console())
		}
	})
	if line, err := r.next(bootTimeout); err != nil || line != "ready" {
		t.Fatalf("boot the virtual machine: %q, %v", line, err)
	}
	r.BootTime = time.Since(start)
	return r
}

// plug takes the addresses from the lab's router and makes cables of its
// devices: the machine's cards are at the other end.
func plug(t testing.TB, l *lab.Lab) {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Fatalf("the virtual machine's network cards need tun: %v", err)
	}
	for _, line := range []string{
		"addr flush dev " + lab.LANDev,
		"addr flush dev " + lab.WANDev,
		"link add br-wan type bridge",
		"link set " + lab.WANDev + " master br-wan",
		"tuntap add tap-lan mode tap",
		"tuntap add tap-wan mode tap",
		"link set tap-lan master " + lab.LANDev,
		"link set tap-wan master br-wan",
		"link set tap-lan up",
		"link set tap-wan up",
		"link set br-wan up",
	} {
		l.Router.Run(t, "ip", strings.Fields(line)...)
	}
}

// start runs the machine and reads its answers.
func (r *Router) start(t testing.TB) error {
	t.Helper()
	var err error
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	r.cmd.Stderr = os.Stderr
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("start qemu-system-mipsel (scripts/setup.sh --vm installs it): %w", err)
	}
	go func() {
		defer close(r.answers)
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			r.answers <- strings.TrimSpace(line)
		}
	}()
	return nil
}

// next waits for a line of the machine.
func (r *Router) next(timeout time.Duration) (string, error) {
	select {
	case line, ok := <-r.answers:
		if !ok {
			return "", errors.New("the virtual machine has ended")
		}
		return line, nil
	case <-time.After(timeout):
		return "", fmt.Errorf("no answer of the virtual machine within %v", timeout)
	}
}

// Sh runs a shell script in the machine and returns what it printed on both
// outputs. The error says how it failed, and with which words.
func (r *Router) Sh(script string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := fmt.Fprintln(r.in, base64.StdEncoding.EncodeToString([]byte(script))); err != nil {
		return "", fmt.Errorf("in the virtual machine: %s: %w", script, err)
	}
	line, err := r.next(commandTimeout)
	if err != nil {
		return "", fmt.Errorf("in the virtual machine: %s: %w", script, err)
	}
	status, text, _ := strings.Cut(line, " ")
	out, err := base64.StdEncoding.DecodeString(text)
	if err == nil && status != "0" {
		err = fmt.Errorf("exit status %s", status)
	}
	if err != nil {
		return string(out), fmt.Errorf("in the virtual machine: %s: %w\n%s", script, err, out)
	}
	return string(out), nil
}

// Run is Sh for a test, which fails when the script does.
func (r *Router) Run(t testing.TB, script string) string {
	t.Helper()
	out, err := r.Sh(script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Console returns what the kernel and init have said so far.
func (r *Router) Console() string {
	text, err := os.ReadFile(r.console)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
