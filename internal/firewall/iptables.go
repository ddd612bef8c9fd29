// Package firewall puts port mappings into the kernel.
//
// The iptables backend follows DESIGN.md, "Kernel model, iptables": chains of
// our own, reached by one jump each, and one `iptables-restore --noflush`
// input per change, which the kernel takes whole or not at all. It works with
// iptables-legacy and iptables-nft alike.
package firewall

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-iptables/iptables"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// Our chains. No other chain is ever flushed or deleted.
const (
	mapChain  = "UPNPD"      // nat: DNAT; filter: accept what was mapped
	postChain = "UPNPD-POST" // nat: source ports of mapped hosts, hairpin
)

const (
	lockWait    = 5                // seconds, for another program's iptables run
	waitSeconds = "5"              // the same, as the argument of -w
	execTimeout = 15 * time.Second // for one run of ours
)

// IPTablesOptions are linux-igd's options for the rules (PEERS.md 1.2).
type IPTablesOptions struct {
	// Location is the path of the iptables program; its twin is found beside
	// it under the same name with "-restore". Empty: iptables on the PATH.
	Location string
	// ForwardRules: also accept mapped connections in the filter table.
	ForwardRules bool
	// ForwardAppend puts the jump at the end of ForwardChain, not at its head.
	ForwardAppend bool
	// ForwardChain and PreroutingChain get the jumps to our chains.
	ForwardChain, PreroutingChain string
}

// IPTables is a portmap.Firewall. Its methods are called one at a time, as
// portmap.Table does.
type IPTables struct {
	opts    IPTablesOptions
	uplink  string // device name
	ipt     *iptables.IPTables
	path    string // of iptables
	restore string // of iptables-restore
	logf    func(string, ...any)
	rules   ruleset // for the network of the last Sync
}

// NewIPTables finds the programs, checks that the kernel answers, and removes
// what an earlier run left behind. uplink is the WAN device's name.
func NewIPTables(opts IPTablesOptions, uplink string, logf func(string, ...any)) (*IPTables, error) {
	path, restore, err := programs(opts.Location)
	if err != nil {
		return nil, err
	}
	ipt, err := iptables.New(iptables.Path(path), iptables.Timeout(lockWait))
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	f := &IPTables{opts: opts, uplink: uplink, ipt: ipt, path: path, restore: restore, logf: logf, rules: ruleset{uplink: uplink}}
	if err := f.parents(); err != nil {
		return nil, err
	}
	removed, err := f.remove()
	if err != nil {
		return nil, fmt.Errorf("remove the rules of an earlier run: %w", err)
	}
	if removed {
		logf("firewall: removed the rules that an earlier run left behind")
	}
	return f, nil
}

// programs gives the paths of iptables and of the iptables-restore that
// belongs to it: iptables-legacy has iptables-legacy-restore.
func programs(location string) (path, restore string, err error) {
	hint := "install iptables, or set iptables_location"
	if location == "" {
		location = "iptables"
	}
	for _, try := range []string{location, "/usr/sbin/" + location, "/sbin/" + location} {
		if path, err = exec.LookPath(try); err == nil {
			break
		}
		if strings.Contains(location, "/") {
			break
		}
	}
	if err != nil {
		return "", "", fmt.Errorf("find %s: %w; %s", location, err, hint)
	}
	if restore, err = exec.LookPath(path + "-restore"); err != nil {
		return "", "", fmt.Errorf("find %s-restore beside it: %w; %s", path, err, hint)
	}
	return path, restore, nil
}

// jump is one of the jumps from the system's chains into ours.
type jump struct {
	table, parent, chain string
	atEnd                bool
	option               string // that names the parent, for errors
}

