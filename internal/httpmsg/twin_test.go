package httpmsg

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"
)

var (
	serverAddr = netip.MustParseAddrPort("192.168.1.1:5000")
	clientAddr = netip.MustParseAddrPort("192.168.1.7:40000")
)

// A twin is one end of a connection in memory: two pipes, so that one
// direction can end before the other.
type twin struct {
	in, out       net.Conn
	local, remote netip.AddrPort
}

func newTwins(local, remote netip.AddrPort) (server, client *twin) {
	up, down := [2]net.Conn{}, [2]net.Conn{}
	up[0], up[1] = net.Pipe()
	down[0], down[1] = net.Pipe()
	return &twin{up[1], down[0], local, remote}, &twin{down[1], up[0], remote, local}
}

func (t *twin) Read(p []byte) (int, error)          { return t.in.Read(p) }
func (t *twin) Write(p []byte) (int, error)         { return t.out.Write(p) }
func (t *twin) CloseWrite() error                   { return t.out.Close() }
func (t *twin) SetReadDeadline(at time.Time) error  { return t.in.SetReadDeadline(at) }
func (t *twin) SetWriteDeadline(at time.Time) error { return t.out.SetWriteDeadline(at) }
func (t *twin) Local() netip.AddrPort               { return t.local }
func (t *twin) Remote() netip.AddrPort              { return t.remote }
func (t *twin) Close() error                        { return errors.Join(t.in.Close(), t.out.Close()) }

// An echo is a handler that keeps what it was asked and answers with it.
type echo struct {
	mu   sync.Mutex
	reqs []*Request
}

func (e *echo) handle(req *Request) *Response {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reqs = append(e.reqs, req)
	return &Response{Status: 200, Header: Header{{"CONTENT-TYPE", "text/plain"}},
		Body: fmt.Appendf(nil, "%s %s %s", req.Method, req.Target, req.Body)}
}

// An answer is one response with its body read.
type answer struct {
	*http.Response
	body string
}

// converse sends input on one connection, ends the sending side and returns
// all that came back.
func converse(t *testing.T, s *Server, input string) []byte {
	t.Helper()
	server, client := newTwins(serverAddr, clientAddr)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ServeConn(context.Background(), server)
	}()
	go func() {
		_, _ = io.WriteString(client, input)
		_ = client.CloseWrite()
	}()
	out, err := io.ReadAll(client)
	if err != nil {
		t.Error(err)
	}
	<-done
	return out
}

// answers splits what a server sent. methods are those of the requests, in
// order; http.MethodGet where there are none left.
func answers(t *testing.T, out []byte, methods ...string) []answer {
	t.Helper()
	var all []answer
	r := bufio.NewReader(bytes.NewReader(out))
	for {
		if _, err := r.Peek(1); err != nil {
			return all
		}
		method := http.MethodGet
		if n := len(all); n < len(methods) {
			method = methods[n]
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("answer %d of %q: %v", len(all)+1, out, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("body %d of %q: %v", len(all)+1, out, err)
		}
		all = append(all, answer{resp, string(body)})
	}
}
