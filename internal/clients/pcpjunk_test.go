package clients

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// junkPackets are sent in all, by each family half of them.
const junkPackets = 10000

// A socket sends packets of one length only, so that each reply is known to be to one
// of that length.
var junkLengths = []int{0, 1, 2, 3, 8, 11, 12, 16, 24, 28, 60, 64, 68, 80, 84, 96, 120, 300, 1100, 1101, 1104, 1400}

// junkSource sends from one address, and keeps what it was granted.
type junkSource struct {
	*pcpHost
	rand    *rand.Rand
	conns   []*net.UDPConn
	mu      sync.Mutex
	granted map[string][][12]byte // the nonces, by protocol and internal port
	replies int
	pmp     bool // granted something by NAT-PMP
}

// TestPCPJunk: mixed random and mutated packets from several sources leave no state,
// get no reply larger than allowed, and nothing grows (issue 7, point 5).
func TestPCPJunk(t *testing.T) {
	t.Parallel()
	h := enter(t, "max_mappings_per_client = 20")
	var sources [2][]*junkSource
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for n, host := range []*lab.Host{h.LAN1, h.LAN2} {
		for i := range 4 {
			addr := fmt.Sprintf("192.168.77.%d", 100+10*n+i)
			host.Run(t, "ip", "addr", "add", addr+"/24", "dev", lab.HostDev)
			sources[0] = append(sources[0], junk(t, host, addr, lab.RouterLANAddr, seed))
			addr = fmt.Sprintf("2001:db8:77::%d", 100+10*n+i)
			host.Run(t, "ip", "addr", "add", addr+"/64", "dev", lab.HostDev, "nodad")
			sources[1] = append(sources[1], junk(t, host, addr, lab.RouterLANAddr6, seed))
		}
	}
	h.begin()
	rules := h.Rules(lab.Nftables)
	h.junk(sources, junkPackets/5)
	files, memory := h.weight()
	h.junk(sources, junkPackets-junkPackets/5)
	more := memory / 8
	if os.Getenv("UPNPD_RACE") != "" {
		more = 2 * memory // the race detector remembers every place that was read
	}
	if f, m := h.weight(); f != files || m > memory+more {
		t.Errorf("%d files and %d kB, were %d and %d", f, m, files, memory)
	} else {
		t.Logf("%d files and %d kB, were %d and %d", f, m, files, memory)
	}
	h.returned(sources)
	if got := upnpctl(t, h.Lab, "list"); got != "no mappings\n" {
		t.Errorf("left:\n%s", got)
	}
	if got := h.Rules(lab.Nftables); got != rules {
		t.Errorf("rules were\n%s\nare\n%s", rules, got)
	}
	replies, granted := 0, 0
	for _, s := range slices.Concat(sources[0], sources[1]) {
		replies += s.replies
		granted += len(s.granted)
	}
	if t.Logf("%d replies, %d places granted", replies, granted); replies < junkPackets/3 || granted < 30 {
		t.Error("too few")
	}
	h.goroutines()
}

// weight is how many files the daemon has open, and its memory in kB.
func (h *house) weight() (files, memory int) {
	h.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", h.daemon.PID))
	status, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.daemon.PID))
	rss := regexp.MustCompile(`VmRSS:\s*(\d+) kB`).FindSubmatch(status)
	if err != nil || err2 != nil || rss == nil {
		h.t.Fatal(err, err2)
	}
	memory, _ = strconv.Atoi(string(rss[1]))
	return len(list), memory
}

// goroutines ends the daemon by a dump of them.
func (h *house) goroutines() {
	h.t.Helper()
	if err := h.daemon.Signal(syscall.SIGQUIT); err != nil {
		h.t.Fatal(err)
	}
	<-h.daemon.Ended()
	h.daemon.Kill()
	if n := strings.Count(h.daemon.Log(), "\ngoroutine "); n < 5 || n > 48 {
		h.t.Errorf("%d goroutines", n)
	}
}

