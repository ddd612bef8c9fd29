//go:build go1.25

package gena

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// GENA-6: the initial event has all values and SEQ 0, and comes a pause after
// the answer was written, not before.
func TestInitialEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		resp := w.Handle(ask("SUBSCRIBE", path, host, nt, "CALLBACK: <http://192.168.1.7:2869/e?x=1>"))
		time.Sleep(time.Second)
		w.set("2", "x")
		time.Sleep(time.Second)
		w.expect("before the answer")
		resp.Sent()
		time.Sleep(pause - 1)
		w.expect("while the answer may still be read")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		got := w.messages()
		if len(got) != 1 || got[0].String() != "2.2s to 192.168.1.7:2869: SEQ 0 A=2 B=x" {
			t.Fatalf("got %v", got)
		}
		// GENA-8
		sid, _ := resp.Header.Get("SID")
		for name, want := range map[string]string{
			"Content-Type": `text/xml; charset="utf-8"`, "Nt": "upnp:event", "Nts": "upnp:propchange",
			"Sid": sid, "Seq": "0", "Connection": "close", "Content-Length": fmt.Sprint(len(got[0].body)),
		} {
			if all := got[0].Values(name); len(all) != 1 || all[0] != want {
				t.Errorf("%s: %q, want %q", name, all, want)
			}
		}
		if got[0].line != "NOTIFY /e?x=1" || got[0].host != "192.168.1.7:2869" {
			t.Errorf("%s, HOST %s", got[0].line, got[0].host)
		}
		body := `<e:propertyset xmlns:e="urn:schemas-upnp-org:event-1-0"><e:property><A>2</A></e:property><e:property><B>x</B></e:property></e:propertyset>`
		if !strings.Contains(got[0].body, body) {
			t.Errorf("body %s", got[0].body)
		}
	})
}

func TestEscape(t *testing.T) { // GENA-8
	for _, want := range []string{"", "Connected", `<a href="x">'&amp;'</a>`, "&lt;", "ä"} {
		var got struct {
			Text string `xml:",chardata"`
		}
		text := "<v>" + escape(want) + "</v>"
		if err := xml.Unmarshal([]byte(text), &got); err != nil || got.Text != want {
			t.Errorf("%q: %q, %v", want, got.Text, err)
		}
		if text := escape(want); strings.ContainsAny(text, `<>"'`) {
			t.Errorf("%q: %q", want, text)
		}
	}
}

// GENA-11, GENA-12: a change goes out at once; what changes within 200 ms of
// a message goes together, the last value always, and nothing else.
func TestCoalescing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		w.subscribe(host)
		time.Sleep(time.Second)
		w.messages()
		w.set("2", "y")
		synctest.Wait()
		w.expect("both in one message", "1s to 192.168.1.7:80: SEQ 1 A=2 B=y")
		time.Sleep(5 * time.Millisecond)
		for i := range 100 {
			time.Sleep(10 * time.Millisecond)
			w.set(fmt.Sprint(i), "y")
		}
		w.set("last", "y")
		time.Sleep(time.Minute)
		w.expect("a second of changes",
			"1.2s to 192.168.1.7:80: SEQ 2 A=18",
			"1.4s to 192.168.1.7:80: SEQ 3 A=38",
			"1.6s to 192.168.1.7:80: SEQ 4 A=58",
			"1.8s to 192.168.1.7:80: SEQ 5 A=78",
			"2s to 192.168.1.7:80: SEQ 6 A=98",
			"2.2s to 192.168.1.7:80: SEQ 7 A=last")
		w.Changed()
		time.Sleep(time.Minute)
		w.expect("no value changed")
		w.set("last", "z")
		time.Sleep(100 * time.Millisecond)
		w.set("there", "z")
		w.set("last", "z")
		time.Sleep(time.Minute)
		w.expect("there and back", "2m2.005s to 192.168.1.7:80: SEQ 8 B=z")
	})
}

