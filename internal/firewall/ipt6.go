package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
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
	six, err := f.four.twin(f.opts.forward())
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
func (f *family) twin(jumps ...jump) (*family, error) {
	location := f.path
	if i := strings.LastIndex(location, "iptables"); i >= 0 {
		location = location[:i] + "ip6tables" + location[i+len("iptables"):]
	}
	path, restore, err := programs(location)
	return &family{path: path, restore: restore, jumps: jumps, v6: true}, err
}

// adoptPinholes is Start for pinholes. If there are to be no rules for them, those
// of an earlier run go at once; that run has left chains of iptables, too.
func (f *IPTables) adoptPinholes(ranBefore bool) error {
	six := f.six
	if six == nil {
		var err error
		if six, err = f.four.twin(); err != nil || !ranBefore {
			return nil
		}
	}
	listing, err := six.list(f.ctx, lockWait, "filter")
	if err != nil {
		if f.six == nil {
			return nil // a kernel without ip6tables
		}
		return err
	}
	for k := range pinholesIn(listing) {
		m := portmap.Mapping{Key: k, Client: k.Pinhole, InternalPort: k.ExternalPort}
		f.inForce.mapped[newMapped(netip.Addr{}, &m)] = true
	}
	if f.six != nil {
		return nil
	}
	if err := six.remove(f.ctx, lockWait, f.logf, "filter"); err != nil {
		return fmt.Errorf("remove the pinholes of an earlier run: %w", err)
	}
	return nil
}

// pinned notes a pinhole that is in the kernel now.
func (f *IPTables) pinned(m *portmap.Mapping) {
	for _, r := range f.in("filter", m) {
		f.pinholes[m.Key] = r.spec
	}
}

// syncPinholes is Sync for pinholes. What is right stays untouched and counts on:
// ip6tables-nft 1.8.9 cannot set a counter.
func (f *IPTables) syncPinholes(all []portmap.Mapping) error {
	f.pinholes = map[portmap.Key]string{}
	if f.six == nil {
		return nil
	}
	lacking := map[string]bool{}
	for i := range all {
		f.pinned(&all[i])
	}
	for _, spec := range f.pinholes {
		lacking[spec] = true
	}
	listing, err := f.six.list(f.ctx, lockWait, "filter")
	if err != nil {
		return err
	}
	var in strings.Builder
	if !strings.Contains(listing, "-N "+mapChain+"\n") {
		fmt.Fprintf(&in, ":%s - [0:0]\n", mapChain)
	}
	in.WriteString(f.six.rejoin("filter", listing, f.alone))
	for _, spec := range rulesOf(mapChain, canonical(listing)) {
		if !lacking[spec] {
			rule{mapChain, spec, false}.write(&in, "-D")
		}
		delete(lacking, spec)
	}
	for spec := range lacking {
		rule{mapChain, spec, false}.write(&in, "-A")
	}
	if in.Len() == 0 {
		return nil
	}
	return f.six.run(f.ctx, lockWait, "*filter\n"+in.String()+"COMMIT\n")
}

// canonical is a listing with IPv6 addresses as we spell them: C libraries differ
// (musl shortens a single zero).
func canonical(listing string) string {
	lines := strings.Split(listing, "\n")
	for i, line := range lines {
		for _, option := range []string{"-s", "-d"} {
			if p, err := netip.ParsePrefix(word(line, option)); err == nil {
				line = strings.Replace(line, " "+option+" "+word(line, option)+" ", fmt.Sprintf(" %s %v ", option, p), 1)
			}
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}

// pinholesIn gives the pinholes of ip6tables' table filter, each with what its rule
// has counted, as counters gives it.
func pinholesIn(listing string) map[portmap.Key]string {
	all := map[portmap.Key]string{}
	for _, line := range strings.Split(listing, "\n") {
		proto, known := portmap.ParseProtocol(word(line, "-p"))
		port, err := strconv.ParseUint(word(line, "--dport"), 10, 16)
		client := listedAddr(word(line, "-d"))
		if !strings.HasPrefix(line, "-A "+mapChain+" ") || !known || err != nil || !client.IsValid() {
			continue // not ours
		}
		remotePort, _ := strconv.ParseUint(word(line, "--sport"), 10, 16) // without: 0
		all[portmap.Key{
			Protocol: proto, ExternalPort: uint16(port), RemoteHost: listedAddr(word(line, "-s")),
			Pinhole: client, RemotePort: uint16(remotePort),
		}] = counters(line)
	}
	return all
}

// forwardPath6 looks whether what comes from the uplink gets to the pinholes.
func (f *family) forwardPath6(ctx context.Context, uplink string) (warning string, err error) {
	dropped, err := dropped(ctx, f.path, forwarding{uplink: uplink, pinholes: true})
	if err != nil || !dropped {
		return "", err
	}
	return fmt.Sprintf("chain FORWARD of table ip6 filter drops connections to IPv6 pinholes; let them pass: %s -I FORWARD -j %s", f.path, mapChain), nil
}
