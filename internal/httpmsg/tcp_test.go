package httpmsg

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/sock"
)

// listen serves on loopback until the test ends and returns the address.
func listen(t *testing.T, s *Server) string {
	t.Helper()
	ln, err := sock.ListenTCP("lo", 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return fmt.Sprintf("127.0.0.1:%d", ln.Port())
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// A real client over real sockets, two requests over one connection.
func TestTCPClient(t *testing.T) {
	var e echo
	addr := listen(t, &Server{Handler: e.handle})
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1, ExpectContinueTimeout: 10 * time.Second}}
	defer client.CloseIdleConnections()
	large := strings.Repeat("x", 32<<10)
	for _, tt := range []struct {
		name, method string
		body         io.Reader
		expect       string
		want         string
	}{
		{"GET", "GET", nil, "", "GET /x?y "},
		{"HEAD", "HEAD", nil, "", ""},
		{"length", "POST", strings.NewReader("hello"), "", "POST /x?y hello"},
		{"large", "POST", strings.NewReader(large), "", "POST /x?y " + large},
		{"chunked", "POST", io.MultiReader(strings.NewReader("hello"), strings.NewReader(" world")), "", "POST /x?y hello world"},
		{"continue", "POST", strings.NewReader("hello"), "100-continue", "POST /x?y hello"},
	} {
		req, err := http.NewRequest(tt.method, "http://"+addr+"/x?y", tt.body)
		if err != nil {
			t.Fatal(err)
		}
		if tt.expect != "" {
			req.Header.Set("Expect", tt.expect)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || string(body) != tt.want {
			t.Errorf("%s: %d %q, %v", tt.name, resp.StatusCode, body, err)
		}
	}
	for _, req := range e.reqs {
		if req.Remote != e.reqs[0].Remote { // HTTP-8
			t.Errorf("connection of %v after %v", req.Remote, e.reqs[0].Remote)
		}
		if req.Local.String() != addr || !req.Remote.Addr().IsLoopback() {
			t.Errorf("local %v, remote %v", req.Local, req.Remote)
		}
	}
}

// The client sees the refusal and not a reset, though it goes on sending.
func TestTCPRefusalIsSeen(t *testing.T) {
	var e echo
	addr := listen(t, &Server{Handler: e.handle})
	for range 20 {
		c := dial(t, addr)
		go func() {
			_, _ = fmt.Fprintf(c, "POST /c HTTP/1.1\r\nHost: %s\r\nContent-Length: 200000\r\n\r\n", addr)
			_, _ = c.Write(bytes.Repeat([]byte("x"), 200000))
		}()
		out, err := io.ReadAll(c)
		if err != nil || !bytes.HasPrefix(out, []byte("HTTP/1.1 413 ")) {
			t.Fatalf("got %q, %v", out, err)
		}
		_ = c.Close()
	}
}

// Two listeners share the caps, and each ends with its own ctx.
func TestTCPTwoListeners(t *testing.T) { // HTTP-9
	var e echo
	s := &Server{Handler: e.handle, Limits: Limits{ConnectionsPerClient: 1}}
	a, b := listen(t, s), listen(t, s)
	first := dial(t, a)
	_, _ = fmt.Fprintf(first, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", a)
	if _, err := first.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	second := dial(t, b)
	if n, err := second.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("second connection: %d bytes, %v", n, err)
	}
}
