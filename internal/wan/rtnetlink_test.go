package wan

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

type attrs = []netlink.Attribute

func withAttrs(t testing.TB, head []byte, a attrs) []byte {
	t.Helper()
	b, err := netlink.MarshalAttributes(a)
	if err != nil {
		t.Fatal(err)
	}
	return append(head, b...)
}

// linkBytes makes struct ifinfomsg with attributes.
func linkBytes(t testing.TB, family byte, index int32, flags uint32, a attrs) []byte {
	t.Helper()
	head := make([]byte, unix.SizeofIfInfomsg)
	head[0] = family
	nlenc.PutInt32(head[4:8], index)
	nlenc.PutUint32(head[8:12], flags)
	return withAttrs(t, head, a)
}

// addrBytes makes struct ifaddrmsg with attributes.
func addrBytes(t testing.TB, bits, flags, scope byte, index uint32, a attrs) []byte {
	t.Helper()
	head := []byte{unix.AF_INET, bits, flags, scope, 0, 0, 0, 0}
	nlenc.PutUint32(head[4:8], index)
	return withAttrs(t, head, a)
}

func name(s string) netlink.Attribute {
	return netlink.Attribute{Type: unix.IFLA_IFNAME, Data: nlenc.Bytes(s)}
}

func TestParseLink(t *testing.T) {
	var stats []byte
	for i := range uint64(24) { // rx_packets, tx_packets, rx_bytes, tx_bytes, others
		stats = append(stats, nlenc.Uint64Bytes(1<<40+i)...)
	}
	got, err := parseLink(linkBytes(t, unix.AF_UNSPEC, 7, unix.IFF_UP|unix.IFF_BROADCAST, attrs{
		name("eth1"),
		{Type: unix.IFLA_OPERSTATE, Data: []byte{operUp}},
		{Type: unix.IFLA_ADDRESS, Data: []byte{2, 0, 0, 0, 0, 9}},
		{Type: unix.IFLA_STATS64, Data: stats},
		{Type: 0x7000, Data: []byte("of a later kernel")},
	}))
	want := link{index: 7, name: "eth1", flags: unix.IFF_UP | unix.IFF_BROADCAST, operState: operUp, mac: [6]byte{2, 0, 0, 0, 0, 9},
		counters: Counters{PacketsReceived: 1 << 40, PacketsSent: 1<<40 + 1, BytesReceived: 1<<40 + 2, BytesSent: 1<<40 + 3}}
	if err != nil || got != want {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}

	tunnel, err := parseLink(linkBytes(t, 0, 8, 0, attrs{{Type: unix.IFLA_ADDRESS, Data: []byte{10, 0, 0, 1}}}))
	if err != nil || tunnel.mac != [6]byte{} {
		t.Errorf("a tunnel's address is no MAC: %+v, %v", tunnel, err)
	}

	for what, b := range map[string][]byte{
		"empty":          nil,
		"short head":     make([]byte, unix.SizeofIfInfomsg-1),
		"short counters": linkBytes(t, 0, 7, 0, attrs{{Type: unix.IFLA_STATS64, Data: stats[:31]}}),
		"long state":     linkBytes(t, 0, 7, 0, attrs{{Type: unix.IFLA_OPERSTATE, Data: []byte{1, 2}}}),
		"cut attribute":  append(make([]byte, unix.SizeofIfInfomsg), 0xff, 0, 3, 0, 'e'),
	} {
		if l, err := parseLink(b); err == nil {
			t.Errorf("%s: %+v", what, l)
		}
	}
}

