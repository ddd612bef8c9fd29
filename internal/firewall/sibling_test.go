package firewall

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// tcpBetween is a TCP connection between m's remote peer and its client, begun from
// outside or from inside. talk wants words to pass both ways.
func tcpBetween(t *testing.T, l *lab.Lab, m *portmap.Mapping, inward bool) (talk func(when string), end func()) {
	t.Helper()
	inside, outside := netip.AddrPortFrom(m.Client, m.InternalPort).String(), netip.AddrPortFrom(m.RemoteHost, m.RemotePort).String()
	server, at, client, from, to := l.LAN1, inside, l.Internet, outside, netip.AddrPortFrom(home.External, m.ExternalPort).String()
	if !inward {
		server, at, client, from, to = l.Internet, outside, l.LAN1, inside, outside
	}
	listener, err := server.ListenTCP(at)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var ends [2]net.Conn
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(ap(from)), Timeout: 5 * time.Second}
	if err = client.Do(func() error { ends[0], err = dialer.Dial("tcp4", to); return err }); err == nil {
		ends[1], err = listener.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	talk = func(when string) {
		t.Helper()
		for i, c := range ends {
			b := make([]byte, 1)
			_ = ends[1-i].SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Write([]byte{byte(i)}); err != nil {
				t.Errorf("%s: %v", when, err)
			} else if _, err := ends[1-i].Read(b); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	return talk, func() {
		for _, c := range ends {
			c.Close()
		}
	}
}

// TestSiblingEnds: PEER's mapping and a MAP of one port: whichever ends, a connection
// that the other one carries goes on in its old ports, inward and outward (PEER-1).
func TestSiblingEnds(t *testing.T) {
	flowsLab(t, func(t *testing.T, l *lab.Lab, f backend) {
		wide, one := leased(game, time.Hour), filtered(18080, "11.0.0.1/32", 4000)
		wide.Protocol, one.Protocol, one.Peer = portmap.TCP, portmap.TCP, true
		wide.Origin, one.Origin = portmap.PCP, portmap.PCP
		for i, tt := range []struct {
			name   string
			ends   int
			inward bool
		}{{"a MAP, inward", 0, true}, {"a MAP, outward", 0, false}, {"PEER, inward", 1, true}, {"PEER, outward", 1, false}} {
			all := []portmap.Mapping{wide, one} // each time other ports
			for j := range all {
				all[j].ExternalPort += uint16(i)
				all[j].InternalPort += uint16(i)
			}
			all[1].RemotePort += uint16(i)
			on(t, l, func() error { return f.Sync(home, all) })
			talk, end := tcpBetween(t, l, &all[1], tt.inward)
			talk(tt.name + ", before")
			on(t, l, func() error { return f.Change(all[tt.ends:tt.ends+1], nil) })
			time.Sleep(3 * flowPause)
			talk(tt.name + " has ended")
			end()
		}
		on(t, l, f.Close)
	})
}
