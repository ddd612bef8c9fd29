//go:build go1.25

package httpmsg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linux-igd/upnpd/internal/sock"
)

// run serves one connection in the background. ended gets how long it took.
func run(ctx context.Context, s *Server, remote netip.AddrPort) (client *twin, ended <-chan time.Duration) {
	server, client := newTwins(serverAddr, remote)
	done := make(chan time.Duration, 1)
	start := time.Now()
	go func() {
		s.ServeConn(ctx, server)
		done <- time.Since(start)
	}()
	return client, done
}

func send(t *testing.T, c *twin, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Error(err)
	}
}

// receive reads until the server says no more.
func receive(t *testing.T, c *twin) string {
	t.Helper()
	out, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	return string(out)
}

func expectEnd(t *testing.T, ended <-chan time.Duration, want time.Duration) {
	t.Helper()
	if got := <-ended; got != want {
		t.Errorf("ended after %v, want %v", got, want)
	}
}

// HTTP-9: a slow client ends by the deadlines. The client leaves its side
// open, so that a second of lingering follows each answer.
func TestSlowClients(t *testing.T) {
	const head = "POST /c HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\n"
	for _, tt := range []struct {
		name  string
		parts []string // one a second
		out   string   // begins the last answer
		after time.Duration
	}{
		{"says nothing", nil, "", 5 * time.Second},
		{"half a header", []string{"GET / HT"}, "HTTP/1.1 408 ", 6 * time.Second},
		{"a header byte by byte", strings.Split("GET / HTTP/1.1", ""), "HTTP/1.1 408 ", 6 * time.Second},
		{"half a body", []string{head, "hel"}, "HTTP/1.1 408 ", 11 * time.Second},
		{"a body byte by byte", append([]string{strings.Replace(head, "Length: 5", "Length: 50", 1)}, strings.Split(strings.Repeat("x", 20), "")...), "HTTP/1.1 408 ", 11 * time.Second},
		{"no second request", []string{next}, "HTTP/1.1 200 ", 15 * time.Second},                              // HTTP-8
		{"half a second request", []string{next, "GET"}, "HTTP/1.1 408 ", 7 * time.Second},                    // 1 s, then 5 s
		{"header too late after a while", []string{next, "", "", "G", "E"}, "HTTP/1.1 408 ", 9 * time.Second}, // 3 s, then 5 s
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var e echo
				client, ended := run(t.Context(), &Server{Handler: e.handle}, clientAddr)
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					for _, p := range tt.parts {
						if p != "" {
							_, _ = io.WriteString(client, p)
						}
						time.Sleep(time.Second)
					}
				}()
				out := receive(t, client)
				if i := strings.LastIndex(out, "HTTP/1.1"); i >= 0 {
					out = out[i:]
				}
				if !strings.HasPrefix(out, tt.out) || (tt.out == "") != (out == "") {
					t.Errorf("got %q", out)
				}
				expectEnd(t, ended, tt.after)
				_ = client.Close()
				<-sent
			})
		})
	}
}

func TestClientThatDoesNotRead(t *testing.T) { // HTTP-9
	synctest.Test(t, func(t *testing.T) {
		var e echo
		client, ended := run(t.Context(), &Server{Handler: e.handle}, clientAddr)
		send(t, client, next)
		expectEnd(t, ended, 10*time.Second)
		_ = client.Close()
	})
}

func TestLingerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, ended := run(t.Context(), &Server{}, clientAddr)
		go func() { // sends for ever
			for {
				if _, err := client.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		}()
		if out := receive(t, client); !strings.HasPrefix(out, "HTTP/1.1 414 ") {
			t.Errorf("got %q", out)
		}
		expectEnd(t, ended, 0)
		_ = client.Close()
	})
}