func TestParseAddress(t *testing.T) {
	local := netlink.Attribute{Type: unix.IFA_LOCAL, Data: []byte{11, 0, 0, 2}}
	same := netlink.Attribute{Type: unix.IFA_ADDRESS, Data: []byte{11, 0, 0, 2}}
	peer := netlink.Attribute{Type: unix.IFA_ADDRESS, Data: []byte{11, 0, 0, 77}}
	far := netlink.Attribute{Type: unix.IFA_ADDRESS, Data: []byte{99, 0, 0, 1}}
	six := netlink.Attribute{Type: unix.IFA_ADDRESS, Data: netip.MustParseAddr("2001:db8::2").AsSlice()}
	sixNear := netlink.Attribute{Type: unix.IFA_LOCAL, Data: netip.MustParseAddr("2001:db8::3").AsSlice()}
	sixLocal := netlink.Attribute{Type: unix.IFA_LOCAL, Data: netip.MustParseAddr("fd00::1").AsSlice()}
	for what, test := range map[string]struct {
		bits   byte
		attrs  attrs
		prefix string
	}{
		"ethernet":          {24, attrs{same, local}, "11.0.0.2/24"},
		"no local":          {24, attrs{same}, "11.0.0.2/24"},
		"no peer":           {24, attrs{local}, "11.0.0.2/24"},
		"PPP":               {32, attrs{far, local}, "11.0.0.2/32"},
		"PPP, near":         {32, attrs{peer, local}, "11.0.0.2/32"},
		"peer of a network": {8, attrs{far, local}, "11.0.0.2/32"},
		"peer in network":   {24, attrs{peer, local}, "11.0.0.2/24"},
		"IPv6":              {64, attrs{six}, "2001:db8::2/64"},
		"IPv6, all bits":    {128, attrs{six}, "2001:db8::2/128"},
		"IPv6, far peer":    {64, attrs{sixLocal, six}, "fd00::1/128"},
		"IPv6, near peer":   {64, attrs{six, sixNear}, "2001:db8::3/64"},
		"impossible length": {33, attrs{local}, ""},
		"beyond IPv6":       {129, attrs{six}, ""},
		"phonet":            {0, attrs{{Type: unix.IFA_LOCAL, Data: []byte{8}}}, ""},
		"no address":        {24, nil, ""},
	} {
		got, err := parseAddress(addrBytes(t, test.bits, 0, 0, 3, test.attrs))
		want := address{index: 3}
		if test.prefix != "" {
			want.prefix = netip.MustParsePrefix(test.prefix)
		}
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", what, got, err, want)
		}
	}
	got, err := parseAddress(addrBytes(t, 24, unix.IFA_F_SECONDARY|unix.IFA_F_PERMANENT, unix.RT_SCOPE_LINK, 3, attrs{local}))
	if err != nil || got.flags&unix.IFA_F_SECONDARY == 0 || got.scope != unix.RT_SCOPE_LINK {
		t.Errorf("secondary, link scope: %+v, %v", got, err)
	}
	// The flags that do not fit into the header stand in an attribute, all of them.
	all := netlink.Attribute{Type: unix.IFA_FLAGS, Data: nlenc.Uint32Bytes(unix.IFA_F_DEPRECATED | unix.IFA_F_NOPREFIXROUTE)}
	got, err = parseAddress(addrBytes(t, 64, unix.IFA_F_TENTATIVE, 0, 3, attrs{six, all}))
	if err != nil || got.flags != unix.IFA_F_DEPRECATED|unix.IFA_F_NOPREFIXROUTE {
		t.Errorf("IFA_FLAGS: %+v, %v", got, err)
	}
	for what, b := range map[string][]byte{
		"empty":         nil,
		"short flags":   addrBytes(t, 64, 0, 0, 3, attrs{{Type: unix.IFA_FLAGS, Data: []byte{1, 0}}}),
		"short head":    make([]byte, unix.SizeofIfAddrmsg-1),
		"cut attribute": append(make([]byte, unix.SizeofIfAddrmsg), 0xff, 0, 2, 0, 11),
	} {
		if a, err := parseAddress(b); err == nil {
			t.Errorf("%s: %+v", what, a)
		}
	}
}

// A dump that says it was interrupted may lack something.
func TestInterrupted(t *testing.T) {
	for flags, want := range map[netlink.HeaderFlags]bool{
		netlink.Multi:                           false,
		netlink.Multi | netlink.DumpInterrupted: true,
	} {
		if got := interrupted(netlink.Message{Header: netlink.Header{Flags: flags}}); got != want {
			t.Errorf("flags %#x: %t", flags, got)
		}
	}
}

