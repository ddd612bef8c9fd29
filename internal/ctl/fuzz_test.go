package ctl

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// FuzzReply: whatever answers at the socket, upnpctl ends, by the code of the first
// line or by 2 with a word about it, and shows the rest as it is.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"", "0", "0\n", "0\nno mappings\n", "1\nx", "-1\n", "+1\n", "00\n\n", "256\n", "0\r\n", "\n", strings.Repeat("0", 5000), "0\n" + strings.Repeat("x", 10000)} {
		f.Add(s, "list")
		f.Add(s, "check")
		f.Add(s, "log follow")
	}
	path := filepath.Join(f.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = l.Close() })
	f.Fuzz(func(t *testing.T, reply, line string) {
		r, err := parseRequest(line)
		if err != nil || len(line) >= maxRequest {
			return
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if c, err := l.Accept(); err == nil {
				_, _ = c.Write([]byte(reply))
				_ = c.(*net.UnixConn).CloseWrite()
				_, _ = c.Read(make([]byte, maxRequest)) // else what it has to say may be lost
				_ = c.Close()
			}
		}()
		c, err := ask(path, line)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var out, fault bytes.Buffer
		code, err := r.show(c, &out, &fault)
		<-done
		wantShown(t, r, reply, code, err, out.String(), fault.String())
	})
}

// wantShown wants what a reply says.
func wantShown(t *testing.T, r *request, reply string, code int, err error, out, fault string) {
	t.Helper()
	first, text, whole := strings.Cut(reply, "\n")
	said, bad := strconv.Atoi(first)
	if whole = whole && len(first) < 4096 && bad == nil && said >= 0 && said < 256; !whole {
		if code != 2 || err == nil || out+fault != "" {
			t.Errorf("%q: code %d, %v, %q, %q", reply, code, err, out, fault)
		}
		return
	}
	if said == 0 && r.has("follow") {
		if code != 2 || err == nil || out != text { // it was to go on
			t.Errorf("%q: code %d, %v, %q", reply, code, err, out)
		}
		return
	}
	want := text
	if said != 0 && r.command != "check" {
		want = "upnpctl: " + text
		out, fault = fault, out
	}
	if code != said || err != nil || out != want || fault != "" {
		t.Errorf("%q: code %d, %v, %q, %q", reply, code, err, out, fault)
	}
}

// FuzzCommandLine: whatever the words are, upnpctl asks in one line, of which the
// daemon understands the same.
func FuzzCommandLine(f *testing.F) {
	for _, s := range []string{"list\x00--json", "--socket=/x\x00list", "--socket\x00/x\x00log\x00-f", "--socket", "list\njson\x00--help", "-h",
		"delete\x00TCP\x0080", "check\x00--live\x00--json", "\x00", "list\u2028flush", "--", "---json\x00list"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, words string) {
		path, line, err := parseArgs(strings.Split(words, "\x00"))
		if err != nil {
			if !errors.Is(err, errHelp) || path+line != "" {
				t.Errorf("%q: %q, %q, %v", words, path, line, err)
			}
			return
		}
		if strings.ContainsAny(line, "\n\r\x00") || len(line) > 2*len(words)+len(" follow") {
			t.Errorf("%q asks %q", words, line)
		}
		r, err := parseRequest(line)
		if err != nil {
			if bad := unprintable(err.Error()); bad != "" {
				t.Errorf("%q: the error has %s", words, bad)
			}
			return
		}
		if again, err := parseRequest(" " + strings.ReplaceAll(line, " ", "  ") + "\r"); err != nil || *again != *r {
			t.Errorf("%q: %+v, then %+v, %v", words, r, again, err)
		}
	})
}

// FuzzNames: whatever dnsmasq's file has, names are printable and short, and a key
// has the first one that it was given.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"1 AA:BB:CC:00:00:01 192.168.1.5 ps5 01:aa\n", "1 a b * c\n", "1 a b\n", "duid 00:01\n1 2 fd00::5 six 3\n", "1 a b \x1b\u202e\xff c\n1 a b late c",
		"1 a b " + strings.Repeat("é", 100) + "\n", "\n\n"} {
		f.Add(s)
	}
	dir, err := os.MkdirTemp("/dev/shm", "names") // no disk
	if err != nil {
		dir = f.TempDir()
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "leases")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n := hostNames{}
		n.read(path)
		if len(n) > 2*strings.Count(text, "\n") {
			t.Errorf("%d keys", len(n))
		}
		for key, name := range n {
			if bad := unprintable(name); bad != "" || name == "" || len(name) > maxHostName || !strings.Contains(strings.ToLower(text), strings.ToLower(key)) {
				t.Errorf("%q is %q", key, name)
			}
		}
	})
}
