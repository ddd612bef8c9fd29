package firewall

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// tracker puts connections into the kernel's table and lists them.
type tracker struct {
	t    *testing.T
	conn flowConn
}

func newTracker(t *testing.T, l *lab.Lab) tracker {
	t.Helper()
	k := tracker{t: t}
	on(t, l, func() (err error) {
		k.conn, err = dialConntrack()
		return err
	})
	t.Cleanup(func() { k.conn.Close() })
	return k
}

func (k tracker) execute(ask netlink.Message, err error) []netlink.Message {
	k.t.Helper()
	var replies []netlink.Message
	if err == nil {
		k.conn.SetDeadline(time.Now().Add(10 * time.Second))
		replies, err = k.conn.Execute(ask)
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return replies
}

func (k tracker) track(c flow) {
	k.t.Helper()
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Nested(ctaTupleOrig, c.orig.encode)
	ae.Nested(ctaTupleReply, c.reply.encode)
	ae.Uint32(3, 1<<1|1<<3) // CTA_STATUS: replies seen, confirmed
	ae.Uint32(7, 600)       // CTA_TIMEOUT, in seconds
	if c.orig.proto == unix.IPPROTO_TCP {
		ae.Nested(4, func(nae *netlink.AttributeEncoder) error { // CTA_PROTOINFO
			nae.Nested(1, func(nae *netlink.AttributeEncoder) error { // _TCP
				nae.Uint8(1, 3) // _STATE: established
				return nil
			})
			return nil
		})
	}
	k.execute(request(unix.NFNL_SUBSYS_CTNETLINK<<8, netlink.Acknowledge|netlink.Create|netlink.Excl, ae))
}

// list gives the original tuples of what is tracked.
func (k tracker) list() map[tuple]bool {
	k.t.Helper()
	all := map[tuple]bool{}
	for _, reply := range k.execute(dumpRequest(tuple{})) {
		c, err := parseFlow(reply.Data)
		if err != nil {
			k.t.Fatal(err)
		}
		all[c.orig] = true
	}
	return all
}

// between makes the flow from src to dst; its replies come from there and go to.
func between(proto portmap.Protocol, src, dst, from, to string) flow {
	return flow{tuple{uint8(proto), ap(src), ap(dst)}, tuple{uint8(proto), ap(from), ap(to)}}
}

// TestWhatEnds: of all that is tracked, only what belongs to the mapping ends
// (SPEC WIP-13).
func TestWhatEnds(t *testing.T) {
	const tcp, udp = portmap.TCP, portmap.UDP
	all := map[string]flow{
		"through the mapping": between(udp, "11.0.0.1:4000", "11.0.0.2:18080", "192.168.77.10:8080", "11.0.0.1:4000"),
		"from another peer":   between(udp, "11.0.0.9:4000", "11.0.0.2:18080", "192.168.77.10:8080", "11.0.0.9:4000"),
		"hairpin":             between(udp, "192.168.77.20:5", "11.0.0.2:18080", "192.168.77.10:8080", "192.168.77.1:5"),
		"knocked before":      between(udp, "11.0.0.1:4001", "11.0.0.2:18080", "11.0.0.2:18080", "11.0.0.1:4001"),
		"outward":             between(udp, "192.168.77.10:8080", "11.0.0.1:53", "11.0.0.1:53", "11.0.0.2:18080"),
		"outward to another":  between(udp, "192.168.77.10:8080", "11.0.0.9:53", "11.0.0.9:53", "11.0.0.2:18080"),

		"other protocol":            between(tcp, "11.0.0.1:4000", "11.0.0.2:18080", "192.168.77.10:8080", "11.0.0.1:4000"),
		"other external port":       between(udp, "11.0.0.1:4010", "11.0.0.2:18081", "192.168.77.10:8080", "11.0.0.1:4010"),
		"other external address":    between(udp, "11.0.0.1:4011", "11.0.0.3:18080", "192.168.77.10:8080", "11.0.0.1:4011"),
		"the administrator's":       between(udp, "11.0.0.1:4002", "11.0.0.2:18080", "192.168.77.20:8080", "11.0.0.1:4002"),
		"the administrator's port":  between(udp, "11.0.0.1:4003", "11.0.0.2:18080", "192.168.77.10:8081", "11.0.0.1:4003"),
		"to the router":             between(udp, "11.0.0.1:4000", "11.0.0.2:53", "11.0.0.2:53", "11.0.0.1:4000"),
		"outward, other port":       between(udp, "192.168.77.10:8081", "11.0.0.1:53", "11.0.0.1:53", "11.0.0.2:8081"),
		"outward, masqueraded":      between(udp, "192.168.77.10:8080", "11.0.0.1:54", "11.0.0.1:54", "11.0.0.2:8080"),
		"outward of another client": between(udp, "192.168.77.20:8080", "11.0.0.1:53", "11.0.0.1:53", "11.0.0.2:8080"),
		"inside the LAN":            between(udp, "192.168.77.10:8080", "192.168.77.1:53", "192.168.77.1:53", "192.168.77.10:8080"),
	}
	m := portmap.Mapping{Key: portmap.Key{Protocol: udp, ExternalPort: 18080}, Client: addr("192.168.77.10"), InternalPort: 8080, Enabled: true}
	far := portmap.Mapping{Key: portmap.Key{Protocol: tcp, ExternalPort: 9}, Client: addr("192.168.77.99"), InternalPort: 9, Enabled: true}
	end, begin := (*Flows).End, (*Flows).Begin
	for _, tt := range []struct {
		name  string
		do    func(*Flows, netip.Addr, []portmap.Mapping)
		m     []portmap.Mapping
		ended []string
	}{
		{"end", end, []portmap.Mapping{m}, []string{"through the mapping", "from another peer", "hairpin", "knocked before", "outward", "outward to another"}},
		{"end with others", end, []portmap.Mapping{far, m}, []string{"through the mapping", "from another peer", "hairpin", "knocked before", "outward", "outward to another"}},
		{"WIP-9: RemoteHost", end, []portmap.Mapping{only(m, "11.0.0.9")}, []string{"from another peer", "outward to another"}},
		{"begin", begin, []portmap.Mapping{m}, []string{"knocked before"}},
		{"begin with others", begin, []portmap.Mapping{far, m}, []string{"knocked before"}},
		{"begin, RemoteHost", begin, []portmap.Mapping{only(m, "11.0.0.9")}, nil},
		{"IPv6 is not followed yet", end, []portmap.Mapping{{Client: addr("fe80::1")}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := lab.Start(t)
			k, f := newTracker(t, l), openOn(t, l)
			for _, c := range all {
				k.track(c)
			}
			tt.do(f, home.External, tt.m)
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			left := k.list()
			for name, c := range all {
				if want := !slices.Contains(tt.ended, name); left[c.orig] != want {
					t.Errorf("%s: tracked: %v, want %v", name, left[c.orig], want)
				}
			}
		})
	}
}

func openOn(t *testing.T, l *lab.Lab) *Flows {
	t.Helper()
	var f *Flows
	on(t, l, func() error {
		f = OpenFlows(func(format string, args ...any) { t.Errorf("logged: "+format, args...) })
		return nil
	})
	t.Cleanup(func() { f.Close() })
	return f
}

// TestManyFlows: ten thousand connections, half of them through mappings.
func TestManyFlows(t *testing.T) {
	l := lab.Start(t)
	k, f := newTracker(t, l), openOn(t, l)
	var mappings []portmap.Mapping
	want := map[tuple]bool{}
	for i := range uint16(5000) {
		peer := netip.AddrPortFrom(addr("11.0.0.1"), 1000+i)
		outside, inside := netip.AddrPortFrom(home.External, 20000+i), netip.AddrPortFrom(addr("192.168.77.10"), 30000+i)
		k.track(flow{tuple{17, peer, outside}, tuple{17, inside, peer}})
		other := tuple{17, netip.AddrPortFrom(addr("192.168.77.20"), 1000+i), peer}
		k.track(flow{other, tuple{17, peer, netip.AddrPortFrom(home.External, 1000+i)}})
		want[other] = true
		mappings = append(mappings, portmap.Mapping{Key: portmap.Key{Protocol: 17, ExternalPort: 20000 + i}, Client: inside.Addr(), InternalPort: 30000 + i})
	}
	start := time.Now()
	f.End(home.External, mappings[:1])
	until(t, "the first of 5000 ends", func() bool { return len(k.list()) == 9999 })
	t.Logf("the first of 5000 of 10,000 connections was gone after %v", time.Since(start))
	start = time.Now()
	f.End(home.External, mappings)
	until(t, "all end", func() bool { return len(k.list()) <= 5000 })
	t.Logf("the others were gone after %v", time.Since(start))
	if left := k.list(); !reflect.DeepEqual(left, want) {
		t.Errorf("%d connections are left, want the other 5000", len(left))
	}
}

// until waits for the kernel, which is asked again and again.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

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
	for p.SetReadDeadline(time.Unix(1, 0)); ; { // late answers to earlier questions
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
		before := k.execute(dumpRequest(tuple{17, ap("11.0.0.1:4000"), ap("11.0.0.2:18080")}))

		renewed := game
		renewed.Description, renewed.Deadline = "renewed", game.Deadline+time.Hour
		change([]portmap.Mapping{game}, &renewed)
		on(t, l, func() error { return f.Sync(home, []portmap.Mapping{renewed}) })
		time.Sleep(2 * flowPause)
		after := k.execute(dumpRequest(tuple{17, ap("11.0.0.1:4000"), ap("11.0.0.2:18080")}))
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