// event makes a datagram of one message.
func event(t testing.TB, typ uint16, data []byte) []byte {
	t.Helper()
	m := netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Length: uint32(unix.NLMSG_HDRLEN + len(data))}, Data: data}
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMatters(t *testing.T) {
	d := devices{names: []string{"eth1", "br-lan"}, indexes: []int{7, 0}}
	ours := linkBytes(t, unix.AF_UNSPEC, 7, 0, attrs{name("eth1")})
	away := linkBytes(t, unix.AF_UNSPEC, 7, 0, attrs{name("old")})
	appears := linkBytes(t, unix.AF_UNSPEC, 9, 0, attrs{name("br-lan")})
	other := linkBytes(t, unix.AF_UNSPEC, 8, 0, attrs{name("veth8")})
	port := linkBytes(t, unix.AF_BRIDGE, 7, 0, attrs{name("eth1")})
	ourAddr := addrBytes(t, 24, 0, 0, 7, nil)
	otherAddr := addrBytes(t, 24, 0, 0, 8, nil)
	for what, test := range map[string]struct {
		datagram []byte
		want     bool
	}{
		"link":                {event(t, unix.RTM_NEWLINK, ours), true},
		"link deleted":        {event(t, unix.RTM_DELLINK, ours), true},
		"renamed away":        {event(t, unix.RTM_NEWLINK, away), true},
		"appears":             {event(t, unix.RTM_NEWLINK, appears), true},
		"other link":          {event(t, unix.RTM_NEWLINK, other), false},
		"bridge port":         {event(t, unix.RTM_NEWLINK, port), false},
		"address":             {event(t, unix.RTM_NEWADDR, ourAddr), true},
		"address deleted":     {event(t, unix.RTM_DELADDR, ourAddr), true},
		"other address":       {event(t, unix.RTM_NEWADDR, otherAddr), false},
		"route":               {event(t, unix.RTM_NEWROUTE, make([]byte, 12)), false},
		"second of two":       {append(event(t, unix.RTM_NEWLINK, other), event(t, unix.RTM_NEWADDR, ourAddr)...), true},
		"two others":          {append(event(t, unix.RTM_NEWLINK, other), event(t, unix.RTM_NEWADDR, otherAddr)...), false},
		"unreadable link":     {event(t, unix.RTM_NEWLINK, nil), true},
		"unreadable address":  {event(t, unix.RTM_NEWADDR, nil), true},
		"unreadable datagram": {make([]byte, 20), true},
		"nothing":             {nil, false},
	} {
		if got := d.matters(test.datagram); got != test.want {
			t.Errorf("%s: %t", what, got)
		}
	}
}

// FuzzMatters: whatever arrives, reading it ends; a datagram that is cut matters,
// and an address has a prefix that it can have.
func FuzzMatters(f *testing.F) {
	link := linkBytes(f, 0, 7, 1, attrs{name("eth1"), {Type: unix.IFLA_STATS64, Data: make([]byte, 192)}})
	addr := addrBytes(f, 24, 0, 0, 7, attrs{{Type: unix.IFA_LOCAL, Data: []byte{11, 0, 0, 2}}, {Type: unix.IFA_ADDRESS, Data: make([]byte, 16)}})
	f.Add(event(f, unix.RTM_NEWLINK, link))
	f.Add(event(f, unix.RTM_NEWADDR, addr))
	f.Add(append(event(f, unix.RTM_DELADDR, addr), event(f, unix.RTM_NEWROUTE, make([]byte, 12))...))
	f.Add(link)
	f.Add(addr)
	f.Add(linkBytes(f, 0, 7, 1, attrs{{Type: unix.IFLA_STATS64, Data: make([]byte, 16)}}))
	f.Add(addrBytes(f, 33, 0, 0, 7, attrs{{Type: unix.IFA_LOCAL, Data: []byte{11, 0, 0, 2}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := devices{names: []string{"eth1"}, indexes: []int{7}}
		for n := range min(len(b), unix.SizeofIfInfomsg+8) { // cut, with nothing behind
			_, _ = parseLink(b[:n:n])
			_, _ = parseAddress(b[:n:n])
		}
		whole := d.matters(b)
		if n := len(b); n >= unix.NLMSG_HDRLEN && nlenc.Uint32(b[:4]) > uint32(n) && !whole {
			t.Errorf("%x is cut, but does not matter", b)
		}
		if whole != d.matters(b) {
			t.Errorf("%x matters now and then", b)
		}
		if l, err := parseLink(b); err == nil && !bytes.Contains(b, []byte(l.name)) {
			t.Errorf("%x is %+v", b, l)
		}
		a, err := parseAddress(b)
		if p := a.prefix; err == nil && p != (netip.Prefix{}) && (!p.IsValid() || p.Addr().Zone() != "" || p.Bits() != int(b[1]) && !p.IsSingleIP()) {
			t.Errorf("%x is %+v", b, a)
		}
	})
}
