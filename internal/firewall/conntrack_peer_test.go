package firewall

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// peer is a UDP socket with a fixed port: its packets are one connection.
type peer struct {
	*net.UDPConn
	t *testing.T
}

func newPeer(t *testing.T, h *lab.Host, local string) peer {
	t.Helper()
	c, err := h.ListenUDP(local)
	if err != nil {
		t.Fatal(err)
	}
	return peer{c, t}
}

// ask sends a datagram and gives the answer, "" for none.
func (p peer) ask(to string) string {
	p.t.Helper()
	for p.SetReadDeadline(time.Now().Add(time.Millisecond)); ; { // late answers to earlier questions
		if _, err := p.Read(make([]byte, 100)); err != nil {
			break
		}
	}
	if _, err := p.WriteToUDPAddrPort([]byte{0}, ap(to)); err != nil {
		p.t.Fatal(err)
	}
	p.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	answer := make([]byte, 100)
	n, _ := p.Read(answer)
	return string(answer[:n])
}

// flowsLab is a lab with echo servers and each backend in turn, without
// mappings. The body closes it.
func flowsLab(t *testing.T, body func(t *testing.T, l *lab.Lab, f backend)) {
	run := func(t *testing.T, l *lab.Lab, f backend) {
		t.Helper()
		on(t, l, func() error { return f.Sync(home, nil) })
		for _, h := range []*lab.Host{l.LAN1, l.LAN2} {
			if _, err := h.EchoUDP(8080); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := l.Internet.EchoUDP(7777); err != nil {
			t.Fatal(err)
		}
		body(t, l, f)
	}
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		f, err := open(t, l, options(v))
		if err != nil {
			t.Fatal(err)
		}
		run(t, l, f)
	})
	t.Run(lab.Nftables, func(t *testing.T) {
		l := lab.Start(t)
		if err := l.Masquerade(lab.Nftables); err != nil {
			t.Fatal(err)
		}
		run(t, l, openNFT(t, l))
	})
}

// backend is either of the two.
type backend interface {
	portmap.Firewall
	Close() error
}

var game = portmap.Mapping{Key: portmap.Key{Protocol: portmap.UDP, ExternalPort: 18080}, Client: addr("192.168.77.10"), InternalPort: 8080, Enabled: true}

// TestPeerWithFixedPort: a peer whose packets are one connection to the kernel
// gets through once the port is mapped, though it knocked before; not any more
// once the mapping is gone; and to the new host when the target changed.
func TestPeerWithFixedPort(t *testing.T) {
	flowsLab(t, func(t *testing.T, l *lab.Lab, f backend) {
		p, game := newPeer(t, l.Internet, "11.0.0.1:4000"), leased(game, time.Hour)
		for range 3 {
			if got := p.ask("11.0.0.2:18080"); got != "" {
				t.Fatalf("an answer without a mapping: %q", got)
			}
		}
		answers := func(who string) func() bool {
			return func() bool { name, _, _ := strings.Cut(p.ask("11.0.0.2:18080"), " "); return name == who }
		}
		change := func(remove []portmap.Mapping, add *portmap.Mapping) {
			on(t, l, func() error { return f.Change(remove, add) })
		}
		k := newTracker(t, l)
		change(nil, &game)
		until(t, "the peer that knocked before gets through", answers("lan1"))
		before := k.execute(dumpRequest(unix.AF_INET, tuple{17, ap("11.0.0.1:4000"), ap("11.0.0.2:18080")}))

		renewed := game
		renewed.Description, renewed.Deadline = "renewed", game.Deadline+time.Hour
		change([]portmap.Mapping{game}, &renewed)
		on(t, l, func() error { return f.Sync(home, []portmap.Mapping{renewed}) })
		time.Sleep(2 * flowPause)
		after := k.execute(dumpRequest(unix.AF_INET, tuple{17, ap("11.0.0.1:4000"), ap("11.0.0.2:18080")}))
		if id(t, before) != id(t, after) {
			t.Error("a renewal or a Sync ended the connection")
		}

		moved := game
		moved.Client = addr("192.168.77.20")
		change([]portmap.Mapping{renewed}, &moved)
		until(t, "the peer reaches the new target", answers("lan2"))
		change([]portmap.Mapping{moved}, nil)
		until(t, "the deleted mapping is closed to the peer", answers(""))
		change(nil, &game)
		until(t, "mapped again", answers("lan1"))
		on(t, l, func() error { return f.Sync(home, nil) })
		until(t, "a mapping that Sync takes away is closed to the peer", answers(""))
		on(t, l, func() error { return f.Sync(home, []portmap.Mapping{game}) })
		until(t, "what Sync brings is open to the peer", answers("lan1"))
		disabled := game
		disabled.Enabled = false
		change([]portmap.Mapping{game}, &disabled) // WIP-12
		until(t, "a disabled mapping is closed to the peer", answers(""))
		change([]portmap.Mapping{disabled}, &game)
		until(t, "enabled again", answers("lan1"))
		on(t, l, f.Close)
		if got := p.ask("11.0.0.2:18080"); got != "" {
			t.Errorf("an answer after Close: %q", got)
		}
	})
}

