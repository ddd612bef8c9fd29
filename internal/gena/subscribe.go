package gena

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/httpmsg"
)

// Bounds of a subscription's life, in seconds (GENA-2).
const minTimeout, maxTimeout = 1800, 86400

func refuse(status int) *httpmsg.Response { return &httpmsg.Response{Status: status} }

// subscribe begins or renews a subscription.
func (p *Publisher) subscribe(t *topic, req *httpmsg.Request) *httpmsg.Response {
	sid, renewal, ok := readSID(req)
	if !ok {
		return refuse(400)
	}
	text, _ := req.Header.Get("TIMEOUT")
	life := parseTimeout(text)
	if renewal {
		return p.renew(t, sid, life)
	}
	host := plain(req.Remote.Addr())
	text, _ = req.Header.Get("CALLBACK")
	urls, err := parseCallback(text, host)
	if nt, _ := req.Header.Get("NT"); nt != "upnp:event" {
		return refuse(412)
	}
	if err != nil {
		p.logf(host, "events: refused a subscription of %v: %v", host, err)
		return refuse(412)
	}
	s := &subscription{
		topic: t, host: host, dev: req.Device, local: plain(req.Local.Addr()), urls: urls,
		expires: time.Now().Add(life), stale: true,
	}
	if s.sid, err = newSID(); err == nil {
		err = p.add(s)
	}
	if err != nil {
		p.logf(host, "events: refused a subscription of %v: %v", host, err)
		return refuse(503)
	}
	resp := accepted(s.sid, life)
	resp.Sent = func() { // before that the subscriber does not know the SID (GENA-6)
		p.mu.Lock()
		s.ready = true
		p.mu.Unlock()
		p.look()
	}
	return resp
}

// add puts s among the subscriptions, unless a limit forbids it (GENA-13).
func (p *Publisher) add(s *subscription) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep(time.Now())
	same := 0
	for _, other := range p.subs {
		if other.host == s.host {
			same++
		}
	}
	if same >= maxPerHost || len(p.subs) >= maxSubscriptions {
		return fmt.Errorf("there are %d, %d of them its own; at most %d and %d may be", len(p.subs), same, maxSubscriptions, maxPerHost)
	}
	p.subs = append(p.subs, s)
	return nil
}

// renew prolongs a subscription; its events go on as before (GENA-4).
func (p *Publisher) renew(t *topic, sid string, life time.Duration) *httpmsg.Response {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.find(t, sid)
	if s == nil {
		return refuse(412)
	}
	s.expires = time.Now().Add(life)
	if s.failed > 0 { // it lives: what it missed need not wait for the next change
		s.stale = true
		p.look()
	}
	return accepted(sid, life)
}

// unsubscribe ends a subscription. A message under way is broken off, except
// the initial event (GENA-5, GENA-6).
func (p *Publisher) unsubscribe(t *topic, req *httpmsg.Request) *httpmsg.Response {
	sid, _, ok := readSID(req)
	if !ok {
		return refuse(400)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.find(t, sid)
	if s == nil {
		return refuse(412)
	}
	s.gone = true
	if s.stop != nil {
		s.stop()
	}
	p.sweep(time.Now())
	return &httpmsg.Response{Status: 200}
}

// find returns the living subscription of that SID to t, or nil.
func (p *Publisher) find(t *topic, sid string) *subscription {
	for _, s := range p.subs {
		if s.sid == sid && s.topic == t && !s.gone && time.Now().Before(s.expires) {
			return s
		}
	}
	return nil
}

// readSID returns the SID of a request and whether it has one. With NT or
// CALLBACK beside it, or one of the three twice, the request is not ok
// (GENA-3).
func readSID(req *httpmsg.Request) (sid string, present, ok bool) {
	sid, present = req.Header.Get("SID")
	nt, callback := req.Header.Count("NT"), req.Header.Count("CALLBACK")
	ok = nt <= 1 && callback <= 1 && req.Header.Count("SID") <= 1
	if present || req.Method == "UNSUBSCRIBE" {
		ok = ok && nt+callback == 0
	}
	return sid, present, ok
}

// parseTimeout reads "Second-N". Whatever is no number, "infinite" too, or is
// too small becomes the least timeout, which is the usual one (GENA-2).
func parseTimeout(s string) time.Duration {
	const unit = "Second-"
	var n uint64
	if len(s) > len(unit) && strings.EqualFold(s[:len(unit)], unit) {
		n, _ = strconv.ParseUint(s[len(unit):], 10, 32) // 0 for no number, the largest for a larger one
	}
	return time.Duration(min(max(n, minTimeout), maxTimeout)) * time.Second
}

func accepted(sid string, life time.Duration) *httpmsg.Response {
	return &httpmsg.Response{Status: 200, Header: httpmsg.Header{
		{Name: "SID", Value: sid},
		{Name: "TIMEOUT", Value: "Second-" + strconv.Itoa(int(life/time.Second))},
	}}
}

// newSID returns a random UUID (RFC 9562 section 5.4). Nobody can guess it, so
// it is all that renewing and leaving take: an IPv6 host may come with another
// address of its own then.
func newSID() (string, error) {
	var b [16]byte
	if n, err := unix.Getrandom(b[:], 0); err != nil || n < len(b) {
		return "", fmt.Errorf("random bytes for a SID: %d, %w", n, err)
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("uuid:%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// plain returns the address alone: no zone, and IPv4 as such.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
