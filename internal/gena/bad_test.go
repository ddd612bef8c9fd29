//go:build go1.25

package gena

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// behaviours are bad subscribers, each with the time that one message takes
// and whether the message counts as delivered.
var behaviours = []struct {
	name  string
	after time.Duration
	ok    bool
	conn  func(w *world, to netip.AddrPort, c net.Conn) error
}{
	{"never reads", 30 * time.Second, false, func(_ *world, _ netip.AddrPort, c net.Conn) error {
		_, err := c.Write([]byte("H")) // who would take it is still writing
		return err
	}},
	{"never answers", 30 * time.Second, false, func(w *world, to netip.AddrPort, c net.Conn) error {
		_, _ = io.Copy(io.Discard, c)
		return nil
	}},
	{"answers a byte a second", 30 * time.Second, false, func(w *world, to netip.AddrPort, c net.Conn) error {
		go io.Copy(io.Discard, c)
		for range 100 {
			if _, err := c.Write([]byte("H")); err != nil {
				return err
			}
			time.Sleep(time.Second)
		}
		return nil
	}},
	{"a header that does not end", 30 * time.Second, true, func(w *world, to netip.AddrPort, c net.Conn) error {
		go io.Copy(io.Discard, c)
		for _, part := range append([]string{"HTTP/1.1 200 OK\r\n"}, strings.Split(strings.Repeat("x", 100), "")...) {
			if _, err := io.WriteString(c, part); err != nil {
				return err
			}
			time.Sleep(time.Second)
		}
		return nil
	}},
	{"an endless answer", 0, true, func(w *world, to netip.AddrPort, c net.Conn) error {
		go io.Copy(io.Discard, c)
		_, err := c.Write(append([]byte("HTTP/1.1 200 OK\r\n"), bytes.Repeat([]byte("x"), 1<<20)...))
		return err
	}},
	{"endless nonsense", 0, false, func(w *world, to netip.AddrPort, c net.Conn) error {
		go io.Copy(io.Discard, c)
		_, err := c.Write(bytes.Repeat([]byte("x"), 1<<20))
		return err
	}},
	{"resets", 0, false, func(_ *world, _ netip.AddrPort, c net.Conn) error { return c.Close() }},
	{"resets after the message", 0, false, func(w *world, to netip.AddrPort, c net.Conn) error { return w.receive(to, c) }},
	{"resets after the status", 0, true, func(w *world, to netip.AddrPort, c net.Conn) error { // INT-3
		_ = w.receive(to, c)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX")
		return nil
	}},
	{"resets within the status", 0, false, func(w *world, to netip.AddrPort, c net.Conn) error {
		_ = w.receive(to, c)
		_, _ = io.WriteString(c, "HTTP/1.1 20")
		return nil
	}},
	{"500", 0, false, answer("HTTP/1.1 500 Oops\r\n\r\n")},
	{"redirect", 0, false, answer("HTTP/1.1 302 Found\r\nLocation: http://203.0.113.1/\r\n\r\n")}, // GENA-13
	{"HTTP/1.0 without a reason", 0, true, answer("HTTP/1.0 200\r\n\r\n")},
	{"204", 0, true, answer("HTTP/1.1 204 No Content\r\n\r\n")},
	{"not a number", 0, false, answer("HTTP/1.1 2x0 OK\r\n\r\n")},
	{"signed", 0, false, answer("HTTP/1.1 +20 OK\r\n\r\n")},
	{"not HTTP", 0, false, answer("ICY 200 OK what is this\r\n\r\n")},
}

func answer(s string) func(*world, netip.AddrPort, net.Conn) error {
	return func(w *world, to netip.AddrPort, c net.Conn) error {
		if err := w.receive(to, c); err != nil {
			return err
		}
		_, err := io.WriteString(c, s)
		return err
	}
}

// state returns what is known of the subscription of a host.
func (w *world) state(host string) (exists, busy bool, failed int) {
	w.Publisher.mu.Lock()
	defer w.Publisher.mu.Unlock()
	for _, s := range w.subs {
		if s.host.String() == host {
			return true, s.stop != nil, s.failed
		}
	}
	return false, false, 0
}

// A bad subscriber takes its own time only (issue 6 point 1): another one has
// each event at once, requests are answered. After three bad messages in a row
// its subscription ends, with one line (GENA-9, INT-3).
func TestBadSubscribers(t *testing.T) {
	const bad = "192.168.1.66"
	for _, tt := range behaviours {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.run()()
				w.behave = func(to netip.AddrPort, c net.Conn) error {
					if to.Addr().String() == bad {
						return tt.conn(w, to, c)
					}
					return errNormal
				}
				sid := w.subscribe(bad)
				w.subscribe(host)
				for n := range 5 {
					if n > 0 {
						w.set(fmt.Sprint("new", n), "x")
					}
					synctest.Wait()
					w.expectGood(n)
					if tt.after > 0 {
						time.Sleep(tt.after - 1)
						if exists, busy, _ := w.state(bad); exists && !busy {
							t.Errorf("message %d did not take %v", n, tt.after)
						}
						time.Sleep(time.Nanosecond)
					}
					synctest.Wait()
					exists, busy, failed := w.state(bad)
					wantFailed := n + 1
					if tt.ok || n >= 2 {
						wantFailed = 0
					}
					if exists != (tt.ok || n < 2) || busy || failed != wantFailed {
						t.Errorf("after message %d: exists %v, busy %v, %d failed", n, exists, busy, failed)
					}
					time.Sleep(time.Second)
				}
				want, lines := 412, 1
				if tt.ok {
					want, lines = 200, 0
				}
				w.status("in the end", want, "SUBSCRIBE", bad, "SID: "+sid)
				if log := w.log(); len(log) != lines || lines == 1 && !strings.Contains(log[0], bad) {
					t.Errorf("log %q", log)
				}
			})
		})
	}
}

// expectGood looks for the n-th event of the good subscriber at this moment.
func (w *world) expectGood(n int) {
	w.t.Helper()
	good := 0
	for _, m := range w.messages() {
		if m.to.Addr().String() == host && m.Get("SEQ") == fmt.Sprint(n) && m.at == time.Since(w.start) {
			good++
		}
	}
	if good != 1 {
		w.t.Errorf("event %d came %d times to the good subscriber", n, good)
	}
}
