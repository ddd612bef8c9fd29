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
		"upnpd leases 3, boot boot-1",
		"TCP 2001 - 0 192.168.1.2 80 0 on PCP 192.168.1.2 00112233445566778899aabbccddeeff00112233 0 2000000 900 x long nonce",
		"TCP 2002 ::ffff:1.2.3.4 0 192.168.1.2 2002 0 on UPnP 192.168.1.2 - 0 2000000 900 x mapped remote host",
		"TCP 2003 2001:db8:9::1 0 192.168.1.2 2003 0 on UPnP 192.168.1.2 - 0 2000000 900 x IPv6",
		"TCP 2004 0.0.0.0 0 192.168.1.2 2004 0 on UPnP 192.168.1.2 - 0 2000000 900 x nobody",
		"TCP 2005 - 0 - 2005 0 on UPnP - - 0 2000000 900 x no client",
		"TCP 2006 - 0 ::ffff:192.168.1.2 2006 0 on UPnP ::ffff:192.168.1.2 - 5 2000000 900 x mapped client",
		"TCP 2007 - 0 192.168.1.2 2007 0 on UPnP 192.168.1.2 - 9 2000000 900 x good",
		"TCP 2008 - 5 192.168.1.2 2008 0 on UPnP 192.168.1.2 - 0 2000000 900 x remote port of a mapping",
		"TCP 2009 - 0 fe80::2 2009 0 on UPnP fe80::2 - 6 2000000 900 x link-local",
		"TCP 2010 - 0 2001:db8:1::2 2011 0 on UPnP 2001:db8:1::2 - 7 2000000 900 x other port",
		"TCP 2012 11.0.0.9 0 2001:db8:1::2 2012 0 on UPnP 2001:db8:1::2 - 8 2000000 900 x pinhole for IPv4",
		"TCP 2013 - 0 2001:db8:1::2 2013 0 on UPnP 2001:db8:1::3 - 8 2000000 900 x pinhole by another",
		"TCP 2014 - 0 2001:db8:1::2%br-lan 2014 0 on UPnP 2001:db8:1::2%br-lan - 8 2000000 900 x zone",
		"TCP 2015 - 0 2001:db8:1::2 2015 0 on UPnP 2001:db8:1::2 - 65536 2000000 900 x large ID",
		"TCP 2016 - 70000 2001:db8:1::2 2016 0 on UPnP 2001:db8:1::2 - 8 2000000 900 x large port",
		"TCP 2017 - 0 2001:db8:1::2 2017 0 on UPnP 2001:db8:1::2 - 9 2000000 900 x good",
		"UDP 2017 2001:db8:9::1 4000 2001:db8:1::2 2017 0 on UPnP 2001:db8:1::2 - 9 2000000 900 x good, but for its ID",
		"UDP 2018 - 0 2001:db8:1::2 2018 0 on UPnP 2001:db8:1::2 - 0 2000000 900 x without an ID",
		"TCP 2020 - 0 192.168.1.2 2020 4 on PCP 192.168.1.2 - 0 2000000 900 x a set",
		"TCP 2023 - 0 192.168.1.2 2123 2 on PCP 192.168.1.2 - 0 2000000 900 x reaches into the set",
		"TCP 2019 - 0 192.168.1.3 2019 2 on PCP 192.168.1.3 - 0 2000000 900 x reaches into another's",
		"TCP 2022 - 0 192.168.1.2 2022 0 on UPnP 192.168.1.2 - 0 2000000 900 x inside the set",
		"TCP 2030 - 0 192.168.1.2 2030 4 on UPnP 192.168.1.2 - 0 2000000 900 x no set by UPnP",
		"TCP 2040 - 0 192.168.1.2 2040 65 on PCP 192.168.1.2 - 0 2000000 900 x too many",
		"TCP 65535 - 0 192.168.1.2 2041 2 on PCP 192.168.1.2 - 0 2000000 900 x beyond the last",
		"TCP 2042 - 0 192.168.1.2 65535 2 on PCP 192.168.1.2 - 0 2000000 900 x beyond the last inside",
		"TCP 2043 - 0 192.168.1.2 2043 70000 on PCP 192.168.1.2 - 0 2000000 900 x no number",
		"TCP 2050 11.0.0.0/24 5 192.168.1.2 2050 0 on PCP 192.168.1.2 - 0 2000000 900 x a prefix",
		"TCP 2051 11.0.0.1/24 0 192.168.1.2 2051 0 on PCP 192.168.1.2 - 0 2000000 900 x not masked",
		"TCP 2052 11.0.0.1/32 0 192.168.1.2 2052 0 on PCP 192.168.1.2 - 0 2000000 900 x one host as a prefix",
		"TCP 2053 0.0.0.0/0 0 192.168.1.2 2053 0 on PCP 192.168.1.2 - 0 2000000 900 x any as a prefix",
		"TCP 2054 11.0.0.0/33 0 192.168.1.2 2054 0 on PCP 192.168.1.2 - 0 2000000 900 x no prefix",
		"TCP 2055 2001:db8::/32 0 192.168.1.2 2055 0 on PCP 192.168.1.2 - 0 2000000 900 x of IPv6",
		"TCP 2056 11.0.0.0/24 0 192.168.1.2 2056 0 on UPnP 192.168.1.2 - 0 2000000 900 x no prefix by UPnP",
		"TCP 2057 ::ffff:11.0.0.0/120 0 192.168.1.2 2057 0 on PCP 192.168.1.2 - 0 2000000 900 x mapped prefix",
		"TCP 2058 2001:db8::/32 0 2001:db8:1::2 2058 2 on PCP 2001:db8:1::2 - 11 2000000 900 x pinholes",
		"TCP 2060 11.0.0.9 80 192.168.1.2 2160 0 peer PCP 192.168.1.2 - 0 2000000 900 x one peer",
		"TCP 2060 11.0.0.9 81 192.168.1.2 2160 0 peer PCP 192.168.1.2 - 0 2000000 900 x another",
		"TCP 2060 11.0.0.9 82 192.168.1.2 2161 0 peer PCP 192.168.1.2 - 0 2000000 900 x to another port",
		"TCP 2060 11.0.0.9 80 192.168.1.2 2160 0 peer PCP 192.168.1.2 - 0 2000000 900 x twice",
		"TCP 2060 11.0.0.0/24 0 192.168.1.2 2160 0 on PCP 192.168.1.2 - 0 2000000 900 x around them",
		"TCP 2060 11.0.0.7 0 192.168.1.2 2160 0 on UPnP 192.168.1.2 - 0 2000000 900 x by UPnP",
		"TCP 2060 - 0 192.168.1.2 2160 0 on PCP 192.168.1.2 - 0 2000000 900 x for all",
		"UDP 5351 - 0 192.168.1.2 2059 0 on UPnP 192.168.1.2 - 0 2000000 900 x our own port",
	} {
		text = fmt.Appendf(text, "%08x %s\n", crc32.ChecksumIEEE([]byte(l)), l)
	}
	if err := os.WriteFile(f.Path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	all, bad, err := f.Read(1000)
	if err != nil || len(bad) != 6 { // the nonce, three numbers, two prefixes
		t.Errorf("bad lines: %v, %v", bad, err)
	}
	w := newWorld(t, nil)
	w.Restore(all)
	got := w.List()
	host := netip.MustParseAddr("2001:db8:1::2")
	want := []portmap.Key{
		{Protocol: portmap.TCP, ExternalPort: 2007},
		{Protocol: portmap.TCP, ExternalPort: 2020},
		{Protocol: portmap.TCP, ExternalPort: 2050, RemoteHost: netip.MustParseAddr("11.0.0.0"), RemoteBits: 24, RemotePort: 5},
		{Protocol: portmap.TCP, ExternalPort: 2060, RemoteHost: netip.MustParseAddr("11.0.0.9"), RemotePort: 80},
		{Protocol: portmap.TCP, ExternalPort: 2060, RemoteHost: netip.MustParseAddr("11.0.0.9"), RemotePort: 81},
		{Protocol: portmap.TCP, ExternalPort: 2060},
		{Protocol: portmap.TCP, ExternalPort: 2017, Pinhole: host},
		{Protocol: portmap.UDP, ExternalPort: 2017, Pinhole: host, RemoteHost: netip.MustParseAddr("2001:db8:9::1"), RemotePort: 4000},
		{Protocol: portmap.UDP, ExternalPort: 2018, Pinhole: host},
		{Protocol: portmap.TCP, ExternalPort: 2058, Pinhole: host, RemoteHost: netip.MustParseAddr("2001:db8::"), RemoteBits: 32},
	}
	var keys []portmap.Key
	for _, m := range got {
		keys = append(keys, m.Key)
	}
	if !slices.Equal(keys, want) {
		t.Fatalf("restored: %v", got)
	}
	a, b, c := got[6].ID, got[7].ID, got[8].ID
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
			"TCP 2001 - 0 192.168.1.2 80 on UPnP 192.168.1.2 - 0 2000000 900 x format 2",
			"TCP 2002 - 0 192.168.1.2 80 0 on UPnP 192.168.1.2 - 0 2000000 900 x format 3"} {
			text = fmt.Appendf(text, "%08x %s\n", crc32.ChecksumIEEE([]byte(l)), l)
		}
		return text
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, head := range []string{"upnpd leases 1, boot boot-1", "upnpd leases 2, boot boot-1", "upnpd leases 31, boot boot-1", "upnpd leases "} {
		if err := os.WriteFile(f.Path, lines(head), 0o600); err != nil {
			t.Fatal(err)
		}
		all, bad, err := f.Read(1000)
		if all != nil || err != nil || len(bad) != 1 || !strings.Contains(bad[0].Error(), fmt.Sprintf("%q is not format 3: none of it is read", head)) {
			t.Errorf("%q: %v, %v, %v", head, all, bad, err)
		}
	}
	// Without its first line, those of formats 1 and 2 are damaged.
	_, rest, _ := strings.Cut(string(lines("")), "\n")
	if err := os.WriteFile(f.Path, []byte(rest), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, bad, err := f.Read(1000); err != nil || len(bad) != 2 || len(all) != 1 || all[0].ExternalPort != 2002 {
		t.Errorf("without the first line: %v, %v, %v", all, bad, err)
	}
}
