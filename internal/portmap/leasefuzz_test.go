package portmap_test

import (
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// signed puts the checksum before each line: a fuzzer does not find it.
func signed(lines string) string {
	var b strings.Builder
	for _, l := range strings.SplitAfter(lines, "\n") {
		if text, whole := strings.CutSuffix(l, "\n"); whole {
			fmt.Fprintf(&b, "%08x %s\n", crc32.ChecksumIEEE([]byte(text)), text)
		} else {
			b.WriteString(l)
		}
	}
	return b.String()
}

// FuzzLeaseFile: whatever is in the file, what the table takes of it is within the
// policy and the quotas, and comes back the same from a file that we write (issue
// 8, point 8).
func FuzzLeaseFile(f *testing.F) {
	const head = "upnpd leases 3, boot boot-1\n"
	good := "TCP 2001 - 0 192.168.1.2 2001 0 on UPnP 192.168.1.2 - 0 2000000 900 2020-01-01T00:00:00Z web server\n"
	many := head
	for port := range 9 { // one more than is read
		many += strings.ReplaceAll(good, "2001", strconv.Itoa(3000+port))
	}
	for _, s := range []string{
		many, head + strings.Replace(good, "2000000", "9999999999", 1), head + strings.Replace(good, "web", "\x1b[2J"+strings.Repeat("é", 400), 1),
		"", "\n", head, head[:len(head)-1], "upnpd leases 1, boot x\n", "upnpd leases 2, boot x\n" + good, good, head + good + good, head + good[:90],
		head + "UDP 5000 2001:db8:9::/32 7 2001:db8:1::10 5000 8 on PCP 2001:db8:1::10 00112233445566778899aabb 77 2000000 900 - pinhole\n",
		head + "TCP 4000 11.0.0.0/24 7 192.168.1.10 5000 64 peer PCP 192.168.1.10 00112233445566778899aabb 0 2000000 900 - ports\n",
		head + "TCP 65535 - 0 192.168.1.10 65535 64 off PCP 192.168.1.10 - 0 9007199254740991 4294967295 - overflow\n",
		head + "TCP 2003 - 0 fe80::1%br-lan 2003 0 on UPnP fe80::1%br-lan - 9 2000000 900 - zone\n",
		"upnpd leases 3, boot boot-2\n" + good, head + strings.Repeat("x", 2000) + "\n" + good, strings.Repeat("\n", 100),
	} {
		f.Add(s, true)
		f.Add(signed(s), false)
	}
	dir, err := os.MkdirTemp("/dev/shm", "leases") // each write waits for the disk
	if err != nil {
		dir = f.TempDir()
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	f.Fuzz(func(t *testing.T, text string, sign bool) {
		if sign {
			text = signed(text)
		}
		file := &portmap.LeaseFile{Path: filepath.Join(dir, fmt.Sprint(os.Getpid())), BootID: "boot-1", Now: func() time.Duration { return 1000 * time.Second }}
		if err := os.WriteFile(file.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		const most = 8
		all, bad, _ := file.Read(most)
		if len(all) > most || len(bad) > 11 {
			t.Fatalf("%d mappings, %d faults", len(all), len(bad))
		}
		w := newWorld(t, func(c *portmap.Config) { c.Policy.MaxMappings, c.Policy.MaxPerClient = 6, 3 })
		w.Restore(all)
		restored := w.List()
		ports, ids := 0, map[uint16]bool{}
		for i := range restored {
			m := &restored[i]
			checkRestored(t, m)
			if ports += max(1, int(m.Ports)); m.Pinhole.IsValid() == (m.ID == 0) || m.ID != 0 && ids[m.ID] {
				t.Errorf("%+v: its ID is none, or another's", m)
			}
			ids[m.ID] = true
		}
		if ports > 6 {
			t.Errorf("%d ports of %v", ports, restored)
		}
		w.Sync() // the kernel of tests knows contradictions
		again(t, file, restored)
	})
}

// checkRestored wants what the house policy lets be.
func checkRestored(t *testing.T, m *portmap.Mapping) {
	t.Helper()
	last := max(int(m.InternalPort), int(m.ExternalPort)) + max(1, int(m.Ports)) - 1
	left := m.Deadline - 1000*time.Second
	six := m.Pinhole.IsValid()
	if m.Protocol != portmap.TCP && m.Protocol != portmap.UDP || m.ExternalPort < 1024 || m.InternalPort < 1024 || last > 65535 ||
		m.Ports > portmap.MaxPorts || left <= 0 || left > 604800*time.Second || m.Owner != m.Client || m.Client.Zone() != "" ||
		m.Client.Is4() == six || m.Client.Is4In6() || six && m.Pinhole != m.Client || m.RemoteHost.IsValid() && m.RemoteHost.Is4() == six ||
		strings.ContainsAny(m.Description, "\n\r\x00\x1b") || len(m.Description) > portmap.MaxDescription {
		t.Errorf("restored: %+v", *m)
	}
}

// again writes mappings, and wants to read the same. In the file are milliseconds.
func again(t *testing.T, file *portmap.LeaseFile, want []portmap.Mapping) {
	t.Helper()
	for i := range want {
		want[i].Deadline = want[i].Deadline.Truncate(time.Millisecond)
	}
	if err := file.Write(want); err != nil {
		t.Fatal(err)
	}
	if got, bad, err := file.Read(1000); !slices.Equal(got, want) || bad != nil || err != nil {
		t.Errorf("read\n%+v\nwant\n%+v\n%v, %v", got, want, bad, err)
	}
}
