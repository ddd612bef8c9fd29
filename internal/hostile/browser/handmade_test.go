package browser

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// mapping is a request for a mapping as an honest control point makes it, in
// pieces that a test may change.
type mapping struct {
	line  string // method, target and version
	host  string // Host fields, whole lines
	typ   string // Content-Type fields
	soap  string // SOAPAction fields
	more  string // other fields
	body  string
	chunk bool
}

const ipConnection = "urn:schemas-upnp-org:service:WANIPConnection:1"

// addBody asks for a mapping of TCP port 9000 to LAN host 1 itself.
var addBody = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:AddPortMapping xmlns:u="` + ipConnection + `"><NewRemoteHost></NewRemoteHost><NewExternalPort>9000</NewExternalPort><NewProtocol>TCP</NewProtocol><NewInternalPort>9000</NewInternalPort><NewInternalClient>` + lab.LAN1Addr + `</NewInternalClient><NewEnabled>1</NewEnabled><NewPortMappingDescription>page</NewPortMappingDescription><NewLeaseDuration>0</NewLeaseDuration></u:AddPortMapping></s:Body></s:Envelope>`

func honest(control string) mapping {
	return mapping{
		line: "POST " + control + " HTTP/1.1",
		host: "Host: " + own + "\r\n",
		typ:  "Content-Type: text/xml; charset=\"utf-8\"\r\n",
		soap: "SOAPAction: \"" + ipConnection + "#AddPortMapping\"\r\n",
		body: addBody,
	}
}

func (m mapping) String() string {
	body, length := m.body, fmt.Sprintf("Content-Length: %d\r\n", len(m.body))
	if m.chunk {
		body, length = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(m.body), m.body), "Transfer-Encoding: chunked\r\n"
	}
	return m.line + "\r\n" + m.host + m.typ + m.soap + m.more + length + "\r\n" + body
}

// cases are requests for one mapping: one thing is another than an honest
// control point would have it. Statuses are those of SPEC HTTP-10, HTTP-11,
// SOAP-2 and SOAP-13.
var cases = []struct {
	name   string
	change func(m *mapping)
	status int
}{
	// What honest control points send, in all their ways.
	{"as it should be", func(*mapping) {}, 200},
	{"Host without port", func(m *mapping) { m.host = "Host: " + lab.RouterLANAddr + "\r\n" }, 200},
	{"no Content-Type", func(m *mapping) { m.typ = "" }, 200}, // SOAP-13: some leave it out
	{"chunked", func(m *mapping) { m.chunk = true }, 200},     // GSSDP and others
	{"HTTP/1.0 with Host", func(m *mapping) { m.line = http10(m.line) }, 200},
	{"HTTP/1.0 without Host", func(m *mapping) { m.line, m.host = http10(m.line), "" }, 200},
	{"own absolute target", func(m *mapping) { m.line = target(m.line, "http://"+own) }, 200},

	// DNS rebinding (VU#361684, CVE-2021-29462): the name is the page's.
	{"Host is a name", func(m *mapping) { m.host = "Host: evil.example\r\n" }, 403},
	{"Host is a name with port", func(m *mapping) { m.host = "Host: evil.example:49152\r\n" }, 403},
	{"Host is a name, HTTP/1.0", func(m *mapping) { m.line, m.host = http10(m.line), "Host: evil.example:49152\r\n" }, 403},
	{"Host is a name that begins like us", func(m *mapping) { m.host = "Host: 192.168.77.1.evil.example:49152\r\n" }, 403},
	{"Host is localhost", func(m *mapping) { m.host = "Host: localhost:49152\r\n" }, 403},
	{"Host has a trailing dot", func(m *mapping) { m.host = "Host: 192.168.77.1.:49152\r\n" }, 403},
	{"Host is another address of ours", func(m *mapping) { m.host = "Host: " + lab.WANAddr + ":49152\r\n" }, 403},
	{"Host is the host that asks", func(m *mapping) { m.host = "Host: " + lab.LAN1Addr + ":49152\r\n" }, 403},
	{"Host is 127.0.0.1", func(m *mapping) { m.host = "Host: 127.0.0.1:49152\r\n" }, 403},
	{"Host has another port", func(m *mapping) { m.host = "Host: 192.168.77.1:80\r\n" }, 403},
	{"Host is our IPv6 address on IPv4", func(m *mapping) { m.host = "Host: [" + lab.RouterLANAddr6 + "]:49152\r\n" }, 403},
	{"Host is our address as a number", func(m *mapping) { m.host = "Host: 3232255233:49152\r\n" }, 403},
	{"Host with a user", func(m *mapping) { m.host = "Host: 192.168.77.1:49152@evil.example\r\n" }, 403},
	{"two Hosts, ours first", func(m *mapping) { m.host += "Host: evil.example:49152\r\n" }, 400},
	{"two Hosts, ours last", func(m *mapping) { m.host = "Host: evil.example:49152\r\n" + m.host }, 400},
	{"two Hosts, both ours", func(m *mapping) { m.host += m.host }, 400},
	{"no Host", func(m *mapping) { m.host = "" }, 400},
	{"empty Host", func(m *mapping) { m.host = "Host:\r\n" }, 400},
	{"absolute target elsewhere", func(m *mapping) { m.line = target(m.line, "http://evil.example:49152") }, 403},
	{"own absolute target, Host of another", func(m *mapping) {
		m.line, m.host = target(m.line, "http://"+own), "Host: evil.example:49152\r\n"
	}, 403},
	{"target with a user", func(m *mapping) { m.line = target(m.line, "http://a@"+own) }, 403},

	// Cross-site requests: what only browsers say.
	{"Origin", func(m *mapping) { m.more = "Origin: http://evil.example\r\n" }, 403},
	{"Origin null", func(m *mapping) { m.more = "Origin: null\r\n" }, 403},
	{"Origin is ours", func(m *mapping) { m.more = "Origin: http://" + own + "\r\n" }, 403},
	{"Origin empty", func(m *mapping) { m.more = "oRiGiN:\r\n" }, 403},
	{"Sec-Fetch-Site cross-site", func(m *mapping) { m.more = "Sec-Fetch-Site: cross-site\r\n" }, 403},
	{"Sec-Fetch-Site same-origin", func(m *mapping) { m.more = "sec-fetch-site: same-origin\r\n" }, 403},
	{"Sec-Fetch-Site none", func(m *mapping) { m.more = "Sec-Fetch-Site: none\r\n" }, 403},
	{"Sec-Fetch-Mode alone", func(m *mapping) { m.more = "Sec-Fetch-Mode: no-cors\r\n" }, 403},
	{"Referer", func(m *mapping) { m.more = "Referer: http://evil.example/\r\n" }, 403},
	{"Referer is ours", func(m *mapping) { m.more = "referer: http://" + own + "/\r\n" }, 403},

	// Simple requests: what a page may send without asking first.
	{"text/plain", func(m *mapping) { m.typ = "Content-Type: text/plain;charset=UTF-8\r\n" }, 415},
	{"a form", func(m *mapping) { m.typ = "Content-Type: application/x-www-form-urlencoded\r\n" }, 415},
	{"a form in parts", func(m *mapping) { m.typ = "Content-Type: multipart/form-data; boundary=x\r\n" }, 415},
	{"text/plain that looks like text/xml", func(m *mapping) { m.typ = "Content-Type: text/plain; text/xml\r\n" }, 415},
	{"no SOAPAction", func(m *mapping) { m.soap = "" }, 400},
	{"no SOAPAction, no Content-Type", func(m *mapping) { m.soap, m.typ = "", "" }, 400},
	{"no SOAPAction, text/plain", func(m *mapping) { m.soap, m.typ = "", "Content-Type: text/plain\r\n" }, 415},
	{"SOAPAction in the target", func(m *mapping) {
		m.soap, m.line = "", strings.Replace(m.line, " HTTP", "?SOAPAction=%22"+strings.ReplaceAll(ipConnection, ":", "%3A")+"%23AddPortMapping%22 HTTP", 1)
	}, 404},
	{"GET", func(m *mapping) { m.line = method(m.line, "GET") }, 405},
	{"HEAD", func(m *mapping) { m.line = method(m.line, "HEAD") }, 405},
	{"PUT", func(m *mapping) { m.line = method(m.line, "PUT") }, 405},
	{"OPTIONS", func(m *mapping) { m.line, m.body = method(m.line, "OPTIONS"), "" }, 405},
	{"OPTIONS of all", func(m *mapping) { m.line, m.body = "OPTIONS * HTTP/1.1", "" }, 404},
	{"preflight", func(m *mapping) {
		m.line, m.typ, m.soap, m.body = method(m.line, "OPTIONS"), "", "", ""
		m.more = "Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: soapaction\r\nAccess-Control-Request-Private-Network: true\r\n"
	}, 403},
	{"GET with the action in the query", func(m *mapping) {
		m.line, m.body = "GET "+strings.Fields(m.line)[1]+"?NewExternalPort=9000&NewProtocol=TCP HTTP/1.1", ""
	}, 404},
}

func http10(line string) string      { return strings.Replace(line, "HTTP/1.1", "HTTP/1.0", 1) }
func target(line, at string) string  { return strings.Replace(line, " ", " "+at, 1) }
func method(line, now string) string { return now + strings.TrimPrefix(line, "POST") }

// TestCrossSiteByHand is VU#361684 and DNS rebinding in requests made by hand:
// only what a control point would send maps a port, and no answer invites a
// page or tells it anything.
func TestCrossSiteByHand(t *testing.T) {
	h := enter(t)
	control := h.places().mapping()
	made := 0
	for _, tt := range cases {
		m := honest(control)
		tt.change(&m)
		a := h.send(own, m.String())
		if a.status != tt.status {
			t.Errorf("%s: %d, not %d", tt.name, a.status, tt.status)
		}
		h.tellsNothing(tt.name, a)
		if a.status != 200 {
			h.unchanged(tt.name)
			continue
		}
		made++
		if n := len(h.mappings()); n != len(h.before)+1 {
			t.Errorf("%s: %d mappings", tt.name, n)
		}
		h.forget(control)
	}
	if made == 0 {
		t.Error("no request made a mapping: the others prove nothing")
	}
}

// tellsNothing looks for what lets a page read an answer, and for what a
// page that is let in by its name would read.
func (h *house) tellsNothing(name string, a answer) {
	h.t.Helper()
	for field := range a.header {
		if strings.HasPrefix(field, "Access-Control-") || strings.HasPrefix(field, "Timing-Allow-") {
			h.t.Errorf("%s: the answer has %s", name, field)
		}
	}
	_, body, _ := strings.Cut(a.text, "\r\n\r\n")
	if a.status == 403 && (body != "" || a.header.Get("Server") != "") {
		h.t.Errorf("%s: the answer tells %q", name, a.text)
	}
}

// forget deletes the mapping that a case made.
func (h *house) forget(control string) {
	h.t.Helper()
	m := honest(control)
	m.soap = "SOAPAction: \"" + ipConnection + "#DeletePortMapping\"\r\n"
	m.body = strings.ReplaceAll(addBody, "AddPortMapping", "DeletePortMapping")
	if a := h.send(own, m.String()); a.status != 200 {
		h.t.Fatalf("delete: %s", a.text)
	}
	h.unchanged("deleting it again")
}

// TestRequestInBody: a page may write what it likes into a form, a whole request
// of a control point, too. It is never read as one.
func TestRequestInBody(t *testing.T) {
	h := enter(t)
	control := h.places().mapping()
	for _, tt := range []struct {
		name   string
		change func(m *mapping)
		status int
	}{
		{"refused for its Origin", func(m *mapping) { m.more = "Origin: null\r\n" }, 403},
		{"refused for its Host", func(m *mapping) { m.host = "Host: evil.example\r\n" }, 403},
		{"refused for its type", func(m *mapping) { m.typ = "Content-Type: text/plain\r\n" }, 415},
		{"refused for want of an action", func(m *mapping) { m.soap = "" }, 400},
		{"refused for its path", func(m *mapping) { m.line = "POST /no HTTP/1.1" }, 404},
		{"refused for its method", func(m *mapping) { m.line = "PUT " + control + " HTTP/1.1" }, 405},
		{"a form in parts", func(m *mapping) { m.chunk, m.typ = true, "Content-Type: multipart/form-data; boundary=x\r\n" }, 415},
	} {
		m := honest(control)
		m.body = "\r\n\r\n" + honest(control).String()
		tt.change(&m)
		a := h.send(own, m.String())
		if n := strings.Count(a.text, "HTTP/1.1 "); a.status != tt.status || n != 1 {
			t.Errorf("%s: %d, not %d, and %d answers", tt.name, a.status, tt.status, n)
		}
		h.unchanged(tt.name)
	}
}

// TestRebindingReadsByHand asks for everything that can be read or subscribed
// to, by the page's name instead of the router's address.
func TestRebindingReadsByHand(t *testing.T) {
	h := enter(t)
	p := h.places()
	subscribe := "NT: upnp:event\r\nTIMEOUT: Second-1800\r\nCALLBACK: <http://" + lab.LAN1Addr + ":7/>\r\n"
	ask := func(line, host, more string) int {
		t.Helper()
		a := h.send(own, line+" HTTP/1.1\r\nHost: "+host+"\r\n"+more+"Connection: close\r\n\r\n")
		h.tellsNothing(line+" of "+host, a)
		return a.status
	}
	type read struct{ line, more string }
	var all []read
	for _, path := range p.documents {
		all = append(all, read{"GET " + path, ""}, read{"HEAD " + path, ""})
	}
	for _, path := range p.events {
		all = append(all, read{"SUBSCRIBE " + path, subscribe})
	}
	for _, r := range all {
		if got := ask(r.line, own, r.more); got != 200 {
			t.Errorf("%s by an honest host: %d", r.line, got)
		}
		if got := ask(r.line, "evil.example:49152", r.more); got != 403 {
			t.Errorf("%s by a name: %d", r.line, got)
		}
		for _, page := range []string{"Origin: http://evil.example:49152\r\n", "Referer: http://evil.example:49152/\r\n"} {
			if got := ask(r.line, own, r.more+page); got != 403 {
				t.Errorf("%s with %q: %d", r.line, page, got)
			}
		}
	}
}

// TestHostOfIPv6ByHand: the same over IPv6, where an address has many spellings.
func TestHostOfIPv6ByHand(t *testing.T) {
	h := enter(t)
	document := h.places().documents[0]
	for _, tt := range []struct {
		host   string
		status int
	}{
		{"[2001:db8:77::1]:49152", 200},
		{"[2001:db8:77::1]", 200},
		{"[2001:DB8:77:0:0:0:0:1]:49152", 200}, // the same address
		{"2001:db8:77::1", 403},                // without brackets it is no Host
		{"[2001:db8:77::1]:80", 403},
		{"[2001:db8:77::1].evil.example:49152", 403},
		{"[fd77::1]:49152", 403}, // ours, but not where it came to
		{"[::1]:49152", 403},
		{"[::ffff:192.168.77.1]:49152", 403},
		{own, 403},
		{"evil.example:49152", 403},
	} {
		a := h.send("[2001:db8:77::1]:49152", "GET "+document+" HTTP/1.1\r\nHost: "+tt.host+"\r\n\r\n")
		if a.status != tt.status && (tt.status != http.StatusOK || a.status != 404) {
			t.Errorf("Host %s: %d, not %d", tt.host, a.status, tt.status)
		}
		h.tellsNothing(tt.host, a)
	}
}
