package igd_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/httpmsg"
	"github.com/linux-igd/upnpd/internal/igd"
)

// HTTP-11.
func TestMethods(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/gatedesc.xml", 200, ""},
		{"HEAD", "/gatedesc.xml", 200, ""},
		{"GET", "/upnp/scpd/gateconnSCPD.xml", 200, ""},
		{"HEAD", "/upnp/scpd/gateicfgSCPD.xml", 200, ""},
		{"POST", "/gatedesc.xml", 405, "GET, HEAD"},
		{"SUBSCRIBE", "/upnp/scpd/gateconnSCPD.xml", 405, "GET, HEAD"},
		{"PUT", "/upnp/scpd/gatel3fSCPD.xml", 405, "GET, HEAD"},
		{"GET", "/upnp/control/WANIPConn1", 405, "POST"},
		{"HEAD", "/upnp/control/WANIPConn1", 405, "POST"},
		{"OPTIONS", "/upnp/control/WANIPConn1", 405, "POST"}, // PEERS 4: no CORS
		{"M-POST", "/upnp/control/WANIPConn1", 405, "POST"},  // SOAP-11
		{"SUBSCRIBE", "/upnp/control/WANIPConn1", 405, "POST"},
		{"BREW", "/upnp/control/WANIPConn1", 501, ""},
		{"get", "/gatedesc.xml", 501, ""}, // methods are case-sensitive
		{"BREW", "/gatedesc.xml", 501, ""},
		{"GET", "/", 404, ""},
		{"POST", "/x", 404, ""}, // PEERS 4: CVE-2016-6255
		{"GET", "/GATEDESC.XML", 404, ""},
		{"GET", "/gatedesc.xml/", 404, ""},
		{"GET", "//gatedesc.xml", 404, ""},
		{"GET", "/../gatedesc.xml", 404, ""},
		{"GET", "/rootDesc.xml", 404, ""},
		{"GET", "", 404, ""},
		{"GET", "*", 404, ""},
		{"POST", "/upnp/control/", 404, ""},
		{"POST", "/upnp/control/WANPPPConn1", 404, ""},
	} {
		resp := w.server.Handle(&httpmsg.Request{
			Method: tt.method, Target: tt.path, Minor: 1, Local: netip.AddrPortFrom(router, 49152), Remote: netip.AddrPortFrom(alice, 50000),
		})
		if allow, _ := resp.Header.Get("Allow"); resp.Status != tt.status || allow != tt.allow {
			t.Errorf("%s %q: %d, Allow %q; want %d, %q", tt.method, tt.path, resp.Status, allow, tt.status, tt.allow)
		}
		if tt.status != 200 && len(resp.Body) > 0 {
			t.Errorf("%s %q: body %q", tt.method, tt.path, resp.Body)
		}
	}
}

// The description has the name that LOCATION tells. It may be any name without
// hiding another document.
func TestDescriptionName(t *testing.T) {
	for _, name := range []string{"gatedesc.xml", "gateconnSCPD.xml"} {
		w := newWorld(t, func(_ *world, cfg *igd.Config) { cfg.DescriptionName = name })
		if path := w.server.DescriptionPath(); path != "/"+name || !strings.Contains(string(w.get(path).Body), "<root ") {
			t.Errorf("%s is not the description", path)
		}
		if !strings.Contains(string(w.get(wanIPSpec.scpd).Body), "<scpd ") {
			t.Errorf("with the description at %s, %s is not the SCPD", name, wanIPSpec.scpd)
		}
	}
}

// SOAP-2: how SOAPACTION may be written.
func TestSOAPAction(t *testing.T) {
	const action = "GetExternalIPAddress"
	plain := wanIPSpec.typ + "#" + action
	w := newWorld(t)
	for _, tt := range []struct {
		name, field, value string
		status             int
	}{
		{"as in the standard", "SOAPACTION", `"` + plain + `"`, 200},
		{"without quotes", "SOAPACTION", plain, 200},
		{"libtorrent", "Soapaction", `"` + plain + `"`, 200},
		{"lower case", "soapaction", `"` + plain + `"`, 200},
		{"blanks inside", "SOAPAction", `" ` + plain + ` "`, 200},
		{"one quote", "SOAPACTION", `"` + plain, 200},
		{"no field", "X-Other", plain, 400},
		{"empty", "SOAPACTION", "", 400},
		{"empty quotes", "SOAPACTION", `""`, 400},
		{"only a quote", "SOAPACTION", `"`, 400}, // PEERS 4: f56bd09
		{"no #", "SOAPACTION", wanIPSpec.typ, 400},
		{"nothing after #", "SOAPACTION", wanIPSpec.typ + "#", 400},
		{"nothing before #", "SOAPACTION", "#" + action, 400},
		{"a blank in it", "SOAPACTION", wanIPSpec.typ + " #" + action, 400},
		{"very long", "SOAPACTION", `"` + strings.Repeat("x", 100000), 400}, // PEERS 4: CVE-2013-1461
		{"another name", "SOAPACTION", wanIPSpec.typ + "#GetStatusInfo", 500},
	} {
		r := w.reply(wanIPSpec.typ, action, w.post(alice, wanIPSpec.control, envelope(wanIPSpec.typ, action), tt.field, tt.value))
		if r.status != tt.status {
			t.Errorf("%s: %d %d %s, want %d", tt.name, r.status, r.code, r.text, tt.status)
		}
	}
}