func TestContinue(t *testing.T) { // HTTP-7
	const head = "POST /c HTTP/1.1\r\n" + host + "Expect: 100-Continue\r\n"
	for _, tt := range []struct{ name, head, body, out string }{
		{"length", "Content-Length: 5\r\n\r\n", "hello", "HTTP/1.1 100 Continue\r\n\r\n"},
		{"chunked", "Transfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n"},
		{"too large", "Content-Length: 40000\r\n\r\n", "", "HTTP/1.1 413 "},
		{"no body", "\r\n", "", "HTTP/1.1 200 "},
		{"origin", "Content-Length: 5\r\nOrigin: null\r\n\r\n", "", "HTTP/1.1 403 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var e echo
				client, _ := run(t.Context(), &Server{Handler: e.handle}, clientAddr)
				send(t, client, head+tt.head)
				first := make([]byte, len(tt.out))
				if _, err := io.ReadFull(client, first); err != nil || string(first) != tt.out {
					t.Fatalf("got %q, %v", first, err)
				}
				if tt.body != "" {
					send(t, client, tt.body)
				}
				_ = client.CloseWrite()
				rest := receive(t, client)
				if tt.body != "" && !strings.HasSuffix(rest, "POST /c hello") {
					t.Errorf("then %q", rest)
				}
			})
		})
	}
}

// HTTP-7: an HTTP/1.0 client does not know 100.
func TestNoContinueIn10(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e echo
		client, _ := run(t.Context(), &Server{Handler: e.handle}, clientAddr)
		go func() {
			send(t, client, "POST /c HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
			synctest.Wait()
			send(t, client, "hello")
			_ = client.CloseWrite()
		}()
		if out := receive(t, client); !strings.HasPrefix(out, "HTTP/1.1 200 ") {
			t.Errorf("got %q", out)
		}
	})
}

func TestConnectionCaps(t *testing.T) { // HTTP-9
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		s := &Server{Limits: Limits{ConnectionsPerClient: 2, Connections: 3}, Handler: func(*Request) *Response {
			<-goOn
			return &Response{Status: 200}
		}}
		b, c := netip.MustParseAddrPort("192.168.1.8:1"), netip.MustParseAddrPort("192.168.1.9:1")
		// A mapped address is the same client.
		mapped := netip.AddrPortFrom(netip.AddrFrom16(clientAddr.Addr().As16()), 9)
		first, _ := run(t.Context(), s, clientAddr)
		second, _ := run(t.Context(), s, mapped)
		for _, busy := range []*twin{first, second} {
			send(t, busy, next)
		}
		synctest.Wait()

		third, ended := run(t.Context(), s, clientAddr)
		if out := receive(t, third); out != "" {
			t.Errorf("third connection of one client got %q", out)
		}
		expectEnd(t, ended, 0)
		other, _ := run(t.Context(), s, b)
		send(t, other, next)
		synctest.Wait()
		fourth, ended := run(t.Context(), s, c)
		if out := receive(t, fourth); out != "" {
			t.Errorf("fourth connection of all got %q, while all the others are busy", out)
		}
		expectEnd(t, ended, 0)

		close(goOn)
		for _, busy := range []*twin{first, second, other} {
			_ = busy.CloseWrite()
			if out := receive(t, busy); !strings.HasPrefix(out, "HTTP/1.1 200 ") {
				t.Errorf("got %q", out)
			}
		}
		synctest.Wait()
		if s.total != 0 || len(s.perClient) != 0 || len(s.waiting) != 0 {
			t.Errorf("left over: %d connections, clients %v, %d waiting", s.total, s.perClient, len(s.waiting))
		}
	})
}

