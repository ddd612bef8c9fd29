//go:build go1.25

package httpmsg

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// One host with as many IPv6 addresses as it likes does not fill the log.
func TestLogLimit(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		var l LogLimit
		flood := func() (lines int) {
			a := netip.MustParseAddr("2001:db8::1")
			for range 10 * maxLogged {
				if l.Allow(a) {
					lines++
				}
				a = a.Next()
			}
			return lines
		}
		if n := flood(); n != maxLogged+1 {
			t.Errorf("%d lines of a flood, want %d", n, maxLogged+1)
		}
		if n := len(l.last); n > maxLogged+1 {
			t.Errorf("%d hosts remembered", n)
		}
		if n := flood(); n != 0 {
			t.Errorf("%d lines of a second one, want none", n)
		}
		time.Sleep(logEvery)
		late := netip.MustParseAddr("192.168.1.10")
		if !l.Allow(late) || l.Allow(late) {
			t.Error("a minute later: one line of another host")
		}
		if n := flood(); n != maxLogged {
			t.Errorf("%d lines of a flood a minute later, want %d", n, maxLogged)
		}
	})
}
