package clients

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// asks are the bytes of real clients; %[1]s is the group, %[2]s the ST.
var asks = map[string]string{
	// SSDP Discovery of Windows XP to 11.
	"Windows": "M-SEARCH * HTTP/1.1\r\nHost:%[1]s:1900\r\nST:%[2]s\r\nMan:\"ssdp:discover\"\r\nMX:3\r\n\r\n",
	// miniupnpc 2.x with its usual delay of two seconds.
	"miniupnpc": "M-SEARCH * HTTP/1.1\r\nHOST: %[1]s:1900\r\nST: %[2]s\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\n\r\n",
}

// groups are where the searches go, and how the group is written in HOST.
var groups = map[string]string{"239.255.255.250": "239.255.255.250", "ff02::c": "[FF02::C]", "ff05::c": "[FF05::C]"}

// search sends a search from lan1; the answers are complete when answers() is
// called some 500 ms later.
func (h *house) search(kind, group, st string) (answers func() []datagram) {
	h.t.Helper()
	to := netip.AddrPortFrom(netip.MustParseAddr(group), 1900)
	local := lab.LAN1Addr + ":0"
	if to.Addr().Is6() {
		local = "[::]:0"
	}
	c, err := h.LAN1.ListenUDP(local)
	if err != nil {
		h.t.Fatal(err)
	}
	if to.Addr().Is6() {
		to = netip.AddrPortFrom(to.Addr().WithZone(zone(h.t, h.LAN1, lab.HostDev)), 1900)
	}
	if _, err := c.WriteToUDPAddrPort(fmt.Appendf(nil, asks[kind], groups[group], st), to); err != nil {
		h.t.Fatal(err)
	}
	return func() []datagram {
		defer c.Close()
		return drain(h.t, c)
	}
}

// drain reads what is there.
func drain(t testing.TB, c *net.UDPConn) (all []datagram) {
	t.Helper()
	b := make([]byte, 2000)
	for {
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return all
		}
		d := parseDatagram(t, b[:n])
		d.from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
		all = append(all, d)
	}
}

// tree gives the rows of SPEC 1.3 as "NT USN".
func tree(g *gateway, version, services int) []string {
	urn := "urn:schemas-upnp-org:"
	v := fmt.Sprint(":", version)
	r, w, c := g.uuids[0], g.uuids[1], g.uuids[2]
	rows := []string{"upnp:rootdevice " + r + "::upnp:rootdevice", r + " " + r, w + " " + w, c + " " + c}
	for _, row := range [][2]string{
		{urn + "device:InternetGatewayDevice" + v, r}, {urn + "service:Layer3Forwarding:1", r},
		{urn + "device:WANDevice" + v, w}, {urn + "service:WANCommonInterfaceConfig:1", w},
		{urn + "device:WANConnectionDevice" + v, c}, {urn + "service:WANIPConnection" + v, c},
		{urn + "service:WANIPv6FirewallControl:1", c},
	}[:services] {
		rows = append(rows, row[0]+" "+row[1]+"::"+row[0])
	}
	slices.Sort(rows)
	return rows
}

// targets are what is searched for. The decision is a letter for each device
// and face: R, W, C of version 1, r, w, c of version 2, all or ALL for a tree; nothing for
// no answer; for igd = auto, 1 and 2 (DESIGN.md, "Two faces"; SSDP-45, SSDP-46).
var targets = []struct{ st, auto, one, two string }{
	{"urn:schemas-upnp-org:device:InternetGatewayDevice:1", "R", "R", "r"},
	{"urn:schemas-upnp-org:device:InternetGatewayDevice:2", "r", "", "r"},
	{"urn:schemas-upnp-org:device:InternetGatewayDevice:3", "", "", ""},
	{"urn:schemas-upnp-org:service:WANIPConnection:1", "C", "C", "c"},
	{"urn:schemas-upnp-org:service:WANIPConnection:2", "c", "", "c"},
	{"urn:schemas-upnp-org:service:WANIPv6FirewallControl:1", "c", "", "c"},
	{"urn:schemas-upnp-org:service:WANPPPConnection:1", "", "", ""},
	{"urn:schemas-upnp-org:service:Layer3Forwarding:1", "R", "R", "r"},
	{"ssdp:all", "ALL", "ALL", "all"},
	{"upnp:rootdevice", "R", "R", "r"},
	{"R", "R", "R", ""}, {"W", "W", "W", ""}, {"C", "C", "C", ""},
	{"r", "r", "", "r"}, {"w", "w", "", "w"}, {"c", "c", "", "c"},
}

