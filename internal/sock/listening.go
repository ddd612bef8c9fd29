package sock

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Socket states as proc(5) prints them in /proc/net/tcp and /proc/net/udp.
const (
	stateListen = "0A" // TCP_LISTEN
	stateClose  = "07" // TCP_CLOSE: a UDP socket that is not connected
)

// Ports knows the ports that the router itself uses. Its zero value is ready;
// it is for one goroutine at a time.
type Ports struct {
	slow bool // this kernel has no inet_diag, as OpenWrt's has by default none
}

// Listening reports whether the router itself has a socket on the port: TCP
// in state LISTEN, UDP not connected, IPv4 or IPv6 (which may be dual-stack),
// on whatever address. It asks sock_diag(7), or reads /proc/net, which shows the
// network namespace of the process. An error means that it is not known.
func (p *Ports) Listening(tcp bool, port uint16) (bool, error) {
	if !p.slow {
		found, err := diag(tcp, port)
		if err == nil {
			return found, nil
		}
		p.slow = errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL)
	}
	return listeningIn("/proc/net", tcp, port)
}

func listeningIn(dir string, tcp bool, port uint16) (bool, error) {
	name, state := "udp", stateClose
	if tcp {
		name, state = "tcp", stateListen
	}
	for _, name := range []string{name, name + "6"} {
		found, err := listeningFile(dir+"/"+name, state, port)
		if errors.Is(err, fs.ErrNotExist) && name[len(name)-1] == '6' {
			continue // a kernel without IPv6
		}
		if err != nil {
			return false, fmt.Errorf("look for sockets on port %d: %w", port, err)
		}
		if found {
			return true, nil
		}
	}
	return false, nil
}

func listeningFile(path, state string, port uint16) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	found, err := hasSocket(f, state, port)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return found, nil
}

// hasSocket reads a table of /proc/net up to the first socket in the state
// with the local port. The second column is the local address, the fourth the
// state, both in hexadecimal.
func hasSocket(table io.Reader, state string, port uint16) (bool, error) {
	suffix := fmt.Appendf(nil, ":%04X", port)
	r := bufio.NewReader(table)
	for n := 0; ; n++ {
		line, err := r.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return false, nil
		}
		if err != nil && err != io.EOF {
			return false, err
		}
		if n == 0 {
			continue // the headings
		}
		_, line = field(line)
		local, line := field(line)
		_, line = field(line)
		st, _ := field(line)
		if len(st) != len(state) {
			return false, fmt.Errorf("line %d is not a socket", n+1)
		}
		if bytes.HasSuffix(local, suffix) && string(st) == state {
			return true, nil
		}
	}
}

// field splits off the first word.
func field(line []byte) (word, rest []byte) {
	start := 0
	for start < len(line) && line[start] <= ' ' {
		start++
	}
	end := start
	for end < len(line) && line[end] > ' ' {
		end++
	}
	return line[start:end], line[end:]
}
