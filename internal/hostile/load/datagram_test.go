package load

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

const (
	perSecond = 5000 // datagrams of the attacker
	ssdpPort  = 1900
	pcpPort   = 5351
)

func search(st string) string {
	return "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: " + st + "\r\n\r\n"
}

// paced calls send 5,000 times a second, as far as the machine can.
func paced(t *testing.T, seconds int, send func(i int) error) {
	t.Helper()
	begun := time.Now()
	for i := range seconds * perSecond {
		if i%50 == 0 {
			time.Sleep(time.Until(begun.Add(time.Duration(i) * time.Second / perSecond)))
		}
		if err := send(i); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d datagrams in %v", seconds*perSecond, time.Since(begun))
}

// ear is a UDP socket that keeps what it hears.
type ear struct {
	*net.UDPConn
	mu   sync.Mutex
	got  map[string]int // by USN
	size int            // bytes
	n    int
}

func listen(t *testing.T, host *lab.Host) *ear {
	t.Helper()
	c, err := host.ListenUDP(host.Addr.String() + ":0")
	if err != nil {
		t.Fatal(err)
	}
	e := &ear{UDPConn: c, got: map[string]int{}}
	go func() {
		for b := make([]byte, 1500); ; {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			_, usn, _ := bytes.Cut(b[:n], []byte("USN: "))
			usn, _, _ = bytes.Cut(usn, []byte("\r\n"))
			e.mu.Lock()
			e.got[string(usn)]++
			e.size += n
			e.n++
			e.mu.Unlock()
		}
	}()
	t.Cleanup(func() { c.Close() })
	return e
}

// searched tells how many searches were answered.
func (e *ear) searched() (searches, datagrams, size int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range e.got {
		searches = max(searches, n)
	}
	return searches, e.n, e.size
}

// quiet waits until the ear has heard nothing for half a second: a search may be
// answered later than it came.
func (e *ear) quiet() {
	for last := -1; ; {
		_, n, _ := e.searched()
		if n == last {
			return
		}
		last = n
		time.Sleep(500 * time.Millisecond)
	}
}

// mostSearches is what one source may get (SSDP-51): 30, and 5 a second.
func mostSearches(begun time.Time) int { return 31 + int(5*time.Since(begun)/time.Second) }

// searches come by unicast and multicast from one host, and from one that is only
// said to be LAN2: an ear there is the victim. LAN hosts are never to be overwhelmed
// (TA14-017A).
func (h *house) searches(t *testing.T) {
	begun := time.Now()
	attacker, victim := listen(t, h.LAN1), listen(t, h.LAN2)
	internet := listen(t, h.Internet)
	router := net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.Router.Addr, ssdpPort))
	group := &net.UDPAddr{IP: net.IPv4(239, 255, 255, 250), Port: ssdpPort}
	text := []byte(search("ssdp:all"))
	paced(t, 2, func(i int) error {
		to := router
		if i%2 == 1 {
			to = group
		}
		_, err := attacker.WriteToUDP(text, to)
		return err
	})
	// Who was not said to search finds the router meanwhile; LAN2 itself must wait.
	other := netip.MustParseAddr("192.168.77.21")
	h.LAN2.Run(t, "ip", "addr", "add", other.String()+"/24", "dev", lab.HostDev)
	defer h.meanwhile(t, other, ssdpPort, search("upnp:rootdevice"), 5)()
	forge := h.forger(t)
	paced(t, 2, func(i int) error {
		to := victim.LocalAddr().(*net.UDPAddr).AddrPort()
		if i%2 == 1 {
			to = internet.LocalAddr().(*net.UDPAddr).AddrPort()
		}
		return forge(udp(to, netip.AddrPortFrom(h.Router.Addr, ssdpPort), text))
	})
	for name, e := range map[string]*ear{"the attacker": attacker, "the victim": victim} {
		e.quiet()
		n, datagrams, size := e.searched()
		t.Logf("%s: %d searches answered by %d datagrams, %d bytes, for %d of %d bytes each", name, n, datagrams, size, 2*perSecond, len(text))
		if n == 0 || n > mostSearches(begun) {
			t.Errorf("%s: %d searches answered, want 1 to %d", name, n, mostSearches(begun))
		}
	}
	if _, n, _ := internet.searched(); n != 0 {
		t.Errorf("%d answers to the internet", n)
	}
}

