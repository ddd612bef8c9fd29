package httpmsg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/linux-igd/upnpd/internal/sock"
)

// Limits bound what clients can take (HTTP-8, HTTP-9). A zero field has its
// value from DefaultLimits.
type Limits struct {
	HeaderBytes          int // start line and fields of one request
	BodyBytes            int
	Connections          int // of all clients and listeners; beyond that one that waits for its client ends
	ConnectionsPerClient int // of one remote address
	Requests             int // on one connection

	HeaderTimeout time.Duration // from the connection, or the first byte of a later request, to the end of the header
	BodyTimeout   time.Duration // from the end of the header to the end of the body
	WriteTimeout  time.Duration // of one answer
	IdleTimeout   time.Duration // between two requests
}

// DefaultLimits returns the limits of HTTP-8 and HTTP-9.
func DefaultLimits() Limits {
	return Limits{
		HeaderBytes:          8 << 10,
		BodyBytes:            32 << 10,
		Connections:          128,
		ConnectionsPerClient: 32,
		Requests:             50,
		HeaderTimeout:        5 * time.Second,
		BodyTimeout:          10 * time.Second,
		WriteTimeout:         10 * time.Second,
		IdleTimeout:          15 * time.Second,
	}
}

// withDefaults fills the zero fields.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, n := range []struct{ field, value *int }{
		{&l.HeaderBytes, &d.HeaderBytes}, {&l.BodyBytes, &d.BodyBytes}, {&l.Connections, &d.Connections},
		{&l.ConnectionsPerClient, &d.ConnectionsPerClient}, {&l.Requests, &d.Requests},
	} {
		if *n.field == 0 {
			*n.field = *n.value
		}
	}
	for _, t := range []struct{ field, value *time.Duration }{
		{&l.HeaderTimeout, &d.HeaderTimeout}, {&l.BodyTimeout, &d.BodyTimeout},
		{&l.WriteTimeout, &d.WriteTimeout}, {&l.IdleTimeout, &d.IdleTimeout},
	} {
		if *t.field == 0 {
			*t.field = *t.value
		}
	}
	return l
}

// A Conn is one accepted TCP connection, as *sock.Conn is. A passed deadline
// fails with os.ErrDeadlineExceeded; setting one while another goroutine
// reads or writes takes effect at once.
type Conn interface {
	io.ReadWriteCloser
	CloseWrite() error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	Local() netip.AddrPort
	Remote() netip.AddrPort
}

// A Server answers requests. Its fields are set before it is used and not
// changed after. It may serve several listeners at once; the connection
// limits hold for all together.
type Server struct {
	// Handler answers one request. It is called by many goroutines. When it
	// panics or returns nil the client gets 500.
	Handler func(*Request) *Response
	// Device is the LAN device that is served, for Request.Device.
	Device string
	// ServerName is the value of SERVER: "OS/version UPnP/1.1 product/version".
	ServerName string
	// Now tells the wall clock, for DATE; nil: time.Now.
	Now func() time.Time
	// Limits may be left zero.
	Limits Limits
	// Allowed says whether the remote address is on-link (HTTP-13). Others
	// are closed without a byte. nil: all are.
	Allowed func(remote netip.Addr) bool
	// Logf gets one line for a refusal and for a panic, with the client's
	// netip.Addr among its args. nil: nobody does.
	Logf func(format string, args ...any)

	mu        sync.Mutex
	total     int                // connections
	perClient map[netip.Addr]int // connections
	waiting   []*conn            // those that wait for their clients, the longest first
	large     int                // bytes that they keep for that
}

// Serve accepts connections until ctx ends, then closes ln and its
// connections and returns nil; an answer that is being written has a second
// to leave. Any other end is an error: the listener failed or was closed.
func (s *Server) Serve(ctx context.Context, ln *sock.Listener) error {
	defer func() { _ = ln.Close() }()
	err := s.serve(ctx, func(ctx context.Context) (Conn, error) { return ln.Accept(ctx) })
	if err != nil {
		return fmt.Errorf("accept connections on port %d: %w", ln.Port(), err)
	}
	return nil
}

func (s *Server) serve(ctx context.Context, accept func(context.Context) (Conn, error)) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for exhausted := false; ; {
		c, err := accept(ctx)
		switch {
		case err == nil:
			exhausted = false
			conns.Add(1)
			go func() {
				defer conns.Done()
				s.ServeConn(ctx, c)
			}()
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, sock.ErrExhausted): // which Accept delayed
			return err
		case !exhausted:
			exhausted = true
			s.logf("accept connections: %v", err)
		}
	}
}