// decided gives the rows that a search must draw, as "LOCATION-PATH ST USN".
func decided(st, letter string, v1, v2 *gateway) []string {
	if letter == "" {
		return nil
	}
	g, path, version, services := v1, "/gatedesc.xml", 1, 6
	if strings.ToLower(letter) == letter {
		g, path, version, services = v2, "/upnp/2/gatedesc.xml", 2, 7
	}
	var rows []string
	if strings.EqualFold(letter, "all") {
		rows = tree(g, version, services)
	} else if uuid := g.uuids[strings.Index("RWC", strings.ToUpper(letter))]; st == uuid {
		rows = []string{uuid + " " + uuid}
	} else {
		rows = []string{st + " " + uuid + "::" + st}
	}
	for i := range rows {
		rows[i] = path + " " + rows[i]
	}
	return rows
}

// TestSearchMatrix: every search of issue 6, point 5, from two clients and to
// three groups, on each value of igd, changed by SIGHUP.
func TestSearchMatrix(t *testing.T) {
	h := enter(t, "igd = auto").begin()
	p := h.person(h.LAN1, lab.LAN1Addr)
	v1, v2 := p.read(p.locate(igd1)), p.read(p.locate(igd2))
	if v1.uuids[0] == v2.uuids[0] || v1.uuids[1] == v2.uuids[1] || v1.uuids[2] == v2.uuids[2] {
		t.Fatalf("the faces share UUIDs: %q %q", v1.uuids, v2.uuids)
	}
	addrs := map[string]string{
		"239.255.255.250": lab.RouterLANAddr,
		"ff02::c":         "[" + linkLocal(t, h.Router, lab.LANDev).String() + "]",
		"ff05::c":         "", // one of two, but no link-local one
	}
	for n, igd := range []string{"auto", "1", "2"} {
		if n > 0 {
			h.reload("Advertisements Sent", n+1, "igd = "+igd)
		}
		h.matrix(igd, addrs, v1, v2)
	}
}

// matrix asks for every target in every way.
func (h *house) matrix(igd string, addrs map[string]string, v1, v2 *gateway) {
	h.t.Helper()
	name := func(st string) string {
		if i := slices.Index([]string{"R", "W", "C", "r", "w", "c"}, st); i >= 0 {
			return slices.Concat(v1.uuids, v2.uuids)[i]
		}
		return st
	}
	type asked struct {
		kind, group, addr, st string
		want                  []string
		answers               func() []datagram
	}
	var all []asked
	for _, tt := range targets {
		letter := map[string]string{"auto": tt.auto, "1": tt.one, "2": tt.two}[igd]
		for kind := range asks {
			for group := range groups {
				st := name(tt.st)
				all = append(all, asked{kind, group, addrs[group], st, decided(st, letter, v1, v2), h.search(kind, group, st)})
				time.Sleep(8 * time.Millisecond) // 16 searches wait at most
			}
		}
	}
	time.Sleep(500 * time.Millisecond)
	for _, a := range all {
		var got []string
		for _, d := range a.answers() {
			location := d.header.Get("LOCATION")
			host, path, _ := strings.Cut(strings.TrimPrefix(location, "http://"), ":49152")
			got = append(got, path+" "+d.header.Get("ST")+" "+d.header.Get("USN"))
			if d.start != "HTTP/1.1 200 OK" || strings.Trim(host, "[]") != d.from.Addr().String() || host != a.addr && (a.addr != "" || d.from.Addr().IsLinkLocalUnicast()) || d.from.Port() != 1900 {
				h.t.Errorf("igd = %s, %s to %s, %s: %s, LOCATION %s from %v", igd, a.kind, a.group, a.st, d.start, location, d.from) // SSDP-6, SSDP-44
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, a.want) {
			h.t.Errorf("igd = %s, %s to %s, %s:\n%s\nwant\n%s", igd, a.kind, a.group, a.st, strings.Join(got, "\n"), strings.Join(a.want, "\n"))
		}
	}
}

// recorder hears the multicasts on lan2.
type recorder struct {
	mu  sync.Mutex
	got []datagram
}

func (h *house) record() *recorder {
	h.t.Helper()
	r := &recorder{}
	for group := range groups {
		network := "udp4"
		if strings.Contains(group, ":") {
			network = "udp6"
		}
		var c *net.UDPConn
		err := h.LAN2.Do(func() error {
			dev, err := net.InterfaceByName(lab.HostDev)
			if err == nil {
				c, err = net.ListenMulticastUDP(network, dev, &net.UDPAddr{IP: net.ParseIP(group), Port: 1900})
			}
			return err
		})
		if err != nil {
			h.t.Fatal(err)
		}
		h.t.Cleanup(func() { c.Close() })
		if raw, err := c.SyscallConn(); err == nil && network == "udp6" {
			// Else this socket has what is for the other IPv6 group, too.
			raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_MULTICAST_ALL, 0) })
			if err != nil {
				h.t.Fatal(err)
			}
		}
		go func() {
			b := make([]byte, 2000)
			for {
				n, _, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				d := parseDatagram(h.t, b[:n])
				if strings.HasPrefix(d.start, "NOTIFY") {
					r.mu.Lock()
					r.got = append(r.got, d)
					r.mu.Unlock()
				}
			}
		}()
	}
	return r
}

