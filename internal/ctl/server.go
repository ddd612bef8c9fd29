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
	if err == nil && r.has("follow") {
		s.follow(ctx, c)
		return
	}
	code, text := 2, []byte(nil)
	if err == nil {
		code, text = s.answer(ctx, r)
	} else {
		text = []byte(err.Error() + "\n")
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
	switch r.command {
	case "list":
		return 0, s.list(json)
	case "status":
		return 0, s.status(json)
	case "check":
		findings := judge(s.Daemon.Facts(ctx, r.has("live")))
		if json {
			return findings.worst(), findings.json()
		}
		return findings.worst(), findings.text()
	case "delete":
		return s.remove(r)
	case "flush":
		n := s.Table.Len()
		s.Table.Flush()
		return 0, fmt.Appendf(nil, "%d mappings deleted\n", n)
	case "export":
		return 0, s.export(r.has("remote-host"))
	}
	now := time.Now()
	for _, e := range s.Journal.last() {
		text = e.appendTo(text, now)
	}
	if text == nil {
		text = []byte("no decisions yet\n")
	}
	return 0, text
}

// remove ends mappings by the administrator's word.
func (s *Server) remove(r *request) (code int, text []byte) {
	gone, err := s.Table.Revoke(r.picks, "by upnpctl")
	if err != nil {
		return 1, fmt.Appendf(nil, "nothing is deleted: %v\n", err)
	}
	for i := range gone {
		text = fmt.Appendf(text, "deleted %v  %s\n", gone[i], orDash(clean(gone[i].Description)))
	}
	switch {
	case gone != nil:
		return 0, text
	case r.client.IsValid():
		return 1, fmt.Appendf(nil, "%v has no mapping\n", r.client)
	}
	return 1, fmt.Appendf(nil, "%v port %d is not mapped\n", r.protocol, r.port)
}

// export writes what miniupnpd would have in its lease file; the newer form has
// the remote host. The expiry is on the wall clock.
func (s *Server) export(remoteHost bool) (text []byte) {
	now := time.Now()
	for _, m := range s.Table.List() {
		if !m.Enabled {
			continue
		}
		text = fmt.Appendf(text, "%v:%d:", m.Protocol, m.ExternalPort)
		if remoteHost {
			if m.RemoteHost.IsValid() {
				text = m.RemoteHost.AppendTo(text)
			}
			text = append(text, ':')
		}
		expiry := now.Add(s.Table.Remaining(m)).Unix()
		text = fmt.Appendf(text, "%v:%d:%d:%s\n", m.Client, m.InternalPort, expiry, clean(m.Description))
	}
	return text
}

// follow writes the journal and then what comes, until the client goes, is too
// slow or ctx ends.
func (s *Server) follow(ctx context.Context, c *sock.UnixConn) {
	past, entries := s.Journal.follow()
	defer s.Journal.unfollow(entries)
	_ = c.SetDeadline(time.Time{})
	ctx, gone := context.WithCancel(ctx)
	defer gone()
	go func() {
		_, _ = c.Read(make([]byte, 1)) // it has nothing more to say, but to go
		gone()
	}()
	text, now := []byte("0\n"), time.Now()
	for i := range past {
		text = past[i].appendTo(text, now)
	}
	for {
		_ = c.SetWriteDeadline(time.Now().Add(replyTimeout))
		if ctx.Err() != nil {
			return
		}
		if _, err := c.Write(text); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case e, ok := <-entries:
			if !ok {
				return
			}
			text = e.appendTo(text[:0], time.Now())
		}
	}
}
