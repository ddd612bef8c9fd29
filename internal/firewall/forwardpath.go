package firewall

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// ForwardPath looks for forward chains of others that drop what we redirect: a
// drop is final, so our own table cannot let it pass. warning names each of
// them and the command that helps; it is "" when there is none.
//
// A chain with policy drop is taken to let our connections pass when a rule of
// its table accepts by our mark or by "redirected", or when the chain itself
// accepts everything. A rule that drops before, one that accepts what lacks the
// mark, and a drop in a chain whose policy is to accept are not seen.
//
// ForwardPath has a connection of its own and may run beside the other methods.
func (f *NFTables) ForwardPath() (warning string, err error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return "", fmt.Errorf("open nf_tables: %w", err)
	}
	defer func() { err = errors.Join(err, conn.CloseLasting()) }()
	chains, err := conn.ListChains()
	if err != nil {
		return "", fmt.Errorf("list chains: %w", err)
	}
	var warnings []string
	for _, c := range chains {
		if !dropsForwarded(c) {
			continue
		}
		passes, err := acceptsOurs(conn, c, chains)
		if err != nil {
			return "", fmt.Errorf("read the rules of table %s: %w", c.Table.Name, err)
		}
		if !passes {
			warnings = append(warnings, refusal(c))
		}
	}
	return strings.Join(warnings, "; "), nil
}

// dropsForwarded reports whether forwarded IPv4 packets go through a base chain
// that drops what none of its rules accepts.
func dropsForwarded(c *nftables.Chain) bool {
	return c.Type == nftables.ChainTypeFilter && c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward &&
		c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop &&
		(c.Table.Family == nftables.TableFamilyINet || c.Table.Family == nftables.TableFamilyIPv4)
}

// acceptsOurs looks through the base chain and the other chains of its table.
func acceptsOurs(conn *nftables.Conn, base *nftables.Chain, chains []*nftables.Chain) (bool, error) {
	for _, c := range chains {
		isBase := c.Name == base.Name
		if c.Table.Name != base.Table.Name || c.Table.Family != base.Table.Family || c.Hooknum != nil && !isBase {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return false, err
		}
		for _, r := range rules {
			if accepts(r.Exprs) && (aboutOurs(r.Exprs) || isBase && unconditional(r.Exprs)) {
				return true, nil
			}
		}
	}
	return false, nil
}

func accepts(rule []expr.Any) bool {
	for _, x := range rule {
		if v, ok := x.(*expr.Verdict); ok && v.Kind == expr.VerdictAccept {
			return true
		}
	}
	return false
}

// unconditional: nothing but counters stands before the verdict.
func unconditional(rule []expr.Any) bool {
	for _, x := range rule {
		switch x.(type) {
		case *expr.Verdict, *expr.Counter, *expr.Log:
		default:
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
func aboutOurs(rule []expr.Any) bool {
	var loaded expr.CtKey
	known := false
	for _, x := range rule {
		switch x := x.(type) {
		case *expr.Ct:
			loaded, known = x.Key, !x.SourceRegister
		case *expr.Bitwise:
			if known && (loaded == expr.CtKeyMARK && hasBit(x.Mask, connMark) || loaded == expr.CtKeySTATUS && hasBit(x.Mask, dnatStatus)) {
				return true
			}
		case *expr.Cmp:
			if known && loaded == expr.CtKeyMARK && x.Op == expr.CmpOpEq && hasBit(x.Data, connMark) {
				return true
			}
		case *expr.Match:
			if matchOurs(x) {
				return true
			}
		}
	}
	return false
}

// hasBit looks into a number in the host's byte order.
func hasBit(b []byte, bit uint32) bool {
	return len(b) >= 4 && binaryutil.NativeEndian.Uint32(b)&bit != 0
}

// matchOurs is aboutOurs for a match in the form of the old xtables.
func matchOurs(m *expr.Match) bool {
	switch info := m.Info.(type) {
	case *xt.ConntrackMtinfo3:
		return info.StateMask&xtDNATState != 0
	case *xt.ConntrackMtinfo2:
		return info.StateMask&xtDNATState != 0
	case *xt.Unknown: // struct xt_connmark_mtinfo1 begins with mark and mask
		return m.Name == "connmark" && len(*info) >= 8 && hasBit(*info, connMark) && hasBit((*info)[4:], connMark)
	}
	return false
}

// refusal is the warning about one chain.
func refusal(c *nftables.Chain) string {
	family := "inet"
	if c.Table.Family == nftables.TableFamilyIPv4 {
		family = "ip"
	}
	command := fmt.Sprintf("nft insert rule %s %s %s ct mark and %s == %s ct status dnat accept", family, c.Table.Name, c.Name, mark, mark)
	if family == "ip" && c.Table.Name == "filter" && c.Name == "FORWARD" {
		command = fmt.Sprintf("iptables -I FORWARD -m connmark --mark %s/%s -j ACCEPT", mark, mark)
	}
	return fmt.Sprintf("chain %s of table %s %s drops connections to mapped ports; let them pass: %s", c.Name, family, c.Table.Name, command)
}
