package wan

import (
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// bridge6 makes br-lan with one port, without any address of its own accord.
func bridge6(t *testing.T) {
	t.Helper()
	noDevices(t)
	lab.IP(t, "link add br-lan type bridge", "link add port type veth peer name host",
		"link set br-lan addrgenmode none", "link set port addrgenmode none", "link set host addrgenmode none",
		"link set port master br-lan", "link set port up", "link set br-lan up")
}

func has6(n, deprecated int) func(State) bool {
	return func(s State) bool { return len(s.LANs[0].Prefixes6) == n && s.LANs[0].Deprecated6 == deprecated }
}

// A prefix comes, gets old beside its successor, and ends.
func TestPrefixLife(t *testing.T) {
	bridge6(t)
	lab.IP(t, "link set host up", "addr add fe80::1/64 dev br-lan nodad")
	w := follow(t, "eth1", "br-lan")
	w.run()
	lan := w.State().LANs[0]
	if lan.LinkLocal().String() != "fe80::1" || lan.Global6().IsValid() {
		t.Errorf("before: %+v", lan)
	}
	lab.IP(t, "addr add fd00:1::1/64 dev br-lan nodad")
	lan = w.until("ULA", has6(2, 0)).LANs[0]
	if got := lan.Global6().String(); got != "fd00:1::1" {
		t.Errorf("with a ULA: %s", got)
	}
	lab.IP(t, "addr add 2001:db8:1::1/64 dev br-lan nodad valid_lft 3000 preferred_lft 2000")
	lan = w.until("GUA", has6(3, 0)).LANs[0]
	client := netip.MustParseAddr("2001:db8:1::9")
	if lan.Global6().String() != "2001:db8:1::1" || !lan.OnLink(client) {
		t.Errorf("with a GUA: %+v", lan)
	}

	// The provider gives another prefix: the old one is deprecated at once.
	lab.IP(t, "addr change 2001:db8:1::1/64 dev br-lan valid_lft 3000 preferred_lft 0")
	lan = w.until("deprecated", has6(3, 1)).LANs[0]
	if last := lan.Prefixes6[2].String(); last != "2001:db8:1::1/64" || lan.Global6().String() != "fd00:1::1" || !lan.OnLink(client) {
		t.Errorf("deprecated: %+v", lan)
	}
	lab.IP(t, "addr add 2001:db8:2::1/64 dev br-lan nodad valid_lft 3000 preferred_lft 2000")
	lan = w.until("successor", has6(4, 1)).LANs[0]
	if got := lan.Global6().String(); got != "2001:db8:2::1" {
		t.Errorf("with a successor: %s", got)
	}
	lab.IP(t, "addr change 2001:db8:1::1/64 dev br-lan valid_lft 1 preferred_lft 0") // and the kernel ends it
	lan = w.until("ended", has6(3, 0)).LANs[0]
	if lan.OnLink(client) || lan.Local(netip.MustParseAddr("2001:db8:1::1")) {
		t.Errorf("ended: %+v", lan)
	}
	lab.IP(t, "addr change 2001:db8:2::1/64 dev br-lan valid_lft 3000 preferred_lft 1") // nobody renews it
	w.until("deprecated by the kernel", has6(3, 1))
	lab.IP(t, "addr change 2001:db8:2::1/64 dev br-lan valid_lft 3000 preferred_lft 2000")
	w.until("preferred again", has6(3, 0))
	lab.IP(t, "addr del 2001:db8:2::1/64 dev br-lan")
	w.until("deleted", has6(2, 0))
}

// A router advertisement or DHCPv6 renews lifetimes: an event, but no change.
func TestRenewalIsNoChange(t *testing.T) {
	bridge6(t)
	lab.IP(t, "link set host up", "addr add 2001:db8:1::1/64 dev br-lan nodad valid_lft 3000 preferred_lft 2000")
	w := follow(t, "eth1", "br-lan")
	for _, lifetimes := range []string{"valid_lft 9000 preferred_lft 8000", "valid_lft forever preferred_lft forever", "valid_lft 300 preferred_lft 200"} {
		if err := w.socks.events.SetReadDeadline(time.Now().Add(aWhile)); err != nil {
			t.Fatal(err)
		}
		lab.IP(t, "addr change 2001:db8:1::1/64 dev br-lan "+lifetimes)
		if err := w.socks.await(w.State().devices()); err != nil {
			t.Errorf("%s: no event: %v", lifetimes, err)
		}
		if err := w.refresh(func(s State) { t.Errorf("%s: %+v", lifetimes, s) }); err != nil {
			t.Error(err)
		}
	}
}

// An address counts when duplicate address detection (RFC 4862 section 5.4)
// found no other that has it.
func TestDuplicateAddress(t *testing.T) {
	bridge6(t)
	w := follow(t, "eth1", "br-lan")
	d := w.State().devices()
	lab.IP(t, "addr add 2001:db8:1::1/64 dev br-lan", "addr add 2001:db8:1::2/64 dev br-lan")
	tentative := func(flag uint32, want int) bool {
		t.Helper()
		c, _, err := w.requests()
		if err != nil {
			t.Fatal(err)
		}
		k, err := readKernel(c, w.names)
		if err != nil {
			t.Fatal(err)
		}
		return want == len(slices.DeleteFunc(k.addrs, func(a address) bool {
			return a.index != d.indexes[1] || a.flags&flag == 0
		}))
	}
	if s := w.refreshed(); !tentative(unix.IFA_F_TENTATIVE, 2) || len(s.LANs[0].Prefixes6) != 0 {
		t.Errorf("without carrier nothing is detected: %+v", s.LANs[0])
	}
	// Another host has the second one.
	if out, err := exec.Command("sysctl", "net.ipv6.neigh.br-lan.retrans_time_ms=100").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lab.IP(t, "addr add 2001:db8:1::2/64 dev host nodad", "link set host up")
	if err := w.socks.events.SetReadDeadline(time.Now().Add(2 * aWhile)); err != nil {
		t.Fatal(err)
	}
	for !tentative(unix.IFA_F_TENTATIVE, 1) || !tentative(unix.IFA_F_DADFAILED, 1) {
		if err := w.socks.await(d); err != nil {
			out, _ := exec.Command("ip", "addr", "show", "br-lan").Output()
			t.Fatalf("%v: %s", err, out)
		}
	}
	s := w.refreshed()
	if got := joinPrefixes(s.LANs[0].Prefixes6); got != " 2001:db8:1::1/64" {
		t.Errorf("own addresses:%s", got)
	}
}

// What the log says while a LAN gets its addresses.
func TestLANLog(t *testing.T) {
	bridge6(t)
	w := follow(t, "eth1", "br-lan")
	w.run()
	lab.IP(t, "link set host up", "addr add fe80::1/64 dev br-lan nodad")
	w.until("link-local", has6(1, 0))
	lab.IP(t, "addr add 10.0.0.1/24 dev br-lan")
	w.until("IPv4", func(s State) bool { return s.LANs[0].Addr().IsValid() })
	lab.IP(t, "addr change fe80::1/64 dev br-lan preferred_lft 0")
	w.until("deprecated", has6(1, 1))
	w.log.want(t,
		"wan: no device eth1 yet; waiting for it",
		"wan: LAN device br-lan has no IPv4 address; waiting",
		"wan: LAN device br-lan has IPv6 address fe80::1/64",
		"wan: LAN device br-lan has address 10.0.0.1/24",
		"wan: LAN device br-lan has IPv6 address deprecated fe80::1/64")
}
