package firewall

import (
	"errors"
	"strings"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// Pinholes (WANIPv6FirewallControl) are rules of ip6tables: one that accepts, each,
// in our chain of table filter, which the forward chain jumps to. The answers pass
// by what the system accepts of established connections.

// openPinholes makes ready for pinholes, or says once why there are none: port
// mappings work without.
func (f *IPTables) openPinholes() {
	switch {
	case !f.opts.IPv6:
		f.noPin = errors.New("IPv6 is off")
		return
	case !f.opts.ForwardRules:
		f.logf("firewall: create_forward_rules = no: IPv6 pinholes are open as far as your own rules let them")
		return
	}
	six, err := f.four.twin(f.opts)
	if err == nil {
		err = six.parents(f.ctx)
	}
	if err != nil {
		f.noPin = err
		f.logf("firewall: there will be no IPv6 pinholes: %v", err)
		return
	}
	f.six = six
}

// twin is the ip6tables that belongs to an iptables: iptables-legacy has
// ip6tables-legacy beside it.
func (f *family) twin(opts IPTablesOptions) (six *family, err error) {
	six = &family{v6: true, tables: []string{"filter"}, jumps: []*jump{opts.forward()}}
	i := strings.LastIndex(f.path, "iptables")
	if i < 0 {
		return nil, errors.New("no ip6tables belongs to " + f.path)
	}
	six.path, six.restore, err = programs(f.path[:i] + "ip6tables" + f.path[i+len("iptables"):])
	return six, err
}

// adoptPinholes is Start for pinholes. If there are to be no rules for them, those
// of an earlier run go at once; that run has left chains of iptables, too.
func (f *IPTables) adoptPinholes(ranBefore bool) error {
	six, err := f.six, error(nil)
	if six == nil {
		if six, err = f.four.twin(f.opts); err != nil || !ranBefore {
			return nil
		}
	}
	listing, err := six.list(f.ctx, lockWait, "filter")
	if f.six == nil && err != nil {
		return nil // a kernel without ip6tables
	}
	for m := range pinholesIn(listing) {
		f.inForce.adopt(m)
	}
	if f.six == nil {
		err = six.remove(f.ctx, lockWait, f.logf, "filter")
	}
	return err
}

// syncPinholes is Sync for pinholes. What is right stays untouched and counts on:
// ip6tables-nft 1.8.9 cannot set a counter.
func (f *IPTables) syncPinholes(all []portmap.Mapping) error {
	listing, err := f.six.list(f.ctx, lockWait, "filter")
	if err != nil {
		return err
	}
	var in strings.Builder
	if !strings.Contains(listing, "-N "+mapChain+"\n") {
		in.WriteString(":" + mapChain + " - [0:0]\n")
	}
	in.WriteString(f.six.rejoin("filter", listing, f.alone))
	there := map[string]int{}
	for _, spec := range rulesOf(mapChain, listing) {
		there[spec]++
	}
	for i := range all {
		if !all[i].Pinhole.IsValid() {
			continue
		}
		for _, r := range f.rules.all(&all[i]) {
			if there[r.spec]--; there[r.spec] < 0 {
				r.write(&in, "-A")
			}
		}
	}
	for spec, n := range there {
		for ; n > 0; n-- {
			rule{mapChain, spec, false}.write(&in, "-D")
		}
	}
	if in.Len() == 0 {
		return nil
	}
	return f.six.run(f.ctx, lockWait, "*filter\n"+in.String()+"COMMIT\n")
}

// pinholesIn gives the pinholes of ip6tables' table filter, each with what its rule
// has counted, as counters gives it.
func pinholesIn(listing string) map[mapped]string {
	all := map[mapped]string{}
	for _, line := range strings.Split(listing, "\n") {
		m, ok := listed(line, listedAddr(word(line, "-d")))
		if m.client = m.external; ok && m.client.Addr().IsValid() {
			all[m] = counters(line)
		}
	}
	return all
}