// jumps lists them. The administrator's own redirects come before ours, and
// ours before the router's masquerading.
func (f *IPTables) jumps() []jump {
	list := []jump{
		{"nat", f.opts.PreroutingChain, mapChain, true, "prerouting_chain_name"},
		{"nat", "POSTROUTING", postChain, false, ""},
	}
	if f.opts.ForwardRules {
		list = append(list, jump{"filter", f.opts.ForwardChain, mapChain, f.opts.ForwardAppend, "forward_chain_name"})
	}
	return list
}

// parents checks that the chains named by options exist.
func (f *IPTables) parents() error {
	for _, j := range f.jumps() {
		ok, err := f.ipt.ChainExists(j.table, j.parent)
		if err != nil {
			return fmt.Errorf("look at table %s: %w", j.table, err)
		}
		if !ok {
			return fmt.Errorf("%s = %s: table %s has no such chain; create it (iptables -t %s -N %s) or change the option",
				j.option, j.parent, j.table, j.table, j.parent)
		}
	}
	return nil
}

// Change replaces the rules of one mapping in one transaction.
func (f *IPTables) Change(old, new *portmap.Mapping) error {
	before, after := f.rules.of(old), f.rules.of(new)
	if slices.Equal(before, after) {
		return nil
	}
	var in strings.Builder
	in.WriteString("*nat\n")
	for _, r := range before {
		r.write(&in, "-D")
	}
	for _, r := range after {
		r.write(&in, r.place())
	}
	in.WriteString("COMMIT\n")
	return f.run(in.String())
}

// Sync rewrites our chains as a whole, each in one transaction of its table,
// and puts back the jumps to them if somebody removed those.
func (f *IPTables) Sync(n portmap.Network, all []portmap.Mapping) error {
	f.rules = ruleset{uplink: f.uplink, network: n}
	if err := f.run(f.rules.whole(all, f.opts.ForwardRules)); err != nil {
		return err
	}
	for _, j := range f.jumps() {
		put := func(table, chain string, rule ...string) error { return f.ipt.InsertUnique(table, chain, 1, rule...) }
		if j.atEnd {
			put = f.ipt.AppendUnique
		}
		if err := put(j.table, j.parent, "-j", j.chain); err != nil {
			return fmt.Errorf("jump from %s to %s: %w", j.parent, j.chain, err)
		}
	}
	return nil
}

// Close removes everything of ours from the kernel.
func (f *IPTables) Close() error {
	_, err := f.remove()
	return err
}

// remove takes out our jumps, whichever chain they stand in (an earlier run
// may have had other options), and then our chains, in one transaction a table.
func (f *IPTables) remove() (removed bool, err error) {
	var in strings.Builder
	for _, table := range []string{"filter", "nat"} {
		rules, err := f.exec(f.path, "", "-w", waitSeconds, "-t", table, "-S")
		if err != nil {
			return false, fmt.Errorf("list table %s: %w", table, err)
		}
		if ours := removal(rules); ours != "" {
			removed = true
			fmt.Fprintf(&in, "*%s\n%sCOMMIT\n", table, ours)
		}
	}
	if !removed {
		return false, nil
	}
	return true, f.run(in.String())
}

// run feeds one input to iptables-restore. Its error names the line that was
// refused.
func (f *IPTables) run(input string) error {
	_, err := f.exec(f.restore, input, "--noflush", "-w", waitSeconds)
	return err
}

// exec runs one of the two programs and gives what it printed.
func (f *IPTables) exec(path, input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), execTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", path, err, explain(stderr.String(), input))
	}
	return stdout.String(), nil
}

// explain joins what iptables-restore said in one line and adds the text of
// the input line that it complains of.
func explain(stderr, input string) string {
	said := strings.Join(strings.Fields(stderr), " ")
	_, rest, _ := strings.Cut(said, "line ")
	number, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(strings.TrimRight(number, ":"))
	if err != nil {
		return said
	}
	if lines := strings.Split(input, "\n"); n >= 1 && n <= len(lines) {
		return fmt.Sprintf("%s (%s)", said, lines[n-1])
	}
	return said
}
