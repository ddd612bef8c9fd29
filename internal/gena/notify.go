package gena

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/linux-igd/upnpd/internal/httpmsg"
)

const (
	messageTimeout = 30 * time.Second // from the first connect to the answer (GENA-9)
	connectTimeout = 5 * time.Second  // of one URL (GENA-9)
	maxAnswer      = 2 << 10          // bytes of an answer's header (GENA-13)
)

// errUnknown says that the subscriber answered 412: it knows no such SID.
var errUnknown = errors.New("it does not know the subscription (412)")

// send starts the next message of s, when it has something to tell: all values
// at first, then those that the subscriber does not have.
func (p *Publisher) send(run context.Context, messages *sync.WaitGroup, s *subscription, values []Property) {
	p.mu.Lock()
	defer p.mu.Unlock()
	news, known := divide(values, s.known)
	if s.over() || len(news) == 0 {
		return
	}
	// Until the answer is there nobody knows which value of these the
	// subscriber has. A message that fails is given up (GENA-9), but what was
	// in it goes with the next one, even if the value is the old one again:
	// else the subscriber could stay with a wrong one for ever.
	s.known = known
	ctx, cancel := context.WithTimeout(run, messageTimeout)
	s.stop = cancel
	if s.seq == 0 {
		s.stop = func() {} // GENA-6
	}
	s.next = time.Now().Add(pause)
	body := appendBody(nil, news)
	seq := s.seq
	if s.seq++; s.seq == 0 {
		s.seq = 1 // GENA-7
	}
	messages.Add(1)
	go func() {
		defer messages.Done()
		defer cancel()
		err := p.deliver(ctx, s, seq, body)
		p.ended(run, s, values, err)
	}()
}

// divide parts the values into those that are not among known, and the rest.
func divide(values, known []Property) (news, rest []Property) {
next:
	for _, v := range values {
		for _, k := range known {
			if v == k {
				rest = append(rest, v)
				continue next
			}
		}
		news = append(news, v)
	}
	return news, rest
}

// ended takes note of what became of a message with these values.
func (p *Publisher) ended(run context.Context, s *subscription, values []Property, err error) {
	p.mu.Lock()
	s.stop = nil
	dropped := false
	switch {
	case err == nil:
		s.known, s.failed = values, 0
	case s.gone || run.Err() != nil: // it was broken off
	default:
		s.failed++
		dropped = s.failed >= maxFailures || errors.Is(err, errUnknown)
		s.gone = dropped
	}
	p.mu.Unlock()
	if dropped {
		p.logf(s.host, "events: no more for %v, which did not take them: %v", s.host, err)
	}
	p.look()
}

// deliver sends one message to the first URL that lets us connect, and waits
// for the answer (GENA-9).
func (p *Publisher) deliver(ctx context.Context, s *subscription, seq uint32, body []byte) error {
	var err error
	for _, url := range s.urls {
		var c io.ReadWriteCloser
		if c, err = p.dial(ctx, s, url); err != nil {
			continue
		}
		// Closing ends a read or a write that waits for the subscriber.
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		err = exchange(c, appendNotify(nil, url, s.sid, seq, body))
		if !stop() && err != nil {
			err = ctx.Err()
		}
		_ = c.Close()
		break
	}
	return err
}

func (p *Publisher) dial(ctx context.Context, s *subscription, url callback) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return p.cfg.Dial(ctx, s.dev, s.local, url.to)
}

// exchange writes the message and reads the status of the answer. The rest of
// the header is read so that closing does not reset a subscriber who is still
// writing it; what comes after it is not waited for, and no redirect is
// followed (GENA-13).
func exchange(c io.ReadWriter, message []byte) error {
	if _, err := c.Write(message); err != nil {
		return err
	}
	answer := make([]byte, 0, maxAnswer)
	var err error
	for err == nil && len(answer) < maxAnswer && !bytes.Contains(answer, []byte("\r\n\r\n")) {
		var n int
		n, err = c.Read(answer[len(answer):maxAnswer])
		answer = answer[:len(answer)+n]
	}
	status, ok := readStatus(answer)
	switch {
	case ok && status/100 == 2: // whatever became of the connection after that (INT-3)
		return nil
	case ok && status == 412:
		return errUnknown
	case ok:
		return fmt.Errorf("it answered %d", status)
	case err != nil:
		return fmt.Errorf("its answer: %w", err)
	}
	return errors.New("its answer is not HTTP")
}

// readStatus reads the number of "HTTP/1.x NNN".
func readStatus(answer []byte) (int, bool) {
	if len(answer) < len("HTTP/1.1 200") || string(answer[:7]) != "HTTP/1." || answer[8] != ' ' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(answer[9:12]), 10, 16)
	return int(n), err == nil
}

// appendNotify appends a whole message (GENA-8).
func appendNotify(dst []byte, url callback, sid string, seq uint32, body []byte) []byte {
	dst = httpmsg.AppendMessage(dst, "NOTIFY "+url.target+" HTTP/1.1", httpmsg.Header{
		{Name: "HOST", Value: url.to.String()},
		{Name: "CONTENT-TYPE", Value: `text/xml; charset="utf-8"`},
		{Name: "CONTENT-LENGTH", Value: strconv.Itoa(len(body))},
		{Name: "NT", Value: "upnp:event"},
		{Name: "NTS", Value: "upnp:propchange"},
		{Name: "SID", Value: sid},
		{Name: "SEQ", Value: strconv.FormatUint(uint64(seq), 10)},
		{Name: "CONNECTION", Value: "close"},
	})
	return append(dst, body...)
}

// appendBody appends a propertyset.
func appendBody(dst []byte, values []Property) []byte {
	dst = append(dst, `<?xml version="1.0"?>`+"\r\n"+`<e:propertyset xmlns:e="urn:schemas-upnp-org:event-1-0">`...)
	for _, v := range values {
		dst = append(dst, "<e:property><"+v.Name+">"...)
		dst = appendEscaped(dst, v.Value)
		dst = append(dst, "</"+v.Name+"></e:property>"...)
	}
	return append(dst, "</e:propertyset>\r\n"...)
}

// appendEscaped appends s so that it stands for itself in XML text. Values are
// the daemon's own; control characters, which XML cannot carry, become blanks.
func appendEscaped(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '&':
			dst = append(dst, "&amp;"...)
		case c == '<':
			dst = append(dst, "&lt;"...)
		case c == '>':
			dst = append(dst, "&gt;"...)
		case c == '"':
			dst = append(dst, "&quot;"...)
		case c == '\'':
			dst = append(dst, "&apos;"...)
		case c < ' ':
			dst = append(dst, ' ')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