func junk(t *testing.T, h *lab.Host, addr, router string, seed uint64) *junkSource {
	t.Helper()
	s := &junkSource{pcpHost: pcpFrom(t, h, addr, router), granted: map[string][][12]byte{}}
	s.rand = rand.New(rand.NewPCG(seed, uint64(s.addr.As16()[15])))
	for _, n := range junkLengths {
		c, err := h.ListenUDP(netip.AddrPortFrom(s.addr, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		s.conns = append(s.conns, c)
		go s.read(c, n)
	}
	return s
}

// read checks the replies to packets of n bytes.
func (s *junkSource) read(c *net.UDPConn, n int) {
	b := make([]byte, 2000)
	for {
		got, err := c.Read(b)
		if err != nil {
			return
		}
		limit := max(24, (n+3)&^3)
		if got > 0 && b[0] == 0 {
			limit = max(16, n)
		}
		if got < 8 || got > min(limit, 1100) || b[0] != 0 && b[0] != 2 || b[1] < 0x80 {
			s.t.Errorf("%d bytes to a packet of %d: %x", got, n, b[:got])
		}
		s.mu.Lock()
		s.replies++
		switch {
		case b[0] == 2 && (b[1] == 0x81 || b[1] == 0x82) && b[3] == 0 && got >= 60 && binary.BigEndian.Uint32(b[4:]) > 0:
			place := fmt.Sprint(b[36], " ", binary.BigEndian.Uint16(b[40:]))
			if b[1] == 0x82 && got >= 80 { // the one peer
				place += fmt.Sprint(" ", netip.AddrFrom16([16]byte(b[64:])).Unmap(), " ", binary.BigEndian.Uint16(b[60:]))
			}
			s.granted[place] = append(s.granted[place], [12]byte(b[24:]))
		case b[0] == 0 && b[1] > 0x80 && b[3] == 0:
			s.pmp = true
		}
		s.mu.Unlock()
	}
}

// junk has the sources send n packets, at the rate at which they are looked at.
func (h *house) junk(sources [2][]*junkSource, n int) {
	var all sync.WaitGroup
	for _, s := range slices.Concat(sources[0], sources[1]) {
		all.Add(1)
		go func() {
			defer all.Done()
			pace := time.NewTicker(9 * time.Millisecond)
			defer pace.Stop()
			for range n / len(sources[0]) / len(sources) {
				i := s.rand.IntN(len(s.conns))
				if _, err := s.conns[i].WriteToUDPAddrPort(s.packet(junkLengths[i]), s.router); err != nil {
					s.t.Error(err)
				}
				<-pace.C
			}
		}()
	}
	all.Wait()
}

// packet is one of n bytes: noise, or a request with some bytes changed.
func (s *junkSource) packet(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(s.rand.Uint32())
	}
	port := uint16(s.rand.IntN(8))*1021 + 80
	kind := s.rand.IntN(8)
	switch {
	case kind == 0 || n < 2: // noise
	case kind == 1:
		b[0] = []byte{0, 1, 2, 3}[s.rand.IntN(4)]
	case kind < 4: // of NAT-PMP
		q := []byte{0, byte(s.rand.IntN(4)), 0, 0, byte(port >> 8), byte(port), byte(port >> 8), byte(port), 0, 0, byte(s.rand.IntN(2)), 9}
		copy(b, q)
	default: // of PCP; what is longer has random options
		lifetime := uint32(s.rand.IntN(3)) * 600
		q := s.request(ask{lifetime: lifetime, proto: []byte{tcpNumber, udpNumber}[s.rand.IntN(2)], internal: port, external: port})
		for len(q) < n && s.rand.IntN(8) > 0 {
			q = append(q, s.option()...)
		}
		q[1] = []byte{pcpMap, pcpMap, pcpMap, pcpAnnounce, 2, 99}[s.rand.IntN(6)]
		copy(b, q)
		if len(q) < n {
			b = append(b[:0], q...) // exactly padded
			for len(b)+4 <= n {
				b = append(b, option(200)...)
			}
			b = append(b, make([]byte, n-len(b))...)
		}
	}
	if n > 0 {
		for range s.rand.IntN(3) {
			b[s.rand.IntN(n)] = byte(s.rand.Uint32())
		}
	}
	return b
}

// option is a random one, mostly well-formed.
func (s *junkSource) option() []byte {
	switch s.rand.IntN(6) {
	case 0:
		return option(pcpPrefer)
	case 1:
		return filterOption(netip.PrefixFrom(s.addr, s.rand.IntN(s.addr.BitLen()+1)).Masked().String(), uint16(s.rand.IntN(2)))
	case 2:
		return option(pcpDescription, make([]byte, s.rand.IntN(200))...)
	case 3:
		return option(pcpPortSet, 0, byte(s.rand.IntN(70)), 0, 80, byte(s.rand.IntN(2)))
	case 4:
		return option(pcpThirdParty, make([]byte, 16)...)
	}
	return option(byte(s.rand.IntN(256)), make([]byte, s.rand.IntN(20))...)
}

// giveBack ends the mappings of a place that were made by the nonces. What PEER made
// is taken over by a MAP first.
func (s *junkSource) giveBack(place string, nonces [][12]byte) {
	var a ask
	var peer string
	var port uint16
	if n, _ := fmt.Sscan(place, &a.proto, &a.internal, &peer, &port); n == 4 {
		host := netip.MustParseAddr(peer)
		a.options = filterOption(netip.PrefixFrom(host, host.BitLen()).String(), port)
	}
	slices.SortFunc(nonces, func(a, b [12]byte) int { return slices.Compare(a[:], b[:]) })
	for _, s.nonce = range slices.Compact(nonces) {
		if a.lifetime = 600; a.options != nil {
			s.try(a)
		}
		s.try(ask{proto: a.proto, internal: a.internal})
	}
}

// returned gives back what was granted: whatever else there is, was not.
func (h *house) returned(sources [2][]*junkSource) {
	h.t.Helper()
	time.Sleep(600 * time.Millisecond) // for more requests than one source may send at once
	for family, all := range sources {
		for _, s := range all {
			s.mu.Lock()
			for _, byPEER := range []bool{false, true} { // a MAP could be in the way of the second
				for place, nonces := range s.granted {
					if strings.Count(place, " ") > 1 == byPEER {
						s.giveBack(place, nonces)
					}
				}
			}
			s.mu.Unlock()
			for _, op := range []byte{1, 2} {
				if family == 0 {
					s.exchange(append([]byte{0, op}, make([]byte, 10)...))
				}
			}
		}
	}
}
