package firewall

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// FuzzElement: what is read of an element of the kernel is the element that was
// written, and of any other bytes nothing that cannot be one (issue 8, point 8).
func FuzzElement(f *testing.F) {
	now := 1000 * time.Second
	all := append(wildcards(), filtered(18090, "11.0.0.0/24", 0), filtered(18091, "", 7), netPin("2001:db8:ff::/48", 5), web, only(web, "11.0.0.9"))
	for i := range all {
		for _, e := range ways(all[i]) {
			n := e.entry(now)
			n.packets = uint64(i)
			elem := attribute(listOf([]entry{n}, false), unix.NFTA_LIST_ELEM)
			got := readElement(elem)
			if got.expires = n.expires; !bytes.Equal(got.key, n.key) || !bytes.Equal(got.last, n.last) || !bytes.Equal(got.value, n.value) || got.packets != n.packets {
				f.Fatalf("%+v comes back as %+v", n, got)
			}
			f.Add([]byte(elem))
			f.Add([]byte(elem[:len(elem)-4]))
			f.Add(attribute(listOf([]entry{{key: n.key, value: n.value}}, false), unix.NFTA_LIST_ELEM))
			f.Add(attribute(listOf([]entry{{key: n.key, last: n.last}}, false), unix.NFTA_LIST_ELEM))
		}
	}
	for n := range 48 { // keys of every length
		f.Add(attribute(listOf([]entry{{key: make([]byte, n), last: make([]byte, n)}}, false), unix.NFTA_LIST_ELEM))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e := readElement(b)
		m, ok := e.mapped([]byte{11, 0, 0, 2})
		if ok && (!m.client.Addr().Is4() || m.external.Addr() != addr("11.0.0.2") || m.remote.IsValid() && !m.remote.Is4()) {
			t.Errorf("%x is %+v", b, m)
		}
		p, pin := e.pinhole()
		if pin && (!p.client.Addr().Is6() || p.external != p.client || p.remote.IsValid() && !p.remote.Is6()) {
			t.Errorf("%x is %+v", b, p)
		}
		if ok && pin {
			t.Errorf("%x is a mapping and a pinhole", b)
		}
		if ok {
			wantKey(t, e, m)
		}
		if pin {
			wantKey(t, e, p)
		}
	})
}

// wantKey wants what was read of an element to be in it.
func wantKey(t *testing.T, e entry, m mapped) {
	t.Helper()
	k := m.key()
	if k.RemoteBits != 0 && int(k.RemoteBits) >= k.RemoteHost.BitLen() {
		t.Errorf("%+v is %v", e, k)
	}
	port := binary.BigEndian.Uint16(e.key[len(e.key)-4:]) // and two bytes to fill
	if port != k.ExternalPort || k.RemoteHost.IsValid() && !bytes.HasPrefix(e.key, k.RemoteHost.AsSlice()) {
		t.Errorf("%+v is %v", e, k)
	}
}

// FuzzRule: whatever rules and events the kernel tells of, reading them ends, and
// only what names our mark or redirected connections is about ours.
func FuzzRule(f *testing.F) {
	accept := attributes(nil).nest(unix.NFTA_DATA_VERDICT, attributes(nil).number(unix.NFTA_VERDICT_CODE, nfAccept))
	var r nftRule
	r.meta(unix.NFT_META_NFPROTO, reg1)
	r.compare(unix.NFT_CMP_EQ, []byte{unix.NFPROTO_IPV4})
	r.mark(unix.NFTA_CT_DREG, reg1)
	r.bitwise(reg1, connMark, 0)
	r.compare(unix.NFT_CMP_EQ, host32(connMark))
	r.add("immediate", attributes(nil).nest(unix.NFTA_IMMEDIATE_DATA, accept))
	f.Add([]byte(r.list), []byte(attributes(nil).text(unix.NFTA_TABLE_NAME, tableName)))
	var short, jump nftRule
	short.mark(unix.NFTA_CT_DREG, reg1)
	short.add("bitwise", attributes(nil).value(unix.NFTA_BITWISE_MASK, []byte{1}))
	f.Add([]byte(short.list), []byte(nil))
	far := attributes(nil).nest(unix.NFTA_DATA_VERDICT, attributes(nil).number(unix.NFTA_VERDICT_CODE, 0xfffffffd))
	jump.add("immediate", attributes(nil).nest(unix.NFTA_IMMEDIATE_DATA, far))
	f.Add([]byte(jump.list), []byte(nil))
	for _, info := range []int{0, 8, 152} {
		for _, name := range []string{"connmark", "conntrack"} {
			var r nftRule
			r.add("match", attributes(nil).text(unix.NFTA_MATCH_NAME, name).number(unix.NFTA_MATCH_REV, 3).
				bytes(unix.NFTA_MATCH_INFO, bytes.Repeat([]byte{0xff}, info)))
			r.add("reject", nil)
			f.Add([]byte(r.list), []byte{8, 0})
		}
	}
	f.Fuzz(func(t *testing.T, list, event []byte) {
		rule, complete := expressions(list)
		for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
			for _, seen := range seenBy(family, [][]expression{rule}) {
				if len(seen) > len(rule) {
					t.Errorf("%d expressions of %d", len(seen), len(rule))
				}
				v, ours := verdict(seen), aboutOurs(seen, family)
				if v > noVerdict || v == noVerdict && dropsFrom("wan0", seen) || unconditional(seen) && ours {
					t.Errorf("%x: %d", list, v)
				}
			}
		}
		if !complete {
			return
		}
		for n := range len(event) {
			m := netlink.Message{Data: event[:n]}
			if short := n < nfgenmsg; touchesOurs(m) != short && short {
				t.Errorf("%x: an unreadable event is not ours", event[:n])
			}
		}
		whole := netlink.Message{Data: append([]byte{unix.NFPROTO_INET, 0, 0, 0}, event...)}
		if name := text(attribute(event, unix.NFTA_TABLE_NAME)); name == tableName && !touchesOurs(whole) {
			t.Errorf("%x: an event of %s is not seen", event, name)
		}
	})
}

