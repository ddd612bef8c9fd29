package ssdp

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/sock"
)

// The same server on a real socket, real multicast and a bridge.

// listen opens a socket on a host and, if asked, joins the group.
func listen(t *testing.T, h *lab.Host, dev string, port uint16, join bool) *sock.UDP {
	t.Helper()
	var u *sock.UDP
	err := h.Do(func() (err error) {
		u, err = sock.ListenUDP(dev, port)
		if err == nil && join {
			err = u.Join(Group4())
		}
		return err
	})
	if err != nil {
		t.Fatalf("socket on %s: %v", h.Name, err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// startLab raises a lab whose cables are in: they come up in the background, and
// drop what is sent before.
func startLab(t *testing.T) *lab.Lab {
	t.Helper()
	l := lab.Start(t)
	for from, to := range map[*lab.Host]*lab.Host{l.LAN1: l.Router, l.LAN2: l.Router, l.Router: l.Internet} {
		echo, err := to.EchoTCP(7)
		if err == nil {
			_, err = l.ReachTCP(from, netip.AddrPortFrom(to.Addr, 7).String(), 10*time.Second)
			echo.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// heard is one datagram as a host got it.
type heard struct {
	src  netip.AddrPort
	text string
}

// hear reads n datagrams, or fewer when a second passes without one.
func hear(t *testing.T, u *sock.UDP, n int, patience time.Duration) (list []heard) {
	t.Helper()
	buf := make([]byte, 2048)
	for len(list) < n {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		k, packet, err := u.ReadFrom(ctx, buf)
		cancel()
		if err != nil {
			break
		}
		list = append(list, heard{packet.Src, string(buf[:k])})
	}
	return list
}

// field returns the values of one header in what was heard.
func field(list []heard, name string) (values []string) {
	for _, h := range list {
		for _, line := range strings.Split(h.text, "\r\n") {
			if v, ok := strings.CutPrefix(line, name+": "); ok {
				values = append(values, v)
			}
		}
	}
	return values
}

func usns() (list []string) {
	for _, row := range v1().Targets {
		list = append(list, row.USN())
	}
	return list
}

// serveLab runs a server on the router of the lab; stop ends it.
func serveLab(t *testing.T, l *lab.Lab, u *sock.UDP, lan LAN, devices ...Device) (announced <-chan struct{}, stop func()) {
	t.Helper()
	err := l.Router.Do(func() error {
		dev, err := net.InterfaceByName(lab.LANDev)
		if err == nil {
			lan.IfIndex = dev.Index
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(devices...)
	cfg.Logf = t.Logf
	s := New(cfg, lan, u)
	ctx, cancel := context.WithCancel(context.Background())
	told, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.Run(ctx, func(err error) {
			if err == nil {
				close(told)
			}
		})
	}()
	end := func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		done <- nil
	}
	t.Cleanup(end)
	return told, end
}

// searchLab sends a search and returns the answers, the number that is wanted.
func searchLab(t *testing.T, u *sock.UDP, datagram string, to netip.AddrPort, want int) []heard {
	t.Helper()
	return searchScope(t, testLAN().Scopes[0], u, datagram, to, want)
}

// searchScope is searchLab where that scope must answer.
func searchScope(t *testing.T, scope Scope, u *sock.UDP, datagram string, to netip.AddrPort, want int) []heard {
	t.Helper()
	begun := time.Now()
	if err := u.WriteTo(context.Background(), []byte(datagram), to, netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	got := hear(t, u, want, 5*time.Second)
	if n := len(got); n != want {
		t.Fatalf("search to %s drew %d answers, want %d", to, n, want)
	}
	t.Logf("%d answers from %s within %v", want, to, time.Since(begun))
	for _, h := range got {
		if h.src != netip.AddrPortFrom(scope.Addr, Port) || !strings.HasPrefix(h.text, "HTTP/1.1 200 OK\r\n") { // SSDP-44
			t.Errorf("answer from %s: %q", h.src, h.text)
		}
	}
	return got
}

func TestLab(t *testing.T) {
	l := startLab(t)
	group := netip.AddrPortFrom(Group4(), Port)
	router := netip.AddrPortFrom(routerAddr, Port)
	l.Internet.Run(t, "ip", "route", "add", lab.LANPrefix, "via", lab.WANAddr)
	for _, tt := range []struct{ name, route string }{
		{"default route by the WAN", ""},
		{"no route for multicast at all", "default"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.route != "" {
				l.Router.Run(t, "ip", "route", "del", tt.route)
			}
			outside := listen(t, l.Internet, lab.HostDev, Port, true)
			inside := listen(t, l.LAN2, lab.HostDev, Port, true)
			announced, stop := serveLab(t, l, listen(t, l.Router, lab.LANDev, Port, true), testLAN(), v1())
			<-announced

			// SSDP-1, SSDP-20, SSDP-30
			first := hear(t, inside, 40, 5*time.Second)
			if n := len(first); n != 40 {
				t.Fatalf("a LAN host heard %d announcements, want 40", n)
			}
			for i, set := range [][]heard{first[:10], first[10:20], first[20:30], first[30:]} {
				nts := []string{"ssdp:byebye", "ssdp:byebye", "ssdp:alive", "ssdp:alive"}[i]
				if got := field(set, "USN"); !slices.Equal(got, usns()) {
					t.Errorf("set %d has the rows %q, want %q", i, got, usns())
				}
				if got := slices.Compact(field(set, "NTS")); !slices.Equal(got, []string{nts}) {
					t.Errorf("set %d is %q, want %s", i, got, nts)
				}
			}

			// Searches of a LAN host, without and with the group (SSDP-42, SSDP-43).
			client := listen(t, l.LAN1, lab.HostDev, 0, false)
			for _, to := range []netip.AddrPort{group, router} {
				got := searchLab(t, client, mSearch(man, "MX: 1", all), to, 10)
				if rows := field(got, "USN"); !slices.Equal(rows, usns()) {
					t.Errorf("ssdp:all to %s: %q, want %q", to, rows, usns())
				}
			}
			// From port 1900, as a control point with one socket does.
			hear(t, inside, 1, 100*time.Millisecond) // the multicast search above
			searchLab(t, inside, mSearch(man, "ST: upnp:rootdevice"), router, 1)

			// Searches of the router itself, by a socket on the LAN device.
			own := listen(t, l.Router, lab.LANDev, 0, false)
			for _, to := range []netip.AddrPort{group, router} {
				searchLab(t, own, mSearch(man, "MX: 1", "ST: upnp:rootdevice"), to, 1)
			}

			// Nothing for the WAN side (SSDP-8).
			for _, to := range []netip.AddrPort{group, router, netip.AddrPortFrom(netip.MustParseAddr(lab.WANAddr), Port)} {
				err := outside.WriteTo(context.Background(), []byte(mSearch(man, "MX: 1", all)), to, netip.Addr{})
				if err != nil {
					t.Fatal(err)
				}
			}
			hear(t, inside, 100, 100*time.Millisecond)
			stop()

			last := hear(t, inside, 20, 5*time.Second) // SSDP-33
			if got := field(last, "NTS"); len(got) != 20 || slices.Compact(got)[0] != "ssdp:byebye" {
				t.Errorf("heard at the end: %q", got)
			}
			if got := field(last, "USN"); !slices.Equal(got, append(usns(), usns()...)) {
				t.Errorf("byebye rows %q", got)
			}
			for _, h := range hear(t, outside, 100, 100*time.Millisecond) {
				if h.src.Addr() != netip.MustParseAddr(lab.InternetAddr) {
					t.Errorf("on the WAN side, from %s: %q", h.src, h.text)
				}
			}
		})
	}
}