// ServeConn answers the requests on c until the client or a limit ends it, or
// ctx does, and closes c.
func (s *Server) ServeConn(ctx context.Context, c Conn) {
	defer func() { _ = c.Close() }()
	limits := s.Limits.withDefaults()
	conn := &conn{Conn: c, server: s, ctx: ctx, limits: limits, in: reader{src: c}}
	if s.Allowed != nil && !s.Allowed(c.Remote().Addr()) {
		s.logRefusal(conn.client(), "not on-link")
		return
	}
	slow, ok := s.enter(conn)
	if !ok {
		s.logRefusal(conn.client(), "too many connections")
		return
	}
	if slow != nil {
		_ = slow.Close()
		s.logRefusal(slow.client(), "slow, while others had no place")
	}
	defer s.leave(conn)
	defer context.AfterFunc(ctx, conn.cut)()
	for n := 1; conn.exchange(n); n++ {
	}
}

// enter counts a connection, unless a limit refuses it. A host may have any number of
// addresses and be slow from all of them: when there is no place left, of the client
// with the most connections the one that has waited longest for it gives way, slow.
func (s *Server) enter(c *conn) (slow *conn, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := s.perClient[c.client()]
	if most >= c.limits.ConnectionsPerClient {
		return nil, false
	}
	if s.total >= c.limits.Connections {
		if slow = s.slowest(most, 0); slow == nil {
			return nil, false
		}
		s.uncount(slow)
	}
	if s.perClient == nil {
		s.perClient = make(map[netip.Addr]int)
	}
	s.total++
	s.perClient[c.client()]++
	c.counted = true
	return slow, true
}

// few is how many connections a control point may have.
const few = 4

// slowest finds, of the client with the most connections, more than most, the one that
// has waited longest for it and keeps at least so many bytes. Those with few count
// alike: a host with hundreds of addresses has one connection from each.
func (s *Server) slowest(most, large int) (slow *conn) {
	most = max(most, few-1)
	for _, o := range s.waiting {
		if n := max(few, s.perClient[o.client()]); n > most && o.large >= large {
			slow, most = o, n
		}
	}
	return slow
}

// What is small need not be counted: a connection has that much in any case. Together
// the connections may keep maxLarge bytes of requests and answers on their way, or one
// of them more: a listing of mappings can have 400 kB and more, a client need not read it.
const (
	smallBytes = 4 << 10
	maxLarge   = 256 << 10
)

// keep notes that c waits for its client, and what it keeps for that. What is too much
// for all together ends with the slowest.
func (s *Server) keep(c *conn, bytes int) {
	s.wait(c, false)
	for {
		s.mu.Lock()
		var slow *conn
		if bytes > smallBytes && s.large > 0 && s.large+bytes > maxLarge {
			slow = s.slowest(0, smallBytes)
		}
		if slow == nil {
			break
		}
		s.uncount(slow)
		s.mu.Unlock()
		_ = slow.Close()
		s.logRefusal(slow.client(), "slow, while much was on its way")
	}
	if c.counted {
		s.waiting = append(s.waiting, c)
		if bytes > smallBytes {
			c.large = bytes
			s.large += bytes
		}
	}
	s.mu.Unlock()
}

func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uncount(c)
}

// uncount is for a connection that has ended, or is about to.
func (s *Server) uncount(c *conn) {
	if !c.counted {
		return
	}
	c.counted = false
	s.unwait(c)
	s.total--
	if s.perClient[c.client()]--; s.perClient[c.client()] == 0 {
		delete(s.perClient, c.client())
	}
}

// wait notes that c waits for its client from now on, or does not; false: another
// took its place.
func (s *Server) wait(c *conn, waits bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unwait(c); waits && c.counted {
		s.waiting = append(s.waiting, c)
	}
	return c.counted
}

func (s *Server) unwait(c *conn) {
	s.large -= c.large
	c.large = 0
	for i, o := range s.waiting {
		if o == c {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			return
		}
	}
}

func (s *Server) logf(format string, args ...any) {
	if s.Logf != nil {
		s.Logf(format, args...)
	}
}

const maxLogText = 100 // bytes of what a client sent, in a log line

// logRefusal says why a client was refused.
func (s *Server) logRefusal(client netip.Addr, why string) {
	s.logf("http: refused %v: %s", client, why)
}
