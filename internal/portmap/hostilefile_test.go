package portmap_test

import (
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
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
		"upnpd leases 1, boot boot-1",
		"TCP 2001 - 192.168.1.2 80 on PCP 192.168.1.2 00112233445566778899aabbccddeeff00112233 2000000 900 x long nonce",
		"TCP 2002 ::ffff:1.2.3.4 192.168.1.2 2002 on UPnP 192.168.1.2 - 2000000 900 x mapped remote host",
		"TCP 2003 fe80::1 192.168.1.2 2003 on UPnP 192.168.1.2 - 2000000 900 x IPv6",
		"TCP 2004 0.0.0.0 192.168.1.2 2004 on UPnP 192.168.1.2 - 2000000 900 x nobody",
		"TCP 2005 - - 2005 on UPnP - - 2000000 900 x no client",
		"TCP 2006 - ::ffff:192.168.1.2 2006 on UPnP ::ffff:192.168.1.2 - 2000000 900 x mapped client",
		"TCP 2007 - 192.168.1.2 2007 on UPnP 192.168.1.2 - 2000000 900 x good",
	} {
		text = fmt.Appendf(text, "%08x %s\n", crc32.ChecksumIEEE([]byte(l)), l)
	}
	if err := os.WriteFile(f.Path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	all, bad, err := f.Read(1000)
	if err != nil || len(bad) != 1 {
		t.Errorf("bad lines: %v, %v", bad, err)
	}
	w := newWorld(t, nil)
	w.Restore(all)
	got := w.List()
	if len(got) != 1 || got[0].Key != (portmap.Key{Protocol: portmap.TCP, ExternalPort: 2007, RemoteHost: netip.Addr{}}) {
		t.Errorf("restored: %v", got)
	}
}
