package clients

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// logged waits until the daemon has written text n times.
func (w *pinRouter) logged(text string, n int) {
	w.t.Helper()
	for end := time.Now().Add(pinPatience); strings.Count(w.daemon.Log(), text) < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not %d times %q in the log", n, text)
		}
	}
}

// inKernel reports whether the kernel has anything of ours about an address.
func (w *pinRouter) inKernel(addr string) bool {
	w.t.Helper()
	if w.firewall == lab.Nftables {
		return strings.Contains(w.Router.Run(w.t, "nft", "list", "table", "inet", "upnpd"), addr)
	}
	return strings.Contains(w.Router.Run(w.t, strings.Replace(w.firewall, "ip", "ip6", 1), "-w", "-S", "UPNPD"), addr)
}

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

// TestPrefixChange: pinholes of a prefix end with it, and the router is found under
// the next one, where pinholes work (issue 6, points 3 and 4; SPEC PIN-10, SSDP-15).
func TestPrefixChange(t *testing.T) {
	pinVariants(t, func(t *testing.T, w *pinRouter) {
		w.start()
		const router, host = "2001:db8:88::1", "2001:db8:88::10"
		w.Internet.Run(t, "ip", "route", "add", "2001:db8:88::/64", "via", lab.WANAddr6)
		w.LAN1.Run(t, "ip", "addr", "add", host+"/64", "dev", lab.HostDev, "nodad")
		heard := w.hear(w.LAN1)
		one := w.point(w.LAN1, lab.LAN1ULA) // goes on to ask while the prefixes change
		four := w.point(w.LAN1, lab.LAN1Addr)
		tcp, udp := one.add("", 0, "TCP", 3600), one.add("", 0, "UDP", 3600)
		ula, code := one.try("", 0, lab.LAN1ULA, pinPort, "TCP", 3600)
		if code != 0 {
			t.Fatalf("for the ULA: error %d", code)
		}
		w.wantIn("before", true, true)
		if !w.asks(lab.InternetAddr6, 4000, pinPatience) {
			t.Error("no answer to a fixed port")
		}
		if _, code := one.try("", 0, host, pinPort, "TCP", 3600); code != 606 {
			t.Errorf("a pinhole for a prefix that is none: error %d, want 606", code)
		}

		// The end of a prefix begins with its deprecation (RFC 4862): what is open
		// stays so, the router is found under the next one.
		w.Router.Run(t, "ip", "addr", "add", router+"/64", "dev", lab.LANDev, "nodad")
		w.Router.Run(t, "ip", "addr", "change", lab.RouterLANAddr6+"/64", "dev", lab.LANDev, "preferred_lft", "0")
		old := heard.until(t, "NTS: ssdp:byebye")
		now := heard.until(t, "NTS: ssdp:alive", "LOCATION: http://["+router+"]:")
		if now <= old {
			t.Errorf("BOOTID %d, was %d", now, old)
		}
		w.wantIn("with a deprecated prefix", true, true)

		w.Router.Run(t, "ip", "addr", "del", lab.RouterLANAddr6+"/64", "dev", lab.LANDev)
		w.until("the kernel has nothing of the old prefix", func() bool { return !w.inKernel(lab.LAN1Addr6) })
		w.until("nor is the flow tracked", func() bool { return !w.tracked(lab.InternetAddr6, 4000) })
		for _, id := range []string{tcp, udp} {
			w.until("the table has not", func() bool { _, code := four.call("GetPinholePackets", "UniqueID", id); return code == 704 })
		}
		if !w.inKernel(lab.LAN1ULA) || four.packets(ula) != 0 {
			t.Error("the pinhole of the ULA is gone, too")
		}
		w.Router.Run(t, "ip", "route", "add", "2001:db8:77::/64", "dev", lab.LANDev) // even if the router still leads there
		w.wantIn("without the prefix", false, false)
		if _, code := four.try("", 0, lab.LAN1Addr6, pinPort, "TCP", 3600); code != 606 {
			t.Errorf("a pinhole for the prefix that was: error %d, want 606", code)
		}

		// The new one.
		p := w.unpointed(w.LAN1, host)
		found := pinLocation.FindStringSubmatch(p.search(pinService, router, pinPatience))
		if found == nil || !strings.HasPrefix(found[1], "http://["+router+"]:") {
			t.Fatalf("a search on the new prefix finds %q", found)
		}
		p.read(found[1])
		to := "[" + host + "]:8080"
		if _, err := w.LAN1.ListenTCP(to); err != nil {
			t.Fatal(err)
		}
		accepted := func(want bool) bool {
			timeout := pinSilence
			if want {
				timeout = pinPatience
			}
			c, err := w.Internet.Dial("tcp", to, timeout)
			if err == nil {
				c.Close()
			}
			return err == nil
		}
		if accepted(false) {
			t.Error("the new prefix is open")
		}
		if _, code := p.try("", 0, host, pinPort, "TCP", 3600); code != 0 {
			t.Errorf("a pinhole on the new prefix: error %d", code)
		}
		if !accepted(true) {
			t.Error("the pinhole on the new prefix does not work")
		}

		// A prefix that goes at once. There is a ULA, under which the router is found.
		w.Router.Run(t, "ip", "addr", "del", router+"/64", "dev", lab.LANDev)
		w.until("the kernel has nothing of the second prefix", func() bool { return !w.inKernel(host) })
		w.Router.Run(t, "ip", "route", "add", "2001:db8:88::/64", "dev", lab.LANDev)
		if accepted(false) {
			t.Error("the second prefix is open")
		}
		old = heard.until(t, "NTS: ssdp:byebye")
		if now := heard.until(t, "NTS: ssdp:alive", "LOCATION: http://["+lab.RouterULA+"]:"); now <= old {
			t.Errorf("BOOTID %d, was %d", now, old)
		}
	})
}

