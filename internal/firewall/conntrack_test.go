//go:build go1.25

package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// playedConn is a ctnetlink whose answers the test gives. Receive finds nothing.
type playedConn struct {
	answer   func(netlink.Message) ([]netlink.Message, error)
	dumps    int
	deletes  int
	drained  int
	closed   chan struct{}
	deadline time.Time
}

func (c *playedConn) Execute(m netlink.Message) ([]netlink.Message, error) {
	switch m.Header.Type {
	case ctGet:
		c.dumps++
	case ctDelete:
		c.deletes++
	}
	if c.answer == nil {
		return nil, nil
	}
	return c.answer(m)
}

func (c *playedConn) Receive() ([]netlink.Message, error) {
	c.drained++
	return nil, os.ErrDeadlineExceeded
}

func (c *playedConn) SetDeadline(t time.Time) error {
	c.deadline = t
	return nil
}

func (c *playedConn) Close() error {
	close(c.closed)
	return nil
}

func played(t *testing.T, answer func(netlink.Message) ([]netlink.Message, error)) (*Flows, *playedConn, *[]string) {
	c := &playedConn{answer: answer, closed: make(chan struct{})}
	var log []string
	f := openFlows(func() (flowConn, error) { return c, nil }, func(format string, args ...any) {
		log = append(log, fmt.Sprintf(format, args...))
	})
	t.Cleanup(func() { f.Close() })
	return f, c, &log
}

func dumped(flows ...[]byte) (replies []netlink.Message) {
	for _, b := range flows {
		replies = append(replies, netlink.Message{Data: b})
	}
	return replies
}

// TestNoConntrack: one line, and then nothing.
func TestNoConntrack(t *testing.T) {
	lines := 0
	f := openFlows(func() (flowConn, error) { return nil, unix.EINVAL }, func(string, ...any) { lines++ })
	f.End(home.External, []portmap.Mapping{web})
	f.Begin(home.External, []portmap.Mapping{web})
	if err := f.Close(); err != nil || lines != 1 {
		t.Errorf("%d lines, Close: %v; want one line", lines, err)
	}
}

// TestCoalesce: the first mapping is looked after at once, and those that
// follow in a burst together.
func TestCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, _ := played(t, nil)
		f.Begin(home.External, []portmap.Mapping{web})
		synctest.Wait()
		if c.dumps != 1 {
			t.Errorf("%d dumps at once, want 1", c.dumps)
		}
		for range 200 {
			f.Begin(home.External, []portmap.Mapping{web})
			time.Sleep(time.Millisecond)
		}
		time.Sleep(flowPause)
		synctest.Wait()
		if c.dumps < 4 || c.dumps > 6 {
			t.Errorf("%d dumps for 200 mappings in 200 ms, want one every %v", c.dumps, flowPause)
		}
		before := c.dumps
		time.Sleep(time.Hour)
		f.End(home.External, []portmap.Mapping{web})
		synctest.Wait()
		if c.dumps != before+2 { // what came in, and what went out
			t.Errorf("%d dumps for one that ends, want 2", c.dumps-before)
		}
	})
}

// TestQueue: what waits is bounded, and neither who adds to it nor Close waits
// for the kernel.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *playedConn
		f, c, log := played(t, func(netlink.Message) ([]netlink.Message, error) {
			<-c.closed // the kernel hangs
			return nil, os.ErrClosed
		})
		many := make([]portmap.Mapping, flowQueue+10)
		for i := range many {
			many[i] = web
		}
		start := time.Now()
		f.Begin(home.External, many)
		f.Begin(home.External, many)
		if since := time.Since(start); since > 0 {
			t.Errorf("Begin waited for %v", since)
		}
		if n := len(f.pending); n > flowQueue || len(*log) != 1 {
			t.Errorf("%d wait, want at most %d; log %q", n, flowQueue, *log)
		}
		f.Close()
		if since := time.Since(start); since > flowCloseTimeout {
			t.Errorf("Close took %v", since)
		}
		f.End(home.External, many) // after Close: nothing
		f.Close()
	})
}

