package soak

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// grace is what the nftables are told on top of a lease: the daemon comes first.
const grace = 5 * time.Second

// check gives what upnpctl check finds wrong.
func (w *world) check() (said []string) {
	var doc struct {
		Findings []struct{ Result, Name, Found string } `json:"findings"`
	}
	if err := json.Unmarshal([]byte(w.ctl("check", "--json")), &doc); err != nil {
		w.fault("upnpctl check: %v", err)
	}
	for _, f := range doc.Findings {
		if f.Name == "kernel" && f.Result != "PASS" || f.Result == "FAIL" && w.wan != "" {
			said = append(said, fmt.Sprintf("upnpctl check: %s: %s", f.Name, f.Found))
		}
	}
	return said
}

// kernelDiffers compares the kernel with the table by upnpctl check, and by what the
// tools of the firewall list.
func (w *world) kernelDiffers(table map[key]lease) (said []string) {
	said = w.check()
	want := map[string]lease{}
	for _, l := range table {
		six := strings.Contains(l.client, ":")
		if !l.enabled || !six && w.wan == "" && w.firewall != lab.Nftables {
			continue
		}
		for i := range l.ports {
			want[way(l.proto, l.remote, l.rport, l.external+i, l.client, l.internal+i)] = l
		}
	}
	have := w.iptables
	if w.firewall == lab.Nftables {
		have = w.nftables
	}
	got := have()
	for line, l := range want {
		end, ok := got[line]
		if !ok && l.left() > 0 {
			said = append(said, "the kernel lacks "+line)
		} else if ok && !end.is(l) {
			said = append(said, fmt.Sprintf("the kernel ends %s in %v, the table in %v", line, time.Until(end.first)-grace, l.left()))
		}
	}
	for line := range got {
		if _, ok := want[line]; !ok {
			said = append(said, "the kernel has "+line)
		}
	}
	return said
}

// end is when the kernel ends an element, if it knows.
type end struct{ first, last time.Time }

// is reports whether it is the end of the lease.
func (e end) is(l lease) bool {
	return e == (end{}) || e.last.Add(-grace).After(l.first.Add(-inexact)) && e.first.Add(-grace).Before(l.last.Add(inexact))
}

// way says how packets of one port go.
func way(proto, remote string, rport, external uint16, client string, internal uint16) string {
	return fmt.Sprintf("%s %d from %q port %d to %s", strings.ToUpper(proto), external, remote, rport, hostPort(client, internal))
}

var (
	dnatRule = regexp.MustCompile(`(?m)^-A UPNPD (?:-s (\S+) )?-p (\w+) -m \w+ (?:--sport (\d+) )?--dport (\d+) -j DNAT --to-destination ([0-9.]+):(\d+)$`)
	pinRule  = regexp.MustCompile(`(?m)^-A UPNPD (?:-s (\S+) )?-d (\S+)/128 -p (\w+) -m \w+ (?:--sport (\d+) )?--dport (\d+) -j ACCEPT$`)
)

func port(s string) uint16 { n, _ := strconv.ParseUint(s, 10, 16); return uint16(n) }

// host takes the length of a prefix away if it is one host.
func host(s string) string {
	if p, err := netip.ParsePrefix(s); err == nil && p.IsSingleIP() {
		return p.Addr().String()
	}
	return s
}

// iptables gives the rules. They do not know when they end.
func (w *world) iptables() map[string]end {
	all := map[string]end{}
	for _, f := range dnatRule.FindAllStringSubmatch(w.Router.Run(w.t, w.firewall, "-w", "-t", "nat", "-S", "UPNPD"), -1) {
		all[way(f[2], host(f[1]), port(f[3]), port(f[4]), f[5], port(f[6]))] = end{}
	}
	six := w.Router.Run(w.t, strings.Replace(w.firewall, "ip", "ip6", 1), "-w", "-S", "UPNPD")
	for _, f := range pinRule.FindAllStringSubmatch(six, -1) {
		all[way(f[3], host(f[1]), port(f[4]), port(f[5]), f[2], port(f[5]))] = end{}
	}
	if n := strings.Count(six, "-A UPNPD "); n > len(all) {
		w.fault("rules that are no pinholes:\n%s", six)
	}
	return all
}

// nftables gives the elements of our maps and sets.
func (w *world) nftables() map[string]end {
	var doc struct {
		Nftables []map[string]struct {
			Name string `json:"name"`
			Elem []any  `json:"elem"`
		} `json:"nftables"`
	}
	asked := time.Now()
	text := w.Router.Run(w.t, "nft", "-j", "list", "table", "inet", "upnpd")
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		w.fault("nft -j list: %v", err)
	}
	all := map[string]end{}
	for _, object := range doc.Nftables {
		for kind, set := range object {
			if kind != "map" && kind != "set" || set.Name == "snat4" || set.Name == "ext4" {
				continue
			}
			for _, e := range set.Elem {
				words, left := element(e)
				line := line(set.Name, words)
				if line == "" {
					w.fault("an element of %s: %v", set.Name, words)
				}
				all[line] = end{asked.Add(left), time.Now().Add(left + time.Second)}
			}
		}
	}
	return all
}

// line is the way of an element: the key, in an order that its set names, and what a
// map has for it.
func line(set string, words []string) string {
	remote, rport := "", "0"
	take := func(to *string) {
		if len(words) > 0 {
			*to, words = words[0], words[1:]
		}
	}
	if set == "dnat4from" || set == "dnat4net" || set == "pin6host" || set == "pin6both" || set == "pin6net" {
		take(&remote)
	}
	if set == "dnat4net" || set == "pin6port" || set == "pin6both" || set == "pin6net" {
		take(&rport)
	}
	switch {
	case strings.HasPrefix(set, "dnat4") && len(words) == 4:
		return way(words[0], host(remote), port(rport), port(words[1]), words[2], port(words[3]))
	case strings.HasPrefix(set, "pin6") && len(words) == 3:
		return way(words[0], host(remote), port(rport), port(words[2]), words[1], port(words[2]))
	}
	return ""
}

// element gives the words of one, and the whole seconds after which the kernel ends it.
func element(v any) (words []string, left time.Duration) {
	switch v := v.(type) {
	case string:
		return []string{v}, 0
	case float64:
		return []string{fmt.Sprint(v)}, 0
	case []any: // key and value, or both ends
		for _, part := range v {
			more, at := element(part)
			words, left = append(words, more...), max(left, at)
		}
		return words, left
	case map[string]any:
		if seconds, ok := v["expires"].(float64); ok {
			words, _ = element(v["val"])
			return words, time.Duration(seconds) * time.Second
		}
		if p, ok := v["prefix"].(map[string]any); ok {
			if p["len"] == 0.0 {
				return []string{""}, 0
			}
			return []string{fmt.Sprintf("%v/%v", p["addr"], p["len"])}, 0
		}
		if both, ok := v["range"].([]any); ok {
			if fmt.Sprint(both[0]) == "0" {
				return []string{"0"}, 0
			}
			return []string{""}, 0 // all addresses: another range is a prefix
		}
		for _, part := range v { // elem, concat
			return element(part)
		}
	}
	return nil, 0
}
