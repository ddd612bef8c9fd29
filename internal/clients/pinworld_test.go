package clients

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// pinRouter is the daemon on the router of a lab with IPv6, whose LAN hosts serve
// TCP and UDP on port pinPort of their global address.
type pinRouter struct {
	*lab.Lab
	t        *testing.T
	firewall string
	before   string // the rules without the daemon
	daemon   *lab.Daemon
}

const (
	pinPort = 8080
	// pinPatience bounds waits for what must come, pinSilence those for what must
	// not.
	pinPatience = 5 * time.Second
	pinSilence  = 300 * time.Millisecond
)

// pinVariants runs a body on each of the routers, at the same time.
func pinVariants(t *testing.T, body func(t *testing.T, w *pinRouter)) {
	var all sync.WaitGroup
	defer all.Wait()
	for _, firewall := range []string{lab.Nftables, "iptables-legacy", "iptables-nft"} {
		all.Add(1)
		go func() { // they wait more than they compute: t.Parallel would run few
			defer all.Done()
			t.Run(firewall, func(t *testing.T) { body(t, raisePin(t, firewall)) })
		}()
	}
}

// stop ends the daemon, which leaves no rules.
func (w *pinRouter) stop() {
	w.t.Helper()
	w.daemon.Stop(w.t)
	if got := w.rules(); got != w.before {
		w.t.Errorf("rules were left:\n%s\nwant\n%s", got, w.before)
	}
}

// raisePin makes the lab, without the daemon.
func raisePin(t *testing.T, firewall string) *pinRouter {
	t.Helper()
	w := &pinRouter{Lab: lab.Start(t), t: t, firewall: firewall}
	if err := errors.Join(w.Masquerade(firewall), w.IPv6(firewall)); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*lab.Host{w.LAN1, w.LAN2} {
		_, tcp := h.EchoTCP6(pinPort)
		_, udp := h.EchoUDP6(pinPort)
		if err := errors.Join(tcp, udp); err != nil {
			t.Fatal(err)
		}
	}
	w.before = w.rules()
	return w
}

func (w *pinRouter) start(flags ...string) {
	w.t.Helper()
	if w.firewall == lab.Nftables {
		flags = append(flags, "--firewall", "nftables")
	} else {
		flags = append(flags, "--iptables-location", "/usr/sbin/"+w.firewall)
	}
	if !strings.Contains(strings.Join(flags, " "), "--config ") {
		flags = append(flags, "--config", "/dev/null")
	}
	w.daemon = w.Router.StartDaemon(w.t, lab.Build(w.t), append(flags, lab.WANDev, lab.LANDev)...)
}

// rules are all rules of the router, of both families.
func (w *pinRouter) rules() string {
	all := w.Rules(w.firewall)
	if w.firewall != lab.Nftables {
		all += w.Router.Run(w.t, strings.Replace(w.firewall, "ip", "ip6", 1), "-w", "-S")
	}
	return all
}

// until waits for a second, which is what issue 6 gives to all that has to follow.
func (w *pinRouter) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Errorf("not within a second: %s", what)
			return
		}
	}
}

// comes reports whether a new connection from the internet gets to a LAN host.
// want says how long to wait.
func (w *pinRouter) comes(proto, to string, want bool) bool {
	w.t.Helper()
	reach, timeout := w.ReachTCP, pinSilence
	if proto == "UDP" {
		reach = w.ReachUDP
	}
	if want {
		timeout = pinPatience
	}
	answer, err := reach(w.Internet, to, timeout)
	if errors.Is(err, syscall.ECONNREFUSED) {
		w.t.Errorf("%s %s: let in, and refused there", proto, to)
	}
	return err == nil && strings.HasPrefix(answer, "lan")
}

// wantIn checks what comes from the internet to port pinPort of lan1.
func (w *pinRouter) wantIn(when string, tcp, udp bool) {
	w.t.Helper()
	w.together(2, func(i int) {
		proto, want := []string{"TCP", "UDP"}[i], []bool{tcp, udp}[i]
		if got := w.comes(proto, lan1at(pinPort), want); got != want {
			w.t.Errorf("%s: %s from the internet comes in: %v, want %v", when, proto, got, want)
		}
	})
}

// together runs f for 0 to n-1 at the same time: most of it is waiting for what must
// not come. f must not end the test.
func (w *pinRouter) together(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Add(1)
		go func() {
			defer all.Done()
			f(i)
		}()
	}
	all.Wait()
}

func lan1at(port int) string { return net.JoinHostPort(lab.LAN1Addr6, strconv.Itoa(port)) }

// asks sends a datagram from an address and port of the internet host to port
// pinPort of lan1, and reports whether an answer comes.
func (w *pinRouter) asks(from string, port int, timeout time.Duration) bool {
	w.t.Helper()
	c, err := w.Internet.ListenUDP(net.JoinHostPort(from, strconv.Itoa(port)))
	// A child that is about to become another program may still have the last socket.
	for end := time.Now().Add(pinPatience); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		c, err = w.Internet.ListenUDP(net.JoinHostPort(from, strconv.Itoa(port)))
	}
	if err != nil {
		w.t.Error(err)
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(timeout))
	c.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort(lan1at(pinPort)))
	_, err = c.Read(make([]byte, 200))
	return err == nil
}

// tracked reports whether the router tracks a connection that began with a datagram
// as asks sends it.
func (w *pinRouter) tracked(from string, port int) bool {
	w.t.Helper()
	a := netip.MustParseAddr(from).StringExpanded()
	return strings.Contains(w.Router.Run(w.t, "cat", "/proc/net/nf_conntrack"),
		fmt.Sprintf("src=%s dst=%s sport=%d", a, netip.MustParseAddr(lab.LAN1Addr6).StringExpanded(), port))
}
