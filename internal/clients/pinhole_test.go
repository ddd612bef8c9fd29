package clients

import (
	"errors"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestPinhole: what comes in before, through and after a pinhole, by TCP and UDP, and
// what it counts (issue 6, points 4 and 5).
func TestPinhole(t *testing.T) {
	pinVariants(t, func(t *testing.T, w *pinRouter) {
		w.start()
		_, errTCP := w.LAN1.EchoTCP6(pinPort + 1)
		_, errUDP := w.LAN1.EchoUDP6(pinPort + 1)
		if err := errors.Join(errTCP, errUDP); err != nil {
			t.Fatal(err)
		}
		p := w.point(w.LAN1, lab.LAN1Addr6)
		w.wantIn("before", false, false)
		tcp, udp := p.add("", 0, "TCP", 600), p.add("", 0, "UDP", 600)
		for _, id := range []string{tcp, udp} { // PIN-7
			p.want("GetPinholePackets", id, "0", 0)
			p.want("CheckPinholeWorking", id, "", 709)
		}
		w.wantIn("with pinholes", true, true)
		for _, id := range []string{tcp, udp} {
			p.want("CheckPinholeWorking", id, "1", 0)
		}
		p.want("GetPinholePackets", udp, "1", 0)
		if n := p.packets(tcp); n < 3 {
			t.Errorf("a whole TCP connection counts %d packets", n)
		}
		if same := p.add("", 0, "UDP", 900); same != udp { // PIN-5
			t.Errorf("the same pinhole again has the ID %s, not %s", same, udp)
		}
		w.together(4, func(i int) { // another port, another host
			proto, to := []string{"TCP", "UDP"}[i%2], []string{lan1at(pinPort + 1), "[" + lab.LAN2Addr6 + "]:8080"}[i/2]
			if w.comes(proto, to, false) {
				t.Errorf("%s %s is open, too", proto, to)
			}
		})

		w.deleted(p, tcp, udp)
		w.expired(p, p.add("", 0, "TCP", 600), p.add("", 0, "UDP", 600))
		w.stop()
	})
}

// deleted deletes pinholes: for new connections and for one that goes on.
func (w *pinRouter) deleted(p *pinPoint, tcp, udp string) {
	w.t.Helper()
	if !w.asks(lab.InternetAddr6, 4000, pinPatience) {
		w.t.Fatal("no answer to a fixed port")
	}
	p.want("DeletePinhole", udp, "", 0)
	w.until("the flow ends with the pinhole", func() bool { return !w.tracked(lab.InternetAddr6, 4000) })
	if w.asks(lab.InternetAddr6, 4000, pinSilence) {
		w.t.Error("a flow goes on")
	}
	w.wantIn("with one deleted", true, false)
	p.want("DeletePinhole", tcp, "", 0)
	w.wantIn("with both deleted", false, false)
	for _, action := range []string{"DeletePinhole", "GetPinholePackets", "CheckPinholeWorking"} {
		p.want(action, tcp, "", 704)
	}
}

// expired lets the leases of pinholes end.
func (w *pinRouter) expired(p *pinPoint, tcp, udp string) {
	w.t.Helper()
	w.wantIn("with new ones", true, true)
	for _, id := range []string{tcp, udp} { // PIN-6
		if code := p.update(id, 1); code != 0 {
			w.t.Errorf("UpdatePinhole: error %d", code)
		}
	}
	time.Sleep(time.Second)
	w.until("the leases end", func() bool { _, code := p.call("GetPinholePackets", "UniqueID", udp); return code == 704 })
	w.wantIn("after expiry", false, false)
	if code := p.update(tcp, 600); code != 704 {
		w.t.Errorf("UpdatePinhole after expiry: error %d, want 704", code)
	}
}

// kept waits until the lease file says what it should.
func (w *pinRouter) kept(what string, ok func(leases string) bool) {
	w.t.Helper()
	read := func() string { return w.Router.Run(w.t, "cat", "/run/upnpd/leases") }
	for end := time.Now().Add(pinPatience); !ok(read()); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("the lease file has not %s:\n%s", what, read())
		}
	}
}

