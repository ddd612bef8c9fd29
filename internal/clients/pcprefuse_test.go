package clients

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// third is THIRD_PARTY.
func third(addr string) []byte {
	a := netip.MustParseAddr(addr).As16()
	return option(pcpThirdParty, a[:]...)
}

// TestPCPRefuses: every refusal has its code, gives the request back, and leaves
// nothing (issue 7, point 2).
func TestPCPRefuses(t *testing.T) {
	h := enter(t, "max_mappings_per_client = 3", "deny 7000-7999 0.0.0.0/0 0-65535", "min_lease = 200", "max_lease = 4000").begin()
	p := pcpFrom(t, h.LAN1, lab.LAN1Addr, lab.RouterLANAddr)
	six := pcpFrom(t, h.LAN1, lab.LAN1Addr6, lab.RouterLANAddr6)
	wrong := *p
	wrong.addr = netip.MustParseAddr(lab.LAN2Addr)
	a := ask{lifetime: 600, proto: tcpNumber, internal: 9000, external: 19000}
	with := func(change func(a *ask)) []byte {
		b := a
		change(&b)
		return p.request(b)
	}
	options := func(o ...[]byte) []byte { return with(func(a *ask) { a.options = slices.Concat(o...) }) }
	for _, tt := range []struct {
		row    string
		packet []byte
		want   byte
	}{
		{"PCP-5", wrong.request(a), pcpWrong},
		{"PCP-5", wrong.header(pcpAnnounce, 0), pcpWrong},
		{"PCP-6", p.header(3, 0), pcpOpcode},
		{"PCP-6", p.header(0x7f, 0), pcpOpcode},
		{"PCP-4", p.request(a)[:56], pcpMalformed},
		{"PCP-4", append(p.request(a), 1), pcpMalformed},
		{"PCP-4", append(p.request(a), make([]byte, 1104)...), pcpMalformed},
		{"MAP-1", with(func(a *ask) { a.proto = 0 }), pcpMalformed},
		{"MAP-1", with(func(a *ask) { a.proto, a.internal = 0, 0 }), pcpProtocol},
		{"MAP-1", with(func(a *ask) { a.internal = 0 }), pcpProtocol},
		{"MAP-1", with(func(a *ask) { a.proto = 132 }), pcpProtocol},
		{"MAP-14", options(third(lab.LAN2Addr)), pcpOption},
		{"MAP-14", options(third(lab.LAN1Addr)), pcpMalformed},
		{"PCP-8", options(option(99)), pcpOption},
		{"PCP-8", options([]byte{99, 0, 0, 8, 0, 0, 0, 0}), pcpBadOption},
		{"MAP-13", options(option(pcpFilter, 1, 2)), pcpBadOption},
		{"MAP-13", options(filterOption("2001:db8::/32", 0)), pcpBadOption},
		{"MAP-13", options(filterOption("11.0.0.1/32", 0), filterOption("11.0.0.2/32", 0)), pcpExcessive},
		{"MAP-16", options(option(pcpPortSet, 0, 0, 0x23, 0x28, 0)), pcpBadOption},
		{"MAP-16", options(option(pcpPortSet, 0, 2, 0x23, 0x28, 0), option(pcpPrefer)), pcpBadOption},
		{"MAP-7", with(func(a *ask) { a.proto, a.external, a.options = udpNumber, 5351, option(pcpPrefer) }), pcpCannotProvide},
		{"MAP-6", with(func(a *ask) { a.suggested, a.options = "11.0.0.99", option(pcpPrefer) }), pcpCannotProvide},
		{"low port", with(func(a *ask) { a.internal, a.external = 22, 22 }), pcpNotAuthorized},
	} {
		r := p.parse(p.exchange(tt.packet))
		want := slices.Clone(tt.packet[:min(len(tt.packet), 1100)])
		want = append(want, make([]byte, -len(want)&3)...)
		if r.result != tt.want || r.lifetime == 0 || r.raw[1] != 0x80|tt.packet[1] || !slices.Equal(r.raw[24:], want[24:]) { // PCP-7
			t.Errorf("%s: %x\nis answered by %x, want result %d and the request", tt.row, tt.packet, r.raw, tt.want)
		}
	}
	six.want(pcpNotAuthorized, ask{lifetime: 600, proto: tcpNumber, internal: 7000}) // no way around a rule by IPv6
	if got := list(t, h.Lab); len(got) != 0 {
		t.Errorf("refusals leave %q", got)
	}
	if r := p.want(pcpOK, ask{lifetime: 600, proto: tcpNumber, internal: 9000, external: 19000, options: option(99 | 0x80)}); len(r.raw) != 60 {
		t.Errorf("an option that may be ignored comes back: %x", r.raw)
	}
	h.nonces(p)
	h.lifetimes(p)
}

