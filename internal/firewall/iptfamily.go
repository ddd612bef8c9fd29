package firewall

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// family is iptables or ip6tables.
type family struct {
	v6            bool
	path, restore string   // the programs
	tables        []string // where we have chains; first that of the mappings
	jumps         []*jump  // to them
}

// newFamily finds iptables.
func newFamily(opts IPTablesOptions) (f *family, err error) {
	f = &family{tables: []string{"nat"}, jumps: opts.jumps()}
	if opts.ForwardRules {
		f.tables = append(f.tables, "filter")
	}
	f.path, f.restore, err = programs(opts.Location)
	return f, err
}

// programs gives the paths of iptables and of the iptables-restore that
// belongs to it: iptables-legacy has iptables-legacy-restore.
func programs(location string) (path, restore string, err error) {
	hint := "install it, or set iptables_location"
	if location == "" {
		location = "iptables"
	}
	for _, try := range []string{location, "/usr/sbin/" + location, "/sbin/" + location} {
		if path, err = find(try); err == nil {
			break
		}
		if strings.Contains(location, "/") {
			break
		}
	}
	if err != nil {
		return "", "", fmt.Errorf("find %s: %w; %s", location, err, hint)
	}
	if restore, err = find(path + "-restore"); err != nil {
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

func (j *jump) String() string { return j.parent + " -j " + j.chain }

func (j *jump) place() string {
	if j.atEnd {
		return "-A"
	}
	return "-I"
}

// jumps lists them. The administrator's own redirects come before ours, and
// ours before the router's masquerading.
func (o *IPTablesOptions) jumps() []*jump {
	list := []*jump{
		{"nat", o.PreroutingChain, preChain, true, "prerouting_chain_name"},
		{"nat", "POSTROUTING", postChain, false, ""},
	}
	if o.ForwardRules {
		list = append(list, o.forward())
	}
	return list
}

// forward is the jump from the forward chain, in iptables and in ip6tables.
func (o *IPTablesOptions) forward() *jump {
	return &jump{"filter", o.ForwardChain, mapChain, o.ForwardAppend, "forward_chain_name"}
}

// parents checks that the chains named by options exist.
func (f *family) parents(ctx context.Context) error {
	for _, j := range f.jumps {
		listing, err := f.list(ctx, lockWait, j.table)
		if err != nil {
			return err
		}
		if !strings.Contains(listing, "-P "+j.parent+" ") && !strings.Contains(listing, "-N "+j.parent+"\n") {
			return fmt.Errorf("%s = %s: table %s has no such chain; create it (%s -t %s -N %s) or change the option",
				j.option, j.parent, f.table(j.table), f.path, j.table, j.parent)
		}
	}
	return nil
}

// rejoin gives iptables-restore lines that put back the jumps that a table
// lacks, and take out those that an earlier run had in other chains:
// both at once, so that nothing is dropped between. Once we are alone, the others
// are the administrator's.
func (f *family) rejoin(table, listing string, alone bool) (lines string) {
	var wanted []string
	found := jumpsTo(listing)
	for _, j := range f.jumps {
		if j.table != table {
			continue
		}
		wanted = append(wanted, j.String())
		if !slices.Contains(found, j.String()) {
			lines += j.place() + " " + j.String() + "\n"
		}
	}
	for _, j := range found {
		if !alone && !slices.Contains(wanted, j) {
			lines += "-D " + j + "\n"
		}
	}
	return lines
}

// table is what people read.
func (f *family) table(name string) string {
	if f.v6 {
		return "ip6 " + name
	}
	return name
}

// list gives what `iptables -S` prints of a table.
func (f *family) list(ctx context.Context, wait int, table string, options ...string) (string, error) {
	args := append([]string{"-w", strconv.Itoa(wait), "-t", table, "-S"}, options...)
	listing, err := execute(ctx, f.path, "", args...)
	if err == nil && (!strings.HasPrefix(listing, "-P ") || !strings.HasSuffix(listing, "\n")) { // the chains that every table has
		err = fmt.Errorf("%s prints no rules", f.path)
	}
	if err != nil {
		return "", fmt.Errorf("list table %s: %w", table, err)
	}
	return listing, nil
}

// remove takes out our jumps, whichever chain they stand in (an earlier run
// may have had other options), and then our chains, in one transaction a table.
func (f *family) remove(ctx context.Context, wait int, logf func(string, ...any), tables ...string) error {
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
			logf("firewall: our rules are gone, but a chain of ours stays, for a rule of somebody else leads to it (%v)", err)
			err = nil
		}
	}
	return err
}

// run feeds one input to iptables-restore. Its error names the line that was
// refused. wait is for other users of iptables, in seconds.
func (f *family) run(ctx context.Context, wait int, input string) error {
	_, err := execute(ctx, f.restore, input, "--noflush", "-w", strconv.Itoa(wait))
	return err
}

// explained is how much a program may say, in bytes: it stands in one line of the log.
const explained = 1000

// explain joins what iptables-restore said in one line and adds the text of
// the input line that it complains of.
func explain(stderr, input string) string {
	said := strings.Join(strings.Fields(stderr[:min(len(stderr), explained)]), " ")
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
