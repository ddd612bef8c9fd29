package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// short bounds an attempt that must fail; an answer here takes microseconds.
const short = 300 * time.Millisecond

func TestMain(m *testing.M) {
	if os.Getenv("LAB_TEST_VICTIM") != "" {
		victim()
	}
	os.Exit(m.Run())
}

func TestReach(t *testing.T) {
	for _, iptables := range []string{"iptables-legacy", "iptables-nft"} {
		t.Run(iptables, func(t *testing.T) {
			t.Parallel()
			l := Start(t)
			if err := l.Masquerade(iptables); err != nil {
				t.Fatal(err)
			}
			for _, h := range []*Host{l.LAN1, l.LAN2, l.Internet} {
				for _, echo := range []func(uint16) (io.Closer, error){h.EchoTCP, h.EchoUDP} {
					if _, err := echo(7); err != nil {
						t.Fatal(err)
					}
				}
			}
			// Without the firewall this route would lead to the LAN.
			l.Internet.Run(t, "ip", "route", "add", LANPrefix, "via", WANAddr)
			testReach(t, l)
		})
	}
}

func testReach(t *testing.T, l *Lab) {
	for _, tt := range []struct {
		name string
		from *Host
		to   string
		want string // prefix of the reply; empty: no reply
	}{
		{"LAN to LAN", l.LAN1, LAN2Addr, "lan2 192.168.77.20:7-192.168.77.10:"},
		{"LAN to internet arrives with the router's address", l.LAN1, InternetAddr, "internet 11.0.0.1:7-11.0.0.2:"},
		{"second LAN host to internet", l.LAN2, InternetAddr, "internet 11.0.0.1:7-11.0.0.2:"},
		{"router to LAN", l.Router, LAN1Addr, "lan1 192.168.77.10:7-192.168.77.1:"},
		{"internet to router, nothing listens", l.Internet, WANAddr, ""},
		{"internet to LAN is refused by the router", l.Internet, LAN1Addr, ""},
	} {
		for name, reach := range map[string]func(*Host, string, time.Duration) (string, error){"TCP": l.ReachTCP, "UDP": l.ReachUDP} {
			timeout := 5 * time.Second
			if tt.want == "" {
				timeout = short
			}
			reply, err := reach(tt.from, tt.to+":7", timeout)
			switch {
			case tt.want == "" && err == nil:
				t.Errorf("%s, %s: got the reply %q, want none", tt.name, name, reply)
			case tt.want != "" && (err != nil || !strings.HasPrefix(reply, tt.want)):
				t.Errorf("%s, %s: got %q, %v; want %q", tt.name, name, reply, err, tt.want)
			}
		}
	}
}

// Two labs have the same addresses and must not see each other.
func TestTwoLabs(t *testing.T) {
	a, b := Start(t), Start(t)
	if _, err := a.LAN1.EchoTCP(7); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ReachTCP(a.LAN2, LAN1Addr+":7", 5*time.Second); err != nil {
		t.Errorf("in the lab that serves: %v", err)
	}
	if reply, err := b.ReachTCP(b.LAN2, LAN1Addr+":7", short); err == nil {
		t.Errorf("the other lab reached it: %q", reply)
	}
	if err := a.Masquerade("iptables-nft"); err != nil {
		t.Fatal(err)
	}
	if a.Rules("iptables-nft") == b.Rules("iptables-nft") {
		t.Error("rules of one lab show in the other")
	}
}

