package httpmsg

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"
)

const (
	// stopGrace is how long an answer may take once the server stops.
	stopGrace = time.Second
	// A connection that ends after an answer is read on for a while: closing
	// it with unread data would reset it, and the client could lose the
	// answer (RFC 9112 section 9.6).
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// A conn is one connection in service.
type conn struct {
	Conn
	server *Server
	ctx    context.Context
	limits Limits
	in     reader

	// Of Server.mu:
	counted bool // among the server's connections
	large   int  // bytes that it keeps while it waits for its client
}

// client is the other end's address, the same by IPv4 and by IPv4 in IPv6.
func (c *conn) client() netip.Addr { return c.Remote().Addr().Unmap().WithZone("") }

// A refusal is an answer that the server gives by itself before the handler
// is asked. The connection ends with it.
type refusal struct {
	status int
	why    string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %s", r.status, r.why) }

func refuse(status int, why string) error { return &refusal{status, why} }

// exchange serves the n-th request and reports whether another may follow.
func (c *conn) exchange(n int) bool {
	if !c.server.wait(c, true) || !c.await(n) {
		return false
	}
	req, err := c.readRequest()
	if !c.server.wait(c, false) {
		return false
	}
	if err != nil {
		c.refuse(req, err)
		return false
	}
	resp := c.server.handle(req)
	keep := n < c.limits.Requests && keepAlive(req) && c.ctx.Err() == nil
	if err := c.reply(req, resp, keep); err != nil {
		return false
	}
	if !keep {
		c.linger()
	}
	return keep
}

// await waits for the first byte of the n-th request.
func (c *conn) await(n int) bool {
	c.in.release()
	if c.in.buffered() > 0 {
		return true
	}
	if n == 1 {
		c.readBy(c.limits.HeaderTimeout)
	} else {
		c.readBy(c.limits.IdleTimeout)
	}
	return c.in.fill() == nil
}

// refuse answers a request that could not be read, if the client is there to
// hear it. req is what is known of it. SERVER is left out: a web page that came
// here by a name of its own (DNS rebinding) may read the answer, and would
// learn which system this is.
func (c *conn) refuse(req *Request, err error) {
	r, ours := err.(*refusal) // which nothing wraps
	if errors.Is(err, os.ErrDeadlineExceeded) && c.ctx.Err() == nil {
		r = &refusal{408, "the request came too slowly"}
	} else if !ours {
		return // the client went away, or the server stops
	}
	c.server.logRefusal(c.client(), describe(req)+r.Error())
	if c.reply(req, &Response{Status: r.status, refused: true}, false) == nil {
		c.linger()
	}
}

func describe(req *Request) string {
	if req == nil {
		return ""
	}
	return fmt.Sprintf("%.*q: ", maxLogText, req.Method+" "+req.Target)
}

// handle asks the handler. A panic in it ends this request only.
func (s *Server) handle(req *Request) (resp *Response) {
	defer func() {
		if p := recover(); p != nil {
			s.logf("http: panic in %[2]s%[3]q", req.Remote.Addr(), describe(req), fmt.Sprint(p))
			resp = nil
		}
		if resp == nil {
			resp = &Response{Status: 500}
		}
	}()
	return s.Handler(req)
}

// keepAlive reports whether the client expects the connection to stay
// (HTTP-1, HTTP-8).
func keepAlive(req *Request) bool {
	if hasToken(req.Header, "Connection", "close") {
		return false
	}
	return req.Minor > 0 || hasToken(req.Header, "Connection", "keep-alive")
}

// hasToken reports whether a field that is a comma separated list has the
// token, in any case.
func hasToken(h Header, name, token string) bool {
	for _, f := range h {
		if !strings.EqualFold(f.Name, name) {
			continue
		}
		for _, t := range strings.Split(f.Value, ",") {
			if strings.EqualFold(strings.Trim(t, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// reply writes one answer. req is nil where no request line was read.
func (c *conn) reply(req *Request, resp *Response, keep bool) error {
	whole := c.server.appendReply(nil, req, resp, keep)
	resp.Body = nil // it may be long until the client has read all of it
	c.server.keep(c, len(whole))
	c.writeBy(c.limits.WriteTimeout)
	_, err := c.Write(whole)
	c.server.wait(c, false)
	if resp.Sent != nil {
		resp.Sent()
	}
	return err
}

// linger tells the client that the answer is complete and waits for it to
// close.
func (c *conn) linger() {
	if c.CloseWrite() != nil || !c.server.wait(c, true) {
		return
	}
	c.readBy(lingerTime)
	scratch := make([]byte, 1024)
	for left := lingerBytes; left > 0; {
		n, err := c.Read(scratch)
		if err != nil {
			return
		}
		left -= n
	}
}

// readBy bounds the reads that follow. The check after covers a ctx that
// ended before the deadline was set, so that cut is not undone.
func (c *conn) readBy(d time.Duration) {
	_ = c.SetReadDeadline(time.Now().Add(d))
	if c.ctx.Err() != nil {
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
}

func (c *conn) writeBy(d time.Duration) {
	_ = c.SetWriteDeadline(time.Now().Add(d))
	if c.ctx.Err() != nil && d > stopGrace {
		_ = c.SetWriteDeadline(time.Now().Add(stopGrace))
	}
}

// cut ends all reads at once and all writes soon. It runs when ctx ends.
func (c *conn) cut() {
	_ = c.SetReadDeadline(time.Unix(1, 0))
	_ = c.SetWriteDeadline(time.Now().Add(stopGrace))
}
