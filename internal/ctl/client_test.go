package ctl

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// --help fits a small terminal.
func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-h"}, {"--help"}, {"list", "--help", "--nonsense"}} {
		stdout, stderr, code := upnpctl(args...)
		if code != 0 || stderr != "" || stdout != usage {
			t.Errorf("%q: code %d, %q, %q", args, code, stdout, stderr)
		}
	}
	lines := strings.Split(strings.TrimSuffix(usage, "\n"), "\n")
	if len(lines) > 24 {
		t.Errorf("%d lines", len(lines))
	}
	for _, l := range lines {
		if len(l) > 80 {
			t.Errorf("%d columns: %s", len(l), l)
		}
	}
	for _, line := range strings.Split(grammar, "\n") {
		if command, _, _ := strings.Cut(line, " "); !strings.Contains(usage, "\n  "+command+" ") || !strings.Contains(errUnknown.Error(), command) {
			t.Errorf("%s is not explained", command)
		}
	}
}

// Issue 4, point 3: unknown words are an error with the next step, exit code 2,
// without asking the daemon.
func TestBadCommandLine(t *testing.T) {
	for args, want := range map[string]string{
		"":                                     "the commands are list, status,",
		"lits":                                 `unknown command "lits": the commands are list, status,`,
		"list --xml":                           `list does not know "xml"`,
		"list -x":                              `list does not know "-x"`,
		"log --json":                           `log does not know "json"`,
		"--live list":                          `list does not know "live"`,
		"-f status":                            `status does not know "follow"`,
		"list --socket":                        `list does not know "socket"`,
		"delete TCP":                           "delete TCP 8080",
		"delete 8080":                          "delete needs TCP or UDP",
		strings.Repeat("list ", 100):           "list does not know",
		"check " + strings.Repeat("json ", 51): "too long",
	} {
		stdout, stderr, code := upnpctl(strings.Split(args, " ")...)
		if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "upnpctl: ") || !strings.Contains(stderr, want) ||
			!strings.HasSuffix(stderr, "; see upnpctl --help\n") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: code %d, %q, %q; want %q", args, code, stdout, stderr, want)
		}
	}
}

// A word cannot smuggle in a second request.
func TestOneLine(t *testing.T) {
	w := newWorld(t)
	w.home()
	if _, _, code := w.upnpctl("list\nflush"); code != 2 || w.server.Table.Len() != 5 {
		t.Errorf("code %d, %d mappings", code, w.server.Table.Len())
	}
	w.says(0, `{"mappings":[`, "list\njson")
}

func TestNotRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	wants := func(path string, parts ...string) {
		t.Helper()
		stdout, stderr, code := upnpctl("--socket="+path, "list")
		if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("code %d, %q", code, stdout)
		}
		for _, part := range append(parts, "upnpctl: ", path) {
			if !strings.Contains(stderr, part) {
				t.Errorf("got %q, want %q", stderr, part)
			}
		}
	}
	wants(path, "upnpd is not running", "no such file", "/etc/init.d/upnpd start", "--socket")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Close(fd)); err != nil {
		t.Fatal(err)
	}
	wants(path, "upnpd is not running", "connection refused", "systemctl start upnpd")
	wants(path+strings.Repeat("x", 107), "at most 107 bytes")
	wants("relative", "a path from / on")
}

// What another user sees.
func TestNotAllowed(t *testing.T) {
	w := newWorld(t)
	var stderr string
	var code int
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not unlocked: the thread ends with its other user
		if os.Getuid() == 0 {
			const nobody = 65534
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
				t.Error(errno)
				return
			}
		} else if err := os.Chmod(w.path, 0); err != nil {
			t.Error(err)
		}
		_, stderr, code = w.upnpctl("flush")
	}()
	<-done
	if code != 2 || !strings.Contains(stderr, "permission denied: run upnpctl as root") {
		t.Errorf("code %d, %q", code, stderr)
	}
}

// Root gets through to a daemon that runs as another user.
func TestOtherUsersDaemon(t *testing.T) {
	w := newWorld(t)
	if os.Getuid() != 0 {
		t.Skip("needs root: gives a file away")
	}
	if err := os.Chown(w.path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	w.says(0, "no mappings", "list")
}

// Replies that a daemon does not give.
func TestBadReplies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	replies := make(chan string)
	go func() {
		for reply := range replies {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, maxRequest))
			_, _ = c.Write([]byte(reply))
			_ = c.Close()
		}
	}()
	defer close(replies)
	for _, tt := range []struct {
		reply, stdout, stderr string
		code                  int
	}{
		{"", "", "upnpctl: upnpd gave no answer: EOF\n", 2},
		{"0", "", "upnpctl: upnpd gave no answer: EOF\n", 2}, // before its first line ends
		{"\nx", "", "what answers there is not upnpd\n", 2},
		{"SSH-2.0-x\r\n", "", "what answers there is not upnpd\n", 2},
		{"-1\n", "", "what answers there is not upnpd\n", 2},
		{"256\n", "", "what answers there is not upnpd\n", 2},
		{strings.Repeat("0", 5000) + "\n", "", "gave no answer", 2},
		{"0\n", "", "", 0},
		{"0\na\nb", "a\nb", "", 0},
		{"7\nx\n", "", "upnpctl: x\n", 7},
	} {
		replies <- tt.reply
		stdout, stderr, code := upnpctl("--socket", path, "list")
		if code != tt.code || stdout != tt.stdout || !strings.Contains(stderr, tt.stderr) || tt.stderr == "" && stderr != "" {
			t.Errorf("%.20q: code %d, %q, %q", tt.reply, code, stdout, stderr)
		}
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, unix.ENOSPC }

// What cannot be shown is not taken for shown.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	var stderr strings.Builder
	for _, command := range []string{"list", "--help"} {
		if code := Run([]string{"--socket", w.path, command}, fullDisk{}, &stderr); code != 2 || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%s: code %d, %q", command, code, stderr.String())
		}
	}
}
