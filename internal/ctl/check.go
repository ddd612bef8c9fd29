package ctl

import (
	"fmt"
	"net/netip"
	"strings"
)

// level is how bad a finding is; it is the exit code of upnpctl check.
type level int

const (
	pass level = iota
	warn
	fail
)

var levels = [...]string{"PASS", "WARN", "FAIL"}

// finding is one line of check.
type finding struct {
	level  level
	name   string // what was looked at
	found  string
	advice string // what to do; "" for nothing
}

type findings []finding

func (f *findings) add(l level, name, found, advice string) {
	*f = append(*f, finding{l, name, found, advice})
}

// judge says what the facts mean.
func judge(f Facts) findings {
	var all findings
	all.uplink(&f)
	all.forwarding(&f)
	if l := f.Live; l != nil {
		switch {
		case l.Err != nil:
			all.add(warn, "live", "a packet through a mapping could not be tried: "+l.Err.Error(), "")
		case l.Passed:
			all.add(pass, "live", "a packet through a temporary mapping arrived", "")
		default:
			all.add(fail, "live", "a packet through a temporary mapping did not arrive", "look for a rule of this firewall that drops it")
		}
	}
	if len(f.LANs) == 0 {
		all.add(fail, "LAN", "no LAN is served", "name one: INTIF")
	}
	for i := range f.LANs {
		all.lan(&f.LANs[i])
	}
	all.port(&f, 1900, "clients find the other one, or none")
	all.port(&f, 5351, "NAT-PMP and PCP may go there")
	switch {
	case f.DriftErr != nil:
		all.add(warn, "kernel", "its rules could not be read: "+f.DriftErr.Error(), "")
	case f.Drift != "":
		all.add(fail, "kernel", f.Drift, "`kill -HUP` upnpd to put them right, and find out who changes them")
	default:
		all.add(pass, "kernel", fmt.Sprintf("its rules are those of the table, mappings: %d", f.Mappings), "")
	}
	const about = "leases do not depend on it, times in the log do"
	if y := f.Now.Year(); y < 2025 || y > 2100 {
		all.add(warn, "clock", fmt.Sprintf("it shows the year %d", y), "set it (NTP); "+about)
	} else {
		all.add(pass, "clock", "it shows "+f.Now.Format("2006-01-02 15:04:05"), "")
	}
	return all
}

// uplink judges the device, its address and the way to the internet.
func (all *findings) uplink(f *Facts) {
	u := &f.Uplink
	switch {
	case u.Index == 0:
		all.add(fail, "uplink", "there is no device "+u.Name, "connect, or correct EXTIF")
	case !u.Up:
		all.add(fail, "uplink", u.Name+" is down", "look at the cable and the modem")
	case !u.Addr.IsValid():
		all.add(fail, "uplink", u.Name+" has no IPv4 address", "look at DHCP or PPPoE there")
	default:
		all.add(pass, "uplink", fmt.Sprintf("%s is up with %v", u.Name, u.Addr), "")
		all.address(f)
	}
	switch {
	case f.RouteErr != nil:
		all.add(warn, "route", "it is not known: "+f.RouteErr.Error(), "")
	case f.Route == "":
		all.add(fail, "route", "there is none to the internet", "the uplink must set a default route")
	case f.Route != u.Name:
		all.add(warn, "route", fmt.Sprintf("the internet is at %s, the mappings are at %s", f.Route, u.Name), "correct EXTIF, unless answers find their way by other rules")
	default:
		all.add(pass, "route", "the internet is at "+f.Route, "")
	}
}

// address judges whether the internet can reach the uplink.
func (all *findings) address(f *Facts) {
	here, kind := f.Uplink.Addr, kindOf(f.Uplink.Addr)
	if f.ExtIP.IsValid() && f.ExtIP != here {
		found := fmt.Sprintf("%s has %v (%s), extip = %v (%s) is reported", f.Uplink.Name, here, kind, f.ExtIP, kindOf(f.ExtIP))
		switch {
		case kindOf(f.ExtIP) != public:
			all.add(warn, "address", found, "nobody outside can use it; correct extip")
		case kind == public:
			all.add(warn, "address", found, "remove extip, unless that address leads here")
		default:
			all.add(pass, "address", found, "the router that has it must pass the ports on to here")
		}
		return
	}
	found := fmt.Sprintf("%v is %s", here, kind)
	switch kind {
	case public:
		all.add(pass, "address", found, "")
	case private:
		all.add(warn, "address", found+": double NAT", "open the ports in the router before this one, make that a bridge, or set extip if it passes all on")
	case shared:
		all.add(fail, "address", found+": carrier-grade NAT", "nobody outside can connect; ask the provider for a public address")
	default:
		all.add(fail, "address", found, "nobody outside can connect; ask the provider for a public address")
	}
}

