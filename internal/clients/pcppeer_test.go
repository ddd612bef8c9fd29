package clients

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

const pcpPeer = 2

// peerRequest is PEER (RFC 6887, section 12.1).
func (p *pcpHost) peerRequest(a ask, remote netip.AddrPort) []byte {
	b := p.request(a)
	b[1] = pcpPeer
	b = append(binary.BigEndian.AppendUint16(b, remote.Port()), 0, 0)
	to := remote.Addr().As16()
	return append(b, to[:]...)
}

// peered asks by PEER, and gives the external port.
func (p *pcpHost) peered(a ask, remote netip.AddrPort) uint16 {
	p.t.Helper()
	q := p.peerRequest(a, remote)
	b := p.exchange(q)
	if len(b) != 80 || b[1] != 0x80|pcpPeer || b[3] != pcpOK || string(b[60:]) != string(q[60:]) {
		p.t.Fatalf("PEER to %v: %x", remote, b)
	}
	return binary.BigEndian.Uint16(b[42:])
}

// talker is a UDP socket of a host.
type talker struct {
	*net.UDPConn
	t    *testing.T
	addr netip.AddrPort
}

func talk(t *testing.T, h *lab.Host, addr string) talker {
	t.Helper()
	c, err := h.ListenUDP(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return talker{c, t, netip.MustParseAddrPort(addr)}
}

// hears sends a word from one socket to an address until the other one hears it, or
// not, and gives where that came from.
func (to talker) hears(from talker, at netip.AddrPort, word string, want bool) (src netip.AddrPort) {
	to.t.Helper()
	tries := 1
	if want {
		tries = 100
	}
	b := make([]byte, 100)
	for range tries {
		if _, err := from.WriteToUDPAddrPort([]byte(word), at); err != nil {
			to.t.Fatal(err)
		}
		for to.SetReadDeadline(time.Now().Add(pinSilence)); ; {
			n, src, err := to.ReadFromUDPAddrPort(b)
			if err != nil {
				break
			}
			if string(b[:n]) == word {
				return netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
			}
		}
	}
	return netip.AddrPort{}
}

// TestPEER: many peers of one port (PEER-1), with packets. Each gets in, and hears
// the client from the one external port: the one that the client's connection had
// before it asked.
func TestPEER(t *testing.T) {
	pinVariants(t, func(t *testing.T, w *pinRouter) {
		raiseMaps(t, w)
		p := pcpFrom(t, w.LAN1, lab.LAN1Addr, lab.RouterLANAddr)
		one, two := talk(t, w.LAN1, lab.LAN1Addr+":5555"), talk(t, w.LAN2, lab.LAN2Addr+":5555")
		far, farther, third := talk(t, w.Internet, lab.InternetAddr+":4000"), talk(t, w.Internet, secondAddr+":4000"), talk(t, w.Internet, lab.InternetAddr+":4001")
		outside := func(port uint16) netip.AddrPort {
			return netip.AddrPortFrom(netip.MustParseAddr(lab.WANAddr), port)
		}
		check := func(what string, got netip.AddrPort, want netip.AddrPort) {
			t.Helper()
			if got != want {
				t.Errorf("%s: from %v, want %v", what, got, want)
			}
		}
		check("another host has the port", far.hears(two, far.addr, "a", true), outside(5555))
		before := far.hears(one, far.addr, "b", true)
		if before.Port() == 5555 || before.Port() < 1024 {
			t.Fatalf("the first connection leaves from %v", before)
		}
		a := ask{lifetime: 600, proto: udpNumber, internal: 5555}
		for _, peer := range []talker{far, farther} {
			if got := p.peered(a, peer.addr); got != before.Port() {
				t.Errorf("PEER to %v: external port %d, want %d", peer.addr, got, before.Port())
			}
		}
		for _, peer := range []talker{farther, far} {
			check("a peer gets in", one.hears(peer, before, "c", true), peer.addr)
			check("and hears", peer.hears(one, peer.addr, "d", true), before)
		}
		check("another port of a peer", one.hears(third, before, "e", false), netip.AddrPort{})
		p.mapped(before.Port(), a)
		check("beside a MAP, all get in", one.hears(third, before, "f", true), third.addr)
		p.gone(udpNumber, 5555)
		if list := upnpctl(t, w.Lab, "list"); strings.Count(list, " PCP ") != 2 {
			t.Errorf("upnpctl list shows\n%s", list)
		}
		check("without it, the peers still do", one.hears(farther, before, "g", true), farther.addr)
		w.stop()
	})
}
