package soak

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// The numbers of RFC 6887 and its options that are used here.
const (
	opMap, opPeer                 = 1, 2
	optPrefer, optFilter          = 2, 3
	optDescription, optPortSet    = 128, 130
	noAddress, noResources        = 7, 8 // NETWORK_FAILURE, while the uplink is away
	pcpPort                       = 5351
	mapLen, peerLen, optionHeader = 60, 80, 4
	answerPatience, askAgain      = 5 * time.Second, 4
)

// exchange sends a request from a socket of its own, so that nothing else comes
// there, and gives the answer: nil is a fault.
func (c *client) exchange(b []byte) []byte {
	conn, err := c.dial("udp", hostPort(map[bool]string{true: lab.RouterLANAddr6, false: lab.RouterLANAddr}[c.addr.Is6()], pcpPort))
	if err != nil {
		c.w.fault("%v: %v", c.addr, err)
		return nil
	}
	defer conn.Close()
	answer := make([]byte, 1200)
	for range askAgain {
		_, _ = conn.Write(b)
		_ = conn.SetReadDeadline(time.Now().Add(answerPatience))
		for {
			n, err := conn.Read(answer)
			if err != nil {
				break
			}
			if answers(b, answer[:n]) {
				return answer[:n]
			}
		}
	}
	c.w.fault("%v: no answer to %x", c.addr, b)
	return nil
}

// answers reports whether a packet answers the request. Another one may be for what had
// this port before, garbage.
func answers(b, packet []byte) bool {
	if len(packet) < 8 || packet[0] != b[0] || packet[1] != b[1]|0x80 {
		return false
	}
	return b[0] == 0 || len(packet) < 36 || len(b) < 36 || bytes.Equal(packet[24:36], b[24:36])
}

func number(proto string) byte { return map[string]byte{"TCP": 6, "UDP": 17}[proto] }

// pmp is a request of NAT-PMP. It gives the result code and what is granted.
func (c *client) pmp(proto string, internal, external uint16, lifetime uint32) (result byte, got uint16, seconds uint32) {
	b := []byte{0, 0, 0, 0}
	if b[1] = 2; proto == "UDP" {
		b[1] = 1
	}
	b = binary.BigEndian.AppendUint16(b, internal)
	b = binary.BigEndian.AppendUint16(b, external)
	b = binary.BigEndian.AppendUint32(b, lifetime)
	a := c.exchange(b)
	if len(a) != 16 || !bytes.Equal(a[8:10], b[4:6]) {
		c.w.fault("%v: NAT-PMP: the answer to %x is %x", c.addr, b, a)
		return 255, 0, 0
	}
	return a[3], binary.BigEndian.Uint16(a[10:]), binary.BigEndian.Uint32(a[12:])
}

func (c *client) pmpMap() (string, bool) {
	proto, internal, external := c.proto(), c.pcpInside(), pick(c.rng, 0, c.outside())
	if c.shaky(proto, internal, 1) {
		return "not asked", false
	}
	asked := time.Now()
	result, got, seconds := c.pmp(proto, internal, external, uint32(c.wish()))
	said := fmt.Sprintf("result %d: %s %d to %d for %d s", result, proto, got, internal, seconds)
	if result != 0 {
		return said, false
	}
	l, renewed := c.find(proto, internal, "NAT-PMP")
	if !renewed {
		for _, o := range c.held { // PMP-8
			if o.enabled && o.covers(proto, internal) && !o.over() {
				if o.external+internal-o.internal == got {
					return said + ", which was there", true
				}
				l = o
			}
		}
	}
	if l.key != (key{}) && l.external != got {
		c.w.fault("%v: NAT-PMP: %s; it has %v", c.addr, said, l)
	}
	if !renewed {
		l = lease{key: key{proto, got, "", 0, c.addr.String()}, internal: internal, ports: 1, enabled: true, by: "NAT-PMP"}
	}
	l.first, l.last = until(asked, seconds)
	c.put(l)
	return said, true
}

func (c *client) pmpDelete() (string, bool) {
	proto, internal := c.proto(), c.pcpInside()
	if c.shaky(proto, internal, 1) {
		return "not asked", false
	}
	result, _, _ := c.pmp(proto, internal, c.outside(), 0)
	if l, ok := c.find(proto, internal, "NAT-PMP"); ok && result == 0 {
		c.drop(l.key)
	}
	return fmt.Sprintf("result %d: %s %d", result, proto, internal), result == 0
}

func (c *client) pmpDeleteAll() (string, bool) {
	proto := c.proto()
	result, _, _ := c.pmp(proto, 0, 0, 0)
	if result != 255 { // also when others were kept (PMP-14)
		c.dropAll(func(l lease) bool { return l.proto == proto && l.by == "NAT-PMP" })
	}
	return fmt.Sprintf("result %d: %s", result, proto), result == 0
}

