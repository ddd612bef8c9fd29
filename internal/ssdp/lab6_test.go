package ssdp

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/sock"
)

// give6 gives a host of the lab IPv6 addresses, usable at once, and no others.
func give6(t *testing.T, h *lab.Host, dev string, addrs ...string) {
	t.Helper()
	h.Run(t, "ip", "-6", "addr", "flush", "dev", dev)
	for _, a := range addrs {
		h.Run(t, "ip", "addr", "add", a+"/64", "dev", dev, "nodad")
	}
	// The kernel takes them for its own a moment later.
	for end := time.Now().Add(5 * time.Second); ; {
		own := h.Run(t, "ip", "-6", "route", "show", "table", "local", "type", "local", "dev", dev)
		if strings.Count(own, "local f")+strings.Count(own, "local 2") == len(addrs) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("addresses of %s: %s", h.Name, own)
		}
	}
}

// listen6 opens a socket on a host and joins the groups.
func listen6(t *testing.T, h *lab.Host, dev string, port uint16, groups ...netip.Addr) *sock.UDP {
	t.Helper()
	var u *sock.UDP
	err := h.Do(func() (err error) {
		if u, err = sock.ListenUDP6(dev, port); err != nil {
			return err
		}
		for _, group := range groups {
			if err = u.Join(group); err != nil {
				break
			}
		}
		return err
	})
	if err != nil {
		t.Fatalf("socket on %s: %v", h.Name, err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// rowsFrom are the USNs that came from the address, of the kind.
func rowsFrom(list []heard, src netip.Addr, nts string) (usns []string) {
	for _, h := range list {
		if one := []heard{h}; h.src == netip.AddrPortFrom(src, Port) && slices.Equal(field(one, "NTS"), []string{nts}) {
			usns = append(usns, field(one, "USN")...)
		}
	}
	return usns
}

// Issue 6, point 3, over a bridge: one server, one socket, two scopes (SSDP-6).
func TestLab6(t *testing.T) {
	l := startLab(t)
	give6(t, l.Router, lab.LANDev, routerLink.String(), routerSite.String())
	give6(t, l.Router, lab.WANDev, "fe80::2")
	give6(t, l.LAN1, lab.HostDev, "fe80::aa", "fd12:3456:789a:1::aa")
	give6(t, l.LAN2, lab.HostDev, "fe80::bb", "fd12:3456:789a:1::bb")
	give6(t, l.Internet, lab.HostDev, "fe80::99", "2001:db8:99::1")
	l.Internet.Run(t, "ip", "-6", "route", "add", "default", "via", "fe80::2", "dev", lab.HostDev)

	outside := listen6(t, l.Internet, lab.HostDev, Port, linkGroup, siteGroup)
	onLink, inSite := listen6(t, l.LAN2, lab.HostDev, Port, linkGroup), listen6(t, l.LAN2, lab.HostDev, Port, siteGroup)
	u := listen6(t, l.Router, lab.LANDev, Port, linkGroup, siteGroup)
	announced, stop := serveLab(t, l, u, testLAN6(linkScope, siteScope), v1(), v2())
	<-announced

	both := usns()
	for _, row := range v2().Targets {
		both = append(both, row.USN())
	}
	for listener, scope := range map[*sock.UDP]Scope{onLink: linkScope, inSite: siteScope} {
		want := 2*len(both) + 2*len(usns()) // SSDP-30, SSDP-31
		got := hear(t, listener, want, 5*time.Second)
		if n := len(got); n != want {
			t.Fatalf("%s: heard %d announcements, want %d", scope.Group, n, want)
		}
		if rows := rowsFrom(got, scope.Addr, "ssdp:alive"); !slices.Equal(rows, append(usns(), usns()...)) {
			t.Errorf("%s: alive rows %q", scope.Group, rows)
		}
		if rows := rowsFrom(got, scope.Addr, "ssdp:byebye"); !slices.Equal(rows, append(slices.Clone(both), both...)) {
			t.Errorf("%s: byebye rows %q", scope.Group, rows)
		}
		host := "[" + strings.ToUpper(scope.Group.String()) + "]:1900"
		if hosts := field(got, "HOST"); !slices.Equal(slices.Compact(hosts), []string{host}) {
			t.Errorf("%s: HOST %q", scope.Group, hosts)
		}
	}

	client := listen6(t, l.LAN1, lab.HostDev, 0)
	own := listen6(t, l.Router, lab.LANDev, 0)
	for _, scope := range []Scope{linkScope, siteScope} {
		location := "http://[" + scope.Addr.String() + "]:49152"
		for _, to := range []netip.AddrPort{scope.to(), netip.AddrPortFrom(scope.Addr, Port)} { // SSDP-42, SSDP-43
			got := searchScope(t, scope, client, mSearch(man, "MX: 1", all), to, 10)
			if rows := field(got, "USN"); !slices.Equal(rows, usns()) {
				t.Errorf("ssdp:all to %s: %q", to, rows)
			}
			if at := field(got, "LOCATION"); !slices.Equal(slices.Compact(at), []string{location + "/v1/rootDesc.xml"}) {
				t.Errorf("ssdp:all to %s: LOCATION %q", to, at)
			}
			got = searchScope(t, scope, client, mSearch(man, "MX: 1", "ST: urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"), to, 1)
			if at := field(got, "LOCATION"); at[0] != location+"/v2/rootDesc.xml" {
				t.Errorf("WANIPv6FirewallControl to %s: LOCATION %q", to, at)
			}
			searchScope(t, scope, own, mSearch(man, "MX: 1", "ST: upnp:rootdevice"), to, 1) // of the router itself
		}
	}
	// Whatever address a host asks from, it gets its answer there.
	for _, src := range []string{"fe80::aa", "fd12:3456:789a:1::aa"} {
		for _, scope := range []Scope{linkScope, siteScope} {
			err := client.WriteTo(context.Background(), []byte(mSearch(man, "MX: 1", "ST: upnp:rootdevice")), scope.to(), netip.MustParseAddr(src))
			if err != nil {
				t.Fatal(err)
			}
			if got := hear(t, client, 1, 5*time.Second); len(got) != 1 || got[0].src.Addr() != scope.Addr {
				t.Errorf("%s from %s: %v", scope.Group, src, got)
			}
		}
	}
	// Two copies would have come by now.
	if extra := hear(t, client, 1, 200*time.Millisecond); len(extra) > 0 {
		t.Errorf("one answer too many: %v", extra)
	}

	// Nothing for the WAN side (SSDP-8).
	for _, to := range []netip.Addr{linkGroup, siteGroup, netip.MustParseAddr("fe80::2"), routerSite} {
		err := outside.WriteTo(context.Background(), []byte(mSearch(man, "MX: 1", all)), netip.AddrPortFrom(to, Port), netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, listener := range []*sock.UDP{onLink, inSite} {
		hear(t, listener, 100, 100*time.Millisecond) // the searches
	}
	stop()
	for listener, scope := range map[*sock.UDP]Scope{onLink: linkScope, inSite: siteScope} { // SSDP-33, SSDP-35
		got := hear(t, listener, 2*len(both), 5*time.Second)
		if rows := rowsFrom(got, scope.Addr, "ssdp:byebye"); !slices.Equal(rows, append(slices.Clone(both), both...)) {
			t.Errorf("%s: byebye rows at the end %q", scope.Group, rows)
		}
	}
	for _, h := range hear(t, outside, 100, 100*time.Millisecond) {
		if h.src.Addr() != netip.MustParseAddr("fe80::99") && h.src.Addr() != netip.MustParseAddr("2001:db8:99::1") {
			t.Errorf("on the WAN side, from %s: %q", h.src, h.text)
		}
	}
}
