package clients

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// notices is what a host hears of the groups of IPv6.
type notices chan string

// hear begins to listen on a host.
func (w *pinRouter) hear(h *lab.Host) notices {
	w.t.Helper()
	var c *net.UDPConn
	if err := h.Do(func() error {
		listen := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			var joined error
			err := raw.Control(func(fd uintptr) {
				dev, err := net.InterfaceByName(lab.HostDev)
				for _, group := range []string{"ff02::c", "ff05::c"} {
					if err == nil {
						err = syscall.SetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_JOIN_GROUP,
							&syscall.IPv6Mreq{Multiaddr: netip.MustParseAddr(group).As16(), Interface: uint32(dev.Index)})
					}
				}
				joined = err
			})
			return errors.Join(err, joined)
		}}
		p, err := listen.ListenPacket(context.Background(), "udp6", "[::]:1900")
		if err == nil {
			c = p.(*net.UDPConn)
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	all := make(notices, 10000)
	go func() {
		defer close(all)
		for buf := make([]byte, 2000); ; {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			all <- string(buf[:n])
		}
	}()
	return all
}

// until reads on to a notification with all these lines, which must come within a
// second, and gives its BOOTID.
func (n notices) until(t *testing.T, lines ...string) (bootID int) {
	t.Helper()
	timeout := time.After(time.Second)
next:
	for {
		select {
		case <-timeout:
			t.Errorf("no NOTIFY with %q within a second", lines)
			return 0
		case msg := <-n:
			for _, line := range lines {
				if !strings.Contains(msg, "\r\n"+line) {
					continue next
				}
			}
			found := regexp.MustCompile(`\r\nBOOTID\.UPNP\.ORG: *(\d+)\r\n`).FindStringSubmatch(msg)
			if found == nil {
				t.Fatalf("no BOOTID in %q", msg)
			}
			bootID, _ = strconv.Atoi(found[1])
			return bootID
		}
	}
}

// The prefix that comes next, and lan1's address in it.
const (
	pinNextRouter = "2001:db8:88::1"
	pinNextHost   = "2001:db8:88::10"
)

// TestPrefixChange: pinholes of a prefix end with it, and the router is found under
// the next one, where pinholes work (issue 6, points 3 and 4; SPEC PIN-10, SSDP-15).
func TestPrefixChange(t *testing.T) {
	pinVariants(t, func(t *testing.T, w *pinRouter) {
		w.start()
		w.Internet.Run(t, "ip", "route", "add", "2001:db8:88::/64", "via", lab.WANAddr6)
		w.LAN1.Run(t, "ip", "addr", "add", pinNextHost+"/64", "dev", lab.HostDev, "nodad")
		heard := w.hear(w.LAN1)
		moves := func(change, location string) {
			t.Helper()
			w.Router.Run(t, "sh", "-ec", change)
			old := heard.until(t, "NTS: ssdp:byebye")
			if now := heard.until(t, "NTS: ssdp:alive", "LOCATION: http://["+location+"]:"); now <= old {
				t.Errorf("after %s: BOOTID %d, was %d", change, now, old)
			}
		}
		p := w.point(w.LAN1, lab.LAN1Addr) // goes on to ask while the prefixes change
		tcp, udp := p.add("", 0, "TCP", 3600), p.add("", 0, "UDP", 3600)
		ula, code := p.try("", 0, lab.LAN1ULA, pinPort, "TCP", 3600)
		if code != 0 {
			t.Fatalf("for the ULA: error %d", code)
		}
		w.wantIn("before", true, true)
		if _, code := p.try("", 0, pinNextHost, pinPort, "TCP", 3600); code != 606 {
			t.Errorf("a pinhole for a prefix that is none: error %d, want 606", code)
		}

		// The end of a prefix begins with its deprecation (RFC 4862): what is open
		// stays so, the router is found under the next one.
		moves("ip addr add "+pinNextRouter+"/64 dev br-lan nodad; ip addr change "+lab.RouterLANAddr6+"/64 dev br-lan preferred_lft 0", pinNextRouter)
		w.wantIn("with a deprecated prefix", true, true)
		w.losePrefix(p, tcp, udp)
		if !w.inKernel(lab.LAN1ULA) || p.packets(ula) != 0 {
			t.Error("the pinhole of the ULA is gone, too")
		}
		accepts := w.usePrefix()

		// A prefix that goes at once. There is a ULA, under which the router is found.
		moves("ip addr del "+pinNextRouter+"/64 dev br-lan", lab.RouterULA)
		w.until("the kernel has nothing of the second prefix", func() bool { return !w.inKernel(pinNextHost) })
		w.Router.Run(t, "ip", "route", "add", "2001:db8:88::/64", "dev", lab.LANDev)
		if accepts(pinSilence) {
			t.Error("the second prefix is open")
		}
		w.stop()
	})
}