// mapRequests are of NAT-PMP and PCP, good ones and junk (PCP-10).
func (h *house) mapRequests(t *testing.T) {
	begun := time.Now()
	attacker := listen(t, h.LAN1)
	router := net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.Router.Addr, pcpPort))
	defer h.meanwhile(t, h.LAN2.Addr, pcpPort, "\x00\x00", 5)()
	paced(t, 3, func(i int) error {
		_, err := attacker.WriteToUDP(mapRequest(i), router)
		return err
	})
	attacker.quiet()
	_, n, size := attacker.searched()
	most := 257 + int(250*time.Since(begun)/time.Second)
	t.Logf("%d answers, %d bytes", n, size)
	if n == 0 || n > most {
		t.Errorf("%d answers to one host, want 1 to %d", n, most)
	}
}

// mapRequest is the i-th of a flood.
func mapRequest(i int) []byte {
	port := uint16(1024 + i/4*7)
	switch i % 4 {
	case 0: // NAT-PMP, map UDP for an hour, or end that
		p := []byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 14, 16}
		binary.BigEndian.PutUint16(p[4:], port)
		binary.BigEndian.PutUint16(p[6:], port)
		if i%8 == 4 {
			binary.BigEndian.PutUint16(p[4:], port-7)
			clear(p[6:])
		}
		return p
	case 1: // PCP, MAP TCP
		p := make([]byte, 60)
		p[0], p[1], p[6], p[7], p[36] = 2, 1, 14, 16, 6
		p[18], p[19] = 0xff, 0xff
		copy(p[20:], netip.MustParseAddr(lab.LAN1Addr).AsSlice())
		binary.BigEndian.PutUint64(p[24:], uint64(i))
		binary.BigEndian.PutUint16(p[40:], port)
		return p
	case 2: // a version that is none
		return []byte{9, 1, 0, 0}
	}
	p := make([]byte, 60) // the address of another host
	p[0], p[1] = 2, 1
	return p
}

// forger sends whole packets of IPv4 from LAN1, whatever their source.
func (h *house) forger(t *testing.T) func(p []byte) error {
	t.Helper()
	fd := -1
	err := h.LAN1.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func(p []byte) error {
		return unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: [4]byte(p[16:20])})
	}
}

// packet is one of IPv4; the kernel adds its checksum.
func packet(protocol byte, from, to netip.Addr, payload []byte) []byte {
	p := make([]byte, 20, 20+len(payload))
	p[0], p[8], p[9] = 0x45, 4, protocol
	binary.BigEndian.PutUint16(p[2:], uint16(20+len(payload)))
	copy(p[12:], from.AsSlice())
	copy(p[16:], to.AsSlice())
	return append(p, payload...)
}

// udp is a datagram without a checksum.
func udp(from, to netip.AddrPort, text []byte) []byte {
	p := make([]byte, 8, 8+len(text))
	binary.BigEndian.PutUint16(p, from.Port())
	binary.BigEndian.PutUint16(p[2:], to.Port())
	binary.BigEndian.PutUint16(p[4:], uint16(8+len(text)))
	return packet(unix.IPPROTO_UDP, from.Addr(), to.Addr(), append(p, text...))
}

// syn opens a connection that its source, which is not there, never goes on with.
func syn(from, to netip.AddrPort) []byte {
	p := make([]byte, 20)
	binary.BigEndian.PutUint16(p, from.Port())
	binary.BigEndian.PutUint16(p[2:], to.Port())
	p[12], p[13], p[14] = 5<<4, 2, 0xff
	sum := uint32(unix.IPPROTO_TCP + len(p))
	a, b := from.Addr().As4(), to.Addr().As4()
	for _, half := range [][]byte{a[:], b[:], p} {
		for i := 0; i < len(half); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(half[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(p[16:], ^uint16(sum))
	return packet(unix.IPPROTO_TCP, from.Addr(), to.Addr(), p)
}

// halfOpen is SYNs from addresses of the LAN that nobody has.
func (h *house) halfOpen(t *testing.T) {
	forge, to := h.forger(t), netip.MustParseAddrPort(h.web)
	paced(t, 1, func(i int) error {
		from := netip.AddrFrom4([4]byte{192, 168, 77, byte(100 + i%100)})
		return forge(syn(netip.AddrPortFrom(from, uint16(1024+i)), to))
	})
	n := strings.Count(h.Router.Run(t, "ss", "-Htn", "state", "syn-recv"), "\n")
	if t.Logf("%d connections are half open", n); n == 0 {
		t.Error("none is")
	}
}
