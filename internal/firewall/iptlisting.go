package firewall

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// What `iptables -S` prints of a table, read with no more understanding than
// our own rules need.

// word is what stands behind an option of a listed rule, "" when it is absent.
func word(line, option string) string {
	_, rest, _ := strings.Cut(line, " "+option+" ")
	w, _, _ := strings.Cut(rest, " ")
	return w
}

// uncounted is a listing by `iptables -S -v` without its counters.
func uncounted(listing string) string {
	lines := strings.Split(listing, "\n")
	for i, line := range lines {
		if before, rest, ok := strings.Cut(line, " -c "); ok {
			_, rest, _ = strings.Cut(rest, " ")
			_, rest, _ = strings.Cut(rest, " ")
			lines[i] = before + " " + rest
		}
	}
	return strings.Join(lines, "\n")
}

// counters gives the counters of a rule that was listed with -v as they can be
// written again, "-c packets bytes ".
func counters(line string) string {
	_, rest, ok := strings.Cut(line, " -c ")
	if words := strings.SplitN(rest, " ", 3); ok && len(words) == 3 {
		return "-c " + words[0] + " " + words[1] + " "
	}
	return ""
}

// countedIn gives what each mapping has counted.
func countedIn(listing string) map[portmap.Key]string {
	all := map[portmap.Key]string{}
	for m, c := range mappingsIn(listing) {
		all[m.key()] = c
	}
	return all
}

// Packets counts for each mapping what its rule has redirected: the first packet
// of each connection, since NAT sees no others; and for each pinhole what it has
// let through, which is no more than that where established connections are
// accepted before it.
func (f *IPTables) Packets() (map[portmap.Key]uint64, error) {
	listing, err := f.four.list(f.ctx, closeWait, "nat", "-v")
	if err != nil {
		return nil, err
	}
	counted := mappingsIn(listing)
	if f.six != nil {
		if listing, err = f.six.list(f.ctx, closeWait, "filter", "-v"); err != nil {
			return nil, err
		}
		for m, c := range pinholesIn(listing) {
			counted[m] = c
		}
	}
	all := make(map[portmap.Key]uint64, len(counted))
	for m, c := range counted {
		n, err := strconv.ParseUint(word(" "+c, "-c"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read the counters of iptables: %w", err)
		}
		k := m.key()
		if first := f.inForce.mapped[m]; first != 0 {
			k.ExternalPort = first
		}
		all[k] += n
	}
	return all, nil
}

// jumpsTo gives the unconditional jumps into our chains, as jump.String
// spells them.
func jumpsTo(listing string) (found []string) {
	for _, line := range strings.Split(listing, "\n") {
		rule, ok := strings.CutPrefix(line, "-A ")
		if to := word(rule, "-j"); ok && strings.Count(rule, " ") == 2 && (to == preChain || to == mapChain || to == postChain) {
			found = append(found, rule)
		}
	}
	return found
}

// mappingsIn gives the mappings of table nat, each with what its rule has counted,
// as counters gives it.
func mappingsIn(listing string) map[mapped]string {
	all := map[mapped]string{}
	var external netip.Addr
	lines := strings.Split(listing, "\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "-A "+preChain+" ") && word(line, "-j") == mapChain {
			external = listedAddr(word(line, "-d"))
		}
	}
	for _, line := range lines {
		client, err := netip.ParseAddrPort(word(line, "--to-destination"))
		m, ok := listed(line, external)
		if !ok || err != nil {
			continue // not ours
		}
		m.client = client
		all[m] = counters(line)
	}
	return all
}

// listed reads a rule of our chain but for its client; false: it is none.
func listed(line string, external netip.Addr) (m mapped, ok bool) {
	proto, ok := portmap.ParseProtocol(word(line, "-p"))
	to, err := strconv.ParseUint(word(line, "--dport"), 10, 16)
	m.proto, m.external = uint8(proto), netip.AddrPortFrom(external, uint16(to))
	p, _ := netip.ParsePrefix(word(line, "-s"))
	if m.remote = p.Addr(); p.Bits() > 0 && p.Bits() < m.remote.BitLen() {
		m.bits = uint8(p.Bits())
	}
	port, _ := strconv.ParseUint(word(line, "--sport"), 10, 16) // without: 0
	m.remotePort = uint16(port)
	return m, ok && err == nil && strings.HasPrefix(line, "-A "+mapChain+" ")
}

// listedAddr reads "11.0.0.1/32" or "2001:db8::1/128"; the zero Addr stands for any.
func listedAddr(s string) netip.Addr {
	a, _ := netip.ParseAddr(strings.TrimSuffix(strings.TrimSuffix(s, "/32"), "/128"))
	return a
}

// key is the portmap.Key of the mapping.
func (m mapped) key() portmap.Key {
	k := portmap.Key{Protocol: portmap.Protocol(m.proto), ExternalPort: m.external.Port(), RemoteHost: m.remote, RemoteBits: m.bits, RemotePort: m.remotePort}
	if m.pinhole() {
		k.Pinhole = m.client.Addr()
	}
	return k
}
