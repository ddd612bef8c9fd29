package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// pcpPort takes both NAT-PMP (RFC 6886) and PCP (RFC 6887).
const pcpPort = 5351

// hosts are how many ask by NAT-PMP and PCP. upnpd answers 250 requests a second
// of one host and 1000 of all: four may ask all that it gives.
const hosts = 4

// asker is one of them: an address of its own on lan1, with one socket, so that
// only the requests are measured.
type asker struct {
	addr netip.Addr
	fd   int
}

// newAskers gives lan1 more addresses, with a socket on each.
func (r *router) newAskers(ctx context.Context) error {
	addr := netip.MustParseAddr(lab.LAN1Addr)
	for range hosts {
		addr = addr.Next()
		cmd := r.lab.LAN1.Command(ctx, "ip", "addr", "add", addr.String()+"/24", "dev", lab.HostDev)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("give lan1 the address %v: %w: %s", addr, err, out)
		}
		a := &asker{addr: addr}
		if err := r.lab.LAN1.Do(func() error { return a.open(r.lab.Router.Addr) }); err != nil {
			return err
		}
		r.askers = append(r.askers, a)
	}
	return nil
}

func (a *asker) open(router netip.Addr) (err error) {
	if a.fd, err = open(unix.SOCK_DGRAM, answerTimeout); err != nil {
		return err
	}
	err = unix.Bind(a.fd, sockaddr(netip.AddrPortFrom(a.addr, 0)))
	if err == nil {
		err = unix.Connect(a.fd, sockaddr(netip.AddrPortFrom(router, pcpPort)))
	}
	if err != nil {
		_ = unix.Close(a.fd)
		return fmt.Errorf("open a socket of %v: %w", a.addr, err)
	}
	return nil
}

// send sends one request. Nothing is ever sent again: a request that gets no
// answer ends the run, so none that a daemon has dropped can be in the figures.
func (a *asker) send(request []byte) error {
	if _, err := unix.Write(a.fd, request); err != nil {
		return fmt.Errorf("send a request of %v: %w", a.addr, err)
	}
	return nil
}

// receive waits for the answer to a request.
func (a *asker) receive(request, buf []byte) error {
	for range 10 {
		n, err := unix.Read(a.fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("no answer to request %x of %v: %w", request, a.addr, err)
		}
		return answers(request, buf[:n])
	}
	return unix.EINTR
}

// ask sends one request and waits for its answer.
func (a *asker) ask(request []byte) (time.Duration, error) {
	buf := make([]byte, 2048)
	start := time.Now()
	if err := a.send(request); err != nil {
		return 0, err
	}
	err := a.receive(request, buf)
	return time.Since(start), err
}

// burst lets all askers send their requests at the same time, each the next one
// as soon as it has the answer to the one before. Each has at least one.
func burst(askers []*asker, requests [][][]byte) (time.Duration, error) {
	const patience = 20 // interrupted waits for each request
	left, waiting, buf := 0, make([]unix.PollFd, len(askers)), make([]byte, 2048)
	start := time.Now()
	for i, a := range askers {
		waiting[i] = unix.PollFd{Fd: int32(a.fd), Events: unix.POLLIN}
		left += len(requests[i])
		if err := a.send(requests[i][0]); err != nil {
			return 0, err
		}
	}
	for range patience * left {
		n, err := unix.Poll(waiting, int(answerTimeout.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = unix.ETIMEDOUT
		}
		if err != nil {
			return 0, fmt.Errorf("no answer to %d requests: %w", left, err)
		}
		for i, a := range askers {
			if waiting[i].Revents == 0 {
				continue
			}
			if err := a.receive(requests[i][0], buf); err != nil {
				return 0, err
			}
			left--
			if requests[i] = requests[i][1:]; len(requests[i]) == 0 {
				waiting[i].Fd = -1 // poll leaves it out
			} else if err := a.send(requests[i][0]); err != nil {
				return 0, err
			}
		}
		if left == 0 {
			return time.Since(start), nil
		}
	}
	return 0, fmt.Errorf("%d requests without an answer: %w", left, unix.EINTR)
}

const (
	answered  = 0x80 // in the second byte of an answer
	mapTCP    = 2    // opcode of NAT-PMP
	opMap     = 1    // opcode of PCP
	headerLen = 24   // of PCP
	nonce     = "bench bench "
)

// natpmpMap asks for a TCP port by NAT-PMP (RFC 6886, section 3.3), for no
// seconds to delete it.
func natpmpMap(_ netip.Addr, port uint16, seconds uint32) []byte {
	suggested := port
	if seconds == 0 {
		suggested = 0
	}
	p := binary.BigEndian.AppendUint16([]byte{0, mapTCP, 0, 0}, port)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(p, suggested), seconds)
}

// natpmpAddress asks for the external address (section 3.2).
func natpmpAddress(netip.Addr) []byte { return []byte{0, 0} }

// pcpMap asks for a TCP port by PCP (RFC 6887, section 11.1), for no seconds to
// delete it.
func pcpMap(from netip.Addr, port uint16, seconds uint32) []byte {
	any4 := netip.IPv4Unspecified().As16()
	p := append(pcpHeader(opMap, from, seconds), nonce...)
	p = append(p, unix.IPPROTO_TCP, 0, 0, 0)
	p = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(p, port), port)
	return append(p, any4[:]...)
}

// pcpAnnounce asks whether the router is there (section 14.1).
func pcpAnnounce(from netip.Addr) []byte { return pcpHeader(0, from, 0) }

func pcpHeader(op byte, from netip.Addr, seconds uint32) []byte {
	a := from.As16()
	return append(binary.BigEndian.AppendUint32([]byte{2, op, 0, 0}, seconds), a[:]...)
}

// answers checks that reply says yes to a request, with the port asked for.
func answers(request, reply []byte) error {
	wrong := fmt.Errorf("unexpected answer %x to %x", reply, request)
	if len(reply) < 8 || reply[0] != request[0] || reply[1] != request[1]|answered || reply[3] != 0 {
		return wrong
	}
	external := netip.MustParseAddr(lab.WANAddr)
	switch {
	case request[0] == 0 && request[1] == 0:
		if len(reply) != 12 || string(reply[8:]) != string(external.AsSlice()) {
			return wrong
		}
	case request[0] == 0:
		if len(reply) != 16 || string(reply[8:12]) != string(request[4:8]) || !alike(reply[12:], request[8:12]) {
			return wrong
		}
	case request[1] == opMap:
		if len(reply) != len(request) || string(reply[headerLen:42]) != string(request[headerLen:42]) || !alike(reply[4:8], request[4:8]) {
			return wrong
		}
		a := external.As16()
		if given := string(reply[42:]); !alike(request[4:8], []byte{0}) && given != string(request[42:44])+string(a[:]) {
			return wrong
		}
	}
	return nil
}

// alike says whether two lifetimes are both zero or both not: those granted may
// be others than those asked for.
func alike(a, b []byte) bool { return zero(a) == zero(b) }

func zero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
