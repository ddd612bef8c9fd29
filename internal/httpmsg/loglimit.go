package httpmsg

import (
	"net/netip"
	"sync"
	"time"
)

const (
	logEvery  = time.Minute // one line about one host
	maxLogged = 256         // hosts remembered; all others share one budget
)

// LogLimit keeps hosts from filling the log: of each, one line a minute passes. A
// host with many IPv6 addresses gets no further. The zero value is ready.
type LogLimit struct {
	mu   sync.Mutex
	last map[netip.Addr]time.Time // the last line
}

// Allow reports whether a line about the host may be written now.
func (l *LogLimit) Allow(host netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if _, known := l.last[host]; !known && len(l.last) >= maxLogged {
		for a, at := range l.last {
			if now.Sub(at) >= logEvery {
				delete(l.last, a)
			}
		}
		if len(l.last) >= maxLogged {
			host = netip.Addr{}
		}
	}
	if last, known := l.last[host]; known && now.Sub(last) < logEvery {
		return false
	}
	if l.last == nil {
		l.last = make(map[netip.Addr]time.Time)
	}
	l.last[host] = now
	return true
}