// SOAP-3: the types in SOAPACTION, in the body and of the control URL agree,
// and so do the names of the action. Anything else is 401 and does nothing.
func TestWrongAction(t *testing.T) {
	const v2 = "urn:schemas-upnp-org:service:WANIPConnection:2"
	const ppp = "urn:schemas-upnp-org:service:WANPPPConnection:1"
	typ := wanIPSpec.typ
	for _, tt := range []struct {
		name, path, headerType, headerAction, bodyType, bodyAction string
	}{
		{"wrong control URL", wanCommonSpec.control, typ, "AddPortMapping", typ, "AddPortMapping"},                          // PEERS 2.3
		{"wrong service type", wanIPSpec.control, wanCommonSpec.typ, "AddPortMapping", wanCommonSpec.typ, "AddPortMapping"}, // PEERS 2.3
		{"made-up type", wanIPSpec.control, "urn:x", "AddPortMapping", "urn:x", "AddPortMapping"},
		{"PPP", wanIPSpec.control, ppp, "AddPortMapping", ppp, "AddPortMapping"},
		{"version 2 of the service", wanIPSpec.control, v2, "AddPortMapping", v2, "AddPortMapping"},
		{"type in another case", wanIPSpec.control, strings.ToUpper(typ), "AddPortMapping", strings.ToUpper(typ), "AddPortMapping"},
		{"types differ", wanIPSpec.control, typ, "AddPortMapping", wanCommonSpec.typ, "AddPortMapping"},
		{"types differ the other way", wanIPSpec.control, wanCommonSpec.typ, "AddPortMapping", typ, "AddPortMapping"},
		{"actions differ", wanIPSpec.control, typ, "GetStatusInfo", typ, "AddPortMapping"},
		{"actions differ the other way", wanIPSpec.control, typ, "AddPortMapping", typ, "GetStatusInfo"},
		{"unknown action", wanIPSpec.control, typ, "Reboot", typ, "Reboot"},
		{"action in another case", wanIPSpec.control, typ, "addPortMapping", typ, "addPortMapping"},
		{"a response", wanIPSpec.control, typ, "AddPortMappingResponse", typ, "AddPortMappingResponse"},
		{"INT-1 AddAnyPortMapping", wanIPSpec.control, typ, "AddAnyPortMapping", typ, "AddAnyPortMapping"},
		{"INT-1 DeletePortMappingRange", wanIPSpec.control, typ, "DeletePortMappingRange", typ, "DeletePortMappingRange"},
		{"INT-1 GetListOfPortMappings", wanIPSpec.control, typ, "GetListOfPortMappings", typ, "GetListOfPortMappings"},
		{"optional RequestTermination", wanIPSpec.control, typ, "RequestTermination", typ, "RequestTermination"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.expect(0, alice, wanIPSpec, "AddPortMapping", mapping()...)
			body := envelope(tt.bodyType, tt.bodyAction, mapping("NewExternalPort", "8081")...)
			w.unchanged(func() {
				r := w.reply("", "", w.post(alice, tt.path, body, "SOAPACTION", tt.headerType+"#"+tt.headerAction))
				if r.code != 401 {
					t.Errorf("%d %d %s", r.status, r.code, r.text)
				}
			})
		})
	}
}