// TestPinholeRestart: pinholes outlive the daemon, however it ends, and are the same
// afterwards; the kernel ends them, where it can, without it (issue 6, point 5).
func TestPinholeRestart(t *testing.T) {
	t.Parallel()
	pinVariants(t, func(t *testing.T, w *pinRouter) {
		w.start()
		p := w.point(w.LAN1, lab.LAN1Addr6)
		id, short := p.add("", 0, "TCP", 3600), p.add("", 0, "UDP", 3600)
		w.kept("both", func(leases string) bool { return strings.Count(leases, " 8080 0 on UPnP ") == 2 })
		w.wantIn("before the crash", true, true)
		const lease = 3
		if code := p.update(short, lease); code != 0 {
			t.Fatalf("UpdatePinhole: error %d", code)
		}
		shortened := time.Now()
		w.kept("the short lease", regexp.MustCompile(`(?m) UDP 8080 .* [1-3] [0-9-]+T[0-9:]+Z $`).MatchString)
		w.daemon.Kill()
		w.wantIn("after kill -9", true, true)
		time.Sleep(time.Until(shortened.Add(lease * time.Second)))
		if w.firewall == lab.Nftables { // ip6tables knows no leases; the kernel's are a little longer
			for end := time.Now().Add(pinPatience); strings.Contains(w.Router.Run(t, "nft", "list", "set", "inet", "upnpd", "pin6"), "udp . "); time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the kernel does not end the lease")
				}
			}
			w.wantIn("while nobody is there", true, false)
		}
		restarted := func(how string) {
			t.Helper()
			w.start()
			w.logged("leases: mappings restored from /var/run/upnpd/leases: 1\n", 1)
			p = w.point(w.LAN1, lab.LAN1Addr6)
			w.wantIn("restarted after "+how, true, false)
			if n := p.packets(id); n == 0 { // SPEC PIN-7; the ID is as before
				t.Errorf("restarted after %s, nothing is counted", how)
			}
			p.want("GetPinholePackets", short, "", 704)
		}
		restarted("kill -9")

		w.daemon.Signal(syscall.SIGUSR2)
		<-w.daemon.Ended()
		if err := w.daemon.Quit(); err != nil {
			t.Errorf("USR2: %v", err)
		}
		w.wantIn("after USR2", true, false)
		restarted("USR2")

		w.stop()
		w.wantIn("after a clean stop", false, false)
		restarted("a clean stop")
		if again := p.add("", 0, "TCP", 3600); again != id {
			t.Errorf("the ID has become %s, it was %s", again, id)
		}
		p.want("DeletePinhole", id, "", 0)
		w.wantIn("deleted", false, false)
		w.stop()
	})
}

// TestPinholeWildcards: pinholes of one client port for any remote host and port, for
// one, and for both stand side by side (issue 6, point 4).
func TestPinholeWildcards(t *testing.T) {
	t.Parallel()
	pinVariants(t, func(t *testing.T, w *pinRouter) {
		w.start()
		const peer, other = lab.InternetAddr6, "2001:db8:ff::9"
		w.Internet.Run(t, "ip", "addr", "add", other+"/64", "dev", lab.HostDev, "nodad")
		p := w.point(w.LAN1, lab.LAN1Addr6)
		type source struct {
			addr string
			port int
		}
		sources := []source{{peer, 4000}, {peer, 4001}, {other, 4000}, {other, 4001}}
		want := func(when string, passes ...bool) {
			t.Helper()
			w.together(len(sources), func(i int) {
				timeout := pinSilence
				if passes[i] {
					timeout = pinPatience
				}
				if got := w.asks(sources[i].addr, sources[i].port, timeout); got != passes[i] {
					t.Errorf("%s: from %v it comes in: %v, want %v", when, sources[i], got, passes[i])
				}
			})
		}
		want("before", false, false, false, false)
		both := p.add(peer, 4000, "UDP", 600)
		want("host and port", true, false, false, false)
		port := p.add("", 4000, "UDP", 600)
		want("and port", true, false, true, false)
		host := p.add(peer, 0, "UDP", 600)
		want("and host", true, true, true, false)
		all := p.add("", 0, "UDP", 600)
		want("and any", true, true, true, true)
		for name, id := range map[string]string{"host and port": both, "port": port, "host": host, "any": all} {
			if n := p.packets(id); n == 0 {
				t.Errorf("the pinhole for %s counts nothing", name)
			}
		}
		for _, end := range []struct {
			id, left string
			passes   []bool
		}{
			{all, "without any", []bool{true, true, true, false}},
			{host, "without host", []bool{true, false, true, false}},
			{port, "without port", []bool{true, false, false, false}},
			{both, "without any pinhole", []bool{false, false, false, false}},
		} {
			p.want("DeletePinhole", end.id, "", 0)
			for i, s := range sources { // the answer to what comes earlier would begin it anew, outward
				w.until("its flow ends "+end.left, func() bool { return end.passes[i] || !w.tracked(s.addr, s.port) })
			}
			want(end.left, end.passes...)
		}
		w.stop()
	})
}
