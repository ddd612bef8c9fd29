package gena

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/httpmsg"
)

// Bounds of a subscription's life, in seconds (GENA-2).
const minTimeout, maxTimeout = 1800, 86400

var (
	errNT   = errors.New("NT is not upnp:event")
	errFull = errors.New("there are 64 already, or 16 of its own")
)

// subscribe answers SUBSCRIBE and UNSUBSCRIBE.
func (p *Publisher) subscribe(t *topic, req *httpmsg.Request) *httpmsg.Response {
	leave := req.Method == "UNSUBSCRIBE"
	sid, isKnown := req.Header.Get("SID")
	isKnown = isKnown || leave
	nt, callback := req.Header.Count("NT"), req.Header.Count("CALLBACK")
	if isKnown && nt+callback > 0 || nt > 1 || callback > 1 || req.Header.Count("SID") > 1 {
		return &httpmsg.Response{Status: 400} // GENA-3, GENA-5
	}
	timeout, _ := req.Header.Get("TIMEOUT")
	life := parseTimeout(timeout)
	if isKnown {
		return p.known(t, sid, leave, life)
	}
	s := &subscription{
		topic: t, host: req.Remote.Addr().Unmap().WithZone(""), dev: req.Device, local: req.Local.Addr(),
		expires: time.Now().Add(life), stale: true,
	}
	if status, err := p.begin(s, req.Header); err != nil {
		p.logf("events: refused a subscription of %v: %v", s.host, err)
		return &httpmsg.Response{Status: status}
	}
	resp := accepted(s.sid, life)
	// Before that the subscriber does not know the SID (GENA-6), and not at once
	// after it: GUPnP 1.6 reads what comes together with the answer before the
	// answer, and throws the event away.
	resp.Sent = func() {
		p.mu.Lock()
		s.ready, s.next = true, time.Now().Add(pause)
		p.mu.Unlock()
		p.look()
	}
	return resp
}

// begin makes s a subscription, or says with which status it is refused
// (GENA-3).
func (p *Publisher) begin(s *subscription, h httpmsg.Header) (status int, err error) {
	if nt, _ := h.Get("NT"); nt != "upnp:event" {
		return 412, errNT
	}
	text, _ := h.Get("CALLBACK")
	if s.urls, err = parseCallback(text, s.host); err != nil {
		return 412, err
	}
	if s.sid, err = newSID(); err == nil {
		err = p.add(s)
	}
	return 503, err
}

// add puts s among the subscriptions, unless a limit forbids it (GENA-13).
func (p *Publisher) add(s *subscription) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep(time.Now())
	same, six := 0, 0
	for _, other := range p.subs {
		if other.host == s.host {
			same++
		}
		if other.host.Is6() {
			six++
		}
	}
	if same >= maxPerHost || len(p.subs) >= maxSubscriptions || s.host.Is6() && six >= maxIPv6 {
		return errFull
	}
	p.subs = append(p.subs, s)
	return nil
}

// known renews a subscription, whose events go on as before (GENA-4), or ends
// it. Then a message under way is broken off, except the initial event (GENA-5,
// GENA-6).
func (p *Publisher) known(t *topic, sid string, leave bool, life time.Duration) *httpmsg.Response {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, s := range p.subs {
		if s.sid != sid || s.topic != t || s.gone || !now.Before(s.expires) {
			continue
		}
		if s.gone = leave; leave {
			if s.stop != nil {
				s.stop()
			}
			return &httpmsg.Response{Status: 200}
		}
		s.expires = now.Add(life)
		s.stale = true // it lives: what a failed message had need not wait for a change
		p.look()
		return accepted(sid, life)
	}
	return &httpmsg.Response{Status: 412}
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
