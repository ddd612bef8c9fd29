package firewall

import (
	"fmt"
	"slices"
	"strings"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// Verify compares the kernel with the rules of the last Sync and the changes
// since, and says in words what differs, "" for nothing. It changes nothing.
func (f *IPTables) Verify() (string, error) {
	all := make([]portmap.Mapping, 0, len(f.inForce.mapped))
	for m := range f.inForce.mapped {
		all = append(all, portmap.Mapping{Key: m.key(), Client: m.client.Addr(), InternalPort: m.client.Port(), Enabled: true})
	}
	filter, want, _ := strings.Cut(f.rules.whole(all, f.opts.ForwardRules, nil, nil), "*nat\n")
	said := ""
	for _, table := range []string{"nat", "filter"}[:len(f.tables())] {
		have, err := f.list(f.ctx, closeWait, table)
		if err != nil {
			return "", err
		}
		for _, chain := range []string{preChain, mapChain, postChain} {
			said += difference(rulesOf(chain, want), rulesOf(chain, have), "; chain "+chain+" of table "+table)
		}
		found := jumpsTo(have)
		for _, j := range f.jumps() {
			if j.table == table && !slices.Contains(found, j.String()) {
				said += "; jump " + j.String() + " is missing"
			}
		}
		want = filter
	}
	return strings.TrimPrefix(said, "; "), nil
}

// rulesOf gives the rules of a chain from a listing, or from the input of
// iptables-restore that makes it.
func rulesOf(chain, text string) (rules []string) {
	for _, line := range strings.Split(text, "\n") {
		_, rest, _ := strings.Cut(line, " ") // -A or -I
		if rule, ok := strings.CutPrefix(rest, chain+" -"); ok {
			rules = append(rules, rule)
		}
	}
	return rules
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
