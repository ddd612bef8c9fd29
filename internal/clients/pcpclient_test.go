package clients

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// The numbers of RFC 6887 that the tests name.
const (
	pcpAnnounce, pcpMap                      = 0, 1
	pcpThirdParty, pcpPrefer, pcpFilter      = 1, 2, 3
	pcpDescription, pcpPortSet               = 128, 130
	pcpOK, pcpVersion, pcpNotAuthorized      = 0, 1, 2
	pcpMalformed, pcpOpcode, pcpOption       = 3, 4, 5
	pcpBadOption, pcpNetwork                 = 6, 7
	pcpProtocol, pcpQuota                    = 9, 10
	pcpCannotProvide, pcpWrong               = 11, 12
	pcpExcessive                             = 13
	pcpPort, announcePort                    = 5351, 5350
	udpNumber, tcpNumber                byte = 17, 6
)

// pcpHost is a host as a PCP client: a socket and a codec written from the RFC, which
// has nothing of the daemon's.
type pcpHost struct {
	t      testing.TB
	conn   *net.UDPConn
	addr   netip.Addr
	router netip.AddrPort
	nonce  [12]byte // of its requests, unless another is given
}

// pcpFrom opens a socket on an address of a host; requests go to the router's address.
func pcpFrom(t testing.TB, h *lab.Host, from, router string) *pcpHost {
	t.Helper()
	p := &pcpHost{t: t, addr: netip.MustParseAddr(from), router: netip.AddrPortFrom(netip.MustParseAddr(router), pcpPort)}
	c, err := h.ListenUDP(netip.AddrPortFrom(p.addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	p.conn = c
	copy(p.nonce[:], from+"............")
	return p
}

// ask is a request of MAP, or with another opcode the header of one.
type ask struct {
	lifetime  uint32
	proto     byte
	internal  uint16
	external  uint16
	suggested string // an address
	options   []byte
}

// option is one, with its padding.
func option(code byte, data ...byte) []byte {
	b := append([]byte{code, 0, byte(len(data) >> 8), byte(len(data))}, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

// filterOption is FILTER with a prefix, of which an IPv4 one is counted from 96 on.
func filterOption(prefix string, port uint16) []byte {
	p := netip.MustParsePrefix(prefix)
	bits, a := p.Bits(), p.Addr().As16()
	if p.Addr().Is4() {
		bits += 96
	}
	return option(pcpFilter, append([]byte{0, byte(bits), byte(port >> 8), byte(port)}, a[:]...)...)
}

// header begins a request with an opcode.
func (p *pcpHost) header(op byte, lifetime uint32) []byte {
	a := p.addr.As16()
	b := append([]byte{2, op, 0, 0}, binary.BigEndian.AppendUint32(nil, lifetime)...)
	return append(b, a[:]...)
}

// request is the packet for an ask.
func (p *pcpHost) request(a ask) []byte {
	b := append(p.header(pcpMap, a.lifetime), p.nonce[:]...)
	b = append(b, a.proto, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, a.internal)
	b = binary.BigEndian.AppendUint16(b, a.external)
	var suggested [16]byte
	if a.suggested != "" {
		suggested = netip.MustParseAddr(a.suggested).As16()
	}
	return append(append(b, suggested[:]...), a.options...)
}

// answer is a response of MAP; of others it is the header and the rest in raw.
type answer struct {
	result   byte
	lifetime uint32
	epoch    uint32
	external uint16
	addr     netip.Addr
	options  map[byte][]byte
	raw      []byte
}

// parse reads a response, and checks what holds for all of them.
func (p *pcpHost) parse(b []byte) (a answer) {
	p.t.Helper()
	if len(b) < 24 || len(b)%4 != 0 || len(b) > 1100 || b[0] != 2 || b[1]&0x80 == 0 || b[2] != 0 {
		p.t.Fatalf("no response of PCP: %x", b)
	}
	a = answer{result: b[3], lifetime: binary.BigEndian.Uint32(b[4:]), epoch: binary.BigEndian.Uint32(b[8:]), raw: b}
	if b[1] != 0x80|pcpMap || len(b) < 60 {
		return a
	}
	a.external, a.addr = binary.BigEndian.Uint16(b[42:]), netip.AddrFrom16([16]byte(b[44:])).Unmap()
	a.options = map[byte][]byte{}
	for rest := b[60:]; len(rest) >= 4; {
		n := int(binary.BigEndian.Uint16(rest[2:]))
		if len(rest) < 4+n {
			break // an error gives back what was wrong
		}
		a.options[rest[0]] = rest[4 : 4+n]
		rest = rest[min(len(rest), 4+(n+3)&^3):]
	}
	return a
}

// exchange sends a packet, and gives what comes back.
func (p *pcpHost) exchange(b []byte) []byte {
	p.t.Helper()
	answer, err := p.tell(b, patience)
	if err != nil {
		p.t.Fatalf("%v: no answer to %x: %v", p.addr, b, err)
	}
	return answer
}

// tell sends a packet; the error says that nothing came back, or a refusal.
func (p *pcpHost) tell(b []byte, timeout time.Duration) ([]byte, error) {
	p.t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort(b, p.router); err != nil {
		p.t.Fatal(err)
	}
	return p.next(timeout)
}

// next waits for a packet from the router's address that requests go to (ANN-5).
func (p *pcpHost) next(timeout time.Duration) ([]byte, error) {
	p.t.Helper()
	buf := make([]byte, 2000)
	p.conn.SetReadDeadline(time.Now().Add(timeout))
	n, from, err := p.conn.ReadFromUDPAddrPort(buf)
	if err == nil && netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != p.router {
		p.t.Errorf("%v: answered by %v, asked %v", p.addr, from, p.router)
	}
	return buf[:n], err
}

// try asks, and gives the response.
func (p *pcpHost) try(a ask) answer {
	p.t.Helper()
	q := p.request(a)
	r := p.parse(p.exchange(q))
	if r.raw[1] != 0x80|pcpMap || !slices.Equal(r.raw[24:42], q[24:42]) { // MAP-2
		p.t.Fatalf("the response to %x is %x", q, r.raw)
	}
	return r
}

// want asks, and checks the result.
func (p *pcpHost) want(result byte, a ask) answer {
	p.t.Helper()
	r := p.try(a)
	if r.result != result {
		p.t.Errorf("%v, %+v: result %d, want %d", p.addr, a, r.result, result)
	}
	return r
}

// mapped maps, and checks the external port and the lifetime.
func (p *pcpHost) mapped(external uint16, a ask) answer {
	p.t.Helper()
	r := p.want(pcpOK, a)
	if r.external != external || r.lifetime != a.lifetime {
		p.t.Errorf("%v, %+v: port %d for %d s, want %d for %d s", p.addr, a, r.external, r.lifetime, external, a.lifetime)
	}
	return r
}

// gone deletes, and checks the response.
func (p *pcpHost) gone(proto byte, internal uint16) {
	p.t.Helper()
	if r := p.want(pcpOK, ask{proto: proto, internal: internal}); r.lifetime != 0 {
		p.t.Errorf("%v: deleted for %d s", p.addr, r.lifetime)
	}
}

// another is the same client with another nonce.
func (p *pcpHost) another() *pcpHost {
	q := *p
	q.nonce[11]++
	return &q
}

// heard is what a host was told unasked.
type heard struct {
	at   time.Time
	from netip.AddrPort
	b    []byte
}

// kernelTime is when a packet came, which its reader may be late to see.
func kernelTime(oob []byte) time.Time {
	all, err := syscall.ParseSocketControlMessage(oob)
	if err != nil || len(all) == 0 || len(all[0].Data) < 16 {
		return time.Time{}
	}
	at := all[0].Data // a struct timeval
	return time.Unix(int64(binary.NativeEndian.Uint64(at)), 1000*int64(binary.NativeEndian.Uint64(at[8:])))
}

// eavesdrop hears what comes to the port of clients (PMP-6, ANN-2). The kernel has
// each host in the groups of all nodes.
func eavesdrop(t testing.TB, h *lab.Host) <-chan heard {
	t.Helper()
	all := make(chan heard, 1000)
	for _, network := range []string{"udp4", "udp6"} {
		var c *net.UDPConn
		err := h.Do(func() (err error) {
			if c, err = net.ListenUDP(network, &net.UDPAddr{Port: announcePort}); err != nil {
				return err
			}
			raw, err := c.SyscallConn()
			if err != nil {
				return err
			}
			var failed error
			err = raw.Control(func(fd uintptr) {
				failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TIMESTAMP, 1)
			})
			return errors.Join(err, failed)
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			for {
				b, oob := make([]byte, 2000), make([]byte, 100)
				n, size, _, from, err := c.ReadMsgUDPAddrPort(b, oob)
				if err != nil {
					return
				}
				all <- heard{kernelTime(oob[:size]), netip.AddrPortFrom(from.Addr().WithZone(""), from.Port()), b[:n]}
			}
		}()
	}
	return all
}
