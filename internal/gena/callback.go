package gena

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	maxCallbackBytes = 512 // GENA-13
	maxCallbacks     = 4   // GENA-13
)

var errCallback = errors.New("CALLBACK is not <http://ADDRESS:PORT/PATH>, in at most 512 bytes and 4 URLs")

// A callback is where a subscriber wants its events.
type callback struct {
	to     netip.AddrPort
	target string // path and query as the subscriber wrote them
}

// parseCallback reads "<URL><URL>". Every URL must lead to the subscriber
// itself, as host is known from its connection: a router that sends events to
// others is a weapon (CallStranger; GENA-13). One bad URL spoils all.
func parseCallback(s string, host netip.Addr) ([]callback, error) {
	var urls []callback
	for rest := s; ; {
		rest = strings.Trim(rest, " \t")
		end := strings.IndexByte(rest, '>')
		if end < 0 || rest[0] != '<' || len(s) > maxCallbackBytes || len(urls) == maxCallbacks {
			return nil, errCallback
		}
		c, err := parseURL(rest[1:end], host)
		if err != nil {
			return nil, err
		}
		urls = append(urls, c)
		if rest = rest[end+1:]; rest == "" {
			return urls, nil
		}
	}
}

// parseURL reads http://ADDRESS[:PORT][PATH][?QUERY]. There is no user before
// the address and no fragment, and nothing that could end a line.
func parseURL(s string, host netip.Addr) (callback, error) {
	const scheme = "http://"
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '<' || s[i] == '#' {
			return callback{}, errCallback
		}
	}
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return callback{}, errCallback
	}
	authority, target := s[len(scheme):], "/"
	if i := strings.IndexAny(authority, "/?"); i >= 0 {
		authority, target = authority[:i], authority[i:]
		if target[0] == '?' {
			target = "/" + target
		}
	}
	to, ok := parseAuthority(authority)
	if !ok {
		return callback{}, errCallback
	}
	if to.Addr() != host {
		return callback{}, fmt.Errorf("its callback leads to %v, which is not itself", to.Addr())
	}
	return callback{to, target}, nil
}

// parseAuthority reads "1.2.3.4", "1.2.3.4:80", "[fe80::1]" or "[fe80::1]:80".
// A zone is dropped: the LAN that the request came from says it (GENA-14). An
// IPv4 address in IPv6 clothes stays what it is, and so is nobody's (GENA-13).
func parseAuthority(s string) (netip.AddrPort, bool) {
	addr, port, hasPort := strings.Cut(s, ":")
	inside, six := strings.CutPrefix(s, "[")
	if six {
		var rest string
		var closed bool
		addr, rest, closed = strings.Cut(inside, "]")
		if port, hasPort = strings.CutPrefix(rest, ":"); !closed || !hasPort && rest != "" {
			return netip.AddrPort{}, false
		}
	}
	if !hasPort {
		port = "80"
	}
	ip, err := netip.ParseAddr(addr)
	n, errPort := strconv.ParseUint(port, 10, 16)
	if err != nil || errPort != nil || n == 0 || ip.Is6() != six {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(ip.WithZone(""), uint16(n)), true
}
