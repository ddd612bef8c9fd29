package browser

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// technique is one thing that the page tries (testdata/page.js).
type technique struct {
	name string
	kind string // of the URL: "document", "control" or "event"
	// method is what the browser sends: OPTIONS where it asks first.
	method string
	// status is the daemon's answer. 200 is there where a request of a browser
	// is as good as one of a control point; the page must not see it.
	status int
	// maps: a router without defence maps a port.
	maps bool
	// reads: a router without defence is read.
	reads bool
}

// crossSite are the techniques of a page that knows the router's address.
var crossSite = []technique{
	{"post", "control", "POST", 403, true, false},
	{"post-untyped", "control", "POST", 403, true, false},
	{"post-plain", "control", "POST", 403, true, false},
	{"post-keepalive", "control", "POST", 403, true, false},
	{"beacon", "control", "POST", 403, true, false},
	{"beacon-form", "control", "POST", 403, true, false},
	{"form-plain", "control", "POST", 403, true, false},
	{"form", "control", "POST", 403, true, false},
	{"form-parts", "control", "POST", 403, true, false},
	{"soap", "control", "OPTIONS", 403, false, false},
	{"soap-xhr", "control", "OPTIONS", 403, false, false},
	{"xml-xhr", "control", "OPTIONS", 403, false, false},
	{"subscribe", "event", "OPTIONS", 403, false, false},
	{"get", "document", "GET", 403, false, false},
	{"get-blind", "document", "GET", 200, false, false},
	{"get-xhr", "document", "GET", 403, false, false},
	{"get-referer", "document", "GET", 403, false, false},
	{"get-named", "document", "GET", 403, false, false},
	{"image", "document", "GET", 200, false, false},
	{"script", "document", "GET", 200, false, false},
	{"module", "document", "GET", 403, false, false},
	{"style", "document", "GET", 200, false, false},
	{"frame", "document", "GET", 200, false, false},
	{"object", "document", "GET", 200, false, false},
	{"form-get", "control", "GET", 404, false, false}, // it has a query
	{"worker", "document", "GET", 200, false, false},
	{"events", "document", "GET", 403, false, false},
	{"socket", "event", "GET", 403, false, false},
}

// rebound are those of a page whose name becomes the router's (DNS rebinding,
// VU#361684): to the browser the router is the page's own server.
var rebound = []technique{
	{"own-get", "document", "GET", 403, false, true},
	{"own-head", "document", "HEAD", 403, false, false},
	{"own-xhr", "document", "GET", 403, false, true},
	{"own-soap", "control", "POST", 403, true, true},
	{"own-soap-xhr", "control", "POST", 403, true, true},
	{"own-form", "control", "POST", 403, true, true},
	{"own-subscribe", "event", "SUBSCRIBE", 403, false, true},
	{"own-options", "control", "OPTIONS", 403, false, true},
	{"own-frame", "document", "GET", 403, false, true},
	{"own-long", "document", "GET", 431, false, true},
	{"own-events", "document", "GET", 403, false, false},
}

// parts are the pages, by what each is called in page.js.
var parts = []struct {
	name string
	all  []technique
	url  func(target int) string
}{
	{"cross", crossSite, func(int) string { return fmt.Sprintf("http://www.evil.example:%d", webPort) }},
	{"rebound", rebound, func(target int) string { return fmt.Sprintf("http://rebind.evil.example:%d", target) }},
}

// TestPageAgainstNaive shows that the page and the browser do what they can: a
// router without defence is changed and read.
func TestPageAgainstNaive(t *testing.T) {
	h := enter(t)
	n, a, urls := h.naive(), h.attack(naivePort), h.places()
	for _, part := range parts {
		reports := a.visit(part.url(naivePort), part.name, urls.plan(naivePort, part.all), func() bool { return true })
		for _, k := range part.all {
			r, came := reports[k.name]
			if !came {
				t.Errorf("%s: the page tells nothing", k.name)
			}
			if read := strings.Contains(r.Read, secret); read != k.reads {
				t.Errorf("%s: the page has read: %v, %+v", k.name, read, r)
			}
			if n.has(k.name) != k.maps {
				t.Errorf("%s: a mapping: %v, %+v", k.name, n.has(k.name), r)
			}
		}
	}
}

