package sock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Joined reports whether the router is a member of the IPv4 multicast group on
// the device, whichever program joined it. It reads /proc/net/igmp, which shows
// the network namespace of the process.
func Joined(dev string, group netip.Addr) (bool, error) {
	table, err := os.ReadFile("/proc/net/igmp")
	if err != nil {
		return false, fmt.Errorf("look for group %s on %s: %w", group, dev, err)
	}
	return joinedIn(string(table), dev, group), nil
}

// joinedIn reads a line for each device, with a line for each of its groups
// behind it, which begins with a tab. A group's four octets are printed as a
// number of the host's byte order.
func joinedIn(table, dev string, group netip.Addr) bool {
	if !group.Is4() {
		return false
	}
	octets, ours := group.As4(), false
	want := fmt.Sprintf("%08X", binary.NativeEndian.Uint32(octets[:]))
	for _, line := range strings.Split(table, "\n") {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case line[0] != '\t':
			ours = strings.TrimSuffix(f[1], ":") == dev
		case ours && f[0] == want:
			return true
		}
	}
	return false
}

// Users names the other processes that have an unconnected UDP socket on the
// port, IPv4 or IPv6, on whatever address and device, as "minissdpd (pid 812)",
// by ascending pid. Sockets whose owner cannot be seen, because he has privileges that
// we have given up or is in another container, are one "another program (netstat -lnup
// names it)" at the end. Only the network namespace of the process counts.
func Users(udpPort uint16) ([]string, error) {
	users, err := usersIn("/proc", os.Getpid(), udpPort)
	if err != nil {
		return nil, fmt.Errorf("look who has UDP port %d: %w", udpPort, err)
	}
	return users, nil
}

func usersIn(proc string, self int, port uint16) ([]string, error) {
	sockets := make(map[string]bool) // "socket:[INODE]"; true: its owner is seen
	for _, name := range []string{"/net/udp", "/net/udp6"} {
		table, err := os.ReadFile(proc + name)
		if errors.Is(err, fs.ErrNotExist) && name == "/net/udp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		for _, inode := range inodes(string(table), port) {
			sockets["socket:["+inode+"]"] = false
		}
	}
	if len(sockets) == 0 {
		return nil, nil
	}
	pids, err := names(proc)
	if err != nil {
		return nil, err
	}
	var users []string
	for _, pid := range pids {
		n, err := strconv.Atoi(pid)
		if err != nil || !owns(proc+"/"+pid+"/fd", sockets) || n == self {
			continue
		}
		comm, _ := os.ReadFile(proc + "/" + pid + "/comm")
		users = append(users, fmt.Sprintf("%s (pid %d)", printable(strings.TrimSuffix(string(comm), "\n")), n))
	}
	for _, seen := range sockets {
		if !seen {
			return append(users, "another program (netstat -lnup names it)"), nil
		}
	}
	return users, nil
}

// inodes finds the unconnected sockets on the port. The second column is the
// local address, the fourth the state, both in hexadecimal, the tenth the inode.
func inodes(table string, port uint16) []string {
	var found []string
	suffix := fmt.Sprintf(":%04X", port)
	for _, line := range strings.Split(table, "\n") {
		f := strings.Fields(line)
		if len(f) >= 10 && strings.HasSuffix(f[1], suffix) && f[3] == stateClose {
			found = append(found, f[9])
		}
	}
	return found
}

// names lists a directory of /proc, in the kernel's order: pids ascend.
func names(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// owns reports whether a descriptor in the directory is one of the sockets,
// and marks those. A process that just ended owns none.
func owns(dir string, sockets map[string]bool) bool {
	found := false
	fds, _ := names(dir)
	for _, fd := range fds {
		link, _ := os.Readlink(dir + "/" + fd)
		if _, ok := sockets[link]; ok {
			sockets[link], found = true, true
		}
	}
	return found
}

// printable makes a name that a process gave itself fit for a terminal.
func printable(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