// id is the CTA_ID of the only connection of a dump.
func id(t *testing.T, dump []netlink.Message) string {
	t.Helper()
	if len(dump) != 1 {
		t.Fatalf("%d connections, want 1", len(dump))
	}
	ad, err := netlink.NewAttributeDecoder(dump[0].Data[sizeofNfgenmsg:])
	if err != nil {
		t.Fatal(err)
	}
	for ad.Next() {
		if ad.Type() == ctaID {
			return fmt.Sprintf("%x", ad.Bytes())
		}
	}
	t.Fatal("no id")
	return ""
}

// TestOutwardSource: what the client sends from its mapped port leaves from the
// external port, of the address that the uplink has now, until the mapping is
// gone (SPEC WIP-25).
func TestOutwardSource(t *testing.T) {
	flowsLab(t, func(t *testing.T, l *lab.Lab, f backend) {
		local := leased(game, time.Hour)
		local.InternalPort = 4000
		p := newPeer(t, l.LAN1, "192.168.77.10:4000")
		seen := func(as string) func() bool {
			return func() bool { return strings.HasSuffix(p.ask("11.0.0.1:7777"), "-"+as) }
		}
		on(t, l, func() error { return f.Change(nil, &local) })
		until(t, "seen as the mapped port", seen("11.0.0.2:18080"))
		l.Router.Run(t, "ip", "addr", "add", "11.0.0.77/24", "dev", lab.WANDev)
		other := home
		other.External = addr("11.0.0.77")
		on(t, l, func() error { return f.Sync(other, []portmap.Mapping{local}) })
		until(t, "seen as the new address", seen("11.0.0.77:18080"))
		on(t, l, func() error { return f.Change([]portmap.Mapping{local}, nil) })
		until(t, "seen as any client", seen("11.0.0.2:4000"))
		on(t, l, f.Close)
	})
}

// TestEstablishedTCP: a TCP connection through a mapping carries nothing any
// more once the mapping is gone.
func TestEstablishedTCP(t *testing.T) {
	flowsLab(t, func(t *testing.T, l *lab.Lab, f backend) {
		server, err := l.LAN1.ListenTCP("192.168.77.10:8080")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := server.Accept()
				if err != nil {
					return
				}
				go io.Copy(c, c) // ends with the connection
			}
		}()
		web := leased(web, time.Hour)
		on(t, l, func() error { return f.Change(nil, &web) })
		c, err := l.Internet.Dial("tcp4", "11.0.0.2:18080", 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		echoes := func() bool {
			c.SetDeadline(time.Now().Add(200 * time.Millisecond))
			if _, err := c.Write([]byte("x")); err != nil {
				return false
			}
			_, err := io.ReadFull(c, make([]byte, 1))
			return err == nil
		}
		for range 3 {
			if !echoes() {
				t.Fatal("the connection does not work")
			}
		}
		on(t, l, func() error { return f.Change([]portmap.Mapping{web}, nil) })
		until(t, "the connection ends", func() bool { return !echoes() })
		on(t, l, f.Close)
	})
}
