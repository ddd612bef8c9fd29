// Package vm puts a MIPS router in the router's place of a lab: a virtual
// machine with a 32-bit kernel of Debian, 64 MB of memory, and two network cards,
// one on the lab's LAN bridge, one with the internet host. It is for tests.
//
// The machine is controlled by a virtio port: a command is one line, its number
// and a shell script in base64; the answer is one line, the number, the exit status
// and what the script printed in base64. By a second port the machine sends back
// what it gets, also while a command runs.
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
	bootTimeout    = 90 * time.Second
	commandTimeout = 150 * time.Second
	// commandQuiet is how long a command may take before the machine is asked for a
	// sign of life, which it has pulseTimeout to give: a busy machine takes
	// milliseconds, on a busy host seconds.
	commandQuiet = 10 * time.Second
	pulseTimeout = 30 * time.Second
	// attempts is how often a machine that does not come up is started: on a busy
	// one the kernel may wait long for a flag that the emulated clock chip shows
	// for 0.2 ms a second.
	attempts = 3
	// consoleShown is how much of the console is shown, in bytes.
	consoleShown = 4 << 10
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

	began   time.Time
	cmd     *exec.Cmd
	cancel  func()
	off     bool
	in      io.WriteCloser
	answers chan string // closed at the end of the machine
	pulse   *os.File    // the second port
	monitor *os.File    // the emulator's own
	console string      // the file with what the kernel says
	mu      sync.Mutex  // one command at a time
	number  int         // of the last command
	dead    error       // how the machine was found to stand still
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

// Boot replaces the lab's router by a virtual machine, and waits until it is up.
func Boot(t testing.TB, l *lab.Lab, packages string, s System) *Router {
	t.Helper()
	dir := t.TempDir()
	initramfs := filepath.Join(dir, "initramfs")
	data, err := newImage(packages, s)
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
	for range attempts {
		r, err := powerOn(l, kernels[0], initramfs, filepath.Join(dir, "console"))
		if err != nil {
			t.Fatal(err)
		}
		line, err := r.next(bootTimeout)
		if line == "ready" {
			r.BootTime = time.Since(r.began)
			t.Cleanup(func() { r.end(t) })
			return r
		}
		r.PowerOff()
		t.Logf("boot the virtual machine: %q, %v\n%s", line, err, r.Console())
	}
	t.Fatalf("the virtual machine did not come up in %d attempts", attempts)
	return nil
}

// powerOn starts a machine with this kernel and file system. What the kernel says
// goes to the console.
func powerOn(l *lab.Lab, kernel, initramfs, console string) (*Router, error) {
	r := &Router{console: console, answers: make(chan string, 1), began: time.Now()}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	// A ramfs may take more than half of the memory. At an address of chance, the
	// kernel would at times lie where the emulator has put the file system.
	r.cmd = l.Router.Command(ctx, "qemu-system-mipsel",
		"-machine", "malta", "-cpu", "24Kc", "-m", strconv.Itoa(memory), "-nodefaults", "-no-reboot",
		"-display", "none", "-serial", "file:"+r.console,
		"-device", "virtio-serial-pci", "-chardev", "stdio,id=control,signal=off", "-device", "virtserialport,chardev=control",
		"-chardev", "socket,id=pulse,fd=3", "-device", "virtserialport,chardev=pulse",
		"-chardev", "socket,id=monitor,fd=4", "-mon", "monitor",
		"-kernel", kernel, "-initrd", initramfs, "-append", "console=ttyS0 panic=-1 nokaslr rootfstype=ramfs",
		"-netdev", "tap,id=lan,ifname=tap-lan,script=no,downscript=no", "-device", "virtio-net-pci,netdev=lan,romfile=,mac="+lanCard,
		"-netdev", "tap,id=wan,ifname=tap-wan,script=no,downscript=no", "-device", "virtio-net-pci,netdev=wan,romfile=,mac="+wanCard)
	if err := r.start(); err != nil {
		r.cancel()
		return nil, err
	}
	return r, nil
}

