package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// replyTimeout bounds every single wait of a client for a connection or its
	// data, answerTimeout that for the answer to a search.
	replyTimeout, answerTimeout = 10 * time.Second, 2 * time.Second
	// maxReply is far more than any reply that is asked for here.
	maxReply = 256 << 10

	gateway = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
	wanIP   = "urn:schemas-upnp-org:service:WANIPConnection:"
)

// The functions of this file use blocking system calls of the thread that they
// are called on, so that no scheduler of ours is in what they measure. The
// thread must be on the client's host: call them inside lab.Host.Do.

// open makes a socket whose waits are bounded.
func open(kind int, timeout time.Duration) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open a socket: %w", err)
	}
	limit := unix.NsecToTimeval(int64(timeout))
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("set a socket's timeout: %w", err)
		}
	}
	return fd, nil
}

// connect opens a TCP connection from an address of the host; the zero Addr
// leaves it to the kernel.
func connect(from netip.Addr, to netip.AddrPort) (int, error) {
	fd, err := open(unix.SOCK_STREAM, replyTimeout)
	if err != nil {
		return -1, err
	}
	if from.IsValid() {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0))); err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("bind to %s: %w", from, err)
		}
	}
	err = unix.Connect(fd, sockaddr(to))
	if err == unix.EINTR {
		err = connected(fd) // the kernel goes on connecting
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("connect to %s: %w", to, err)
	}
	return fd, nil
}

// connected waits for a connection that a signal has interrupted.
func connected(fd int) error {
	for range 10 {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(replyTimeout.Milliseconds()))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.ETIMEDOUT
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		return err
	}
	return unix.EINTR
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
}

// exchange sends one request over a connection of its own and reads until the
// server closes it. took is from before connect to the end of the reply.
func exchange(from netip.Addr, to netip.AddrPort, request string) (reply []byte, took time.Duration, err error) {
	start := time.Now()
	fd, err := connect(from, to)
	if err != nil {
		return nil, 0, err
	}
	defer reset(fd)
	if n, err := unix.Write(fd, []byte(request)); err != nil || n != len(request) {
		return nil, 0, fmt.Errorf("send %d of %d bytes to %s: %w", n, len(request), to, errors.Join(err, io.ErrShortWrite))
	}
	buf := make([]byte, 16<<10)
	for len(reply) < maxReply {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return reply, 0, fmt.Errorf("read the reply of %s: %w", to, err)
		case n == 0:
			return reply, time.Since(start), nil
		default:
			reply = append(reply, buf[:n]...)
		}
	}
	return reply, 0, fmt.Errorf("the reply of %s has no end", to)
}

// reset closes a connection so that no TIME_WAIT stays behind. Thousands of
// them, of other requests, would burden whoever reads the router's sockets.
func reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd) // all that was wanted has been read
}

// search sends an M-SEARCH for a gateway and waits for the first answer.
func search(to netip.AddrPort) (answer string, took time.Duration, err error) {
	fd, err := open(unix.SOCK_DGRAM, answerTimeout)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = unix.Close(fd) }() // nothing is lost with it
	request := "M-SEARCH * HTTP/1.1\r\nHOST: " + to.String() + "\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: " + gateway + "\r\n\r\n"
	start := time.Now()
	if err := unix.Sendto(fd, []byte(request), 0, sockaddr(to)); err != nil {
		return "", 0, fmt.Errorf("search at %s: %w", to, err)
	}
	buf := make([]byte, 4096)
	for range 3 {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == nil {
			return string(buf[:n]), time.Since(start), nil
		}
		if err != unix.EINTR {
			return "", 0, fmt.Errorf("no answer to a search at %s: %w", to, err)
		}
	}
	return "", 0, errors.New("a search was interrupted again and again")
}

// setUp is how long it takes to open a connection to a mapped port.
func setUp(to netip.AddrPort) (time.Duration, error) {
	start := time.Now()
	fd, err := connect(netip.Addr{}, to)
	took := time.Since(start)
	if err != nil {
		return 0, err
	}
	reset(fd)
	return took, nil
}

// service is where a daemon takes actions on port mappings.
type service struct {
	addr netip.AddrPort
	path string
	urn  string     // WANIPConnection with the version that the description names
	from netip.Addr // who calls; the zero Addr is lan1
}

// discover finds the service as a control point does: search, description.
func discover(router netip.AddrPort) (service, error) {
	answer, _, err := search(router)
	if err != nil {
		return service{}, err
	}
	_, after, _ := strings.Cut(strings.ToUpper(answer), "\r\nLOCATION:")
	location, _, _ := strings.Cut(answer[len(answer)-len(after):], "\r\n")
	host, path, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(location), "http://"), "/")
	addr, err := netip.ParseAddrPort(host)
	if err != nil || !found {
		return service{}, fmt.Errorf("no usable LOCATION in %q", answer)
	}
	reply, _, err := exchange(netip.Addr{}, addr, "GET /"+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	if err != nil {
		return service{}, err
	}
	_, rest, _ := strings.Cut(string(reply), wanIP)
	version, rest, _ := strings.Cut(rest, "<")
	_, rest, _ = strings.Cut(rest, "<controlURL>")
	control, _, found := strings.Cut(rest, "</controlURL>")
	if !found {
		return service{}, fmt.Errorf("no WANIPConnection in the description at %s:\n%s", location, reply)
	}
	return service{addr: addr, path: control, urn: wanIP + version}, nil
}

// soapFault is a UPnP error code in a reply.
type soapFault int

func (f soapFault) Error() string { return "UPnP error " + strconv.Itoa(int(f)) }

// outOfRange is what GetGenericPortMappingEntry answers behind the last entry.
const outOfRange soapFault = 713

// call sends one action; arguments are names and values by turns.
func (s service) call(action string, arguments ...string) (reply []byte, took time.Duration, err error) {
	var body strings.Builder
	body.WriteString(`<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ` +
		`s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:` + action + ` xmlns:u="` + s.urn + `">`)
	for i := 0; i < len(arguments); i += 2 {
		body.WriteString("<" + arguments[i] + ">" + arguments[i+1] + "</" + arguments[i] + ">")
	}
	body.WriteString("</u:" + action + "></s:Body></s:Envelope>\r\n")
	request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nContent-Length: %d\r\n"+
		"Content-Type: text/xml\r\nSOAPAction: \"%s#%s\"\r\nConnection: close\r\n\r\n%s",
		s.path, s.addr, body.Len(), s.urn, action, body.String())
	reply, took, err = exchange(s.from, s.addr, request)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", action, err)
	}
	if bytes.HasPrefix(reply, []byte("HTTP/1.1 200 ")) {
		return reply, took, nil
	}
	if _, after, found := bytes.Cut(reply, []byte("<errorCode>")); found {
		digits, _, _ := bytes.Cut(after, []byte("<"))
		if code, err := strconv.Atoi(string(digits)); err == nil {
			return reply, took, fmt.Errorf("%s: %w", action, soapFault(code))
		}
	}
	return reply, took, fmt.Errorf("%s: unexpected reply %q", action, reply)
}
