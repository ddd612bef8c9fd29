package portmap_test

import (
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// within fails the test when f takes longer than a second.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Second):
		t.Fatalf("%s hangs", what)
	}
}

// TestLeaseFileIsNoFile: a pipe or a device in the place of the file keeps no daemon
// from starting (issue 4.1).
func TestLeaseFileIsNoFile(t *testing.T) {
	f := leaseFile(t)
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(f.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	within(t, "Read of a pipe", func() {
		if all, _, err := f.Read(1000); all != nil || err == nil {
			t.Errorf("a pipe: %v, %v", all, err)
		}
	})
	zero := *f
	zero.Path = "/dev/zero"
	within(t, "Read of /dev/zero", func() {
		if _, _, err := zero.Read(1000); err == nil {
			t.Error("/dev/zero is taken for a lease file")
		}
	})
}

// TestRestoreOdd: lines with a right checksum that the kernel would refuse, or
// that are too long, end neither the daemon nor the other mappings.
func TestRestoreOdd(t *testing.T) {
	f := leaseFile(t)
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		t.Fatal(err)
	}
	var text []byte
	for _, l := range []string{
		"upnpd leases 2, boot boot-1",
		"TCP 2001 - 0 192.168.1.2 80 on PCP 192.168.1.2 00112233445566778899aabbccddeeff00112233 0 2000000 900 x long nonce",
		"TCP 2002 ::ffff:1.2.3.4 0 192.168.1.2 2002 on UPnP 192.168.1.2 - 0 2000000 900 x mapped remote host",
		"TCP 2003 2001:db8:9::1 0 192.168.1.2 2003 on UPnP 192.168.1.2 - 0 2000000 900 x IPv6",
		"TCP 2004 0.0.0.0 0 192.168.1.2 2004 on UPnP 192.168.1.2 - 0 2000000 900 x nobody",
		"TCP 2005 - 0 - 2005 on UPnP - - 0 2000000 900 x no client",
		"TCP 2006 - 0 ::ffff:192.168.1.2 2006 on UPnP ::ffff:192.168.1.2 - 5 2000000 900 x mapped client",
		"TCP 2007 - 0 192.168.1.2 2007 on UPnP 192.168.1.2 - 9 2000000 900 x good",
		"TCP 2008 - 5 192.168.1.2 2008 on UPnP 192.168.1.2 - 0 2000000 900 x remote port of a mapping",
		"TCP 2009 - 0 fe80::2 2009 on UPnP fe80::2 - 6 2000000 900 x link-local",
		"TCP 2010 - 0 2001:db8:1::2 2011 on UPnP 2001:db8:1::2 - 7 2000000 900 x other port",
		"TCP 2012 11.0.0.9 0 2001:db8:1::2 2012 on UPnP 2001:db8:1::2 - 8 2000000 900 x pinhole for IPv4",
		"TCP 2013 - 0 2001:db8:1::2 2013 on UPnP 2001:db8:1::3 - 8 2000000 900 x pinhole by another",
		"TCP 2014 - 0 2001:db8:1::2%br-lan 2014 on UPnP 2001:db8:1::2%br-lan - 8 2000000 900 x zone",
		"TCP 2015 - 0 2001:db8:1::2 2015 on UPnP 2001:db8:1::2 - 65536 2000000 900 x large ID",
		"TCP 2016 - 70000 2001:db8:1::2 2016 on UPnP 2001:db8:1::2 - 8 2000000 900 x large port",
		"TCP 2017 - 0 2001:db8:1::2 2017 on UPnP 2001:db8:1::2 - 9 2000000 900 x good",
		"UDP 2017 2001:db8:9::1 4000 2001:db8:1::2 2017 on UPnP 2001:db8:1::2 - 9 2000000 900 x good, but for its ID",
		"UDP 2018 - 0 2001:db8:1::2 2018 on UPnP 2001:db8:1::2 - 0 2000000 900 x without an ID",
	} {
		text = fmt.Appendf(text, "%08x %s\n", crc32.ChecksumIEEE([]byte(l)), l)
	}
	if err := os.WriteFile(f.Path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	all, bad, err := f.Read(1000)
	if err != nil || len(bad) != 3 { // the nonce and two numbers
		t.Errorf("bad lines: %v, %v", bad, err)
	}
	w := newWorld(t, nil)
	w.Restore(all)
	got := w.List()
	host := netip.MustParseAddr("2001:db8:1::2")
	want := []portmap.Key{
		{Protocol: portmap.TCP, ExternalPort: 2007},
		{Protocol: portmap.TCP, ExternalPort: 2017, Pinhole: host},
		{Protocol: portmap.UDP, ExternalPort: 2017, Pinhole: host, RemoteHost: netip.MustParseAddr("2001:db8:9::1"), RemotePort: 4000},
		{Protocol: portmap.UDP, ExternalPort: 2018, Pinhole: host},
	}
	var keys []portmap.Key
	for _, m := range got {
		keys = append(keys, m.Key)
	}
	if !slices.Equal(keys, want) {
		t.Fatalf("restored: %v", got)
	}
	a, b, c := got[1].ID, got[2].ID, got[3].ID
	if got[0].ID != 0 || a != 9 || b == 9 || b == 0 || c == 0 || b == c { // PIN-8
		t.Errorf("IDs %d of a mapping, %d, %d and %d", got[0].ID, a, b, c)
	}
	w.Sync()
	w.checkKernel()
}

// TestLeaseFileOtherFormat: nothing is guessed from a file of another format, and
// one line says so.
func TestLeaseFileOtherFormat(t *testing.T) {
	f := leaseFile(t)
	lines := func(head string) (text []byte) {
		for _, l := range []string{head,
			"TCP 2000 - 192.168.1.2 80 on UPnP 192.168.1.2 - 2000000 900 x format 1",
			"TCP 2001 - 0 192.168.1.2 80 on UPnP 192.168.1.2 - 0 2000000 900 x format 2"} {
			text = fmt.Appendf(text, "%08x %s\n", crc32.ChecksumIEEE([]byte(l)), l)
		}
		return text
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, head := range []string{"upnpd leases 1, boot boot-1", "upnpd leases 3, boot boot-1", "upnpd leases 21, boot boot-1", "upnpd leases "} {
		if err := os.WriteFile(f.Path, lines(head), 0o600); err != nil {
			t.Fatal(err)
		}
		all, bad, err := f.Read(1000)
		if all != nil || err != nil || len(bad) != 1 || !strings.Contains(bad[0].Error(), fmt.Sprintf("%q is not format 2: none of it is read", head)) {
			t.Errorf("%q: %v, %v, %v", head, all, bad, err)
		}
	}
	// Without its first line, a line of format 1 is damaged.
	_, rest, _ := strings.Cut(string(lines("")), "\n")
	if err := os.WriteFile(f.Path, []byte(rest), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, bad, err := f.Read(1000); err != nil || len(bad) != 1 || len(all) != 1 || all[0].ExternalPort != 2001 {
		t.Errorf("without the first line: %v, %v, %v", all, bad, err)
	}
}
