package firewall

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// stream sends numbered datagrams from the internet to an external port, each
// second one as a connection of its own, and counts which of them arrive at a
// LAN host's port 8080.
type stream struct {
	sent, arrived atomic.Uint32
	stop          func()
	done          chan struct{}
}

func newStream(t *testing.T, l *lab.Lab, to string) *stream {
	t.Helper()
	sink, err := l.LAN1.ListenUDP("192.168.77.10:8080")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &stream{stop: cancel, done: make(chan struct{})}
	t.Cleanup(func() { cancel(); <-s.done })
	go func() {
		for buf := make([]byte, 1); ; s.arrived.Add(1) {
			if _, err := sink.Read(buf); err != nil {
				return
			}
		}
	}()
	fixed, err := l.Internet.ListenUDP("11.0.0.1:4000")
	if err != nil {
		t.Fatal(err)
	}
	send := func(c *net.UDPConn, err error) {
		if err == nil {
			_, err = c.WriteToUDPAddrPort([]byte{0}, ap(to))
		}
		if err != nil {
			t.Error(err)
		}
		s.sent.Add(1)
	}
	go l.Internet.Do(func() error { // the sockets that it makes are the internet's
		defer close(s.done)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(200 * time.Microsecond):
			}
			send(fixed, nil)
			c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(11, 0, 0, 1)})
			if send(c, err); err == nil {
				c.Close()
			}
		}
	})
	return s
}

// end says how many were sent and how many are lost, once no more arrive.
func (s *stream) end(t *testing.T) (sent, lost uint32) {
	t.Helper()
	s.stop()
	<-s.done
	sent = s.sent.Load()
	for end := time.Now().Add(time.Second); s.arrived.Load() < sent && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	return sent, sent - s.arrived.Load()
}

// TestTakeOver: a stream through a mapping loses no packet when a run that was
// killed is followed by another, also with other options; a connection through a
// mapping that is not restored ends (issue 4, point 2).
func TestTakeOver(t *testing.T) {
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		for _, chain := range []string{"nat my_prerouting PREROUTING", "filter my_forward FORWARD"} {
			word := strings.Fields(chain)
			l.Router.Run(t, v, "-t", word[0], "-N", word[1])
			l.Router.Run(t, v, "-t", word[0], "-A", word[2], "-j", word[1])
		}
		before := l.Rules(v)
		other := options(v)
		other.PreroutingChain, other.ForwardChain, other.ForwardAppend = "my_prerouting", "my_forward", true

		gone := only(game, "11.0.0.1")
		gone.ExternalPort, gone.Client = 18081, addr("192.168.77.20")
		kept := []portmap.Mapping{game, web}
		if _, err := l.LAN2.EchoUDP(8080); err != nil {
			t.Fatal(err)
		}
		killed := take(t, l, other, 0)
		on(t, l, func() error { return killed.Sync(home, append(kept, gone)) })
		s, p := newStream(t, l, "11.0.0.2:18080"), newPeer(t, l.Internet, "11.0.0.1:4001")
		for _, o := range []IPTablesOptions{other, options(v), other, options(v)} {
			until(t, "the mapping that will be gone is open", func() bool { return p.ask("11.0.0.2:18081") != "" })
			f := take(t, l, o, 3)
			on(t, l, func() error { return f.Sync(home, kept) })
			until(t, "a connection of a mapping that is not restored ends", func() bool { return p.ask("11.0.0.2:18081") == "" })
			on(t, l, func() error { return f.Change(nil, &gone) })
		}
		sent, lost := s.end(t)
		t.Logf("%d datagrams sent", sent)
		if lost != 0 || sent < 100 {
			t.Errorf("%d of %d datagrams are lost", lost, sent)
		}
		f := take(t, l, options(v), 3)
		on(t, l, f.Close)
		if got := l.Rules(v); got != before {
			t.Errorf("after all that and Close\n%s\nwant\n%s", got, before)
		}
	})
}

// take starts a run that finds that many mappings of an earlier one.
func take(t *testing.T, l *lab.Lab, o IPTablesOptions, mappings int) *IPTables {
	t.Helper()
	before := l.Rules(strings.TrimPrefix(o.Location, "/usr/sbin/"))
	f, err := open(t, l, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.inForce.flows.Close() }) // of a run that is not closed
	if got := l.Rules(strings.TrimPrefix(o.Location, "/usr/sbin/")); got != before {
		t.Errorf("the start made\n%s\nof\n%s", got, before)
	}
	if n := len(f.inForce.mapped); n != mappings {
		t.Errorf("took over %d mappings, want %d", n, mappings)
	}
	return f
}

