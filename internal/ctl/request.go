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
		words = []string{""}
	}
	r := &request{command: words[0], options: " " + strings.Join(words[1:], " ") + " "}
	known := ""
	switch r.command {
	case "list", "status":
		known = " json "
	case "check":
		known = " json live "
	case "log":
		known = " follow "
	case "export":
		known = " remote-host "
	case "flush":
	case "delete":
		return r, r.setTarget(words[1:])
	default:
		return nil, fmt.Errorf("unknown command %q; there are list, status, check, delete, flush, log and export", r.command)
	}
	for _, w := range words[1:] {
		if !strings.Contains(known, " "+w+" ") {
			return nil, fmt.Errorf("%s does not know %q", r.command, w)
		}
	}
	return r, nil
}

// setTarget reads what delete is to end.
func (r *request) setTarget(words []string) error {
	var err error
	switch len(words) {
	case 1:
		if r.client, err = netip.ParseAddr(words[0]); err != nil {
			return fmt.Errorf("%q is neither an address nor a protocol and a port", words[0])
		}
		return nil
	case 2:
		var ok bool
		if r.protocol, ok = portmap.ParseProtocol(words[0]); !ok {
			return fmt.Errorf("%q is not a protocol: TCP or UDP", words[0])
		}
		port, err := strconv.ParseUint(words[1], 10, 16)
		if err != nil || words[1][0] == '0' {
			return fmt.Errorf("%q is not a port: 1 to 65535", words[1])
		}
		r.port = uint16(port)
		return nil
	}
	return errors.New("delete needs a protocol and a port (delete TCP 8080), or a client (delete 192.168.1.2)")
}

// picks reports whether delete shall end the mapping.
func (r *request) picks(m *portmap.Mapping) bool {
	if r.client.IsValid() {
		return m.Client == r.client
	}
	return m.Protocol == r.protocol && m.ExternalPort == r.port
}