// GENA-10: all subscribers hear of a change, each at its own pace.
func TestAllSubscribers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		w.subscribe(host)
		time.Sleep(time.Second)
		w.subscribe("192.168.1.8")
		w.messages()
		w.set("2", "x")
		time.Sleep(time.Second)
		w.expect("a change", "1s to 192.168.1.8:80: SEQ 0 A=2 B=x", "1s to 192.168.1.7:80: SEQ 1 A=2")
	})
}

func TestSEQ(t *testing.T) { // GENA-4, GENA-7
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		sid := w.subscribe(host)
		time.Sleep(time.Second)
		w.messages()
		w.Publisher.mu.Lock()
		w.subs[0].seq = 4294967295
		w.Publisher.mu.Unlock()
		w.set("2", "x")
		time.Sleep(time.Second)
		w.status("renewal", 200, "SUBSCRIBE", host, "SID: "+sid)
		time.Sleep(time.Second)
		w.set("3", "x")
		time.Sleep(time.Second)
		w.set("4", "x")
		time.Sleep(time.Second)
		w.expect("around the end",
			"1s to 192.168.1.7:80: SEQ 4294967295 A=2", "3s to 192.168.1.7:80: SEQ 1 A=3", "4s to 192.168.1.7:80: SEQ 2 A=4")
	})
}

// GENA-9: the URLs are tried in their order until one connects, each for 5 s,
// with one SEQ.
func TestURLsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		w.refuse = func(ctx context.Context, to netip.AddrPort) error {
			switch to.Port() {
			case 1:
				return errors.New("refused")
			case 2:
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		w.status("SUBSCRIBE", 200, "SUBSCRIBE", host, nt,
			"CALLBACK: <http://192.168.1.7:1/><http://192.168.1.7:2/><http://192.168.1.7:3/><http://192.168.1.7:4/>")
		time.Sleep(6 * time.Second)
		w.set("2", "x")
		time.Sleep(time.Minute)
		w.expect("third URL", "5s to 192.168.1.7:3: SEQ 0 A=1 B=x", "11s to 192.168.1.7:3: SEQ 1 A=2")
	})
}

// The values of a failed message travel with the next one, even if they are
// the old ones again: the subscriber may have got it. After a renewal they do
// not wait for a change.
func TestFailedValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		sid := w.subscribe(host)
		time.Sleep(time.Second)
		w.messages()
		fails := answer("HTTP/1.1 500 Oops\r\n\r\n")
		w.behaves(func(to netip.AddrPort, c net.Conn) error { return fails(w, to, c) })
		w.set("2", "x")
		time.Sleep(time.Second)
		w.behaves(nil)
		w.set("1", "x")
		time.Sleep(time.Second)
		w.expect("there and back", "1s to 192.168.1.7:80: SEQ 1 A=2", "2s to 192.168.1.7:80: SEQ 2 A=1")
		if _, _, failed := w.state(host); failed != 0 {
			t.Errorf("%d failures in a row", failed)
		}
		w.behaves(func(to netip.AddrPort, c net.Conn) error { return fails(w, to, c) })
		w.set("1", "y")
		time.Sleep(time.Second)
		w.behaves(nil)
		w.status("renewal", 200, "SUBSCRIBE", host, "SID: "+sid)
		time.Sleep(time.Second)
		w.status("renewal", 200, "SUBSCRIBE", host, "SID: "+sid)
		time.Sleep(time.Second)
		w.expect("after the renewal", "3s to 192.168.1.7:80: SEQ 3 B=y", "4s to 192.168.1.7:80: SEQ 4 B=y")
	})
}

// What changes while a message is under way is sent as soon as it ended.
func TestChangeWhileSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		w.behave = func(to netip.AddrPort, c net.Conn) error {
			time.Sleep(10 * time.Second)
			return errNormal
		}
		sid := w.subscribe(host)
		time.Sleep(time.Second)
		w.set("2", "x")
		w.status("renewal", 200, "SUBSCRIBE", host, "SID: "+sid)
		time.Sleep(time.Second)
		w.set("3", "x")
		time.Sleep(time.Minute)
		w.expect("slow", "10s to 192.168.1.7:80: SEQ 0 A=1 B=x", "20s to 192.168.1.7:80: SEQ 1 A=3")
	})
}

