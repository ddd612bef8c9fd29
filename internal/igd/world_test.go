package igd_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/httpmsg"
	"github.com/linux-igd/upnpd/internal/igd"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/portmap/portmaptest"
	"github.com/linux-igd/upnpd/internal/wan"
)

var (
	router = netip.MustParseAddr("192.168.1.1")
	alice  = netip.MustParseAddr("192.168.1.10")
	bob    = netip.MustParseAddr("192.168.1.20")
	wanIP  = netip.MustParseAddr("11.0.0.2")

	router6 = netip.MustParseAddr("2001:db8:1::1")
	alice6  = netip.MustParseAddr("2001:db8:1::10")
	bob6    = netip.MustParseAddr("2001:db8:1::20")
)

const rootUUID = "8d3c5a0e-52c4-4a6b-9f0e-3b1d7c2a9e54"

// world is a Server with everything below it: a real table, a strict kernel,
// an uplink and a clock.
type world struct {
	t      testing.TB
	server *igd.Server
	table  *portmap.Table
	kernel *portmaptest.Firewall
	uplink *uplink
	clock  time.Duration

	policy   portmap.Policy
	inUse    func(portmap.Protocol, uint16) (bool, error)
	sameHost func(a, b netip.Addr) bool
	packets  map[uint16]uint64 // by external port
}

// counting is the kernel with the counters of the world.
type counting struct {
	*portmaptest.Firewall
	w *world
}

func (c counting) Packets() (map[portmap.Key]uint64, error) {
	all, err := c.Firewall.Packets()
	for k := range all {
		all[k] = c.w.packets[k.ExternalPort]
	}
	return all, err
}

// version2 makes the other face.
func version2(_ *world, c *igd.Config) { c.Version, c.IPv6 = 2, true }

type uplink struct {
	mu       sync.Mutex // events ask from elsewhere
	state    wan.State
	counters wan.Counters
	err      error
}