func (c *client) pcpInside() uint16 { return uint16(pcpFirst + c.rng.IntN(pcpLast-pcpFirst+1)) }

// option is one of PCP, with its padding.
func option(code byte, data ...byte) []byte {
	b := append([]byte{code, 0, 0, byte(len(data))}, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

// filter is one of PCP for a prefix; the zero Prefix clears.
func filter(p netip.Prefix, port uint16) []byte {
	bits, a := max(0, p.Bits()), [16]byte{}
	if p.IsValid() {
		if a = p.Addr().As16(); p.Addr().Is4() {
			bits += 96
		}
	}
	return option(optFilter, append([]byte{0, byte(bits), byte(port >> 8), byte(port)}, a[:]...)...)
}

// request is one of PCP, without what follows the suggested address.
func (c *client) request(op byte, lifetime uint32, proto string, internal, external uint16) []byte {
	a := c.addr.As16()
	b := binary.BigEndian.AppendUint32([]byte{2, op, 0, 0}, lifetime)
	b = append(append(append(b, a[:]...), c.nonce[:]...), number(proto), 0, 0, 0)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, internal), external)
	any := netip.IPv6Unspecified().As16()
	if c.addr.Is4() {
		copy(any[10:], "\xff\xff")
	}
	return append(b, any[:]...)
}

// answer is what the response to a MAP or PEER says.
type answer struct {
	result   byte
	seconds  uint32
	external uint16
	ports    uint16
}

// pcp asks.
func (c *client) pcp(b []byte) answer {
	r := c.exchange(b)
	if len(r) < mapLen || !bytes.Equal(r[24:42], b[24:42]) { // MAP-2
		if r != nil {
			c.w.fault("%v: PCP: the answer to %x is %x", c.addr, b, r)
		}
		return answer{result: 255}
	}
	a := answer{r[3], binary.BigEndian.Uint32(r[4:]), binary.BigEndian.Uint16(r[42:]), 1}
	if b[1] == opPeer || a.result != 0 {
		return a
	}
	for rest := r[mapLen:]; len(rest) >= optionHeader; {
		n := int(binary.BigEndian.Uint16(rest[2:]))
		if rest[0] == optPortSet && n == 5 {
			a.ports = binary.BigEndian.Uint16(rest[4:])
		}
		rest = rest[min(len(rest), optionHeader+(n+3)&^3):]
	}
	return a
}

// remotes gives an outside host and its network.
func (c *client) remotes() (host, net netip.Prefix) {
	if c.addr.Is6() {
		return netip.MustParsePrefix(lab.InternetAddr6 + "/128"), netip.MustParsePrefix("2001:db8:ff::/64")
	}
	return netip.MustParsePrefix(lab.InternetAddr + "/32"), netip.MustParsePrefix("11.0.0.0/25")
}

// pcpMap maps, with all options.
func (c *client) pcpMap() (string, bool) {
	proto, internal, size := c.proto(), c.pcpInside(), uint16(1+max(0, c.rng.IntN(8)-4))
	if c.shaky(proto, internal, size) {
		return "not asked", false
	}
	wanted := lease{key: key{proto: proto, client: c.addr.String()}, internal: internal, enabled: true, by: "PCP", text: c.text()}
	b := append(c.request(opMap, uint32(c.wish()), proto, internal, pick(c.rng, 0, c.outside())), option(optDescription, []byte(wanted.text)...)...)
	clearing := c.rng.IntN(6) == 0
	if clearing {
		b = append(b, filter(netip.Prefix{}, 0)...)
	}
	if c.rng.IntN(4) == 0 {
		p, net := c.remotes()
		if wanted.remote = p.Addr().String(); c.rng.IntN(2) == 0 {
			p, wanted.remote = net, net.String()
		}
		wanted.rport = pick[uint16](c.rng, 0, 4000)
		b = append(b, filter(p, wanted.rport)...)
	}
	switch {
	case size > 1:
		b = append(b, option(optPortSet, 0, byte(size), byte(internal>>8), byte(internal), byte(c.rng.IntN(2)))...)
	case c.rng.IntN(6) == 0:
		b = append(b, option(optPrefer)...)
	}
	asked := time.Now()
	a := c.pcp(b)
	if a.result == 0 {
		c.mapped(wanted, a, asked, clearing || wanted.remote != "")
	}
	return fmt.Sprintf("result %d, %d s, port %d, %d ports, cleared %t: %v", a.result, a.seconds, a.external, a.ports, clearing, wanted), a.result == 0
}

