package gena

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/httpmsg"
	"github.com/linux-igd/upnpd/internal/sock"
)

// TestTCP subscribes over real sockets, in both families: the answer is there
// before the initial event, and a change follows (GENA-1, GENA-6, GENA-14).
func TestTCP(t *testing.T) {
	for _, tt := range []struct {
		addr   string
		listen func(dev string, port uint16) (*sock.Listener, error)
	}{{"127.0.0.1", sock.ListenTCP}, {"::1", sock.ListenTCP6}} {
		t.Run(tt.addr, func(t *testing.T) {
			ln, err := tt.listen("lo", 0)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			w.cfg.Dial = dialTCP
			server := &httpmsg.Server{Handler: w.Handle, Device: "lo"}
			ctx, cancel := context.WithCancel(context.Background())
			served := make(chan error, 1)
			go func() { served <- server.Serve(ctx, ln) }()
			stop := w.run()
			defer func() {
				cancel()
				stop()
				if err := <-served; err != nil {
					t.Error(err)
				}
			}()
			control(t, w, net.JoinHostPort(tt.addr, fmt.Sprint(ln.Port())), tt.addr)
		})
	}
}

// control is the control point of TestTCP.
func control(t *testing.T, w *world, publisher, own string) {
	events, err := net.Listen("tcp", net.JoinHostPort(own, "0"))
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan message, 1)
	web := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- message{line: r.Method + " " + r.RequestURI, Header: r.Header, host: r.Host, body: string(body)}
	})}
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(events) }()
	defer func() {
		_ = web.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()

	c, err := net.Dial("tcp", publisher)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "SUBSCRIBE %s HTTP/1.1\r\nHOST: %s\r\nCALLBACK: <http://%s/e?a=b>\r\nNT: upnp:event\r\n\r\n", path, publisher, events.Addr())
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 200 || resp.ContentLength != 0 || resp.Header.Get("Timeout") != "Second-1800" {
		t.Fatalf("%+v, %v", resp, err)
	}
	for seq, want := range []string{"A=1 B=x", "B=y"} {
		select {
		case m := <-got:
			if m.values() != want || m.Get("Seq") != fmt.Sprint(seq) || m.Get("Sid") != resp.Header.Get("Sid") ||
				m.line != "NOTIFY /e?a=b" || m.host != events.Addr().String() {
				t.Errorf("got %+v", m)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no event %d; log %q", seq, w.log())
		}
		w.set("1", "y")
	}
}

// A host where nobody listens any more is a failure like others.
func TestTCPRefused(t *testing.T) {
	events, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = events.Close()
	addr := events.Addr().(*net.TCPAddr).AddrPort()
	c, err := dialTCP(context.Background(), "lo", addr.Addr(), addr)
	if c != nil || err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v, %v", c, err)
	}
}
