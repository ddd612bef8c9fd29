//go:build go1.25

package pcp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
)

// sent is one datagram that the server sent.
type sent struct {
	at   time.Duration // since the start
	to   netip.AddrPort
	src  netip.Addr
	data []byte
}

type arrival struct {
	data   []byte
	packet sock.Packet
	err    error
}

// fakeConn is the socket of a Server in a bubble of testing/synctest.
type fakeConn struct {
	begun time.Time
	in    chan arrival

	mu   sync.Mutex
	sent []sent
	fail error
}

func (c *fakeConn) ReadFrom(ctx context.Context, p []byte) (int, sock.Packet, error) {
	select {
	case <-ctx.Done():
		return 0, sock.Packet{}, ctx.Err()
	case a := <-c.in:
		if len(a.data) > len(p) {
			a.err = fmt.Errorf("read: %w", sock.ErrTruncated)
		}
		return copy(p, a.data), a.packet, a.err
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
	c.sent = append(c.sent, sent{time.Since(c.begun), to, src, slices.Clone(p)})
	return nil
}

// take returns what was sent since the last call.
func (c *fakeConn) take() []sent {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.sent
	c.sent = nil
	return list
}

// running is a Server that runs in a bubble.
type running struct {
	*world
	*fakeConn
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, change func(*world, *Config, *LAN, *portmap.Policy)) *running {
	r := &running{fakeConn: &fakeConn{begun: time.Now(), in: make(chan arrival)}, done: make(chan error, 1)}
	r.world = newWorld(t, func(w *world, cfg *Config, lan *LAN, p *portmap.Policy) {
		cfg.Now = func() time.Duration { return 1000*time.Second + time.Since(r.begun) }
		if change != nil {
			change(w, cfg, lan, p)
		}
	})
	r.conn = r.fakeConn
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	t.Cleanup(stop)
	go func() { r.done <- r.Run(ctx) }()
	synctest.Wait()
	return r
}

func (r *running) end() {
	r.world.t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		r.world.t.Errorf("Run returned %v after its context ended", err)
	}
}

// request lets p arrive, and gives the reply.
func (r *running) request(p []byte, src, dst netip.Addr) sent {
	r.world.t.Helper()
	r.take()
	r.in <- arrival{data: p, packet: *packet(src, dst)}
	list := r.take()
	if len(list) != 1 || list[0].src != dst || list[0].to != netip.AddrPortFrom(src, 4000) { // ANN-5
		r.world.t.Fatalf("replies %+v", list)
	}
	return list[0]
}

// sorted gives the announcements of NAT-PMP and PCP among the datagrams, and the
// others.
func sorted(list []sent) (natpmp, pcp, others []sent) {
	for _, m := range list {
		switch {
		case m.to.Addr().Is4() && !m.to.Addr().IsMulticast() || m.to.Addr().Is6() && m.to.Addr() == ann6:
			others = append(others, m)
		case m.data[0] == 0:
			natpmp = append(natpmp, m)
		default:
			pcp = append(pcp, m)
		}
	}
	return natpmp, pcp, others
}
