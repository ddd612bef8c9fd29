package soap

import "strings"

// Shapes of the requests of real control points.
const (
	miniupnpc = `<?xml version="1.0"?>` + "\r\n" +
		`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">` +
		`<s:Body><u:AddPortMapping xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">` +
		`<NewRemoteHost></NewRemoteHost><NewExternalPort>8080</NewExternalPort><NewProtocol>TCP</NewProtocol>` +
		`<NewInternalPort>80</NewInternalPort><NewInternalClient>192.168.1.7</NewInternalClient>` +
		`<NewEnabled>1</NewEnabled><NewPortMappingDescription>libminiupnpc</NewPortMappingDescription>` +
		`<NewLeaseDuration>0</NewLeaseDuration></u:AddPortMapping></s:Body></s:Envelope>` + "\r\n"

	libtorrent = "<?xml version=\"1.0\"?>\n" +
		`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">` +
		`<s:Body><u:AddPortMapping xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">` +
		`<NewRemoteHost></NewRemoteHost><NewExternalPort>6881</NewExternalPort><NewProtocol>UDP</NewProtocol>` +
		`<NewInternalPort>6881</NewInternalPort><NewInternalClient>192.168.1.7</NewInternalClient><NewEnabled>1</NewEnabled>` +
		`<NewPortMappingDescription>libtorrent at 192.168.1.7:6881</NewPortMappingDescription>` +
		`<NewLeaseDuration>3600</NewLeaseDuration></u:AddPortMapping></s:Body></s:Envelope>`

	goupnp = `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">` +
		`<s:Body><u:GetExternalIPAddress xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1"></u:GetExternalIPAddress></s:Body></s:Envelope>`

	goupnpDefault = xmlHead +
		`<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/" encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">` +
		`<Body xmlns="http://schemas.xmlsoap.org/soap/envelope/">` +
		`<DeletePortMapping xmlns="urn:schemas-upnp-org:service:WANIPConnection:1">` +
		`<NewRemoteHost></NewRemoteHost><NewExternalPort>8080</NewExternalPort><NewProtocol>TCP</NewProtocol>` +
		`</DeletePortMapping></Body></Envelope>`

	gupnp = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ` +
		`s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>` +
		`<u:GetGenericPortMappingEntry xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">` +
		`<NewPortMappingIndex>0</NewPortMappingIndex></u:GetGenericPortMappingEntry></s:Body></s:Envelope>`

	windows = `<?xml version="1.0"?>` + "\r\n" +
		`<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" ` +
		`SOAP-ENV:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><SOAP-ENV:Body>` +
		`<m:AddPortMapping xmlns:m="urn:schemas-upnp-org:service:WANIPConnection:1">` +
		`<NewRemoteHost xmlns:dt="urn:schemas-microsoft-com:datatypes" dt:dt="string"></NewRemoteHost>` +
		`<NewExternalPort xmlns:dt="urn:schemas-microsoft-com:datatypes" dt:dt="ui2">2869</NewExternalPort>` +
		`<NewProtocol xmlns:dt="urn:schemas-microsoft-com:datatypes" dt:dt="string">TCP</NewProtocol>` +
		`<NewEnabled xmlns:dt="urn:schemas-microsoft-com:datatypes" dt:dt="boolean">1</NewEnabled>` +
		`<NewPortMappingDescription xmlns:dt="urn:schemas-microsoft-com:datatypes" dt:dt="string">Teredo &lt;a &amp; b&gt;</NewPortMappingDescription>` +
		`</m:AddPortMapping></SOAP-ENV:Body></SOAP-ENV:Envelope>`

	console = `<?xml version="1.0" encoding="utf-8"?>` + "\r\n" +
		`<s:Envelope s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/" xmlns:s="http://schemas.xmlsoap.org/soap/envelope/">` + "\r\n" +
		"  <s:Body>\r\n    <u:AddPortMapping xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\">\r\n" +
		"      <NewRemoteHost />\r\n      <NewExternalPort>9308</NewExternalPort>\r\n      <NewProtocol>UDP</NewProtocol>\r\n" +
		"      <NewPortMappingDescription>192.168.1.7:9308 to 9308 (UDP)</NewPortMappingDescription>\r\n" +
		"    </u:AddPortMapping>\r\n  </s:Body>\r\n</s:Envelope>\r\n"

	queryStateVariable = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>` +
		`<u:QueryStateVariable xmlns:u="urn:schemas-upnp-org:control-1-0"><u:varName>ConnectionStatus</u:varName>` +
		`</u:QueryStateVariable></s:Body></s:Envelope>`

	xmlHead = `<?xml version="1.0"?>`
)

// Ends of a request of our own making; A is its action, in namespace n.
const (
	opening = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>`
	closing = `</s:Body></s:Envelope>`
)

