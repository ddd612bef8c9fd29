package soap

import (
	"strings"
	"testing"
)

const wip1 = "urn:schemas-upnp-org:service:WANIPConnection:1"

func TestParseAction(t *testing.T) { // SOAP-2
	for _, tt := range []struct{ in, serviceType, action string }{
		{`"` + wip1 + `#AddPortMapping"`, wip1, "AddPortMapping"},
		{wip1 + `#AddPortMapping`, wip1, "AddPortMapping"},
		{` " ` + wip1 + `#GetStatusInfo "` + "\t", wip1, "GetStatusInfo"},
		{`"urn:schemas-upnp-org:control-1-0#QueryStateVariable"`, "urn:schemas-upnp-org:control-1-0", "QueryStateVariable"},
		{`a#b#c`, "a#b", "c"},
		{``, "", ""},
		{`""`, "", ""},
		{`"` + wip1 + `"`, "", ""},
		{`"#AddPortMapping"`, "", ""},
		{`"` + wip1 + `#"`, "", ""},
		{`"urn:a b#c"`, "", ""},
		{`"urn:a"b#c"`, "", ""},
		{"urn:a\x01#c", "", ""},
		{"urn:\xff#c", "", ""},
	} {
		serviceType, action, err := ParseAction(tt.in)
		if serviceType != tt.serviceType || action != tt.action || (err == nil) != (tt.action != "") {
			t.Errorf("ParseAction(%q) = %q, %q, %v", tt.in, serviceType, action, err)
		}
	}
}

func TestAppend(t *testing.T) {
	const head = `<?xml version="1.0"?>` + "\r\n" + `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>`
	const tail = "</s:Body></s:Envelope>\r\n"
	for _, tt := range []struct {
		name, got, want string
	}{
		{"out-arguments", // SOAP-9
			string(AppendResponse([]byte("x"), wip1, "GetExternalIPAddress", []Arg{{Name: "NewExternalIPAddress", Value: "11.0.0.1"}})),
			"x" + head + `<u:GetExternalIPAddressResponse xmlns:u="` + wip1 + `"><NewExternalIPAddress>11.0.0.1</NewExternalIPAddress></u:GetExternalIPAddressResponse>` + tail},
		{"no out-arguments", // SOAP-9
			string(AppendResponse(nil, wip1, "AddPortMapping", nil)),
			head + `<u:AddPortMappingResponse xmlns:u="` + wip1 + `"></u:AddPortMappingResponse>` + tail},
		{"QueryStateVariable", // SOAP-12
			string(AppendResponse(nil, "urn:schemas-upnp-org:control-1-0", "QueryStateVariable", []Arg{{Name: "return", Value: "a<b"}})),
			head + `<u:QueryStateVariableResponse xmlns:u="urn:schemas-upnp-org:control-1-0"><return>a&lt;b</return></u:QueryStateVariableResponse>` + tail},
		{"a document", // WIP-16
			string(AppendResponse(nil, "n", "A", []Arg{{Name: "b", Value: "<c>&amp;</c>", XML: true}})),
			head + `<u:AResponse xmlns:u="n"><b><![CDATA[<c>&amp;</c>]]></b></u:AResponse>` + tail},
		{"a document that would end its section",
			string(AppendResponse(nil, "n", "A", []Arg{{Name: "b", Value: "<c>]]></c>", XML: true}})),
			head + `<u:AResponse xmlns:u="n"><b>&lt;c&gt;]]&gt;&lt;/c&gt;</b></u:AResponse>` + tail},
		{"namespace is escaped",
			string(AppendResponse(nil, `"><x`, "A", nil)),
			head + `<u:AResponse xmlns:u="&quot;&gt;&lt;x"></u:AResponse>` + tail},
		{"fault", // SOAP-10
			string(AppendFault([]byte("x"), 718, "ConflictInMappingEntry")),
			"x" + head + `<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>718</errorCode><errorDescription>ConflictInMappingEntry</errorDescription></UPnPError></detail></s:Fault>` + tail},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, tt.got, tt.want)
		}
	}
}

func TestAppendFaultCuts(t *testing.T) { // SOAP-10: under 256 characters
	got := string(AppendFault(nil, 501, strings.Repeat("é", 300)))
	if n := strings.Count(got, "é"); n != 255 {
		t.Errorf("%d characters of description", n)
	}
}

func TestAppendEscaped(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`a<b>&"c"'`, `a&lt;b&gt;&amp;&quot;c&quot;&apos;`},
		{"\t\r\n", "&#9;&#13;&#10;"},
		{"\x00\x1f\x7f", "\ufffd\ufffd\x7f"},
		{"a\xffb\xed\xa0\x80", "a\ufffdb\ufffd\ufffd\ufffd"},
		{"\ufffe\uffff\ufffd\U0010ffff", "\ufffd\ufffd\ufffd\U0010ffff"},
	} {
		if got := string(AppendEscaped([]byte("x"), tt.in)); got != "x"+tt.want {
			t.Errorf("AppendEscaped(%q) = %q, want %q", tt.in, got, "x"+tt.want)
		}
	}
}

func TestCallArg(t *testing.T) {
	c := Call{Args: []Arg{{Name: "NewRemoteHost"}, {Name: "NewExternalPort", Value: "80"}}}
	if v, ok := c.Arg("NewRemoteHost"); v != "" || !ok {
		t.Errorf("NewRemoteHost = %q, %v", v, ok)
	}
	if v, ok := c.Arg("newexternalport"); v != "" || ok {
		t.Errorf("newexternalport = %q, %v", v, ok)
	}
}
