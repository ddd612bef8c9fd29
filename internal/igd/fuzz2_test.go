package igd_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// FuzzRange: whatever the range actions are asked, bob's mappings stay, and
// what alice is told is what is so.
func FuzzRange(f *testing.F) {
	for _, s := range [][5]string{{"0", "65535", "TCP", "1", "0"}, {"9001", "9003", "UDP", "0", "1"}, {"9003", "9001", "tcp", "yes", "65535"},
		{"-1", "65536", "", "", ""}, {"+09000", " 9000 ", "TCP", "1", "x"}, {"9001", "9001", "TCP", "false", "4294967296"}} {
		f.Add(s[0], s[1], s[2], s[3], s[4])
	}
	f.Fuzz(func(t *testing.T, start, end, protocol, manage, number string) {
		args := []string{"NewStartPort", start, "NewEndPort", end, "NewProtocol", protocol, "NewManage", manage, "NewNumberOfPorts", number}
		w := house(t)
		bobs := func() (list []portmap.Mapping) {
			for _, m := range w.table.List() {
				if m.Client != alice {
					list = append(list, m)
				}
			}
			return list
		}
		before, own := bobs(), w.table.Len()
		var listing0 []string
		w.unchanged(func() {
			r := w.call(alice, wanIPSpec2, "GetListOfPortMappings", args...)
			if !slices.Contains([]int{0, 402, 601, 730, 733}, r.code) {
				t.Errorf("%q: %d %s", args, r.code, r.text)
			}
			if r.code == 0 {
				listing0 = listing(t, r.values["NewPortListing"])
			}
		})
		r := w.call(alice, wanIPSpec2, "DeletePortMappingRange", args[:8]...)
		if !slices.Contains([]int{0, 402, 601, 730, 733}, r.code) || r.code == 0 && w.table.Len() == own || r.code != 0 && w.table.Len() != own {
			t.Errorf("%q: %d %s, %d of %d mappings left", args, r.code, r.text, w.table.Len(), own)
		}
		if gone := own - w.table.Len(); len(listing0) > gone {
			t.Errorf("%q: %d were listed, %d are deleted", args, len(listing0), gone)
		}
		if after := bobs(); !slices.Equal(before, after) {
			t.Errorf("%q: bob had %v, has %v", args, before, after)
		}
		w.inStep()
	})
}

// FuzzListing: a description comes back out of the document in the reply as the
// table has it, whatever is in it.
func FuzzListing(f *testing.F) {
	for _, s := range []string{"web", "]]>", "]]]]>><![CDATA[", "<p:NewDescription>", "</p:PortMappingList>]]></NewPortListing>",
		"&amp;&#65;&x;", "<!--", "<?xml?>", "a\tb\r\nc", "\x00\x01", "\xff", "\ufffe\uffff", strings.Repeat("]]>", 100), "游戏🎮"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		w := newWorld(t, version2)
		var want []string
		for i, description := range []string{one, two} {
			m, err := w.table.Map(portmap.Request{From: alice, Mapping: portmap.Mapping{
				Key: portmap.Key{Protocol: portmap.TCP, ExternalPort: uint16(9000 + i)}, Client: alice, InternalPort: 5000, Enabled: true,
				Description: description,
			}, Lease: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Map(func(r rune) rune { // SOAP cannot carry them
				if r == '\ufffe' || r == '\uffff' {
					return '\ufffd'
				}
				return r
			}, m.Description)
			want = append(want, fmt.Sprintf(" %d TCP 5000 192.168.1.10 1 %s 60", 9000+i, text))
		}
		r := w.expect(0, alice, wanIPSpec2, "GetListOfPortMappings", listed("0", "65535", "TCP", "0")...)
		if got := listing(t, r.values["NewPortListing"]); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// FuzzPinhole: whatever AddPinhole is asked, a pinhole is the caller's own, for
// a day at most, and known by its UniqueID.
func FuzzPinhole(f *testing.F) {
	for _, s := range [][6]string{{"", "0", alice6.String(), "8080", "6", "3600"}, {"2001:db8::1", "443", alice6.String(), "1024", "17", "86400"},
		{"::", "65535", "2001:db8:1:0::10", "65535", "6", "1"}, {"fe80::1%lan", "-1", "::ffff:192.168.1.10", "0", "65535", "0"},
		{"*", "+0", bob6.String(), "80", "262", "86401"}, {"ff02::1", "", "", "", "", ""}} {
		f.Add(s[0], s[1], s[2], s[3], s[4], s[5])
	}
	f.Fuzz(func(t *testing.T, remote, remotePort, client, port, protocol, lease string) {
		w := newWorld(t, version2)
		w.packets = map[uint16]uint64{}
		w.addPinhole(bob6)
		args := []string{"RemoteHost", remote, "RemotePort", remotePort, "InternalClient", client, "InternalPort", port, "Protocol", protocol, "LeaseTime", lease}
		r := w.call(alice6, firewall6Spec, "AddPinhole", args...)
		w.inStep()
		all := w.table.List()
		if r.code != 0 {
			if len(all) != 1 || !slices.Contains([]int{402, 606, 705, 706, 707, 708}, r.code) {
				t.Errorf("%q: %d %s, %v", args, r.code, r.text, all)
			}
			return
		}
		if len(all) != 2 {
			t.Fatalf("%q: %v", args, all)
		}
		m := all[1]
		left := m.Deadline - w.clock
		anyHost := netip.Addr{}
		if m.Client != alice6 || m.Pinhole != alice6 || m.ExternalPort < 1024 || m.InternalPort != m.ExternalPort || !m.Enabled ||
			left < time.Second || left > 24*time.Hour || m.RemoteHost != anyHost && !m.RemoteHost.Is6() || m.RemoteHost.IsUnspecified() {
			t.Errorf("%q: %+v", args, m)
		}
		id := r.values["UniqueID"]
		w.expect(0, alice6, firewall6Spec, "GetPinholePackets", "UniqueID", id)
		w.expect(709, alice6, firewall6Spec, "CheckPinholeWorking", "UniqueID", id)
		w.expect(606, bob6, firewall6Spec, "DeletePinhole", "UniqueID", id)
		w.expect(0, alice6, firewall6Spec, "DeletePinhole", "UniqueID", id)
	})
}
