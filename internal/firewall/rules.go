package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// rule is one rule of one of our chains, without the -A in front. It is made
// by pure functions, so that adding and deleting spell it the same way, and it is
// spelled as iptables -S prints it, so that Verify finds it there.
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

// counting is the DNAT rule of a mapping that has counted already.
func (r rule) counting(counters string) rule {
	r.spec = strings.Replace(r.spec, "-j DNAT", counters+"-j DNAT", 1)
	return r
}

// ruleset makes the rules for one uplink and one set of addresses.
type ruleset struct {
	uplink  string
	network portmap.Network
}

// all gives the rules of a mapping, port by port: not all iptables can change a
// range of ports into another one.
func (s ruleset) all(m *portmap.Mapping) (rules []rule) {
	for _, one := range single(m) {
		rules = append(rules, s.of(&one)...)
	}
	return rules
}

// of gives the rules of a mapping of one port: its DNAT, and a SNAT that lets the host's
// own packets leave from the mapped port (SPEC WIP-25: two consoles with the
// same game). RemoteHost is a real match; its rules stand first. A
// disabled mapping has no rules, nor has any while the uplink has no address or
// the client is no host of a served LAN: addresses change, and what was a host
// may become the router.
//
// The one rule of a pinhole is for ip6tables' table filter, where the order does
// not matter.
func (s ruleset) of(m *portmap.Mapping) []rule {
	pinhole := m.Pinhole.IsValid()
	if !m.Enabled || !s.network.OnLink(m.Client) || !pinhole && !s.network.External.IsValid() {
		return nil
	}
	proto := strings.ToLower(m.Protocol.String())
	from, to, sport := "", "", ""
	specific := m.RemoteHost.IsValid()
	if specific {
		remote := m.Remote().String()
		from, to = "-s "+remote+" ", "-d "+remote+" "
	}
	if m.RemotePort != 0 {
		sport = fmt.Sprintf("--sport %d ", m.RemotePort)
	}
	if pinhole {
		return []rule{{mapChain, fmt.Sprintf("%s-d %v/128 -p %s -m %s %s--dport %d -j ACCEPT",
			from, m.Client, proto, proto, sport, m.InternalPort), false}}
	}
	return []rule{
		{mapChain, fmt.Sprintf("%s-p %s -m %s %s--dport %d -j DNAT --to-destination %v:%d",
			from, proto, proto, sport, m.ExternalPort, m.Client, m.InternalPort), specific},
		{postChain, fmt.Sprintf("-s %v/32 %s-o %s -p %s -m %s --sport %d -j SNAT --to-source %v:%d",
			m.Client, to, s.uplink, proto, proto, m.InternalPort, s.network.External, m.ExternalPort), specific},
	}
}

// whole is the iptables-restore input that makes our chains equal to the
// mappings, whatever they held before, with further lines for each table. What
// mappings have counted is counted on.
func (s ruleset) whole(all []portmap.Mapping, forward bool, further map[string]string, counted map[portmap.Key]string) string {
	var b strings.Builder
	if forward {
		fmt.Fprintf(&b, "*filter\n:%s - [0:0]\n", mapChain)
		fmt.Fprintf(&b, "-A %s -m connmark --mark %s/%s -m conntrack --ctstate DNAT -j ACCEPT\n%sCOMMIT\n",
			mapChain, mark, mark, further["filter"])
	}
	fmt.Fprintf(&b, "*nat\n:%s - [0:0]\n:%s - [0:0]\n:%s - [0:0]\n", preChain, mapChain, postChain)
	for _, r := range append(s.enter(forward), s.hairpin()...) {
		r.write(&b, "-A")
	}
	for i := range all {
		if all[i].Pinhole.IsValid() {
			continue
		}
		for _, one := range single(&all[i]) {
			for _, r := range s.of(&one) {
				r = r.counting(counted[one.Key])
				r.write(&b, r.place())
			}
		}
	}
	b.WriteString(further["nat"] + "COMMIT\n")
	return b.String()
}

// enter leads what comes to the uplink's address through the mappings. DNAT ends
// the traversal, so the mark stays on what was redirected and on nothing else:
// the administrator's own redirects get no way past the forward chain. Without
// forward rules nobody looks at the mark.
func (s ruleset) enter(marked bool) []rule {
	if !s.network.External.IsValid() {
		return nil
	}
	to := fmt.Sprintf("-d %v/32 ", s.network.External)
	rules := []rule{
		{preChain, to + "-j CONNMARK --set-xmark " + mark + "/" + mark, false},
		{preChain, to + "-j " + mapChain, false},
		{preChain, to + "-j CONNMARK --set-xmark 0x0/" + mark, false},
	}
	if !marked {
		return rules[1:2]
	}
	return rules
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

// removal gives iptables-restore lines for a table that `iptables -S` printed:
// those that take out our jumps and empty our chains, and those that delete the
// chains. Both are "" when there is nothing of ours.
func removal(listing string) (empty, deleted string) {
	var flush, chains strings.Builder
	for _, line := range strings.Split(listing, "\n") {
		for _, ours := range []string{preChain, mapChain, postChain} {
			if line == "-N "+ours {
				fmt.Fprintf(&flush, "-F %s\n", ours)
				fmt.Fprintf(&chains, "-X %s\n", ours)
			}
		}
	}
	for _, j := range jumpsTo(listing) {
		empty += "-D " + j + "\n"
	}
	return empty + flush.String(), chains.String()
}
