package firewall

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// homePin is home with an IPv6 prefix, and tcpPin a pinhole there.
var (
	homePin = portmap.Network{External: home.External, LANs: append(slices.Clone(home.LANs), prefix("2001:db8:77::1/64"))}
	tcpPin  = pinTo(portmap.TCP, "2001:db8:77::10", 8080)
	udpPin  = pinTo(portmap.UDP, "2001:db8:77::10", 8080)
)

func pinTo(p portmap.Protocol, host string, port uint16) portmap.Mapping {
	return portmap.Mapping{
		Key: portmap.Key{Protocol: p, ExternalPort: port, Pinhole: addr(host)}, ID: 1,
		Client: addr(host), InternalPort: port, Enabled: true,
	}
}

// pinFrom is the pinhole for one remote host, "" for any, and remote port.
func pinFrom(m portmap.Mapping, remote string, port uint16) portmap.Mapping {
	if remote != "" {
		m.RemoteHost = addr(remote)
	}
	m.RemotePort = port
	return m
}

// TestPinholeRules is the text of the rules (issue 6, point 4; SPEC PIN-2).
func TestPinholeRules(t *testing.T) {
	disabled, foreign := tcpPin, pinTo(portmap.TCP, "2001:db8:78::10", 80)
	disabled.Enabled = false
	for _, tt := range []struct {
		name string
		m    portmap.Mapping
		want string
	}{
		{"any remote", tcpPin, "-d 2001:db8:77::10/128 -p tcp -m tcp --dport 8080 -j ACCEPT"},
		{"UDP", udpPin, "-d 2001:db8:77::10/128 -p udp -m udp --dport 8080 -j ACCEPT"},
		{"a remote host", pinFrom(tcpPin, "2001:db8:ff::1", 0), "-s 2001:db8:ff::1/128 -d 2001:db8:77::10/128 -p tcp -m tcp --dport 8080 -j ACCEPT"},
		{"a remote port", pinFrom(udpPin, "", 4000), "-d 2001:db8:77::10/128 -p udp -m udp --sport 4000 --dport 8080 -j ACCEPT"},
		{"both", pinFrom(udpPin, "2001:db8:ff::1", 4000), "-s 2001:db8:ff::1/128 -d 2001:db8:77::10/128 -p udp -m udp --sport 4000 --dport 8080 -j ACCEPT"},
		{"MAP-13: a prefix", netPin("2001:db8:ff::/48", 4000), "-s 2001:db8:ff::/48 -d 2001:db8:77::10/128 -p udp -m udp --sport 4000 --dport 8080 -j ACCEPT"},
		{"disabled", disabled, ""},
		{"PIN-10: a prefix that is gone", foreign, ""},
		{"PIN-3: the router itself", pinTo(portmap.TCP, "2001:db8:77::1", 80), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			for _, r := range (ruleset{uplink: "wan0", network: homePin}).of(&tt.m) {
				got += r.spec
				// What is read of the listed rule is the pinhole.
				listed := pinholesIn("-A UPNPD " + strings.Replace(r.spec, "-j", "-c 5 600 -j", 1) + "\n")
				if want := map[mapped]string{newMapped(netip.Addr{}, &tt.m): "-c 5 600 "}; !maps.Equal(listed, want) {
					t.Errorf("read %v, want %v", listed, want)
				}
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	if got := (ruleset{uplink: "wan0", network: homePin}).whole([]portmap.Mapping{tcpPin}, true, nil, nil); strings.Contains(got, "8080") {
		t.Errorf("a pinhole is no business of iptables:\n%s", got)
	}
}

// TestPinholesIn: what else stands in a listing is no pinhole.
func TestPinholesIn(t *testing.T) {
	const listing = `-P FORWARD DROP -c 10 600
-N UPNPD
-A FORWARD -c 9 90 -j UPNPD
-A FORWARD -d 2001:db8:77::10/128 -p tcp -m tcp --dport 80 -c 0 0 -j ACCEPT
-A UPNPD -d 2001:db8:77::10/128 -p tcp -m tcp --dport 80 -c 18446744073709551615 7 -j ACCEPT
-A UPNPD -d 2001:db8:77::10/128 -p ipv6-icmp -c 0 0 -j ACCEPT
-A UPNPD -d 2001:db8:77::/64 -p tcp -m tcp --dport 81 -c 0 0 -j ACCEPT
-A UPNPD -p tcp -m tcp --dport 82 -c 0 0 -j ACCEPT
-A UPNPD -d 2001:db8:77::10/128 -p tcp -m tcp --dport 1:82 -c 0 0 -j ACCEPT
-A UPNPD
`
	pin := pinTo(portmap.TCP, "2001:db8:77::10", 80)
	want := map[mapped]string{newMapped(netip.Addr{}, &pin): "-c 18446744073709551615 7 "}
	if got := pinholesIn(listing); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestCanonical: musl writes a single zero as "::", glibc does not.
func TestCanonical(t *testing.T) {
	for listed, want := range map[string]string{
		"UPNPD -s 2001:db8:1::3:4:5:6/128 -d 2001:db8:77::1:2:3:4/128 -p tcp -j ACCEPT": "UPNPD -s 2001:db8:1:0:3:4:5:6/128 -d 2001:db8:77:0:1:2:3:4/128 -p tcp -j ACCEPT",
		"UPNPD ! -d 2001:db8:77::1:2:3:4/128 -j RETURN":                                 "UPNPD ! -d 2001:db8:77:0:1:2:3:4/128 -j RETURN",
		"UPNPD -s 10.0.0.0/8 -j DROP":                                                   "UPNPD -s 10.0.0.0/8 -j DROP",
		"UPNPD -j DROP":                                                                 "UPNPD -j DROP",
	} {
		if got := canonical(listed); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	if got := netip.MustParseAddr("2001:db8:1:0:3:4:5:6").String(); got != "2001:db8:1:0:3:4:5:6" {
		t.Errorf("we spell it %s", got)
	}
}

// TestTwin: the ip6tables that belongs to an iptables.
func TestTwin(t *testing.T) {
	for path, want := range map[string]string{
		"/usr/sbin/iptables":        "/usr/sbin/ip6tables",
		"/usr/sbin/iptables-legacy": "/usr/sbin/ip6tables-legacy",
		"/usr/sbin/iptables-nft":    "/usr/sbin/ip6tables-nft",
	} {
		f, err := (&family{path: path}).twin(options("iptables"))
		if err != nil || f.path != want || f.restore != want+"-restore" || f.table("filter") != "ip6 filter" {
			t.Errorf("%s: got %+v %v", path, f, err)
		}
	}
	for _, path := range []string{"/opt/iptables-1/run", "/bin/sh"} {
		if f, err := (&family{path: path}).twin(options("iptables")); err == nil {
			t.Errorf("%s has the twin %s", path, f.path)
		}
	}
}
