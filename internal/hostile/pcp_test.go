package hostile

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// The numbers of RFC 6886, 6887 and 7753 that the tests name.
const (
	pcpPort                                    = 5351
	pcpMap, pcpPeer                            = 1, 2
	optThird, optPrefer, optFilter             = 1, 2, 3
	optDescription, optPortSet                 = 128, 130
	pcpOK, pcpNotAuthorized, pcpMalformed      = 0, 2, 3
	pcpUnsuppOption, pcpBadOption              = 5, 6
	pcpCannotProvide, pcpWrongAddress          = 11, 12
	protoTCP, protoUDP                    byte = 6, 17
)

// pcpAsk is a request of MAP, or with a peer, of PEER.
type pcpAsk struct {
	lifetime           uint32
	nonce              string // at most 12 bytes
	proto              byte
	internal, external uint16
	peer               netip.AddrPort
	options            []byte
}

// pcpHeader begins a request.
func pcpHeader(client netip.Addr, op byte, lifetime uint32) []byte {
	a := client.As16()
	return append(binary.BigEndian.AppendUint32([]byte{2, op, 0, 0}, lifetime), a[:]...)
}

// pcpMAP is the packet of a request for a client.
func pcpMAP(client netip.Addr, a pcpAsk) []byte {
	be, op := binary.BigEndian, byte(pcpMap)
	if a.peer.IsValid() {
		op = pcpPeer
	}
	var nonce [12]byte
	copy(nonce[:], a.nonce)
	b := append(append(pcpHeader(client, op, a.lifetime), nonce[:]...), a.proto, 0, 0, 0)
	b = be.AppendUint16(be.AppendUint16(b, a.internal), a.external)
	b = append(b, make([]byte, 16)...)
	if client.Unmap().Is4() {
		b[len(b)-6], b[len(b)-5] = 0xff, 0xff
	}
	if op == pcpPeer {
		remote := a.peer.Addr().As16()
		b = append(append(be.AppendUint16(b, a.peer.Port()), 0, 0), remote[:]...)
	}
	return append(b, a.options...)
}

// option is one, with its padding.
func option(code byte, data ...byte) []byte {
	b := append([]byte{code, 0, byte(len(data) >> 8), byte(len(data))}, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

func third(addr string) []byte {
	a := netip.MustParseAddr(addr).As16()
	return option(optThird, a[:]...)
}

// talk sends a datagram to the router from a host's address, and gives the answer,
// nil for none.
func talk(t testing.TB, h *lab.Host, from, router string, b []byte, wait time.Duration) []byte {
	t.Helper()
	c, err := h.ListenUDP(net.JoinHostPort(from, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteToUDPAddrPort(b, netip.AddrPortFrom(netip.MustParseAddr(router), pcpPort)); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(wait))
	answer := make([]byte, 2000)
	n, err := c.Read(answer)
	if err != nil {
		return nil
	}
	return answer[:n]
}

// pcpReply is what MAP or PEER got.
type pcpReply struct {
	result   byte
	external uint16
	ports    uint16 // of a PORT_SET, 1 without
	lifetime uint32
}

// pcp asks as the host that has the address.
func (p *peer) pcp(a pcpAsk) (r pcpReply) {
	p.t.Helper()
	return p.pcpRaw(pcpMAP(p.addr, a))
}

func (p *peer) pcpRaw(q []byte) (r pcpReply) {
	p.t.Helper()
	b := talk(p.t, p.host, p.addr.String(), p.router, q, patience)
	if len(b) < 24 || b[0] != 2 || b[1]&0x80 == 0 {
		p.t.Fatalf("%v: %x is answered by %x", p.addr, q, b)
	}
	r = pcpReply{result: b[3], lifetime: binary.BigEndian.Uint32(b[4:]), ports: 1}
	if len(b) < 60 {
		return r
	}
	r.external = binary.BigEndian.Uint16(b[42:])
	for o := b[60:]; len(o) >= 8 && b[1] == 0x80|pcpMap && b[3] == 0; {
		if o[0] == optPortSet {
			r.ports = binary.BigEndian.Uint16(o[4:])
		}
		o = o[min(len(o), 4+int(binary.BigEndian.Uint16(o[2:])+3)&^3):]
	}
	return r
}

// pmp maps by NAT-PMP; 0 seconds delete. It gives the result and the external port.
func (p *peer) pmp(proto byte, internal, external uint16, lifetime uint32) (result, got uint16) {
	p.t.Helper()
	be, op := binary.BigEndian, byte(1)
	if proto == protoTCP {
		op = 2
	}
	q := be.AppendUint32(be.AppendUint16(be.AppendUint16([]byte{0, op, 0, 0}, internal), external), lifetime)
	b := talk(p.t, p.host, p.addr.String(), p.router, q, patience)
	if len(b) != 16 || b[1] != 0x80|op {
		p.t.Fatalf("%v: %x is answered by %x", p.addr, q, b)
	}
	return be.Uint16(b[2:]), be.Uint16(b[10:])
}
