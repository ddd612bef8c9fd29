// Package firewall puts port mappings into the kernel.
//
// The iptables backend follows DESIGN.md, "Kernel model, iptables": chains of
// our own, reached by one jump each, and one `iptables-restore --noflush`
// input per change, which the kernel takes whole or not at all. It works with
// iptables-legacy and iptables-nft alike.
package firewall

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// Our chains. No other chain is ever flushed or deleted.
const (
	preChain  = "UPNPD-PRE"  // nat: marks the connections that mapChain redirects
	mapChain  = "UPNPD"      // nat: one DNAT a mapping; filter: accept what is marked
	postChain = "UPNPD-POST" // nat: source ports of mapped hosts, hairpin
)

const (
	lockWait    = 5                // seconds, for another program's iptables run
	execTimeout = 15 * time.Second // for one run of ours
	closeWait   = 1                // seconds: at the end, and for questions, somebody waits for us
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
	ctx     context.Context // ends what waits for the kernel when the daemon stops
	opts    IPTablesOptions
	uplink  string // device name
	path    string // of iptables
	restore string // of iptables-restore
	logf    func(string, ...any)
	rules   ruleset // for the network of the last Sync
	alone   bool    // a Sync has removed what other options of an earlier run left
	inForce *inForce
}

// NewIPTables finds the programs and checks that the kernel answers and has the
// chains that opts name; it changes nothing. uplink is the WAN device's name.
// When ctx ends, running programs are killed and all but Close fails.
func NewIPTables(ctx context.Context, opts IPTablesOptions, uplink string, logf func(string, ...any)) (*IPTables, error) {
	path, restore, err := programs(opts.Location)
	if err != nil {
		return nil, err
	}
	f := &IPTables{ctx: ctx, opts: opts, uplink: uplink, path: path, restore: restore, logf: logf, rules: ruleset{uplink: uplink}}
	if err := f.parents(); err != nil {
		return nil, err
	}
	f.inForce = newInForce(OpenFlows(logf))
	return f, nil
}

