package gena

import (
	"bufio"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// callbacks are values of CALLBACK from host, and what is understood: none is
// refused. FuzzCallback starts from the same rows.
var callbacks = []struct{ host, in, want string }{
	// GENA-1, INT-3
	{"192.168.1.7", "<http://192.168.1.7:2869/upnp/eventing/abcd>", "192.168.1.7:2869 /upnp/eventing/abcd"},
	{"192.168.1.7", "<http://192.168.1.7/>", "192.168.1.7:80 /"},
	{"192.168.1.7", "<http://192.168.1.7>", "192.168.1.7:80 /"},
	{"192.168.1.7", "<HTTP://192.168.1.7:1>", "192.168.1.7:1 /"},
	{"192.168.1.7", "<http://192.168.1.7:65535?a=b/c>", "192.168.1.7:65535 /?a=b/c"},
	{"192.168.1.7", "<http://192.168.1.7:80/%41//..;x?y?z>", "192.168.1.7:80 /%41//..;x?y?z"},
	{"192.168.1.7", "<http://192.168.1.7:80/a><http://192.168.1.7:81/b>", "192.168.1.7:80 /a, 192.168.1.7:81 /b"},
	{"192.168.1.7", " <http://192.168.1.7:80/a> \t<http://192.168.1.7:81/b> ", "192.168.1.7:80 /a, 192.168.1.7:81 /b"},
	{"192.168.1.7", strings.Repeat("<http://192.168.1.7/>", 4), strings.Repeat("192.168.1.7:80 /, ", 3) + "192.168.1.7:80 /"},
	// GENA-14
	{"fe80::7", "<http://[fe80::7]:80/x>", "[fe80::7]:80 /x"},
	{"fe80::7", "<http://[FE80:0:0::7]>", "[fe80::7]:80 /"},
	{"fe80::7", "<http://[fe80::7%eth0]:80/x>", "[fe80::7]:80 /x"},
	{"fe80::7", "<http://[fe80::7%25eth0]:80/x>", "[fe80::7]:80 /x"},
	{"2001:db8::7", "<http://[2001:db8::7]:1234/x>", "[2001:db8::7]:1234 /x"},

	// GENA-13: only to itself
	{"192.168.1.7", "<http://192.168.1.8:80/>", ""},
	{"192.168.1.7", "<http://192.168.1.7:80/a><http://203.0.113.1:80/b>", ""},
	{"192.168.1.7", "<http://203.0.113.1:80/b><http://192.168.1.7:80/a>", ""},
	{"192.168.1.7", "<http://127.0.0.1:80/>", ""},
	{"192.168.1.7", "<http://0.0.0.0:80/>", ""},
	{"192.168.1.7", "<http://239.255.255.250:80/>", ""},
	{"192.168.1.7", "<http://192.168.1.1:80/>", ""},
	{"192.168.1.7", "<http://[::ffff:192.168.1.7]:80/>", ""},
	{"192.168.1.7", "<http://[::192.168.1.7]:80/>", ""},
	{"192.168.1.7", "<http://[192.168.1.7]:80/>", ""},
	{"192.168.1.7", "<http://192.168.1.7%eth0:80/>", ""},
	{"192.168.1.7", "<http://192.168.1:80/>", ""},
	{"192.168.1.7", "<http://3232235783:80/>", ""},
	{"192.168.1.7", "<http://0xc0.168.1.7:80/>", ""},
	{"192.168.1.7", "<http://192.168.001.7:80/>", ""},
	{"192.168.1.7", "<http://192.168.1.7.:80/>", ""},
	{"192.168.1.7", "<http://router.lan:80/>", ""},
	{"192.168.1.7", "<http://%31%39%32.168.1.7/>", ""},
	{"fe80::7", "<http://[fe80::8]:80/>", ""},
	{"fe80::7", "<http://fe80::7:80/>", ""},
	{"fe80::7", "<http://fe80::7>", ""},
	{"fe80::7", "<http://[fe80::7/>", ""},
	{"fe80::7", "<http://[fe80::7]80/>", ""},
	{"fe80::7", "<http://[fe80::7%]:80/>", ""},
	{"fe80::7", "<http://[]:80/>", ""},
	// no user, no other scheme, no bad port
	{"192.168.1.7", "<http://192.168.1.7@203.0.113.1/>", ""},
	{"192.168.1.7", "<http://user@192.168.1.7/>", ""},
	{"192.168.1.7", "<http://user:pw@192.168.1.7:80/>", ""},
	{"192.168.1.7", `<http://203.0.113.1\@192.168.1.7/>`, ""},
	{"192.168.1.7", `<http://192.168.1.7\.evil/>`, ""},
	{"192.168.1.7", "<https://192.168.1.7/>", ""},
	{"192.168.1.7", "<ftp://192.168.1.7/>", ""},
	{"192.168.1.7", "<//192.168.1.7/>", ""},
	{"192.168.1.7", "<192.168.1.7/>", ""},
	{"192.168.1.7", "<http:/192.168.1.7/>", ""},
	{"192.168.1.7", "<http://>", ""},
	{"192.168.1.7", "<http:///path>", ""},
	{"192.168.1.7", "<http://192.168.1.7:0/>", ""},
	{"192.168.1.7", "<http://192.168.1.7:/>", ""},
	{"192.168.1.7", "<http://192.168.1.7:65536/>", ""},
	{"192.168.1.7", "<http://192.168.1.7:+80/>", ""},
	{"192.168.1.7", "<http://192.168.1.7:-1/>", ""},
	{"192.168.1.7", "<http://192.168.1.7:80:80/>", ""},
	{"192.168.1.7", "<http://192.168.1.7:http/>", ""},
	// no blank, control character or second line
	{"192.168.1.7", "<http://192.168.1.7/a b>", ""},
	{"192.168.1.7", "<http://192.168.1.7/a\r\nX: y>", ""},
	{"192.168.1.7", "<http://192.168.1.7/a\x00>", ""},
	{"192.168.1.7", "<http://192.168.1.7/a\x7f>", ""},
	{"192.168.1.7", "<http://192.168.1.7/\xc3\xa4>", ""},
	{"192.168.1.7", "< http://192.168.1.7/>", ""},
	{"192.168.1.7", "<http://192.168.1.7/#f>", ""},
	// the brackets
	{"192.168.1.7", "", ""},
	{"192.168.1.7", "  ", ""},
	{"192.168.1.7", "<>", ""},
	{"192.168.1.7", ">", ""},
	{"192.168.1.7", "<", ""},
	{"192.168.1.7", "http://192.168.1.7/", ""},
	{"192.168.1.7", "<http://192.168.1.7/", ""},
	{"192.168.1.7", "http://192.168.1.7/>", ""},
	{"192.168.1.7", "<<http://192.168.1.7/>>", ""},
	{"192.168.1.7", "<http://192.168.1.7/>,<http://192.168.1.7/>", ""},
	{"192.168.1.7", "<http://192.168.1.7/>x", ""},
	{"192.168.1.7", "<http://192.168.1.7/><", ""},
	// limits
	{"192.168.1.7", strings.Repeat("<http://192.168.1.7/>", 5), ""},
	{"192.168.1.7", "<http://192.168.1.7/" + strings.Repeat("x", 512-21) + ">", "192.168.1.7:80 /" + strings.Repeat("x", 512-21)},
	{"192.168.1.7", "<http://192.168.1.7/" + strings.Repeat("x", 513-21) + ">", ""},
}

func TestCallback(t *testing.T) {
	for _, tt := range callbacks {
		urls, err := parseCallback(tt.in, netip.MustParseAddr(tt.host))
		var got []string
		for _, u := range urls {
			got = append(got, u.to.String()+" "+u.target)
		}
		if s := strings.Join(got, ", "); s != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q from %s: %q, %v; want %q", tt.in, tt.host, s, err, tt.want)
		}
	}
}