// pcpRenew asks once more for what it has, without options: that must be granted, with
// the filter that it has (MAP-13).
func (c *client) pcpRenew() (string, bool) {
	l, ok := c.own(func(l lease) bool { return l.by == "PCP" && l.internal < peerFirst && !denied(l) })
	if !ok {
		return "not asked", false
	}
	asked := time.Now()
	a := c.pcp(c.request(opMap, uint32(c.wish()), l.proto, l.internal, l.external))
	switch {
	case a.result == 0:
		c.note(l.key)
		l.first, l.last = until(asked, a.seconds)
		c.held[l.key] = l
	case a.result != noAddress && a.result != noResources:
		c.w.fault("%v: result %d for the renewal of %v", c.addr, a.result, l)
	}
	return fmt.Sprintf("result %d: %v", a.result, l), a.result == 0
}

// mapped books what a MAP has made, or renewed as a whole.
func (c *client) mapped(wanted lease, a answer, asked time.Time, filtered bool) {
	l, renewed := c.find(wanted.proto, wanted.internal, "PCP", "NAT-PMP")
	switch {
	case !renewed:
		l = wanted
		l.external, l.ports = a.external, a.ports
	case l.external+wanted.internal-l.internal != a.external:
		c.w.fault("%v: MAP of port %d gives port %d; it has %v", c.addr, wanted.internal, a.external, l)
	default:
		c.note(l.key)
		delete(c.held, l.key) // its filter is a part of its key
	}
	if renewed && filtered {
		l.remote, l.rport = wanted.remote, wanted.rport
	}
	l.by, l.text = "PCP", wanted.text // MAP-15: "" erases
	l.first, l.last = until(asked, a.seconds)
	c.put(l)
}

func (c *client) pcpDelete() (string, bool) {
	proto, internal := c.proto(), c.pcpInside()
	if c.shaky(proto, internal, 1) {
		return "not asked", false
	}
	a := c.pcp(c.request(opMap, 0, proto, internal, 0))
	if l, ok := c.find(proto, internal, "PCP", "NAT-PMP"); ok && a.result == 0 {
		c.drop(l.key)
	}
	return fmt.Sprintf("result %d: %s %d", a.result, proto, internal), a.result == 0
}

// pcpPeer names one peer for each of its ports, which no other protocol has.
func (c *client) pcpPeer() (string, bool) {
	proto, i := c.proto(), c.rng.IntN(insides-peerFirst+inside)
	internal, remote := uint16(peerFirst+i), uint16(4000+i%2)
	if c.shaky(proto, internal, 1) {
		return "not asked", false
	}
	host, _ := c.remotes()
	to := host.Addr().As16()
	b := c.request(opPeer, uint32(c.wish()), proto, internal, 0)
	b = append(append(b, byte(remote>>8), byte(remote), 0, 0), to[:]...)
	asked := time.Now()
	a := c.pcp(b)
	l := lease{key: key{proto, a.external, host.Addr().String(), remote, c.addr.String()}, internal: internal, ports: 1, enabled: true, by: "PCP"}
	l.first, l.last = until(asked, a.seconds)
	if a.result == 0 {
		// What is answered is what is left, rounded up.
		l.first = l.first.Add(-time.Second)
		c.put(l)
	}
	return fmt.Sprintf("result %d: %v", a.result, l), a.result == 0
}

// pcpBadly sends what must not be granted: another nonce for what it has, another
// host's address, bad options and lengths.
func (c *client) pcpBadly() (string, bool) {
	how := c.rng.IntN(6)
	b := c.request(opMap, 600, "TCP", c.pcpInside(), c.outside())
	switch how {
	case 0:
		l, ok := c.own(func(l lease) bool { return l.by == "PCP" && l.internal < peerFirst })
		if !ok {
			return "not asked", false
		}
		b = c.request(opMap, uint32(pick(c.rng, 0, 600)), l.proto, l.internal, l.external)
		b[24] ^= 0xff
	case 1:
		b[23] ^= 0x1e // the client's address
	case 2:
		b[36] = pick[byte](c.rng, 0, 132) // all protocols, SCTP
	case 3:
		b = append(b, option(1, make([]byte, 16)...)...) // THIRD_PARTY
	case 4:
		b = append(b, option(optFilter, 0, 129, 0, 0)...)
	case 5:
		b = b[:24+4*c.rng.IntN(9)]
	}
	r := c.exchange(b)
	if len(r) < 4 || r[3] == 0 {
		c.w.fault("%v: the answer to %x is %x", c.addr, b, r)
		return "", false
	}
	return fmt.Sprintf("how %d: result %d", how, r[3]), false
}
