package sock

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// igmp is /proc/net/igmp of a little-endian router, but for the groups.
const igmp = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n" +
	"1\tlo        :     1      V3\n\t\t\t\t%[1]s     1 0:00000000\t\t0\n" +
	"2\tbr-lan    :     2      V3\n\t\t\t\t%[2]s     1 0:00000000\t\t0\n\t\t\t\t%[1]s     1 0:00000000\t\t0\n" +
	"3\tsixteen-bytes-x:     2      V2\n\t\t\t\t%[2]s     2 0:00000000\t\t1\n\t\t\t\t%[1]s     1 0:00000000\t\t0\n" +
	"4\tbr-lan2   :     1      V3\n\t\t\t\t%[1]s     1 0:00000000\t\t0\n"

func TestJoinedIn(t *testing.T) {
	all, ssdp := "010000E0", "FAFFFFEF"
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		all, ssdp = "E0000001", "EFFFFFFA"
	}
	table := fmt.Sprintf(igmp, all, ssdp)
	for _, test := range []struct {
		dev, group string
		want       bool
	}{
		{"br-lan", "239.255.255.250", true},
		{"br-lan", "224.0.0.1", true},
		{"sixteen-bytes-x", "239.255.255.250", true},
		{"lo", "224.0.0.1", true},
		{"lo", "239.255.255.250", false},
		{"br-lan2", "239.255.255.250", false},
		{"br-lan", "250.255.255.239", false},
		{"br-la", "239.255.255.250", false},
		{"Device", "239.255.255.250", false},
		{"", "239.255.255.250", false},
		{"br-lan", "ff02::c", false},
	} {
		if got := joinedIn(table, test.dev, netip.MustParseAddr(test.group)); got != test.want {
			t.Errorf("%s on %q: %t", test.group, test.dev, got)
		}
	}
	if joinedIn("", "br-lan", group) || joinedIn("\n\t\n\t\tX\n", "", group) || joinedIn(table, "br-lan", netip.Addr{}) {
		t.Error("joined by a table without groups, or to no group")
	}
}

// Issue 4, point 3 (check): multicast joined on each LAN.
func TestJoined(t *testing.T) {
	newLAN(t, "lan0", 1)
	u := listenUDP(t, "lan0", 0)
	want := func(dev string, want bool) {
		t.Helper()
		if got, err := Joined(dev, group); got != want || err != nil {
			t.Errorf("%s: %t, %v", dev, got, err)
		}
	}
	want("lan0", false)
	if err := u.Join(group); err != nil {
		t.Fatal(err)
	}
	want("lan0", true)
	want("lo", false)
	want("nosuch0", false)
	_ = u.Close()
	want("lan0", false)
}

