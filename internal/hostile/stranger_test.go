package hostile

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestCallStranger: CVE-2020-12695. Nobody is sent events but who asks for them
// (GENA-13): of all that the router sends by any device, the only SYN is for the host
// that subscribed with its own address.
func TestCallStranger(t *testing.T) {
	t.Parallel()
	h := enter(t).guests().begin()
	p := h.peer(h.LAN1, lab.LAN1Addr).find()
	six := h.peer(h.LAN1, lab.LAN1Addr6).find()
	var taps []*wire
	for _, dev := range []string{lab.LANDev, lab.WANDev, guestDev, "lo"} {
		taps = append(taps, tap(t, h.Router, dev, true))
	}
	for _, addr := range []string{lab.LAN2Addr + ":80", "[" + lab.LAN2Addr6 + "]:80", guestHost + ":80", lab.InternetAddr + ":80", "[" + lab.InternetAddr6 + "]:80",
		lab.RouterLANAddr + ":80", lab.WANAddr + ":80", "127.0.0.1:80", "[::1]:80", "0.0.0.0:80", "192.168.77.255:80", "255.255.255.255", "239.255.255.250:1900", "[ff02::c]",
		lab.RouterLANAddr + ":49200", "lan2", "lan2:80", "localhost", "1.1.1.1:53", "0x0b000001", "184549377", "[::ffff:" + lab.LAN2Addr + "]", "[64:ff9b::b00:1]"} {
		for _, callback := range []string{"<http://" + addr + "/>", "<http://" + addr + ":80/>", "<http://" + lab.LAN1Addr + ":9/><http://" + addr + "/>", "<http://" + addr + "/><http://" + lab.LAN1Addr + ":9/>",
			"<http://" + lab.LAN1Addr + "@" + addr + "/>", "<http://" + addr + "/#" + lab.LAN1Addr + ">", "<https://" + addr + "/>", "<http://" + addr + "\\@" + lab.LAN1Addr + "/>", "<//" + addr + "/>"} {
			for _, who := range []*peer{p, six} {
				if status := who.subscribe(callback); status != 412 {
					t.Errorf("%v asks with callback %s: %d", who.addr, callback, status)
				}
			}
		}
	}
	for _, callback := range []string{"<http://[::ffff:" + lab.LAN1Addr + "]/>", "<http://[" + lab.LAN1Addr6 + "]/>", "<http://lan1/>", "<https://" + lab.LAN1Addr + "/>", "<http://" + lab.LAN1Addr + ":0/>", "<ftp://" + lab.LAN1Addr + "/>"} {
		if status := p.subscribe(callback); status != 412 { // its own, but not as it came
			t.Errorf("callback %s: %d", callback, status)
		}
	}
	h.heardByOne(p, taps)
	if n := strings.Count(h.daemon.Log(), "events: refused a subscription"); n < 2 || n > 2*70 {
		t.Errorf("%d lines in the log tell of it, want the share of each of two addresses: 50, and one in 10 s", n)
	}
}

// subscribe gives the status.
func (p *peer) subscribe(callback string) int {
	p.t.Helper()
	status, _ := p.ask("SUBSCRIBE "+p.path(p.urls[wanip1].Event)+"\r\nNT: upnp:event\r\nCALLBACK: "+callback, "")
	return status
}

// heardByOne subscribes as it should be, with an answer that redirects elsewhere, and
// checks to whom the router connects.
func (h *house) heardByOne(p *peer, taps []*wire) {
	h.t.Helper()
	l, err := h.LAN1.ListenTCP(lab.LAN1Addr + ":4711")
	if err != nil {
		h.t.Fatal(err)
	}
	defer l.Close()
	told := make(chan string, 100)
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				continue
			}
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(c, "HTTP/1.1 302 Found\r\nLocation: http://%s/\r\nContent-Length: 0\r\n\r\n", lab.LAN2Addr)
			c.Close()
			told <- string(body)
		}
	}()
	if status := p.subscribe("<http://" + lab.LAN1Addr + ":4711/>"); status != 200 {
		h.t.Fatalf("a good subscription: %d", status)
	}
	p.add(wanip1, "AddPortMapping", wish{external: 18080})
	for until := time.After(patience); ; {
		select {
		case body := <-told:
			if strings.Contains(body, "<PortMappingNumberOfEntries>1<") {
				h.connected(taps)
				return
			}
		case <-until:
			h.t.Fatal("the good subscriber has no event")
		}
	}
}

// connected checks the SYNs of the router. The address on the other side of lo is its
// own. What was on the wires may be read a little later.
func (h *house) connected(taps []*wire) {
	h.t.Helper()
	good := netip.MustParseAddrPort(lab.LAN1Addr + ":4711")
	seen := 0
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		last := seen > 0
		for _, w := range taps {
			for _, p := range w.taken() {
				if p.proto != unix.IPPROTO_TCP || p.flags&(flagSYN|flagACK) != flagSYN || p.dst.Port() == port && p.src.Addr() != netip.MustParseAddr(lab.RouterLANAddr) {
					continue
				}
				if seen++; p.dst != good {
					h.t.Errorf("the router connects to %v", p.dst)
				}
			}
		}
		if last {
			return
		}
	}
	h.t.Error("the good connection was not seen: the test sees nothing")
}