// in returns a request whose action element contains inside.
func in(inside string) string {
	return opening + `<u:A xmlns:u="n">` + inside + `</u:A>` + closing
}

// calls are requests and what they say: "namespace action name=value...", or
// the error that refuses them. FuzzParseCall starts from the same rows.
var calls = []struct {
	name, body string
	want       string
	err        error
}{
	{"miniupnpc", miniupnpc, wip1 + " AddPortMapping|NewRemoteHost=|NewExternalPort=8080|NewProtocol=TCP|NewInternalPort=80|NewInternalClient=192.168.1.7|NewEnabled=1|NewPortMappingDescription=libminiupnpc|NewLeaseDuration=0", nil},
	{"libtorrent", libtorrent, wip1 + " AddPortMapping|NewRemoteHost=|NewExternalPort=6881|NewProtocol=UDP|NewInternalPort=6881|NewInternalClient=192.168.1.7|NewEnabled=1|NewPortMappingDescription=libtorrent at 192.168.1.7:6881|NewLeaseDuration=3600", nil},
	{"goupnp", goupnp, wip1 + " GetExternalIPAddress", nil},
	{"default namespace", goupnpDefault, wip1 + " DeletePortMapping|NewRemoteHost=|NewExternalPort=8080|NewProtocol=TCP", nil}, // SOAP-4
	{"gupnp", gupnp, wip1 + " GetGenericPortMappingEntry|NewPortMappingIndex=0", nil},
	{"Windows", windows, wip1 + " AddPortMapping|NewRemoteHost=|NewExternalPort=2869|NewProtocol=TCP|NewEnabled=1|NewPortMappingDescription=Teredo <a & b>", nil},
	{"console", console, wip1 + " AddPortMapping|NewRemoteHost=|NewExternalPort=9308|NewProtocol=UDP|NewPortMappingDescription=192.168.1.7:9308 to 9308 (UDP)", nil},
	{"QueryStateVariable", queryStateVariable, "urn:schemas-upnp-org:control-1-0 QueryStateVariable|varName=ConnectionStatus", nil}, // SOAP-12

	// SOAP-4
	{"prefix SOAP", strings.NewReplacer("<s:", "<SOAP:", "</s:", "</SOAP:", " s:", " SOAP:", ":s=", ":SOAP=").Replace(goupnp), wip1 + " GetExternalIPAddress", nil},
	{"undeclared action prefix", opening + `<u:A><b>1</b></u:A>` + closing, " A|b=1", nil},
	{"no namespace", opening + `<A><b>1</b></A>` + closing, " A|b=1", nil},
	{"default namespace taken back", `<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body><A xmlns=""/></Body></Envelope>`, " A", nil},
	{"envelope without namespace", `<Envelope><Body><A xmlns="n"/></Body></Envelope>`, "n A", nil},
	{"undeclared envelope prefix", `<s:Envelope><s:Body><A xmlns="n"/></s:Body></s:Envelope>`, "n A", nil},
	{"prefix declared outside", `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" xmlns:u="n"><s:Body xmlns:u="m"><u:A/></s:Body></s:Envelope>`, "m A", nil},
	{"declaration ends with its element", `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" xmlns:u="n"><s:Header><h xmlns:u="m"/></s:Header><s:Body><u:A/></s:Body></s:Envelope>`, "n A", nil},
	{"prefix xml", opening + `<xml:A/>` + closing, "http://www.w3.org/XML/1998/namespace A", nil},
	{"header", `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header><t s:mustUnderstand="0"><x>1<y/>2</x></t></s:Header><s:Body><A/></s:Body></s:Envelope>`, " A", nil},
	{"empty header", `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header/><s:Body><A/></s:Body></s:Envelope>`, " A", nil},
	{"header must be understood", `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header><t s:mustUnderstand="1"/></s:Header><s:Body><A/></s:Body></s:Envelope>`, "", ErrUnsupported},
	{"second header must be understood", `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header><t/><t s:mustUnderstand=" true "/></s:Header><s:Body><A/></s:Body></s:Envelope>`, "", ErrUnsupported},

	// SOAP-6: values
	{"blanks stay", in("<b> \t1\n</b>"), "n A|b= \t1\n", nil},
	{"line ends", in("<b>1\r\n2\r3\n\r4</b>"), "n A|b=1\n2\n3\n\n4", nil},
	{"entities", in("<b>&lt;&gt;&amp;&apos;&quot;</b>"), "n A|b=<>&'\"", nil},
	{"character references", in("<b>&#65;&#x42;&#x0043;&#xD;&#128512;</b>"), "n A|b=ABC\r\U0001f600", nil},
	{"reference is not read twice", in("<b>&amp;lt;&#38;lt;</b>"), "n A|b=&lt;&lt;", nil},
	{"CR and a referenced LF", in("<b>\r&#10;&#13;\n</b>"), "n A|b=\n\n\r\n", nil},
	{"CDATA", in("<b>a<![CDATA[<c>&amp;]]\r\n]]>d<![CDATA[]]></b>"), "n A|b=a<c>&amp;]]\nd", nil},
	{"comments and instructions in a value", in("<b>1<!-- 2 -->3<?p 4?>5</b>"), "n A|b=135", nil},
	{"UTF-8", in("<b>é\u20ac\U0001f600\ufffd</b>"), "n A|b=é€\U0001f600\ufffd", nil},
	{"brackets", in("<b>]] > ]&#93;> ]]&gt;</b>"), "n A|b=]] > ]]> ]]>", nil},
	{"argument with prefix", in("<u:b>1</u:b>"), "n A|b=1", nil},
	{"empty argument", in("<b/><c></c>"), "n A|b=|c=", nil},
	{"attributes with anything", in(`<b a='">' b=">'" c = "&lt;]]>"  d="1" u:d="2">1</b >`), "n A|b=1", nil},
	{"largest number of arguments", in(manyArgs(64)), "n A|" + strings.Join(manyPairs(64), "|"), nil},

	{"spaces and comments around", "\ufeff \r\n<?xml version='1.0' encoding='Utf-8' standalone=\"yes\" ?><!-- - -><!DOCTYPE --><?pi?>\n" + in("") + "\n<!----><?pi x??>\n", "n A", nil},
	{"declaration after a blank line", "\r\n" + xmlHead + in(""), "n A", nil},

	{"element inside an argument", in("<b>1<c/></b>"), "", ErrEnvelope},
	{"argument twice", in("<b>1</b><c/><b>1</b>"), "", ErrEnvelope},
	{"argument twice, other prefix", in("<b>1</b><u:b>1</u:b>"), "", ErrEnvelope},
	{"65 arguments", in(manyArgs(65)), "", ErrUnsupported},
	{"text between arguments", in("<b/>x<c/>"), "", ErrEnvelope},
	{"CDATA between arguments", in("<b/><![CDATA[ ]]><c/>"), "", ErrEnvelope},
	{"text in the body", opening + "x<A/>" + closing, "", ErrEnvelope},
	{"two actions", opening + "<A/><B/>" + closing, "", ErrEnvelope},
	{"no action", opening + closing, "", ErrEnvelope},
	{"no body", `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"/>`, "", ErrEnvelope},
	{"two bodies", `<Envelope><Body><A/></Body><Body/></Envelope>`, "", ErrEnvelope},
	{"header after the body", `<Envelope><Body><A/></Body><Header/></Envelope>`, "", ErrEnvelope},
	{"SOAP 1.2", `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><A/></s:Body></s:Envelope>`, "", ErrEnvelope},
	{"body of another namespace", `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><Body xmlns="n"><A/></Body></s:Envelope>`, "", ErrEnvelope},
	{"another root", `<a/>`, "", ErrEnvelope},

	// SOAP-8
	{"DTD", `<!DOCTYPE a [<!ENTITY b "c">]>` + in(""), "", ErrUnsupported},
	{"declaration inside", in(`<!ELEMENT a ANY>`), "", ErrUnsupported},
	{"entity of a DTD", in("<b>&c;</b>"), "", ErrSyntax},
	{"ISO-8859-1", `<?xml version="1.0" encoding="ISO-8859-1"?>` + in(""), "", ErrUnsupported},
	{"US-ASCII", `<?xml version="1.0" encoding="US-ASCII"?>` + in(""), "", ErrUnsupported},
	{"XML 1.1", `<?xml version="1.1"?>` + in(""), "", ErrUnsupported},
	{"UTF-16", "\xfe\xff\x00<\x00a\x00/\x00>", "", ErrSyntax},
	{"deep", opening + strings.Repeat("<a>", 31) + strings.Repeat("</a>", 31) + closing, "", ErrEnvelope},
	{"too deep in a header", `<Envelope><Header>` + strings.Repeat("<a>", 31) + strings.Repeat("</a>", 31) + `</Header><Body><A/></Body></Envelope>`, "", ErrUnsupported},
	{"deepest in a header", `<Envelope><Header>` + strings.Repeat("<a>", 30) + strings.Repeat("</a>", 30) + `</Header><Body><A/></Body></Envelope>`, " A", nil},
	{"many attributes", in("<b" + manyAttrs(65, " a%=''") + "/>"), "", ErrUnsupported},
	{"many namespaces", in("<b" + manyAttrs(40, " xmlns:a%=''") + "/><c" + manyAttrs(60, " xmlns:a%=''") + "/>"), "n A|b=|c=", nil},
	{"too many namespaces", in("<b" + manyAttrs(64, " xmlns:a%=''") + "/>"), "", ErrUnsupported},

	{"empty", "", "", ErrSyntax},
	{"blank", " \n", "", ErrSyntax},
	{"text", "hello", "", ErrSyntax},
	{"byte order mark only", "\ufeff", "", ErrSyntax},
	{"two byte order marks", "\ufeff\ufeff" + in(""), "", ErrSyntax},
	{"text before", "x" + in(""), "", ErrSyntax},
	{"text after", in("") + "x", "", ErrSyntax},
	{"NUL after", in("") + "\x00", "", ErrSyntax},
	{"reference after", in("") + "&#32;", "", ErrSyntax},
	{"CDATA after", in("") + "<![CDATA[]]>", "", ErrSyntax},
	{"second root", in("") + "<a/>", "", ErrSyntax},
	{"truncated", strings.TrimSuffix(in(""), ">"), "", ErrSyntax},
	{"end missing", strings.TrimSuffix(in(""), "</s:Envelope>"), "", ErrSyntax},
	{"end tag too many", in("") + "</a>", "", ErrSyntax},
	{"tags crossed", in("<b><c></b></c>"), "", ErrEnvelope},
	{"tag closed by another", in("<b></c>"), "", ErrSyntax},
	{"tag closed in another case", in("<b></B>"), "", ErrSyntax},
	{"tag closed by another prefix of the same namespace", in(`<x:b xmlns:x="n"></u:b>`), "", ErrSyntax},
	{"end tag with an attribute", in(`<b></b a="">`), "", ErrSyntax},
	{"blank before a name", in("< b/>"), "", ErrSyntax},
	{"blank in an empty tag", in("<b/ >"), "", ErrSyntax},
	{"name begins with a digit", in("<1/>"), "", ErrSyntax},
	{"name begins with a dot", in("<.a/>"), "", ErrSyntax},
	{"name with a colon in front", in("<:a/>"), "", ErrSyntax},
	{"name with a colon behind", in("<a:/>"), "", ErrSyntax},
	{"name with two colons", in("<a:b:c/>"), "", ErrSyntax},
	{"local name begins with a digit", in("<a:1/>"), "", ErrSyntax},
	{"name outside ASCII", in("<é/>"), "", ErrSyntax},
	{"prefix xmlns", in("<xmlns:a/>"), "", ErrSyntax},
	{"prefix xml declared", in(`<a xmlns:xml="n"/>`), "", ErrSyntax},
	{"attribute without value", in("<b a/>"), "", ErrSyntax},
	{"attribute without quotes", in("<b a=1/>"), "", ErrSyntax},
	{"attribute without end", in(`<b a="1/>`), "", ErrSyntax},
	{"attribute with <", in(`<b a="<"/>`), "", ErrSyntax},
	{"attribute with an unknown reference", in(`<b a="&c;"/>`), "", ErrSyntax},
	{"attribute twice", in(`<b a="1" a="1"/>`), "", ErrSyntax},
	{"attributes without a blank", in(`<b a="1"c="1"/>`), "", ErrSyntax},
	{"ampersand", in("<b>a & b</b>"), "", ErrSyntax},
	{"reference without semicolon", in("<b>&lt</b>"), "", ErrSyntax},
	{"reference across a tag", in("<b>&lt</b><c>;</c>"), "", ErrSyntax},
	{"empty reference", in("<b>&;</b>"), "", ErrSyntax},
	{"reference to no number", in("<b>&#;</b>"), "", ErrSyntax},
	{"hexadecimal reference with X", in("<b>&#X41;</b>"), "", ErrSyntax},
	{"signed reference", in("<b>&#+65;</b>"), "", ErrSyntax},
	{"reference to NUL", in("<b>&#0;</b>"), "", ErrSyntax},
	{"reference to a surrogate", in("<b>&#xD800;</b>"), "", ErrSyntax},
	{"reference to U+FFFE", in("<b>&#xFFFE;</b>"), "", ErrSyntax},
	{"reference beyond Unicode", in("<b>&#x110000;</b>"), "", ErrSyntax},
	{"reference beyond 64 bits", in("<b>&#18446744073709551681;</b>"), "", ErrSyntax},
	{"]]> in text", in("<b>]]></b>"), "", ErrSyntax},
	{"control character", in("<b>\x01</b>"), "", ErrSyntax},
	{"invalid UTF-8", in("<b>\xff</b>"), "", ErrSyntax},
	{"surrogate in UTF-8", in("<b>\xed\xa0\x80</b>"), "", ErrSyntax},
	{"overlong UTF-8", in("<b>\xc0\xbc</b>"), "", ErrSyntax},
	{"-- in a comment", in("<!-- a -- b -->"), "", ErrSyntax},
	{"comment ends in --->", in("<!-- a --->"), "", ErrSyntax},
	{"comment too short", in("<!-->"), "", ErrSyntax},
	{"comment without end", in("<!-- a"), "", ErrSyntax},
	{"half a comment", in("<!- a -->"), "", ErrUnsupported},
	{"CDATA without end", in("<b><![CDATA[</b>"), "", ErrSyntax},
	{"CDATA in lower case", in("<b><![cdata[]]></b>"), "", ErrUnsupported},
	{"instruction without name", in("<? a?>"), "", ErrSyntax},
	{"instruction without end", in("<?a>"), "", ErrSyntax},
	{"instruction without blank", in("<?a>?>"), "", ErrSyntax},
	{"declaration later", "<!-- -->" + xmlHead + in(""), "", ErrSyntax},
	{"declaration inside the root", in(xmlHead), "", ErrSyntax},
	{"declaration in upper case", `<?XML version="1.0"?>` + in(""), "", ErrSyntax},
	{"declaration without version", `<?xml encoding="utf-8"?>` + in(""), "", ErrSyntax},
	{"declaration with something else", `<?xml version="1.0" a="b"?>` + in(""), "", ErrUnsupported},
	{"encoding as a reference", `<?xml version="1.0" encoding="utf&#45;8"?>` + in(""), "", ErrSyntax},
}

func manyArgs(n int) string {
	var b strings.Builder
	for _, name := range manyNames(n) {
		b.WriteString("<" + name + "/>")
	}
	return b.String()
}

func manyPairs(n int) []string {
	names := manyNames(n)
	for i := range names {
		names[i] += "="
	}
	return names
}

func manyNames(n int) []string {
	var names []string
	for i := range n {
		names = append(names, "a"+string(rune('a'+i/8))+string(rune('a'+i%8)))
	}
	return names
}

// manyAttrs repeats the attribute with another name in the place of %.
func manyAttrs(n int, attr string) string {
	var b strings.Builder
	for _, name := range manyNames(n) {
		b.WriteString(strings.Replace(attr, "%", name, 1))
	}
	return b.String()
}
