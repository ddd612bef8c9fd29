//go:build go1.25

package ssdp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linux-igd/upnpd/internal/sock"
)

// sent is one datagram that the server sent.
type sent struct {
	at     time.Duration // since the start
	to     netip.AddrPort
	src    netip.Addr
	start  string // start line
	fields map[string]string
}

func (m sent) String() string {
	return fmt.Sprintf("%v %s %s %s", m.at, m.to, m.fields["NTS"], m.fields["USN"])
}

type received struct {
	datagram string
	packet   sock.Packet
	err      error
}

// fakeConn is the socket of a Server in a bubble of testing/synctest.
type fakeConn struct {
	t     *testing.T
	begun time.Time
	in    chan received

	mu   sync.Mutex
	log  []sent
	fail error      // of every WriteTo
	gone netip.Addr // which cannot be sent from
}

func (c *fakeConn) ReadFrom(ctx context.Context, p []byte) (int, sock.Packet, error) {
	select {
	case <-ctx.Done():
		return 0, sock.Packet{}, ctx.Err()
	case r := <-c.in:
		return copy(p, r.datagram), r.packet, r.err
	}
}

func (c *fakeConn) WriteTo(ctx context.Context, p []byte, to netip.AddrPort, src netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	if c.gone.IsValid() && src == c.gone {
		return errors.New("cannot assign requested address")
	}
	lines := strings.Split(string(p), "\r\n")
	m := sent{at: time.Since(c.begun), to: to, src: src, start: lines[0], fields: map[string]string{}}
	if len(lines) < 3 || lines[len(lines)-1] != "" || lines[len(lines)-2] != "" {
		c.t.Errorf("message does not end with an empty line: %q", p) // SSDP-3
	}
	for _, line := range lines[1 : len(lines)-2] {
		name, value, _ := strings.Cut(line, ":")
		m.fields[name] = strings.TrimSpace(value)
	}
	c.log = append(c.log, m)
	return nil
}

// take returns what was sent since the last call.
func (c *fakeConn) take() []sent {
	c.mu.Lock()
	defer c.mu.Unlock()
	log := c.log
	c.log = nil
	return log
}

func (c *fakeConn) failWith(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = err
}

func (c *fakeConn) setGone(src netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = src
}

func parse(addr string) netip.Addr { return netip.MustParseAddr(addr) }

// running is a Server that runs in a bubble.
type running struct {
	*fakeConn
	stop      context.CancelFunc
	done      chan error
	announced []time.Duration // successes
	refused   error           // what announced was told instead
	logged    []string
}

// start runs a server in the bubble of the test; the bubble waits for its end.
func start(t *testing.T, cfg Config) *running { return startOn(t, cfg, testLAN()) }

// startOn is start on another LAN, after prepare.
func startOn(t *testing.T, cfg Config, lan LAN, prepare ...func(*running)) *running {
	r := &running{
		fakeConn: &fakeConn{t: t, begun: time.Now(), in: make(chan received)},
		done:     make(chan error, 1),
	}
	var mu sync.Mutex
	cfg.Logf = func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		r.logged = append(r.logged, fmt.Sprintf(format, args...))
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	t.Cleanup(stop)
	for _, f := range prepare {
		f(r)
	}
	s := New(cfg, lan, r)
	go func() {
		r.done <- s.Run(ctx, func(err error) {
			if r.refused = err; err == nil {
				r.announced = append(r.announced, time.Since(r.begun))
			}
		})
	}()
	return r
}

// begin is start, past the first announcements.
func begin(t *testing.T, cfg Config) *running {
	r := start(t, cfg)
	time.Sleep(time.Second)
	synctest.Wait()
	r.take()
	return r
}

// search lets a datagram arrive from a host of the LAN.
func (r *running) search(datagram string, src netip.AddrPort, dst netip.Addr) {
	r.in <- received{datagram: datagram, packet: sock.Packet{Src: src, Dst: dst, IfIndex: lanIndex}}
}

// answers returns what a search draws within a second, and the time it came.
func (r *running) answers(datagram string, dst netip.Addr) ([]sent, time.Duration) {
	at := time.Since(r.begun)
	r.search(datagram, hostAddr1, dst)
	time.Sleep(time.Second)
	synctest.Wait()
	return r.take(), at
}

// end stops the server and returns what it sent on its way out.
func (r *running) end() ([]sent, time.Duration) {
	synctest.Wait()
	r.take()
	at := time.Since(r.begun)
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Errorf("Run returned %v after its context ended, want nil", err)
	}
	return r.take(), at
}

// sets cuts announcements into sets: same kind, same time.
func sets(messages []sent) (list [][]sent) {
	for i, m := range messages {
		if i > 0 && m.at == messages[i-1].at && m.fields["NTS"] == messages[i-1].fields["NTS"] {
			list[len(list)-1] = append(list[len(list)-1], m)
			continue
		}
		list = append(list, []sent{m})
	}
	return list
}

// pairs are the "NT USN" of messages, ST standing for NT in responses.
func pairs(messages []sent) (list []string) {
	for _, m := range messages {
		list = append(list, m.fields["NT"]+m.fields["ST"]+" "+m.fields["USN"])
	}
	return list
}

func pairsOf(targets []Target) (list []string) {
	for _, t := range targets {
		list = append(list, t.NT+" "+t.USN())
	}
	return list
}

func checkSet(t *testing.T, set []sent, nts string, want []string) {
	t.Helper()
	checkSetOf(t, testLAN().Scopes[0], set, nts, want)
}

func checkSetOf(t *testing.T, scope Scope, set []sent, nts string, want []string) {
	t.Helper()
	if got := pairs(set); !slices.Equal(got, want) {
		t.Errorf("%s set at %v:\n%s\nwant:\n%s", nts, set[0].at,
			strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, m := range set {
		if m.start != "NOTIFY * HTTP/1.1" || m.fields["NTS"] != nts || // SSDP-3
			m.to != netip.AddrPortFrom(scope.Group, 1900) || m.src != scope.Addr { // SSDP-1, SSDP-6
			t.Errorf("%s of %s from %s: %s %v", nts, m.to, m.src, m.start, m.fields)
		}
	}
}
