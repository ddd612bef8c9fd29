package clients

import (
	"bufio"
	"context"
	"io"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// torrentPort is where libtorrent listens if nobody tells it another one.
const torrentPort = 6881

// onlyFour is the setting of a session that leaves IPv6 alone.
const onlyFour = "listen_interfaces=" + lab.LAN1Addr + ":6881"

// torrent is testdata/torrent.py at work on a LAN host: a session of libtorrent, which
// is what qBittorrent and Deluge ask the router with.
type torrent struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.WriteCloser
	read chan struct{} // closed at the end of what it prints

	mu    sync.Mutex
	lines []string
}

// torrent starts a session on lan1, listening on all addresses, as it does by default.
func (h *house) torrent(settings ...string) *torrent {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &torrent{t: h.t, read: make(chan struct{})}
	s.cmd = h.LAN1.Command(ctx, python, append([]string{"testdata/torrent.py"}, settings...)...)
	in, err := s.cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	s.in = in
	go func() {
		defer close(s.read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.mu.Lock()
			s.lines = append(s.lines, lines.Text())
			s.mu.Unlock()
		}
	}()
	h.t.Cleanup(func() {
		cancel()
		<-s.read
		if s.cmd.ProcessState == nil {
			s.cmd.Wait()
		}
		if h.t.Failed() {
			h.t.Logf("torrent.py printed\n%s", strings.Join(s.lines, "\n"))
		}
	})
	return s
}

// do is a line of its input.
func (s *torrent) do(words ...string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, strings.Join(words, " ")+"\n"); err != nil {
		s.t.Fatal(err)
	}
}

// end ends the session, which takes its mappings along.
func (s *torrent) end() {
	s.t.Helper()
	s.in.Close()
	<-s.read
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("torrent.py: %v", err)
	}
}

// said counts the lines that begin so and contain all parts.
func (s *torrent) said(begin string, parts ...string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if strings.HasPrefix(line, begin) && !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			n++
		}
	}
	return n
}

// says waits for n lines.
func (s *torrent) says(n int, begin string, parts ...string) {
	s.t.Helper()
	until(s.t, strconv.Itoa(n)+" lines of libtorrent: "+begin+" "+strings.Join(parts, " "), func() bool { return s.said(begin, parts...) >= n })
}

// rows are what upnpctl list shows, as PROTO EXTERNAL CLIENT INTERNAL BY.
func (h *house) rows() (all []string) {
	h.t.Helper()
	for _, line := range strings.Split(upnpctl(h.t, h.Lab, "list"), "\n") {
		if w := strings.Fields(line); len(w) > 6 && w[0] != "PROTO" {
			all = append(all, strings.Join([]string{w[0], w[1], w[3], w[4], w[6]}, " "))
		}
	}
	slices.Sort(all)
	return all
}

// lists waits until there are these rows: libtorrent ends without the answer to its
// last requests. The kernel has something of lan1 then if there is a row of it.
func (h *house) lists(when string, want ...string) {
	h.t.Helper()
	slices.Sort(want)
	got := h.rows()
	for end := time.Now().Add(patience); !slices.Equal(got, want) && time.Now().Before(end); got = h.rows() {
		time.Sleep(5 * time.Millisecond)
	}
	if !slices.Equal(got, want) {
		h.t.Errorf("%s: upnpctl lists %q, want %q", when, got, want)
	}
	kernel := h.Router.Run(h.t, "nft", "list", "table", "inet", "upnpd")
	has := func(text string) bool {
		return strings.Contains(text, lab.LAN1Addr) || strings.Contains(text, lab.LAN1Addr6)
	}
	if has(kernel) != slices.ContainsFunc(want, has) {
		h.t.Errorf("%s: with %q the kernel has\n%s", when, want, kernel)
	}
}

// four and six are what a session asks for by each family.
func four(by string) []string {
	return []string{"TCP 6881 " + lab.LAN1Addr + " 6881 " + by, "UDP 6881 " + lab.LAN1Addr + " 6881 " + by}
}

func six() []string {
	return []string{"TCP 6881 " + lab.LAN1Addr6 + " 6881 PCP", "UDP 6881 " + lab.LAN1Addr6 + " 6881 PCP"}
}

// peers checks that a BitTorrent peer on the internet gets to libtorrent's own sockets,
// or doesn't: by TCP, and by uTP, whose SYN is answered for its connection, by a
// FIN as there are no torrents (BEP 29).
func (h *house) peers(when, router string, want bool) {
	h.t.Helper()
	timeout := pinSilence
	if want {
		timeout = pinPatience
	}
	to := net.JoinHostPort(router, strconv.Itoa(torrentPort))
	c, err := h.Internet.Dial("tcp", to, timeout)
	if err == nil {
		c.Close()
	}
	if (err == nil) != want {
		h.t.Errorf("%s: a peer at TCP %s: %v, want it to come in: %v", when, to, err, want)
	}
	c, err = h.Internet.Dial("udp", to, timeout)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	syn := append([]byte{0x41, 0, 0x12, 0x34}, make([]byte, 16)...)
	syn[17] = 1 // sequence number
	c.Write(syn)
	c.SetDeadline(time.Now().Add(timeout))
	answer := make([]byte, 1500)
	n, err := c.Read(answer)
	if got := n == 20 && string(answer[:4]) == "\x11\x00\x12\x34"; got != want {
		h.t.Errorf("%s: a peer at uTP %s: %x, %v, want it to come in: %v", when, to, answer[:n], err, want)
	}
}

// TestTorrent: libtorrent asks by PCP, for both families, and is reached (issue 7,
// point 5).
func TestTorrent(t *testing.T) {
	t.Parallel()
	h := enter(t).begin()
	for _, host := range []*lab.Host{h.LAN1, h.LAN2} {
		if _, err := host.EchoTCP(9000); err != nil {
			t.Fatal(err)
		}
	}
	s := h.torrent("enable_natpmp=yes")
	for _, proto := range []string{"tcp", "udp"} {
		s.says(2, "mapped", "natpmp "+proto+" 6881")
		s.says(2, "portmap_log", "<== ", "transport: PCP protocol: "+proto, "ttl: 3600")
	}
	h.lists("at the start", append(four("PCP"), six()...)...)
	h.peers("mapped", lab.WANAddr, true)
	h.peers("a pinhole", lab.LAN1Addr6, true)
	s.do("add tcp 19000 9000")
	s.says(1, "mapped 2 natpmp tcp 19000", lab.LAN1Addr)
	s.says(1, "mapped 2 natpmp tcp 9000", lab.LAN1Addr6)
	wantReached(t, h.Lab, "tcp", 19000, lab.LAN1Addr+":9000")
	s.do("delete 2")
	s.says(2, "portmap_log", "local: 9000", "ttl: 0 ]", "<==")
	h.lists("deleted", append(four("PCP"), six()...)...)
	wantReached(t, h.Lab, "tcp", 19000, "")
	s.end()
	h.lists("the session is over")
}
