package gena

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
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
	body := propertyset(news)
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
	for _, v := range values {
		to := &news
		for _, k := range known {
			if v == k {
				to = &rest
			}
		}
		*to = append(*to, v)
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
		p.logf("events: no more for %v, which did not take them: %v", s.host, err)
	}
	p.look()
}

// deliver sends one message to the first URL that lets us connect, and waits
// for the answer (GENA-9).
func (p *Publisher) deliver(ctx context.Context, s *subscription, seq uint32, body string) (err error) {
	for _, url := range s.urls {
		if ctx.Err() != nil {
			return ctx.Err() // the subscriber has left (GENA-5)
		}
		connect, cancel := context.WithTimeout(ctx, connectTimeout)
		var c io.ReadWriteCloser
		c, err = p.cfg.Dial(connect, s.dev, s.local, url.to)
		cancel()
		if err != nil {
			continue
		}
		// Closing ends a read or a write that waits for the subscriber.
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		err = exchange(c, notify(url, s.sid, seq, body))
		if !stop() && err != nil {
			err = ctx.Err()
		}
		_ = c.Close()
		return err
	}
	return err
}

// exchange writes the message and reads the status of the answer. The rest of
// the header is read so that closing does not reset a subscriber who is still
// writing it; what comes after it is not waited for, and no redirect is
// followed (GENA-13).
func exchange(c io.ReadWriter, message string) error {
	if _, err := c.Write([]byte(message)); err != nil {
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

// notify returns a whole message (GENA-8). Nothing in it can end a line:
// parseURL has looked at the target.
func notify(url callback, sid string, seq uint32, body string) string {
	return "NOTIFY " + url.target + " HTTP/1.1\r\nHOST: " + url.to.String() +
		"\r\nCONTENT-TYPE: text/xml; charset=\"utf-8\"\r\nCONTENT-LENGTH: " + strconv.Itoa(len(body)) +
		"\r\nNT: upnp:event\r\nNTS: upnp:propchange\r\nSID: " + sid +
		"\r\nSEQ: " + strconv.FormatUint(uint64(seq), 10) + "\r\nCONNECTION: close\r\n\r\n" + body
}

// propertyset returns the body of a message.
func propertyset(values []Property) string {
	s := "<?xml version=\"1.0\"?>\r\n<e:propertyset xmlns:e=\"urn:schemas-upnp-org:event-1-0\">"
	for _, v := range values {
		s += "<e:property><" + v.Name + ">" + escape(v.Value) + "</" + v.Name + "></e:property>"
	}
	return s + "</e:propertyset>\r\n"
}

// escape makes s stand for itself in XML text. It is one of the daemon's own
// values, so without control characters.
func escape(s string) string {
	for _, e := range []Property{{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {`"`, "&quot;"}, {"'", "&apos;"}} {
		s = strings.ReplaceAll(s, e.Name, e.Value)
	}
	return s
}
