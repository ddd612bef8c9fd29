package firewall

import (
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// got is what a datagram of from to an address brings to p, and from where: "" when
// nothing comes.
func (p peer) got(from peer, to, word string) string {
	p.t.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte(word), ap(to)); err != nil {
		p.t.Fatal(err)
	}
	text := make([]byte, 100)
	for p.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); ; {
		n, src, err := p.ReadFromUDPAddrPort(text)
		if err != nil {
			return ""
		}
		if string(text[:n]) == word { // nothing late
			return src.String()
		}
	}
}

// TestPEER: what PEER makes (SPEC PEER-1): the client's packets leave from the
// assigned port, and the peer gets in, also by itself, and nobody else.
func TestPEER(t *testing.T) {
	flowsLab(t, func(t *testing.T, l *lab.Lab, f backend) {
		l.Internet.Run(t, "ip", "addr", "add", "11.0.0.9/24", "dev", "eth0")
		far, otherPort, otherHost := newPeer(t, l.Internet, "11.0.0.1:4000"), newPeer(t, l.Internet, "11.0.0.1:4001"), newPeer(t, l.Internet, "11.0.0.9:4000")
		asks, waits := newPeer(t, l.LAN1, "192.168.77.10:9090"), newPeer(t, l.LAN1, "192.168.77.10:9091")
		peered := func(external, internal uint16) portmap.Mapping {
			m := filtered(external, "11.0.0.1/32", 4000)
			m.InternalPort, m.Peer = internal, true
			return m
		}
		expect := func(what, got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%s: from %q, want %q", what, got, want)
			}
		}
		all := []portmap.Mapping{peered(18080, 9090), peered(18081, 9091)}
		expect("before, inward", waits.got(far, "11.0.0.2:18081", "a"), "")
		for i := range all {
			on(t, l, func() error { return f.Change(nil, &all[i]) })
		}
		agrees(t, l, f)
		expect("outward", far.got(asks, "11.0.0.1:4000", "b"), "11.0.0.2:18080")
		expect("the answer", asks.got(far, "11.0.0.2:18080", "c"), "11.0.0.1:4000")
		until(t, "the peer gets in by itself", func() bool { return waits.got(far, "11.0.0.2:18081", "d") == "11.0.0.1:4000" })
		expect("the answer to that", far.got(waits, "11.0.0.1:4000", "e"), "11.0.0.2:18081")
		expect("another port of the peer", asks.got(otherPort, "11.0.0.2:18080", "f"), "")
		expect("another host", asks.got(otherHost, "11.0.0.2:18080", "g"), "")
		expect("another host, to the other port", waits.got(otherHost, "11.0.0.2:18081", "h"), "")

		wide := all[1] // by MAP
		wide.Key, wide.Peer = portmap.Key{Protocol: portmap.UDP, ExternalPort: 18081}, false
		on(t, l, func() error { return f.Change(all[1:], &wide) })
		until(t, "widened, another host gets in", func() bool { return waits.got(otherHost, "11.0.0.2:18081", "i") == "11.0.0.9:4000" })
		on(t, l, func() error { return f.Change(append(all[:1:1], wide), nil) })
		until(t, "the end of a mapping", func() bool { return waits.got(otherHost, "11.0.0.2:18081", "j") == "" })
		expect("what the client began goes on", far.got(asks, "11.0.0.1:4000", "k"), "11.0.0.2:18080")
		expect("both ways", asks.got(far, "11.0.0.2:18080", "l"), "11.0.0.1:4000")
		on(t, l, f.Close)
	})
}
