package pcp

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestPEER6: by IPv6 it is a pinhole for the peer; a wider one will do.
func TestPEER6(t *testing.T) {
	w := newWorld(t, ipv6)
	w.setUplink(netip.Addr{})
	const made, two = "PCP UDP port 5000 of 2001:db8:1::10 from 2001:db8:ff::9 port 80 ", "PCP UDP port 5000 of 2001:db8:1::10 from 2001:db8:ff::9 port 81 "
	const all = "PCP UDP port 5000 of 2001:db8:1::10 from any "
	ask := wish{lifetime: 600, nonce: 1, protocol: 17, internal: 5000}
	other, wide, mine := ask, ask, ask
	other.external = 5001
	mine.external, mine.address = 5000, ann6
	w.peerSteps(ann6, []peerStep{
		{"another port", other, far6, cannotProvide, 5001, 30, nil},
		{"made", mine, far6, success, 5000, 600, []string{made + "600 s"}},
		{"another peer", ask, netip.AddrPortFrom(far6.Addr(), 81), success, 5000, 600, []string{made + "599 s", two + "600 s"}},
		{"MAP", wide, netip.AddrPort{}, success, 5000, 600, []string{made + "598 s", two + "599 s", all + "600 s"}},
		{"what is all's is used", ask, netip.AddrPortFrom(far6.Addr(), 82), success, 5000, 599, []string{made + "597 s", two + "598 s", all + "599 s"}},
		{"MAP ends", wish{nonce: 1, protocol: 17, internal: 5000}, netip.AddrPort{}, success, 0, 0, []string{made + "596 s", two + "597 s"}},
	})
	w = newWorld(t, ipv6)
	if _, err := w.table.Map(portmap.Request{From: ann6, Lease: 600 * time.Second, Mapping: portmap.Mapping{Enabled: true, Origin: portmap.UPnP,
		Key: portmap.Key{Protocol: portmap.UDP, ExternalPort: 5000, RemoteHost: far6.Addr(), Pinhole: ann6}, Client: ann6, InternalPort: 5000}}); err != nil {
		t.Fatal(err)
	}
	const upnp = "UPnP UDP port 5000 of 2001:db8:1::10 from 2001:db8:ff::9 "
	w.peerSteps(ann6, []peerStep{
		{"UPnP's pinhole", ask, far6, success, 5000, 599, []string{upnp + "599 s"}},
		{"UPnP's for another", ask, netip.MustParseAddrPort("[2001:db8:ff::8]:80"), success, 5000, 600,
			[]string{upnp + "598 s", "PCP UDP port 5000 of 2001:db8:1::10 from 2001:db8:ff::8 port 80 600 s"}},
		{"UPnP's again", ask, far6, success, 5000, 597,
			[]string{upnp + "597 s", "PCP UDP port 5000 of 2001:db8:1::10 from 2001:db8:ff::8 port 80 599 s"}},
	})
}

// TestPEERFilter6: a MAP that names PEER's peer is about the MAP that is there, by
// whichever was asked for last: the two are never the same (MAP-13).
func TestPEERFilter6(t *testing.T) {
	const one, all = "PCP UDP port 5000 of 2001:db8:1::10 from 2001:db8:ff::9 port 80 ", "PCP UDP port 5000 of 2001:db8:1::10 from any "
	ask := wish{lifetime: 600, nonce: 1, protocol: 17, internal: 5000}
	filtered := ask
	filtered.options = [][]byte{filterOption(128, 80, "2001:db8:ff::9")}
	w := newWorld(t, ipv6)
	w.peerSteps(ann6, []peerStep{
		{"made", ask, far6, success, 5000, 600, []string{one + "600 s"}},
		{"MAP", ask, netip.AddrPort{}, success, 5000, 600, []string{one + "599 s", all + "600 s"}},
		{"MAP for the same peer", filtered, netip.AddrPort{}, excessivePeers, 0, 1800, []string{one + "598 s", all + "599 s"}},
		{"PEER again", ask, far6, success, 5000, 600, []string{one + "600 s", all + "598 s"}},
		{"MAP for the same peer", filtered, netip.AddrPort{}, excessivePeers, 0, 1800, []string{one + "599 s", all + "597 s"}},
	})
}

// TestPEERUnmap: UPnP names no remote port, so of several mappings with one external
// port it ends the MAP, and never what PEER made.
func TestPEERUnmap(t *testing.T) {
	const one, two = "PCP TCP port 6000 from 11.0.0.9 port 80 to 192.168.1.10 port 5000 ", "PCP TCP port 6000 from 11.0.0.9 port 81 to 192.168.1.10 port 5000 "
	w := newWorld(t, nil)
	ask := wish{lifetime: 600, nonce: 1, protocol: 6, internal: 5000, external: 6000}
	host := ask
	host.options = [][]byte{filterOption(128, 0, "::ffff:11.0.0.9")}
	w.peerSteps(ann, []peerStep{
		{"made", ask, far, success, 6000, 600, []string{one + "600 s"}},
		{"another", ask, far2, success, 6000, 600, []string{one + "599 s", two + "600 s"}},
		{"MAP for the host", host, netip.AddrPort{}, success, 6000, 600, []string{one + "598 s", two + "599 s", "PCP TCP port 6000 from 11.0.0.9 to 192.168.1.10 port 5000 600 s"}},
	})
	k := portmap.Key{Protocol: portmap.TCP, ExternalPort: 6000, RemoteHost: far.Addr()}
	if err := w.table.Unmap(k, bob); !errors.Is(err, portmap.ErrNotAuthorized) {
		t.Errorf("by another host: %v", err)
	}
	if err := w.table.Unmap(k, ann); err != nil || !slices.Equal(w.mappings(), []string{one + "598 s", two + "599 s"}) {
		t.Errorf("by UPnP: %v, %q", err, w.mappings())
	}
	for _, k.RemoteHost = range []netip.Addr{k.RemoteHost, {}} {
		if err := w.table.Unmap(k, ann); !errors.Is(err, portmap.ErrNoEntry) {
			t.Errorf("once more: %v, %q", err, w.mappings())
		}
	}
}
