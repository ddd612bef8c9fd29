package lab

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// alone marks the process that runs the tests in its own namespace.
const alone = "UPNPD_TEST_ALONE"

// Alone is the TestMain of packages whose tests need no whole lab, but a
// network namespace to make devices in: it runs the test binary again in a new
// one. Without root the tests run where they are; see NeedAlone.
func Alone(m *testing.M) {
	if os.Getuid() != 0 || os.Getenv(alone) != "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), alone+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "tests in a network namespace:", err)
		os.Exit(1)
	}
}

// NeedAlone skips a test that makes devices when it has no namespace of its
// own, for want of root.
func NeedAlone(t testing.TB) {
	t.Helper()
	if os.Getenv(alone) == "" {
		t.Skip("needs root: makes devices in a network namespace")
	}
}

// IP runs ip(8) with the words of each line.
func IP(t testing.TB, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
}
