//go:build go1.25

package ssdp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linux-igd/upnpd/internal/sock"
)

func TestRandomDelays(t *testing.T) { // SSDP-30, SSDP-32, SSDP-43: asked for with the right bounds
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(v1())
		var mu sync.Mutex
		var asked []time.Duration
		cfg.Rand = func(d time.Duration) time.Duration {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, d)
			return 0
		}
		r := begin(t, cfg)
		r.answers(mSearch(man, "MX: 1", all), Group4())
		r.answers(mSearch(man, "MX: 1", all), routerAddr) // unicast: none (SSDP-42)
		r.end()
		want := []time.Duration{100 * time.Millisecond, 450 * time.Second, 100 * time.Millisecond}
		if !slices.Equal(asked, want) {
			t.Errorf("random times asked for: %v, want %v", asked, want)
		}
	})
}

func TestMulticastAnswers(t *testing.T) { // SSDP-43, SSDP-44
	for _, mx := range []string{"0", "1", "2", "5", "120"} {
		synctest.Test(t, func(t *testing.T) {
			r := begin(t, testConfig(v1()))
			firsts := map[time.Duration]bool{}
			for range 20 {
				got, at := r.answers(mSearch(man, "MX: "+mx, all), Group4())
				if want := pairsOf(v1().Targets); !slices.Equal(pairs(got), want) {
					t.Fatalf("MX %s: answers %v", mx, got)
				}
				firsts[got[0].at-at] = true
				for i, m := range got {
					if since := m.at - at; since > 150*time.Millisecond {
						t.Errorf("MX %s: answer %d %v after the search", mx, i, since)
					}
					if i > 0 && m.at == got[i-1].at {
						t.Errorf("MX %s: answers %d and %d leave together", mx, i-1, i)
					}
					if m.to != hostAddr1 || m.src != routerAddr || m.start != "HTTP/1.1 200 OK" {
						t.Errorf("MX %s: %s to %s from %s", mx, m.start, m.to, m.src)
					}
				}
			}
			if len(firsts) < 10 {
				t.Errorf("MX %s: only %d different delays in 20 searches", mx, len(firsts))
			}
			r.end()
		})
	}
}

// A later search may be answered earlier, and no burst holds up another.
func TestBurstsOverlap(t *testing.T) { // SSDP-43
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(v1())
		delay := 90 * time.Millisecond
		cfg.Rand = func(time.Duration) time.Duration {
			chosen := delay
			delay = 0
			return chosen
		}
		r := begin(t, cfg)
		delay = 90 * time.Millisecond
		synctest.Wait()
		at, other := time.Since(r.begun), netip.MustParseAddrPort("192.168.77.20:1234")
		r.search(mSearch(man, "MX: 1", "ST: upnp:rootdevice"), hostAddr1, Group4())
		synctest.Wait()
		r.search(mSearch(man, "MX: 1", all), other, Group4())
		time.Sleep(time.Second)
		synctest.Wait()
		got := r.take()
		if len(got) != 11 || got[0].to != other || got[0].at != at || got[9].at != at+36*time.Millisecond ||
			got[10].to != hostAddr1 || got[10].at != at+90*time.Millisecond {
			t.Errorf("answers to overlapping searches: %v", got)
		}
		r.end()
	})
}

// Even the latest start and the longest tree leave in time.
func TestLongestBurst(t *testing.T) { // SSDP-43
	synctest.Test(t, func(t *testing.T) {
		device := v1()
		for i := range 40 {
			device.Targets = append(device.Targets, Target{fmt.Sprintf("urn:x:service:S%d:1", i), uuidC})
		}
		cfg := testConfig(device)
		cfg.Rand = func(d time.Duration) time.Duration { return d - 1 }
		r := begin(t, cfg)
		got, at := r.answers(mSearch(man, "MX: 5", all), Group4())
		if len(got) != 50 {
			t.Fatalf("%d answers, want 50", len(got))
		}
		if last := got[49].at - at; last > 150*time.Millisecond {
			t.Errorf("the last answer left after %v", last)
		}
		r.end()
	})
}

func TestUnicastAnswers(t *testing.T) { // SSDP-42, INT-11
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, testConfig(v1()))
		for _, datagram := range []string{
			mSearch(man, all),
			mSearch(man, "MX: 2", all),
			"M-SEARCH * HTTP/1.1\r\nHOST: 192.168.77.1:1900\r\n" + man + "\r\n" + all + "\r\n\r\n",
		} {
			got, at := r.answers(datagram, routerAddr)
			if want := pairsOf(v1().Targets); !slices.Equal(pairs(got), want) {
				t.Fatalf("%q: answers %v", datagram, got)
			}
			for _, m := range got {
				if m.at != at || m.to != hostAddr1 || m.src != routerAddr {
					t.Errorf("answer %v after the search to %s from %s", m.at-at, m.to, m.src)
				}
			}
		}
		r.end()
	})
}

// Searches are answered from the first moment, in the middle of the byebyes.
func TestAnswersAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, testConfig(v1()))
		synctest.Wait()
		r.take()
		r.search(mSearch(man, "ST: upnp:rootdevice"), hostAddr1, routerAddr)
		synctest.Wait()
		if got := r.take(); len(got) != 1 || got[0].fields["ST"] != "upnp:rootdevice" {
			t.Errorf("answers before the first alive: %v", got)
		}
		r.end()
	})
}

