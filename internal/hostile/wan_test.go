package hostile

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestWANSilence: VU#357851 (CVE-2011-4499 to 4506), UPnProxy, VU#184540, TA14-017A.
// Whatever a host on the internet sends to the ports that the daemon serves on the
// LAN, and whoever it says it is, it meets what it meets at a port that nobody has,
// and what it meets when there is no daemon (issue 8, point 1).
func TestWANSilence(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		guests, open bool
	}{{"one LAN", false, false}, {"one LAN, no filter", false, true}, {"two LANs", true, false}, {"two LANs, no filter", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := enter(t)
			if tt.guests {
				h.guests()
			}
			h.bareWAN(tt.open)
			w := h.wanProbes(tt.guests)
			stopped := w.ask()
			h.begin()
			// It does serve: a host of the LAN is answered.
			lan := h.peer(h.LAN1, lab.LAN1Addr)
			if lan.location(igd1) == "" {
				t.Fatal("no answer on the LAN")
			}
			running := w.ask()
			for _, p := range w.all {
				was, is, closed := stopped[p.what], running[p.what], running[p.closed]
				if is != was || p.closed != "" && is != closed {
					t.Errorf("%s: %q; without the daemon %q; at a closed port %q", p.what, is, was, closed)
				}
				if tt.open && p.closed == "" && was == "" && !p.quiet {
					t.Errorf("%s: nothing comes back from a closed port: the test sees nothing", p.what)
				}
			}
			h.daemon.Stop(t)
			w.unasked()
		})
	}
}

