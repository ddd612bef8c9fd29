package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ForwardPath looks for forward chains of others that drop what we redirect, or what
// comes through pinholes: a drop is final, so our own table cannot let it pass. warning names each of
// them and the command that helps; it is "" when there is none.
//
// A chain with policy drop is taken to let our connections pass when a rule of
// its table accepts by our mark or, in IPv4, by "redirected", or when the chain itself
// accepts everything. Before that, whatever the policy, a rule of the chain that
// drops by nothing but the devices counts. Other drops, one that accepts what lacks
// the mark, and drops at other hooks are not seen.
//
// ForwardPath has a connection of its own and may run beside the other methods.
func (f *NFTables) ForwardPath() (warning string, err error) {
	families := []byte{unix.NFPROTO_IPV4}
	if f.IPv6 && hasIPv6() {
		families = append(families, unix.NFPROTO_IPV6)
	}
	return inspect(func(conn *netlink.Conn) (string, error) {
		return refusals(conn, f.layout.uplink, families, kernelChain{})
	})
}

// hasIPv6 reports whether the router has an IPv6 address that others can reach:
// without one nobody opens pinholes.
func hasIPv6() bool {
	list, _ := os.ReadFile("/proc/thread-self/net/if_inet6") // no file: no IPv6
	for _, line := range strings.Split(string(list), "\n") {
		// address, index, length of the prefix, scope, flags, device
		if f := strings.Fields(line); len(f) == 6 && f[3] == "00" {
			return true
		}
	}
	return false
}

// foreignRefusals leaves out the chain that iptables-nft shows, for it is looked
// at as iptables' own.
func foreignRefusals(uplink string) (string, error) {
	iptables := kernelChain{family: unix.NFPROTO_IPV4, table: "filter", name: "FORWARD"}
	return inspect(func(conn *netlink.Conn) (string, error) {
		return refusals(conn, uplink, []byte{unix.NFPROTO_IPV4}, iptables)
	})
}

// inspect has a connection of its own for a look at the rules.
func inspect(look func(*netlink.Conn) (string, error)) (said string, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return "", fmt.Errorf("open nf_tables: %w", err)
	}
	said, err = look(conn)
	return said, errors.Join(err, conn.Close())
}

// refusals gives the warnings about all chains, without one, that drop what comes
// from the uplink and is redirected, or came through a pinhole, in some families.
func refusals(conn *netlink.Conn, uplink string, families []byte, without kernelChain) (string, error) {
	chains, err := readChains(conn)
	if err != nil {
		return "", err
	}
	var warnings []string
	for _, c := range chains {
		if c.family == without.family && c.table == without.table && c.name == without.name {
			continue
		}
		for _, family := range families {
			if !c.forwards(family) {
				continue
			}
			passes, err := passesOurs(conn, c, chains, uplink, family)
			if err != nil {
				return "", err
			}
			if !passes {
				warnings = append(warnings, refusal(c, family))
			}
		}
	}
	return strings.Join(warnings, "; "), nil
}

// kernelChain is a chain of the kernel, ours or not.
type kernelChain struct {
	family      byte
	table, name string
	kind        string // of a base chain, such as "filter"
	hook        int    // of a base chain; -1
	policy      uint64 // of a base chain
}

func readChains(conn *netlink.Conn) ([]kernelChain, error) {
	replies, err := ask(conn, longAnswerTime, unix.NFT_MSG_GETCHAIN, netlink.Dump, unix.NFPROTO_UNSPEC, nil)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var all []kernelChain
	for _, m := range replies {
		a := m.Data[nfgenmsg:]
		c := kernelChain{
			family: m.Data[0], table: text(attribute(a, unix.NFTA_CHAIN_TABLE)), name: text(attribute(a, unix.NFTA_CHAIN_NAME)),
			kind: text(attribute(a, unix.NFTA_CHAIN_TYPE)), hook: -1, policy: number(attribute(a, unix.NFTA_CHAIN_POLICY)),
		}
		if hook := attribute(a, unix.NFTA_CHAIN_HOOK); hook != nil {
			c.hook = int(number(attribute(hook, unix.NFTA_HOOK_HOOKNUM)))
		}
		all = append(all, c)
	}
	return all, nil
}

// expression is a step of a rule: what the kernel calls it, and its attributes.
type expression struct {
	name string
	data []byte
}