// wantIPv6 checks what there is of IPv6: sockets, rules, and the service in the tree of
// version 2, which it gives to a control point that asks by IPv4.
func (w *pinRouter) wantIPv6(when string, p *pinPoint, want bool) {
	w.t.Helper()
	sockets := w.Router.Run(w.t, "ss", "-H", "-6", "-a", "-n", "-t", "-u", "-w", "-p")
	if got := strings.Contains(sockets, fmt.Sprintf("pid=%d,", w.daemon.PID)); got != want {
		w.t.Errorf("%s: sockets of IPv6: %v, want %v\n%s", when, got, want, sockets)
	}
	list, ours := []string{strings.Replace(w.firewall, "ip", "ip6", 1), "-w", "-S"}, "UPNPD"
	if w.firewall == lab.Nftables {
		list, ours = []string{"nft", "list", "table", "inet", "upnpd"}, "6"
	}
	rules := strings.ReplaceAll(w.Router.Run(w.t, list[0], list[1:]...), "0x10000000", "")
	if got := strings.Contains(rules, ours); got != want {
		w.t.Errorf("%s: rules for pinholes: %v, want %v\n%s", when, got, want, rules)
	}
	timeout := pinSilence
	if want {
		timeout = pinPatience
	}
	if got := p.search(pinService, lab.RouterLANAddr, timeout) != ""; got != want {
		w.t.Errorf("%s: a search for the service is answered: %v, want %v", when, got, want)
	}
	found := pinLocation.FindStringSubmatch(p.search(pinConnect2, lab.RouterLANAddr, pinPatience))
	if found == nil {
		w.t.Fatalf("%s: no version 2", when)
	}
	p.read(found[1])
	if p.services[pinConnect2] == "" || (p.services[pinService] != "") != want {
		w.t.Errorf("%s: version 2 has %v", when, p.services)
	}
}

