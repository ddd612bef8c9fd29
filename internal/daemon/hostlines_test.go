//go:build go1.25

package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var one, two = netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("fe80::1%br-lan")

// Issue 8, 4: a host that floods the log has its share, then there is one line with
// the number of those left out; then nothing wakes the daemon.
func TestHostLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		l := NewLog(&out, &out)
		take := func() []string {
			synctest.Wait()
			return strings.FieldsFunc(out.take(), func(r rune) bool { return r == '\n' })
		}
		for i := range 1000 {
			l.Infof("refused %v: %d", one, i)
		}
		if got := take(); len(got) != hostBurst || got[hostBurst-1] != "refused 192.168.1.10: 49" {
			t.Errorf("a flood: %d lines, %q, want %d", len(got), got, hostBurst)
		}
		l.Infof("AddPortMap: %[2]d", two, 80)
		l.Infof("the kernel is equal again")
		l.Warnf("about %v itself", one)
		if got, want := take(), []string{"AddPortMap: 80", "the kernel is equal again", "about 192.168.1.10 itself"}; !slices.Equal(got, want) {
			t.Errorf("beside it: %q, want %q", got, want)
		}
		time.Sleep(hostEvery)
		if got, want := take(), []string{"950 more lines about 192.168.1.10 were left out"}; !slices.Equal(got, want) {
			t.Errorf("after %v: %q, want %q", hostEvery, got, want)
		}
		l.Infof("refused %v: again", one)
		l.Infof("refused %v: again", one)
		if got, want := take(), []string{"refused 192.168.1.10: again"}; !slices.Equal(got, want) {
			t.Errorf("then %q, want %q", got, want)
		}
		l.OmittedLines() // as at the end
		if got, want := take(), []string{"1 more lines about 192.168.1.10 were left out"}; !slices.Equal(got, want) {
			t.Errorf("at the end: %q, want %q", got, want)
		}
		time.Sleep(time.Hour)
		for range hostBurst {
			l.Infof("refused %v: later", one)
		}
		if got := take(); len(got) != hostBurst {
			t.Errorf("an hour later: %d lines, want %d", len(got), hostBurst)
		}
	})
}

// Of a flood by many addresses the sum is bounded, and so is what is remembered.
func TestLinesOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		l := NewLog(&out, &out)
		const many = 200
		flood := func(net byte) int {
			out.take()
			for i := range many {
				for range 2 * hostBurst {
					l.Infof("refused %v", netip.AddrFrom4([4]byte{10, 9, net, byte(i)}))
				}
			}
			return strings.Count(out.take(), "\n")
		}
		const most = (maxHosts + 1) * hostBurst
		if n := flood(1); n != most {
			t.Errorf("%d lines, want %d", n, most)
		}
		if n := flood(1); n != 0 {
			t.Errorf("at once again: %d lines, want none", n)
		}
		time.Sleep(hostEvery)
		synctest.Wait()
		// The remembered ones had 3 bursts too many each, the others what is left.
		omitted := 2*many*2*hostBurst - most - maxHosts*3*hostBurst
		text, want := out.take(), fmt.Sprintf("%d more lines about other hosts were left out\n", omitted)
		if n := strings.Count(text, "\n"); n != maxHosts+1 || !strings.Contains(text, want) {
			t.Errorf("%d lines, want %d, and %q", n, maxHosts+1, want)
		}
		time.Sleep(time.Hour)
		if n := flood(100); n != most { // those of then are forgotten
			t.Errorf("others, an hour later: %d lines, want %d", n, most)
		}
		if n := len(l.hosts.hosts); n != maxHosts+1 {
			t.Errorf("%d hosts remembered", n)
		}
	})
}

// take gives what was written since the last time.
func (l *lockedBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}
