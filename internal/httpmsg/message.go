// Package httpmsg is the HTTP/1.1 subset that UPnP needs: a bounded server
// over TCP, and the same message format in UDP datagrams (SSDP).
//
// Documents: SPEC.md 2 (HTTP-1 to HTTP-13) and 1.1 (SSDP-3 to SSDP-5), after
// RFC 9112 (message syntax) and RFC 9110 (semantics). What UPnP does not need
// is refused: other transfer codings than chunked, line folding, names as
// Host.
package httpmsg

import (
	"net/netip"
	"strconv"
	"strings"
)

// A Field is one header field. The name keeps the case in which it came, the
// value has no blanks around it.
type Field struct {
	Name  string
	Value string
}

// A Header is the fields of one message in the order of the wire. A field
// that was sent twice is in it twice.
type Header []Field

// Get returns the value of the first field of that name, in any case
// (SSDP-4); ok tells an empty value from a missing field.
func (h Header) Get(name string) (value string, ok bool) {
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			return f.Value, true
		}
	}
	return "", false
}

// Count returns how many fields have that name, in any case.
func (h Header) Count(name string) int {
	n := 0
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			n++
		}
	}
	return n
}

// A Request is one received request, whole: its body has arrived.
type Request struct {
	Method string // as sent; methods are case-sensitive (RFC 9110 section 9.1)
	Target string // a path with query, or "*"
	Minor  int    // the x of HTTP/1.x
	Header Header
	Body   []byte
	// Local and Remote are the ends of the TCP connection. ParseDatagram
	// leaves them empty.
	Local, Remote netip.AddrPort
	// Device is the LAN device on which it arrived, as the Server was told.
	Device string
}

// A Response is what a handler answers. The server adds the reason phrase,
// CONTENT-LENGTH, CONNECTION, DATE, SERVER and CONTENT-LANGUAGE, and ignores
// fields of these names in Header.
type Response struct {
	Status int
	Header Header
	Body   []byte
	// Sent, where it is not nil, is called once after the answer was written,
	// or could not be (GENA-6). It must not take long.
	Sent func()

	refused bool // by the server itself, before the handler was asked
}

// AppendMessage appends the start line, the fields and the empty line that
// ends them (SSDP-3). Nothing in it can break a line: control characters in
// the start line and in values are dropped, so are the bytes of a name that
// no name may have (RFC 9110 section 5.1), and a field without a name.
func AppendMessage(dst []byte, startLine string, h Header) []byte {
	dst = appendPrintable(dst, startLine)
	dst = append(dst, "\r\n"...)
	for _, f := range h {
		dst = appendField(dst, f.Name, f.Value)
	}
	return append(dst, "\r\n"...)
}

func appendField(dst []byte, name, value string) []byte {
	start := len(dst)
	for i := 0; i < len(name); i++ {
		if isTokenByte(name[i]) {
			dst = append(dst, name[i])
		}
	}
	if len(dst) == start {
		return dst
	}
	dst = append(dst, ':')
	if value != "" {
		dst = append(dst, ' ')
	}
	dst = appendPrintable(dst, value)
	return append(dst, "\r\n"...)
}

func appendPrintable(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if !isControl(s[i]) {
			dst = append(dst, s[i])
		}
	}
	return dst
}

// isControl reports the bytes of RFC 5234 CTL.
func isControl(c byte) bool { return c < ' ' || c == 0x7f }

// isTokenByte reports the bytes of RFC 9110 section 5.6.2 tchar.
func isTokenByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// statusLine returns the first line of an answer, without its CRLF.
func statusLine(status int) string {
	return "HTTP/1.1 " + strconv.Itoa(status) + " " + reason(status)
}

// reason returns the phrase of RFC 9110 section 15 for the statuses of UPnP.
func reason(status int) string {
	switch status {
	case 200:
		return "OK"
	case 400:
		return "Bad Request"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 408:
		return "Request Timeout"
	case 411:
		return "Length Required"
	case 412:
		return "Precondition Failed"
	case 413:
		return "Content Too Large"
	case 414:
		return "URI Too Long"
	case 415:
		return "Unsupported Media Type"
	case 417:
		return "Expectation Failed"
	case 431:
		return "Request Header Fields Too Large"
	case 500:
		return "Internal Server Error"
	case 501:
		return "Not Implemented"
	case 503:
		return "Service Unavailable"
	case 505:
		return "HTTP Version Not Supported"
	}
	return "Other"
}