// Kinds of addresses.
const (
	public  = "public"
	private = "private"
	shared  = "shared by many customers"
)

// kindOf says what an IPv4 address is for (RFC 6890 and IANA's registry of
// special-purpose addresses).
func kindOf(a netip.Addr) string {
	for _, s := range [...]struct{ prefix, kind string }{
		{"10.0.0.0/8", private},
		{"172.16.0.0/12", private},
		{"192.168.0.0/16", private},
		{"100.64.0.0/10", shared},
		{"192.0.0.0/24", "an end of a tunnel to the provider's NAT (DS-Lite)"},
		{"169.254.0.0/16", "valid on its link only"},
		{"127.0.0.0/8", "this host itself"},
		{"198.18.0.0/15", "for benchmarks"},
		{"192.0.2.0/24", "for documents"},
		{"198.51.100.0/24", "for documents"},
		{"203.0.113.0/24", "for documents"},
		{"192.88.99.0/24", "of old 6to4 relays"},
		{"0.0.0.0/8", "no address of a host"},
		{"224.0.0.0/4", "multicast"},
		{"240.0.0.0/4", "reserved"},
	} {
		if netip.MustParsePrefix(s.prefix).Contains(a) {
			return s.kind
		}
	}
	return public
}

// forwarding judges whether this router passes on what it redirects.
func (all *findings) forwarding(f *Facts) {
	if n := f.NotForwarding; len(n) > 0 {
		all.add(fail, "forwarding", strings.Join(n, " = 0, ")+" = 0", "sysctl -w "+strings.Join(n, "=1 ")+"=1")
	} else {
		all.add(pass, "forwarding", "the kernel forwards", "")
	}
	switch {
	case f.ForwardErr != nil:
		all.add(warn, "firewall", f.Firewall+", the forward chains could not be read: "+f.ForwardErr.Error(), "")
	case f.ForwardPath != "":
		all.add(fail, "firewall", f.ForwardPath, "")
	default:
		all.add(pass, "firewall", f.Firewall+", the forward chains let mapped connections pass", "")
	}
}

// lan judges whether clients on a LAN can find us.
func (all *findings) lan(l *LANFacts) {
	name := "LAN " + l.Name
	switch {
	case l.Err != nil:
		all.add(fail, name, l.Err.Error(), "")
	case !l.Up:
		all.add(fail, name, "the device is down or missing", "connect it, or correct INTIF")
	case !l.Addr.IsValid():
		all.add(fail, name, "it has no IPv4 address", "give it one")
	case !l.Joined:
		all.add(fail, name, "multicast is not received", "`ip link set "+l.Name+" multicast on`, then restart upnpd")
	case !l.Answered:
		all.add(fail, name, fmt.Sprintf("at %v a search is not answered", l.Addr), "let UDP port 1900 in from this LAN")
	default:
		all.add(pass, name, fmt.Sprintf("at %v a search is answered", l.Addr), "")
	}
}

// port judges whether a port of ours is ours alone.
func (all *findings) port(f *Facts, port uint16, so string) {
	name := fmt.Sprintf("UDP %d", port)
	for _, s := range f.Strangers {
		if s.Port == port {
			all.add(warn, name, "also used by "+strings.Join(s.Names, ", "), "stop that: "+so)
			return
		}
	}
	all.add(pass, name, "no other program uses it", "")
}

// worst is the level of the worst finding.
func (all findings) worst() int {
	w := pass
	for _, f := range all {
		w = max(w, f.level)
	}
	return int(w)
}

// count says how many findings have each level.
func (all findings) count() (n [3]int) {
	for _, f := range all {
		n[f.level]++
	}
	return n
}

func (all findings) text() []byte {
	var rows [][]string
	for _, f := range all {
		said := f.found
		if f.advice != "" {
			said += "; " + f.advice
		}
		rows = append(rows, []string{levels[f.level], clean(f.name), clean(said)})
	}
	n := all.count()
	return fmt.Appendf(appendColumns(nil, 0, rows), "%d passed, %d warnings, %d failures\n", n[pass], n[warn], n[fail])
}

func (all findings) json() []byte {
	var j jsonText
	j.open("", '{')
	j.open("findings", '[')
	for _, f := range all {
		j.open("", '{')
		j.text("result", levels[f.level])
		j.text("name", f.name)
		j.text("found", f.found)
		j.orNull("advice", f.advice)
		j.close('}')
	}
	j.close(']')
	for i, n := range all.count() {
		j.number([...]string{"passed", "warnings", "failures"}[i], int64(n))
	}
	j.close('}')
	return append(j, '\n')
}
