package clients

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestPCPSilence: a host of the LAN that asks at the router's other side, or all at
// once, is not answered (PMP-7, PCP-1).
func TestPCPSilence(t *testing.T) {
	w := raisePin(t, "iptables-legacy")
	raiseMaps(t, w)
	all := [][2]string{{lab.LAN1Addr, lab.WANAddr}, {lab.LAN1Addr6, lab.WANAddr6}, {lab.LAN1Addr, "192.168.77.255"}, {lab.LAN1Addr, "224.0.0.1"}, {lab.LAN1Addr6, "ff02::1"}}
	scope := zone(t, w.LAN1, lab.HostDev)
	w.together(len(all), func(i int) { silent(t, w.LAN1, all[i][0], all[i][1], scope) })
	if got := upnpctl(t, w.Lab, "list"); got != "no mappings\n" {
		t.Errorf("mapped by those:\n%s", got)
	}
	// The same questions are answered where they may be asked.
	for from, to := range map[string]string{lab.LAN1Addr: lab.RouterLANAddr, lab.LAN1Addr6: lab.RouterLANAddr6} {
		pcpFrom(t, w.LAN1, from, to).want(pcpOK, ask{lifetime: 600, proto: tcpNumber, internal: 9000})
	}
	w.daemon.Stop(t)
}

// silent sends a request of each protocol and opcode, of which none may be answered.
func silent(t *testing.T, h *lab.Host, from, to, zone string) {
	t.Helper()
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	if dst.Is6() && dst.IsMulticast() {
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
