package firewall

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// ForwardPath looks whether iptables' chain FORWARD drops what we redirect, or a
// forward chain of nftables beside it.
// warning names it and the command that helps; it is "" when a redirected
// connection passes. It may run beside the other methods.
//
// A connection is taken to pass by a rule that looks at our mark or at the state
// DNAT, whatever else it looks at; other rules count when they look at nothing,
// or at the uplink only.
func (f *IPTables) ForwardPath() (warning string, err error) {
	warning, err = forwardPath(f.ctx, f.four.path, forwarding{uplink: f.uplink, marked: f.opts.ForwardRules})
	foreign, _ := foreignRefusals(f.uplink) // an error: there is no nf_tables
	six := ""
	if f.six != nil && err == nil && hasIPv6() {
		six, err = forwardPath(f.ctx, f.six.path, forwarding{uplink: f.uplink, pinholes: true})
	}
	for _, w := range []string{foreign, six} {
		if warning != "" && w != "" {
			warning += "; "
		}
		warning += w
	}
	return warning, err
}

// LegacyForwardPath is ForwardPath for the nftables backend on a machine where
// legacy iptables has a filter table in force, as Docker may have made one.
func LegacyForwardPath(ctx context.Context, uplink string) (warning string, err error) {
	program := LegacyProgram()
	if program == "" || !slices.Contains(strings.Fields(LegacyTables()), "filter") {
		return "", nil
	}
	return forwardPath(ctx, program, forwarding{uplink: uplink, marked: true})
}

func forwardPath(ctx context.Context, program string, p forwarding) (warning string, err error) {
	listing, err := execute(ctx, program, "", "-w", fmt.Sprint(lockWait), "-t", "filter", "-S")
	if err != nil {
		return "", fmt.Errorf("list table filter: %w", err)
	}
	if end := p.through(listing); end == "ours" || end == "ACCEPT" || end == "" && !strings.Contains(listing, "-P FORWARD DROP") {
		return "", nil
	}
	family, what, which := "ip", "mapped ports", "-m conntrack --ctstate DNAT -j ACCEPT"
	if p.marked {
		which = "-m connmark --mark " + mark + "/" + mark + " " + which
	}
	if p.pinholes {
		family, what, which = "ip6", "IPv6 pinholes", "-j "+mapChain
	}
	return fmt.Sprintf("chain FORWARD of table %s filter drops connections to %s; let them pass: %s -I FORWARD %s", family, what, program, which), nil
}

// uncommented is a rule without its comment, which may hold anything.
func uncommented(line string) string {
	line = strings.ReplaceAll(line, `\"`, "") // quotation marks in a comment
	before, rest, ok := strings.Cut(line, " -m comment --comment ")
	if !ok {
		return line
	}
	end := strings.Index(rest, " ")
	if strings.HasPrefix(rest, `"`) {
		end = strings.Index(rest, `" `) + 1
	}
	return before + rest[max(end, 0):]
}

// forwarding is a filter table, and what is known of the first packet of a
// redirected connection.
type forwarding struct {
	uplink string              // the device that it comes from; "": unknown
	marked bool                // it carries our mark
	rules  map[string][]string // of each chain, without the -A
	ends   map[string]string   // of the chains that were looked through

	pinholes bool // it goes to one: our chain accepts it
}

// through is end of the forward chain of a table that iptables -S has listed.
func (p forwarding) through(listing string) string {
	p.rules, p.ends = map[string][]string{}, map[string]string{}
	for _, line := range strings.Split(listing, "\n") {
		if rule, ok := strings.CutPrefix(uncommented(line), "-A "); ok {
			chain, _, _ := strings.Cut(rule, " ")
			p.rules[chain] = append(p.rules[chain], rule)
		}
	}
	return p.end("FORWARD")
}

// end is where the packet ends in a chain: "ours" for a rule that accepts what is
// redirected, ACCEPT, DROP, or "" when it leaves the chain. Each chain is looked
// through once, however many rules jump to it.
func (p forwarding) end(chain string) string {
	end, known := p.ends[chain]
	if !known {
		p.ends[chain] = "" // a loop, which the kernel does not allow, ends here
		end = p.walk(chain)
		p.ends[chain] = end
	}
	return end
}

// walk is end, rule by rule.
func (p forwarding) walk(chain string) string {
	for _, rule := range p.rules[chain] {
		sees, always := p.sees(rule)
		if !sees {
			continue
		}
		target := word(rule, "-j") + word(rule, "-g")
		switch target {
		case "ACCEPT":
			if p.ours(rule) {
				return "ours"
			}
		case "REJECT":
			target = "DROP"
		case "DROP":
		case "RETURN":
			if always {
				return ""
			}
			continue
		case mapChain:
			if target = "ours"; !p.pinholes {
				target = p.end(mapChain)
			}
		default:
			target = p.end(target)
		}
		if target == "ours" || always && target != "" {
			return target
		}
	}
	return ""
}

// sees reports whether a rule may see the packet, as far as its devices tell, and
// whether it does always, since it looks at nothing else.
func (p forwarding) sees(rule string) (sees, always bool) {
	rule, _, _ = strings.Cut(rule, " -j ")
	rule, _, _ = strings.Cut(rule, " -g ")
	words := strings.Fields(strings.ReplaceAll(rule, " ! -", " !-"))
	always = true
	for i := 1; i < len(words); i += 2 {
		option, not := strings.CutPrefix(words[i], "!")
		device := words[min(i+1, len(words)-1)]
		prefix, wild := strings.CutSuffix(device, "+")
		same := device == p.uplink || wild && strings.HasPrefix(p.uplink, prefix)
		switch {
		case option == "-i" && p.uplink != "":
			if same == not {
				return false, false
			}
		case option == "-o" && same: // it goes to a LAN
			if !not {
				return false, false
			}
		default:
			always = false
		}
	}
	return true, always
}

// ours reports whether a rule looks at our mark, or whether the connection was
// redirected.
func (p forwarding) ours(rule string) bool {
	if p.marked && (strings.Contains(rule, " -m connmark --mark "+mark) || strings.Contains(rule, " -m connmark ! --mark 0x0/"+mark)) {
		return true
	}
	states := strings.Split(word(rule, "--ctstate"), ",")
	return slices.Contains(states, "DNAT") && !strings.Contains(rule, " ! --ctstate ")
}
