package ctl

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNames(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// The formats of dnsmasq 2.90: DHCPv4, then DHCPv6 behind the server's DUID.
	first := write("first", "1700000000 AA:BB:CC:00:00:01 192.168.1.5 ps5 01:aa:bb:cc:00:00:01\n"+
		"0 aa:bb:cc:00:00:02 192.168.1.6 * *\n"+
		"1700000000 aa:bb:cc:00:00:03 192.168.1.7 roaming *\n"+
		"1700000000 aa:bb:cc:00:00:04 192.168.1.8 "+strings.Repeat("n", 70)+" *\n"+
		"\n   \nshort line\n"+
		"1700000000 aa:bb:cc:00:00:05 192.168.1.9 e\x1bvil\u202e *\n"+
		"duid 00:01:00:01\n"+
		"1700000000 12345 fd00::5 six 00:01:00:01:aa\n"+
		"1700000000 aa:bb:cc:00:00:06 192.168.1.10 cut *") // no end of line
	second := write("second", "1 aa:aa:aa:aa:aa:aa 192.168.1.5 late *\n1 aa:aa:aa:aa:aa:ab 192.168.1.6 tv *\n")
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	s := &Server{LeaseFiles: []string{pipe, dir, "/no/such/file", "/dev/zero", first, second}, Daemon: &fakeDaemon{hardware: map[netip.Addr][6]byte{
		addr("192.168.1.77"): {0xaa, 0xbb, 0xcc, 0, 0, 3},
		addr("192.168.1.5"):  {0xaa, 0xbb, 0xcc, 0, 0, 3}, // leased to another
		addr("fe80::1"):      {0xaa, 0xbb, 0xcc, 0, 0, 1},
		addr("192.168.1.78"): {9, 9, 9, 9, 9, 9},
	}}}
	names := s.names()
	for a, want := range map[string]string{
		"192.168.1.5": "ps5", "192.168.1.6": "tv", "192.168.1.7": "roaming", "192.168.1.77": "roaming", "fe80::1": "ps5", "192.168.1.78": "",
		"192.168.1.8": strings.Repeat("n", 63), "192.168.1.9": `e\u001bvil\u202e`, "fd00::5": "six", "192.168.1.10": "", "192.168.1.99": "",
	} {
		if got := names[a]; got != want {
			t.Errorf("%s is %q, want %q", a, got, want)
		}
	}
	if got := names.label(addr("192.168.1.5")) + ", " + names.label(addr("192.168.1.99")); got != "192.168.1.5 (ps5), 192.168.1.99" {
		t.Errorf("labels %s", got)
	}
}

// Of a large file the beginning is read.
func TestNamesBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases")
	line := "1 aa:bb:cc:00:00:03 192.168.1.7 many *\n"
	text := "1 aa:bb:cc:00:00:01 192.168.1.5 first *\n" + strings.Repeat(line, maxLeaseFile/len(line)+1) + "1 aa:bb:cc:00:00:02 192.168.1.6 last *\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	n := hostNames{}
	n.read(path)
	if n["192.168.1.5"] != "first" || n["192.168.1.6"] != "" || len(n) != 4 {
		t.Errorf("got %v", n)
	}
}
