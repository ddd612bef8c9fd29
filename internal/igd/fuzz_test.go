package igd_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/httpmsg"
)

// FuzzHandle: whatever comes to a control URL, nothing panics, the answer is
// well-formed XML or empty, its status is a known one, the quota holds and the
// kernel has what the table has.
func FuzzHandle(f *testing.F) {
	for _, svc := range append(services2, services...) {
		for _, a := range svc.actions {
			var args []string
			for _, name := range a.in {
				args = append(args, name, "0")
			}
			f.Add(svc.control, `"`+svc.typ+"#"+a.name+`"`, []byte(envelope(svc.typ, a.name, args...)))
		}
		f.Add(svc.control, controlNS+"#QueryStateVariable", []byte(envelope(controlNS, "QueryStateVariable", "varName", svc.vars[0].name)))
	}
	add := wanIPSpec.typ + "#AddPortMapping"
	f.Add(wanIPSpec.control, add, []byte(envelope(wanIPSpec.typ, "AddPortMapping", mapping()...)))
	f.Add(wanIPSpec.control, add, []byte(envelope(wanIPSpec.typ, "AddPortMapping", mapping("NewExternalPort", "9001", "NewPortMappingDescription", "<&>]]>")...)))
	f.Add(wanIPSpec.control, wanIPSpec.typ+"#DeletePortMapping", []byte(envelope(wanIPSpec.typ, "DeletePortMapping", key("", "9000", "TCP")...)))
	f.Add("/gatedesc.xml", "", []byte(nil))

	f.Fuzz(func(t *testing.T, path, action string, body []byte) {
		w, svc := newWorld(t), wanIPSpec
		if strings.HasPrefix(path, "/upnp/2/") {
			w, svc = newWorld(t, version2), wanIPSpec2
		}
		w.call(alice, svc, "AddPortMapping", mapping("NewExternalPort", "9000")...)
		for range 2 { // the second time, what the first one made is there
			resp := w.server.Handle(&httpmsg.Request{
				Method: "POST", Target: path, Minor: 1, Body: bytes.Clone(body), Header: httpmsg.Header{{Name: "SOAPACTION", Value: action}},
				Local: netip.AddrPortFrom(router, 49152), Remote: netip.AddrPortFrom(alice, 50000),
			})
			switch resp.Status {
			case 200, 400, 404, 405, 500:
			default:
				t.Errorf("status %d", resp.Status)
			}
			if len(resp.Body) > 0 {
				if _, err := parseXML(resp.Body); err != nil {
					t.Errorf("%v: %q", err, resp.Body)
				}
			} else if resp.Status == 200 || resp.Status == 500 {
				t.Errorf("%d without a body", resp.Status)
			}
			w.inStep()
			if n := w.table.Len(); n > w.policy.MaxPerClient {
				t.Errorf("%d mappings of one client", n)
			}
		}
	})
}
