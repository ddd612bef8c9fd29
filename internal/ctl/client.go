package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/sock"
)

// answerTimeout is how long upnpctl waits for an answer; check --live takes
// seconds, and other clients may come first.
const answerTimeout = time.Minute

const usage = `Usage: upnpctl [--socket PATH] COMMAND
Shows and ends the port mappings of the upnpd that runs here.

  list [--json]            the mappings
  status [--json]          uplink, firewall, LANs, quotas, the last refusals
  check [--live] [--json]  find what keeps mapped ports from working; --live
                           also sends a packet through a temporary mapping.
                           Exit code 0: all is well, 1: warnings, 2: failures
  delete PROTO PORT        end the mappings of a port: delete TCP 8080
  delete CLIENT            end all mappings of a LAN host: delete 192.168.1.2
  flush                    end all mappings
  log [-f]                 the last 200 decisions: who asked for what, granted
                           or refused and why; -f, --follow: and those to come
  export [--remote-host]   the mappings as miniupnpd's lease file; with the
                           remote host in its newer form

      --socket PATH        ask at PATH instead of ` + DefaultSocket + `
  -h, --help               show this
`

var errHelp = errors.New("help is wanted")

// Run is upnpctl. args are without the name of the program; the result is the
// exit code: that of the daemon's reply, or 2.
func Run(args []string, stdout, stderr io.Writer) int {
	code, err := run(args, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "upnpctl: %v\n", err)
		return 2
	}
	return code
}

func run(args []string, stdout, stderr io.Writer) (code int, err error) {
	path, line, err := parseArgs(args)
	if err == errHelp {
		_, err = io.WriteString(stdout, usage)
		return 0, err
	}
	var r *request
	if err == nil {
		r, err = parseRequest(line)
	}
	if err == nil && len(line) >= maxRequest {
		err = errors.New("these words are too long")
	}
	if err != nil {
		return 2, fmt.Errorf("%w; see upnpctl --help", err)
	}
	c, err := ask(path, line)
	if err != nil {
		return 2, err
	}
	defer c.Close()
	return r.show(c, stdout, stderr)
}

// parseArgs makes the request line, or says errHelp. An option is a word of the
// request, after the others.
func parseArgs(args []string) (path, line string, err error) {
	path = DefaultSocket
	options := ""
	for i := 0; i < len(args); i++ {
		a := args[i]
		name, long := strings.CutPrefix(a, "--")
		value, set := strings.CutPrefix(name, "socket=")
		switch {
		case a == "-h" || long && name == "help":
			return "", "", errHelp
		case a == "-f":
			options += " follow"
		case long && set:
			path = value
		case long && name == "socket" && i+1 < len(args):
			i++
			path = args[i]
		case long:
			options += " " + name
		default:
			line += " " + a
		}
	}
	return path, strings.Join(strings.Fields(line+options), " "), nil
}

// ask connects to the daemon and sends the request.
func ask(path, line string) (*sock.UnixConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	c, err := sock.DialUnix(ctx, path)
	switch {
	case err == nil:
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("upnpd is not running (%w): start it with `/etc/init.d/upnpd start` or `systemctl start upnpd`, or name its socket with --socket", err)
	case errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("%w: run upnpctl as root", err)
	default:
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := c.Write([]byte(line + "\n")); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("ask upnpd: %w", err)
	}
	return c, nil
}

// show prints the reply as it comes and gives its exit code. What is not a report
// but a refusal goes to stderr.
func (r *request) show(c *sock.UnixConn, stdout, stderr io.Writer) (code int, err error) {
	buf := make([]byte, 4096)
	n, end := 0, -1
	for end < 0 {
		k, err := c.Read(buf[n:])
		n += k
		if end = bytes.IndexByte(buf[:n], '\n'); end < 0 && (err != nil || n == len(buf)) {
			return 2, fmt.Errorf("upnpd gave no answer: %w", err)
		}
	}
	code, err = strconv.Atoi(string(buf[:end]))
	if err != nil || code < 0 || code > 255 {
		return 2, errors.New("what answers there is not upnpd")
	}
	if r.has("follow") {
		_ = c.SetDeadline(time.Time{})
	}
	out, text := stdout, buf[end+1:n]
	if code != 0 && r.command != "check" {
		out = stderr
		text = append([]byte("upnpctl: "), text...)
	}
	for {
		if _, err := out.Write(text); err != nil {
			return 2, err
		}
		n, err := c.Read(buf)
		switch text = buf[:n]; {
		case err == nil:
		case !errors.Is(err, io.EOF):
			return 2, fmt.Errorf("the answer is cut: %w", err)
		case code == 0 && r.has("follow"):
			return 2, errors.New("upnpd has ended, or this was too slow for it")
		default:
			return code, nil
		}
	}
}
