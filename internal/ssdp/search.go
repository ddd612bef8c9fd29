package ssdp

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/httpmsg"
	"github.com/linux-igd/upnpd/internal/sock"
)

const (
	maxDatagram = 1500            // longer searches are dropped (SSDP-51)
	maxST       = 256             // bytes (SSDP-49)
	maxMX       = 5 * time.Second // a greater MX counts as this (SSDP-41)
)

// search is what counts of an M-SEARCH request.
type search struct {
	st string        // search target, without blanks around it
	mx time.Duration // how long the client waits; 0 for a unicast search
}

// answer is one datagram that a search draws.
type answer struct {
	Target         // with the NT that goes into ST
	device *Device // the root device it belongs to
}

// admits tells whether a packet is one that may be answered, by which scope,
// and whether it came to the group (SSDP-8, SSDP-51). The destination of the
// packet decides that, not HOST (INT-11). Other groups and broadcasts are not
// for us.
//
// A search of the router itself is welcome, except from port 1900: that would
// be our own traffic. Port 1900 of another host is a control point that sends
// from its listening socket; no loop comes of it, since a response draws no
// answer (SSDP-50).
func (l LAN) admits(p sock.Packet) (scope Scope, multicast, ok bool) {
	src := p.Src.Addr()
	var forUs, ours bool
	for _, s := range l.Scopes {
		if p.Dst == s.Group || p.Dst == s.Addr {
			scope, forUs = s, true
		}
		ours = ours || src == s.Addr
	}
	if !forUs || p.IfIndex != l.IfIndex || p.Src.Port() == 0 {
		return scope, false, false
	}
	if ours {
		ok = p.Src.Port() != Port
	} else {
		ok = hostAddr(src) && l.OnLink != nil && l.OnLink(src)
	}
	return scope, p.Dst == scope.Group, ok
}

// hostAddr tells whether an address can be that of another host.
func hostAddr(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// parseSearch reads an M-SEARCH datagram. Whatever is not one, or lacks what
// the standard asks for, is dropped without a word (SSDP-4, SSDP-50).
func parseSearch(p []byte, multicast bool) (search, bool) {
	r, err := httpmsg.ParseDatagram(p)
	if err != nil || r.Method != "M-SEARCH" || r.Target != "*" || r.Minor != 1 {
		return search{}, false
	}
	if man, ok := single(r.Header, "MAN"); !ok || man != `"ssdp:discover"` { // SSDP-40
		return search{}, false
	}
	st, ok := single(r.Header, "ST")
	if !ok || !validST(st) {
		return search{}, false
	}
	if !multicast { // SSDP-42
		return search{st: st}, true
	}
	value, ok := single(r.Header, "MX")
	if !ok {
		return search{}, false
	}
	mx, ok := parseMX(value)
	return search{st: st, mx: mx}, ok
}

// single returns the value of a header that must be there exactly once.
func single(h httpmsg.Header, name string) (string, bool) {
	if h.Count(name) != 1 {
		return "", false
	}
	return h.Get(name)
}

// validST holds SSDP-49. No target of ours has a byte beyond ASCII.
func validST(st string) bool {
	if st == "" || len(st) > maxST {
		return false
	}
	for i := range len(st) {
		if st[i] <= ' ' || st[i] >= 0x7f {
			return false
		}
	}
	return true
}

// parseMX reads the seconds that a client waits: digits only, 0 taken as 1
// and everything above 5 as 5 (SSDP-41).
func parseMX(v string) (time.Duration, bool) {
	if v == "" || len(v) > maxST || strings.Trim(v, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil { // more digits than 32 bits hold
		return maxMX, true
	}
	return max(time.Second, min(time.Duration(n)*time.Second, maxMX)), true
}

// match finds the answers to a search target (SSDP-45 to SSDP-48).
func match(devices []Device, st string) []answer {
	switch {
	case st == "ssdp:all":
		return matchAll(devices)
	case st == "upnp:rootdevice":
		return matchRows(devices, func(d *Device, t Target) string {
			if d.Announce && t.NT == st {
				return t.NT
			}
			return ""
		})
	case strings.HasPrefix(st, "uuid:"):
		return matchRows(devices, func(_ *Device, t Target) string {
			if strings.HasPrefix(t.NT, "uuid:") && strings.EqualFold(t.NT, st) { // SSDP-48
				return t.NT
			}
			return ""
		})
	}
	return matchType(devices, st)
}

// matchAll is the answer to ssdp:all: the rows that are announced (SSDP-20).
func matchAll(devices []Device) []answer {
	return matchRows(devices, func(d *Device, t Target) string {
		if d.Announce {
			return t.NT
		}
		return ""
	})
}

// matchType answers a search for a device or service type. The first root
// device that has the type speaks for all, so that a client which is content
// with version 1 never meets version 2.
func matchType(devices []Device, st string) []answer {
	for i := range devices {
		found := matchRows(devices[i:i+1], func(_ *Device, t Target) string {
			if offers(t.NT, st) {
				return st // the version that was asked (SSDP-46)
			}
			return ""
		})
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// matchRows collects an answer for each row for which pick returns an ST.
func matchRows(devices []Device, pick func(*Device, Target) string) []answer {
	var found []answer
	for i := range devices {
		d := &devices[i]
		for _, t := range d.Targets {
			if st := pick(d, t); st != "" {
				found = append(found, answer{Target{NT: st, UUID: t.UUID}, d})
			}
		}
	}
	return found
}

// offers tells whether the type nt is the type st in the same or a higher
// version (SSDP-46).
func offers(nt, st string) bool {
	name, have, ok := cutVersion(nt)
	if !ok {
		return false
	}
	asked, want, ok := cutVersion(st)
	return ok && name == asked && want <= have
}

// cutVersion splits urn:DOMAIN:device|service:TYPE:VERSION before the version,
// a positive number without leading zeros.
func cutVersion(urn string) (name string, version uint64, ok bool) {
	i := strings.LastIndexByte(urn, ':')
	if i < 0 || !strings.HasPrefix(urn, "urn:") {
		return "", 0, false
	}
	digits := urn[i+1:]
	version, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || digits[0] == '0' {
		return "", 0, false
	}
	return urn[:i], version, true
}

// receive decides about one datagram: the answers that it draws, if any.
func (s *Server) receive(p []byte, packet sock.Packet, now time.Time) (burst, bool) {
	scope, multicast, ok := s.lan.admits(packet)
	if !ok {
		return burst{}, false
	}
	q, ok := parseSearch(p, multicast)
	if !ok {
		return burst{}, false
	}
	answers := match(s.cfg.Devices, q.st)
	if len(answers) == 0 {
		return burst{}, false
	}
	src := packet.Src.Addr()
	ok, tell := s.limit.allow(now, src)
	if tell {
		s.cfg.Logf("ssdp: %s searches too often, only %d searches a second are answered",
			src, time.Second/sourceEvery)
	}
	return burst{to: packet.Src, scope: scope, answers: answers, at: now, mx: q.mx}, ok
}
