package clients

import (
	"fmt"
	"os"
	"path/filepath"
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
