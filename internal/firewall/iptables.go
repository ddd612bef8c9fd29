// Package firewall puts port mappings into the kernel.
//
// The iptables backend follows DESIGN.md, "Kernel model, iptables": chains of
// our own, reached by one jump each, and one `iptables-restore --noflush`
// input per change, which the kernel takes whole or not at all. It works with
// iptables-legacy and iptables-nft alike; pinholes are ip6tables' (ipt6.go).
package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// Our chains. No other chain is ever flushed or deleted.
const (
	preChain  = "UPNPD-PRE"  // nat: marks the connections that mapChain redirects
	mapChain  = "UPNPD"      // nat: one DNAT a mapping; filter: accept what is marked, or pinholes
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
	// ForwardChain and PreroutingChain get the jumps to our chains. ForwardChain
	// is also that of ip6tables; if it is not there, pinholes cannot be opened.
	ForwardChain, PreroutingChain string
	// IPv6: pinholes by ip6tables. If not, what an earlier run has left there goes.
	IPv6 bool
}

// IPTables is a portmap.Firewall. Its methods are called one at a time, as
// portmap.Table does.
type IPTables struct {
	ctx     context.Context // ends what waits for the kernel when the daemon stops
	opts    IPTablesOptions
	uplink  string // device name
	four    *family
	six     *family // nil: there are no rules for pinholes
	logf    func(string, ...any)
	rules   ruleset // for the network of the last Sync
	alone   bool    // a Sync has removed what other options of an earlier run left
	inForce *inForce
	noPin   error // why no pinhole can be opened
}

// NewIPTables finds the programs and checks that the kernel answers and has the
// chains that opts name; it changes nothing. uplink is the WAN device's name.
// When ctx ends, running programs are killed and all but Close fails.
func NewIPTables(ctx context.Context, opts IPTablesOptions, uplink string, logf func(string, ...any)) (*IPTables, error) {
	four, err := newFamily(opts)
	if err != nil {
		return nil, err
	}
	f := &IPTables{ctx: ctx, opts: opts, uplink: uplink, four: four, logf: logf, rules: ruleset{uplink: uplink}}
	if err := four.parents(ctx); err != nil {
		return nil, err
	}
	f.openPinholes()
	f.inForce = newInForce(OpenFlows(logf))
	return f, nil
}

// Start takes over what an earlier run left behind: its rules stay in force until
// the first Sync, and what that does not want ends there. Only forward rules that
// the options do not want are removed at once.
func (f *IPTables) Start() error {
	if !f.opts.ForwardRules {
		if err := f.four.remove(f.ctx, lockWait, f.logf, "filter"); err != nil {
			return fmt.Errorf("remove the forward rules of an earlier run: %w", err)
		}
	}
	listing, err := f.four.list(f.ctx, lockWait, "nat")
	if err != nil {
		return err
	}
	for m := range mappingsIn(listing) {
		f.inForce.adopt(m)
	}
	if err := f.adoptPinholes(strings.Contains(listing, "-N "+mapChain+"\n")); err != nil {
		return err
	}
	if n := len(f.inForce.mapped); n > 0 {
		f.logf("firewall: mappings found of an earlier run: %d", n)
	}
	return nil
}

// Change replaces the rules of mappings in one transaction, which fails when
// the jumps to our chains are gone: the mapping would not work. Should it be about
// pinholes, too, those have a transaction of their own.
func (f *IPTables) Change(remove []portmap.Mapping, add *portmap.Mapping) error {
	if add != nil && add.Pinhole.IsValid() && f.noPin != nil {
		return fmt.Errorf("open a pinhole: %w", f.noPin)
	}
	err := f.edit(f.four, remove, add)
	if err == nil && f.six != nil {
		err = f.edit(f.six, remove, add)
	}
	if err == nil {
		f.inForce.change(remove, add)
	}
	return err
}

// edit is Change for one family, in the table where it has its mappings.
func (f *IPTables) edit(family *family, remove []portmap.Mapping, add *portmap.Mapping) error {
	var before, after []rule
	for i := range remove {
		if m := &remove[i]; m.Pinhole.IsValid() == family.v6 {
			before = append(before, f.rules.all(m)...)
		}
	}
	if add != nil && add.Pinhole.IsValid() == family.v6 {
		after = f.rules.all(add)
	}
	if len(before)+len(after) == 0 {
		return nil
	}
	table := family.tables[0]
	var in strings.Builder
	in.WriteString("*" + table + "\n")
	for _, j := range family.jumps {
		if j.table == table {
			in.WriteString("-C " + j.String() + "\n")
		}
	}
	how := "-D"
	if slices.Equal(before, after) {
		how, after = "-C", nil // a renewal: they must still be there
	}
	for _, r := range before {
		r.write(&in, how)
	}
	if len(before) > 0 && len(after) > 0 && !family.v6 {
		listing, err := family.list(f.ctx, lockWait, table, "-v")
		if err != nil {
			return err
		}
		counted := countedIn(listing)
		for i, one := range single(add) { // two rules each
			after[2*i] = after[2*i].counting(counted[one.Key])
		}
	}
	for _, r := range after {
		r.write(&in, r.place())
	}
	in.WriteString("COMMIT\n")
	return family.run(f.ctx, lockWait, in.String())
}

// Sync rewrites our chains as a whole and puts back the jumps to them if
// somebody removed those, in one transaction a table; then it is the turn of
// the pinholes.
func (f *IPTables) Sync(n portmap.Network, all []portmap.Mapping) error {
	f.rules = ruleset{uplink: f.uplink, network: n}
	further := map[string]string{}
	var counted map[portmap.Key]string
	for _, table := range f.four.tables {
		listing, err := f.four.list(f.ctx, lockWait, table, "-v")
		if err != nil {
			return err
		}
		further[table] = f.four.rejoin(table, uncounted(listing), f.alone)
		if table == "nat" {
			counted = countedIn(listing)
		}
	}
	if err := f.four.run(f.ctx, lockWait, f.rules.whole(all, f.opts.ForwardRules, further, counted)); err != nil {
		return err
	}
	if f.six != nil {
		if err := f.syncPinholes(all); err != nil {
			return err
		}
	}
	f.alone = true
	f.inForce.sync(n, all)
	return nil
}

// Close removes everything of ours from the kernel, also after ctx has ended,
// and ends the connections of all mappings.
func (f *IPTables) Close() error {
	ctx := context.WithoutCancel(f.ctx)
	var err error
	if f.six != nil { // first: where a run has left pinholes, it has left mappings' chains
		err = f.six.remove(ctx, closeWait, f.logf, "filter")
	}
	err = errors.Join(err, f.four.remove(ctx, closeWait, f.logf, "filter", "nat"))
	return errors.Join(err, f.inForce.close())
}
