package portmap

import (
	"fmt"
	"net/netip"
	"time"
)

// Policy says who may map what, how much and for how long.
type Policy struct {
	// Secure: a host may map and delete only for itself.
	Secure bool
	// Rules are tried in order and the first match decides. Without a match
	// a mapping is allowed when both its ports are 1024 or above.
	Rules []Rule
	// MaxLease is the longest lease granted (SPEC WIP-4: 604800 s).
	MaxLease time.Duration
	// DefaultLease is what a host gets that asks for lease 0.
	DefaultLease DefaultLease
	// MaxMappings and MaxPerClient bound the table and one client's share.
	// Of a PORT_SET, each port counts.
	MaxMappings, MaxPerClient int
	// MinLease is the shortest lease that PCP grants (SPEC MAP-9). The Table
	// leaves it to its caller.
	MinLease time.Duration
	// SameHostNonce: PCP's nonce need not be right, if the request comes from the
	// host that made the mapping (SPEC INT-20).
	SameHostNonce bool
}

// Rule allows or denies mappings.
type Rule struct {
	Allow    bool
	External PortRange
	Internal PortRange
	Client   netip.Prefix // hosts that would receive the connections; 0.0.0.0/0: of IPv6, too
	Protocol Protocol     // zero: both
	From     netip.Prefix // hosts that ask, as Client; the zero Prefix: any
	Text     string       // as the administrator wrote it, for refusals
}

// PortRange is an inclusive range of ports.
type PortRange struct{ First, Last uint16 }

// Contains reports whether port is in the range.
func (r PortRange) Contains(port uint16) bool { return r.First <= port && port <= r.Last }

// DefaultLease is linux-igd's `duration` option: a length of time, or a time
// of day at which leases end. The zero DefaultLease means the maximum.
type DefaultLease struct {
	Length time.Duration // or, with Daily, the time since midnight
	Daily  bool
}

// from gives the lease that begins at the wall-clock time now. A time of day
// less than a minute away means the one of the next day, as in linux-igd.
func (d DefaultLease) from(now time.Time) time.Duration {
	if !d.Daily {
		return d.Length
	}
	for day := now.Day(); ; day++ {
		// The clock on the wall, whatever summer time does that day.
		end := time.Date(now.Year(), now.Month(), day, 0, 0, int(d.Length/time.Second), 0, now.Location())
		if lease := end.Sub(now); lease >= time.Minute {
			return lease
		}
	}
}

// lease turns a wish into what is granted. Every lease is finite (SPEC WIP-4).
func (p Policy) lease(wish time.Duration, now time.Time) time.Duration {
	if wish == 0 {
		wish = p.DefaultLease.from(now)
	}
	if wish == 0 || wish > p.MaxLease {
		wish = p.MaxLease
	}
	return wish
}

// concerns reports whether the rule is about the request, whatever external
// port it is for.
func (r *Rule) concerns(req *Request) bool {
	return r.Internal.Contains(req.InternalPort) &&
		(r.Protocol == 0 || r.Protocol == req.Protocol) &&
		covers(&r.Client, req.Client) &&
		(!r.From.IsValid() || covers(&r.From, req.From))
}

// covers is p.Contains, but 0.0.0.0/0 stands for every host (DESIGN.md).
func covers(p *netip.Prefix, a netip.Addr) bool {
	return p.Contains(a.WithZone("")) || p.Bits() == 0 && p.Addr().Is4()
}

// verdict says whether the rules allow the request at the external port, by which
// rule (nil: none matches), and, from 1024 on, the last port for which they say the
// same.
func (p *Policy) verdict(req *Request, port uint16) (allowed bool, by *Rule, last uint16) {
	last = 65535
	for i := range p.Rules {
		r := &p.Rules[i]
		switch {
		case !r.concerns(req):
		case r.External.Contains(port):
			return r.Allow, r, min(last, r.External.Last)
		case r.External.First > port:
			last = min(last, r.External.First-1)
		}
	}
	return port >= 1024 && req.InternalPort >= 1024, nil, last
}

// permit checks everything that does not depend on other mappings, and says
// what allows the request.
func (p *Policy) permit(n Network, req *Request) (by string, err error) {
	if !n.OnLink(req.Client) {
		return "", fmt.Errorf("%w: %v", ErrNotLANHost, req.Client)
	}
	return p.allow(req)
}

// allow is permit without regard to where the router is now.
func (p *Policy) allow(req *Request) (by string, err error) {
	if err := p.entitled(req); err != nil {
		return "", err
	}
	if req.ExternalPort == 0 {
		return "", errNoPort
	}
	for one := *req; int(one.InternalPort) < int(req.InternalPort)+req.count(); one.InternalPort++ {
		allowed, r, _ := p.verdict(&one, req.ExternalPort+one.InternalPort-req.InternalPort)
		switch {
		case allowed && r != nil:
			by = "rule: " + r.Text
		case allowed:
			by = "default: ports from 1024 on"
		case r != nil:
			return "", fmt.Errorf("%w: %s", ErrDenied, r.Text)
		default:
			return "", fmt.Errorf("%w: ports below 1024 need an allow rule", ErrDenied)
		}
		if one.InternalPort == 65535 {
			break
		}
	}
	return by, nil
}

// errNoPort and errMixed are for what is neither a mapping nor a pinhole, whoever
// asks for it.
var errMixed = fmt.Errorf("%w: a mapping is between IPv4 hosts and for any remote port, a pinhole between IPv6 hosts and for one port", ErrDenied)

var errNoPort = fmt.Errorf("%w: only single ports of TCP or UDP can be mapped", ErrDenied) // SPEC WIP-6, WIP-7, WIP-10

// entitled checks what does not depend on the external port.
func (p *Policy) entitled(req *Request) error {
	if req.InternalPort == 0 || req.Protocol != TCP && req.Protocol != UDP {
		return errNoPort
	}
	if err := req.Mapping.sound(); err != nil {
		return err
	}
	if p.Secure && req.Client != req.From && !req.vouched {
		return fmt.Errorf("%w: with secure = yes a host may map only for itself, not for %v", ErrNotAuthorized, req.Client)
	}
	return nil
}

// apart reports whether two addresses are not on one LAN, or client is the router's.
// Without Secure a host speaks for its LAN, and for no other.
func (t *Table) apart(client, from netip.Addr) bool {
	return client != from && t.sameLAN != nil && !t.sameLAN(client, from)
}
