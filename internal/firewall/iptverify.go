package firewall

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// Verify compares the kernel with the rules of the last Sync and the changes
// since, and says in words what differs, "" for nothing. It changes nothing.
func (f *IPTables) Verify() (string, error) {
	all := make([]portmap.Mapping, 0, len(f.inForce.mapped))
	var pinholes strings.Builder
	pinholes.WriteString("*filter\n")
	for m := range f.inForce.mapped {
		p := portmap.Mapping{Key: m.key(), Client: m.client.Addr(), InternalPort: m.client.Port(), Enabled: true}
		if all = append(all, p); m.pinhole() {
			for _, r := range f.rules.all(&p) {
				r.write(&pinholes, "-A")
			}
		}
	}
	said, err := f.four.differs(f.ctx, f.rules.whole(all, f.opts.ForwardRules, nil, nil))
	if err == nil && f.six != nil {
		more := ""
		more, err = f.six.differs(f.ctx, pinholes.String())
		said += more
	}
	return strings.TrimPrefix(said, "; "), err
}

// differs says what our chains and jumps lack or have too many; want is the input
// of iptables-restore that makes the chains.
func (f *family) differs(ctx context.Context, want string) (said string, err error) {
	for _, table := range f.tables {
		have, err := f.list(ctx, closeWait, table)
		if err != nil {
			return "", err
		}
		_, rules, _ := strings.Cut(want, "*"+table+"\n")
		rules, _, _ = strings.Cut(rules, "COMMIT\n")
		for _, chain := range []string{preChain, mapChain, postChain} {
			said += difference(rulesOf(chain, rules), rulesOf(chain, have), "; chain "+chain+" of table "+f.table(table))
		}
		found := jumpsTo(have)
		for _, j := range f.jumps {
			if j.table == table && !slices.Contains(found, j.String()) {
				said += "; jump " + f.table(j.String()) + " is missing"
			}
		}
	}
	return said, nil
}

// rulesOf gives the rules of a chain from a listing, or from the input of
// iptables-restore that makes it.
func rulesOf(chain, text string) (rules []string) {
	for _, line := range strings.Split(text, "\n") {
		_, rest, _ := strings.Cut(line, " ") // -A or -I
		if strings.HasPrefix(rest, chain+" -") {
			rules = append(rules, canonical(rest)[len(chain)+1:])
		}
	}
	return rules
}

// canonical is a rule with its addresses as we spell them: C libraries differ about
// IPv6 (musl shortens a single zero).
func canonical(rule string) string {
	for _, option := range []string{" -s ", " -d "} {
		before, rest, _ := strings.Cut(rule, option)
		listed, rest, _ := strings.Cut(rest, " ")
		if p, err := netip.ParsePrefix(listed); err == nil {
			rule = before + option + p.String() + " " + rest
		}
	}
	return rule
}

// difference says what a chain lacks or has too many; the order of its rules does
// not count.
func difference(want, have []string, chain string) (said string) {
	listed := make(map[string]bool, len(have))
	for _, rule := range have {
		listed[rule] = true
	}
	lacks := 0
	for _, rule := range want {
		if !listed[rule] {
			lacks++
		}
	}
	if lacks > 0 {
		said = fmt.Sprintf("%s lacks %d of %d rules", chain, lacks, len(want))
	}
	if n := len(have) - len(want) + lacks; n > 0 {
		said += fmt.Sprintf("%s has %d too many", chain, n)
	}
	return said
}
