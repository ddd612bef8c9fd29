package browser

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"os"
	"sort"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// sniffer hears what LAN host 1 and the router say to each other: only so is
// known that a page's request came as far as the router, and was not stopped in
// the browser.
type sniffer struct {
	t testing.TB

	mu    sync.Mutex
	flows []*flow          // TCP connections to the router, in order
	last  map[uint16]*flow // by LAN host 1's port
	udp   []datagram       // to the router
}

// flow is one TCP connection: segments of both sides by their place in it.
type flow struct {
	port  uint16 // the router's
	said  [2]map[uint32][]byte
	start [2]uint32
}

type datagram struct {
	port    uint16 // the router's
	payload []byte
}

// sniff hears what passes the router's LAN device from now on.
func (h *house) sniff() *sniffer {
	h.t.Helper()
	s := &sniffer{t: h.t, last: map[uint16]*flow{}}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	var file *os.File
	err := h.Router.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), "packets")
		dev, err := deviceIndex(lab.LANDev)
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev})
	})
	if err != nil {
		h.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<17)
		for {
			n, err := file.Read(b)
			if err != nil {
				return
			}
			s.packet(b[:n])
		}
	}()
	h.t.Cleanup(func() {
		file.Close()
		<-done
	})
	return s
}

// packet takes an IPv4 packet between LAN host 1 and the router.
func (s *sniffer) packet(p []byte) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return
	}
	head, total := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
	lan1, router := netipBytes(lab.LAN1Addr), netipBytes(lab.RouterLANAddr)
	side := 0
	switch {
	case bytes.Equal(p[12:16], lan1) && bytes.Equal(p[16:20], router):
	case bytes.Equal(p[16:20], lan1) && bytes.Equal(p[12:16], router):
		side = 1
	default:
		return
	}
	if total < head+8 || total > len(p) {
		return
	}
	proto, rest := p[9], p[head:total]
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case proto == unix.IPPROTO_UDP && side == 0:
		s.udp = append(s.udp, datagram{binary.BigEndian.Uint16(rest[2:]), bytes.Clone(rest[8:])})
	case proto == unix.IPPROTO_TCP && len(rest) >= 20:
		s.segment(side, rest)
	}
}

// segment takes a TCP segment; side 0 is from LAN host 1.
func (s *sniffer) segment(side int, p []byte) {
	const syn = 2
	from, to := binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])
	seq, data := binary.BigEndian.Uint32(p[4:]), p[int(p[12]>>4)*4:]
	client, server := from, to
	if side == 1 {
		client, server = to, from
	}
	if p[13]&syn != 0 && side == 0 && (s.last[client] == nil || s.last[client].start[0] != seq+1) {
		s.last[client] = &flow{port: server, said: [2]map[uint32][]byte{{}, {}}}
		s.flows = append(s.flows, s.last[client])
	}
	f := s.last[client]
	if f == nil {
		return
	}
	if p[13]&syn != 0 {
		f.start[side] = seq + 1
	} else if place := seq - f.start[side]; len(data) > len(f.said[side][place]) {
		f.said[side][place] = bytes.Clone(data)
	}
}

// whole joins the segments of one side up to the first gap.
func (f *flow) whole(side int) []byte {
	var places []uint32
	for p := range f.said[side] {
		places = append(places, p)
	}
	sort.Slice(places, func(i, j int) bool { return places[i] < places[j] })
	var all []byte
	for _, p := range places {
		data := f.said[side][p]
		if int(p) > len(all) || int(p)+len(data) <= len(all) {
			continue
		}
		all = append(all, data[len(all)-int(p):]...)
	}
	return all
}

// exchange is one request that reached the router, and its answer.
type exchange struct {
	*http.Request
	body   string
	status int // 0: none came
	header http.Header
}

// exchanges lists what was asked of a TCP port so far.
func (s *sniffer) exchanges(port uint16) (all []exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.flows {
		if f.port != port {
			continue
		}
		asked, said := bufio.NewReader(bytes.NewReader(f.whole(0))), bufio.NewReader(bytes.NewReader(f.whole(1)))
		for {
			req, err := http.ReadRequest(asked)
			if err != nil {
				break
			}
			body, _ := io.ReadAll(req.Body) // what came of it
			e := exchange{Request: req, body: string(body)}
			if r, err := http.ReadResponse(said, req); err == nil {
				io.Copy(io.Discard, r.Body)
				e.status, e.header = r.StatusCode, r.Header
			}
			all = append(all, e)
		}
	}
	return all
}

// datagrams lists what was sent to a UDP port so far.
func (s *sniffer) datagrams(port uint16) (all [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.udp {
		if d.port == port {
			all = append(all, d.payload)
		}
	}
	return all
}
