package clients

import (
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// capture is what a LAN host sends to the router's port of PCP, by client address.
type capture struct {
	mu  sync.Mutex
	all map[netip.Addr][]string
}

// capture begins on lan1; it ends with the test.
func (h *house) capture() *capture {
	h.t.Helper()
	const everything = 3 << 8 // ETH_P_ALL, big endian; nothing less has what goes out
	c := &capture{all: map[netip.Addr][]string{}}
	var fd int
	err := h.LAN1.Do(func() (err error) {
		fd, err = syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, everything)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	packets := os.NewFile(uintptr(fd), "packets")
	read := make(chan struct{})
	go func() {
		defer close(read)
		for b := make([]byte, 2000); ; {
			n, err := packets.Read(b)
			if err != nil {
				return
			}
			c.take(b[:n])
		}
	}()
	h.t.Cleanup(func() {
		packets.Close()
		<-read
	})
	return c
}

// take keeps a request; one that is sent again is kept once.
func (c *capture) take(b []byte) {
	var from netip.Addr
	switch {
	case len(b) > 28 && b[0] == 0x45 && b[9] == 17:
		from, b = netip.AddrFrom4([4]byte(b[12:])), b[20:]
	case len(b) > 48 && b[0]>>4 == 6 && b[6] == 17:
		from, b = netip.AddrFrom16([16]byte(b[8:])), b[40:]
	default:
		return
	}
	if int(b[2])<<8|int(b[3]) != pcpPort {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if packet := string(b[8:]); !slices.Contains(c.all[from], packet) {
		c.all[from] = append(c.all[from], packet)
	}
}

// of gives the requests of an address so far.
func (c *capture) of(from string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all[netip.MustParseAddr(from)])
}

// TestTorrentPackets compares libtorrent's requests with those of the tests' own codec,
// byte for byte. Both read RFC 6887 alike, and of what it leaves open:
//
//   - each mapping has its own nonce, kept for its renewals and its end;
//   - the suggested address is the all-zeros IPv4 one by IPv4, the host's own by IPv6,
//     and then what was assigned;
//   - it never prefers failure and has no options;
//   - it asks for 3600 s, and for the port that it has at the end, too;
//   - it doesn't wait for the answer to a deletion when it ends.
func TestTorrentPackets(t *testing.T) {
	t.Parallel()
	h := enter(t, "min_lease = 6", "max_lease = 6").begin()
	c := h.capture()
	s := h.torrent("enable_natpmp=yes")
	s.says(8, "mapped", " 6881 ") // each is renewed once
	s.end()
	nonces := map[string]bool{}
	for _, tt := range []struct {
		from, suggested, assigned string
		different                 int // requests: a renewal may be like the first one
	}{
		{lab.LAN1Addr, "0.0.0.0", lab.WANAddr, 6},
		{lab.LAN1Addr6, lab.LAN1Addr6, lab.LAN1Addr6, 4},
	} {
		until(t, "the last requests", func() bool { return len(c.of(tt.from)) >= tt.different })
		got := c.of(tt.from)
		for _, proto := range []byte{tcpNumber, udpNumber} {
			p := &pcpHost{t: t, addr: netip.MustParseAddr(tt.from)}
			for _, packet := range got {
				if len(packet) == 60 && packet[36] == proto {
					p.nonce = [12]byte([]byte(packet[24:36]))
				}
			}
			nonces[string(p.nonce[:])] = true
			for what, a := range map[string]ask{
				"makes":  {lifetime: 3600, suggested: tt.suggested},
				"renews": {lifetime: 3600, suggested: tt.assigned},
				"ends":   {lifetime: 0, suggested: tt.assigned},
			} {
				a.proto, a.internal, a.external = proto, torrentPort, torrentPort
				if want := string(p.request(a)); !slices.Contains(got, want) {
					t.Errorf("%s %s protocol %d not with %x", tt.from, what, proto, want)
				}
			}
		}
		if len(got) != tt.different {
			t.Errorf("%s has sent %d different requests, want %d: %x", tt.from, len(got), tt.different, got)
		}
	}
	if len(nonces) != 4 {
		t.Errorf("%d nonces for 4 mappings", len(nonces))
	}
}
