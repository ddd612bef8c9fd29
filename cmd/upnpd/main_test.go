package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// command runs upnpd on the lab's router and gives what it printed and its
// exit code.
func command(t *testing.T, l *lab.Lab, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := l.Router.Command(ctx, lab.Build(t), args...)
	var out, fault strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &fault
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), fault.String(), cmd.ProcessState.ExitCode()
}

// TestCommandLine: what is printed, where, and the exit code.
func TestCommandLine(t *testing.T) {
	l := lab.Start(t)
	conf := filepath.Join(t.TempDir(), "upnpd.conf")
	nosuch := filepath.Join(t.TempDir(), "nosuch.conf")
	for name, text := range map[string]string{conf: "# a comment\nmax_lease = forever\n", nosuch: "extif = wan0\n\nintif = nosuch\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	broken := filepath.Join(t.TempDir(), "iptables")
	for name, script := range map[string]string{broken: "exec iptables-nft \"$@\"", broken + "-restore": "echo no >&2; exit 1"} {
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const nul = "/dev/null"
	for _, tt := range []struct {
		args           string
		code           int
		stdout, stderr string // parts; "" wants nothing
	}{
		{"--version", 0, version + "\n", ""},
		{"--help", 0, "upnpd [flags] EXTIF INTIF...", ""},
		{"--check-config --config " + nul + " wan0 nosuch", 0, "", ""},
		{"--check-config --config " + conf + " wan0 br-lan", 1, "", conf + `:2: max_lease = "forever": want`},
		{"--config " + nul, 1, "", "upnpd [flags] EXTIF INTIF..."},
		{"--config " + nul + " wan0", 1, "", "upnpd [flags] EXTIF INTIF..."},
		{"--config " + nul + " --no-such-flag wan0 br-lan", 1, "", "--no-such-flag"},
		{"--config " + conf + " wan0 br-lan", 1, "", conf + `:2: max_lease = "forever": want`},
		{"--config /no/such/file wan0 br-lan", 1, "", "/no/such/file"},
		{"-f --config " + nul + " wan0 nosuch", 1, "wan: no LAN device nosuch", `INTIF "nosuch": there is no such device`},
		{"--config " + nul + " wan0 nosuch", 1, "", `INTIF "nosuch": there is no such device`},
		{"--config " + nul + " --iptables-location /nowhere/iptables wan0 br-lan", 1, "", "set iptables_location"},
		{"--config " + nosuch, 1, "", nosuch + `:3: intif = "nosuch": there is no such device`},
		{"--config " + nul + " --iptables-location " + broken + " wan0 br-lan", 1, "", broken + "-restore: exit status 1: no"},
		{"-f --config " + nul + " --firewall iptables --prerouting-chain-name MINE wan0 br-lan", 1, "wan: wan0 has address", "prerouting_chain_name = MINE: table nat has no such chain"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			stdout, stderr, code := command(t, l, strings.Fields(tt.args)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			wantPart(t, "stdout", stdout, tt.stdout)
			wantPart(t, "stderr", stderr, tt.stderr)
		})
	}
}

func wantPart(t *testing.T, where, got, part string) {
	t.Helper()
	if part == "" && got != "" || !strings.Contains(got, part) {
		t.Errorf("%s is %q, want %q in it", where, got, part)
	}
}

// TestBackground: the parent ends with 0 once the daemon serves, and the
// daemon goes on.
func TestBackground(t *testing.T) {
	l := lab.Start(t)
	before := l.Rules("iptables-legacy")
	args := []string{"--config", "/dev/null", "--iptables-location", "/usr/sbin/iptables-legacy", "nosuch0", lab.LANDev}
	stdout, stderr, code := command(t, l, args...)
	wantPart(t, "stderr", stderr, "EXTIF nosuch0: there is no such device yet; waiting for it")
	if code != 0 || stdout != "" {
		t.Fatalf("exit code %d, stdout %q", code, stdout)
	}
	if out := l.LAN1.Run(t, "gssdp-discover", "-i", lab.HostDev, "-n", "1"); !strings.Contains(out, "InternetGatewayDevice:1") {
		t.Errorf("the daemon in the background does not serve:\n%s", out)
	}
	if _, stderr, code := command(t, l, args...); code != 1 || !strings.Contains(stderr, "another upnpd is running here") {
		t.Errorf("a second one: exit code %d, %q", code, stderr)
	}
	pid := running(t, lab.Build(t))
	if sid, _ := unix.Getsid(pid); sid != pid {
		t.Errorf("the daemon is in session %d, want its own, %d", sid, pid)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Second); syscall.Kill(pid, 0) == nil && !zombie(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it still runs 2 s after SIGTERM")
		}
	}
	if after := l.Rules("iptables-legacy"); after != before {
		t.Errorf("rules were left:\n%s", after)
	}
}

// TestInheritedFile: the daemon keeps nothing open of what its caller had.
func TestInheritedFile(t *testing.T) {
	l := lab.Start(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := l.Router.Command(ctx, lab.Build(t), "--config", "/dev/null", lab.WANDev, lab.LANDev)
	cmd.ExtraFiles = []*os.File{w}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the caller's pipe is still open: %v", err)
	}
}

// TestNoAnnouncement: a router that lets no discovery out cannot serve, and
// who starts the daemon hears it.
func TestNoAnnouncement(t *testing.T) {
	l := lab.Start(t)
	l.Router.Run(t, "iptables-nft", "-A", "OUTPUT", "-p", "udp", "--dport", "1900", "-j", "REJECT")
	_, stderr, code := command(t, l, "--config", "/dev/null", "--iptables-location", "/usr/sbin/iptables-nft", lab.WANDev, lab.LANDev)
	if code != 1 || !strings.Contains(stderr, "announce on br-lan") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

// running finds the process of a program that only this test has started.
func running(t *testing.T, program string) int {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// By the file: the name may be another one where it runs.
		if is, err := os.Stat(e); err == nil && os.SameFile(is, want) {
			pid, _ := strconv.Atoi(strings.Split(e, "/")[2])
			return pid
		}
	}
	t.Fatalf("no process runs %s", program)
	return 0
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// TestPortTaken: the reason why it cannot serve reaches the one who starts it.
func TestPortTaken(t *testing.T) {
	l := lab.Start(t)
	if _, err := l.Router.ListenTCP("0.0.0.0:5000"); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := command(t, l, "--config", "/dev/null", "--port", "5000", lab.WANDev, lab.LANDev)
	if code != 1 || !strings.Contains(stderr, "serve br-lan: port 5000 for HTTP") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

// TestUpnpctl: by its other name the program is the client of the control socket.
func TestUpnpctl(t *testing.T) {
	link := filepath.Join(t.TempDir(), "upnpctl")
	if err := os.Symlink(lab.Build(t), link); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args           string
		code           int
		stdout, stderr string // parts; "" wants nothing
	}{
		{"--help", 0, "Usage: upnpctl", ""},
		{"", 2, "", "the commands are list, status"},
		{"--no-such-flag wan0 br-lan", 2, "", "unknown command"},
		{"--socket " + link + ".sock list", 2, "", "upnpd is not running (connect to " + link + ".sock"},
	} {
		cmd := exec.Command(link, strings.Fields(tt.args)...)
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run() // the exit code says it
		if code := cmd.ProcessState.ExitCode(); code != tt.code {
			t.Errorf("%s: exit code %d, want %d", tt.args, code, tt.code)
		}
		wantPart(t, "stdout", stdout.String(), tt.stdout)
		wantPart(t, "stderr", stderr.String(), tt.stderr)
	}
}

// TestUpnpctlPipe: nobody reads any more, as behind `| head`: it ends in silence.
func TestUpnpctlPipe(t *testing.T) {
	link := filepath.Join(t.TempDir(), "upnpctl")
	if err := os.Symlink(lab.Build(t), link); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	cmd := exec.Command(link, "--help")
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = w, &stderr
	_ = cmd.Run()
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != syscall.SIGPIPE || stderr.Len() > 0 {
		t.Errorf("%v, %q; want SIGPIPE", cmd.ProcessState, stderr.String())
	}
}
