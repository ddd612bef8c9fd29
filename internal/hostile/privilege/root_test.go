package privilege

import (
	"strings"
	"syscall"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// TestRoot: with each firewall, root's daemon keeps two capabilities in every thread,
// and does all its jobs with them, also through programs that it starts.
func TestRoot(t *testing.T) {
	for _, firewall := range firewalls {
		t.Run(firewall, func(t *testing.T) {
			h := enter(t, firewall)
			h.begin()
			wantThreads(t, h.daemon.PID, rootThreads)
			h.life("")
			wantThreads(t, h.daemon.PID, rootThreads)
			h.daemon.Stop(t)
			if got := h.Rules(firewall); got != h.before {
				t.Errorf("rules were left:\n%s\nwant\n%s", got, h.before)
			}
			if strings.Contains(h.daemon.Log(), "not permitted") {
				t.Error("something was not permitted")
			}
		})
	}
}

// life has the daemon do all that it does. The option is a line of its configuration.
func (h *house) life(option string) {
	h.t.Helper()
	for _, name := range []string{"map, reach, delete", "two hosts, one port", "WAN address changes"} {
		home.Jobs[name](h.t, h)
	}
	h.reloads(option)
	h.returns()
	h.repairs()
	h.controlled()
}

// reloads has it read a changed configuration, which begins a new generation.
func (h *house) reloads(option string) {
	h.t.Helper()
	h.Client(1).Add("TCP", 18080, h.Served(), 0)
	h.configure(option, "friendly_name = other")
	h.again("Advertisements Sent", func() { h.signal(syscall.SIGHUP) })
	h.For(h.t)
	if got := h.Reaches("TCP", 18080); got != 1 {
		h.t.Errorf("after a reload the port reaches host %d, want 1", got)
	}
}

// returns takes the LAN device away for a moment; its sockets are made anew.
func (h *house) returns() {
	h.t.Helper()
	h.again("is not up with an IPv4 address", func() { h.Router.Run(h.t, "ip", "link", "set", lab.LANDev, "down") })
	h.again("Advertisements Sent", func() { h.Router.Run(h.t, "ip", "link", "set", lab.LANDev, "up") })
	h.For(h.t)
	if code := h.Client(1).Add("TCP", 18081, h.Served(), 0); code != 0 || h.Reaches("TCP", 18081) != 1 {
		h.t.Errorf("after the LAN was down AddPortMapping gives %d, and the port does not reach the host", code)
	}
}

// repairs flushes its rules.
func (h *house) repairs() {
	h.t.Helper()
	if h.firewall == lab.Nftables {
		h.Router.Run(h.t, "nft", "delete", "table", "inet", "upnpd")
	} else {
		h.Router.Run(h.t, h.firewall, "-t", "nat", "-F", "UPNPD")
		h.signal(syscall.SIGHUP)
	}
	home.Until(h.t, "the rules are back", func() bool { return h.Reaches("TCP", 18081) == 1 })
}

// controlled asks it by its socket.
func (h *house) controlled() {
	h.t.Helper()
	ctl := func(args ...string) string {
		return h.Router.Run(h.t, strings.TrimSuffix(lab.Build(h.t), "upnpd")+"upnpctl", args...)
	}
	if out := ctl("list"); !strings.Contains(out, "18081") {
		h.t.Errorf("upnpctl list:\n%s", out)
	}
	if out := ctl("check", "--live"); !strings.Contains(out, "PASS  live ") || strings.Contains(out, "FAIL") {
		h.t.Errorf("upnpctl check:\n%s", out)
	}
	ctl("flush")
	if h.Reaches("TCP", 18081) != 0 {
		h.t.Error("the port is open after upnpctl flush")
	}
}