// TestOtherOptions: what a run with other options left goes with the first Sync,
// and then the kernel has what a first run makes; forward rules that are not
// wanted any more go at the start; chains of others stay; and a plain jump that
// the administrator makes later, too.
func TestOtherOptions(t *testing.T) {
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		l.Router.Run(t, v, "-t", "nat", "-N", "my_prerouting")
		l.Router.Run(t, v, "-t", "nat", "-A", "my_prerouting", "-p", "tcp", "--dport", "1", "-j", "RETURN")
		l.Router.Run(t, v, "-N", "UPNPDX")
		before := l.Rules(v)
		all := []portmap.Mapping{web}
		first := take(t, l, options(v), 0)
		on(t, l, func() error { return first.Sync(home, all) })
		fresh := l.Rules(v)
		on(t, l, first.Close)

		o := options(v)
		o.PreroutingChain, o.ForwardAppend = "my_prerouting", true
		killed := take(t, l, o, 0)
		on(t, l, func() error { return killed.Sync(home, all) })
		wantOrder(t, l.Rules(v), "-A FORWARD -m conntrack", "-A FORWARD -j UPNPD")
		if !strings.Contains(l.Rules(v), "-A my_prerouting -j UPNPD-PRE") {
			t.Errorf("no jump from my_prerouting:\n%s", l.Rules(v))
		}
		l.Router.Run(t, v, "-D", "FORWARD", "-j", "UPNPD")
		f := take(t, l, options(v), 1)
		on(t, l, func() error { return f.Sync(home, all) })
		if got := l.Rules(v); got != fresh {
			t.Errorf("taken over\n%s\nwant\n%s", got, fresh)
		}
		l.Router.Run(t, v, "-t", "nat", "-A", "OUTPUT", "-j", "UPNPD-PRE")
		on(t, l, func() error { return f.Sync(home, all) })
		if got := l.Rules(v); !strings.Contains(got, "-A OUTPUT -j UPNPD-PRE") {
			t.Errorf("the administrator's jump is gone:\n%s", got)
		}

		o.ForwardRules = false
		f, err := open(t, l, o)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Rules(v); strings.Contains(got, "-A FORWARD -j UPNPD\n") || strings.Contains(got, "-N UPNPD\n-N UPNPDX") {
			t.Errorf("forward rules that are not wanted:\n%s", got)
		}
		on(t, l, f.Close)
		if got := l.Rules(v); got != before {
			t.Errorf("after Close\n%s\nwant\n%s", got, before)
		}
	})
}

// TestMappingsIn: what is read of a listing, and what is not.
func TestMappingsIn(t *testing.T) {
	const listing = `-P PREROUTING ACCEPT -c 10 600
-N UPNPD
-A PREROUTING -c 9 90 -j UPNPD-PRE
-A PREROUTING -d 9.9.9.9/32 -p tcp -m tcp --dport 1 -c 0 0 -j DNAT --to-destination 1.2.3.4:5
-A UPNPD -s 11.0.0.1/32 -p udp -m udp --dport 18080 -c 18446744073709551615 7 -j DNAT --to-destination 192.168.77.10:8080
-A UPNPD -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.168.77.10:8080
-A UPNPD -p tcp -m tcp --dport 81 -j RETURN
-A UPNPD -p gre -j DNAT --to-destination 192.168.77.10
-A UPNPD
-A UPNPD-PRE -d 11.0.0.2/32 -c 0 0 -j CONNMARK --set-xmark 0x10000000/0x10000000
-A UPNPD-PRE -d 11.0.0.2/32 -c 0 0 -j UPNPD
`
	at := func(proto uint8, remote netip.Addr, port uint16) mapped {
		return mapped{proto: proto, remote: remote, external: netip.AddrPortFrom(addr("11.0.0.2"), port), client: ap("192.168.77.10:8080")}
	}
	want := map[mapped]string{at(17, addr("11.0.0.1"), 18080): "-c 18446744073709551615 7 ", at(6, netip.Addr{}, 80): ""}
	got := mappingsIn(listing)
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for m, n := range want {
		if have, ok := got[m]; !ok || have != n {
			t.Errorf("%v: %q %v, want %q", m, have, ok, n)
		}
	}
}

// TestPackets: each mapping has its own number, which a renewal, a new target, a
// Sync and another run keep, and which never goes back while packets come in.
func TestPackets(t *testing.T) {
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		f := take(t, l, options(v), 0)
		packets := func() (all map[portmap.Key]uint64) {
			t.Helper()
			on(t, l, func() (err error) { all, err = f.Packets(); return err })
			return all
		}
		from := only(game, "11.0.0.1")
		all := []portmap.Mapping{web, game}
		on(t, l, func() error { return f.Sync(home, append(all, from)) })
		want := map[portmap.Key]uint64{web.Key: 0, game.Key: 0, from.Key: 2}
		echo, err := l.LAN1.EchoUDP(8080)
		if err != nil {
			t.Fatal(err)
		}
		connect := func(times int) {
			t.Helper()
			for range times {
				if _, err := l.ReachUDP(l.Internet, "11.0.0.2:18080", 2*time.Second); err != nil {
					t.Fatal(err)
				}
			}
		}
		connect(2)
		check := func(what string) {
			t.Helper()
			if got := packets(); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %v, want %v", what, got, want)
			}
		}
		check("two datagrams for the mapping with RemoteHost")
		on(t, l, func() error { return f.Change([]portmap.Mapping{from}, nil) })
		delete(want, from.Key)
		check("it is gone")
		connect(3)
		want[game.Key] = 3
		check("three datagrams")
		on(t, l, func() error { return f.Change([]portmap.Mapping{game}, &game) })
		check("renewed")
		moved := game
		moved.Client = addr("192.168.77.20")
		on(t, l, func() error { return f.Change([]portmap.Mapping{game}, &moved) })
		check("another target")
		on(t, l, func() error { return f.Sync(home, all) })
		check("synced")
		on(t, l, func() error { return f.Change([]portmap.Mapping{web}, nil) })
		on(t, l, func() error { return f.Change(nil, &web) })
		f = take(t, l, options(v), 2)
		on(t, l, func() error { return f.Sync(home, all) })
		check("taken over")

		echo.Close()
		s := newStream(t, l, "11.0.0.2:18080")
		last := want[game.Key]
		for range 30 {
			on(t, l, func() error { return f.Sync(home, all) })
			n := packets()[game.Key]
			if n < last {
				t.Fatalf("%d packets, and before it were %d", n, last)
			}
			last = n
		}
		if sent, _ := s.end(t); last < 20 {
			t.Errorf("only %d of %d packets are counted", last, sent)
		}
		on(t, l, f.Close)
	})
}
