// Package home is a lab as the programs in it see it: control points that ask the
// router for ports, a peer on the internet that tries them, and the jobs that a
// daemon must do there, whatever the daemon and the router are made of. It is for
// tests.
package home

import (
	"cmp"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// servedPort is where the LAN hosts have their servers.
const servedPort = 8080

// Home is a lab whose LAN hosts serve.
type Home struct {
	*lab.Lab
	// WAN is the uplink's address now; "" is lab.WANAddr.
	WAN string
	// Slow is added to the waits for answers from outside.
	Slow time.Duration

	t      testing.TB
	points map[int]*ControlPoint
	peer   *net.UDPConn // on the internet, with a fixed port; nil until needed
}

// Start raises a lab and starts the servers of its LAN hosts.
func Start(t testing.TB) *Home {
	t.Helper()
	h := &Home{Lab: lab.Start(t)}
	h.For(t)
	for _, host := range []*lab.Host{h.LAN1, h.LAN2} {
		if _, err := host.EchoTCP(servedPort); err != nil {
			t.Fatal(err)
		}
		if _, err := host.EchoUDP(servedPort); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// For makes this the test that is told of faults, with control points that have
// yet to find the router: a daemon that starts anew may have another port.
func (h *Home) For(t testing.TB) {
	h.t, h.points = t, map[int]*ControlPoint{}
}

// Served is the port of the LAN hosts' servers.
func (h *Home) Served() int { return servedPort }

// Host gives LAN host 1 or 2, or the one on the internet for 0.
func (h *Home) Host(n int) *lab.Host {
	return []*lab.Host{h.Internet, h.LAN1, h.LAN2}[n]
}

// Client is a control point on a LAN host, which has found the router.
func (h *Home) Client(n int) *ControlPoint {
	h.t.Helper()
	if h.points[n] == nil {
		h.points[n] = Discover(h.t, h.Host(n).Addr.String(), lab.RouterLANAddr+":1900", h.Host(n).Dial)
	}
	return h.points[n]
}

// Reaches tells which LAN host answers the internet at the external port; 0: none.
func (h *Home) Reaches(proto string, external int) int {
	h.t.Helper()
	reach, timeout := h.ReachTCP, 2*time.Second
	if proto == "UDP" {
		reach, timeout = h.ReachUDP, 400*time.Millisecond
	}
	answer, err := reach(h.Internet, net.JoinHostPort(h.wan(), strconv.Itoa(external)), timeout+h.Slow)
	if err != nil {
		return 0
	}
	return h.who(answer)
}

// Answers is Reaches by UDP, always from the same port.
func (h *Home) Answers(external int) int {
	h.t.Helper()
	var err error
	if h.peer == nil {
		if h.peer, err = h.Internet.ListenUDP(lab.InternetAddr + ":4000"); err != nil {
			h.t.Fatal(err)
		}
	}
	to := netip.AddrPortFrom(netip.MustParseAddr(h.wan()), uint16(external))
	if _, err := h.peer.WriteToUDPAddrPort([]byte("x"), to); err != nil {
		h.t.Fatal(err)
	}
	if err := h.peer.SetReadDeadline(time.Now().Add(300*time.Millisecond + h.Slow)); err != nil {
		h.t.Fatal(err)
	}
	answer := make([]byte, 200)
	n, err := h.peer.Read(answer)
	if err != nil {
		return 0
	}
	return h.who(string(answer[:n]))
}

// who tells which LAN host gave an answer.
func (h *Home) who(answer string) int {
	h.t.Helper()
	for n := 1; n <= 2; n++ {
		if strings.HasPrefix(answer, h.Host(n).Name+" ") {
			return n
		}
	}
	h.t.Fatalf("an unknown host answered: %q", answer)
	return 0
}

func (h *Home) wan() string { return cmp.Or(h.WAN, lab.WANAddr) }
