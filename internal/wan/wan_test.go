package wan

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// addrOf makes a primary address of global scope.
func addrOf(index int, prefix string) address {
	return address{index: index, prefix: netip.MustParsePrefix(prefix)}
}

func prefixes(all ...string) []netip.Prefix {
	var p []netip.Prefix
	for _, s := range all {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func TestNextUplink(t *testing.T) {
	const now = 100 * time.Second
	a, b := netip.MustParseAddr("11.0.0.2"), netip.MustParseAddr("11.0.0.3")
	up := link{index: 5, flags: unix.IFF_UP, operState: operUp}
	before := Uplink{Name: "eth1", Index: 5, Up: true, Addr: a, Since: 7 * time.Second, Speed: 1e9}
	secondary := addrOf(5, "11.0.0.3/24")
	secondary.flags = unix.IFA_F_SECONDARY
	linkScope := addrOf(5, "11.0.0.2/24")
	linkScope.scope = unix.RT_SCOPE_LINK

	for name, test := range map[string]struct {
		prev  Uplink
		link  *link
		addrs []address
		want  Uplink
	}{
		"absent": {before, nil, []address{addrOf(5, "11.0.0.2/24")}, Uplink{Name: "eth1"}},
		"same": {before, &up, []address{addrOf(5, "11.0.0.2/24")},
			Uplink{Index: 5, Up: true, Addr: a, Since: 7 * time.Second, Speed: 1e9}},
		"appears": {Uplink{Name: "eth1"}, &up, []address{addrOf(5, "11.0.0.2/24")},
			Uplink{Index: 5, Up: true, Addr: a, Since: now, Speed: 1e9}},
		"other index": {Uplink{Name: "eth1", Index: 4, Up: true, Addr: a, Since: 7}, &up, []address{addrOf(5, "11.0.0.2/24")},
			Uplink{Index: 5, Up: true, Addr: a, Since: now, Speed: 1e9}},
		"other address": {before, &up, []address{addrOf(5, "11.0.0.3/24")},
			Uplink{Index: 5, Up: true, Addr: b, Since: now, Speed: 1e9}},
		"keeps the present": {before, &up, []address{addrOf(5, "11.0.0.3/24"), addrOf(5, "11.0.0.2/24")},
			Uplink{Index: 5, Up: true, Addr: a, Since: 7 * time.Second, Speed: 1e9}},
		"first of two": {Uplink{Name: "eth1"}, &up, []address{addrOf(5, "11.0.0.3/24"), addrOf(5, "11.0.0.2/24")},
			Uplink{Index: 5, Up: true, Addr: b, Since: now, Speed: 1e9}},
		"primary before secondary": {Uplink{Name: "eth1"}, &up, []address{secondary, addrOf(5, "11.0.0.2/24")},
			Uplink{Index: 5, Up: true, Addr: a, Since: now, Speed: 1e9}},
		"secondary at least": {Uplink{Name: "eth1"}, &up, []address{secondary},
			Uplink{Index: 5, Up: true, Addr: b, Since: now, Speed: 1e9}},
		"IPv6 does not count": {before, &up, []address{addrOf(5, "2001:db8::2/64")}, Uplink{Index: 5, Up: true, Speed: 1e9}},
		"another device's":    {before, &up, []address{addrOf(6, "11.0.0.2/24")}, Uplink{Index: 5, Up: true, Speed: 1e9}},
		"link scope":          {before, &up, []address{linkScope}, Uplink{Index: 5, Up: true, Speed: 1e9}},
		"link-local":          {before, &up, []address{addrOf(5, "169.254.3.4/16")}, Uplink{Index: 5, Up: true, Speed: 1e9}},
		"down": {before, &link{index: 5, operState: operUp}, []address{addrOf(5, "11.0.0.2/24")},
			Uplink{Index: 5, Addr: a}},
		"no carrier": {before, &link{index: 5, flags: unix.IFF_UP, operState: 2}, []address{addrOf(5, "11.0.0.2/24")},
			Uplink{Index: 5, Addr: a}},
		"cannot tell (ppp)": {before, &link{index: 5, flags: unix.IFF_UP}, []address{addrOf(5, "11.0.0.2/32")},
			Uplink{Index: 5, Up: true, Addr: a, Since: 7 * time.Second, Speed: 1e9}},
	} {
		k := kernel{links: map[string]link{}, addrs: test.addrs}
		if test.link != nil {
			k.links["eth1"] = *test.link
		}
		test.want.Name = "eth1"
		s := next(State{Uplink: test.prev}, k, now, func(string) uint64 { return 1e9 })
		if s.Uplink != test.want {
			t.Errorf("%s: %+v\nwant %+v", name, s.Uplink, test.want)
		}
	}
}

func TestLANAddresses(t *testing.T) {
	l := LAN{Prefixes: prefixes("10.0.0.1/24", "192.168.7.1/25"), Prefixes6: prefixes("2001:db8::1/64", "fd00::1/128")}
	for _, test := range []struct {
		addr          string
		onLink, local bool
	}{
		{"10.0.0.1", false, true},
		{"10.0.0.2", true, false},
		{"10.0.1.2", false, false},
		{"192.168.7.1", false, true},
		{"192.168.7.127", true, false},
		{"192.168.7.128", false, false},
		{"::ffff:10.0.0.2", false, false},
		{"fe80::1", false, false},
		{"2001:db8::1", false, true},
		{"2001:db8::2", true, false},
		{"2001:db8::2%br-lan", false, false},
		{"2001:db8:0:1::2", false, false},
		{"fd00::1", false, true},
		{"fd00::2", false, false},
	} {
		a := netip.MustParseAddr(test.addr)
		if l.OnLink(a) != test.onLink || l.Local(a) != test.local {
			t.Errorf("%s: OnLink %t, Local %t", a, l.OnLink(a), l.Local(a))
		}
	}
	if l.OnLink(netip.Addr{}) || l.Local(netip.Addr{}) || (LAN{}).Addr().IsValid() || (LAN{}).OnLink(netip.MustParseAddr("10.0.0.2")) {
		t.Error("the zero Addr or the zero LAN has an address")
	}
	if got := l.Addr().String(); got != "10.0.0.1" {
		t.Errorf("Addr %s", got)
	}
}

// SPEC SSDP-6: what a LOCATION is made of.
func TestLANAddresses6(t *testing.T) {
	for what, test := range map[string]struct {
		prefixes      []netip.Prefix
		deprecated    int
		global, local string
	}{
		"none":                {nil, 0, "invalid IP", "invalid IP"},
		"link-local":          {prefixes("fe80::1/64", "fe80::2/64"), 0, "invalid IP", "fe80::1"},
		"GUA before ULA":      {prefixes("fd00::1/64", "2001:db8::1/64", "2001:db8::2/64", "fe80::1/64"), 0, "2001:db8::1", "fe80::1"},
		"first ULA":           {prefixes("fd00::1/64", "fd00::2/64"), 0, "fd00::1", "invalid IP"},
		"deprecated GUA":      {prefixes("fd00::1/64", "fe80::1/64", "2001:db8::1/64"), 1, "fd00::1", "fe80::1"},
		"all deprecated":      {prefixes("2001:db8::1/64", "fd00::1/64"), 2, "invalid IP", "invalid IP"},
		"deprecated LL":       {prefixes("fe80::1/64"), 1, "invalid IP", "fe80::1"},
		"loopback is no host": {prefixes("::1/128"), 0, "invalid IP", "invalid IP"},
	} {
		l := LAN{Prefixes: prefixes("10.0.0.1/24"), Prefixes6: test.prefixes, Deprecated6: test.deprecated}
		if g, ll := l.Global6().String(), l.LinkLocal().String(); g != test.global || ll != test.local {
			t.Errorf("%s: Global6 %s, LinkLocal %s; want %s, %s", what, g, ll, test.global, test.local)
		}
	}
}

// flagged makes an address of device 5 with IFA_F_ flags.
func flagged(prefix string, flags uint32) address {
	a := addrOf(5, prefix)
	a.flags = flags
	return a
}

func TestNextLAN(t *testing.T) {
	k := kernel{links: map[string]link{"br-lan": {index: 5}}, addrs: []address{
		addrOf(6, "2001:db8:6::1/64"),
		addrOf(5, "10.0.0.1/24"),
		flagged("10.0.0.2/24", unix.IFA_F_DEPRECATED), // IPv4 has no such state in our eyes
		flagged("2001:db8:1::1/64", unix.IFA_F_DEPRECATED|unix.IFA_F_NOPREFIXROUTE),
		flagged("2001:db8:2::1/64", unix.IFA_F_PERMANENT|unix.IFA_F_NOPREFIXROUTE),
		flagged("2001:db8:3::1/64", unix.IFA_F_TENTATIVE),
		flagged("2001:db8:4::1/64", unix.IFA_F_TENTATIVE|unix.IFA_F_OPTIMISTIC),
		flagged("2001:db8:5::1/64", unix.IFA_F_DADFAILED),
		flagged("2001:db8:5::2/64", unix.IFA_F_DADFAILED|unix.IFA_F_DEPRECATED),
		flagged("fd00::1/64", unix.IFA_F_DEPRECATED),
		addrOf(5, "fe80::1/64"),
	}}
	got := next(State{LANs: []LAN{{Name: "br-lan"}}}, k, 0, nil).LANs[0]
	want := LAN{Name: "br-lan", Index: 5, Prefixes: prefixes("10.0.0.1/24", "10.0.0.2/24"),
		Prefixes6: prefixes("2001:db8:2::1/64", "fe80::1/64", "2001:db8:1::1/64", "fd00::1/64"), Deprecated6: 2}
	if !got.equal(want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestDescribeLAN(t *testing.T) {
	none := LAN{Name: "lan"}
	bare := LAN{Name: "lan", Index: 5}
	four := LAN{Name: "lan", Index: 5, Prefixes: prefixes("10.0.0.1/24")}
	other := LAN{Name: "lan", Index: 5, Prefixes: prefixes("10.0.1.1/24", "10.0.2.1/24")}
	six := LAN{Name: "lan", Index: 5, Prefixes6: prefixes("2001:db8::1/64", "fe80::1/64")}
	both, otherBoth, old := four, other, four
	both.Prefixes6, otherBoth.Prefixes6 = six.Prefixes6, six.Prefixes6
	old.Prefixes6, old.Deprecated6 = prefixes("fe80::1/64", "2001:db8::1/64"), 1
	oldOther := old
	oldOther.Prefixes = other.Prefixes
	for _, test := range []struct {
		was, is LAN
		want    string
	}{
		{LAN{}, none, "no LAN device lan yet; waiting for it"},
		{none, none, ""},
		{none, bare, "LAN device lan has no IPv4 address; waiting"},
		{bare, none, "LAN device lan is gone; waiting for it"},
		{both, none, "LAN device lan is gone; waiting for it"},
		{LAN{}, four, "LAN device lan has address 10.0.0.1/24"},
		{LAN{}, both, "LAN device lan has address 10.0.0.1/24; has IPv6 address 2001:db8::1/64 fe80::1/64"},
		{LAN{}, six, "LAN device lan has no IPv4 address; waiting; has IPv6 address 2001:db8::1/64 fe80::1/64"},
		{both, both, ""},
		{both, otherBoth, "LAN device lan has address 10.0.1.1/24 10.0.2.1/24"},
		{four, both, "LAN device lan has IPv6 address 2001:db8::1/64 fe80::1/64"},
		{both, old, "LAN device lan has IPv6 address fe80::1/64 deprecated 2001:db8::1/64"},
		{old, oldOther, "LAN device lan has address 10.0.1.1/24 10.0.2.1/24"},
		{both, four, "LAN device lan has no IPv6 address"},
		{both, bare, "LAN device lan has no IPv4 address; waiting; has no IPv6 address"},
	} {
		if got := describeLAN(test.was, test.is); got != test.want {
			t.Errorf("%+v after %+v:\n%q, want\n%q", test.is, test.was, got, test.want)
		}
	}
}

func TestEqual(t *testing.T) {
	base := func() State {
		return State{
			Uplink: Uplink{Name: "eth1", Index: 2, Up: true, Addr: netip.MustParseAddr("11.0.0.2"), Since: 3, Speed: 4},
			LANs:   []LAN{{Name: "br-lan", Index: 5, Up: true, Prefixes: prefixes("10.0.0.1/24"), Prefixes6: prefixes("2001:db8::1/64")}},
		}
	}
	if !base().Equal(base()) {
		t.Error("not equal to itself")
	}
	for i, change := range []func(*State){
		func(s *State) { s.Uplink.Name = "x" },
		func(s *State) { s.Uplink.Index++ },
		func(s *State) { s.Uplink.Up = false },
		func(s *State) { s.Uplink.Addr = netip.Addr{} },
		func(s *State) { s.Uplink.Since++ },
		func(s *State) { s.Uplink.Speed++ },
		func(s *State) { s.LANs = nil },
		func(s *State) { s.LANs[0].Name = "x" },
		func(s *State) { s.LANs[0].Index++ },
		func(s *State) { s.LANs[0].Up = false },
		func(s *State) { s.LANs[0].MAC[5]++ },
		func(s *State) { s.LANs[0].Prefixes = nil },
		func(s *State) { s.LANs[0].Prefixes6 = nil },
		func(s *State) { s.LANs[0].Prefixes6[0] = netip.MustParsePrefix("2001:db8::1/48") },
		func(s *State) { s.LANs[0].Deprecated6 = 1 },
		func(s *State) { s.LANs[0].Prefixes[0] = netip.MustParsePrefix("10.0.0.1/25") },
	} {
		s := base()
		change(&s)
		if s.Equal(base()) {
			t.Errorf("change %d is not seen", i)
		}
	}
}

func TestReadSpeed(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]uint64{
		"1000\n":       1_000_000_000,
		"10\n":         10_000_000,
		"400000\n":     400_000_000_000,
		"-1\n":         0,
		"4294967295\n": 0, // -1 of old kernels
		"":             0,
		"fast\n":       0,
	} {
		if err := os.MkdirAll(filepath.Join(dir, "eth1"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "eth1", "speed"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := readSpeed(dir, "eth1"); got != want {
			t.Errorf("%q: %d, want %d", content, got, want)
		}
	}
	if got := readSpeed(dir, "absent"); got != 0 {
		t.Errorf("absent: %d", got)
	}
}

func TestDevices(t *testing.T) {
	s := State{Uplink: Uplink{Name: "eth1", Index: 2}, LANs: []LAN{{Name: "a", Index: 3}, {Name: "b", Index: 4}}}
	d := s.devices()
	if !slices.Equal(d.names, []string{"eth1", "a", "b"}) || !slices.Equal(d.indexes, []int{2, 3, 4}) {
		t.Errorf("%+v", d)
	}
}