// expressions reads them as readRules does.
func expressions(list []byte) (rule []expression, complete bool) {
	d, err := netlink.NewAttributeDecoder(list)
	if err != nil {
		return nil, false
	}
	for d.Next() {
		x := d.Bytes()
		rule = append(rule, expression{text(attribute(x, unix.NFTA_EXPR_NAME)), attribute(x, unix.NFTA_EXPR_DATA)})
	}
	return rule, true
}

// FuzzListing: whatever iptables -S prints, reading it ends; what is found there
// are mappings that our rules spell the same way, and what is taken out is ours.
func FuzzListing(f *testing.F) {
	s := ruleset{uplink: "wan0", network: homePin}
	four, six := "", ""
	mappings := []portmap.Mapping{web, game, only(web, "11.0.0.9"), filtered(18090, "11.0.0.0/24", 7)}
	for _, line := range strings.Split(s.whole(mappings, true, nil, nil), "\n") {
		four += strings.Replace(line, "-j DNAT", "-c 5 600 -j DNAT", 1) + "\n"
	}
	for _, m := range []portmap.Mapping{tcpPin, udpPin, netPin("2001:db8:ff::/48", 4000)} {
		for _, r := range s.of(&m) {
			six += "-A " + r.chain + " " + r.spec + "\n"
		}
	}
	for _, l := range []string{four, six, docker, fw3, "-N UPNPD\n-A FORWARD -j UPNPD\n", "-A ", "-A FORWARD -j FORWARD", "-A a -j b\n-A b -g a\n-A FORWARD -j a",
		`-A x -m comment --comment "a \" -j ACCEPT" -j DROP`, "iptables-restore: line 2 failed", "line 99999999999999999999: x", "line -1", "line 0"} {
		f.Add(l)
	}
	layers := "-A FORWARD -j c0\n" // 2 to the 40th ways to the last of them
	for i := range 40 {
		layers += fmt.Sprintf("-A c%d -p udp -j c%d\n-A c%d -j c%d\n", i, i+1, i, i+1)
	}
	f.Add(layers)
	f.Fuzz(func(t *testing.T, listing string) {
		for m := range mappingsIn(listing) {
			wantRule(t, s, listing, m)
		}
		for m := range pinholesIn(listing) {
			if m.client.Addr().Is6() {
				wantRule(t, s, listing, m)
			}
		}
		empty, deleted := removal(listing)
		for _, line := range strings.Split(strings.TrimSuffix(empty+deleted, "\n"), "\n") {
			words := strings.Fields(line)
			ours := len(words) > 0 && strings.HasPrefix(words[len(words)-1], "UPNPD")
			if line != "" && (!ours || !slices.Contains([]string{"-D", "-F", "-X"}, words[0])) {
				t.Errorf("%q takes out %q", listing, line)
			}
		}
		if p := uncounted(listing); len(p) > len(listing) || strings.Count(p, "\n") != strings.Count(listing, "\n") {
			t.Errorf("%q without counters: %q", listing, p)
		}
		for _, chain := range []string{preChain, mapChain, postChain} {
			if rules := rulesOf(chain, listing); difference(rules, rules, "x") != "" {
				t.Errorf("%q differs from itself", rules)
			}
		}
		for _, p := range []forwarding{{uplink: "wan0", marked: true}, {pinholes: true}} {
			if end := p.through(listing); !slices.Contains([]string{"ours", "ACCEPT", "DROP", ""}, end) {
				t.Errorf("%q ends in %q", listing, end)
			}
		}
		if said := explain(listing, "*nat\nCOMMIT\n"); strings.Contains(said, "\n") || len(said) > len(listing)+20 {
			t.Errorf("%q is said as %q", listing, said)
		}
	})
}

// wantRule wants what was read of a listing to be what our own rule says.
func wantRule(t *testing.T, s ruleset, listing string, m mapped) {
	t.Helper()
	p := portmap.Mapping{Key: m.key(), Client: m.client.Addr(), InternalPort: m.client.Port(), Enabled: true}
	s.network.External, s.network.LANs = addr("11.0.0.2"), []netip.Prefix{netip.PrefixFrom(p.Client, 0)}
	for _, r := range s.of(&p) {
		port := " --dport " + strconv.Itoa(int(m.external.Port())) + " "
		if strings.Contains(r.spec, "-j SNAT") {
			continue
		}
		if r.chain != mapChain || !strings.Contains(" "+r.spec, port) || strings.Contains(r.spec, "invalid") {
			t.Errorf("%q has %+v, which is %q", listing, m, r.spec)
		}
	}
}