// Issue 8, 4: where all places are taken by clients that are slow, whoever comes gets
// that of the slowest, whatever it waits for, first of the client that has most.
func TestSlowClientsMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e echo
		s := &Server{Handler: e.handle, Limits: Limits{Connections: 5, IdleTimeout: time.Hour, BodyTimeout: time.Hour, HeaderTimeout: time.Hour}}
		a := netip.MustParseAddrPort("192.168.1.100:1")
		from := func(a netip.AddrPort, first, want string) (gone func() bool) {
			c, ended := run(t.Context(), s, a)
			var out bytes.Buffer
			go io.Copy(&out, c)
			if first != "" {
				send(t, c, first)
			}
			synctest.Wait()
			if !strings.HasPrefix(out.String(), want) {
				t.Errorf("%q got %q, want %q", first, out.String(), want)
			}
			return func() bool { return len(ended) > 0 }
		}
		come := func(first, want string) (gone func() bool) {
			a = netip.AddrPortFrom(a.Addr().Next(), 1)
			return from(a, first, want)
		}
		const ok = "HTTP/1.1 200 "
		for i, gone := range []func() bool{
			come("", ""),
			come("GET / HT", ""),
			come("POST / HTTP/1.1\r\n"+host+"Content-Length: 5\r\n\r\n123", ""),
			come(next, ok),                        // idle
			come("junk\r\n\r\n", "HTTP/1.1 400 "), // it lingers
		} {
			if gone() {
				t.Errorf("connection %d went too early", i)
			}
			come(next, ok)
			if !gone() {
				t.Errorf("connection %d keeps its place", i)
			}
		}
		s = &Server{Handler: e.handle, Limits: Limits{Connections: few + 2}}
		alone, first := come(next, ok), come(next, ok)
		second := from(a, next, ok)
		for range few - 1 {
			from(a, next, ok)
		}
		if come(next, ok); alone() || !first() || second() {
			t.Errorf("gone is the oldest: %v; of who has most the first: %v, the second: %v", alone(), first(), second())
		}
	})
}

func TestStop(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		after    time.Duration
	}{
		{"new connection", "", 0},
		{"in a header", "GET / H", 0},
		{"in a body", "POST / HTTP/1.1\r\n" + host + "Content-Length: 9\r\n\r\nx", 0},
		{"an answer that nobody reads", next, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				var e echo
				client, ended := run(ctx, &Server{Handler: e.handle}, clientAddr)
				send(t, client, tt.in)
				synctest.Wait()
				cancel()
				expectEnd(t, ended, tt.after)
				_ = client.Close()
			})
		})
	}
}

// A request that is with the handler when ctx ends is answered, and the
// connection ends with it.
func TestStopInHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &Server{Handler: func(*Request) *Response {
			cancel()
			synctest.Wait()
			return &Response{Status: 200, Body: []byte("done")}
		}}
		client, ended := run(ctx, s, clientAddr)
		send(t, client, next)
		out := receive(t, client)
		if !strings.Contains(out, "CONNECTION: close\r\n") || !strings.HasSuffix(out, "\r\n\r\ndone") {
			t.Errorf("got %q", out)
		}
		expectEnd(t, ended, 0)
		_ = client.Close()
	})
}

// An answer that begins after ctx ended has a second as well.
func TestStopInHandlerUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &Server{Handler: func(*Request) *Response {
			cancel()
			synctest.Wait()
			return &Response{Status: 200}
		}}
		client, ended := run(ctx, s, clientAddr)
		send(t, client, next)
		expectEnd(t, ended, time.Second)
		_ = client.Close()
	})
}

func TestServe(t *testing.T) {
	for _, tt := range []struct {
		name string
		last error // of accept, nil: ctx ends
	}{
		{"ctx ends", nil},
		{"listener closed", fmt.Errorf("accept: %w", os.ErrClosed)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var e echo
				var lines []string
				s := &Server{Handler: e.handle, Logf: func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }}
				server, client := newTwins(serverAddr, clientAddr)
				calls := 0
				done := make(chan error, 1)
				goOn := make(chan struct{})
				go func() {
					done <- s.serve(ctx, func(ctx context.Context) (Conn, error) {
						switch calls++; calls {
						case 1, 2, 4:
							return nil, fmt.Errorf("accept: %w", sock.ErrExhausted)
						case 3:
							return server, nil
						}
						<-goOn
						if tt.last == nil {
							<-ctx.Done()
							return nil, ctx.Err()
						}
						return nil, tt.last
					})
				}()
				send(t, client, next)
				if _, err := client.Read(make([]byte, 4096)); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				close(goOn)
				if tt.last == nil {
					cancel()
				}
				if err := <-done; !errors.Is(err, tt.last) {
					t.Errorf("Serve returned %v", err)
				}
				if took := time.Since(start); took != 0 {
					t.Errorf("Serve waited %v for its connections", took)
				}
				if out := receive(t, client); out != "" {
					t.Errorf("then got %q", out)
				}
				if len(lines) != 2 { // one for each spell
					t.Errorf("log %q", lines)
				}
			})
		})
	}
}