// take gives what was heard since the last call, "NTS HOST NT USN" without
// repetitions, in the order of the first time.
func (r *recorder) take() (rows []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.got {
		row := fmt.Sprintf("%s %s %s %s", strings.TrimPrefix(d.header.Get("NTS"), "ssdp:"), strings.ToLower(d.header.Get("HOST")), d.header.Get("NT"), d.header.Get("USN"))
		if !slices.Contains(rows, row) {
			rows = append(rows, row)
		}
	}
	r.got = nil
	return rows
}

// TestAnnouncements: alive only of the announced face, byebye of both at start
// and stop, the same on all groups (DESIGN.md, "Two faces"; SSDP-20, SSDP-30,
// SSDP-33, SSDP-35).
func TestAnnouncements(t *testing.T) {
	h := enter(t, "igd = auto")
	r := h.record()
	h.begin()
	p := h.person(h.LAN1, lab.LAN1Addr)
	v1, v2 := p.read(p.locate(igd1)), p.read(p.locate(igd2))
	face1, face2 := tree(v1, 1, 6), tree(v2, 2, 7)
	both := slices.Concat(face1, face2)
	for n, step := range []struct {
		igd          string
		byebye, stop []string
		alive        []string
	}{
		{"auto", both, both, face1},
		{"1", face1, face1, face1},
		{"2", face2, face2, face2},
	} {
		started := "Advertisements Sent"
		before := []string{}
		if n > 0 {
			h.reload(started, n+1, "igd = "+step.igd)
			before = map[string][]string{"1": both, "2": face1}[step.igd] // the last one's goodbye
		}
		until(t, "all is said", func() bool { time.Sleep(100 * time.Millisecond); return r.quiet() })
		r.check(t, "start with igd = "+step.igd, slices.Concat(before, step.byebye), step.alive)
	}
	h.daemon.Stop(t)
	until(t, "all is said", func() bool { time.Sleep(100 * time.Millisecond); return r.quiet() })
	r.check(t, "stop", face2, nil)
}

// quiet tells that nothing came for a while, which sets are apart at most.
func (r *recorder) quiet() bool {
	r.mu.Lock()
	n := len(r.got)
	r.mu.Unlock()
	time.Sleep(600 * time.Millisecond)
	r.mu.Lock()
	defer r.mu.Unlock()
	return n > 0 && n == len(r.got)
}

// check wants these rows on each group.
func (r *recorder) check(t *testing.T, what string, byebye, alive []string) {
	t.Helper()
	rows := r.take()
	for _, group := range []string{"239.255.255.250:1900", "[ff02::c]:1900", "[ff05::c]:1900"} {
		got := map[string][]string{}
		for _, row := range rows {
			f := strings.SplitN(row, " ", 3)
			if f[1] == group {
				got[f[0]] = append(got[f[0]], f[2])
			}
		}
		for nts, want := range map[string][]string{"byebye": byebye, "alive": alive} {
			want = slices.Compact(slices.Sorted(slices.Values(want)))
			slices.Sort(got[nts])
			if !slices.Equal(got[nts], want) {
				t.Errorf("%s: %s to %s:\n%s\nwant\n%s", what, nts, group, strings.Join(got[nts], "\n"), strings.Join(want, "\n"))
			}
		}
		// SSDP-30: goodbye comes first.
		first := slices.IndexFunc(rows, func(row string) bool { return strings.HasPrefix(row, "alive "+group) })
		last := slices.IndexFunc(rows, func(row string) bool { return strings.HasPrefix(row, "byebye "+group) })
		if first >= 0 && last > first {
			t.Errorf("%s: alive to %s before any byebye", what, group)
		}
	}
}
