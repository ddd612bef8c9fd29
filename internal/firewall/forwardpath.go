package firewall

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// ForwardPath looks for chains of others that drop what we redirect: a drop is
// final, so our own table cannot let it pass. warning names each of them and
// the command that helps; it is "" when there is none.
//
// The way of a new connection through a mapping is followed from rule to rule.
// A rule that may or may not match (for a port, say) neither accepts nor drops
// it, unless it is about our mark or about redirected connections of a device.
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
		if !forwards(c) {
			continue
		}
		p := newPath(conn, c.Table, f.layout.uplink)
		end, err := p.follow(c.Name, surely)
		if err != nil {
			return "", fmt.Errorf("read the rules of table %s: %w", c.Table.Name, err)
		}
		if end == dropped || end == passed && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			warnings = append(warnings, refusal(c))
		}
	}
	return strings.Join(warnings, "; "), nil
}

// forwards reports whether forwarded IPv4 packets go through a base chain.
func forwards(c *nftables.Chain) bool {
	return c.Type == nftables.ChainTypeFilter && c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward &&
		(c.Table.Family == nftables.TableFamilyINet || c.Table.Family == nftables.TableFamilyIPv4)
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

// outcome is how a chain ends for a packet.
type outcome int

const (
	passed   outcome = iota // goes on behind the chain
	accepted                // by this base chain; the next one may differ
	dropped
)

// reach tells whether a packet comes to a rule.
type reach int

const (
	perhaps  reach = iota // it depends on what we do not know
	intended              // perhaps, but the rules are about what we redirect
	surely
)

// path follows a connection through the chains of one table.
type path struct {
	conn  *nftables.Conn
	table *nftables.Table
	rules map[string][]*nftables.Rule
	ends  map[visit]outcome
	// The connection, the same one by another's redirect, and by none.
	ours, redirected, other probe
}

type visit struct {
	chain string
	reach reach
}

func newPath(conn *nftables.Conn, table *nftables.Table, uplink string) *path {
	p := &path{conn: conn, table: table, rules: map[string][]*nftables.Rule{}, ends: map[visit]outcome{}}
	p.other = probe{uplink: uplink, elements: p.elements}
	p.redirected = p.other
	p.redirected.status = dnatStatus
	p.ours = p.redirected
	p.ours.mark = connMark
	return p
}

// follow goes through a chain and those that it leads to.
func (p *path) follow(chain string, r reach) (outcome, error) {
	if end, ok := p.ends[visit{chain, r}]; ok {
		return end, nil
	}
	rules, ok := p.rules[chain]
	if !ok {
		var err error
		if rules, err = p.conn.GetRules(p.table, &nftables.Chain{Name: chain}); err != nil {
			return passed, err
		}
		p.rules[chain] = rules
	}
	for _, rule := range rules {
		end, last, err := p.apply(rule.Exprs, r)
		if err != nil {
			return passed, err
		}
		if last {
			p.ends[visit{chain, r}] = end
			return end, nil
		}
	}
	p.ends[visit{chain, r}] = passed
	return passed, nil
}

// apply gives what a rule does; last when no rule of the chain follows.
func (p *path) apply(rule []expr.Any, r reach) (end outcome, last bool, err error) {
	ours, err := p.ours.verdicts(rule)
	if err != nil || len(ours.verdicts) == 0 {
		return passed, false, err
	}
	redirected, err := p.redirected.verdicts(rule)
	if err != nil {
		return passed, false, err
	}
	other, err := p.other.verdicts(rule)
	if err != nil {
		return passed, false, err
	}
	about := len(redirected.verdicts) == 0 || len(other.verdicts) == 0 && !ours.narrow
	for _, v := range ours.verdicts {
		r := r
		switch {
		case v.match == yes && r == surely:
		case about:
			r = intended
		case v.match == maybe:
			r = perhaps
		}
		if end, last, err = p.obey(v, r); err != nil || last {
			return end, last, err
		}
	}
	return passed, false, nil
}

// obey does what a verdict says to a packet that comes to it as r.
func (p *path) obey(v verdict, r reach) (end outcome, last bool, err error) {
	switch v.kind {
	case expr.VerdictAccept:
		return accepted, r != perhaps, nil
	case expr.VerdictDrop:
		return dropped, r == surely, nil
	case expr.VerdictReturn:
		return passed, r == surely, nil
	case expr.VerdictJump, expr.VerdictGoto:
		end, err = p.follow(v.chain, r)
		return end, end != passed || v.kind == expr.VerdictGoto && r == surely, err
	}
	return passed, false, nil
}

// elements reads a set of the table.
func (p *path) elements(set string) ([]nftables.SetElement, error) {
	return p.conn.GetSetElements(&nftables.Set{Table: p.table, Name: set})
}