// Start takes over what an earlier run left behind: its rules stay in force until
// the first Sync, and what that does not want ends there. Only forward rules that
// the options do not want are removed at once.
func (f *IPTables) Start() error {
	if !f.opts.ForwardRules {
		if err := f.remove(f.ctx, lockWait, "filter"); err != nil {
			return fmt.Errorf("remove the forward rules of an earlier run: %w", err)
		}
	}
	listing, err := f.list(f.ctx, lockWait, "nat")
	if err != nil {
		return err
	}
	for m := range mappingsIn(listing) {
		f.inForce.mapped[m] = true
	}
	if n := len(f.inForce.mapped); n > 0 {
		f.logf("firewall: mappings found of an earlier run: %d", n)
	}
	return nil
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

func (j jump) String() string { return j.parent + " -j " + j.chain }

func (j jump) place() string {
	if j.atEnd {
		return "-A"
	}
	return "-I"
}

// jumps lists them. The administrator's own redirects come before ours, and
// ours before the router's masquerading.
func (f *IPTables) jumps() []jump {
	list := []jump{
		{"nat", f.opts.PreroutingChain, preChain, true, "prerouting_chain_name"},
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
		listing, err := f.list(f.ctx, lockWait, j.table)
		if err != nil {
			return err
		}
		if !strings.Contains(listing, "-P "+j.parent+" ") && !strings.Contains(listing, "-N "+j.parent+"\n") {
			return fmt.Errorf("%s = %s: table %s has no such chain; create it (iptables -t %s -N %s) or change the option",
				j.option, j.parent, j.table, j.table, j.parent)
		}
	}
	return nil
}

// Change replaces the rules of mappings in one transaction, which fails when
// the jumps to our chains are gone: the mapping would not work.
func (f *IPTables) Change(remove []portmap.Mapping, add *portmap.Mapping) error {
	var before, after []rule
	for i := range remove {
		before = append(before, f.rules.of(&remove[i])...)
	}
	if add != nil {
		after = f.rules.of(add)
	}
	if len(before)+len(after) == 0 {
		return nil
	}
	var in strings.Builder
	in.WriteString("*nat\n")
	for _, j := range f.jumps() {
		if j.table == "nat" {
			fmt.Fprintf(&in, "-C %s\n", j)
		}
	}
	if slices.Equal(before, after) { // a renewal: they must still be there
		for _, r := range before {
			r.write(&in, "-C")
		}
	} else {
		for _, r := range before {
			r.write(&in, "-D")
		}
		if len(before) > 0 && len(after) > 0 {
			listing, err := f.list(f.ctx, lockWait, "nat", "-v")
			if err != nil {
				return err
			}
			after[0] = after[0].counting(countedIn(listing)[add.Key])
		}
		for _, r := range after {
			r.write(&in, r.place())
		}
	}
	in.WriteString("COMMIT\n")
	if err := f.run(f.ctx, lockWait, in.String()); err != nil {
		return err
	}
	f.inForce.change(remove, add)
	return nil
}

// Sync rewrites our chains as a whole and puts back the jumps to them if
// somebody removed those, in one transaction a table.
func (f *IPTables) Sync(n portmap.Network, all []portmap.Mapping) error {
	f.rules = ruleset{uplink: f.uplink, network: n}
	further := map[string]string{}
	var counted map[portmap.Key]string
	for _, table := range f.tables() {
		listing, err := f.list(f.ctx, lockWait, table, "-v")
		if err != nil {
			return err
		}
		further[table] = f.rejoin(table, jumpsTo(uncounted(listing)))
		counted = countedIn(listing) // the last table is nat
	}
	if err := f.run(f.ctx, lockWait, f.rules.whole(all, f.opts.ForwardRules, further, counted)); err != nil {
		return err
	}
	f.alone = true
	f.inForce.sync(n, all)
	return nil
}

// rejoin gives iptables-restore lines that put back the jumps that a table
// lacks, and at first take out those that an earlier run had in other chains:
// both at once, so that nothing is dropped between.
func (f *IPTables) rejoin(table string, found []string) (lines string) {
	var wanted []string
	for _, j := range f.jumps() {
		if j.table != table {
			continue
		}
		wanted = append(wanted, j.String())
		if !slices.Contains(found, j.String()) {
			lines += j.place() + " " + j.String() + "\n"
		}
	}
	for _, j := range found {
		if !f.alone && !slices.Contains(wanted, j) {
			lines += "-D " + j + "\n"
		}
	}
	return lines
}

// tables are those in which we have chains.
func (f *IPTables) tables() []string {
	if f.opts.ForwardRules {
		return []string{"filter", "nat"}
	}
	return []string{"nat"}
}

// list gives what `iptables -S` prints of a table.
func (f *IPTables) list(ctx context.Context, wait int, table string, options ...string) (string, error) {
	args := append([]string{"-w", strconv.Itoa(wait), "-t", table, "-S"}, options...)
	listing, err := execute(ctx, f.path, "", args...)
	if err != nil {
		return "", fmt.Errorf("list table %s: %w", table, err)
	}
	return listing, nil
}

// Close removes everything of ours from the kernel, also after ctx has ended,
// and ends the connections of all mappings.
func (f *IPTables) Close() error {
	err := f.remove(context.WithoutCancel(f.ctx), closeWait, "filter", "nat")
	return errors.Join(err, f.inForce.close())
}

// remove takes out our jumps, whichever chain they stand in (an earlier run
// may have had other options), and then our chains, in one transaction a table.
func (f *IPTables) remove(ctx context.Context, wait int, tables ...string) error {
	var all, emptied strings.Builder
	for _, table := range tables {
		listing, err := f.list(ctx, wait, table)
		if err != nil {
			return err
		}
		if empty, chains := removal(listing); empty != "" {
			fmt.Fprintf(&all, "*%s\n%s%sCOMMIT\n", table, empty, chains)
			fmt.Fprintf(&emptied, "*%s\n%sCOMMIT\n", table, empty)
		}
	}
	if all.Len() == 0 {
		return nil
	}
	err := f.run(ctx, wait, all.String())
	if err != nil && ctx.Err() == nil {
		if f.run(ctx, wait, emptied.String()) == nil {
			f.logf("firewall: our rules are gone, but a chain of ours stays, for a rule of somebody else leads to it (%v)", err)
			err = nil
		}
	}
	return err
}

// run feeds one input to iptables-restore. Its error names the line that was
// refused. wait is for other users of iptables, in seconds.
func (f *IPTables) run(ctx context.Context, wait int, input string) error {
	_, err := execute(ctx, f.restore, input, "--noflush", "-w", strconv.Itoa(wait))
	return err
}

// execute runs one of the two programs and gives what it printed.
func execute(ctx context.Context, path, input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, execTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second // for a child of a wrapper that keeps the pipes
	if err := cmd.Run(); ctx.Err() != nil {
		return "", fmt.Errorf("%s: %w", path, ctx.Err())
	} else if err != nil {
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