// losePrefix takes the first prefix from the router; its pinholes are closed at once,
// and open again when it is back soon, as after a restart of the LAN.
func (w *pinRouter) losePrefix(p *pinPoint, ids ...string) {
	w.t.Helper()
	if !w.asks(lab.InternetAddr6, 4000, pinPatience) {
		w.t.Error("no answer to a fixed port")
	}
	w.Router.Run(w.t, "ip", "addr", "del", lab.RouterLANAddr6+"/64", "dev", lab.LANDev)
	w.until("the kernel has nothing of the old prefix", func() bool { return !w.inKernel(lab.LAN1Addr6) })
	w.until("nor is the flow tracked", func() bool { return !w.tracked(lab.InternetAddr6, 4000) })
	w.Router.Run(w.t, "ip", "route", "add", "2001:db8:77::/64", "dev", lab.LANDev) // even if the router still leads there
	w.wantIn("without the prefix", false, false)
	if _, code := p.try("", 0, lab.LAN1Addr6, pinPort, "TCP", 3600); code != 606 {
		w.t.Errorf("a pinhole for the prefix that was: error %d, want 606", code)
	}
	w.Router.Run(w.t, "ip", "addr", "add", lab.RouterLANAddr6+"/64", "dev", lab.LANDev, "nodad", "preferred_lft", "0")
	w.until("the kernel has the old prefix again", func() bool { return w.inKernel(lab.LAN1Addr6) })
	w.wantIn("with the prefix again", true, true)
	for _, id := range ids {
		if p.packets(id) == 0 {
			w.t.Error("nothing was counted")
		}
	}
	w.Router.Run(w.t, "ip", "addr", "del", lab.RouterLANAddr6+"/64", "dev", lab.LANDev)
	w.until("the kernel has nothing of the old prefix", func() bool { return !w.inKernel(lab.LAN1Addr6) })
}

// usePrefix opens a pinhole in the next prefix. accepts reports whether connections come in there.
func (w *pinRouter) usePrefix() (accepts func(timeout time.Duration) bool) {
	w.t.Helper()
	p := w.unpointed(w.LAN1, pinNextHost)
	found := pinLocation.FindStringSubmatch(p.search(pinService, pinNextRouter, pinPatience))
	if found == nil || !strings.HasPrefix(found[1], "http://["+pinNextRouter+"]:") {
		w.t.Fatalf("a search on the next prefix finds %q", found)
	}
	p.read(found[1])
	to := "[" + pinNextHost + "]:8080"
	if _, err := w.LAN1.ListenTCP(to); err != nil {
		w.t.Fatal(err)
	}
	accepts = func(timeout time.Duration) bool {
		c, err := w.Internet.Dial("tcp", to, timeout)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if accepts(pinSilence) {
		w.t.Error("the next prefix is open")
	}
	if _, code := p.try("", 0, pinNextHost, pinPort, "TCP", 3600); code != 0 {
		w.t.Errorf("a pinhole on the next prefix: error %d", code)
	}
	if !accepts(pinPatience) {
		w.t.Error("the pinhole on the next prefix does not work")
	}
	return accepts
}
