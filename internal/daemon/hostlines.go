package daemon

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/linux-igd/upnpd/internal/config"
)

// No LAN host may fill the log, with grants, refusals or junk: a line about it that
// goes beyond its share is left out, and soon a line says how many were.
const (
	hostBurst = 50               // lines about one host at once: a household has no more
	hostEvery = 10 * time.Second // until one more may follow, and the omitted ones are told of
	maxHosts  = 32               // remembered at once; all others share one budget
)

// hostLines counts the lines about each host. The zero Addr stands for those that
// are not remembered.
type hostLines struct {
	mu      sync.Mutex
	hosts   map[netip.Addr]*budget
	pending bool // somebody will tell of omitted lines
}

// budget is a token bucket.
type budget struct {
	full    time.Time // when it has hostBurst lines again
	omitted int       // lines since the last that told of them
}

// allow reports whether a line with these args may be written now. If not, it has tell
// called after hostEvery.
func (h *hostLines) allow(args []any, tell func()) bool {
	var host netip.Addr
	for _, a := range args {
		if addr, ok := a.(netip.Addr); ok && addr.IsValid() {
			host = addr.Unmap().WithZone("")
			break
		}
	}
	if !host.IsValid() {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	b := h.budget(host, now)
	if b.full.Before(now) {
		b.full = now
	}
	if full := b.full.Add(hostEvery); full.Sub(now) <= hostBurst*hostEvery {
		b.full = full
		return true
	}
	b.omitted++
	if !h.pending {
		h.pending = true
		time.AfterFunc(hostEvery, tell)
	}
	return false
}

// budget finds that of a host. Who has all of it is forgotten when there are too many.
func (h *hostLines) budget(host netip.Addr, now time.Time) *budget {
	if h.hosts == nil {
		h.hosts = map[netip.Addr]*budget{}
	}
	if h.hosts[host] == nil && len(h.hosts) >= maxHosts {
		for a, b := range h.hosts {
			if !b.full.After(now) && b.omitted == 0 {
				delete(h.hosts, a)
			}
		}
		if len(h.hosts) >= maxHosts {
			host = netip.Addr{}
		}
	}
	b := h.hosts[host]
	if b == nil {
		b = &budget{}
		h.hosts[host] = b
	}
	return b
}

// OmittedLines writes how many lines about hosts were left out since the last time.
// The Log calls it by itself; who ends calls it once more.
func (l *Log) OmittedLines() {
	var lines []string
	l.hosts.mu.Lock()
	l.hosts.pending = false
	for a, b := range l.hosts.hosts {
		if b.omitted > 0 {
			who := "other hosts"
			if a.IsValid() {
				who = a.String()
			}
			lines = append(lines, fmt.Sprintf("%d more lines about %s were left out", b.omitted, who))
			b.omitted = 0
		}
	}
	l.hosts.mu.Unlock()
	for _, line := range lines {
		l.printf(config.LogInfo, "%s", line)
	}
}
