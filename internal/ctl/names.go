package ctl

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxLeaseFile = 64 << 10 // bytes of a file of dnsmasq's that are read
	maxHostName  = 63       // bytes: a label of DNS (RFC 1035, section 2.3.4)
)

// hostNames are the names of hosts by address and by MAC, as text.
type hostNames map[string]string

// names reads what dnsmasq knows. A host that has another address than the one
// leased to it is found by its MAC.
func (s *Server) names() hostNames {
	files := s.LeaseFiles
	if files == nil {
		files = []string{"/tmp/dhcp.leases", "/var/lib/misc/dnsmasq.leases"}
	}
	n := hostNames{}
	for _, path := range files {
		n.read(path)
	}
	for a, mac := range s.Daemon.Hardware() {
		n.add(a.String(), n[strings.ReplaceAll(fmt.Sprintf("% x", mac), " ", ":")])
	}
	return n
}

// read takes the lines of a file: expiry, MAC, address, name, client id. Others
// can write in /tmp: no pipe may stop us, and no file fill the memory.
func (n hostNames) read(path string) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return // most systems have but one of the files
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return
	}
	text := make([]byte, maxLeaseFile)
	size, _ := io.ReadFull(f, text)
	lines := strings.Split(string(text[:size]), "\n")
	for _, line := range lines[:len(lines)-1] { // the last may be cut
		if f := strings.Fields(line); len(f) >= 4 && f[3] != "*" {
			name := cut(string(appendEscaped(nil, f[3], false)), maxHostName)
			n.add(f[2], name)
			n.add(strings.ToLower(f[1]), name)
		}
	}
}

// add keeps the first name that a key is given.
func (n hostNames) add(key, name string) {
	if name != "" && n[key] == "" {
		n[key] = name
	}
}

// label is a host for people: its address, and its name if it has one.
func (n hostNames) label(a netip.Addr) string {
	s := a.String()
	if name := n[s]; name != "" {
		s += " (" + name + ")"
	}
	return s
}