func TestRouterSettings(t *testing.T) {
	l := Start(t)
	for path, want := range map[string]string{
		"/proc/sys/net/ipv4/ip_forward":                "1",
		"/proc/sys/net/bridge/bridge-nf-call-iptables": "0",
	} {
		err := l.Router.Do(func() error {
			got, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // no br_netfilter in this kernel
			}
			if err == nil && strings.TrimSpace(string(got)) != want {
				err = fmt.Errorf("%s is %q, want %q", path, got, want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	for _, h := range []*Host{l.Router, l.LAN1, l.LAN2, l.Internet} {
		if links := h.Run(t, "ip", "-o", "link", "show", "lo"); !strings.Contains(links, "LOWER_UP") {
			t.Errorf("lo of %s is down: %s", h.Name, links)
		}
	}
}

func TestDoComesHome(t *testing.T) {
	l := Start(t)
	here := func() string {
		ns, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return ns
	}
	before, inside := here(), ""
	fail := errors.New("f failed")
	if err := l.LAN1.Do(func() error { inside = here(); return fail }); !errors.Is(err, fail) {
		t.Errorf("Do lost the error of f: %v", err)
	}
	if inside == before {
		t.Error("f did not run in the host's namespace")
	}
	if after := here(); after != before {
		t.Errorf("after Do in %s, before in %s", after, before)
	}
}

// However the process that made a lab ends, its namespaces and everything in
// them end too, even a program that went to the background.
func TestNothingIsLeft(t *testing.T) {
	Start(t) // skips where there can be no lab
	for _, end := range []string{"close", "panic", "kill"} {
		t.Run(end, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "LAB_TEST_VICTIM="+end)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Wait() }() // the way it ends is the test's choice
			defer stdin.Close()
			line, err := bufio.NewReader(stdout).ReadString('\n')
			if err != nil {
				t.Fatalf("the process that makes the lab: %v", err)
			}
			var left []int // pidfds
			for _, pid := range strings.Fields(line) {
				left = append(left, openProcess(t, pid))
			}
			if len(left) != 5 {
				t.Fatalf("want four holders and a program in the background, got %q", line)
			}
			if err := stdin.Close(); err != nil { // the sign to end
				t.Fatal(err)
			}
			for i, fd := range left {
				waitEnd(t, fd, strings.Fields(line)[i])
			}
		})
	}
}

// victim makes a lab, leaves a program in the background on a host, prints
// the processes, waits for the sign to end, and ends as asked.
func victim() {
	l, err := New(context.Background())
	if err != nil {
		panic(err)
	}
	background, err := l.LAN1.output("sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Router.PID, l.LAN1.PID, l.LAN2.PID, l.Internet.PID, strings.TrimSpace(background))
	_, _ = io.Copy(io.Discard, os.Stdin) // ends when the parent closes it
	switch os.Getenv("LAB_TEST_VICTIM") {
	case "close":
		if err := l.Close(); err != nil {
			panic(err)
		}
		os.Exit(0)
	case "panic":
		panic("as the test wants it")
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	select {}
}

func openProcess(t *testing.T, pid string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(pid, &n); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(n, 0)
	if err != nil {
		t.Fatalf("process %s: %v", pid, err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func waitEnd(t *testing.T, pidfd int, pid string) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 10_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n != 1 {
			t.Errorf("process %s still runs (%v)", pid, err)
		}
		return
	}
}

// A script stands for upnpd: what is tested is how the lab handles it.
func TestDaemon(t *testing.T) {
	l := Start(t)
	script := filepath.Join(t.TempDir(), "upnpd")
	err := os.WriteFile(script, []byte(`#!/bin/sh
trap 'echo bye; exit 0' TERM
trap 'echo again' HUP
echo "$0 $*" >&2
ip -br addr >&2
echo "Advertisements Sent.  Listening for requests ..." >&2
sleep 60 >/dev/null 2>&1 &
while :; do wait $!; done
`), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	d := l.Router.StartDaemon(t, script, WANDev, LANDev)
	for _, want := range []string{"upnpd -f wan0 br-lan\n", WANAddr + "/24"} {
		if !strings.Contains(d.Log(), want) {
			t.Errorf("no %q in the log:\n%s", want, d.Log())
		}
	}
	if err := d.Signal(syscall.SIGHUP); err != nil {
		t.Error(err)
	}
	if err := d.WaitLog("again"); err != nil {
		t.Error(err)
	}
	var copied strings.Builder
	followed := make(chan error, 1)
	go func() { followed <- d.Follow(&copied) }()
	d.Stop(t)
	if !strings.HasSuffix(d.Log(), "bye\n") {
		t.Errorf("no goodbye after Stop:\n%s", d.Log())
	}
	if err := <-followed; err != nil || copied.String() != d.Log() {
		t.Errorf("Follow wrote %q (%v), the log is %q", copied.String(), err, d.Log())
	}
	if err := d.WaitLog("never said"); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("waiting for a line of an ended daemon: %v", err)
	}

	killed := l.Router.StartDaemon(t, script)
	killed.Kill()
	if strings.Contains(killed.Log(), "bye") {
		t.Error("Kill let the daemon say goodbye")
	}
	if _, err := l.Router.Launch("sh", "-c", "exit 3"); err == nil {
		t.Error("a daemon that ends at once counts as serving")
	}
}
