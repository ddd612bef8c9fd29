package httpmsg

import (
	"errors"
	"strings"
	"testing"
)

// datagrams are SSDP requests as clients send them, and what is wrong with
// the bad ones. FuzzParseDatagram starts from the same rows.
var datagrams = []struct {
	name string
	in   string
	want string // start line and fields, one a line; "" = refused
}{
	{"miniupnpc search", // SSDP-3
		"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\n\r\n",
		"M-SEARCH * 1\nHOST=239.255.255.250:1900\nST=urn:schemas-upnp-org:device:InternetGatewayDevice:1\nMAN=\"ssdp:discover\"\nMX=2"},
	{"names in any case, unknown field", // SSDP-4
		"M-SEARCH * HTTP/1.1\r\nHost:239.255.255.250:1900\r\nst:ssdp:all\r\nX-Foo: bar\r\n\r\n",
		"M-SEARCH * 1\nHost=239.255.255.250:1900\nst=ssdp:all\nX-Foo=bar"},
	{"blanks around values", "M-SEARCH * HTTP/1.1\r\nST: \t ssdp:all \t\r\nEXT:\r\n\r\n", "M-SEARCH * 1\nST=ssdp:all\nEXT="},
	{"field twice", "M-SEARCH * HTTP/1.1\r\nST: a\r\nST: b\r\n\r\n", "M-SEARCH * 1\nST=a\nST=b"},
	{"body is ignored", "NOTIFY * HTTP/1.1\r\nNT: x\r\n\r\nbody\x00\r\n", "NOTIFY * 1\nNT=x"}, // SSDP-3
	{"no empty line", "M-SEARCH * HTTP/1.1\r\nST: a\r\n", "M-SEARCH * 1\nST=a"},
	{"lines end in LF", "M-SEARCH * HTTP/1.1\nST: a\n\n", "M-SEARCH * 1\nST=a"},
	{"other target", "M-SEARCH /x HTTP/1.0\r\n\r\n", "M-SEARCH /x 0"},
	{"high bytes in a value", "M-SEARCH * HTTP/1.1\r\nUSER-AGENT: caf\xc3\xa9\r\n\r\n", "M-SEARCH * 1\nUSER-AGENT=caf\xc3\xa9"},

	{"empty", "", ""},
	{"empty line first", "\r\nM-SEARCH * HTTP/1.1\r\n\r\n", ""},
	{"answer", "HTTP/1.1 200 OK\r\nST: a\r\n\r\n", ""}, // SSDP-50
	{"no version", "M-SEARCH *\r\n\r\n", ""},
	{"other major version", "M-SEARCH * HTTP/2.0\r\n\r\n", ""},
	{"long minor version", "M-SEARCH * HTTP/1.10\r\n\r\n", ""},
	{"version in lower case", "M-SEARCH * http/1.1\r\n\r\n", ""},
	{"two spaces", "M-SEARCH  * HTTP/1.1\r\n\r\n", ""},
	{"blank at the end", "M-SEARCH * HTTP/1.1 \r\n\r\n", ""},
	{"start line without end", "M-SEARCH * HTTP/1.1", ""},
	{"field without end", "M-SEARCH * HTTP/1.1\r\nST: a", ""},
	{"field without colon", "M-SEARCH * HTTP/1.1\r\nST\r\n\r\n", ""},
	{"field without name", "M-SEARCH * HTTP/1.1\r\n: a\r\n\r\n", ""},
	{"blank before the colon", "M-SEARCH * HTTP/1.1\r\nST : a\r\n\r\n", ""},
	{"folded", "M-SEARCH * HTTP/1.1\r\nST: a\r\n b\r\n\r\n", ""},
	{"NUL", "M-SEARCH * HTTP/1.1\r\nST: a\x00b\r\n\r\n", ""},
	{"bare CR", "M-SEARCH * HTTP/1.1\r\nST: a\rb\r\n\r\n", ""},
	{"CR CR LF", "M-SEARCH * HTTP/1.1\r\nST: a\r\r\n\r\n", ""},
	{"DEL", "M-SEARCH * HTTP/1.1\r\nST: a\x7f\r\n\r\n", ""},
	{"101 fields", "M-SEARCH * HTTP/1.1\r\n" + strings.Repeat("A:\r\n", 101) + "\r\n", ""},
	{"1501 bytes", "M-SEARCH * HTTP/1.1\r\nA: " + strings.Repeat("x", 1501-28) + "\r\n\r\n", ""}, // SSDP-51
}

func show(r *Request) string {
	var b strings.Builder
	b.WriteString(r.Method + " " + r.Target + " " + string(rune('0'+r.Minor)))
	for _, f := range r.Header {
		b.WriteString("\n" + f.Name + "=" + f.Value)
	}
	return b.String()
}

