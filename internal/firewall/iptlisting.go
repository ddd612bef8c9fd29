package firewall

import (
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

// mappingsIn gives the mappings of table nat, each with the packets that its
// rule has counted, if the listing has counters.
func mappingsIn(listing string) map[mapped]uint64 {
	all := map[mapped]uint64{}
	var external netip.Addr
	lines := strings.Split(listing, "\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "-A "+preChain+" ") && word(line, "-j") == mapChain {
			external = listedAddr(word(line, "-d"))
		}
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, "-A "+mapChain+" ") {
			continue
		}
		proto, known := portmap.ParseProtocol(word(line, "-p"))
		port, err := strconv.ParseUint(word(line, "--dport"), 10, 16)
		client, errTo := netip.ParseAddrPort(word(line, "--to-destination"))
		if !known || err != nil || errTo != nil {
			continue // not ours
		}
		packets, _ := strconv.ParseUint(word(line, "-c"), 10, 64) // 0 without counters
		all[mapped{
			proto: uint8(proto), remote: listedAddr(word(line, "-s")),
			external: netip.AddrPortFrom(external, uint16(port)), client: client,
		}] = packets
	}
	return all
}

// listedAddr reads "11.0.0.1/32"; the zero Addr stands for any.
func listedAddr(s string) netip.Addr {
	a, _ := netip.ParseAddr(strings.TrimSuffix(s, "/32"))
	return a
}

// key is the portmap.Key of the mapping.
func (m mapped) key() portmap.Key {
	return portmap.Key{Protocol: portmap.Protocol(m.proto), ExternalPort: m.external.Port(), RemoteHost: m.remote}
}
