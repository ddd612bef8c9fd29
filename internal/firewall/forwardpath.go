package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ForwardPath looks for forward chains of others that drop what we redirect: a
// drop is final, so our own table cannot let it pass. warning names each of
// them and the command that helps; it is "" when there is none.
//
// A chain with policy drop is taken to let our connections pass when a rule of
// its table accepts by our mark or by "redirected", or when the chain itself
// accepts everything. Before that, whatever the policy, a rule of the chain that
// drops by nothing but the devices counts. Other drops, one that accepts what lacks
// the mark, and drops at other hooks are not seen.
//
// ForwardPath has a connection of its own and may run beside the other methods.
func (f *NFTables) ForwardPath() (warning string, err error) {
	return inspect(func(conn *netlink.Conn) (string, error) { return refusals(conn, f.layout.uplink, kernelChain{}) })
}

// foreignRefusals leaves out the chain that iptables-nft shows, for it is looked
// at as iptables' own.
func foreignRefusals(uplink string) (string, error) {
	iptables := kernelChain{family: unix.NFPROTO_IPV4, table: "filter", name: "FORWARD"}
	return inspect(func(conn *netlink.Conn) (string, error) { return refusals(conn, uplink, iptables) })
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
// from the uplink and is redirected.
func refusals(conn *netlink.Conn, uplink string, without kernelChain) (string, error) {
	chains, err := readChains(conn)
	if err != nil {
		return "", err
	}
	var warnings []string
	for _, c := range chains {
		if !c.forwards() || c.family == without.family && c.table == without.table && c.name == without.name {
			continue
		}
		passes, err := passesOurs(conn, c, chains, uplink)
		if err != nil {
			return "", err
		}
		if !passes {
			warnings = append(warnings, refusal(c))
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
	replies, err := ask(conn, unix.NFT_MSG_GETCHAIN, netlink.Dump, unix.NFPROTO_UNSPEC, nil)
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
	replies, err := ask(conn, unix.NFT_MSG_GETRULE, netlink.Dump, c.family, which)
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

// forwards reports whether forwarded IPv4 packets go through a base chain that may
// drop them.
func (c kernelChain) forwards() bool {
	return c.kind == "filter" && c.hook == unix.NF_INET_FORWARD &&
		(c.family == unix.NFPROTO_INET || c.family == unix.NFPROTO_IPV4)
}

// passesOurs looks through the base chain, and then for the other chains of its
// table that it may jump to.
func passesOurs(conn *netlink.Conn, base kernelChain, chains []kernelChain, uplink string) (bool, error) {
	rules, err := readRules(conn, base)
	if err != nil {
		return false, err
	}
	drops := base.policy == nfDrop
	for _, r := range rules {
		if verdict(r) == nfAccept && (aboutOurs(r) || unconditional(r)) {
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
		for _, r := range rules {
			if verdict(r) == nfAccept && aboutOurs(r) {
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
// redirected, in nftables' words or in those of iptables-nft.
func aboutOurs(rule []expression) bool {
	mark, status := false, false // which of the two was loaded
	for _, x := range rule {
		switch x.name {
		case "ct":
			key, load := number(attribute(x.data, unix.NFTA_CT_KEY)), attribute(x.data, unix.NFTA_CT_DREG) != nil
			mark, status = load && key == unix.NFT_CT_MARK, load && key == unix.NFT_CT_STATUS
		case "bitwise":
			mask := attribute(attribute(x.data, unix.NFTA_BITWISE_MASK), unix.NFTA_DATA_VALUE)
			if mark && hasBit(mask, connMark) || status && hasBit(mask, dnatStatus) {
				return true
			}
		case "cmp":
			is := number(attribute(x.data, unix.NFTA_CMP_OP)) == unix.NFT_CMP_EQ
			if mark && is && hasBit(attribute(attribute(x.data, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE), connMark) {
				return true
			}
		case "match":
			if matchOurs(x.data) {
				return true
			}
		}
	}
	return false
}

// hasBit looks into a number in the host's byte order.
func hasBit(b []byte, bit uint32) bool {
	return len(b) >= 4 && binary.NativeEndian.Uint32(b)&bit != 0
}

// matchOurs is aboutOurs for a match in the form of the old xtables.
func matchOurs(a []byte) bool {
	const stateMask = 150 // in struct xt_conntrack_mtinfo2, and in its successor
	info, rev := attribute(a, unix.NFTA_MATCH_INFO), number(attribute(a, unix.NFTA_MATCH_REV))
	switch text(attribute(a, unix.NFTA_MATCH_NAME)) {
	case "conntrack":
		return rev >= 2 && len(info) >= stateMask+2 && binary.NativeEndian.Uint16(info[stateMask:])&xtDNATState != 0
	case "connmark": // struct xt_connmark_mtinfo1 begins with mark and mask
		return len(info) >= 8 && hasBit(info, connMark) && hasBit(info[4:], connMark)
	}
	return false
}

// refusal is the warning about one chain.
func refusal(c kernelChain) string {
	family := "inet"
	if c.family == unix.NFPROTO_IPV4 {
		family = "ip"
	}
	command := fmt.Sprintf("nft insert rule %s %s %s ct mark and %s == %s ct status dnat accept", family, c.table, c.name, mark, mark)
	if family == "ip" && c.table == "filter" && c.name == "FORWARD" {
		command = fmt.Sprintf("iptables -I FORWARD -m connmark --mark %s/%s -j ACCEPT", mark, mark)
	}
	return fmt.Sprintf("chain %s of table %s %s drops connections to mapped ports; let them pass: %s", c.name, family, c.table, command)
}