// readRules gives the rules of a chain.
func readRules(conn *netlink.Conn, c kernelChain) (rules [][]expression, err error) {
	which := attributes(nil).text(unix.NFTA_RULE_TABLE, c.table).text(unix.NFTA_RULE_CHAIN, c.name)
	replies, err := ask(conn, longAnswerTime, unix.NFT_MSG_GETRULE, netlink.Dump, c.family, which)
	if err != nil {
		return nil, fmt.Errorf("list the rules of chain %s in table %s: %w", c.name, c.table, err)
	}
	for _, m := range replies {
		d, err := netlink.NewAttributeDecoder(attribute(m.Data[nfgenmsg:], unix.NFTA_RULE_EXPRESSIONS))
		if err != nil {
			return nil, fmt.Errorf("read the rules of chain %s in table %s: %w", c.name, c.table, err)
		}
		var rule []expression
		for d.Next() {
			x := d.Bytes()
			rule = append(rule, expression{text(attribute(x, unix.NFTA_EXPR_NAME)), attribute(x, unix.NFTA_EXPR_DATA)})
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// forwards reports whether forwarded packets of a family go through a base chain
// that may drop them.
func (c kernelChain) forwards(family byte) bool {
	return c.kind == "filter" && c.hook == unix.NF_INET_FORWARD && (c.family == unix.NFPROTO_INET || c.family == family)
}

// seenBy gives the rules that see packets of a family, without the expressions
// that ask for it.
func seenBy(family byte, rules [][]expression) (seen [][]expression) {
	for _, rule := range rules {
		var rest []expression
		asks, sees := false, true
		for _, x := range rule {
			switch {
			case x.name == "meta":
				asks = number(attribute(x.data, unix.NFTA_META_KEY)) == unix.NFT_META_NFPROTO
			case x.name == "cmp" && asks:
				is := number(attribute(x.data, unix.NFTA_CMP_OP)) == unix.NFT_CMP_EQ
				value := attribute(attribute(x.data, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE)
				sees = sees && is == (number(value) == uint64(family))
				asks = false
				continue
			}
			if !asks {
				rest = append(rest, x)
			}
		}
		if sees {
			seen = append(seen, rest)
		}
	}
	return seen
}

// passesOurs looks through the base chain, and then for the other chains of its
// table that it may jump to.
func passesOurs(conn *netlink.Conn, base kernelChain, chains []kernelChain, uplink string, family byte) (bool, error) {
	rules, err := readRules(conn, base)
	if err != nil {
		return false, err
	}
	drops := base.policy == nfDrop
	for _, r := range seenBy(family, rules) {
		if verdict(r) == nfAccept && (aboutOurs(r, family) || unconditional(r)) {
			return true, nil
		}
		if dropsFrom(uplink, r) {
			drops = true
			break
		}
	}
	if !drops {
		return true, nil
	}
	for _, c := range chains {
		if c.table != base.table || c.family != base.family || c.hook >= 0 {
			continue
		}
		rules, err := readRules(conn, c)
		if err != nil {
			return false, err
		}
		for _, r := range seenBy(family, rules) {
			if verdict(r) == nfAccept && aboutOurs(r, family) {
				return true, nil
			}
		}
	}
	return false, nil
}

// Verdicts (linux/netfilter.h); noVerdict is none of these.
const (
	nfDrop    = 0
	nfAccept  = 1
	noVerdict = 2
)

// verdict is what a rule decides.
func verdict(rule []expression) uint64 {
	for _, x := range rule {
		if x.name == "reject" {
			return nfDrop
		}
		v := attribute(attribute(x.data, unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VERDICT)
		if code := attribute(v, unix.NFTA_VERDICT_CODE); x.name == "immediate" && code != nil {
			return min(number(code), noVerdict) // a jump is a large number
		}
	}
	return noVerdict
}

// dropsFrom reports whether a rule drops what comes from the uplink and goes to a
// LAN, for no other reason.
func dropsFrom(uplink string, rule []expression) bool {
	var key uint64
	for _, x := range rule {
		switch x.name {
		case "meta":
			key = number(attribute(x.data, unix.NFTA_META_KEY))
		case "cmp":
			device := text(attribute(attribute(x.data, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE))
			same := (device == uplink) == (number(attribute(x.data, unix.NFTA_CMP_OP)) == unix.NFT_CMP_EQ)
			if key != unix.NFT_META_IIFNAME && key != unix.NFT_META_OIFNAME || key == unix.NFT_META_IIFNAME && !same ||
				key == unix.NFT_META_OIFNAME && same {
				return false
			}
		case "immediate", "reject", "counter", "log":
		default:
			return false
		}
	}
	return verdict(rule) == nfDrop
}

// unconditional: nothing but counters stands before the verdict.
func unconditional(rule []expression) bool {
	for _, x := range rule {
		if x.name != "immediate" && x.name != "counter" && x.name != "log" {
			return false
		}
	}
	return true
}

// Bits of a connection (linux/netfilter/nf_conntrack_common.h, xt_conntrack.h).
const (
	dnatStatus  = 1 << 5 // IPS_DST_NAT
	xtDNATState = 1 << 7 // XT_CONNTRACK_STATE_DNAT
)

// aboutOurs: the rule looks at our mark, or whether the connection was
// redirected, in nftables' words or in those of iptables-nft. In IPv6 nothing is
// redirected.
func aboutOurs(rule []expression, family byte) (ours bool) {
	four := family == unix.NFPROTO_IPV4
	mark, status := false, false // which of the two was loaded
	for _, x := range rule {
		switch x.name {
		case "ct":
			key, load := number(attribute(x.data, unix.NFTA_CT_KEY)), attribute(x.data, unix.NFTA_CT_DREG) != nil
			mark, status = load && key == unix.NFT_CT_MARK, load && key == unix.NFT_CT_STATUS
		case "bitwise":
			mask := attribute(attribute(x.data, unix.NFTA_BITWISE_MASK), unix.NFTA_DATA_VALUE)
			if status && hasBit(mask, dnatStatus) && !four {
				return false
			}
			ours = ours || mark && hasBit(mask, connMark) || status && hasBit(mask, dnatStatus)
		case "cmp":
			is := number(attribute(x.data, unix.NFTA_CMP_OP)) == unix.NFT_CMP_EQ
			ours = ours || mark && is && hasBit(attribute(attribute(x.data, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE), connMark)
		case "match":
			if redirected := matchDNAT(x.data); redirected && !four {
				return false
			} else if redirected || matchMark(x.data) {
				ours = true
			}
		}
	}
	return ours
}

// hasBit looks into a number in the host's byte order.
func hasBit(b []byte, bit uint32) bool {
	return len(b) >= 4 && binary.NativeEndian.Uint32(b)&bit != 0
}

// matchMark and matchDNAT are about matches in the form of the old xtables.
func matchMark(a []byte) bool {
	info := attribute(a, unix.NFTA_MATCH_INFO) // struct xt_connmark_mtinfo1 begins with mark and mask
	return text(attribute(a, unix.NFTA_MATCH_NAME)) == "connmark" && len(info) >= 8 && hasBit(info, connMark) && hasBit(info[4:], connMark)
}

func matchDNAT(a []byte) bool {
	const stateMask = 150 // in struct xt_conntrack_mtinfo2, and in its successor
	info, rev := attribute(a, unix.NFTA_MATCH_INFO), number(attribute(a, unix.NFTA_MATCH_REV))
	return text(attribute(a, unix.NFTA_MATCH_NAME)) == "conntrack" && rev >= 2 && len(info) >= stateMask+2 &&
		binary.NativeEndian.Uint16(info[stateMask:])&xtDNATState != 0
}

// refusal is the warning about one chain, and one family of packets.
func refusal(c kernelChain, family byte) string {
	table, program, what := "inet", "iptables", "connections to mapped ports"
	which := fmt.Sprintf("ct mark and %s == %s ct status dnat", mark, mark)
	if family == unix.NFPROTO_IPV6 {
		program, what = "ip6tables", "connections through pinholes"
		which = fmt.Sprintf("ct mark and %s == %s", mark, mark)
	}
	switch {
	case c.family == unix.NFPROTO_IPV4:
		table = "ip"
	case c.family == unix.NFPROTO_IPV6:
		table = "ip6"
	case family == unix.NFPROTO_IPV6:
		which = "meta nfproto ipv6 " + which
	}
	command := fmt.Sprintf("nft insert rule %s %s %s %s accept", table, c.table, c.name, which)
	if table != "inet" && c.table == "filter" && c.name == "FORWARD" {
		command = fmt.Sprintf("%s -I FORWARD -m connmark --mark %s/%s -j ACCEPT", program, mark, mark)
	}
	return fmt.Sprintf("chain %s of table %s %s drops %s; let them pass: %s", c.name, table, c.table, what, command)
}
