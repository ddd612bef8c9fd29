package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// Each function below reads one kind of value into p. Its error says what
// would be right.

// decimal reads a whole number within bounds: digits and nothing else.
func decimal(v string, first, last uint64) (uint64, bool) {
	n, err := strconv.ParseUint(v, 10, 64)
	return n, err == nil && first <= n && n <= last
}

func number[T ~uint8 | ~uint16 | ~int](p *T, v string, first, last uint64) error {
	n, ok := decimal(v, first, last)
	if !ok {
		return fmt.Errorf("want a number from %d to %d", first, last)
	}
	*p = T(n)
	return nil
}

func bitrate(p *uint64, v string) error {
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return errors.New("want bits per second, or 0 for the link's speed")
	}
	*p = n
	return nil
}

func seconds(p *time.Duration, v string, first, last uint64) error {
	n, ok := decimal(v, first, last)
	if !ok {
		return fmt.Errorf("want seconds from %d to %d", first, last)
	}
	*p = time.Duration(n) * time.Second
	return nil
}

func yesNo(p *bool, v string) error {
	switch v {
	case "yes", "true", "1":
		*p = true
	case "no", "false", "0":
		*p = false
	default:
		return errors.New("want yes or no")
	}
	return nil
}

// duration reads linux-igd's default lease: seconds or HH:MM, and with @ in
// front the time of day at which leases end. Policy.MaxLease bounds it later.
func duration(p *portmap.DefaultLease, v string) error {
	length, daily := strings.CutPrefix(v, "@")
	last := uint64(1<<32 - 1)
	if daily {
		last = 24*3600 - 1
	}
	n, ok := decimal(length, 0, last)
	if hours, minutes, clock := strings.Cut(length, ":"); clock {
		h, okH := decimal(hours, 0, min(last/3600, longestLease/3600))
		m, okM := decimal(minutes, 0, 59)
		n, ok = h*3600+m*60, okH && okM && len(hours) <= 3 && len(minutes) == 2
	}
	if !ok {
		return errors.New("want seconds, HH:MM, or the time of day when leases end as @HH:MM or @SECONDS")
	}
	*p = portmap.DefaultLease{Length: time.Duration(n) * time.Second, Daily: daily}
	return nil
}

// device reads a name that the kernel allows for a device and iptables can
// tell from an option or a pattern.
func device(p *string, v string) error {
	bad := strings.ContainsFunc(v, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune(`/:"'\`, r)
	})
	if bad || v == "" || len(v) > 15 || v == "." || v == ".." || v[0] == '-' || v[len(v)-1] == '+' {
		return errors.New("want the name of a network device, 1 to 15 bytes")
	}
	*p = v
	return nil
}

func unicast(p *netip.Addr, v string) error {
	if v == "" {
		*p = netip.Addr{}
		return nil
	}
	a, err := netip.ParseAddr(v)
	if err != nil || !a.Is4() || !a.IsGlobalUnicast() || a.As4()[0] == 0 || a.As4()[0] >= 240 {
		return errors.New("want the IPv4 address of a host")
	}
	*p = a
	return nil
}

// chain reads a name that iptables accepts for a chain: builtin, or one of the
// administrator's.
func chain(p *string, v, builtin string) error {
	if v == "" || len(v) > 28 || v[0] == '-' || !only(v, "._-") {
		return errors.New("want the name of a chain: 1 to 28 letters, digits, ., _ or -")
	}
	if slices.Contains([]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}, v) && v != builtin {
		return fmt.Errorf("packets to forward do not pass there: want %s or a chain of your own", builtin)
	}
	if strings.HasPrefix(v, "UPNPD") {
		return errors.New("want another name: chains UPNPD* are the daemon's own, this one gets the jump to them")
	}
	*p = v
	return nil
}

func fileName(p *string, v string) error {
	if v == "" || len(v) > 64 || strings.ContainsRune("._-", rune(v[0])) || !only(v, "._-") {
		return errors.New("want a file's name: 1 to 64 letters, digits, ., _ or -, the first a letter or digit")
	}
	*p = v
	return nil
}

// only reports whether v has nothing but ASCII letters, digits and others.
func only(v, others string) bool {
	return !strings.ContainsFunc(v, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune(others, r)
	})
}

// account reads the name of a user (useradd(8)) or a uid. Root is nobody else.
func account(p *string, v string) error {
	if len(v) > 32 || !only(v, "._-") || strings.HasPrefix(v, "-") {
		return errors.New("want the name of a user, or a uid")
	}
	if v == "root" || v == "0" {
		v = ""
	}
	*p = v
	return nil
}

func path(p *string, v string) error {
	if v != "" && (v[0] != '/' || !printable(v)) {
		return errors.New("want a path that begins with /")
	}
	*p = v
	return nil
}

// text reads what a description shows; first and last bound its length in
// characters.
func text(p *string, v string, first, last int) error {
	if n := utf8.RuneCountInString(v); n < first || n > last || !printable(v) {
		return fmt.Errorf("want %d to %d characters of UTF-8 text without control characters", first, last)
	}
	*p = v
	return nil
}

func printable(v string) bool {
	return utf8.ValidString(v) && !strings.ContainsFunc(v, func(r rune) bool { return !strconv.IsPrint(r) })
}

func uuid(p *string, v string) error {
	u := strings.TrimPrefix(strings.ToLower(v), "uuid:")
	if v == "" {
		*p = ""
		return nil
	}
	ok, zero := len(u) == 36, true
	for i := 0; i < len(u) && ok; i++ {
		switch i {
		case 8, 13, 18, 23:
			ok = u[i] == '-'
		default:
			ok = strings.IndexByte("0123456789abcdef", u[i]) >= 0
			zero = zero && u[i] == '0'
		}
	}
	if !ok || zero {
		return errors.New("want a UUID that no other device has, like 8d3c5a0e-52c4-4a6b-9f0e-3b1d7c2a9e54")
	}
	*p = u
	return nil
}

// webPage reads an absolute URL of a web page. It ends up in a description, so
// only the characters of RFC 3986 are let in.
func webPage(p **string, v string) error {
	rest, ok := strings.CutPrefix(v, "http://")
	if !ok {
		rest, ok = strings.CutPrefix(v, "https://")
	}
	host, _, _ := strings.Cut(rest, "/")
	if v != "" && (!ok || host == "" || len(v) > 256 || !only(v, "-._~:/?#[]@!$&'()*+,;=%")) {
		return errors.New(`want http://... or https://..., or "" for none`)
	}
	*p = &v
	return nil
}
