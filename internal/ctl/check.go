package ctl

import (
	"net/netip"
	"strings"
)

// finding is one line of check: PASS, WARN or FAIL, what was looked at, what was
// found and, where there is something to do, that.
type finding []string

// judge says what the facts mean.
func judge(f Facts) (all []finding) {
	var t sheet
	judgeUplink(&t, &f)
	judgeForwarding(&t, &f)
	if len(f.LANs) == 0 {
		t.line("FAIL\tLAN\tno LAN is served\tname one as INTIF")
	}
	for i := range f.LANs {
		judgeLAN(&t, &f.LANs[i])
	}
	judgePort(&t, &f, 1900, "clients may find it instead of this one")
	judgePort(&t, &f, 5351, "NAT-PMP and PCP may go there")
	said := "PASS\tkernel\tit has the mappings of the table: %[1]d"
	if f.DriftErr != nil {
		said = "WARN\tkernel\tits rules cannot be read: %[2]s"
	} else if f.Drift != "" {
		said = "FAIL\tkernel\t%[3]s\t`kill -HUP` upnpd puts it right; find out who changes it"
	}
	t.line(said, f.Mappings, f.DriftErr, f.Drift)
	said = "PASS\tclock\tit shows %s"
	if y := f.Now.Year(); y < 2025 || y > 2100 {
		said = "WARN\tclock\tit shows %s\tset it (NTP); leases do not depend on it, times in the log do"
	}
	t.line(said, f.Now.Format("2006-01-02 15:04:05"))
	for _, l := range strings.Split(string(t[:len(t)-1]), "\n") {
		all = append(all, strings.Split(l, "\t"))
	}
	return all
}

// judgeUplink is about the device, its address and the way to the internet.
func judgeUplink(t *sheet, f *Facts) {
	u := &f.Uplink
	said := "PASS\tuplink\t%[1]s is up with %[2]s"
	switch {
	case u.Index == 0:
		said = "FAIL\tuplink\tthere is no device %[1]s\tconnect, or correct EXTIF"
	case !u.Up:
		said = "FAIL\tuplink\t%[1]s is down\tlook at the cable and the modem"
	case !u.Addr.IsValid():
		said = "FAIL\tuplink\t%[1]s has no IPv4 address\tlook at DHCP or PPPoE there"
	}
	t.line(said, u.Name, u.Addr)
	if u.Connected() {
		judgeAddress(t, u.Addr, f.ExtIP)
	}
	said = "PASS\troute\tto the internet by %[1]s"
	switch {
	case f.RouteErr != nil:
		said = "WARN\troute\tthe way to the internet is not known: %[3]s"
	case f.Route == "":
		said = "FAIL\troute\tthere is none to the internet\tset a default route by %[2]s"
	case f.Route != u.Name:
		said = "WARN\troute\tto the internet by %[1]s, but the mappings are at %[2]s\tcorrect EXTIF, unless answers are routed otherwise"
	}
	t.line(said, f.Route, u.Name, f.RouteErr)
}

// judgeAddress is about whether the internet can reach the uplink.
func judgeAddress(t *sheet, addr, extip netip.Addr) {
	kind, outer := kindOf(addr), ""
	said := "FAIL\taddress\t%[1]s is %[2]s: nobody can connect to it from outside\task the provider for a public address"
	switch {
	case extip.IsValid() && extip != addr:
		said = "PASS\taddress\t%[1]s is %[2]s, extip = %[3]s is reported, which is %[4]s\tthe router that has it must pass the ports on to this one"
		if outer = kindOf(extip); outer != public {
			said = "WARN\taddress\t%[1]s is %[2]s, extip = %[3]s is reported, which is %[4]s\tcorrect extip: nobody can connect to it from outside"
		} else if kind == public {
			said = "WARN\taddress\t%[1]s is %[2]s, extip = %[3]s is reported, which is %[4]s\tremove extip, unless that address leads here"
		}
	case kind == public:
		said = "PASS\taddress\t%[1]s is %[2]s"
	case kind == private:
		said = "WARN\taddress\t%[1]s is %[2]s: double NAT\topen the ports in the router before this one, make that a bridge, or set extip if it passes all on"
	}
	t.line(said, addr, kind, extip, outer)
}

// Kinds of addresses.
const (
	public  = "public"
	private = "private"
)

