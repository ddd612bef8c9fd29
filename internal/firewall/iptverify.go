package firewall

import (
	"fmt"
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
	jumps := map[string]string{}
	for _, j := range f.jumps() {
		jumps[j.table] += "-A " + j.String() + "\n"
	}
	filter, nat, _ := strings.Cut(f.rules.whole(all, f.opts.ForwardRules, jumps, nil), "*nat\n")
	var said []string
	for _, table := range f.tables() {
		have, err := f.list(f.ctx, lockWait, table)
		if err != nil {
			return "", err
		}
		if table == "nat" {
			said = append(said, differences(nat, have, "", "mappings")...)
		} else {
			said = append(said, differences(filter, have, " of table filter", "rules")...)
		}
	}
	return strings.Join(said, "; "), nil
}

// differences compares what iptables-restore is told of a table with a listing of
// it. The order of rules does not count. ofTable is for the name of a chain;
// inMap is what the rules of mapChain are.
func differences(want, have, ofTable, inMap string) (said []string) {
	listed := map[string]bool{}
	for _, line := range strings.Split(have, "\n") {
		listed[line] = true
	}
	wanted, missing, further := map[string]int{}, map[string]int{}, map[string]int{}
	for _, line := range strings.Split(want, "\n") {
		how, rule, _ := strings.Cut(line, " ")
		if how != "-A" && how != "-I" {
			continue
		}
		chain, _, _ := strings.Cut(rule, " ")
		wanted[chain]++
		if line = "-A " + rule; !listed[line] {
			missing[chain]++
			if len(jumpsTo(line)) > 0 {
				said = append(said, "jump "+rule+" is missing")
			}
		}
		delete(listed, line)
	}
	for line := range listed {
		if rule, ok := strings.CutPrefix(line, "-A "); ok {
			chain, _, _ := strings.Cut(rule, " ")
			further[chain]++
		}
	}
	for _, chain := range []string{preChain, mapChain, postChain} {
		what := "rules"
		if chain == mapChain {
			what = inMap
		}
		if n := missing[chain]; n > 0 {
			said = append(said, fmt.Sprintf("chain %s%s lacks %d of %d %s", chain, ofTable, n, wanted[chain], what))
		}
		if n := further[chain]; n > 0 {
			said = append(said, fmt.Sprintf("chain %s%s has %d too many", chain, ofTable, n))
		}
	}
	return said
}
