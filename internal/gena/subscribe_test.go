//go:build go1.25

package gena

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linux-igd/upnpd/internal/httpmsg"
)

const (
	host = "192.168.1.7"
	nt   = "NT: upnp:event"
)

var sidForm = regexp.MustCompile(`^uuid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestAnswers(t *testing.T) {
	w := newWorld(t)
	w.Topic("/other", func() []Property { return nil })
	sid := "SID: " + w.subscribe(host)
	cb := callbackOf(host)
	for _, tt := range []struct {
		method string
		fields []string
		want   int
	}{
		{"SUBSCRIBE", []string{nt, cb}, 200},                                              // GENA-1
		{"SUBSCRIBE", []string{"nt: upnp:event", "Callback: <http://" + host + ">"}, 200}, // SSDP-4
		{"SUBSCRIBE", []string{nt, cb, "TIMEOUT: Second-infinite"}, 200},
		{"SUBSCRIBE", []string{nt, cb, "STATEVAR: A"}, 200}, // GENA-16
		{"SUBSCRIBE", []string{sid}, 200},                   // GENA-4
		{"SUBSCRIBE", []string{sid, "TIMEOUT: Second-1"}, 200},
		// GENA-3
		{"SUBSCRIBE", []string{sid, nt}, 400},
		{"SUBSCRIBE", []string{sid, cb}, 400},
		{"SUBSCRIBE", []string{sid, nt, cb}, 400},
		{"SUBSCRIBE", []string{"SID:", nt, cb}, 400},
		{"SUBSCRIBE", []string{"SID: uuid:unknown", nt, cb}, 400},
		{"SUBSCRIBE", []string{nt, cb, cb}, 400},
		{"SUBSCRIBE", []string{nt, nt, cb}, 400},
		{"SUBSCRIBE", []string{sid, sid}, 400},
		{"SUBSCRIBE", []string{cb}, 412},
		{"SUBSCRIBE", []string{"NT:", cb}, 412},
		{"SUBSCRIBE", []string{"NT: upnp:propchange", cb}, 412},
		{"SUBSCRIBE", []string{nt}, 412},
		{"SUBSCRIBE", []string{nt, "CALLBACK:"}, 412},
		{"SUBSCRIBE", []string{nt, "CALLBACK: <https://192.168.1.7/>"}, 412},
		{"SUBSCRIBE", []string{nt, callbackOf("192.168.1.8")}, 412}, // GENA-13
		{"SUBSCRIBE", nil, 412},
		{"SUBSCRIBE", []string{"SID:"}, 412},
		{"SUBSCRIBE", []string{"SID: uuid:unknown"}, 412},
		{"SUBSCRIBE", []string{strings.ToUpper(sid)}, 412},
		// GENA-5
		{"UNSUBSCRIBE", nil, 412},
		{"UNSUBSCRIBE", []string{"SID:"}, 412},
		{"UNSUBSCRIBE", []string{"SID: uuid:unknown"}, 412},
		{"UNSUBSCRIBE", []string{sid, nt}, 400},
		{"UNSUBSCRIBE", []string{sid, cb}, 400},
		{"UNSUBSCRIBE", []string{nt, cb}, 400},
		{"UNSUBSCRIBE", []string{sid, sid}, 400},
		{"UNSUBSCRIBE", []string{sid}, 200},
		{"UNSUBSCRIBE", []string{sid}, 412},
		{"SUBSCRIBE", []string{sid}, 412},
		// HTTP-11
		{"GET", nil, 405}, {"POST", nil, 405}, {"NOTIFY", nil, 405}, {"subscribe", []string{nt, cb}, 501},
	} {
		resp := w.Handle(ask(tt.method, path, host, tt.fields...))
		if resp.Status != tt.want || len(resp.Body) > 0 {
			t.Errorf("%s %q: %d, want %d", tt.method, tt.fields, resp.Status, tt.want)
		}
		if allow, _ := resp.Header.Get("ALLOW"); (allow == "SUBSCRIBE, UNSUBSCRIBE") != (tt.want == 405) {
			t.Errorf("%s: Allow %q", tt.method, allow)
		}
		if got, _ := resp.Header.Get("SID"); tt.want == 200 && tt.method == "SUBSCRIBE" && !sidForm.MatchString(got) {
			t.Errorf("%s %q: SID %q", tt.method, tt.fields, got)
		}
		if (resp.Sent != nil) != (tt.want == 200 && tt.method == "SUBSCRIBE" && tt.fields[0] != sid) {
			t.Errorf("%s %q: Sent is %v", tt.method, tt.fields, resp.Sent != nil) // GENA-4: a renewal has no initial event
		}
	}
	for _, target := range []string{"/", "/wanip", path + "?x", path + "/"} { // GENA-3, GENA-15
		if got := w.Handle(ask("SUBSCRIBE", target, host, nt, cb)).Status; got != 404 {
			t.Errorf("%s: %d", target, got)
		}
	}
	foreign := "SID: " + w.subscribe(host)
	for _, method := range []string{"SUBSCRIBE", "UNSUBSCRIBE"} { // GENA-3: unknown to that service
		if got := w.Handle(ask(method, "/other", host, foreign)).Status; got != 412 {
			t.Errorf("%s at another service: %d", method, got)
		}
	}
}

// GENA-1: no two subscriptions have the same SID.
func TestSIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		sid, err := newSID()
		if err != nil || seen[sid] || !sidForm.MatchString(sid) {
			t.Fatalf("%q, %v", sid, err)
		}
		seen[sid] = true
	}
}

func TestTimeout(t *testing.T) { // GENA-2
	for in, want := range map[string]string{
		"": "1800", "Second-infinite": "1800", "infinite": "1800", "Second-": "1800", "Second-x": "1800",
		"Second-0": "1800", "Second-300": "1800", "Second-1799": "1800", "Second--3600": "1800",
		"Second-+3600": "1800", "3600": "1800", "Minute-3600": "1800", "Second-3 600": "1800",
		"Second-1800": "1800", "Second-1801": "1801", "second-3600": "3600", "SECOND-86400": "86400",
		"Second-86401": "86400", "Second-4294967296": "86400", "Second-99999999999999999999999": "86400",
	} {
		w := newWorld(t)
		resp := w.request("SUBSCRIBE", host, nt, callbackOf(host), "TIMEOUT: "+in)
		sid, _ := resp.Header.Get("SID")
		again := w.request("SUBSCRIBE", host, "SID: "+sid, "TIMEOUT: "+in)
		for _, resp := range []*httpmsg.Response{resp, again} {
			if got, _ := resp.Header.Get("TIMEOUT"); got != "Second-"+want {
				t.Errorf("%q: %q, want %s", in, got, want)
			}
		}
		if got, _ := again.Header.Get("SID"); got != sid { // GENA-4
			t.Errorf("renewed as %q, was %q", got, sid)
		}
	}
}

// GENA-2, GENA-4: a subscription ends when its time is over, unless it was
// renewed, and gets no message after that.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		brief, long := w.subscribe(host), w.subscribe("192.168.1.8")
		time.Sleep(1799 * time.Second)
		w.status("renewal", 200, "SUBSCRIBE", "192.168.1.8", "SID: "+long)
		w.expect("initial", "0s to 192.168.1.7:80: SEQ 0 A=1 B=x", "0s to 192.168.1.8:80: SEQ 0 A=1 B=x")
		time.Sleep(time.Second)
		w.status("expired", 412, "SUBSCRIBE", host, "SID: "+brief)
		w.status("expired", 412, "UNSUBSCRIBE", host, "SID: "+brief)
		w.set("2", "x")
		synctest.Wait()
		w.expect("after 1800 s", "30m0s to 192.168.1.8:80: SEQ 1 A=2")
		time.Sleep(1799 * time.Second)
		w.set("3", "x")
		synctest.Wait()
		w.expect("after 1800 s of the renewed life")
		w.status("expired", 412, "SUBSCRIBE", "192.168.1.8", "SID: "+long)
	})
}

// A host has as many IPv6 addresses as it likes: half of the places are for IPv4.
func TestLimitOfIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		from := func(i int) (string, string) {
			addr := fmt.Sprintf("2001:db8::%x", i)
			return addr, "CALLBACK: <http://[" + addr + "]:80/>"
		}
		for i := 1; i <= 33; i++ {
			addr, callback := from(i)
			w.status(addr, map[bool]int{true: 200, false: 503}[i <= 32], "SUBSCRIBE", addr, nt, callback)
		}
		w.status("IPv4", 200, "SUBSCRIBE", host, nt, callbackOf(host))
	})
}

// GENA-13, GENA-3: limits for a host and for all.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		var sids []string
		for h := 1; h <= 4; h++ {
			from := fmt.Sprintf("192.168.1.%d", 10+h)
			for range 16 {
				sids = append(sids, w.subscribe(from))
			}
			w.status("17 of one host", 503, "SUBSCRIBE", from, nt, callbackOf(from))
		}
		w.status("65 of all", 503, "SUBSCRIBE", host, nt, callbackOf(host))
		synctest.Wait()
		if n := len(w.messages()); n != 64 {
			t.Errorf("%d initial events", n)
		}
		w.status("UNSUBSCRIBE", 200, "UNSUBSCRIBE", "192.168.1.11", "SID: "+sids[0])
		w.subscribe(host)
		w.status("65 of all", 503, "SUBSCRIBE", host, nt, callbackOf(host))
		time.Sleep(1800 * time.Second) // all are over; nobody looked yet
		for range 16 {
			w.subscribe(host)
		}
		w.status("17 of one host", 503, "SUBSCRIBE", host, nt, callbackOf(host))
	})
}

// Messages under way count, so that one host cannot make more than 16 of them
// by leaving and coming again.
func TestLimitOfMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		w.refuse = func(ctx context.Context, _ netip.AddrPort) error {
			<-ctx.Done()
			return ctx.Err()
		}
		for range 16 {
			sid := w.subscribe(host)
			synctest.Wait()
			w.status("UNSUBSCRIBE", 200, "UNSUBSCRIBE", host, "SID: "+sid)
		}
		w.status("17 messages", 503, "SUBSCRIBE", host, nt, callbackOf(host))
		time.Sleep(6 * time.Second)
		w.subscribe(host)
	})
}

// A refusal is a line that says who and why.
func TestRefusalLine(t *testing.T) {
	w := newWorld(t)
	w.status("foreign callback", 412, "SUBSCRIBE", host, nt, callbackOf("203.0.113.1"))
	want := "events: refused a subscription of 192.168.1.7: its callback leads to 203.0.113.1, which is not itself"
	if lines := w.log(); len(lines) != 1 || lines[0] != want {
		t.Errorf("log %q", lines)
	}
}

// GENA-13, GENA-14: the connection goes out where the SUBSCRIBE came in, from
// the router's address there.
func TestWayOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.run()()
		req := ask("SUBSCRIBE", path, "fe80::7%br1", nt, "CALLBACK: <http://[fe80::7]:80/x>")
		req.Device, req.Local = "br1", netip.MustParseAddrPort("[fe80::1]:49152")
		resp := w.Handle(req)
		if resp.Status != 200 {
			t.Fatal(resp.Status)
		}
		resp.Sent()
		w.hurry()
		synctest.Wait()
		if len(w.dials) != 1 || w.dials[0] != "br1 fe80::1 [fe80::7]:80" {
			t.Errorf("dialled %q", w.dials)
		}
		if got := w.messages(); len(got) != 1 || got[0].host != "[fe80::7]:80" || got[0].line != "NOTIFY /x" {
			t.Errorf("got %+v", got)
		}
	})
}

// FuzzHandle: whatever the fields are, the answer is one of GENA-3, and only a
// request that GENA-1 or GENA-4 describes succeeds.
func FuzzHandle(f *testing.F) {
	for _, method := range []string{"SUBSCRIBE", "UNSUBSCRIBE", "GET"} {
		f.Add(method, "", "upnp:event", "<http://192.168.1.7:80/>", "Second-1800", uint8(6))
		f.Add(method, "own", "", "", "Second-infinite", uint8(1))
		f.Add(method, "own", "", "", "Second-999999", uint8(1))
		f.Add(method, "uuid:x", "upnp:event", "", "", uint8(3))
	}
	f.Fuzz(func(t *testing.T, method, sid, nt, callback, timeout string, present uint8) {
		w := newWorld(t)
		own := w.subscribe(host)
		if sid == "own" {
			sid = own
		}
		req := ask(method, path, host, "TIMEOUT: x")
		req.Header[0].Value = timeout
		for i, field := range []httpmsg.Field{{Name: "SID", Value: sid}, {Name: "NT", Value: nt}, {Name: "CALLBACK", Value: callback}} {
			if present>>i&1 == 1 {
				req.Header = append(req.Header, field)
			}
		}
		resp := w.Handle(req)
		hasSID, hasNT, hasCallback := present&1 == 1, present&2 == 2, present&4 == 4
		isNew := method == "SUBSCRIBE" && !hasSID && hasNT && hasCallback && nt == "upnp:event"
		isKnown := hasSID && sid == own && !hasNT && !hasCallback
		switch resp.Status {
		case 200:
			if isNew == isKnown {
				t.Errorf("200 to %+v", req)
			}
			if life, _ := resp.Header.Get("TIMEOUT"); method == "SUBSCRIBE" && !regexp.MustCompile(`^Second-\d{4,5}$`).MatchString(life) {
				t.Errorf("TIMEOUT %q", life)
			}
		case 400, 412:
			if isKnown && (method == "SUBSCRIBE" || method == "UNSUBSCRIBE") {
				t.Errorf("%d to %+v", resp.Status, req)
			}
		case 405, 501:
			if method == "SUBSCRIBE" || method == "UNSUBSCRIBE" {
				t.Errorf("%d to %s", resp.Status, method)
			}
		default:
			t.Errorf("%d to %+v", resp.Status, req)
		}
	})
}