// SOAP-4: how an envelope may be written.
func TestEnvelopes(t *testing.T) {
	const head, tail = `<s:Envelope xmlns:s="` + soapNS + `"><s:Body>`, `</s:Body></s:Envelope>`
	typ := wanIPSpec.typ
	in := func(action string) string { return head + action + tail }
	for _, tt := range []struct {
		name, body string
		code       int
	}{
		{"SOAP-ENV and m", `<SOAP-ENV:Envelope xmlns:SOAP-ENV="` + soapNS + `"><SOAP-ENV:Body><m:GetStatusInfo xmlns:m="` + typ + `"/></SOAP-ENV:Body></SOAP-ENV:Envelope>`, 0},
		{"default namespaces", `<Envelope xmlns="` + soapNS + `"><Body><GetStatusInfo xmlns="` + typ + `"></GetStatusInfo></Body></Envelope>`, 0},
		{"action without namespace", in(`<GetStatusInfo/>`), 0},
		{"undeclared prefix", in(`<u:GetStatusInfo/>`), 0},
		{"declaration on the envelope", `<s:Envelope xmlns:s="` + soapNS + `" xmlns:u="` + typ + `"><s:Body><u:GetStatusInfo/></s:Body></s:Envelope>`, 0},
		{"other encodingStyle", strings.Replace(in(`<GetStatusInfo/>`), "<s:Body>", `<s:Body s:encodingStyle="urn:x">`, 1), 0},
		{"byte order mark, comments, white space", "\ufeff<?xml version=\"1.0\"?>\r\n<!-- c -->" + in("\n <u:GetStatusInfo xmlns:u=\""+typ+"\">\n</u:GetStatusInfo>\n") + "\n", 0},
		{"a header", strings.Replace(in(`<GetStatusInfo/>`), "<s:Body>", `<s:Header><t:x xmlns:t="urn:t">1</t:x></s:Header><s:Body>`, 1), 0},
		{"a header that must be understood", strings.Replace(in(`<GetStatusInfo/>`), "<s:Body>", `<s:Header><t:x xmlns:t="urn:t" s:mustUnderstand="1"/></s:Header><s:Body>`, 1), 402},
		{"no body", "", 402}, // SOAP-13
		{"garbage", "hello", 402},
		{"cut off", in(`<GetStatusInfo/>`)[:60], 402},
		{"empty Body", in(""), 402},
		{"two actions", in(`<GetStatusInfo/><GetStatusInfo/>`), 402},
		{"not an envelope", `<GetStatusInfo xmlns="` + typ + `"/>`, 402},
		{"an argument twice", in(`<GetStatusInfo><a>1</a><a>2</a></GetStatusInfo>`), 402},
		{"an element in an argument", in(`<GetStatusInfo><a><b/></a></GetStatusInfo>`), 402},
		{"DTD", `<!DOCTYPE x [<!ENTITY e "x">]>` + in(`<GetStatusInfo>&e;</GetStatusInfo>`), 402}, // SOAP-8
		{"10000 nested tags", in(strings.Repeat("<a>", 10000)), 402},                              // PEERS 4: #268
		{"SOAP 1.2", strings.Replace(in(`<GetStatusInfo/>`), soapNS, "http://www.w3.org/2003/05/soap-envelope", 1), 402},
	} {
		w := newWorld(t)
		r := w.reply(typ, "GetStatusInfo", w.post(alice, wanIPSpec.control, tt.body, "SOAPACTION", typ+"#GetStatusInfo"))
		if r.code != tt.code {
			t.Errorf("%s: %d %d %s, want %d", tt.name, r.status, r.code, r.text, tt.code)
		}
	}
}

// SOAP-6: CDATA and references are decoded before a value is read.
func TestEncodedValues(t *testing.T) {
	w := newWorld(t)
	body := envelope(wanIPSpec.typ, "AddPortMapping", mapping()...)
	body = strings.Replace(body, ">8080<", "><![CDATA[80]]>&#56;&#x30;<", 1)
	body = strings.Replace(body, ">web<", "><![CDATA[<b>&amp;]]>&lt;/b&gt;<", 1)
	r := w.reply(wanIPSpec.typ, "AddPortMapping", w.post(alice, wanIPSpec.control, body, "SOAPACTION", wanIPSpec.typ+"#AddPortMapping"))
	if r.code != 0 {
		t.Fatal(r.text)
	}
	got := w.expect(0, alice, wanIPSpec, "GetSpecificPortMappingEntry", key("", "8080", "TCP")...)
	if d := got.values["NewPortMappingDescription"]; d != "<b>&amp;</b>" {
		t.Errorf("description %q", d)
	}
}

// SOAP-13: only XML, but a missing CONTENT-TYPE is forgiven.
func TestContentType(t *testing.T) {
	const action = "AddPortMapping"
	for contentType, status := range map[string]int{
		"-":                                 200, // no field
		`text/xml; charset="utf-8"`:         200,
		"text/xml":                          200,
		"Text/XML;charset=UTF-8":            200,
		" application/xml ; charset=utf-8":  200,
		"text/plain":                        415, // what a browser's form can send
		"application/x-www-form-urlencoded": 415,
		"multipart/form-data; boundary=x":   415,
		"application/soap+xml":              415,
		"text/xml2":                         415,
		"text":                              415,
		"":                                  415,
	} {
		w := newWorld(t)
		fields := []string{"SOAPACTION", wanIPSpec.typ + "#" + action}
		if contentType != "-" {
			fields = append(fields, "Content-Type", contentType)
		}
		r := w.reply(wanIPSpec.typ, action, w.post(alice, wanIPSpec.control, envelope(wanIPSpec.typ, action, mapping()...), fields...))
		if r.status != status || (w.table.Len() == 1) != (status == 200) {
			t.Errorf("%q: %d, %d mappings; want %d", contentType, r.status, w.table.Len(), status)
		}
	}
}

// SOAP-10: errorDescription says what was wrong, short and in printable text.
func TestErrorDescription(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ value, contains string }{
		{"8080x", `NewExternalPort is "8080x"`},
		{"a\nb", `\n`},
		{"<&>", `<&>`},
		{strings.Repeat("9", 3000), "999"},
		{strings.Repeat("é", 3000), "é"},
	} {
		r := w.expect(402, alice, wanIPSpec, "AddPortMapping", mapping("NewExternalPort", tt.value)...)
		if !strings.HasPrefix(r.text, "Invalid Args") || !strings.Contains(r.text, tt.contains) || strings.ContainsAny(r.text, "\n\r\ufffd") {
			t.Errorf("%.20q: %q", tt.value, r.text)
		}
	}
}
