package gena

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/httpmsg"
)

const path = "/wanip/event"

var router = netip.MustParseAddrPort("192.168.1.1:49152")

// A message is one NOTIFY as a subscriber got it.
type message struct {
	at   time.Duration // since the world began
	to   netip.AddrPort
	line string // method and target
	http.Header
	host, body string
}

func (m message) String() string {
	return fmt.Sprintf("%v to %v: SEQ %s %s", m.at, m.to, m.Get("SEQ"), m.values())
}

// values reads the body as "Name=value Name=value".
func (m message) values() string {
	var set struct {
		XMLName    xml.Name `xml:"urn:schemas-upnp-org:event-1-0 propertyset"`
		Properties []struct {
			XMLName xml.Name `xml:"urn:schemas-upnp-org:event-1-0 property"`
			Var     struct {
				XMLName xml.Name
				Value   string `xml:",chardata"`
			} `xml:",any"`
		} `xml:",any"`
	}
	if err := xml.Unmarshal([]byte(m.body), &set); err != nil {
		return err.Error()
	}
	var all []string
	for _, p := range set.Properties {
		all = append(all, p.Var.XMLName.Local+"="+p.Var.Value)
	}
	return strings.Join(all, " ")
}

// A world is a Publisher with one topic of two values, and its subscribers.
type world struct {
	*Publisher
	t     *testing.T
	start time.Time

	mu     sync.Mutex
	a, b   string
	got    []message
	dials  []string
	lines  []string
	behave func(to netip.AddrPort, c net.Conn) error // nil: answers 200
	refuse func(ctx context.Context, to netip.AddrPort) error
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, start: time.Now(), a: "1", b: "x"}
	w.Publisher = New(Config{
		Logf: func(format string, args ...any) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.lines = append(w.lines, fmt.Sprintf(format, args...))
		},
		Dial: w.dial,
	})
	w.Topic(path, func() []Property {
		w.mu.Lock()
		defer w.mu.Unlock()
		return []Property{{"A", w.a}, {"B", w.b}}
	})
	return w
}

// run runs the Publisher until the returned function is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		w.Run(ctx)
		close(done)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (w *world) set(a, b string) {
	w.mu.Lock()
	w.a, w.b = a, b
	w.mu.Unlock()
	w.Changed()
}

func (w *world) dial(ctx context.Context, dev string, local netip.Addr, to netip.AddrPort) (io.ReadWriteCloser, error) {
	w.mu.Lock()
	w.dials = append(w.dials, fmt.Sprintf("%s %v %v", dev, local, to))
	refuse := w.refuse
	w.mu.Unlock()
	if refuse != nil {
		if err := refuse(ctx, to); err != nil {
			return nil, err
		}
	}
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		w.mu.Lock()
		behave := w.behave
		w.mu.Unlock()
		if behave != nil {
			if err := behave(to, theirs); err != errNormal {
				return
			}
		}
		if w.receive(to, theirs) == nil {
			_, _ = io.WriteString(theirs, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}()
	return ours, nil
}

// errNormal makes a subscriber that behaves in its own way take a message and
// answer 200 after all.
var errNormal = errors.New("answer 200")

// receive reads one message and keeps it.
func (w *world) receive(to netip.AddrPort, c net.Conn) error {
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return err
	}
	body, err := io.ReadAll(req.Body)
	if err != nil || req.ContentLength != int64(len(body)) {
		return fmt.Errorf("body of %d bytes, %d announced: %w", len(body), req.ContentLength, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, message{time.Since(w.start), to, req.Method + " " + req.RequestURI, req.Header, req.Host, string(body)})
	return nil
}

// messages returns what came since the last call.
func (w *world) messages() []message {
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.got
	w.got = nil
	return got
}

// expect compares what came since the last call; what came at one moment to
// several has no order.
func (w *world) expect(what string, want ...string) {
	w.t.Helper()
	var got []string
	for _, m := range w.messages() {
		got = append(got, m.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// behaves makes all subscribers behave so from now on.
func (w *world) behaves(how func(to netip.AddrPort, c net.Conn) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.behave = how
}

func (w *world) log() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lines
}

// ask makes a request of a host; fields are "Name: value".
func ask(method, target, host string, fields ...string) *httpmsg.Request {
	req := &httpmsg.Request{
		Method: method, Target: target, Minor: 1, Device: "br0", Local: router,
		Remote: netip.AddrPortFrom(netip.MustParseAddr(host), 40000),
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		req.Header = append(req.Header, httpmsg.Field{Name: name, Value: strings.TrimSpace(value)})
	}
	return req
}

// request asks and tells that the answer was written. The pause before the
// initial event is left out; TestInitialEvent looks at that.
func (w *world) request(method, host string, fields ...string) *httpmsg.Response {
	resp := w.Handle(ask(method, path, host, fields...))
	if resp.Sent != nil {
		resp.Sent()
		w.hurry()
	}
	return resp
}

// hurry ends the pause before initial events.
func (w *world) hurry() {
	w.Publisher.mu.Lock()
	for _, s := range w.subs {
		if s.seq == 0 {
			s.next = time.Time{}
		}
	}
	w.Publisher.mu.Unlock()
	w.look()
}

func callbackOf(host string) string { return "CALLBACK: <http://" + host + ":80/>" }

// subscribe returns the SID.
func (w *world) subscribe(host string) string {
	w.t.Helper()
	resp := w.request("SUBSCRIBE", host, "NT: upnp:event", callbackOf(host))
	sid, _ := resp.Header.Get("SID")
	if resp.Status != 200 || sid == "" {
		w.t.Errorf("SUBSCRIBE of %s: %d", host, resp.Status)
	}
	return sid
}

func (w *world) status(what string, want int, method, host string, fields ...string) {
	w.t.Helper()
	if got := w.request(method, host, fields...).Status; got != want {
		w.t.Errorf("%s: %d, want %d", what, got, want)
	}
}
