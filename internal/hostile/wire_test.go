package hostile

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// wire is a device of a host as a program with raw sockets has it: it sees all
// packets of IP, and sends any.
type wire struct {
	t     testing.TB
	fd    int
	index int

	mu   sync.Mutex
	seen [][]byte // packets that came, with their IP header
}

func htons(n uint16) int { return int(n>>8 | n<<8) }

// tap begins to see what comes to, or with out, also what leaves by a device.
func tap(t testing.TB, h *lab.Host, dev string, out bool) *wire {
	t.Helper()
	w := &wire{t: t}
	err := h.Do(func() error {
		d, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		w.index = d.Index
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, htons(unix.ETH_P_ALL)); err != nil {
			return err
		}
		unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000})
		unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: uint16(htons(unix.ETH_P_ALL)), Ifindex: w.index})
	})
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-stopped; unix.Close(w.fd) })
	go func() {
		defer close(stopped)
		for b := make([]byte, 1<<16); ; {
			n, from, err := unix.Recvfrom(w.fd, b, 0)
			select {
			case <-stop:
				return
			default:
			}
			l, ok := from.(*unix.SockaddrLinklayer)
			if err != nil || !ok || !out && l.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			if p := uint16(htons(l.Protocol)); p == unix.ETH_P_IP || p == unix.ETH_P_IPV6 {
				w.mu.Lock()
				w.seen = append(w.seen, append([]byte(nil), b[:n]...))
				w.mu.Unlock()
			}
		}
	}()
	return w
}

// taken gives the packets that came since it was last asked.
func (w *wire) taken() (all []packet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.seen {
		if p, ok := parse(b); ok {
			all = append(all, p)
		}
	}
	w.seen = nil
	return all
}

// send puts a packet on the wire to a station's MAC address.
func (w *wire) send(mac net.HardwareAddr, p packet) {
	w.t.Helper()
	to := &unix.SockaddrLinklayer{Protocol: uint16(htons(unix.ETH_P_IP)), Ifindex: w.index, Halen: 6}
	if p.src.Addr().Is6() {
		to.Protocol = uint16(htons(unix.ETH_P_IPV6))
	}
	copy(to.Addr[:], mac)
	if err := unix.Sendto(w.fd, p.bytes(), 0, to); err != nil {
		w.t.Errorf("%v to %v: %v", p.src, p.dst, err)
	}
}

// hardware gives a device's MAC address.
func hardware(t testing.TB, h *lab.Host, dev string) (mac net.HardwareAddr) {
	t.Helper()
	err := h.Do(func() error {
		d, err := net.InterfaceByName(dev)
		if err == nil {
			mac = d.HardwareAddr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// packet is a datagram of UDP or a segment of TCP; or, as it comes, an ICMP error
// about one, with the addresses of that.
type packet struct {
	src, dst netip.AddrPort
	proto    byte
	flags    byte   // of TCP
	body     []byte // of UDP
	icmp     string // "type 3 code 3"
	ttl      byte
	raw      []byte
}

const flagSYN, flagRST, flagACK = 2, 4, 16

// sum adds up for the checksum of RFC 1071.
func sum(n uint32, b []byte) uint32 {
	for i := 0; i+1 < len(b); i += 2 {
		n += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 != 0 {
		n += uint32(b[len(b)-1]) << 8
	}
	return n
}

func fold(n uint32) uint16 {
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return ^uint16(n)
}

// bytes is the packet with its IP header.
func (p packet) bytes() []byte {
	be := binary.BigEndian
	b := be.AppendUint16(be.AppendUint16(nil, p.src.Port()), p.dst.Port())
	at := 6 // of the checksum
	if p.proto == unix.IPPROTO_TCP {
		b, at = append(b, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, p.flags, 0xff, 0, 0, 0, 0, 0), 16
	} else {
		b = append(be.AppendUint16(b, uint16(8+len(p.body))), 0, 0)
		b = append(b, p.body...)
	}
	src, dst := p.src.Addr().AsSlice(), p.dst.Addr().AsSlice()
	be.PutUint16(b[at:], fold(sum(sum(sum(uint32(p.proto)+uint32(len(b)), src), dst), b)))
	if p.src.Addr().Is6() {
		ip := be.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(b)))
		return append(append(append(append(ip, p.proto, 255), src...), dst...), b...)
	}
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, p.proto, 0, 0}
	be.PutUint16(ip[2:], uint16(20+len(b)))
	ip = append(append(ip, src...), dst...)
	be.PutUint16(ip[10:], fold(sum(0, ip)))
	return append(ip, b...)
}

// parse reads a packet that came.
func parse(b []byte) (p packet, ok bool) {
	var proto byte
	var rest []byte
	var src, dst netip.Addr
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		n := int(b[0]&15) * 4
		if len(b) < n {
			return p, false
		}
		proto, p.ttl, rest = b[9], b[8], b[n:]
		src, dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	case len(b) >= 40 && b[0]>>4 == 6:
		proto, p.ttl, rest = b[6], b[7], b[40:]
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	default:
		return p, false
	}
	p.raw, p.proto = b, proto
	if len(rest) < 8 {
		return p, true
	}
	switch proto {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		p.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(rest))
		p.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(rest[2:]))
		if proto == unix.IPPROTO_UDP {
			p.body = rest[8:]
		} else if len(rest) >= 20 {
			p.flags = rest[13]
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		about, ok := parse(rest[8:])
		if ok && (proto == unix.IPPROTO_ICMP && rest[0] == 3 || proto == unix.IPPROTO_ICMPV6 && rest[0] == 1) {
			p.icmp = fmt.Sprintf("type %d code %d from %v", rest[0], rest[1], src)
			p.src, p.dst, p.proto = about.dst, about.src, about.proto // as an answer has them
		}
	}
	return p, true
}
