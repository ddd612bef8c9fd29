package httpmsg

import (
	"strconv"
	"strings"
	"time"
)

// appendReply appends an answer whole. req is nil where no request line was
// read. The length is always told and chunks are never used (HTTP-1).
func (s *Server) appendReply(dst []byte, req *Request, resp *Response, keep bool) []byte {
	h := make(Header, 0, len(resp.Header)+5)
	for _, f := range resp.Header {
		if !isServerField(f.Name) {
			h = append(h, f)
		}
	}
	h = append(h,
		Field{"CONTENT-LENGTH", strconv.Itoa(len(resp.Body))},
		Field{"DATE", s.date()})
	if s.ServerName != "" && !resp.refused {
		h = append(h, Field{"SERVER", s.ServerName})
	}
	if req != nil {
		if _, asked := req.Header.Get("Accept-Language"); asked { // HTTP-2
			h = append(h, Field{"CONTENT-LANGUAGE", "en"})
		}
	}
	switch {
	case !keep:
		h = append(h, Field{"CONNECTION", "close"})
	case req.Minor == 0:
		h = append(h, Field{"CONNECTION", "keep-alive"})
	}
	dst = AppendMessage(dst, statusLine(resp.Status), h)
	if req != nil && req.Method == "HEAD" {
		return dst
	}
	return append(dst, resp.Body...)
}

// isServerField reports the fields that only the server itself may write.
func isServerField(name string) bool {
	for _, own := range []string{"CONTENT-LENGTH", "TRANSFER-ENCODING", "CONNECTION", "DATE", "SERVER", "CONTENT-LANGUAGE"} {
		if strings.EqualFold(name, own) {
			return true
		}
	}
	return false
}

// date returns the present as an IMF-fixdate (RFC 9110 section 5.6.7).
func (s *Server) date() string {
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	return now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
}

// NotAllowed answers a request whose path does not take its method: 405 with
// what it does take, for a method of HTTP or UPnP; 501 for others (HTTP-11).
func NotAllowed(method, allow string) *Response {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH",
		"M-POST", "SUBSCRIBE", "UNSUBSCRIBE", "NOTIFY":
		return &Response{Status: 405, Header: Header{{"Allow", allow}}}
	}
	return &Response{Status: 501}
}
