package sock

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

const mSearch = "M-SEARCH * HTTP/1.1\r\n\r\n"

var ssdpGroup = netip.AddrPortFrom(group, 1900)

// responder answers the next search that u hears with the texts.
func responder(t *testing.T, u *UDP, heard chan<- Packet, texts ...string) {
	t.Helper()
	ctx := deadline(t)
	go func() {
		buf := make([]byte, 1500)
		n, p, err := u.ReadFrom(ctx, buf)
		if err != nil || string(buf[:n]) != mSearch {
			t.Errorf("the daemon heard %q, %v", buf[:n], err)
		}
		for _, text := range texts {
			if err := u.WriteTo(ctx, []byte(text), p.Src, netip.MustParseAddr("10.1.0.1")); err != nil {
				t.Error(err)
			}
		}
		heard <- p
	}()
}

// Issue 4, point 3 (check): a search by the router arrives at the daemon's own
// socket as one of a LAN host would, whatever the routes, and the answer comes
// back. The LAN hears nothing of it.
func TestSelfSearch(t *testing.T) {
	lab.NeedAlone(t)
	for name, route := range map[string]string{
		"no route":    "",
		"default":     "default via 10.2.0.2",
		"unreachable": "unreachable default",
		"two devices": "", // have the address
	} {
		t.Run(name, func(t *testing.T) {
			h := newLAN(t, "lan0", 1)
			newLAN(t, "lan1", 2)
			if route != "" {
				lab.IP(t, "route add "+route)
				t.Cleanup(func() { lab.IP(t, "route del "+route) })
			}
			if name == "two devices" {
				lab.IP(t, "addr add 10.1.0.1/32 dev lan1")
			}
			other := peerSocket(t, h, "0.0.0.0:1900")
			joinGroup(t, other)
			heard := make(chan Packet, 1)
			u, next := listenUDP(t, "lan0", 1900), listenUDP(t, "lan1", 1900)
			for _, u := range []*UDP{u, next} {
				if err := u.Join(group); err != nil {
					t.Fatal(err)
				}
			}
			responder(t, u, heard, "NOTIFY * HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\n\r\n")
			reply, err := SelfSearch(deadline(t), "lan0", netip.MustParseAddr("10.1.0.1"), ssdpGroup, []byte(mSearch))
			if err != nil || !strings.HasPrefix(string(reply), "HTTP/1.1 200 OK\r\nST") {
				t.Errorf("answer %q, %v", reply, err)
			}
			lan0, err := net.InterfaceByName("lan0")
			if err != nil {
				t.Fatal(err)
			}
			if p := <-heard; p.IfIndex != lan0.Index || p.Dst != group || p.Src.Addr().String() != "10.1.0.1" {
				t.Errorf("arrived as %+v", p)
			}
			// What follows the search is the first that others hear.
			if err := u.WriteTo(deadline(t), []byte("later"), ssdpGroup, netip.Addr{}); err != nil {
				t.Fatal(err)
			}
			if err := next.WriteTo(deadline(t), []byte("later"), ssdpGroup, netip.Addr{}); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			if n, _, err := other.ReadFromUDPAddrPort(buf); err != nil || string(buf[:n]) != "later" {
				t.Errorf("the LAN heard %q, %v", buf[:n], err)
			}
			if text, _ := receive(t, next); text != "later" {
				t.Errorf("the other LAN's socket heard %q", text)
			}
		})
	}
}

// A search that nobody answers, and answers of others, are no answer.
func TestSelfSearchUnanswered(t *testing.T) {
	h := newLAN(t, "lan0", 1)
	u := listenUDP(t, "lan0", 1900)
	self := netip.MustParseAddr("10.1.0.1")
	search := func(group netip.AddrPort) []byte {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		reply, err := SelfSearch(ctx, "lan0", self, group, []byte(mSearch))
		if err != nil {
			t.Error(err)
		}
		return reply
	}
	if reply := search(ssdpGroup); reply != nil {
		t.Errorf("nobody joined: %q", reply)
	}
	if err := u.Join(group); err != nil {
		t.Fatal(err)
	}
	heard := make(chan Packet, 1)
	responder(t, u, heard, "HTTP/1.1 404 Not Found\r\n\r\n", "")
	if reply := search(ssdpGroup); reply != nil {
		t.Errorf("%q", reply)
	}
	<-heard
	foreign := peerSocket(t, h, "10.1.0.2:0")
	ctx := deadline(t)
	go func() {
		_, p, err := u.ReadFrom(ctx, make([]byte, 1500))
		if err == nil {
			_, err = foreign.WriteToUDPAddrPort([]byte("HTTP/1.1 200 OK\r\n\r\n"), p.Src)
		}
		if err != nil {
			t.Error(err)
		}
		heard <- p
	}()
	if reply := search(ssdpGroup); reply != nil {
		t.Errorf("an answer of a LAN host counts: %q", reply)
	}
	<-heard
}

func TestSelfSearchErrors(t *testing.T) {
	newLAN(t, "lan0", 1)
	self := netip.MustParseAddr("10.1.0.1")
	for what, call := range map[string]func() ([]byte, error){
		"no device": func() ([]byte, error) {
			return SelfSearch(deadline(t), "nosuch0", self, ssdpGroup, []byte(mSearch))
		},
		"not our address": func() ([]byte, error) {
			return SelfSearch(deadline(t), "lan0", netip.MustParseAddr("10.1.0.9"), ssdpGroup, []byte(mSearch))
		},
		"no address": func() ([]byte, error) {
			return SelfSearch(deadline(t), "lan0", netip.Addr{}, ssdpGroup, []byte(mSearch))
		},
		"IPv6": func() ([]byte, error) {
			return SelfSearch(deadline(t), "lan0", self, addr("[ff02::c]:1900"), []byte(mSearch))
		},
	} {
		if reply, err := call(); err == nil {
			t.Errorf("%s: %q, no error", what, reply)
		}
	}
}

// Without an answer it ends by itself, after the time that responders may take.
func TestSelfSearchEnds(t *testing.T) {
	newLAN(t, "lan0", 1)
	start := time.Now()
	reply, err := SelfSearch(context.Background(), "lan0", netip.MustParseAddr("10.1.0.1"), ssdpGroup, []byte(mSearch))
	if took := time.Since(start); reply != nil || err != nil || took < selfSearchTime || took > selfSearchTime+aWhile {
		t.Errorf("%q, %v after %v", reply, err, took)
	}
}
