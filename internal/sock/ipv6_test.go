package sock

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// The groups of SSDP-6, and the addresses of newLAN6's first LAN.
var (
	linkGroup, siteGroup   = netip.MustParseAddr("ff02::c"), netip.MustParseAddr("ff05::c")
	routerLink, routerSite = netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fd00:1::1")
	hostLink, hostSite     = netip.MustParseAddr("fe80::2"), netip.MustParseAddr("fd00:1::2")
)

// newLAN6 is newLAN with fe80::1/64 and fd00:INDEX::1/64 here, and ::2 there,
// usable at once.
func newLAN6(t *testing.T, dev string, index int) *host {
	t.Helper()
	h := newLAN(t, dev, index)
	give := func(dev string, n int) {
		lab.IP(t, "-6 addr flush dev "+dev,
			fmt.Sprintf("addr add fe80::%d/64 dev %s nodad", n, dev),
			fmt.Sprintf("addr add fd00:%d::%d/64 dev %s nodad", index, n, dev))
		// The kernel takes them for its own a moment later.
		for end := time.Now().Add(aWhile); ; {
			out, err := exec.Command("ip", "-6", "route", "show", "table", "local", "type", "local", "dev", dev).Output()
			if err != nil || time.Now().After(end) {
				t.Fatalf("addresses of %s: %v: %s", dev, err, out)
			}
			if strings.Count(string(out), "local f") == 2 {
				return
			}
		}
	}
	give(dev, 1)
	h.do(func() { give("eth0", 2) })
	return h
}

// zoned gives an address the zone that package net needs on the host: a number,
// since that package remembers names of devices across namespaces.
func zoned(t *testing.T, h *host, a netip.Addr) netip.Addr {
	t.Helper()
	if !a.IsLinkLocalUnicast() && !a.IsMulticast() {
		return a
	}
	h.do(func() {
		dev, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		a = a.WithZone(fmt.Sprint(dev.Index))
	})
	return a
}

