package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// firewalls are the kinds of routers that a fault of the network is tried on.
var firewalls = []string{lab.Nftables, "iptables-legacy"}

// bridge makes the LAN's bridge again.
const bridge = "ip link add br-lan type bridge && ip link set br-lan up && " +
	"ip link set lan1 master br-lan && ip link set lan2 master br-lan && ip addr add 192.168.77.1/24 dev br-lan"

// wanBack gives the uplink its address and route.
const wanBack = "ip link set wan0 up; ip -4 addr flush dev wan0; ip addr add 11.0.0.2/24 dev wan0; ip route replace default via 11.0.0.1"

// networkFaults are scripts on the router: what happens, and how it ends. log is what
// the daemon says of it.
var networkFaults = []struct{ name, fault, end, log string }{
	{"LAN device removed and back", "ip link del br-lan", bridge, "LAN device br-lan is gone; waiting for it"},
	{"LAN device renamed and back", "ip link set br-lan down; ip link set br-lan name other; ip link set other up",
		"ip link set other down; ip link set other name br-lan; ip link set br-lan up", "LAN device br-lan is gone; waiting for it"},
	{"LAN device down and up", "ip link set br-lan down", "ip link set br-lan up", "br-lan is not up with an IPv4 address; waiting"},
	{"LAN address removed and back", "ip addr flush dev br-lan", "ip addr add 192.168.77.1/24 dev br-lan", "LAN device br-lan has no IPv4 address; waiting"},
	{"LAN address changed and back", "ip addr flush dev br-lan; ip addr add 192.168.77.3/24 dev br-lan",
		"ip addr flush dev br-lan; ip addr add 192.168.77.1/24 dev br-lan", "LAN device br-lan has address 192.168.77.3/24"},
	{"WAN device renamed and back", "ip link set wan0 down; ip link set wan0 name other", "ip link set other name wan0; " + wanBack, "device wan0 is gone; waiting for it"},
	{"WAN device down and up", "ip link set wan0 down", wanBack, "but no link; waiting"},
	{"WAN address removed and back", "ip -4 addr flush dev wan0", wanBack, "wan0 has no address; waiting"},
}

// TestNetworkFaults: devices and addresses go and come back. Then every mapping works,
// and the log has a few lines for each.
func TestNetworkFaults(t *testing.T) {
	t.Parallel()
	for _, rules := range firewalls {
		t.Run(rules, func(t *testing.T) {
			t.Parallel()
			h := enter(t, rules).begin("")
			h.baseline()
			for _, f := range networkFaults {
				lines, said := strings.Count(h.daemon.Log(), "\n"), h.logged(f.log)
				h.sh(f.fault)
				home.Until(t, f.name+" is logged", func() bool { return h.logged(f.log) > said })
				h.checked(f.name + ": meanwhile") // without a LAN there is no mapping in the kernel
				announced := h.logged("Advertisements Sent")
				h.sh(f.end)
				home.Until(t, f.name+": it is announced", func() bool {
					return h.logged("Advertisements Sent") > announced || !strings.HasPrefix(f.name, "LAN")
				})
				h.served(f.name)
				if n := strings.Count(h.daemon.Log(), "\n") - lines; n > 20 {
					t.Errorf("%s: %d lines in the log", f.name, n)
				}
			}
			h.checked("after all")
		})
	}
}

// served wants that clients find the daemon, that mappings work, and kernel and table
// to be equal.
func (h *house) served(after string) {
	h.t.Helper()
	home.Until(h.t, after+": the WAN address is known and served", func() bool {
		out, code, err := h.Client(1).Try("GetExternalIPAddress")
		return err == nil && code == 0 && out["NewExternalIPAddress"] == lab.WANAddr
	})
	h.mended(after)
	h.alive()
	home.Until(h.t, after+": the port is reached", func() bool { return h.Reaches("TCP", 19000) == 1 })
	home.Until(h.t, after+": it is found anew", h.found)
	h.For(h.t)
	if code := h.Client(2).Add("UDP", 18091, h.Served(), 0); code != 0 {
		h.t.Errorf("%s: AddPortMapping: error %d", after, code)
	}
	if code := h.Client(2).Delete("UDP", 18091); code != 0 {
		h.t.Errorf("%s: DeletePortMapping: error %d", after, code)
	}
}

const (
	flaps    = 50
	flapTime = 10 * time.Second
)

// TestFlappingWAN: the uplink comes and goes 50 times in 10 s, by its address and by its
// link. Meanwhile clients are answered; events are as few as their moderation allows,
// nothing is announced anew by a flap, and the log has two lines a flap at most.
func TestFlappingWAN(t *testing.T) {
	t.Parallel()
	for _, rules := range firewalls {
		t.Run(rules, func(t *testing.T) {
			t.Parallel()
			h := enter(t, rules).begin("")
			h.baseline()
			events := h.subscribe()
			news := h.hears()
			began, lines := time.Now(), strings.Count(h.daemon.Log(), "\n")
			for i := range flaps {
				h.sh([]string{"ip -4 addr flush dev wan0", "ip link set wan0 down"}[i%2])
				if code := h.Client(1).Add("UDP", 18090, h.Served(), 0); code != 0 {
					t.Errorf("flap %d: AddPortMapping: error %d", i, code)
				}
				h.sh(wanBack)
				time.Sleep(time.Until(began.Add(flapTime * time.Duration(i+1) / flaps)))
			}
			took := time.Since(began)
			h.served("flapping")
			lines = strings.Count(h.daemon.Log(), "\n") - lines
			t.Logf("%d flaps in %v: %d lines, %d events, %d announcements", flaps, took.Round(time.Millisecond), lines, events(), news())
			if lines > 4*flaps { // away, back, a mapping, and what a slow machine sees in between
				t.Errorf("%d lines in the log for %d flaps", lines, flaps)
			}
			if n, most := events(), int(took/(200*time.Millisecond))+5; n < 2 || n > most { // EVT: 0.2 s
				t.Errorf("%d events, want 2 to %d", n, most)
			}
			if n := news(); n >= flaps { // the first ones are repeated, ten a time
				t.Errorf("%d announcements", n)
			}
		})
	}
}

// TestFlappingLAN: the LAN's device is removed and made 20 times. Then it is served, and
// was announced no more often than it was made.
func TestFlappingLAN(t *testing.T) {
	t.Parallel()
	h := enter(t, lab.Nftables).begin("")
	h.baseline()
	before := h.logged("Advertisements Sent")
	const times = 20
	for i := range times {
		h.sh([]string{"ip link del br-lan && " + bridge, "ip link set br-lan down && ip link set br-lan up"}[i%2])
	}
	h.served("flapping")
	if n := h.logged("Advertisements Sent") - before; n > times {
		t.Errorf("announced %d times", n)
	}
	if n := strings.Count(h.daemon.Log(), "\n"); n > 12*times {
		t.Errorf("%d lines in the log", n)
	}
	h.checked(fmt.Sprintf("after %d times", times))
}
