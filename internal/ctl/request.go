package ctl

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// maxRequest is the longest request line, in bytes, with its end.
const maxRequest = 256

// grammar has a command and its options in each line.
const grammar = "list json\nstatus json\ncheck json live\ndelete\nflush\nlog follow\nexport remote-host"

// request is what a line asks for.
type request struct {
	command string
	options string // the words after it, each with a space on both sides

	// Which mappings delete ends: those of a port, or with a valid client those
	// of a host.
	protocol portmap.Protocol
	port     uint16
	client   netip.Addr
}

// has reports whether an option was given.
func (r *request) has(option string) bool { return strings.Contains(r.options, " "+option+" ") }

// parseRequest reads a request line.
func parseRequest(line string) (*request, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return nil, errUnknown
	}
	r := &request{command: words[0], options: " " + strings.Join(words[1:], " ") + " "}
	if r.command == "delete" {
		return r, r.setTarget(words[1:])
	}
	for _, known := range strings.Split(grammar, "\n") {
		if known += " "; strings.HasPrefix(known, r.command+" ") {
			for _, w := range words[1:] {
				if !strings.Contains(known, " "+w+" ") {
					return nil, fmt.Errorf("%s does not know %q", r.command, w)
				}
			}
			return r, nil
		}
	}
	return nil, fmt.Errorf("unknown command %q: %w", r.command, errUnknown)
}

var (
	errUnknown = errors.New("the commands are list, status, check, delete, flush, log and export")
	errTarget  = errors.New("delete needs TCP or UDP and a port (delete TCP 8080), or the address of a client (delete 192.168.1.2)")
)

// setTarget reads what delete is to end.
func (r *request) setTarget(words []string) error {
	var err error
	switch len(words) {
	case 1:
		if r.client, err = netip.ParseAddr(words[0]); err == nil {
			return nil
		}
	case 2:
		protocol, ok := portmap.ParseProtocol(words[0])
		port, err := strconv.ParseUint(words[1], 10, 16)
		if r.protocol, r.port = protocol, uint16(port); ok && err == nil && words[1][0] != '0' {
			return nil
		}
	}
	return errTarget
}

// picks reports whether delete shall end the mapping.
func (r *request) picks(m *portmap.Mapping) bool {
	if r.client.IsValid() {
		return m.Client == r.client
	}
	return m.Protocol == r.protocol && r.port-m.ExternalPort < ports(m) // of a PORT_SET, any
}
