package httpmsg

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const host = "Host: 192.168.1.1:5000\r\n"

// next follows every request of the table: it is answered only where the
// connection stays open.
const next = "GET /next HTTP/1.1\r\n" + host + "\r\n"

// requests are what a client sends, and what comes of it. FuzzServeConn
// starts from the same rows.
var requests = []struct {
	name, in string
	status   int
	body     string // of the answer; with 200 only
	keep     bool
}{
	{"get", "GET /d.xml HTTP/1.1\r\n" + host + "\r\n", 200, "GET /d.xml ", true},
	{"names in any case", "GET /d.xml HTTP/1.1\r\nhOST:192.168.1.1:5000\r\n\r\n", 200, "GET /d.xml ", true},
	{"lines end in LF", "GET / HTTP/1.1\n" + "Host: 192.168.1.1\n\n", 200, "GET / ", true},
	{"empty lines first", "\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n", 200, "GET / ", true},
	{"close", "GET / HTTP/1.1\r\n" + host + "Connection: Close\r\n\r\n", 200, "GET / ", false},                  // HTTP-8
	{"close in a list", "GET / HTTP/1.1\r\n" + host + "Connection: TE, close\r\n\r\n", 200, "GET / ", false},    // HTTP-8
	{"later minor version", "GET / HTTP/1.2\r\n" + host + "\r\n", 200, "GET / ", true},                          // RFC 9110 section 2.5
	{"1.0", "GET / HTTP/1.0\r\n\r\n", 200, "GET / ", false},                                                     // HTTP-1
	{"1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 200, "GET / ", true},                 // HTTP-1
	{"1.0 with empty Host", "GET / HTTP/1.0\r\nHost:\r\n\r\n", 200, "GET / ", false},                            // HTTP-10
	{"asterisk", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", 200, "OPTIONS * ", true},                             // RFC 9112 section 3.2.4
	{"absolute target", "GET http://192.168.1.1:5000/a?b HTTP/1.1\r\n" + host + "\r\n", 200, "GET /a?b ", true}, // RFC 9112 section 3.2.2
	{"absolute target without path", "GET HTTP://192.168.1.1 HTTP/1.1\r\n" + host + "\r\n", 200, "GET / ", true},
	{"absolute target, query only", "GET http://192.168.1.1?q HTTP/1.1\r\n" + host + "\r\n", 200, "GET /?q ", true},

	{"body", "POST /c HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello", 200, "POST /c hello", true},
	{"same length twice", "POST /c HTTP/1.1\r\n" + host + "Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello", 200, "POST /c hello", true},
	{"no length, no body", "POST /c HTTP/1.1\r\n" + host + "\r\n", 200, "POST /c ", true},
	{"largest body", "POST /c HTTP/1.1\r\n" + host + "Content-Length: 64\r\n\r\n" + strings.Repeat("x", 64), 200, "POST /c " + strings.Repeat("x", 64), true},
	{"unknown method", "SUBSCRIBE /e HTTP/1.1\r\n" + host + "\r\n", 200, "SUBSCRIBE /e ", true}, // HTTP-11: the handler decides

	// HTTP-6
	{"chunked", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", 200, "POST /c hello world", true},
	{"chunked, any case", "POST /c HTTP/1.1\r\n" + host + "transfer-encoding: CHUNKED\r\n\r\nA\r\n0123456789\r\na\r\n0123456789\r\n000\r\n\r\n", 200, "POST /c 01234567890123456789", true},
	{"chunk extensions", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5 ;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n", 200, "POST /c hello", true},
	{"trailer", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\nContent-Length: 9\r\n\r\n", 200, "POST /c x", true},
	{"chunked, empty", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, "POST /c ", true},
	{"chunked, largest body", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n40\r\n" + strings.Repeat("x", 64) + "\r\n0\r\n\r\n", 200, "POST /c " + strings.Repeat("x", 64), true},
	{"chunked and a length", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, "", false},
	{"chunked twice", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501, "", false},
	{"gzip, chunked", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "", false},
	{"identity", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n\r\n", 501, "", false},
	{"empty coding", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n\r\n", 501, "", false},
	{"chunked in 1.0", "POST /c HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "", false},
	{"chunk size is no number", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nx\r\n\r\n", 400, "", false},
	{"chunk size negative", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 400, "", false},
	{"chunk size with 0x", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400, "", false},
	{"chunk size empty", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n", 400, "", false},
	{"chunk size over 64 bits", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\nx\r\n0\r\n\r\n", 413, "", false},
	{"chunk too short", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n", 400, "", false},
	{"chunks too large together", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3f\r\n" + strings.Repeat("x", 63) + "\r\n2\r\nxx\r\n0\r\n\r\n", 413, "", false},
	{"chunk extension too long", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("x", 512) + "\r\nx\r\n0\r\n\r\n", 431, "", false},
	{"bare CR in a chunk extension", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1;a\rb\r\nx\r\n0\r\n\r\n", 400, "", false},
	{"trailer too long", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + strings.Repeat("x", 512) + "\r\n\r\n", 431, "", false},
	{"trailer malformed", "POST /c HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\nA b\r\n\r\n", 400, "", false},

	{"lengths differ", "POST /c HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400, "", false},
	{"length is a list", "POST /c HTTP/1.1\r\n" + host + "Content-Length: 5, 5\r\n\r\nhello", 400, "", false},
	{"length signed", "POST /c HTTP/1.1\r\n" + host + "Content-Length: +5\r\n\r\nhello", 400, "", false},
	{"length negative", "POST /c HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n", 400, "", false},
	{"length hexadecimal", "POST /c HTTP/1.1\r\n" + host + "Content-Length: 0x5\r\n\r\nhello", 400, "", false},
	{"length empty", "POST /c HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n", 400, "", false},
	{"body too large", "POST /c HTTP/1.1\r\n" + host + "Content-Length: 65\r\n\r\n" + strings.Repeat("x", 65), 413, "", false},                // HTTP-9
	{"length over 64 bits", "POST /c HTTP/1.1\r\n" + host + "Content-Length: 18446744073709551617\r\n\r\nx", 413, "", false},                  // HTTP-9
	{"header too large", "GET / HTTP/1.1\r\n" + host + "A: " + strings.Repeat("x", 512) + "\r\n\r\n", 431, "", false},                         // HTTP-9
	{"many small fields", "GET / HTTP/1.1\r\n" + host + strings.Repeat("A:\r\n", 100) + "\r\n", 431, "", false},                               // HTTP-9
	{"target too long", "GET /" + strings.Repeat("x", 512) + " HTTP/1.1\r\n" + host + "\r\n", 414, "", false},                                 // HTTP-9
	{"unknown expectation", "POST /c HTTP/1.1\r\n" + host + "Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx", 417, "", false},                   // HTTP-7
	{"expectation in 1.0", "POST /c HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", 200, "POST /c x", false},                 // HTTP-7
	{"expectation, body there", "POST /c HTTP/1.1\r\n" + host + "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx", 200, "POST /c x", true}, // HTTP-7
	{"expectation, no body", "GET / HTTP/1.1\r\n" + host + "Expect: 100-continue\r\n\r\n", 200, "GET / ", true},                               // HTTP-7

	// HTTP-10
	{"Host without port", "GET / HTTP/1.1\r\nHost: 192.168.1.1\r\n\r\n", 200, "GET / ", true},
	{"Host with empty port", "GET / HTTP/1.1\r\nHost: 192.168.1.1:\r\n\r\n", 200, "GET / ", true},
	{"Host mapped", "GET / HTTP/1.1\r\nHost: [::ffff:192.168.1.1]:5000\r\n\r\n", 200, "GET / ", true},
	{"no Host", "GET / HTTP/1.1\r\n\r\n", 400, "", false},
	{"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "", false},
	{"two Hosts", "GET / HTTP/1.1\r\n" + host + host + "\r\n", 400, "", false},
	{"other port", "GET / HTTP/1.1\r\nHost: 192.168.1.1:80\r\n\r\n", 403, "", false},
	{"port with zeros", "GET / HTTP/1.1\r\nHost: 192.168.1.1:05000\r\n\r\n", 403, "", false},
	{"other address", "GET / HTTP/1.1\r\nHost: 192.168.1.2:5000\r\n\r\n", 403, "", false},
	{"other address in 1.0", "GET / HTTP/1.0\r\nHost: 192.168.1.2:5000\r\n\r\n", 403, "", false},
	{"a name", "GET / HTTP/1.1\r\nHost: evil.example:5000\r\n\r\n", 403, "", false},
	{"a name like the address", "GET / HTTP/1.1\r\nHost: 192.168.1.1.evil.example\r\n\r\n", 403, "", false},
	{"address with zeros", "GET / HTTP/1.1\r\nHost: 192.168.001.001\r\n\r\n", 403, "", false},
	{"address as a number", "GET / HTTP/1.1\r\nHost: 3232235777\r\n\r\n", 403, "", false},
	{"user in Host", "GET / HTTP/1.1\r\nHost: 192.168.1.1:5000@evil.example\r\n\r\n", 403, "", false},
	{"bracket open", "GET / HTTP/1.1\r\nHost: [::ffff:192.168.1.1\r\n\r\n", 403, "", false},
	{"brackets around IPv4", "GET / HTTP/1.1\r\nHost: [192.168.1.1]\r\n\r\n", 403, "", false},
	{"junk after brackets", "GET / HTTP/1.1\r\nHost: [::ffff:192.168.1.1]5000\r\n\r\n", 403, "", false},
	{"absolute target elsewhere", "GET http://evil.example/ HTTP/1.1\r\n" + host + "\r\n", 403, "", false},
	{"absolute target of own, Host of another", "GET http://192.168.1.1:5000/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, "", false},
	{"origin", "GET / HTTP/1.1\r\n" + host + "Origin: http://192.168.1.1:5000\r\n\r\n", 403, "", false},
	{"origin null", "POST / HTTP/1.1\r\n" + host + "oriGIN: null\r\n\r\n", 403, "", false},
	{"origin empty", "POST / HTTP/1.1\r\n" + host + "Origin:\r\n\r\n", 403, "", false},
	{"fetch metadata", "GET / HTTP/1.1\r\n" + host + "Sec-Fetch-Site: none\r\n\r\n", 403, "", false},
	{"fetch metadata, the mode", "GET / HTTP/1.1\r\n" + host + "sec-fetch-mode: no-cors\r\n\r\n", 403, "", false},
	{"fetch metadata, the use", "GET / HTTP/1.1\r\n" + host + "Sec-Fetch-Dest: image\r\n\r\n", 403, "", false},
	{"referer", "GET / HTTP/1.1\r\n" + host + "Referer: http://evil.example/\r\n\r\n", 403, "", false},

	{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "", false},
	{"HTTP/0.9", "GET /\r\n", 400, "", false},
	{"no version number", "GET / HTTP/x\r\n\r\n", 400, "", false},
	{"two blanks", "GET  / HTTP/1.1\r\n" + host + "\r\n", 400, "", false},
	{"tab", "GET\t/ HTTP/1.1\r\n" + host + "\r\n", 400, "", false},
	{"method is no token", "G(T / HTTP/1.1\r\n" + host + "\r\n", 400, "", false},
	{"target is no path", "GET d.xml HTTP/1.1\r\n" + host + "\r\n", 400, "", false},
	{"authority target", "CONNECT 192.168.1.1:5000 HTTP/1.1\r\n" + host + "\r\n", 400, "", false},
	{"control character in the target", "GET /\x01 HTTP/1.1\r\n" + host + "\r\n", 400, "", false},
	{"TLS", "\x16\x03\x01\x00\xa5\x01\x00\x00\n", 400, "", false},
	{"folded field", "GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n", 400, "", false},
	{"blank before the first field", "GET / HTTP/1.1\r\n " + host + "\r\n", 400, "", false},
	{"blank before the colon", "GET / HTTP/1.1\r\nHost : 192.168.1.1\r\n\r\n", 400, "", false},
	{"field without colon", "GET / HTTP/1.1\r\n" + host + "A\r\n\r\n", 400, "", false},
	{"NUL", "GET / HTTP/1.1\r\n" + host + "A: \x00\r\n\r\n", 400, "", false},
	{"bare CR", "GET / HTTP/1.1\r\n" + host + "A: b\rC: d\r\n\r\n", 400, "", false},
}

// testLimits make small inputs reach them.
func testLimits() Limits { return Limits{HeaderBytes: 512, BodyBytes: 64} }

func TestServeConn(t *testing.T) {
	for _, tt := range requests {
		t.Run(tt.name, func(t *testing.T) {
			var e echo
			s := &Server{Handler: e.handle, Limits: testLimits(), ServerName: "Linux/6 UPnP/1.1 upnpd/1"}
			got := answers(t, converse(t, s, tt.in+next))
			want := 1
			if tt.keep {
				want = 2
			}
			if len(got) != want {
				t.Fatalf("%d answers, want %d: %v", len(got), want, got)
			}
			if got[0].StatusCode != tt.status || tt.status == 200 && got[0].body != tt.body {
				t.Errorf("got %d %q, want %d %q", got[0].StatusCode, got[0].body, tt.status, tt.body)
			}
			if got[0].Header.Get("Content-Length") == "" { // HTTP-1
				t.Error("no Content-Length")
			}
			if got[0].Close == tt.keep {
				t.Errorf("answer says close = %v", got[0].Close)
			}
			if told := got[0].Header.Get("Server") != ""; told != (tt.status == 200) { // what a rebound page may read
				t.Errorf("answer says the system = %v", told)
			}
			if tt.keep && got[1].body != "GET /next " {
				t.Errorf("next answer %q", got[1].body)
			}
			if tt.status != 200 && len(e.reqs) > 0 {
				t.Errorf("refused, but the handler saw %+v", e.reqs[0])
			}
		})
	}
}

func TestReply(t *testing.T) {
	at := time.Date(2024, 2, 9, 1, 2, 3, 0, time.FixedZone("", 3600))
	s := &Server{ServerName: "Linux/6 UPnP/1.1 upnpd/1", Now: func() time.Time { return at },
		Handler: func(*Request) *Response {
			return &Response{Status: 200, Body: []byte("hello"), Header: Header{{"EXT", ""}, {"CONTENT-TYPE", "text/xml"},
				{"content-length", "9"}, {"Date", "x"}, {"Transfer-Encoding", "chunked"}, {"X", "a\r\nb"}}}
		}}
	const fields = "EXT:\r\nCONTENT-TYPE: text/xml\r\nX: ab\r\nCONTENT-LENGTH: 5\r\n" +
		"DATE: Fri, 09 Feb 2024 00:02:03 GMT\r\nSERVER: Linux/6 UPnP/1.1 upnpd/1\r\n"
	for _, tt := range []struct{ name, in, want string }{
		{"keep", "GET / HTTP/1.1\r\n" + host + "\r\n", fields + "\r\nhello"},
		{"language", "GET / HTTP/1.1\r\n" + host + "accept-language: de\r\n\r\n", fields + "CONTENT-LANGUAGE: en\r\n\r\nhello"}, // HTTP-2
		{"close", "GET / HTTP/1.0\r\n\r\n", fields + "CONNECTION: close\r\n\r\nhello"},
		{"keep in 1.0", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", fields + "CONNECTION: keep-alive\r\n\r\nhello"}, // HTTP-1
		{"HEAD", "HEAD / HTTP/1.1\r\n" + host + "\r\n", fields + "\r\n"},                                                    // HTTP-2
	} {
		if got := string(converse(t, s, tt.in)); got != "HTTP/1.1 200 OK\r\n"+tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
}

func TestHandlerFails(t *testing.T) {
	var lines []string
	s := &Server{
		Logf: func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) },
		Handler: func(req *Request) *Response {
			switch req.Target {
			case "/panic":
				panic("two\nlines")
			case "/nil":
				return nil
			}
			return &Response{Status: 404}
		}}
	in := ""
	for _, target := range []string{"/panic", "/nil", "/x"} {
		in += "GET " + target + " HTTP/1.1\r\n" + host + "\r\n"
	}
	var statuses []int
	for _, a := range answers(t, converse(t, s, in)) {
		statuses = append(statuses, a.StatusCode)
	}
	if fmt.Sprint(statuses) != "[500 500 404]" {
		t.Errorf("statuses %v", statuses)
	}
	if len(lines) != 1 || strings.Contains(lines[0], "\n") || !strings.Contains(lines[0], `GET /panic": "two\nlines"`) {
		t.Errorf("log %q", lines)
	}
}

func TestRequestsOnOneConnection(t *testing.T) { // HTTP-8
	var e echo
	got := answers(t, converse(t, &Server{Handler: e.handle}, strings.Repeat(next, 60)))
	if len(got) != 50 || !got[49].Close || got[48].Close {
		t.Errorf("%d answers", len(got))
	}
}

func TestAddressesReachTheHandler(t *testing.T) {
	var e echo
	converse(t, &Server{Handler: e.handle}, next)
	if len(e.reqs) != 1 || e.reqs[0].Local != serverAddr || e.reqs[0].Remote != clientAddr {
		t.Errorf("%+v", e.reqs)
	}
}

func TestNotOnLink(t *testing.T) { // HTTP-13
	var e echo
	var lines []string
	s := &Server{Handler: e.handle,
		Logf:    func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) },
		Allowed: func(a netip.Addr) bool { return a != clientAddr.Addr() }}
	if out := converse(t, s, next); len(out) > 0 {
		t.Errorf("got %q", out)
	}
	if len(e.reqs) > 0 {
		t.Error("the handler was asked")
	}
	if len(lines) != 1 || !strings.Contains(lines[0], "192.168.1.7") {
		t.Errorf("log %q", lines)
	}
}

func TestIPv6Host(t *testing.T) { // HTTP-10
	local := netip.MustParseAddrPort("[fe80::1%br0]:5000")
	for _, tt := range []struct {
		host string
		want bool
	}{
		{"[fe80::1]:5000", true}, {"[FE80:0::1]", true}, {"[fe80::1%eth0]:5000", true},
		{"[fe80::2]:5000", false}, {"[fe80::1]:80", false}, {"fe80::1", false}, {"[]", false},
	} {
		if got := isOwnHost(tt.host, local); got != tt.want {
			t.Errorf("isOwnHost(%q) = %v", tt.host, got)
		}
	}
}

// FuzzServeConn: whatever comes, the server ends the connection by itself,
// its answers are HTTP, no handler sees a request that HTTP-10 forbids, and
// where net/http can read the same request it reads the same.
func FuzzServeConn(f *testing.F) {
	for _, tt := range requests {
		f.Add(tt.in + next)
	}
	f.Fuzz(func(t *testing.T, in string) {
		var e echo
		s := &Server{Handler: e.handle, Limits: testLimits()}
		out := converse(t, s, in)
		var methods []string
		theirs := bufio.NewReader(strings.NewReader(in))
		readable := true
		for _, req := range e.reqs {
			methods = append(methods, req.Method)
			if req.Header.Count("Origin") > 0 || req.Minor > 0 && req.Header.Count("Host") != 1 {
				t.Fatalf("the handler saw %+v", req)
			}
			if readable {
				readable = compare(t, theirs, req)
			}
		}
		if n := len(answers(t, dropContinues(out), methods...)); n < len(e.reqs) || n > len(e.reqs)+1 {
			t.Fatalf("%d answers to %d requests", n, len(e.reqs))
		}
	})
}

// compare reports whether net/http could read the request at all.
func compare(t *testing.T, r *bufio.Reader, ours *Request) bool {
	for { // net/http does not skip empty lines
		if p, err := r.Peek(2); err != nil || !bytes.HasPrefix(p, []byte("\n")) && string(p) != "\r\n" {
			break
		}
		_, _ = r.ReadString('\n')
	}
	theirs, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	body, err := io.ReadAll(theirs.Body)
	if err != nil {
		return false
	}
	if theirs.Method != ours.Method || string(body) != string(ours.Body) {
		t.Fatalf("net/http reads %s %q, we read %s %q", theirs.Method, body, ours.Method, ours.Body)
	}
	if p := theirs.URL.RequestURI(); ours.Target[0] == '/' && strings.HasPrefix(theirs.RequestURI, "/") && theirs.RequestURI != ours.Target {
		t.Fatalf("net/http reads %q, we read %q", p, ours.Target)
	}
	return true
}

func dropContinues(out []byte) []byte {
	return bytes.ReplaceAll(out, []byte("HTTP/1.1 100 Continue\r\n\r\n"), nil)
}
