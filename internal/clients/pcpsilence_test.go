package clients

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestPCPSilence: nothing answers the internet, whatever it asks, nor a LAN host that
// asks at the router's other side, and no announcement goes there (PMP-7, PCP-1).
func TestPCPSilence(t *testing.T) {
	w := raisePin(t, "iptables-legacy")
	w.Router.Run(t, "iptables-legacy", "-P", "FORWARD", "ACCEPT") // even so
	w.Router.Run(t, "ip6tables-legacy", "-P", "FORWARD", "ACCEPT")
	w.Internet.Run(t, "ip", "route", "add", "default", "via", lab.WANAddr)
	w.Internet.Run(t, "ip", "route", "add", "default", "via", lab.WANAddr6)
	w.Internet.Run(t, "ip", "addr", "add", "192.168.77.30/32", "dev", "lo") // as if of the LAN
	for _, rp := range []string{"all", lab.WANDev} {
		w.Router.Run(t, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/"+rp+"/rp_filter")
	}
	heard := eavesdrop(t, w.Internet)
	raiseMaps(t, w)

	type question struct {
		h        *lab.Host
		from, to string
	}
	var all []question
	wanLink := pinLinkLocal(t, w.Router, lab.WANDev)
	for _, to := range []string{lab.WANAddr, lab.RouterLANAddr, "224.0.0.1", "11.0.0.255"} {
		all = append(all, question{w.Internet, lab.InternetAddr, to}, question{w.Internet, "192.168.77.30", to})
	}
	for _, to := range []string{lab.WANAddr6, lab.RouterLANAddr6, lab.RouterULA, "ff02::1"} {
		all = append(all, question{w.Internet, lab.InternetAddr6, to})
	}
	for _, to := range []string{wanLink, "ff02::1"} {
		all = append(all, question{w.Internet, pinLinkLocal(t, w.Internet, lab.HostDev), to})
	}
	all = append(all, question{w.LAN1, lab.LAN1Addr, lab.WANAddr}, question{w.LAN1, lab.LAN1Addr6, lab.WANAddr6},
		question{w.LAN1, lab.LAN1Addr, "192.168.77.255"}, question{w.LAN1, lab.LAN1Addr, "224.0.0.1"}, question{w.LAN1, lab.LAN1Addr6, "ff02::1"})
	zones := map[*lab.Host]string{w.Internet: zone(t, w.Internet, lab.HostDev), w.LAN1: zone(t, w.LAN1, lab.HostDev)}
	w.together(len(all), func(i int) { silent(t, all[i].h, all[i].from, all[i].to, zones[all[i].h]) })
	if got := upnpctl(t, w.Lab, "list"); got != "no mappings\n" {
		t.Errorf("mapped by the internet:\n%s", got)
	}
	// The same questions are answered where they may be asked.
	for from, to := range map[string]string{lab.LAN1Addr: lab.RouterLANAddr, lab.LAN1Addr6: lab.RouterLANAddr6} {
		pcpFrom(t, w.LAN1, from, to).want(pcpOK, ask{lifetime: 600, proto: tcpNumber, internal: 9000})
	}
	w.daemon.Stop(t)
	for len(heard) > 0 {
		t.Errorf("announced to the internet: %+v", <-heard)
	}
}

// silent sends a request of each protocol and opcode, of which none may be answered.
func silent(t *testing.T, h *lab.Host, from, to, zone string) {
	t.Helper()
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	if src.IsLinkLocalUnicast() {
		src = src.WithZone(zone)
	}
	if dst.Is6() && (dst.IsLinkLocalUnicast() || dst.IsMulticast()) {
		dst = dst.WithZone(zone)
	}
	c, err := h.ListenUDP(netip.AddrPortFrom(src, 0).String())
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	p := &pcpHost{t: t, addr: src.WithZone("")}
	a := ask{lifetime: 600, proto: tcpNumber, internal: 9000, external: 19000}
	for _, b := range [][]byte{
		{0, 0}, {0, 1, 0, 0, 0x23, 0x28, 0x4a, 0x38, 0, 0, 2, 0x58}, {0, 99, 0, 0}, {1, 0}, {3, 0, 0, 0},
		p.header(pcpAnnounce, 0), p.request(a), p.header(99, 0),
	} {
		if _, err := c.WriteToUDPAddrPort(b, netip.AddrPortFrom(dst, pcpPort)); err != nil {
			t.Errorf("%s to %s: %v", from, to, err)
		}
	}
	c.SetReadDeadline(time.Now().Add(2 * pinSilence))
	b := make([]byte, 2000)
	if n, peer, err := c.ReadFromUDPAddrPort(b); err == nil {
		t.Errorf("%s asks %s, and %v answers %x", from, net.JoinHostPort(to, "5351"), peer, b[:n])
	}
}