// TestPage is the same page against the daemon: nothing changes, nothing is read,
// and it is the daemon that says so, not the browser.
func TestPage(t *testing.T) {
	h := enter(t)
	a, urls := h.attack(port), h.places()
	for _, part := range parts {
		s := h.sniff()
		plan := urls.plan(port, part.all)
		reports := a.visit(part.url(port), part.name, plan, s.stunned)
		h.settled()
		h.unchanged("the page " + part.name)
		heard := s.exchanges(port)
		for _, k := range part.all {
			r, came := reports[k.name]
			if !came {
				t.Errorf("%s: the page tells nothing", k.name)
			}
			if r.Read != "" || r.Status != 0 && r.Status != k.status || strings.Contains(strings.ToLower(r.Fields), "server") {
				t.Errorf("%s: the page has read %+v", k.name, r)
			}
			if answers := k.among(heard, plan); !slices.Contains(answers, k.status) {
				t.Errorf("%s: the daemon was asked, and answered %v, not %d; %+v", k.name, answers, k.status, r)
			}
		}
		for _, e := range heard {
			for field := range e.header {
				if strings.HasPrefix(field, "Access-Control-") {
					t.Errorf("%s %s: the answer has %s", e.Method, e.URL, field)
				}
			}
		}
		if log := h.daemon.Log(); !strings.Contains(log, "http: refused "+lab.LAN1Addr) {
			t.Error("the log does not say who was refused")
		}
		if part.name == "cross" && !s.stunned() {
			t.Errorf("WebRTC sent nothing to NAT-PMP: %x", s.datagrams(natpmp))
		}
	}
}

// among gives the statuses of the technique's requests: a body names the
// technique, others have their path.
func (k technique) among(heard []exchange, plan plan) (statuses []int) {
	for _, e := range heard {
		m := marker.FindStringSubmatch(e.body)
		if e.Method == k.method && (m != nil && m[1] == k.name || m == nil && e.URL.Path == plan.URLs[k.name]) {
			statuses = append(statuses, e.status)
		}
	}
	return statuses
}

// stunned reports whether WebRTC has sent both of what it can to NAT-PMP's port:
// a binding request of 20 bytes, and one of a check with USERNAME and more.
func (s *sniffer) stunned() bool {
	short, long := false, false
	for _, p := range s.datagrams(natpmp) {
		if len(p) >= 20 && p[0] == 0 && p[1] == 1 {
			short, long = short || len(p) == 20, long || len(p) > 40
		}
	}
	return short && long
}

const natpmp = 5351

// settled waits until the daemon has read all that came to NAT-PMP's port: it
// answers in order.
func (h *house) settled() {
	h.t.Helper()
	c, err := h.LAN2.Dial("udp4", fmt.Sprintf("%s:%d", lab.RouterLANAddr, natpmp), patience)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write([]byte{0, 0})
	if n, err := c.Read(make([]byte, 100)); n != 12 || err != nil {
		h.t.Fatalf("NAT-PMP: %d bytes, %v", n, err)
	}
}

// plan gives each technique a path that no other of its kind, method and answer
// has, so that the requests can be told apart. Those with a body are told apart
// by it, and ask where a mapping is to be had.
func (p places) plan(at int, all []technique) plan {
	made := plan{
		Router: fmt.Sprintf("http://%s:%d", lab.RouterLANAddr, at), Named: fmt.Sprintf("http://router.evil.example:%d", at),
		URLs: map[string]string{}, Envelope: strings.Replace(addBody, ">page<", ">NAME<", 1), Action: ipConnection + "#AddPortMapping",
	}
	used := map[string]int{}
	for _, k := range all {
		list := map[string][]string{"document": p.documents, "control": p.controls, "event": p.events}[k.kind]
		same := fmt.Sprint(k.kind, k.method, k.status)
		made.URLs[k.name] = list[used[same]%len(list)]
		used[same]++
		if k.method == "POST" {
			made.URLs[k.name] = p.mapping()
		}
	}
	return made
}