// bareWAN lets forged addresses in from the internet; a router that is not open drops
// what comes to itself.
func (h *house) bareWAN(open bool) {
	h.t.Helper()
	if open {
		h.Router.Run(h.t, "nft", "flush", "chain", "inet", "router", "forward")
		h.Router.Run(h.t, "nft", "chain inet router forward { policy accept; }")
	} else {
		h.Router.Run(h.t, "nft", "add chain inet router input { type filter hook input priority filter; policy accept; }; "+
			"add rule inet router input iifname "+lab.WANDev+" meta l4proto { tcp, udp } ct state new drop")
	}
	err := h.Router.Do(func() error {
		for name, value := range map[string]string{
			"ipv4/conf/all/rp_filter": "0", "ipv4/conf/" + lab.WANDev + "/rp_filter": "0",
			"ipv4/icmp_ratemask": "0", "ipv6/icmp/ratemask": "255", // each question is answered
		} {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.neighbours()
}

// neighbours tells the router the MAC addresses, so that no answer waits for them.
func (h *house) neighbours() {
	h.t.Helper()
	h.neighbour(lab.WANDev, h.Internet, lab.HostDev, lab.InternetAddr, lab.InternetAddr6, linkLocal(h.t, h.Internet, lab.HostDev).String())
	h.neighbour(lab.LANDev, h.LAN1, lab.HostDev, lab.LAN1Addr, lab.LAN1Addr6)
	if len(h.lans) > 1 {
		h.neighbour(guestDev, h.LAN2, guestPeer, guestHost, guestHost6)
	}
}

func (h *house) neighbour(dev string, host *lab.Host, hostDev string, addrs ...string) {
	h.t.Helper()
	for _, addr := range addrs {
		h.Router.Run(h.t, "ip", "neigh", "replace", addr, "lladdr", hardware(h.t, host, hostDev).String(), "dev", dev, "nud", "permanent")
	}
}

// probe is a packet from the internet.
type probe struct {
	packet
	what, closed string // its name, and that of the same to a closed port
	quiet        bool   // nothing comes back, whatever the port
}

// probes are all of them, and the places where an answer may go.
type probes struct {
	t      testing.TB
	from   *wire
	mac    net.HardwareAddr
	places map[string]*wire
	all    []probe
}

func (h *house) wanProbes(guests bool) *probes {
	h.t.Helper()
	w := &probes{t: h.t, from: tap(h.t, h.Internet, lab.HostDev, false), mac: hardware(h.t, h.Router, lab.WANDev)}
	w.places = map[string]*wire{"internet": w.from, "lan1": tap(h.t, h.LAN1, lab.HostDev, false), "lan2": tap(h.t, h.LAN2, lab.HostDev, false)}
	to := []string{lab.WANAddr, lab.RouterLANAddr, "239.255.255.250", "224.0.0.1", "255.255.255.255", "11.0.0.255", "192.168.77.255",
		lab.WANAddr6, lab.RouterLANAddr6, lab.RouterULA, linkLocal(h.t, h.Router, lab.WANDev).String(), "ff02::c", "ff05::c", "ff02::1"}
	from := []string{lab.InternetAddr, lab.LAN1Addr, "192.168.77.30", lab.InternetAddr6, lab.LAN1Addr6, linkLocal(h.t, h.Internet, lab.HostDev).String()}
	if guests {
		to = append(to, guestAddr, guestAddr6)
		from = append(from, guestHost, guestHost6)
		w.places["guest"] = tap(h.t, h.LAN2, guestPeer, false)
	}
	source := uint16(20000)
	for _, src := range from {
		for _, dst := range to {
			src, dst := netip.MustParseAddr(src), netip.MustParseAddr(dst)
			if src.Is4() != dst.Is4() || src.IsLinkLocalUnicast() && !dst.IsLinkLocalUnicast() && !dst.IsMulticast() {
				continue
			}
			for _, q := range wanQuestions(src) {
				source++
				p := probe{packet: packet{src: netip.AddrPortFrom(src, source), dst: netip.AddrPortFrom(dst, q.port), proto: q.proto, flags: q.flags, body: q.body}}
				name := func(port uint16) string {
					return fmt.Sprintf("%s from %v to %v", q.what, src, netip.AddrPortFrom(dst, port))
				}
				p.what = name(q.port)
				if q.port != q.closed {
					p.closed = name(q.closed)
				}
				p.quiet = src.String() == "192.168.77.30" || !slices.Contains([]string{lab.WANAddr, lab.RouterLANAddr, lab.WANAddr6, lab.RouterLANAddr6, lab.RouterULA}, dst.String())
				w.all = append(w.all, p)
			}
		}
	}
	return w
}

type wanQuestion struct {
	what         string
	proto, flags byte
	port, closed uint16 // a closed port is asked the same
	body         []byte
}

// wanQuestions are what the daemon would answer on the LAN.
func wanQuestions(src netip.Addr) (all []wanQuestion) {
	const closedTCP, closedUDP = 49203, 49204
	for _, p := range []uint16{port, closedTCP} {
		all = append(all, wanQuestion{"SYN", unix.IPPROTO_TCP, flagSYN, p, closedTCP, nil},
			wanQuestion{"ACK", unix.IPPROTO_TCP, flagACK, p, closedTCP, nil})
	}
	search := func(st string) []byte {
		return []byte("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: " + st + "\r\n\r\n")
	}
	for what, q := range map[string]struct {
		port uint16
		body []byte
	}{
		"ssdp:all":     {1900, search("ssdp:all")},
		"search":       {1900, search(igd1)},
		"events":       {5350, []byte{0, 0}},
		"NAT-PMP 0":    {5351, []byte{0, 0}},
		"NAT-PMP 2":    {5351, []byte{0, 2, 0, 0, 0x23, 0x28, 0x4a, 0x38, 0, 0, 2, 0x58}},
		"NAT-PMP junk": {5351, []byte{0, 99, 0, 0}},
		"PCP ANNOUNCE": {5351, pcpHeader(src, 0, 0)},
		"PCP MAP":      {5351, pcpMAP(src, pcpAsk{lifetime: 600, proto: unix.IPPROTO_TCP, internal: 9000, external: 19000})},
		"PCP version":  {5351, []byte{3, 0, 0, 0}},
	} {
		for _, p := range []uint16{q.port, closedUDP} {
			all = append(all, wanQuestion{what, unix.IPPROTO_UDP, 0, p, closedUDP, q.body})
		}
	}
	return all
}

// settle is for answers to a search with MX 1, and for a slow machine.
const settle = 1500 * time.Millisecond

// ask sends all, and gives what comes back to each, wherever.
func (w *probes) ask() map[string]string {
	w.t.Helper()
	w.unasked()
	for i, p := range w.all {
		w.from.send(w.mac, p.packet)
		if i%100 == 99 {
			time.Sleep(5 * time.Millisecond) // a queue holds 1000
		}
	}
	time.Sleep(settle)
	back := map[uint16][]string{}
	for name, place := range w.places {
		for _, p := range place.taken() {
			what := "data"
			switch {
			case p.icmp != "":
				what = "ICMP " + p.icmp
			case p.flags&flagSYN != 0:
				what = "SYN-ACK"
			case p.flags&flagRST != 0:
				what = "RST"
			}
			if _, ok := w.source(p.dst.Port()); ok && p.src.Addr().IsValid() {
				back[p.dst.Port()] = append(back[p.dst.Port()], fmt.Sprintf("%s at %s, TTL %d", what, name, p.ttl))
			} else if place == w.from && strange(p) {
				w.t.Errorf("at %s, unasked: %x", name, p.raw)
			}
		}
	}
	answers := map[string]string{}
	for _, p := range w.all {
		list := back[p.src.Port()]
		slices.Sort(list)
		answers[p.what] = strings.Join(list, "; ")
	}
	return answers
}

func (w *probes) source(port uint16) (probe, bool) {
	if i := int(port) - int(w.all[0].src.Port()); i >= 0 && i < len(w.all) {
		return w.all[i], true
	}
	return probe{}, false
}

// strange reports what only the daemon could have sent to the internet, or made the
// kernel send: reports of its groups.
func strange(p packet) bool {
	group6 := netip.MustParseAddr("ff02::c").As16()
	return p.src.Port() == 1900 || p.src.Port() == 5351 || p.dst.Port() == 1900 || p.dst.Port() == 5350 ||
		!p.src.IsValid() && (strings.Contains(string(p.raw), "\xef\xff\xff\xfa") || strings.Contains(string(p.raw), string(group6[:])))
}

// unasked checks what came to the internet since.
func (w *probes) unasked() {
	w.t.Helper()
	for _, p := range w.from.taken() {
		if strange(p) {
			w.t.Errorf("told the internet: %x", p.raw)
		}
	}
	for _, place := range w.places {
		place.taken()
	}
}

// linkLocal gives the link-local address of a host's device.
func linkLocal(t testing.TB, h *lab.Host, dev string) netip.Addr {
	t.Helper()
	for _, word := range strings.Fields(h.Run(t, "ip", "-6", "-o", "addr", "show", "dev", dev, "scope", "link")) {
		if p, err := netip.ParsePrefix(word); err == nil {
			return p.Addr()
		}
	}
	t.Fatalf("no link-local address on %s", h.Name)
	return netip.Addr{}
}