func listenUDP6(t *testing.T, dev string, port uint16, groups ...netip.Addr) *UDP {
	t.Helper()
	u, err := ListenUDP6(dev, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, group := range groups {
		if err := u.Join(group); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

// peer6 opens an ordinary UDP socket on the host.
func peer6(t *testing.T, h *host, local netip.Addr, port uint16) *net.UDPConn {
	t.Helper()
	to := netip.AddrPortFrom(zoned(t, h, local), port)
	var c *net.UDPConn
	var err error
	h.do(func() { c, err = net.ListenUDP("udp6", net.UDPAddrFromAddrPort(to)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(aWhile)); err != nil {
		t.Fatal(err)
	}
	return c
}

func send6(t *testing.T, h *host, c *net.UDPConn, text string, to netip.Addr) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), netip.AddrPortFrom(zoned(t, h, to), 1900)); err != nil {
		t.Fatal(err)
	}
}

// SSDP-6: the socket knows which address or group was asked, in both scopes.
func TestReadFrom6SaysWhereItArrived(t *testing.T) {
	h := newLAN6(t, "lan0", 1)
	newLAN6(t, "lan1", 2)
	u := listenUDP6(t, "lan0", 1900, linkGroup, siteGroup, siteGroup) // joined already: no error
	v4 := listenUDP(t, "lan0", 1900)                                  // beside it: each has its family
	lan0, err := net.InterfaceByName("lan0")
	if err != nil {
		t.Fatal(err)
	}
	for _, src := range []netip.Addr{hostLink, hostSite} {
		c := peer6(t, h, src, 4444)
		for _, dst := range []netip.Addr{routerLink, routerSite, linkGroup, siteGroup} {
			text := fmt.Sprintf("%s to %s", src, dst)
			send6(t, h, c, text, dst)
			got, p := receive(t, u)
			want := Packet{Src: netip.AddrPortFrom(src, 4444), Dst: dst, IfIndex: lan0.Index}
			if got != text || p != want {
				t.Errorf("got %q %+v, want %+v", got, p, want)
			}
		}
	}
	sendTo(t, peerSocket(t, h, "10.1.0.2:4444"), "IPv4", "10.1.0.1:1900")
	if text, p := receive(t, v4); text != "IPv4" || p.Src != addr("10.1.0.2:4444") {
		t.Errorf("the IPv4 socket got %q %+v", text, p)
	}
	c := peer6(t, h, hostSite, 4445)
	send6(t, h, c, "12345", routerSite)
	n, p, err := u.ReadFrom(deadline(t), make([]byte, 4))
	if !errors.Is(err, ErrTruncated) || n != 4 || p.Dst != routerSite {
		t.Errorf("5 bytes into 4: %d, %+v, %v; want ErrTruncated", n, p, err)
	}
}

// SSDP-7: the kernel has the groups on this device and on no other.
func TestJoin6(t *testing.T) {
	newLAN6(t, "lan1", 2) // the first one is where the routes point
	newLAN6(t, "lan0", 1)
	joined := func(dev string) string {
		out, err := exec.Command("ip", "-6", "maddr", "show", "dev", dev).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	u := listenUDP6(t, "lan0", 1900, linkGroup, siteGroup)
	for _, group := range []string{"ff02::c\n", "ff05::c\n"} {
		if !strings.Contains(joined("lan0"), group) || strings.Contains(joined("lan1"), group) {
			t.Errorf("%q:\n%s%s", group, joined("lan0"), joined("lan1"))
		}
	}
	sockets, err := exec.Command("ss", "-6uanp", "sport = 1900").CombinedOutput()
	if err != nil || !strings.Contains(string(sockets), "%lan0:1900") {
		t.Errorf("%v: %s", err, sockets)
	}
	for _, bad := range []string{"10.1.0.1", "fe80::1", "239.255.255.250", "::ffff:239.255.255.250"} {
		if err := u.Join(netip.MustParseAddr(bad)); err == nil {
			t.Errorf("join %s: no error", bad)
		}
	}
}

// Other groups that the router joined elsewhere are not ours (IPV6_MULTICAST_ALL).
func TestOnlyJoinedGroups6(t *testing.T) {
	h := newLAN6(t, "lan0", 1)
	listenUDP6(t, "lan0", 0, siteGroup)
	u := listenUDP6(t, "lan0", 1900, linkGroup)
	c := peer6(t, h, hostLink, 4444)
	send6(t, h, c, "not joined", siteGroup)
	send6(t, h, c, "unicast", routerLink)
	if text, _ := receive(t, u); text != "unicast" {
		t.Errorf("got %q, want only the unicast datagram", text)
	}
}

// SSDP-8: nothing from another device is heard or served, not even for our
// address.
func TestOtherDevices6(t *testing.T) {
	lan := newLAN6(t, "lan0", 1)
	wan := newLAN6(t, "wan0", 2)
	u := listenUDP6(t, "lan0", 1900, linkGroup, siteGroup)
	l := listenTCP6(t, "lan0")
	wan.do(func() { lab.IP(t, "-6 route add fd00:1::/64 via fd00:2::1") })
	outside := peer6(t, wan, netip.IPv6Unspecified(), 4444)
	for _, to := range []netip.Addr{routerLink, routerSite, netip.MustParseAddr("fd00:2::1"), linkGroup, siteGroup} {
		send6(t, wan, outside, "from the WAN", to)
		if to.IsMulticast() {
			continue
		}
		if _, err := dial6(t, wan, to, l.Port()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("connect to %s from the WAN: %v, want refused", to, err)
		}
	}
	send6(t, lan, peer6(t, lan, hostSite, 4444), "from the LAN", routerSite)
	if text, p := receive(t, u); text != "from the LAN" {
		t.Errorf("got %q %+v", text, p)
	}
}

// SSDP-44: answers come from the address that the caller names.
func TestWriteTo6Source(t *testing.T) {
	h := newLAN6(t, "lan0", 1)
	newLAN6(t, "lan1", 2)
	lab.IP(t, "addr add fd00:1::9/64 dev lan0 nodad", "addr add fe80::9/64 dev lan1 nodad")
	u := listenUDP6(t, "lan0", 1900)
	for _, dst := range []netip.Addr{hostLink, hostSite} {
		c := peer6(t, h, dst, 4444)
		to := netip.AddrPortFrom(dst, 4444)
		for src, want := range map[string]bool{
			"fe80::1":         true,
			"fd00:1::1":       true,
			"fd00:1::9":       true,
			"fd00:1::77":      false, // not ours
			"fe80::9":         false, // another link's
			"10.1.0.1":        false,
			"::ffff:10.1.0.1": false,
		} {
			src := netip.MustParseAddr(src)
			if err := u.WriteTo(deadline(t), []byte("x"), to, src); (err == nil) != want {
				t.Errorf("%s to %s: %v", src, dst, err)
			} else if !want {
				continue
			}
			_, from, err := c.ReadFromUDPAddrPort(make([]byte, 10))
			if err != nil || from.Addr().WithZone("") != src || from.Port() != 1900 {
				t.Errorf("%s to %s: arrived from %s, %v", src, dst, from, err)
			}
		}
	}
	for _, to := range []string{"10.1.0.2:1900", "[::ffff:10.1.0.2]:1900"} {
		if err := u.WriteTo(deadline(t), nil, addr(to), netip.Addr{}); err == nil {
			t.Errorf("to %s: no error", to)
		}
	}
}

// Multicast leaves by the socket's device with a hop limit of 2 (SSDP-2),
// whatever the routes are.
func TestWriteTo6Multicast(t *testing.T) {
	lab.NeedAlone(t)
	for name, route := range map[string]string{
		"none":        "",
		"other":       "-6 route add default via fd00:2::2",
		"unreachable": "-6 route add unreachable default dev lo",
	} {
		t.Run(name, func(t *testing.T) {
			lan := newLAN6(t, "lan0", 1)
			newLAN6(t, "wan0", 2)
			if route != "" {
				lab.IP(t, route)
			}
			if name == "unreachable" {
				t.Cleanup(func() { lab.IP(t, "-6 route del unreachable default dev lo") })
			}
			c := peer6(t, lan, netip.IPv6Unspecified(), 1900)
			join6(t, lan, c)
			u := listenUDP6(t, "lan0", 1900)
			for _, test := range []struct{ group, src netip.Addr }{{linkGroup, routerLink}, {siteGroup, routerSite}} {
				for _, src := range []netip.Addr{test.src, {}} {
					err := u.WriteTo(deadline(t), []byte("NOTIFY"), netip.AddrPortFrom(test.group, 1900), src)
					if err != nil {
						t.Fatal(err)
					}
					buf, oob := make([]byte, 100), make([]byte, 100)
					n, oobn, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
					if err != nil {
						t.Fatal(err)
					}
					if string(buf[:n]) != "NOTIFY" || from.Addr().WithZone("") != test.src {
						t.Errorf("%s: got %q from %s", test.group, buf[:n], from)
					}
					if hops := hopLimit(t, oob[:oobn]); hops != 2 {
						t.Errorf("hop limit %d, want 2", hops)
					}
				}
			}
		})
	}
}

// join6 joins both groups on the host, and asks for the hop limit of what
// arrives.
func join6(t *testing.T, h *host, c *net.UDPConn) {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var errs []error
	h.do(func() {
		dev, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		errs = append(errs, rc.Control(func(fd uintptr) {
			for _, group := range []netip.Addr{linkGroup, siteGroup} {
				m := &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(dev.Index)}
				errs = append(errs, unix.SetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, m))
			}
			errs = append(errs, unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1))
		}))
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func hopLimit(t *testing.T, oob []byte) uint32 {
	t.Helper()
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT {
			return binary.NativeEndian.Uint32(m.Data)
		}
	}
	t.Fatal("no hop limit")
	return 0
}

// Control points on the router itself hear our multicast, and their searches,
// from whichever address, get answers.
func TestMulticastLoop6(t *testing.T) {
	newLAN6(t, "lan0", 1)
	a, b := listenUDP6(t, "lan0", 0), listenUDP6(t, "lan0", 1900, linkGroup, siteGroup)
	for _, group := range []netip.Addr{linkGroup, siteGroup} {
		for _, src := range []netip.Addr{routerLink, routerSite} {
			if err := a.WriteTo(deadline(t), []byte("search"), netip.AddrPortFrom(group, 1900), src); err != nil {
				t.Fatal(err)
			}
			text, p := receive(t, b)
			if text != "search" || p.Dst != group || p.Src != netip.AddrPortFrom(src, a.Port()) {
				t.Errorf("got %q %+v", text, p)
			}
			if err := b.WriteTo(deadline(t), []byte("answer"), p.Src, routerLink); err != nil {
				t.Fatal(err)
			}
			if text, p := receive(t, a); text != "answer" || p.Src != netip.AddrPortFrom(routerLink, 1900) {
				t.Errorf("%s from %s: answer %q %+v", group, src, text, p)
			}
		}
	}
}

func TestReadFrom6Ends(t *testing.T) {
	newLAN6(t, "lan0", 1)
	u := listenUDP6(t, "lan0", 0)
	if u.Port() == 0 {
		t.Error("port 0: the kernel's choice is not reported")
	}
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan error)
	go func() {
		_, _, err := u.ReadFrom(ctx, make([]byte, 10))
		got <- err
	}()
	cancel()
	if err := wantSoon(t, got); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
}