// FuzzCallback: whatever is accepted leads to the subscriber in the eyes of
// net/url, too, and the message to it is one request with that target.
func FuzzCallback(f *testing.F) {
	for _, tt := range callbacks {
		f.Add(tt.host, tt.in)
	}
	f.Fuzz(func(t *testing.T, from, in string) {
		host, err := netip.ParseAddr(from)
		if err != nil {
			return
		}
		host = host.Unmap().WithZone("")
		urls, err := parseCallback(in, host)
		if err != nil {
			if urls != nil {
				t.Fatalf("%d URLs and %v", len(urls), err)
			}
			return
		}
		if len(urls) == 0 || len(urls) > 4 || len(in) > 512 {
			t.Fatalf("%d URLs in %d bytes", len(urls), len(in))
		}
		rest := in
		for _, u := range urls {
			_, rest, _ = strings.Cut(rest, "<")
			text, after, _ := strings.Cut(rest, ">")
			rest = after
			if u.to.Addr() != host || u.to.Port() == 0 {
				t.Fatalf("%q from %v leads to %v", in, host, u.to)
			}
			checkURL(t, text, u)
			checkMessage(t, u)
		}
	})
}

// checkURL compares with net/url, where that can read the URL.
func checkURL(t *testing.T, text string, u callback) {
	theirs, err := url.Parse(text)
	if err != nil {
		return // it knows no zone without %25, and no bad %
	}
	port := theirs.Port()
	if port == "" {
		port = "80"
	}
	n, _ := strconv.Atoi(port)
	name, _, _ := strings.Cut(theirs.Hostname(), "%")
	addr, err := netip.ParseAddr(name)
	if err != nil || theirs.User != nil || theirs.Scheme != "http" || addr != u.to.Addr() || n != int(u.to.Port()) {
		t.Fatalf("%q: net/url reads %v, we read %v", text, theirs, u)
	}
}

func checkMessage(t *testing.T, u callback) {
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(notify(u, "uuid:x", 7, "body"))))
	if err != nil {
		if strings.Contains(err.Error(), "invalid URL escape") || strings.Contains(err.Error(), "invalid URI") {
			return // the subscriber's own
		}
		t.Fatalf("%q: %v", u.target, err)
	}
	if want := fmt.Sprint(u.to); req.Method != "NOTIFY" || req.RequestURI != u.target || req.Host != want || len(req.Header) != 7 {
		t.Fatalf("%+v, want %s", req, want)
	}
}