func TestSilence(t *testing.T) { // SSDP-4, SSDP-40, SSDP-41, SSDP-45, SSDP-50, SSDP-51
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, testConfig(v1()))
		good := mSearch(man, "MX: 1", all)
		host, group := sock.Packet{Src: hostAddr1, Dst: Group4(), IfIndex: lanIndex}, Group4()
		for _, in := range []received{
			{datagram: mSearch(man, all), packet: host},
			{datagram: mSearch("MX: 1", all), packet: host},
			{datagram: mSearch(man, "MX: 1", "ST: urn:dial-multiscreen-org:service:dial:1"), packet: host},
			{datagram: strings.Replace(good, "M-SEARCH", "NOTIFY", 1), packet: host},
			{datagram: "HTTP/1.1 200 OK\r\nST: ssdp:all\r\n\r\n", packet: host},
			{datagram: "", packet: host},
			{datagram: good, packet: sock.Packet{Src: hostAddr1, Dst: group, IfIndex: lanIndex + 1}},
			{datagram: good, packet: sock.Packet{Src: netip.MustParseAddrPort("11.0.0.1:5000"), Dst: group, IfIndex: lanIndex}},
			{datagram: good, packet: sock.Packet{Src: netip.AddrPortFrom(routerAddr, 1900), Dst: group, IfIndex: lanIndex}},
		} {
			r.in <- in
		}
		for range 10 * maxReadErrors {
			r.in <- received{datagram: good, packet: host, err: sock.ErrTruncated}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := r.take(); len(got) != 0 {
			t.Errorf("answered: %v", got)
		}
		if got, _ := r.answers(good, group); len(got) != 10 {
			t.Errorf("a good search afterwards draws %d answers, want 10", len(got))
		}
		r.end()
	})
}

func TestFlood(t *testing.T) { // SSDP-51
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, testConfig(v1()))
		for range 1000 {
			r.search(mSearch(man, "MX: 5", all), hostAddr1, Group4())
			synctest.Wait()
		}
		r.search(mSearch(man, "MX: 5", all), netip.MustParseAddrPort("192.168.77.20:1234"), Group4())
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		perHost := map[netip.AddrPort]int{}
		for _, m := range r.take() {
			perHost[m.to]++
		}
		if perHost[hostAddr1] != 300 {
			t.Errorf("1000 searches drew %d answers, want 300", perHost[hostAddr1])
		}
		if n := perHost[netip.MustParseAddrPort("192.168.77.20:1234")]; n != 10 {
			t.Errorf("another host got %d answers, want 10", n)
		}
		if len(r.logged) != 1 || !strings.Contains(r.logged[0], "192.168.77.10") {
			t.Errorf("logged %q, want one line about 192.168.77.10", r.logged)
		}
		r.end()
	})
}

func TestQueueBounded(t *testing.T) { // SSDP-51
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(v1())
		cfg.Rand = func(d time.Duration) time.Duration { return d - 1 }
		s := New(cfg, testLAN(), &fakeConn{t: t, in: make(chan received)})
		// More searches at one time than the limiter would ever let through.
		b := burst{to: hostAddr1, scope: s.lan.Scopes[0], answers: match(cfg.Devices, "ssdp:all"), mx: time.Second}
		ctx, stop := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- s.serve(ctx, nil, nil) }()
		synctest.Wait()
		s.conn.(*fakeConn).take()
		for range 3 * maxPending {
			b.at = time.Now()
			s.found <- b
		}
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		if got := len(s.conn.(*fakeConn).take()); got != 10*maxPending {
			t.Errorf("%d answers sent, want %d", got, 10*maxPending)
		}
		stop()
		<-served
	})
}

func TestAnswerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, testConfig(v1()))
		r.failWith(errors.New("operation not permitted"))
		r.answers(mSearch(man, "MX: 1", all), Group4())
		r.answers(mSearch(man, "MX: 1", all), Group4())
		if len(r.logged) != 1 {
			t.Errorf("logged %q, want one line", r.logged)
		}
		r.failWith(nil)
		if got, _ := r.answers(mSearch(man, "MX: 1", all), Group4()); len(got) != 10 {
			t.Errorf("%d answers once it works again", len(got))
		}
		r.end()
	})
}

func TestReadFails(t *testing.T) {
	for _, tt := range []struct {
		err   error
		reads int // that end Run
	}{
		{errors.New("input/output error"), maxReadErrors},
		{fmt.Errorf("read: %w", os.ErrClosed), 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := begin(t, testConfig(v1()))
			for range tt.reads - 1 {
				r.in <- received{err: tt.err}
			}
			if got, _ := r.answers(mSearch(man, "MX: 1", all), Group4()); len(got) != 10 {
				t.Errorf("%d answers after %d failures", len(got), tt.reads-1)
			}
			for range tt.reads {
				r.in <- received{err: tt.err}
			}
			if err := <-r.done; !errors.Is(err, tt.err) {
				t.Errorf("Run returned %v, want %v", err, tt.err)
			}
			if got := sets(r.take()); len(got) != 2 || got[0][0].fields["NTS"] != "ssdp:byebye" {
				t.Errorf("no goodbye before the error: %v", got)
			}
		})
	}
}