// TestNoIPv6: with ipv6 = no there is nothing of IPv6, and reload switches it.
func TestNoIPv6(t *testing.T) {
	pinVariants(t, func(t *testing.T, w *pinRouter) {
		conf := filepath.Join(t.TempDir(), "upnpd.conf")
		configure := func(value string) {
			t.Helper()
			if err := os.WriteFile(conf, []byte("ipv6 = "+value+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		reload := func(value string) {
			t.Helper()
			configure(value)
			n := strings.Count(w.daemon.Log(), "Advertisements Sent")
			w.daemon.Signal(syscall.SIGHUP)
			w.logged("Advertisements Sent", n+1)
		}
		p := w.unpointed(w.LAN1, lab.LAN1Addr)
		configure("no")
		w.start("--config", conf)
		w.wantIPv6("no from the start", p, false)
		reload("yes")
		w.wantIPv6("yes", p, true)
		id := p.add("", 0, "TCP", 3600)
		w.wantIn("yes", true, false)
		control := p.services[pinService]
		reload("no")
		w.wantIPv6("no again", p, false)
		w.wantIn("no again", false, false)
		if r, err := p.web.Get(control); err != nil || r.StatusCode != 404 {
			t.Errorf("the control URL is still there: %v, %v", r, err)
		}
		reload("yes")
		w.wantIPv6("yes again", p, true)
		p.want("GetPinholePackets", id, "", 704)
		w.wantIn("yes again", false, false)
		w.stop()
	})
}

// draws sends searches to the addresses, and gives who answers: the first, or all
// that do in the time for which MX 1 and a slow network ask.
func (p *pinPoint) draws(first bool, tos ...string) (from []string) {
	p.t.Helper()
	c, err := p.h.ListenUDP(netip.AddrPortFrom(p.from.WithZone(p.scope(p.from)), 0).String())
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	for _, to := range tos {
		a := netip.MustParseAddr(to)
		for _, target := range []string{"ssdp:all", "upnp:rootdevice", pinService} {
			msg := "M-SEARCH * HTTP/1.1\r\nHOST: [FF02::C]:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: " + target + "\r\n\r\n"
			if _, err := c.WriteToUDPAddrPort([]byte(msg), netip.AddrPortFrom(a.WithZone(p.scope(a)), 1900)); err != nil {
				p.t.Fatalf("to %s: %v", to, err)
			}
		}
	}
	c.SetReadDeadline(time.Now().Add(1300 * time.Millisecond))
	for buf := make([]byte, 1500); ; {
		_, answers, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return from
		}
		if from = append(from, answers.String()); first {
			return from
		}
	}
}

// TestNothingOnWAN6: nothing answers the internet by IPv6, whatever it asks (SPEC
// SSDP-8, SSDP-51, HTTP-13).
func TestNothingOnWAN6(t *testing.T) {
	w := raisePin(t, "iptables-legacy")
	w.Router.Run(t, "ip6tables-legacy", "-P", "FORWARD", "ACCEPT") // even so
	w.Internet.Run(t, "ip", "route", "add", "default", "via", lab.WANAddr6)
	heard, inside := w.hear(w.Internet), w.hear(w.LAN1)
	w.start()
	lan, link := w.point(w.LAN1, lab.LAN1Addr6), w.unpointed(w.LAN1, pinLinkLocal(t, w.LAN1, lab.HostDev))
	far, near := w.unpointed(w.Internet, lab.InternetAddr6), w.unpointed(w.Internet, pinLinkLocal(t, w.Internet, lab.HostDev))
	port := regexp.MustCompile(`\]:(\d+)/`).FindStringSubmatch(lan.location)[1]
	connects := func(p *pinPoint, to string) bool {
		c, err := p.dial("tcp", net.JoinHostPort(to, port))
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	lanLink, wanLink := pinLinkLocal(t, w.Router, lab.LANDev), pinLinkLocal(t, w.Router, lab.WANDev)

	// From the LAN all of it is there.
	for p, tos := range map[*pinPoint][]string{lan: {lab.RouterLANAddr6, "ff05::c"}, link: {lanLink, "ff02::c"}} {
		for _, to := range tos {
			if p.draws(true, to) == nil {
				t.Errorf("%s does not answer %v", to, p.from)
			}
		}
		if !connects(p, tos[0]) {
			t.Errorf("%s port %s does not serve %v", tos[0], port, p.from)
		}
	}
	inside.until(t, "NTS: ssdp:alive")

	for p, tos := range map[*pinPoint][]string{far: {lab.WANAddr6, lab.RouterLANAddr6, lab.RouterULA}, near: {wanLink}} {
		for _, to := range tos {
			if connects(p, to) {
				t.Errorf("%s port %s accepts %v", to, port, p.from)
			}
		}
		if from := p.draws(false, append(tos, "ff02::c", "ff05::c")...); from != nil {
			t.Errorf("port 1900 answers %v from %q", p.from, from)
		}
	}
	w.daemon.Stop(t)
	inside.until(t, "NTS: ssdp:byebye")
	for len(heard) > 0 {
		if msg := <-heard; !strings.HasPrefix(msg, "M-SEARCH ") { // its own
			t.Errorf("heard on the internet: %q", msg)
		}
	}
}

// TestFlushedPinholes: what somebody flushes comes back: with nftables by itself
// within a second, with ip6tables, which tells nobody, by HUP and by a change that
// finds nothing to change.
func TestFlushedPinholes(t *testing.T) {
	pinVariants(t, func(t *testing.T, w *pinRouter) {
		w.start()
		p := w.point(w.LAN1, lab.LAN1Addr6)
		id := p.add("", 0, "TCP", 3600)
		udp := p.add("", 0, "UDP", 3600)
		w.wantIn("before", true, true)
		six := strings.Replace(w.firewall, "ip", "ip6", 1)
		flushes := []string{six + " -w -F UPNPD", six + " -w -D FORWARD -j UPNPD", six + " -w -F FORWARD"}
		if w.firewall == lab.Nftables {
			flushes = []string{"nft flush table inet upnpd", "nft delete table inet upnpd",
				"nft flush set inet upnpd pin6", "nft flush chain inet upnpd forward"}
		}
		before := ""
		if w.firewall != lab.Nftables {
			before = w.Router.Run(t, six, "-w", "-S", "FORWARD")
		}
		for _, flush := range flushes {
			w.Router.Run(t, "sh", "-ec", flush)
			if w.firewall != lab.Nftables {
				w.wantIn("flushed", false, false)
				if strings.Contains(flush, "-F FORWARD") { // with what lets answers out
					for _, rule := range strings.Split(before, "\n") {
						if strings.HasPrefix(rule, "-A FORWARD") && !strings.Contains(rule, "UPNPD") {
							w.Router.Run(t, "sh", "-ec", six+" -w "+rule)
						}
					}
				}
				w.daemon.Signal(syscall.SIGHUP)
			}
			w.until("all is as before "+flush, func() bool {
				return w.comes("TCP", lan1at(pinPort), false) && w.comes("UDP", lan1at(pinPort), false)
			})
		}
		if w.firewall != lab.Nftables {
			w.Router.Run(t, six, "-w", "-F", "UPNPD")
			p.want("DeletePinhole", udp, "", 0)
			w.wantIn("after a change", true, false)
		}
		p.want("CheckPinholeWorking", id, "1", 0)
		w.stop()
	})
}
