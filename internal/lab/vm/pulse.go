package vm

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// errSilent: a command has no answer.
	errSilent = errors.New("no answer of the virtual machine")
	// errStill: nothing that comes in by a port of the machine is heard any more, be
	// it by a program that only sends it back. That is a fault of the emulator or of
	// the kernel in it.
	errStill = errors.New("the virtual machine stands still")
)

// pair gives two ends of a connection; ours has deadlines.
func pair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a connection with the emulator: %w", err)
	}
	err = unix.SetNonblock(fds[0], true)
	return os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs"), err
}

// lives tells whether a program in the machine gives a sign of life.
func (r *Router) lives() bool {
	r.pulse.SetDeadline(time.Now().Add(pulseTimeout))
	sign := fmt.Sprintf("%d-%d\n", r.number, time.Now().UnixNano())
	if _, err := r.pulse.WriteString(sign); err != nil {
		return false
	}
	for lines := bufio.NewReader(r.pulse); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return false
		}
		if line == sign { // and none that came too late
			return true
		}
	}
}

// Processor gives what the emulator knows of the machine's processor and
// interrupts, twice: it tells whether the processor does anything.
func (r *Router) Processor() string {
	r.monitor.SetDeadline(time.Now().Add(5 * time.Second))
	const ask = "info status\ninfo registers\ninfo pic\n"
	if _, err := r.monitor.WriteString(ask); err != nil {
		return err.Error()
	}
	time.Sleep(time.Second)
	if _, err := r.monitor.WriteString(ask + "print 1+1\n"); err != nil {
		return err.Error()
	}
	var b strings.Builder
	for lines := bufio.NewReader(r.monitor); ; {
		line, err := lines.ReadString('\n')
		if !strings.Contains(line, "\x1b") { // no echo
			b.WriteString(line)
		}
		if err != nil || strings.TrimSpace(line) == "0x2" {
			return b.String()
		}
	}
}