// end ends the machine, which should run, with its test.
func (r *Router) end(t testing.TB) {
	select {
	case _, running := <-r.answers:
		if !running && !r.off {
			t.Error("the virtual machine ended by itself, or somebody ended it")
		}
	default:
	}
	r.PowerOff()
	if t.Failed() {
		t.Logf("console of the virtual machine:\n%s", r.Console())
	}
}

// PowerOff ends the machine as a cut of its power does: nothing in it hears of that.
func (r *Router) PowerOff() {
	if r.off {
		return
	}
	r.off = true
	r.cancel()
	for range r.answers { // until it has ended
	}
	r.pulse.Close()
	r.monitor.Close()
	_ = r.cmd.Wait() // it was killed
}

// plug takes the addresses from the lab's router and makes cables of its
// devices: the machine's cards are at the other end. The next machine finds them.
func plug(t testing.TB, l *lab.Lab) {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Fatalf("the virtual machine's network cards need tun: %v", err)
	}
	script := "set -e; if [ -e /proc/sys/net/ipv4/conf/tap-wan ]; then exit 0; fi"
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
		script += "; ip " + line
	}
	l.Router.Run(t, "sh", "-c", script)
}

// start runs the machine and reads its answers.
func (r *Router) start() error {
	var err error
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	r.cmd.Stderr = os.Stderr
	for _, ours := range []**os.File{&r.pulse, &r.monitor} {
		var theirs *os.File
		if *ours, theirs, err = pair(); err != nil {
			return err
		}
		defer theirs.Close()
		r.cmd.ExtraFiles = append(r.cmd.ExtraFiles, theirs)
	}
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("start qemu-system-mipsel (scripts/setup.sh installs it): %w", err)
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
		return "", fmt.Errorf("%w within %v", errSilent, timeout)
	}
}

// Sh runs a shell script in the machine and returns what it printed on both
// outputs. The error says how it failed, and with which words; it is errStill when
// the machine has come to a stop.
func (r *Router) Sh(script string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead != nil {
		return "", r.dead
	}
	r.number++
	if _, err := fmt.Fprintln(r.in, r.number, base64.StdEncoding.EncodeToString([]byte(script))); err != nil {
		return "", fmt.Errorf("in the virtual machine: %s: %w", script, err)
	}
	answer, err := r.answer()
	if err != nil {
		return "", fmt.Errorf("in the virtual machine: %s: %w", script, err)
	}
	status, text, _ := strings.Cut(answer, " ")
	out, err := base64.StdEncoding.DecodeString(text)
	if err == nil && status != "0" {
		err = fmt.Errorf("exit status %s", status)
	}
	if err != nil {
		return string(out), fmt.Errorf("in the virtual machine: %s: %w\n%s", script, err, out)
	}
	return string(out), nil
}

// answer waits for that to the last command, past those that came too late, and no
// longer than the machine lives.
func (r *Router) answer() (string, error) {
	for end := time.Now().Add(commandTimeout); ; {
		line, err := r.next(commandQuiet)
		switch {
		case err == nil:
			if text, ok := strings.CutPrefix(line, strconv.Itoa(r.number)+" "); ok {
				return text, nil
			}
		case !errors.Is(err, errSilent):
			return "", err
		case !r.lives() && len(r.answers) == 0:
			r.dead = fmt.Errorf("%w: no answer, nor a sign of life within %v; now it is %s",
				errStill, commandQuiet+pulseTimeout, time.Now().Format(time.TimeOnly))
			return "", r.dead
		case time.Now().After(end):
			return "", fmt.Errorf("%w within %v, but it lives", errSilent, commandTimeout)
		}
	}
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

// Console returns what the kernel and init have said so far, no more than its end.
func (r *Router) Console() string {
	text, err := os.ReadFile(r.console)
	if err != nil {
		return err.Error()
	}
	return string(text[max(len(text)-consoleShown, 0):])
}