// process makes an entry of a /proc with the sockets as descriptors.
func process(t *testing.T, proc, pid, comm string, inodes ...string) {
	t.Helper()
	fd := filepath.Join(proc, pid, "fd")
	if err := os.MkdirAll(fd, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(proc, pid, "comm"), []byte(comm+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for i, inode := range inodes {
		if err := os.Symlink("socket:["+inode+"]", filepath.Join(fd, fmt.Sprint(i+3))); err != nil {
			t.Fatal(err)
		}
	}
}

func socketLine(local, state, inode string) string {
	return "  270: " + local + " 00000000:0000 " + state + " 00000000:00000000 00:00000000 00000000     0        0 " + inode + " 2 0000000000000000 0\n"
}

func TestUsersIn(t *testing.T) {
	proc := t.TempDir()
	if err := os.Mkdir(filepath.Join(proc, "net"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(proc, "net", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("udp", udpHeadings+
		socketLine("00000000:076C", "07", "101")+
		socketLine("0100000A:076C", "07", "102")+
		socketLine("00000000:076C", "07", "103")+
		socketLine("0100000A:076C", "01", "104")+ // connected
		socketLine("00000000:0035", "07", "105")+
		socketLine("00000000:14E7", "07", "106")+
		socketLine("00000000:14E8", "07", "109"))
	process(t, proc, "1", "init", "7")
	process(t, proc, "812", "minissdpd", "9", "102", "102")
	process(t, proc, "900", "upnpd", "101", "109")
	process(t, proc, "901", "a\x1b[2Jb\x7f\u009b\xff", "103", "107")
	process(t, proc, "902", "minissdpd", "102")
	process(t, proc, "903", "resolver", "104", "105")
	process(t, proc, "self", "upnpd", "101", "102", "103")
	if err := os.RemoveAll(filepath.Join(proc, "902", "comm")); err != nil { // it just ended
		t.Fatal(err)
	}
	const unseen = "another program (netstat -lnup names it)"
	want := func(port uint16, want ...string) {
		t.Helper()
		got, err := usersIn(proc, 900, port)
		slices.Sort(got)
		slices.Sort(want)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("port %d: %q, %v; want %q", port, got, err, want)
		}
	}
	want(1900, "minissdpd (pid 812)", "a?[2Jb???? (pid 901)", " (pid 902)")
	want(53, "resolver (pid 903)")
	want(5351, unseen)
	want(5352) // only ourselves
	want(5353)
	write("udp6", udpHeadings+socketLine("00000000000000000000000000000000:076C", "07", "107")+
		socketLine("00000000000000000000000000000000:14E8", "07", "108")+"\nx\n")
	want(1900, "minissdpd (pid 812)", "a?[2Jb???? (pid 901)", " (pid 902)")
	want(5352, unseen)
	if err := os.Remove(filepath.Join(proc, "net", "udp")); err != nil {
		t.Fatal(err)
	}
	if _, err := usersIn(proc, 900, 1900); err == nil {
		t.Error("no table of sockets, and no error")
	}
}

// Issue 4, point 3 (check): another daemon on the port is named.
func TestUsers(t *testing.T) {
	newLAN(t, "lan0", 1)
	own := listenUDP(t, "lan0", 0)
	want := func(want ...string) {
		t.Helper()
		if got, err := Users(own.Port()); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	want()

	// Two programs that are given a socket, and wait for their input to end.
	hold := func(local string) *exec.Cmd {
		t.Helper()
		c, err := net.ListenPacket("udp", local)
		if err != nil {
			t.Fatal(err)
		}
		file, err := c.(*net.UDPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", "echo ready; read x")
		cmd.ExtraFiles = []*os.File{file}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("%q, %v", line, err)
		}
		_, _ = c.Close(), file.Close()
		return cmd
	}
	_ = own.Close() // its port may be taken by a socket of all devices now
	name := func(cmd *exec.Cmd) string { return fmt.Sprintf("sh (pid %d)", cmd.Process.Pid) }
	four := hold(fmt.Sprintf("10.1.0.1:%d", own.Port()))
	want(name(four))
	six := hold(fmt.Sprintf("[::1]:%d", own.Port()))
	both := []string{name(four), name(six)}
	if six.Process.Pid < four.Process.Pid { // pids began again
		slices.Reverse(both)
	}
	want(both...)
	again := listenUDP(t, "lan0", 0)
	if users, err := Users(again.Port()); len(users) != 0 || err != nil {
		t.Errorf("our own port: %q, %v", users, err)
	}
}

// FuzzProcNet: whatever the kernel prints, reading it ends, and a socket that is
// found is in a line with its port.
func FuzzProcNet(f *testing.F) {
	f.Add(fmt.Sprintf(igmp, "010000E0", "FAFFFFEF"))
	f.Add(udpHeadings + socketLine("00000000:076C", "07", "101"))
	f.Add("\t\n \n")
	f.Add("x\n\ty\n")
	f.Add(udpHeadings + "1: 0:076C 0:0 07 5 6 7 8 9\n")
	f.Fuzz(func(t *testing.T, table string) {
		if joinedIn(table, "br-lan", group) && (!strings.Contains(table, "br-lan") || !strings.Contains(table, "FAFFFFEF") && !strings.Contains(table, "EFFFFFFA")) {
			t.Errorf("%q has the group", table)
		}
		if name := printable(table); len(name) != len(table) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is a name", name)
		}
		for _, inode := range inodes(table, 1900) {
			if strings.ContainsAny(inode, " \n") || !strings.Contains(table, ":076C") {
				t.Errorf("inode %q of %q", inode, table)
			}
		}
	})
}
