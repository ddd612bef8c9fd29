package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/linux-igd/upnpd/internal/sock"
)

const (
	maxClients     = 8 // at once; more wait for one to go
	requestTimeout = 5 * time.Second
	replyTimeout   = 10 * time.Second
)

var errNone = errors.New("there is no such mapping")

// Serve answers until ctx ends, then closes l and returns nil. Any other end is
// an error of the listener.
func (s *Server) Serve(ctx context.Context, l *sock.UnixListener) error {
	defer func() { _ = l.Close() }()
	var clients sync.WaitGroup
	defer clients.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	slots := make(chan struct{}, maxClients)
	for exhausted := false; ; {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := l.Accept(ctx)
		if err == nil {
			exhausted = false
			clients.Add(1)
			go func() {
				defer clients.Done()
				s.serve(ctx, c)
				<-slots
			}()
			continue
		}
		<-slots
		switch {
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, sock.ErrExhausted): // which Accept delayed
			return err
		case !exhausted:
			exhausted = true
			s.Logf("control socket: %v", err)
		}
	}
}

// serve answers one client.
func (s *Server) serve(ctx context.Context, c *sock.UnixConn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(requestTimeout))
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	line, err := readLine(c)
	var r *request
	if err == nil {
		r, err = parseRequest(line)
	} else if line == "" {
		return // it has said nothing
	}
	if err == nil && r.command == "log" {
		s.log(ctx, c, r.has("follow"))
		return
	}
	code, text := 2, []byte(nil)
	if err == nil {
		code, text = s.answer(ctx, r)
	} else {
		var t sheet
		t.line("%s", err)
		text = t
	}
	_ = c.SetDeadline(time.Now().Add(replyTimeout))
	if ctx.Err() == nil { // else the deadline may be the one just set
		_, _ = c.Write(append(fmt.Appendf(nil, "%d\n", code), text...))
	}
}

// readLine reads up to the end of a line. With an error it gives what there was.
func readLine(c *sock.UnixConn) (string, error) {
	var buf [maxRequest]byte
	for n := 0; n < len(buf); {
		k, err := c.Read(buf[n:])
		if end := bytes.IndexByte(buf[n:n+k], '\n'); end >= 0 {
			return string(buf[:n+end]), nil
		}
		n += k
		if err != nil {
			return string(buf[:n]), fmt.Errorf("the request has no end: %w", err)
		}
	}
	return string(buf[:]), fmt.Errorf("the request is longer than %d bytes", maxRequest)
}

// answer gives the exit code and the text for a request.
func (s *Server) answer(ctx context.Context, r *request) (code int, text []byte) {
	json := r.has("json")
	var t sheet
	switch r.command {
	case "list":
		return 0, s.list(json)
	case "status":
		return 0, s.status(json)
	case "check":
		return check(judge(s.Daemon.Facts(ctx, r.has("live"))), json)
	case "delete":
		return s.remove(r)
	case "flush":
		t.line("mappings deleted: %d", s.Table.Flush())
	case "export":
		s.export(&t, r.has("remote-host"))
	}
	return 0, t
}

// remove ends mappings by the administrator's word.
func (s *Server) remove(r *request) (code int, t sheet) {
	gone, err := s.Table.Revoke(r.picks, "by upnpctl")
	for i := range gone {
		t.line("deleted %v  %s", gone[i], gone[i].Description)
	}
	if err == nil && gone == nil {
		err = errNone
	}
	if err != nil {
		t.line("nothing is deleted: %s", err)
		return 1, t
	}
	return 0, t
}

// export writes what miniupnpd would have in its lease file; the newer form has
// the remote host. A PORT_SET is a line for each port. The expiry is on the wall clock.
func (s *Server) export(t *sheet, remoteHost bool) {
	now := time.Now()
	for _, m := range s.Table.List() {
		from := ""
		if remoteHost {
			from = ":" + hosts(&m.Key)
		}
		for i := range ports(&m) {
			if !m.Enabled || m.Pinhole.IsValid() {
				break
			}
			*t = fmt.Appendf(*t, "%v:%d%s:%v:%d:%d:", m.Protocol, m.ExternalPort+i, from, m.Client, m.InternalPort+i, now.Add(s.Table.Remaining(m)).Unix())
			*t = append(appendEscaped(*t, m.Description, false), '\n')
		}
	}
}

// log writes the journal and, to one who follows, what comes: until the client
// goes, is too slow or ctx ends.
func (s *Server) log(ctx context.Context, c *sock.UnixConn, follow bool) {
	past, entries := s.Journal.follow()
	defer s.Journal.unfollow(entries)
	t, now := sheet("0\n"), time.Now()
	for _, e := range past {
		t.decision(e, now)
	}
	if past == nil && !follow {
		t.line("no decisions yet")
	}
	_ = c.SetDeadline(time.Time{})
	gone, leave := context.WithCancel(ctx)
	defer leave()
	go func() {
		_, _ = c.Read(make([]byte, 1)) // it has nothing more to say, but to go
		leave()
	}()
	for {
		_ = c.SetWriteDeadline(time.Now().Add(replyTimeout))
		if ctx.Err() != nil { // the deadline of the end may just be gone
			return
		}
		if _, err := c.Write(t); err != nil || !follow {
			return
		}
		select {
		case <-gone.Done():
			return
		case e := <-entries:
			if e == nil {
				return
			}
			t = t[:0]
			t.decision(e, time.Now())
		}
	}
}
