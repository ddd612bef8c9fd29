package httpmsg

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// readRequest reads one request whole. With an error it returns what it knew
// of the request by then, or nil.
func (c *conn) readRequest() (*Request, error) {
	c.readBy(c.limits.HeaderTimeout)
	req, err := c.readHeader()
	if err != nil {
		return req, err
	}
	req.Local, req.Remote, req.Device = c.Local(), c.Remote(), c.server.Device
	if err := checkOrigin(req.Header); err != nil {
		return req, err
	}
	if err := checkHost(req); err != nil {
		return req, err
	}
	length, err := bodyLength(req, c.limits.BodyBytes)
	if err != nil {
		return req, err
	}
	if err := c.sendContinue(req, length); err != nil {
		return req, err
	}
	c.readBy(c.limits.BodyTimeout)
	if length == chunked {
		c.server.keep(c, c.limits.BodyBytes)
		req.Body, err = c.readChunked()
	} else {
		c.server.keep(c, length)
		req.Body, err = c.in.take(nil, length)
	}
	return req, err
}

// readHeader reads the start line and the fields.
func (c *conn) readHeader() (*Request, error) {
	budget := c.limits.HeaderBytes
	line, err := c.in.line(&budget)
	for err == nil && len(line) == 0 { // RFC 9112 section 2.2: ignore empty lines before
		line, err = c.in.line(&budget)
	}
	if errors.Is(err, errTooLong) {
		return nil, refuse(414, "request line too long")
	}
	if err != nil {
		return nil, err
	}
	req, err := parseRequestLine(line)
	if err != nil {
		return nil, asRefusal(err)
	}
	req.Header, err = c.readFields(&budget)
	return req, err
}

// readFields reads fields up to the empty line.
func (c *conn) readFields(budget *int) (Header, error) {
	var h Header
	for {
		line, err := c.in.line(budget)
		if err != nil {
			return h, asRefusal(err)
		}
		if len(line) == 0 {
			return h, nil
		}
		if h, err = appendParsed(h, line); err != nil {
			return nil, asRefusal(err)
		}
	}
}

// asRefusal turns the errors of parsing into answers and leaves those of the
// connection as they are.
func asRefusal(err error) error {
	switch {
	case errors.Is(err, errVersion):
		return refuse(505, err.Error())
	case errors.Is(err, errTooManyFields), errors.Is(err, errTooLong):
		return refuse(431, "header too large")
	case errors.Is(err, ErrMalformed):
		return refuse(400, err.Error())
	}
	return err
}

// checkOrigin refuses what only browsers send: a page must not drive the
// router.
func checkOrigin(h Header) error {
	for _, name := range []string{"Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"} {
		if h.Count(name) > 0 {
			return refuse(403, name+" present: browsers may not use this service")
		}
	}
	return nil
}

// checkHost holds HTTP-10: the request must name the address that it came to,
// as a literal. An absolute target (RFC 9112 section 3.2.2) is made a path,
// after its authority passed the same check.
func checkHost(req *Request) error {
	host, ok := req.Header.Get("Host")
	switch {
	case req.Header.Count("Host") > 1:
		return refuse(400, "several Host fields")
	case host == "" && req.Minor > 0:
		return refuse(400, "no Host")
	case ok && host != "" && !isOwnHost(host, req.Local):
		return refuse(403, "Host is not the address of the router")
	}
	if len(req.Target) >= len("http://") && strings.EqualFold(req.Target[:len("http://")], "http://") {
		rest := req.Target[len("http://"):]
		i := strings.IndexAny(rest, "/?")
		if i < 0 {
			i = len(rest)
		}
		if !isOwnHost(rest[:i], req.Local) {
			return refuse(403, "target is not on the router")
		}
		req.Target = rest[i:]
		if !strings.HasPrefix(req.Target, "/") {
			req.Target = "/" + req.Target
		}
	}
	if req.Target != "*" && req.Target[0] != '/' {
		return refuse(400, "target is not a path")
	}
	return nil
}

// isOwnHost reports whether host is "address", "address:port" or
// "address:" of local, an IPv6 address in brackets.
func isOwnHost(host string, local netip.AddrPort) bool {
	addr, port := host, ""
	if inside, ok := strings.CutPrefix(host, "["); ok {
		addr, port, ok = strings.Cut(inside, "]")
		if !ok || !strings.Contains(addr, ":") || port != "" && port[0] != ':' {
			return false
		}
		port = strings.TrimPrefix(port, ":")
	} else {
		addr, port, _ = strings.Cut(host, ":")
	}
	ip, err := netip.ParseAddr(addr)
	if err != nil || ip.Unmap().WithZone("") != local.Addr().Unmap().WithZone("") {
		return false
	}
	return port == "" || port == strconv.Itoa(int(local.Port()))
}
