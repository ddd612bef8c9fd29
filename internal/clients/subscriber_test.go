package clients

import (
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// A subscriber takes events on a LAN host, at one address for any number of
// subscriptions, and checks what every message must be like (GENA-8).
type subscriber struct {
	t    testing.TB
	as   *person
	at   netip.AddrPort
	took func() // before the answer; nil: at once

	mu  sync.Mutex
	got []event
}

// event is one message.
type event struct {
	at   time.Time
	path string
	sid  string
	seq  uint32
	vars map[string]string
}

// subscriber begins to listen on p's address.
func (p *person) subscriber() *subscriber {
	p.t.Helper()
	addr := p.addr
	if addr.IsLinkLocalUnicast() {
		addr = addr.WithZone(zone(p.t, p.host, lab.HostDev))
	}
	l, err := p.host.ListenTCP(netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		p.t.Fatal(err)
	}
	s := &subscriber{t: p.t, as: p, at: netip.AddrPortFrom(p.addr, l.Addr().(*net.TCPAddr).AddrPort().Port())}
	go http.Serve(l, s)
	return s
}

// ServeHTTP takes a message.
func (s *subscriber) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := event{at: time.Now(), path: r.URL.RequestURI(), sid: r.Header.Get("SID"), vars: map[string]string{}}
	seq, err := strconv.ParseUint(r.Header.Get("SEQ"), 10, 32)
	e.seq = uint32(seq)
	var set struct {
		XMLName    xml.Name `xml:"urn:schemas-upnp-org:event-1-0 propertyset"`
		Properties []struct {
			Any []struct {
				XMLName xml.Name
				Text    string `xml:",chardata"`
			} `xml:",any"`
		} `xml:"urn:schemas-upnp-org:event-1-0 property"`
	}
	body, bodyErr := io.ReadAll(r.Body)
	xmlErr := xml.Unmarshal(body, &set)
	if r.Method != "NOTIFY" || r.Header.Get("NT") != "upnp:event" || r.Header.Get("NTS") != "upnp:propchange" ||
		r.Header.Get("Content-Type") != `text/xml; charset="utf-8"` || r.Host != s.at.String() ||
		r.ContentLength != int64(len(body)) || err != nil || bodyErr != nil || xmlErr != nil {
		s.t.Errorf("a bad message: %s %s %v\n%s\n%v %v %v", r.Method, r.Host, r.Header, body, err, bodyErr, xmlErr)
	}
	for _, p := range set.Properties {
		for _, v := range p.Any {
			e.vars[v.XMLName.Local] = v.Text
		}
	}
	s.mu.Lock()
	s.got = append(s.got, e)
	s.mu.Unlock()
	if s.took != nil {
		s.took()
	}
}

// events gives what came for a subscription, and checks that nothing of it is
// missing or out of order (GENA-7).
func (s *subscriber) events(sid string) []event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []event
	for _, e := range s.got {
		if e.sid == sid {
			if int(e.seq) != len(all) {
				s.t.Errorf("SEQ %d is message number %d of %s", e.seq, len(all), sid)
			}
			all = append(all, e)
		}
	}
	return all
}

// wait waits for n events of a subscription.
func (s *subscriber) wait(sid string, n int) []event {
	s.t.Helper()
	until(s.t, fmt.Sprintf("%d events for %v", n, s.at), func() bool { return len(s.events(sid)) >= n })
	return s.events(sid)
}

// values merges what a subscription was told.
func (s *subscriber) values(sid string) map[string]string {
	all := map[string]string{}
	for _, e := range s.events(sid) {
		for name, value := range e.vars {
			all[name] = value
		}
	}
	return all
}

// request is SUBSCRIBE or UNSUBSCRIBE with header fields, as name, value pairs.
func (p *person) request(method string, svc service, fields ...string) *http.Response {
	p.t.Helper()
	header := http.Header{}
	for i := 0; i+1 < len(fields); i += 2 {
		header[fields[i]] = []string{fields[i+1]}
	}
	r, body := p.do(method, svc.Event, header, "")
	if body != "" {
		p.t.Errorf("%s is answered with a body: %q", method, body)
	}
	return r
}

// subscribe gives the SID.
func (s *subscriber) subscribe(svc service) string {
	s.t.Helper()
	r := s.as.request("SUBSCRIBE", svc, "NT", "upnp:event", "CALLBACK", "<http://"+s.at.String()+"/e?x=1>", "TIMEOUT", "Second-300")
	sid := r.Header.Get("SID")
	if r.StatusCode != 200 || sid == "" || r.Header.Get("TIMEOUT") != "Second-1800" || r.Header.Get("Date") == "" || r.Header.Get("Server") == "" {
		s.t.Fatalf("SUBSCRIBE of %v: %s %v", s.at, r.Status, r.Header) // GENA-1, GENA-2
	}
	return sid
}