func (u *uplink) State() wan.State {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

// change gives the router another uplink.
func (w *world) change(up wan.Uplink) {
	w.uplink.mu.Lock()
	defer w.uplink.mu.Unlock()
	w.uplink.state.Uplink = up
}

func (u *uplink) Counters() (wan.Counters, error) { return u.counters, u.err }

func testConfig() igd.Config {
	return igd.Config{
		UUID: rootUUID, FriendlyName: "Linux router", Serial: "12345678", ModelNumber: "0.1.0",
		PresentationURL: igd.OwnPage, DescriptionName: "gatedesc.xml",
	}
}

func newWorld(t testing.TB, change ...func(*world, *igd.Config)) *world {
	t.Helper()
	w := &world{
		t: t, kernel: portmaptest.New(t), clock: time.Hour,
		uplink: &uplink{state: wan.State{Uplink: wan.Uplink{
			Name: "wan0", Index: 2, Up: true, Addr: wanIP, Since: 10 * time.Minute, Speed: 1e9,
		}}},
		policy: portmap.Policy{Secure: true, MaxLease: 604800 * time.Second, MaxMappings: 6, MaxPerClient: 4},
		inUse:  func(portmap.Protocol, uint16) (bool, error) { return false, nil },
	}
	cfg := testConfig()
	for _, f := range change {
		if f != nil {
			f(w, &cfg)
		}
	}
	now := func() time.Duration { return w.clock }
	w.table = portmap.New(portmap.Config{
		Firewall: counting{w.kernel, w}, Policy: w.policy, Now: now, InUse: w.inUse,
		Logf: func(string, ...any) {}, SameHost: w.sameHost,
	})
	w.table.SetNetwork(portmap.Network{External: wanIP, LANs: []netip.Prefix{
		netip.PrefixFrom(router, 24), netip.PrefixFrom(router6, 64), netip.MustParsePrefix("fd00::1/64"),
	}})
	w.server = igd.New(cfg, w.table, w.uplink, now)
	return w
}

// get fetches a document as a host of the LAN.
func (w *world) get(path string) *httpmsg.Response {
	return w.server.Handle(&httpmsg.Request{
		Method: "GET", Target: path, Minor: 1,
		Local: netip.AddrPortFrom(router, 49152), Remote: netip.AddrPortFrom(alice, 50000),
	})
}

// post sends a body to a control URL with the given fields.
func (w *world) post(from netip.Addr, path, body string, fields ...string) *httpmsg.Response {
	req := &httpmsg.Request{
		Method: "POST", Target: path, Minor: 1, Body: []byte(body), Device: "br-lan",
		Local: netip.AddrPortFrom(router, 49152), Remote: netip.AddrPortFrom(from, 50000),
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header = append(req.Header, httpmsg.Field{Name: fields[i], Value: fields[i+1]})
	}
	return w.server.Handle(req)
}

const xmlType = `text/xml; charset="utf-8"`

// call does an action as control points do. args are names and values in turn.
func (w *world) call(from netip.Addr, svc serviceSpec, action string, args ...string) reply {
	w.t.Helper()
	return w.reply(svc.typ, action, w.post(from, svc.control, envelope(svc.typ, action, args...),
		"CONTENT-TYPE", xmlType, "SOAPACTION", `"`+svc.typ+"#"+action+`"`))
}

func envelope(typ, action string, args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version="1.0"?><s:Envelope xmlns:s="%s" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:%s xmlns:u="%s">`, soapNS, action, typ)
	for i := 0; i < len(args); i += 2 {
		fmt.Fprintf(&b, "<%s>", args[i])
		_ = xml.EscapeText(&b, []byte(args[i+1]))
		fmt.Fprintf(&b, "</%s>", args[i])
	}
	fmt.Fprintf(&b, "</u:%s></s:Body></s:Envelope>", action)
	return b.String()
}

const (
	soapNS    = "http://schemas.xmlsoap.org/soap/envelope/"
	controlNS = "urn:schemas-upnp-org:control-1-0"
)

// reply is an answer to a control request, understood.
type reply struct {
	status int // of HTTP
	code   int // of UPnP; 0 for success
	text   string
	out    []string          // values in order
	values map[string]string // by name
}

// element is any XML element.
type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Text     string     `xml:",chardata"`
	Elements []element  `xml:",any"`
}

func (e element) attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// names lists the element's children.
func (e element) names() []string {
	var list []string
	for _, c := range e.Elements {
		list = append(list, c.XMLName.Local)
	}
	return list
}

// children gives the children with that name.
func (e element) children(name string) []element {
	var list []element
	for _, c := range e.Elements {
		if c.XMLName.Local == name {
			list = append(list, c)
		}
	}
	return list
}

// child gives the only child with that name, or an empty element.
func (e element) child(path ...string) element {
	for _, name := range path {
		list := e.children(name)
		if len(list) != 1 {
			return element{}
		}
		e = list[0]
	}
	return e
}

// parseXML reads one whole document.
func parseXML(doc []byte) (element, error) {
	var root element
	d := xml.NewDecoder(strings.NewReader(string(doc)))
	if err := d.Decode(&root); err != nil {
		return root, err
	}
	for {
		switch tok, err := d.Token(); {
		case errors.Is(err, io.EOF):
			return root, nil
		case err != nil:
			return root, err
		default:
			if text, ok := tok.(xml.CharData); !ok || strings.TrimSpace(string(text)) != "" {
				return root, fmt.Errorf("%v after the root", tok)
			}
		}
	}
}

// reply checks all that holds for every answer from an action (SOAP-9,
// SOAP-10) and gives what is in it.
func (w *world) reply(typ, action string, resp *httpmsg.Response) reply {
	w.t.Helper()
	r := reply{status: resp.Status, values: map[string]string{}}
	if resp.Status != 200 && resp.Status != 500 {
		if len(resp.Body) > 0 {
			w.t.Errorf("%d with the body %q", resp.Status, resp.Body)
		}
		return r
	}
	if ct, _ := resp.Header.Get("Content-Type"); ct != xmlType {
		w.t.Errorf("CONTENT-TYPE: %s", ct) // SOAP-9
	}
	if ext, ok := resp.Header.Get("EXT"); !ok || ext != "" {
		w.t.Errorf("EXT: %q, %v; want it there and empty", ext, ok) // SOAP-9
	}
	root, err := parseXML(resp.Body)
	body := root.child("Body")
	if err != nil || root.XMLName != (xml.Name{Space: soapNS, Local: "Envelope"}) ||
		body.XMLName.Space != soapNS || len(body.Elements) != 1 {
		w.t.Fatalf("no SOAP envelope with one answer (%v): %s", err, resp.Body)
	}
	if resp.Status == 200 {
		r.success(w.t, typ, action, body.Elements[0])
	} else {
		r.fault(w.t, body.Elements[0])
	}
	return r
}

func (r *reply) success(t testing.TB, typ, action string, e element) {
	t.Helper()
	if want := (xml.Name{Space: typ, Local: action + "Response"}); e.XMLName != want {
		t.Errorf("the answer is %v, want %v", e.XMLName, want) // SOAP-3, SOAP-9
	}
	for _, arg := range e.Elements {
		if arg.XMLName.Space != "" {
			t.Errorf("argument %v has a namespace", arg.XMLName) // SOAP-9
		}
		r.out = append(r.out, arg.Text)
		r.values[arg.XMLName.Local] = arg.Text
	}
	if want, ok := outArguments(typ, action); ok && !slices.Equal(e.names(), want) {
		t.Errorf("%s answers %q, want %q in that order", action, e.names(), want) // SOAP-9
	}
}

func (r *reply) fault(t testing.TB, e element) {
	t.Helper()
	upnp := e.child("detail", "UPnPError")
	if e.XMLName != (xml.Name{Space: soapNS, Local: "Fault"}) || upnp.XMLName.Space != controlNS ||
		e.child("faultcode").Text != "s:Client" || e.child("faultstring").Text != "UPnPError" {
		t.Errorf("not a UPnPError: %+v", e) // SOAP-10
	}
	if _, err := fmt.Sscan(upnp.child("errorCode").Text, &r.code); err != nil || r.code == 0 {
		t.Errorf("errorCode %q", upnp.child("errorCode").Text)
	}
	r.text = upnp.child("errorDescription").Text
	if n := len([]rune(r.text)); n == 0 || n > 255 {
		t.Errorf("errorDescription of %d characters", n) // SOAP-10
	}
}

// unchanged runs f and checks that table and kernel are as before.
func (w *world) unchanged(f func()) {
	w.t.Helper()
	table, kernel := w.table.List(), w.kernel.Mappings()
	f()
	if got := w.table.List(); !reflect.DeepEqual(got, table) {
		w.t.Errorf("the table changed\nfrom %v\nto   %v", table, got)
	}
	if got := w.kernel.Mappings(); !reflect.DeepEqual(got, kernel) {
		w.t.Errorf("the kernel changed\nfrom %v\nto   %v", kernel, got)
	}
}

// inStep checks that the kernel has exactly the table's mappings.
func (w *world) inStep() {
	w.t.Helper()
	table := slices.SortedFunc(slices.Values(w.table.List()), portmaptest.Compare)
	if kernel := w.kernel.Mappings(); !slices.Equal(table, kernel) {
		w.t.Errorf("table %v\nkernel %v", table, kernel)
	}
}

// expect does an action that must end with the given UPnP code, 0 for success.
// A refusal must leave no trace.
func (w *world) expect(code int, from netip.Addr, svc serviceSpec, action string, args ...string) reply {
	w.t.Helper()
	var r reply
	do := func() { r = w.call(from, svc, action, args...) }
	if code == 0 {
		do()
	} else {
		w.unchanged(do)
	}
	if r.code != code {
		w.t.Errorf("%s %q: %d %d %s, want %d", action, args, r.status, r.code, r.text, code)
	}
	w.inStep()
	return r
}
