//go:build go1.25

package httpmsg

import (
	"bytes"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
)

// silent are clients, each at an address of its own, that ask and then read nothing.
type silent struct {
	t    *testing.T
	s    *Server
	last netip.AddrPort
	all  []*twin
}

func (c *silent) leave() {
	for _, client := range c.all {
		_ = client.Close()
	}
	synctest.Wait()
}

func (c *silent) ask(text string) (gone func() bool) {
	c.last = netip.AddrPortFrom(c.last.Addr().Next(), 1)
	client, ended := run(c.t.Context(), c.s, c.last)
	c.all = append(c.all, client)
	send(c.t, client, text)
	synctest.Wait()
	return func() bool { synctest.Wait(); return len(ended) > 0 }
}

// Issue 8, 4: who does not read his answer waits for nobody, and keeps no place.
func TestUnreadMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e echo
		c := &silent{t: t, s: &Server{Handler: e.handle, Limits: Limits{Connections: 2}}, last: clientAddr}
		defer c.leave()
		first, second := c.ask(next), c.ask(next)
		client, _ := run(t.Context(), c.s, clientAddr)
		var out bytes.Buffer
		go io.Copy(&out, client)
		send(t, client, next)
		synctest.Wait()
		if !strings.HasPrefix(out.String(), "HTTP/1.1 200 ") || !first() || second() {
			t.Errorf("got %q; gone is the first: %v, the second: %v", out.String(), first(), second())
		}
		_ = client.Close()
	})
}

// Issue 8, 4: a host with one connection from each of many addresses takes no place of
// a client that needs two.
func TestFewCountAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e echo
		c := &silent{t: t, s: &Server{Handler: e.handle, Limits: Limits{Connections: 3}}, last: clientAddr}
		defer c.leave()
		oldest, younger := c.ask(next), c.ask(next)
		before := c.last
		first := c.ask(next)
		c.last = before // the same client again
		if second := c.ask(next); !oldest() || younger() || first() || second() {
			t.Errorf("gone are the oldest: %v, a younger one: %v; of who needs two the first: %v, the second: %v", oldest(), younger(), first(), second())
		}
	})
}

// Issue 8, 4: what is kept for slow clients is bounded for all of them together.
func TestLargeTogether(t *testing.T) {
	const kB = 1 << 10
	post := "POST / HTTP/1.1\r\n" + host + "Content-Length: 32768\r\n\r\n"
	chunks := "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n"
	for _, tt := range []struct {
		name   string
		text   string
		answer int // bytes
		fit    int
	}{
		{"small answers", next, 3 * kB, 128},
		{"answers", next, 20 * kB, 12},
		{"answers that are longer than all may be", next, 400 * kB, 1},
		{"bodies", post, 0, 8},
		{"bodies in chunks", chunks, 0, 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := make([]byte, tt.answer)
				c := &silent{t: t, s: &Server{Handler: func(*Request) *Response { return &Response{Status: 200, Body: body} }}, last: clientAddr}
				defer c.leave()
				var gone []func() bool
				for range tt.fit {
					gone = append(gone, c.ask(tt.text))
				}
				for i := range gone {
					if gone[i]() {
						t.Fatalf("%d of %d ends", i, tt.fit)
					}
				}
				if c.ask(tt.text); !gone[0]() || tt.fit > 1 && gone[1]() {
					t.Errorf("with one more, the first has ended: %v", gone[0]())
				}
			})
		})
	}
}

// What is left behind a large request is no reason to keep its memory.
func TestReleaseKeepsTheNext(t *testing.T) {
	r := reader{buf: append(make([]byte, 32<<10), "GET"...), pos: 32 << 10}
	r.release()
	if r.buffered() != 3 || cap(r.buf) > 4*readAhead || string(r.buf[r.pos:]) != "GET" {
		t.Errorf("%q in %d bytes", r.buf[r.pos:], cap(r.buf))
	}
}