func TestParseDatagram(t *testing.T) {
	for _, tt := range datagrams {
		t.Run(tt.name, func(t *testing.T) {
			req, err := ParseDatagram([]byte(tt.in))
			if tt.want == "" {
				if !errors.Is(err, ErrMalformed) {
					t.Fatalf("got %+v, %v; want ErrMalformed", req, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := show(req); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestParseDatagramLongest(t *testing.T) { // SSDP-51
	p := []byte("M-SEARCH * HTTP/1.1\r\nA: " + strings.Repeat("x", 1500-28) + "\r\n\r\n")
	if len(p) != 1500 {
		t.Fatalf("the row has %d bytes", len(p))
	}
	if _, err := ParseDatagram(p); err != nil {
		t.Error(err)
	}
}

func TestHeader(t *testing.T) { // SSDP-4
	h := Header{{"ST", "a"}, {"Ext", ""}, {"st", "b"}}
	if v, ok := h.Get("sT"); v != "a" || !ok {
		t.Errorf("Get(sT) = %q, %v", v, ok)
	}
	if v, ok := h.Get("EXT"); v != "" || !ok {
		t.Errorf("Get(EXT) = %q, %v", v, ok)
	}
	if v, ok := h.Get("MX"); v != "" || ok {
		t.Errorf("Get(MX) = %q, %v", v, ok)
	}
	if n := h.Count("ST"); n != 2 {
		t.Errorf("Count(ST) = %d", n)
	}
}

func TestAppendMessage(t *testing.T) {
	for _, tt := range []struct {
		name, start string
		h           Header
		want        string
	}{
		{"search response", "HTTP/1.1 200 OK", Header{{"EXT", ""}, {"ST", "ssdp:all"}},
			"HTTP/1.1 200 OK\r\nEXT:\r\nST: ssdp:all\r\n\r\n"},
		{"nothing", "", nil, "\r\n\r\n"},
		{"line breaks", "NOTIFY *\r\nA: b", Header{{"ST", "a\r\nEvil: 1"}, {"X\r\nY", "c\x00\t\x7f"}},
			"NOTIFY *A: b\r\nST: aEvil: 1\r\nXY: c\r\n\r\n"},
		{"no name left", "N", Header{{": \r\n", "v"}}, "N\r\n\r\n"},
	} {
		if got := string(AppendMessage([]byte("x"), tt.start, tt.h)); got != "x"+tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, "x"+tt.want)
		}
	}
}

// Whatever is accepted comes back the same after AppendMessage, and has only
// tokens as names and no line break in a value.
func FuzzParseDatagram(f *testing.F) {
	for _, tt := range datagrams {
		f.Add([]byte(tt.in))
		f.Add([]byte(tt.in + strings.Repeat("x", maxDatagram)))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		req, err := ParseDatagram(p)
		if err == nil && (len(p) > maxDatagram || len(req.Header) > maxFields) {
			t.Fatalf("%d bytes with %d fields are read", len(p), len(req.Header))
		}
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error is not ErrMalformed: %v", err)
			}
			return
		}
		for _, field := range req.Header {
			if !isToken(field.Name) || strings.ContainsAny(field.Value, "\r\n\x00") {
				t.Fatalf("accepted field %q", field)
			}
		}
		start := req.Method + " " + req.Target + " HTTP/1." + string(rune('0'+req.Minor))
		again, err := ParseDatagram(AppendMessage(nil, start, dropTabs(req.Header)))
		if errors.Is(err, ErrMalformed) && len(p) > 1000 {
			return // a blank after each colon can take it over 1500 bytes
		}
		if err != nil {
			t.Fatal(err)
		}
		req.Header = dropTabs(req.Header)
		if show(again) != show(req) {
			t.Fatalf("got\n%s\nthen\n%s", show(req), show(again))
		}
	})
}

// FuzzAppendMessage: no field can bring a line of its own.
func FuzzAppendMessage(f *testing.F) {
	f.Add("HTTP/1.1 200 OK", "ST", "ssdp:all")
	f.Add("NOTIFY * HTTP/1.1\r\nA: b", "X: y\r\nZ", "v\r\n\r\nw\n\r\x00")
	f.Fuzz(func(t *testing.T, start, name, value string) {
		out := string(AppendMessage(nil, start, Header{{name, value}}))
		lines := strings.Split(out, "\r\n")
		if len(lines) < 3 || len(lines) > 4 || lines[len(lines)-2] != "" || lines[len(lines)-1] != "" {
			t.Fatalf("lines %q", lines)
		}
		if strings.ContainsAny(strings.ReplaceAll(out, "\r\n", ""), "\r\n\x00") {
			t.Fatalf("control characters in %q", out)
		}
	})
}

// dropTabs makes values as AppendMessage writes them.
func dropTabs(h Header) Header {
	out := make(Header, len(h))
	for i, f := range h {
		out[i] = Field{f.Name, strings.Trim(strings.ReplaceAll(f.Value, "\t", ""), " ")}
	}
	return out
}
