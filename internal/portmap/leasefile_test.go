package portmap_test

import (
	"errors"
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

func leaseFile(t *testing.T) *portmap.LeaseFile {
	t.Helper()
	return &portmap.LeaseFile{
		Path: filepath.Join(t.TempDir(), "run", "leases"), BootID: "boot-1",
		Now: func() time.Duration { return 1000 * time.Second },
	}
}

// hostile are mappings whose every field differs, with descriptions that try to
// be a line of their own.
func hostile() []portmap.Mapping {
	var all []portmap.Mapping
	for i, description := range []string{
		"web server", "", " ", "  two  blanks  ", "ends with a blank ", "-", "äöü ☃ \U0001F600",
		"00000000 TCP 22 - 0 192.168.1.2 22 on UPnP 192.168.1.2 - 0 99999999 9999 - forged",
		"upnpd leases 3, boot boot-1", `"quoted" \n \x00 %d %s`, strings.Repeat("x", portmap.MaxDescription),
		strings.Repeat("ß", portmap.MaxDescription/2), "\u2028 \u202e", "#",
	} {
		m := ask(ann, uint16(2000+i)).Mapping
		m.Description = description
		m.Deadline = 2000*time.Second + time.Duration(i)*time.Millisecond
		m.Enabled = i%2 == 0
		m.Origin = portmap.Origin(i % 4)
		if i%3 == 1 {
			m.RemoteHost = peer1
			m.Nonce = [12]byte{byte(i), 0xff, 11: 1}
		}
		if i%3 == 2 {
			m.Protocol = portmap.UDP
			m.Owner = netip.MustParseAddr("fd00::1")
		}
		all = append(all, m)
	}
	for i, description := range []string{"pinhole", "", "00000000 TCP 22 - 0 2001:db8:1::2 22 on UPnP - - 1 9999 9999 - x"} {
		m := pin(ann6, uint16(3000+i)).Mapping
		m.Description, m.ID, m.Deadline = description, uint16(65535-i), 2000*time.Second+time.Duration(14+i)*time.Millisecond
		if i > 0 {
			m.RemoteHost, m.RemotePort, m.Protocol = peer6, uint16(i), portmap.UDP
		}
		all = append(all, m)
	}
	for i, k := range []portmap.Key{ // PORT_SETs and FILTERs
		{Protocol: portmap.TCP, ExternalPort: 4000, RemoteHost: netip.MustParseAddr("11.0.0.0"), RemoteBits: 24, RemotePort: 7},
		{Protocol: portmap.UDP, ExternalPort: 5001, RemoteHost: netip.MustParseAddr("2001:db8::"), RemoteBits: 32, Pinhole: ann6},
	} {
		m := pcpAsk(ann, 5001, 0, 'a').Mapping
		m.Key, m.Ports, m.Deadline = k, 8, 2000*time.Second+time.Duration(20+i)*time.Millisecond
		if k.Pinhole.IsValid() {
			m.Client, m.ID = k.Pinhole, 77
		}
		all = append(all, m)
	}
	return append(all, portmap.Mapping{Key: key(portmap.UDP, 65535, netip.Addr{}), Client: bob, InternalPort: 1, Deadline: 1 << 50})
}

// TestLeaseFile: what is written is read, in this boot and in the next.
func TestLeaseFile(t *testing.T) {
	f, want := leaseFile(t), hostile()
	want[len(want)-1].Deadline = 604800 * time.Second
	if all, bad, err := f.Read(1000); all != nil || bad != nil || err != nil {
		t.Errorf("no file: %v, %v, %v", all, bad, err)
	}
	for range 2 { // again over itself
		if err := f.Write(want); err != nil {
			t.Fatal(err)
		}
	}
	got, bad, err := f.Read(1000)
	if !slices.Equal(got, want) || bad != nil || err != nil {
		t.Errorf("read\n%+v\nwant\n%+v\n%v %v", got, want, bad, err)
	}
	if left, _ := os.ReadDir(filepath.Dir(f.Path)); len(left) != 1 {
		t.Errorf("other files: %v", left)
	}
	if info, err := os.Stat(f.Path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err) // it holds nonces
	}

	next := *f
	next.BootID, next.Now = "boot-2", func() time.Duration { return 7 * time.Second }
	for i := range want { // the time that was left when it was written
		want[i].Deadline = 7*time.Second + (want[i].Deadline - 1000*time.Second + time.Second - 1).Truncate(time.Second)
	}
	if got, bad, err = next.Read(1000); !slices.Equal(got, want) || bad != nil || err != nil {
		t.Errorf("after a reboot\n%+v\nwant\n%+v\n%v %v", got, want, bad, err)
	}
}

