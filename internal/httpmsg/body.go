package httpmsg

import (
	"errors"
	"strconv"
	"strings"
)

// chunked stands for a length that the body itself tells.
const chunked = -1

// bodyLength returns the length of the body that follows the header, or
// chunked (RFC 9112 section 6.3; HTTP-6). Whatever two readers could
// understand differently is refused.
func bodyLength(req *Request, limit int) (int, error) {
	coding, coded := req.Header.Get("Transfer-Encoding")
	if coded {
		switch {
		case req.Header.Count("Content-Length") > 0:
			return 0, refuse(400, "both Content-Length and Transfer-Encoding")
		case req.Minor == 0:
			return 0, refuse(400, "Transfer-Encoding in HTTP/1.0")
		case req.Header.Count("Transfer-Encoding") > 1 || !strings.EqualFold(coding, "chunked"):
			return 0, refuse(501, "transfer coding other than chunked")
		}
		return chunked, nil
	}
	length, found := "", false
	for _, f := range req.Header {
		if !strings.EqualFold(f.Name, "Content-Length") {
			continue
		}
		if found && f.Value != length {
			return 0, refuse(400, "several Content-Length")
		}
		length, found = f.Value, true
	}
	if !found {
		return 0, nil
	}
	return parseLength(length, limit)
}

func parseLength(s string, limit int) (int, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	switch {
	case errors.Is(err, strconv.ErrSyntax):
		return 0, refuse(400, "Content-Length is not a number")
	case err != nil || n > uint64(limit):
		return 0, refuse(413, "body too large")
	}
	return int(n), nil
}

// sendContinue tells a client that waits for it to send the body (HTTP-7).
func (c *conn) sendContinue(req *Request, length int) error {
	expect, ok := req.Header.Get("Expect")
	if !ok || req.Minor == 0 {
		return nil
	}
	if !strings.EqualFold(expect, "100-continue") {
		return refuse(417, "unknown expectation")
	}
	if length == 0 || c.in.buffered() > 0 {
		return nil
	}
	c.writeBy(c.limits.WriteTimeout)
	_, err := c.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	return err
}

// readChunked reads a chunked body (RFC 9112 section 7.1). The lines of chunk
// sizes and trailer fields together have the budget of a header; extensions
// and trailer fields are dropped.
func (c *conn) readChunked() ([]byte, error) {
	budget := c.limits.HeaderBytes
	var body []byte
	for {
		line, err := c.in.line(&budget)
		if err != nil {
			return nil, asRefusal(err)
		}
		size, err := chunkSize(line, c.limits.BodyBytes-len(body))
		if err != nil {
			return nil, err
		}
		if size == 0 {
			_, err := c.readFields(&budget)
			return body, err
		}
		if body, err = c.in.take(body, size); err != nil {
			return nil, err
		}
		if line, err = c.in.line(&budget); err != nil {
			return nil, asRefusal(err)
		}
		if len(line) > 0 {
			return nil, refuse(400, "chunk longer than its size")
		}
	}
}

// chunkSize reads "hexadecimal[;extensions]"; left is what the body may still
// take.
func chunkSize(line []byte, left int) (int, error) {
	for _, b := range line {
		if isControl(b) && b != '\t' {
			return 0, refuse(400, "control character in a chunk size")
		}
	}
	digits, _, _ := strings.Cut(string(line), ";")
	n, err := strconv.ParseUint(strings.TrimRight(digits, " \t"), 16, 63)
	switch {
	case errors.Is(err, strconv.ErrSyntax):
		return 0, refuse(400, "chunk size is not a number")
	case err != nil || n > uint64(left):
		return 0, refuse(413, "body too large")
	}
	return int(n), nil
}