// A subscriber that answers 412 has lost the subscription, so it ends (GENA-9).
func TestUnknownToSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		w.behave = func(to netip.AddrPort, c net.Conn) error {
			return answer("HTTP/1.1 412 Precondition Failed\r\n\r\n")(w, to, c)
		}
		sid := w.subscribe(host)
		time.Sleep(time.Second)
		w.status("renewal", 412, "SUBSCRIBE", host, "SID: "+sid)
		if n := len(w.log()); n != 1 {
			t.Errorf("%d lines", n)
		}
	})
}

// GENA-9: who cannot be reached costs 5 s for each URL, and three messages.
func TestUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		w.refuse = func(ctx context.Context, to netip.AddrPort) error {
			<-ctx.Done()
			return ctx.Err()
		}
		sid := w.subscribe(host)
		for n := range 3 {
			time.Sleep(5*time.Second - 1)
			w.status("before the end", 200, "SUBSCRIBE", host, "SID: "+sid)
			w.set(fmt.Sprint("new", n), "x")
			time.Sleep(time.Nanosecond)
			synctest.Wait()
		}
		w.status("in the end", 412, "SUBSCRIBE", host, "SID: "+sid)
	})
}

// GENA-5, GENA-6: after UNSUBSCRIBE there are no events, but the initial one
// is sent to a subscriber who left before it came, too.
func TestUnsubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		quick := w.subscribe(host) // nobody sends yet
		w.status("quick", 200, "UNSUBSCRIBE", host, "SID: "+quick)
		w.status("quick again", 412, "UNSUBSCRIBE", host, "SID: "+quick)
		slow := w.subscribe("192.168.1.8")
		stays := w.subscribe("192.168.1.9")
		w.behave = func(netip.AddrPort, net.Conn) error {
			time.Sleep(time.Second)
			return errNormal
		}
		defer w.run()()
		synctest.Wait()
		w.status("under way", 200, "UNSUBSCRIBE", "192.168.1.8", "SID: "+slow)
		time.Sleep(2 * time.Second)
		w.expect("initial", "1s to 192.168.1.7:80: SEQ 0 A=1 B=x", "1s to 192.168.1.8:80: SEQ 0 A=1 B=x", "1s to 192.168.1.9:80: SEQ 0 A=1 B=x")
		w.set("2", "x")
		synctest.Wait()
		w.status("broken off", 200, "UNSUBSCRIBE", "192.168.1.9", "SID: "+stays)
		time.Sleep(time.Minute)
		w.set("3", "x")
		time.Sleep(time.Minute)
		w.expect("after UNSUBSCRIBE")
		for _, h := range []string{host, "192.168.1.8", "192.168.1.9"} {
			if exists, _, _ := w.state(h); exists {
				t.Errorf("the subscription of %s is still there", h)
			}
		}
		if len(w.log()) > 0 {
			t.Errorf("log %q", w.log())
		}
	})
}

// The end of Run breaks off all messages, whatever they wait for, and an idle
// Publisher waits for nothing (synctest ends only without goroutines).
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		w.refuse = func(ctx context.Context, to netip.AddrPort) error {
			if to.Addr().String() != host {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		w.behave = func(to netip.AddrPort, c net.Conn) error {
			if to.Addr().String() == "192.168.1.8" {
				_, err := c.Write([]byte("H")) // never reads
				return err
			}
			_, err := io.Copy(io.Discard, c) // never answers
			return err
		}
		for _, h := range []string{host, "192.168.1.8", "192.168.1.9"} {
			w.subscribe(h)
		}
		synctest.Wait()
		for _, h := range []string{host, "192.168.1.8", "192.168.1.9"} {
			if _, busy, _ := w.state(h); !busy {
				t.Errorf("no message under way to %s", h)
			}
		}
		stop()
		if d := time.Since(w.start); d > 0 || len(w.log()) > 0 {
			t.Errorf("ended after %v, log %q", d, w.log())
		}
		w.Changed() // nobody hears it, and it does not wait
		w.subscribe(host)
		w.Changed()
	})
}