// TestWallClock: when the file says that leases end is for people. Whatever it
// says, the same mappings are read (issue 4, point 1: jumps of years).
func TestWallClock(t *testing.T) {
	f, want := leaseFile(t), hostile()
	if err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(written), "\n"), "\n")
	next := *f
	next.BootID, next.Now = "boot-2", func() time.Duration { return 7 * time.Second }
	for _, boot := range []*portmap.LeaseFile{f, &next} {
		want, _, _ := boot.Read(1000)
		for _, expiry := range []string{"1970-01-01T00:00:00Z", "2199-12-31T23:59:59Z", "-"} {
			var changed strings.Builder
			for i, line := range lines {
				words := strings.SplitN(line, " ", 17)
				if i > 0 {
					if _, err := time.Parse(time.RFC3339, words[15]); err != nil {
						t.Fatalf("column 16 of %q: %v", line, err)
					}
					words[15] = expiry
				}
				text := strings.Join(words[1:], " ")
				fmt.Fprintf(&changed, "%08x %s\n", crc32.ChecksumIEEE([]byte(text)), text)
			}
			if err := os.WriteFile(f.Path, []byte(changed.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			got, bad, err := boot.Read(1000)
			if !slices.Equal(got, want) || len(want) != len(lines)-1 || bad != nil || err != nil {
				t.Errorf("%s, %s: read\n%+v\nwant\n%+v\n%v %v", boot.BootID, expiry, got, want, bad, err)
			}
		}
		if err := os.WriteFile(f.Path, written, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLeaseFileDamage: whatever one byte becomes, and wherever the file ends, no
// mapping is read that was not written, the other lines are kept, and the damage
// is reported.
func TestLeaseFileDamage(t *testing.T) {
	f, want := leaseFile(t), append(hostile()[6:8], hostile()[16:19]...)
	if err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, data []byte, lost int) {
		t.Helper()
		if err := os.WriteFile(f.Path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, bad, err := f.Read(1000)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, m := range got {
			if !slices.ContainsFunc(want, func(w portmap.Mapping) bool { w.Deadline = m.Deadline; return w == m }) {
				t.Errorf("%s: read %+v", what, m)
			}
			if late := m.Deadline - want[0].Deadline; late < 0 || late > time.Second {
				t.Errorf("%s: deadline of %v moved by %v", what, m, late)
			}
		}
		if len(got) < len(want)-lost || len(bad) == 0 || !strings.Contains(bad[0].Error(), f.Path+":") {
			t.Errorf("%s: %d of %d mappings, %v", what, len(got), len(want), bad)
		}
	}
	for i := range good {
		for _, b := range []byte{good[i] ^ 1, good[i] ^ 0x80, 0, '\n', ' ', '9'} {
			if b == good[i] {
				continue
			}
			data := slices.Clone(good)
			data[i] = b
			check(fmt.Sprintf("byte %d is %q", i, b), data, 2)
		}
	}
	for n := 1; n < len(good); n++ {
		if good[n-1] == '\n' {
			continue // whole lines
		}
		check(fmt.Sprintf("%d bytes", n), good[:n], strings.Count(string(good[n:]), "\n"))
	}
	check("a long line", append(slices.Clone(good), strings.Repeat("x", 100_000)+"\n"...), 0)
	_, rest, _ := strings.Cut(string(good), "\n")
	if err := os.WriteFile(f.Path, []byte(rest), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, bad, _ := f.Read(1000); len(got) != len(want) {
		t.Errorf("without the first line: %d of %d mappings, %v", len(got), len(want), bad)
	}
	check("noise before", append([]byte("\x00\xff\n\n"), good...), 0)
}

// TestLeaseFileWriteFails: the old file stays.
func TestLeaseFileWriteFails(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a full disk needs root, to mount one")
	}
	f := leaseFile(t)
	disk := filepath.Dir(f.Path)
	if err := errors.Join(os.Mkdir(disk, 0o755), unix.Mount("full", disk, "tmpfs", 0, "size=8k")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	before := hostile()[:3]
	if err := f.Write(before); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(slices.Repeat(hostile(), 10)); err == nil || !strings.Contains(err.Error(), f.Path) {
		t.Errorf("a full disk: %v", err)
	}
	if got, _, _ := f.Read(1000); !slices.Equal(got, before) {
		t.Errorf("the old file has become %v", got)
	}
	if err := f.Write(hostile()); err != nil {
		t.Errorf("with room again: %v", err)
	}
	notDir := *f
	notDir.Path = f.Path + "/leases"
	if err := notDir.Write(nil); err == nil {
		t.Error("written below a file")
	}
	if _, _, err := (&portmap.LeaseFile{Path: filepath.Dir(f.Path)}).Read(1000); err == nil {
		t.Error("a directory was read")
	}
}

// TestLeaseFileOthers: what stands in the way is not written to, and a file has
// its mode whatever was there.
func TestLeaseFileOthers(t *testing.T) {
	f := leaseFile(t)
	dir := filepath.Dir(f.Path)
	victim := filepath.Join(dir, "victim")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(victim, []byte("precious"), 0o666), os.Symlink(victim, f.Path+".new")); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(hostile()); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(victim); string(text) != "precious" {
		t.Errorf("the file that a link led to has become %q", text)
	}
	if info, err := os.Lstat(f.Path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := errors.Join(os.Remove(f.Path), unix.Mkfifo(f.Path, 0o600)); err != nil {
		t.Fatal(err)
	}
	read := make(chan []portmap.Mapping)
	go func() {
		all, _, _ := f.Read(1000)
		read <- all
	}()
	select {
	case all := <-read:
		if len(all) > 0 {
			t.Errorf("a pipe has %v", all)
		}
	case <-time.After(10 * time.Second):
		t.Error("a pipe stops it")
	}
}

// TestRestore: what the policy of now refuses does not come back.
func TestRestore(t *testing.T) {
	deny := portmap.Rule{External: portmap.PortRange{First: 5004, Last: 5004}, Internal: portmap.PortRange{Last: 65535},
		Client: netip.MustParsePrefix("0.0.0.0/0"), Text: "deny 5004"}
	var decisions []portmap.Decision
	w := newWorld(t, func(c *portmap.Config) {
		c.Policy.Rules = []portmap.Rule{deny}
		c.Policy.MaxPerClient = 4
		c.Policy.MaxLease = 7200 * time.Second
		c.Decided = func(d portmap.Decision) { decisions = append(decisions, d) }
	})
	with := func(port uint16, change func(*portmap.Mapping)) portmap.Mapping {
		m := ask(ann, port).Mapping
		m.Deadline = w.clock + time.Hour
		change(&m)
		return m
	}
	same := func(*portmap.Mapping) {}
	all := []portmap.Mapping{
		with(5000, same),
		with(5001, func(m *portmap.Mapping) { m.Enabled, m.Origin, m.Nonce = false, portmap.PCP, [12]byte{1} }),
		with(5002, func(m *portmap.Mapping) { m.RemoteHost = peer1 }),
		with(5003, func(m *portmap.Mapping) { m.Deadline = w.clock }), // ended
		with(5004, same), // denied
		with(5000, same), // twice
		with(5000, func(m *portmap.Mapping) { m.Client, m.Owner = bob, bob }), // another's
		with(5005, func(m *portmap.Mapping) { m.Owner = bob }),                // secure
		with(80, same), // default rule
		with(5006, func(m *portmap.Mapping) { m.InternalPort = 0 }),
		with(5007, func(m *portmap.Mapping) { m.Client = netip.Addr{} }),
		with(5008, func(m *portmap.Mapping) { m.Deadline = 1 << 60 }),
		with(5009, same), // too many of ann's
		with(5010, func(m *portmap.Mapping) {
			m.Client, m.Owner = netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.1")
		}), // no LAN yet
	}
	dropped := w.Restore(all)
	if len(dropped) != 9 {
		t.Errorf("%d dropped: %v", len(dropped), dropped)
	}
	all[11].Deadline = w.clock + 7200*time.Second
	want := []portmap.Mapping{all[0], all[1], all[2], all[11], all[13]}
	if got := w.List(); !slices.Equal(got, want) {
		t.Errorf("table\n%+v\nwant\n%+v", got, want)
	}
	if len(decisions) != 0 {
		t.Errorf("decisions %v", decisions)
	}
	w.Sync()
	w.checkKernel()
}

// TestRevoke: the administrator's word needs no owner; a refusal leaves all.
func TestRevoke(t *testing.T) {
	var decisions []portmap.Decision
	changes := 0
	w := newWorld(t, func(c *portmap.Config) {
		c.Decided = func(d portmap.Decision) { decisions = append(decisions, d) }
		c.Changed = func() { changes++ }
	})
	a, b, c := w.mustMap(ask(ann, 5000)), w.mustMap(ask(bob, 5001)), w.mustMap(ask(ann, 5002))
	if changes != 3 || len(decisions) != 3 || decisions[0].Verdict != "granted for 3600 s (default: ports from 1024 on)" || decisions[0].From != ann {
		t.Errorf("%d changes, %+v", changes, decisions)
	}
	ofAnn := func(m *portmap.Mapping) bool { return m.Client == ann }
	w.fw.Break(true)
	if gone, err := w.Revoke(ofAnn, "test"); err == nil || gone != nil || w.Len() != 3 {
		t.Errorf("refused by the kernel: %v, %v", gone, err)
	}
	w.fw.Break(false)
	gone, err := w.Revoke(ofAnn, "by the administrator")
	if err != nil || !slices.Equal(gone, []portmap.Mapping{a, c}) || !slices.Equal(w.List(), []portmap.Mapping{b}) {
		t.Errorf("gone %v, %v; left %v", gone, err, w.List())
	}
	w.checkKernel()
	if changes != 4 || len(decisions) != 5 || decisions[4].Verdict != "by the administrator" || decisions[4].Refused {
		t.Errorf("%d changes, %+v", changes, decisions)
	}
	if gone, err := w.Revoke(ofAnn, ""); gone != nil || err != nil || changes != 4 {
		t.Errorf("again: %v, %v, %d changes", gone, err, changes)
	}
}

// TestDecisions: each request has one.
func TestDecisions(t *testing.T) {
	var decisions []portmap.Decision
	changes := 0
	w := newWorld(t, func(c *portmap.Config) {
		c.Policy.Rules = []portmap.Rule{{External: portmap.PortRange{First: 5000, Last: 5000}, Internal: portmap.PortRange{Last: 65535},
			Client: netip.MustParsePrefix("0.0.0.0/0"), Text: "deny 5000"}}
		c.Decided = func(d portmap.Decision) { decisions = append(decisions, d) }
		c.Changed = func() { changes++ }
	})
	for range 20 {
		w.Map(ask(ann, 5000))
	}
	if len(decisions) != 20 {
		t.Errorf("%d decisions", len(decisions))
	}
	d := decisions[19]
	if d.Time.IsZero() || d.From != ann || !d.Refused || d.What != "map TCP port 5000 to 192.168.1.10 port 5000" ||
		d.Verdict != "refused: denied by the rules: deny 5000" {
		t.Errorf("%+v", d)
	}
	w.mustMap(ask(bob, 6000))
	w.mustMap(ask(bob, 6000)) // a renewal
	w.Unmap(key(portmap.TCP, 6000, netip.Addr{}), bob)
	w.Flush()
	if len(decisions) != 24 || changes != 4 { // the file has the new lease of a renewal, too
		t.Errorf("%d changes, %+v", changes, decisions[20:])
	}
}