// nonces are strict, unless same-host is set (MAP-3, INT-20).
func (h *house) nonces(p *pcpHost) {
	h.t.Helper()
	a := ask{lifetime: 600, proto: tcpNumber, internal: 9000, external: 19000}
	q := p.another()
	for _, lifetime := range []uint32{0, 300} {
		a.lifetime = lifetime
		if r := q.want(pcpNotAuthorized, a); r.lifetime < 500 || r.lifetime > 600 {
			h.t.Errorf("another nonce is refused for %d s, want what is left", r.lifetime)
		}
	}
	h.reload("configuration read again", 1, "pcp_nonce = same-host", "max_mappings_per_client = 3", "min_lease = 200", "max_lease = 4000")
	if r := q.want(pcpOK, a); r.external != 19000 || r.lifetime != 300 {
		h.t.Errorf("with same-host: port %d for %d s", r.external, r.lifetime)
	}
	q.gone(tcpNumber, 9000)
}

// lifetimes are as short and as long as the options say (MAP-9), and as many as the
// quota.
func (h *house) lifetimes(p *pcpHost) {
	h.t.Helper()
	for i, tt := range [][2]uint32{{1, 200}, {1000, 1000}, {1<<32 - 1, 4000}} {
		a := ask{lifetime: tt[0], proto: udpNumber, internal: 9000 + uint16(i), external: 19000}
		if r := p.want(pcpOK, a); r.lifetime != tt[1] {
			h.t.Errorf("asked for %d s, got %d, want %d", tt[0], r.lifetime, tt[1])
		}
	}
	p.want(pcpQuota, ask{lifetime: 600, proto: udpNumber, internal: 9009, external: 19009})
	refusals := upnpctl(h.t, h.Lab, "log")
	if !strings.Contains(refusals, "9009") {
		h.t.Errorf("the refusal is not in the log:\n%s", refusals)
	}
}

// pmp is a reply of NAT-PMP to one of its requests, or to one that it does not know.
func pmp(b []byte, length int, op, result byte) bool {
	return len(b) == length && b[0] == 0 && b[1] == op && binary.BigEndian.Uint16(b[2:]) == uint16(result)
}

// knock tells what becomes of a datagram from a host, when nothing answers it.
func knock(h *lab.Host, to netip.AddrPort) error {
	c, err := h.Dial("udp", to.String(), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(pinPatience))
	c.Write([]byte{0, 0})
	_, err = c.Read(make([]byte, 1))
	return err
}

// TestPCPVersions: each protocol can be off, and then says how to go on (PMP-1,
// PCP-9).
func TestPCPVersions(t *testing.T) {
	h := enter(t).begin()
	p := pcpFrom(t, h.LAN1, lab.LAN1Addr, lab.RouterLANAddr)
	six := pcpFrom(t, h.LAN1, lab.LAN1Addr6, lab.RouterLANAddr6)
	address := []byte{0, 0}
	unsupported := func(b []byte) bool { // readable by both
		return len(b) >= 24 && b[0] == 2 && b[1] >= 0x80 && b[2] == 0 && b[3] == pcpVersion
	}
	works := func(b []byte) bool { return len(b) == 24 && b[0] == 2 && b[3] == pcpOK }
	for i, tt := range []struct {
		natpmp, pcp string
		pmp, other  func(b []byte) bool // the answers to version 0, and to 1 and 3
		pcp4, pcp6  func(b []byte) bool // to version 2; nil: none at all
	}{
		{"yes", "yes", func(b []byte) bool { return pmp(b, 12, 0x80, 0) }, unsupported, works, works},
		{"no", "yes", unsupported, unsupported, works, works},
		{"yes", "no", func(b []byte) bool { return pmp(b, 12, 0x80, 0) }, func(b []byte) bool { return pmp(b, 8, 0x80, 1) }, func(b []byte) bool { return pmp(b, 8, 0x80, 1) }, nil},
		{"no", "no", nil, nil, nil, nil},
	} {
		what := "natpmp = " + tt.natpmp + ", pcp = " + tt.pcp
		if i > 0 {
			h.reload("Advertisements Sent", i+1, "natpmp = "+tt.natpmp, "pcp = "+tt.pcp)
		}
		check := func(p *pcpHost, b []byte, ok func(b []byte) bool) {
			t.Helper()
			if ok == nil {
				if err := knock(h.LAN1, p.router); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("%s: %v, want a closed port", what, err)
				}
			} else if got, err := p.tell(b, patience); err != nil || !ok(got) {
				t.Errorf("%s: %x is answered by %x, %v", what, b, got, err)
			}
		}
		announce := func(p *pcpHost, version byte) []byte {
			b := p.header(pcpAnnounce, 0)
			b[0] = version
			return b
		}
		check(p, address, tt.pmp)
		check(p, announce(p, 2), tt.pcp4)
		check(six, announce(six, 2), tt.pcp6)
		for _, version := range []byte{1, 3, 255} {
			check(p, announce(p, version), tt.other)
			if tt.pcp6 != nil {
				check(six, announce(six, version), unsupported)
			}
		}
		if tt.pmp != nil {
			check(p, []byte{1, 0}, tt.other) // however short (PCP-3)
		}
	}
}
