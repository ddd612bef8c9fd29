package httpmsg

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

const (
	// maxDatagram bounds an SSDP message (SSDP-51), in bytes.
	maxDatagram = 1500
	// maxFields bounds the fields of one message.
	maxFields = 100
)

// ErrMalformed says that bytes are not an HTTP request. In a datagram it is
// to be dropped without an answer (SSDP-4).
var ErrMalformed = errors.New("malformed HTTP message")

// errTooManyFields is 431 over TCP.
var errTooManyFields = fmt.Errorf("%w: more than %d header fields", ErrMalformed, maxFields)

// ParseDatagram reads an SSDP request, NOTIFY or M-SEARCH, from the one
// datagram p that carries it (SSDP-3): start line, fields, empty line. The
// end of the datagram stands for a missing empty line, but every line must be
// ended. What follows the empty line is ignored. Answers ("HTTP/1.1 200 OK"),
// datagrams over 1500 bytes and anything else are ErrMalformed.
func ParseDatagram(p []byte) (*Request, error) {
	if len(p) > maxDatagram {
		return nil, fmt.Errorf("%w: %d bytes in one datagram", ErrMalformed, len(p))
	}
	line, rest, ok := cutLine(p)
	if !ok {
		return nil, fmt.Errorf("%w: start line without end", ErrMalformed)
	}
	req, err := parseRequestLine(line)
	if err != nil {
		return nil, err
	}
	for len(rest) > 0 {
		if line, rest, ok = cutLine(rest); !ok {
			return nil, fmt.Errorf("%w: last field without end", ErrMalformed)
		}
		if len(line) == 0 {
			break
		}
		if req.Header, err = appendParsed(req.Header, line); err != nil {
			return nil, err
		}
	}
	return req, nil
}

// cutLine returns the first line of p without its end, which is CRLF or a
// single LF (RFC 9112 section 2.2), and what follows it.
func cutLine(p []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(p, '\n')
	if i < 0 {
		return nil, p, false
	}
	return trimCR(p[:i]), p[i+1:], true
}

func trimCR(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}

// parseRequestLine reads "METHOD target HTTP/1.x" (RFC 9112 section 3): one
// space between the parts, no blanks around.
func parseRequestLine(line []byte) (*Request, error) {
	method, rest, ok1 := strings.Cut(string(line), " ")
	target, version, ok2 := strings.Cut(rest, " ")
	if !ok1 || !ok2 || !isToken(method) || !isTarget(target) {
		return nil, fmt.Errorf("%w: request line", ErrMalformed)
	}
	minor, err := parseVersion(version)
	if err != nil {
		return nil, err
	}
	return &Request{Method: method, Target: target, Minor: minor}, nil
}

// errVersion is a well-formed version other than 1.x: 505 over TCP.
var errVersion = fmt.Errorf("%w: major version is not 1", ErrMalformed)

// parseVersion returns the x of HTTP/1.x.
func parseVersion(s string) (minor int, err error) {
	digits, ok := strings.CutPrefix(s, "HTTP/")
	if !ok || len(digits) != 3 || !isDigit(digits[0]) || digits[1] != '.' || !isDigit(digits[2]) {
		return 0, fmt.Errorf("%w: version", ErrMalformed)
	}
	if digits[0] != '1' {
		return 0, errVersion
	}
	return int(digits[2] - '0'), nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isTarget allows visible ASCII only.
func isTarget(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}

// appendParsed reads one field line: a token, directly followed by a colon,
// then the value (RFC 9112 section 5.1). A folded line begins with a blank,
// which is no token, and so is refused. Control characters other than a tab
// are refused, a bare CR among them.
func appendParsed(h Header, line []byte) (Header, error) {
	name, value, ok := strings.Cut(string(line), ":")
	if !ok || !isToken(name) {
		return nil, fmt.Errorf("%w: header field name", ErrMalformed)
	}
	if len(h) >= maxFields {
		return nil, errTooManyFields
	}
	value = strings.Trim(value, " \t")
	for i := 0; i < len(value); i++ {
		if isControl(value[i]) && value[i] != '\t' {
			return nil, fmt.Errorf("%w: control character in %s", ErrMalformed, name)
		}
	}
	return append(h, Field{name, value}), nil
}