// kindOf says what an IPv4 address is for (RFC 6890, IANA's registry of
// special-purpose addresses).
func kindOf(a netip.Addr) string {
	const kinds = "10.0.0.0/8 private;172.16.0.0/12 private;192.168.0.0/16 private;" +
		"100.64.0.0/10 shared by customers of the provider (carrier-grade NAT);" +
		"192.0.0.0/24 of a tunnel to the provider's NAT (DS-Lite);" +
		"169.254.0.0/16 of the link only;127.0.0.0/8 of this host only;0.0.0.0/8 no address of a host;" +
		"192.0.2.0/24 for documents;198.51.100.0/24 for documents;203.0.113.0/24 for documents;198.18.0.0/15 for benchmarks;" +
		"192.88.99.0/24 of old 6to4 relays;224.0.0.0/4 multicast;240.0.0.0/4 reserved"
	for _, k := range strings.Split(kinds, ";") {
		prefix, kind, _ := strings.Cut(k, " ")
		if netip.MustParsePrefix(prefix).Contains(a) {
			return kind
		}
	}
	return public
}

// judgeForwarding is about whether this router passes on what it redirects.
func judgeForwarding(t *sheet, f *Facts) {
	if n := f.NotForwarding; len(n) > 0 {
		t.line("FAIL\tforwarding\t%s = 0\tsysctl -w %s=1", strings.Join(n, " = 0, "), strings.Join(n, "=1 "))
	} else {
		t.line("PASS\tforwarding\tthe kernel forwards")
	}
	said := "PASS\tfirewall\t%[1]s, forward chains let mapped connections pass"
	if f.ForwardErr != nil {
		said = "WARN\tfirewall\t%[1]s, forward chains cannot be read: %[2]s"
	} else if f.ForwardPath != "" {
		said = "FAIL\tfirewall\t%[1]s, %[3]s"
	}
	t.line(said, f.Firewall, f.ForwardErr, f.ForwardPath)
	switch l := f.Live; {
	case l == nil:
	case l.Err != nil:
		t.line("WARN\tlive\ta packet through a mapping could not be tried: %s", l.Err)
	case l.Passed:
		t.line("PASS\tlive\ta packet through a temporary mapping arrived; it came in by lo, so rules about EXTIF did not see it")
	default:
		t.line("FAIL\tlive\ta packet through a temporary mapping was lost; it came in by lo\tlook for a rule that redirects or drops it")
	}
}

// judgeLAN is about whether clients there can find us.
func judgeLAN(t *sheet, l *LANFacts) {
	said := "PASS\tLAN %[1]s\ta search is answered at %[2]s"
	switch {
	case l.Err != nil:
		said = "FAIL\tLAN %[1]s\t%[3]s"
	case !l.Up:
		said = "FAIL\tLAN %[1]s\tit is down or missing\tconnect it, or correct INTIF"
	case !l.Addr.IsValid():
		said = "FAIL\tLAN %[1]s\tit has no IPv4 address\tgive it one"
	case l.Off:
		said = "PASS\tLAN %[1]s\tit is up with %[2]s; nothing is announced, since upnp = no"
	case !l.Joined:
		said = "FAIL\tLAN %[1]s\tmulticast is not heard at %[2]s\t`ip link set %[1]s multicast on` and restart upnpd"
	case !l.Answered:
		said = "FAIL\tLAN %[1]s\ta search is not answered at %[2]s\tlet UDP port 1900 in from there, and answers out; lo must be up"
	}
	t.line(said, l.Name, l.Addr, l.Err)
}

// judgePort is about whether a UDP port of ours is ours alone.
func judgePort(t *sheet, f *Facts, port uint16, so string) {
	said, names := "PASS\tUDP %[1]d\tno other program uses it", ""
	for _, s := range f.Strangers {
		if s.Port == port {
			said, names = "WARN\tUDP %[1]d\talso used by %[2]s\tstop that: %[3]s", strings.Join(s.Names, ", ")
		}
	}
	t.line(said, port, names, so)
}

// check gives the exit code and the report.
func check(all []finding, json bool) (code int, text []byte) {
	var count [3]int
	var t sheet
	rows := jsonText("[")
	for _, f := range all {
		level := strings.IndexByte("PWF", f[0][0])
		count[level]++
		code = max(code, level)
		t = append(t, strings.Join(f[:3], "\t")...)
		f = append(f, "")
		rows.object("result name found advice", f[0], f[1], f[2], f[3])
		if f[3] != "" {
			t = append(t, "; "+f[3]...)
		}
		t = append(t, '\n')
	}
	if json {
		return code, document("findings passed warnings failures", append(rows, ']'), count[0], count[1], count[2])
	}
	t.line("passed: %d, warnings: %d, failures: %d", count[0], count[1], count[2])
	return code, t.align(0)
}