// TestOldKernel: before 5.8 the first dump shows all connections: they are not
// asked for again, and only those of the mapping are deleted.
func TestOldKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, log := played(t, func(m netlink.Message) ([]netlink.Message, error) {
			if m.Header.Type == ctGet {
				other := slicesJoin(genmsg, nested(1, nested(1, attr(1, 1, 1, 1, 1), attr(2, 2, 2, 2, 2)), nested(2, attr(1, 17))), wireID)
				return dumped(other, wireFlow), nil
			}
			return nil, unix.ENOENT // it has ended by itself
		})
		f.End(home.External, []portmap.Mapping{game})
		synctest.Wait()
		if c.dumps != 1 || c.deletes != 1 || len(*log) != 0 {
			t.Errorf("%d dumps, %d deletions, log %q; want 1, 1, none", c.dumps, c.deletes, *log)
		}
	})
}

// TestLostMessages: a dump that lost messages begins again, once; a failure is
// one line until it works again, and late answers are read away.
func TestLostMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := []error{unix.ENOBUFS, nil, unix.ENOBUFS, unix.ENOBUFS, unix.EBUSY}
		f, c, log := played(t, func(m netlink.Message) ([]netlink.Message, error) {
			if m.Header.Type != ctGet || len(errs) == 0 {
				return nil, nil
			}
			err := errs[0]
			errs = errs[1:]
			return dumped(wireFlow), err
		})
		for _, want := range []struct{ dumps, lines int }{{2, 0}, {4, 1}, {5, 1}, {6, 1}} {
			f.Begin(home.External, []portmap.Mapping{game})
			time.Sleep(time.Second)
			synctest.Wait()
			if c.dumps != want.dumps || len(*log) != want.lines {
				t.Errorf("%d dumps, log %q; want %+v", c.dumps, *log, want)
			}
		}
		if c.drained != 4 || !c.deadline.After(time.Now()) {
			t.Errorf("late answers were looked for %d times, want 4", c.drained)
		}
		errs = []error{errors.New("again")}
		f.Begin(home.External, []portmap.Mapping{game})
		time.Sleep(time.Second)
		synctest.Wait()
		if len(*log) != 2 {
			t.Errorf("after it worked, a failure has a line of its own: %q", *log)
		}
	})
}

// TestFilters: what the kernel is asked for is what the mappings have in common.
func TestFilters(t *testing.T) {
	other := game
	other.ExternalPort, other.InternalPort = 18081, 8081
	tcp, second := web, other
	second.Client = addr("192.168.77.20")
	begin := func(m portmap.Mapping) change { return change{newMapped(home.External, &m), true} }
	end := func(m portmap.Mapping) change { return change{newMapped(home.External, &m), false} }
	anywhere := netip.AddrPortFrom(home.External, 0)
	client := netip.AddrPortFrom(game.Client, 0)
	for name, tt := range map[string]struct {
		batch []change
		want  []tuple
	}{
		"one begins":   {[]change{begin(game)}, []tuple{{proto: 17, dst: ap("11.0.0.2:18080")}}},
		"one ends":     {[]change{end(game)}, []tuple{{proto: 17, dst: ap("11.0.0.2:18080")}, {proto: 17, src: ap("192.168.77.10:8080")}}},
		"WIP-9":        {[]change{begin(only(game, "11.0.0.9"))}, []tuple{{proto: 17, src: netip.AddrPortFrom(addr("11.0.0.9"), 0), dst: ap("11.0.0.2:18080")}}},
		"two ports":    {[]change{begin(game), end(other)}, []tuple{{proto: 17, dst: anywhere}, {proto: 17, src: ap("192.168.77.10:8081")}}},
		"one host's":   {[]change{end(game), end(other)}, []tuple{{proto: 17, dst: anywhere}, {proto: 17, src: client}}},
		"one port":     {[]change{end(game), end(tcp)}, []tuple{{dst: anywhere}, {src: client}}},
		"two hosts":    {[]change{end(game), end(second)}, []tuple{{}}},
		"any and one":  {[]change{begin(only(game, "11.0.0.9")), begin(game)}, []tuple{{proto: 17, dst: ap("11.0.0.2:18080")}}},
		"new and gone": {[]change{end(game), begin(second)}, []tuple{{proto: 17, dst: anywhere}, {proto: 17, src: ap("192.168.77.10:8080")}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := filters(tt.batch); fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
