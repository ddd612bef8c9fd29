package load

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestUnread: what clients ask for and do not read, and what they send and do not end,
// is bounded for all of them together. One host has many addresses: without that it
// had the daemon keep 120 MB.
func TestUnread(t *testing.T) {
	t.Parallel()
	h := enter(t)
	var from []netip.Addr
	for i := range 5 {
		from = append(from, netip.AddrFrom4([4]byte{192, 168, 77, byte(80 + i)}))
		h.LAN1.Run(t, "ip", "addr", "add", from[i].String()+"/24", "dev", lab.HostDev)
	}
	for _, attack := range []struct {
		name string
		text string
	}{
		{"bodies without end", h.body(32<<10 - 1)},
		{"the beginning of another request behind a large body", h.body(32<<10) + "P"},
		{"listings", h.listing(t, from[:4])},
	} {
		t.Run(attack.name, func(t *testing.T) {
			h.beside(t, func(t *testing.T) { h.hurl(t, from, attack.text) })
			// One listing is 0.4 MB, and others are made while it is on its way: the more
			// the less often the daemon runs (16 MB on a quiet machine, 25 seen on a busy
			// one). Without the bound it is 120.
			if n := memory(t, h.daemon, "VmHWM"); n >= 3*mostMemory {
				t.Errorf("the daemon had %d kB, want less than %d", n, 3*mostMemory)
			}
		})
	}
}

// body is a request with so many bytes of a body of 32 kB.
func (h *house) body(n int) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml\r\nSOAPAction: \"%s#GetExternalIPAddress\"\r\nContent-Length: %d\r\n\r\n%s",
		h.control, h.web, wanIP1, 32<<10, strings.Repeat(" ", n))
}

// listing gives the addresses all the mappings that they may have, with descriptions
// that make a listing as long as can be, and is two requests for that.
func (h *house) listing(t *testing.T, from []netip.Addr) string {
	for i, a := range from {
		for n := range mostOfOne {
			add, _ := arguments(a.String(), 20000+1000*i+n)
			add = strings.Replace(add, ">load<", ">"+strings.Repeat("&quot;", 256)+"<", 1)
			answer, err := h.askFrom(h.LAN1, a, h.soap(h.control2, wanIP2, "AddPortMapping", add, "close"))
			if err != nil || !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
				t.Fatalf("%q, %v", answer, err)
			}
		}
	}
	list := h.soap(h.control2, wanIP2, "GetListOfPortMappings", "<NewStartPort>0</NewStartPort><NewEndPort>65535</NewEndPort>"+
		"<NewProtocol>TCP</NewProtocol><NewManage>1</NewManage><NewNumberOfPorts>0</NewNumberOfPorts>", "keep-alive")
	answer, err := h.askFrom(h.LAN1, from[0], strings.Replace(list, "keep-alive", "close", 1))
	if len(answer) < 300<<10 {
		t.Fatalf("a listing of %d bytes, %v", len(answer), err)
	}
	return list + list
}

// hurl sends a text again and again, on as many connections as the daemon has, and
// reads nothing.
func (h *house) hurl(t *testing.T, from []netip.Addr, text string) {
	var all []net.Conn
	for end := time.Now().Add(2 * time.Second); len(all) == 0 || time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		for range perClient {
			for _, a := range from {
				if c, err := h.deaf(a); err == nil {
					io.WriteString(c, text)
					all = append(all, c)
				}
			}
		}
	}
	t.Logf("%d connections", len(all))
	for _, c := range all {
		c.Close()
	}
}

// deaf connects and takes as little as a host can.
func (h *house) deaf(from netip.Addr) (c net.Conn, err error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: time.Second}
	d.Control = func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1024) })
	}
	err = h.LAN1.Do(func() error {
		if c, err = d.Dial("tcp4", h.web); err == nil {
			c.(*net.TCPConn).SetLinger(0)
			err = c.SetDeadline(time.Now().Add(patience))
		}
		return err
	})
	return c, err
}
