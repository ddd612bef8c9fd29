package firewall

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"slices"
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
	family := byte(unix.AF_INET)
	if c.orig.dst.Addr().Is6() {
		family = unix.AF_INET6
	}
	k.execute(request(family, unix.NFNL_SUBSYS_CTNETLINK<<8, netlink.Acknowledge|netlink.Create|netlink.Excl, ae))
}

// list gives the original tuples of what is tracked.
func (k tracker) list() map[tuple]bool {
	k.t.Helper()
	all := map[tuple]bool{}
	for _, reply := range k.execute(dumpRequest(unix.AF_UNSPEC, tuple{})) {
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
		"pinhole":                   between(udp, "[2001:db8:ff::1]:4000", "[2001:db8:77::10]:8080", "[2001:db8:77::10]:8080", "[2001:db8:ff::1]:4000"),
		"pinhole, another port":     between(udp, "[2001:db8:ff::1]:4001", "[2001:db8:77::10]:8080", "[2001:db8:77::10]:8080", "[2001:db8:ff::1]:4001"),
		"pinhole, another host":     between(udp, "[2001:db8:ff::9]:4000", "[2001:db8:77::10]:8080", "[2001:db8:77::10]:8080", "[2001:db8:ff::9]:4000"),

		"IPv6, other protocol":    between(tcp, "[2001:db8:ff::1]:4000", "[2001:db8:77::10]:8080", "[2001:db8:77::10]:8080", "[2001:db8:ff::1]:4000"),
		"IPv6, other client port": between(udp, "[2001:db8:ff::1]:4000", "[2001:db8:77::10]:8081", "[2001:db8:77::10]:8081", "[2001:db8:ff::1]:4000"),
		"IPv6, another client":    between(udp, "[2001:db8:ff::1]:4000", "[2001:db8:77::11]:8080", "[2001:db8:77::11]:8080", "[2001:db8:ff::1]:4000"),
		"IPv6, outward":           between(udp, "[2001:db8:77::10]:8080", "[2001:db8:ff::1]:53", "[2001:db8:ff::1]:53", "[2001:db8:77::10]:8080"),

		"inside the LAN": between(udp, "192.168.77.10:8080", "192.168.77.1:53", "192.168.77.1:53", "192.168.77.10:8080"),
	}
	m := portmap.Mapping{Key: portmap.Key{Protocol: udp, ExternalPort: 18080}, Client: addr("192.168.77.10"), InternalPort: 8080, Enabled: true}
	far := portmap.Mapping{Key: portmap.Key{Protocol: tcp, ExternalPort: 9}, Client: addr("192.168.77.99"), InternalPort: 9, Enabled: true}
	farPin := pinhole("", 0)
	farPin.Pinhole = addr("2001:db8:77::99")
	farPin.Client = farPin.Pinhole
	tcpPin := farPin
	tcpPin.Protocol = tcp
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
		{"PIN: any remote", end, []portmap.Mapping{pinhole("", 0)}, []string{"pinhole", "pinhole, another port", "pinhole, another host"}},
		{"PIN: a host", end, []portmap.Mapping{pinhole("2001:db8:ff::1", 0)}, []string{"pinhole", "pinhole, another port"}},
		{"PIN: a port", end, []portmap.Mapping{pinhole("", 4000)}, []string{"pinhole", "pinhole, another host"}},
		{"PIN: both, and a mapping", end, []portmap.Mapping{pinhole("2001:db8:ff::1", 4000), only(m, "11.0.0.9")}, []string{"pinhole", "from another peer", "outward to another"}},
		{"PIN: several hosts", end, []portmap.Mapping{pinhole("", 4001), farPin}, []string{"pinhole, another port"}},
		{"PIN: two protocols", end, []portmap.Mapping{pinhole("", 0), tcpPin}, []string{"pinhole", "pinhole, another port", "pinhole, another host"}},
		{"PIN: begin", begin, []portmap.Mapping{pinhole("", 0)}, nil},
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

// End and Begin are end and begin for mappings at an address.
func (f *Flows) End(external netip.Addr, mappings []portmap.Mapping) {
	for i := range mappings {
		f.end(newMapped(external, &mappings[i]))
	}
}

func (f *Flows) Begin(external netip.Addr, mappings []portmap.Mapping) {
	for i := range mappings {
		f.begin(newMapped(external, &mappings[i]))
	}
}
