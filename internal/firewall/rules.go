package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// rule is one rule of one of our chains, without the -A in front. It is made
// by pure functions, so that adding and deleting spell it the same way.
type rule struct {
	chain string
	spec  string
	first bool // must stand before the chain's other rules
}

// place is the way to add the rule.
func (r rule) place() string {
	if r.first {
		return "-I"
	}
	return "-A"
}

func (r rule) write(b *strings.Builder, how string) {
	fmt.Fprintf(b, "%s %s %s\n", how, r.chain, r.spec)
}

// ruleset makes the rules for one uplink and one set of addresses.
type ruleset struct {
	uplink  string
	network portmap.Network
}

// of gives the rules of one mapping: its DNAT, and a SNAT that lets the host's
// own packets leave from the mapped port (SPEC WIP-25: two consoles with the
// same game). RemoteHost is a real match; its rules stand first. A nil or
// disabled mapping has no rules, nor has any while the uplink has no address.
func (s ruleset) of(m *portmap.Mapping) []rule {
	if m == nil || !m.Enabled || !s.network.External.IsValid() {
		return nil
	}
	proto := strings.ToLower(m.Protocol.String())
	from, to := "", ""
	if m.RemoteHost.IsValid() {
		from, to = fmt.Sprintf("-s %v ", m.RemoteHost), fmt.Sprintf("-d %v ", m.RemoteHost)
	}
	specific := m.RemoteHost.IsValid()
	return []rule{
		{mapChain, fmt.Sprintf("%s-d %v -p %s --dport %d -j DNAT --to-destination %v:%d",
			from, s.network.External, proto, m.ExternalPort, m.Client, m.InternalPort), specific},
		{postChain, fmt.Sprintf("%s-o %s -s %v -p %s --sport %d -j SNAT --to-source %v:%d",
			to, s.uplink, m.Client, proto, m.InternalPort, s.network.External, m.ExternalPort), specific},
	}
}

// whole is the iptables-restore input that makes our chains equal to the
// mappings, whatever they held before.
func (s ruleset) whole(all []portmap.Mapping, forward bool) string {
	var b strings.Builder
	if forward {
		fmt.Fprintf(&b, "*filter\n:%s - [0:0]\n", mapChain)
		for _, r := range s.accept() {
			r.write(&b, "-A")
		}
		b.WriteString("COMMIT\n")
	}
	fmt.Fprintf(&b, "*nat\n:%s - [0:0]\n:%s - [0:0]\n", mapChain, postChain)
	for _, r := range s.hairpin() {
		r.write(&b, "-A")
	}
	for i := range all {
		for _, r := range s.of(&all[i]) {
			r.write(&b, r.place())
		}
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// accept lets through what was redirected from the uplink's address, in both
// directions: connections that we mapped, and no other destination.
func (s ruleset) accept() []rule {
	if !s.network.External.IsValid() {
		return nil
	}
	return []rule{{mapChain, fmt.Sprintf("-m conntrack --ctstate DNAT --ctorigdst %v -j ACCEPT", s.network.External), false}}
}

// hairpin makes a LAN host reach another one by the external address: the
// answer must come back through the router.
func (s ruleset) hairpin() []rule {
	if !s.network.External.IsValid() {
		return nil
	}
	var rules []rule
	var seen []netip.Prefix
	for _, lan := range s.network.LANs {
		if lan = lan.Masked(); slices.Contains(seen, lan) || !lan.Addr().Is4() {
			continue
		}
		seen = append(seen, lan)
		rules = append(rules, rule{postChain, fmt.Sprintf("-s %v ! -o %s -m conntrack --ctstate DNAT --ctorigdst %v -j MASQUERADE",
			lan, s.uplink, s.network.External), false})
	}
	return rules
}

// removal gives the iptables-restore lines that take our jumps and chains out
// of a table, which `iptables -S` printed; "" when there are none.
func removal(listing string) string {
	var jumps, flush, chains strings.Builder
	for _, line := range strings.Split(listing, "\n") {
		for _, ours := range []string{mapChain, postChain} {
			if line == "-N "+ours {
				fmt.Fprintf(&flush, "-F %s\n", ours)
				fmt.Fprintf(&chains, "-X %s\n", ours)
			}
			if parent, ok := strings.CutSuffix(line, " -j "+ours); ok && strings.Count(parent, " ") == 1 {
				fmt.Fprintf(&jumps, "-D%s -j %s\n", strings.TrimPrefix(parent, "-A"), ours)
			}
		}
	}
	return jumps.String() + flush.String() + chains.String()
}
