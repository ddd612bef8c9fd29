package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// addRule reads what follows allow or deny (issue 2, point 4):
//
//	EXTPORTS HOST[/MASK] INTPORTS [tcp|udp] [from HOST[/MASK]]
//
// miniupnpd's lines of three fields mean the same here.
func addRule(c *Config, verb, v string) error {
	fields := strings.Fields(v)
	r := portmap.Rule{Allow: verb == "allow", Text: verb + " " + strings.Join(fields, " ")}
	if len(fields) < 3 {
		return errors.New("want EXTPORTS HOST[/MASK] INTPORTS [tcp|udp] [from HOST[/MASK]]")
	}
	if err := ports(&r.External, fields[0]); err != nil {
		return err
	}
	if err := hosts(&r.Client, fields[1]); err != nil {
		return err
	}
	if err := ports(&r.Internal, fields[2]); err != nil {
		return err
	}
	rest := fields[3:]
	if len(rest) > 0 {
		if protocol, ok := portmap.ParseProtocol(rest[0]); ok {
			r.Protocol = protocol
			rest = rest[1:]
		}
	}
	if len(rest) >= 2 && rest[0] == "from" {
		if err := hosts(&r.From, rest[1]); err != nil {
			return err
		}
		rest = rest[2:]
	}
	if len(rest) > 0 {
		return fmt.Errorf("%q: want [tcp|udp] [from HOST[/MASK]] after the ports, and nothing more", rest[0])
	}
	c.Policy.Rules = append(c.Policy.Rules, r)
	return nil
}

func ports(p *portmap.PortRange, v string) error {
	if v == "any" {
		*p = portmap.PortRange{First: 0, Last: 65535}
		return nil
	}
	first, last, isRange := strings.Cut(v, "-")
	if !isRange {
		last = first
	}
	f, okFirst := decimal(first, 0, 65535)
	l, okLast := decimal(last, 0, 65535)
	if !okFirst || !okLast || f > l {
		return fmt.Errorf("%q: want a port, FIRST-LAST or any, from 0 to 65535", v)
	}
	*p = portmap.PortRange{First: uint16(f), Last: uint16(l)}
	return nil
}

// hosts reads HOST or HOST/MASK; the mask is a length, or dotted for IPv4.
func hosts(p *netip.Prefix, v string) error {
	host, mask, masked := strings.Cut(v, "/")
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return fmt.Errorf("%q: want an IPv4 or IPv6 address, alone or with /MASK", v)
	}
	bits := a.BitLen()
	if masked {
		n, ok := decimal(mask, 0, uint64(bits))
		if m, err := netip.ParseAddr(mask); err == nil && m.Is4() && a.Is4() {
			n, ok = maskLength(m.As4())
		}
		if !ok && a.Is4() {
			return fmt.Errorf("%q: want a mask from 0 to 32, or like 255.255.255.0", v)
		} else if !ok {
			return fmt.Errorf("%q: want a prefix length from 0 to 128", v)
		}
		bits = int(n)
	}
	*p = netip.PrefixFrom(a, bits).Masked()
	return nil
}

// maskLength counts the ones of a mask; no ones may follow a zero.
func maskLength(m [4]byte) (uint64, bool) {
	bits := uint32(m[0])<<24 | uint32(m[1])<<16 | uint32(m[2])<<8 | uint32(m[3])
	n := uint64(0)
	for ; bits&(1<<31) != 0; bits <<= 1 {
		n++
	}
	return n, bits == 0
}
