package soap

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	prolog = `<?xml version="1.0"?>` + "\r\n" +
		`<s:Envelope xmlns:s="` + envelopeNS + `"` +
		` s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>`
	epilog = `</s:Body></s:Envelope>` + "\r\n"
	// maxDescription bounds errorDescription, in characters (SOAP-10).
	maxDescription = 255
)

// AppendResponse appends the envelope that answers an action with its
// out-arguments, in their order in args and without namespace (SOAP-9).
// namespace is the one that the caller used (SOAP-3). action and the names of
// the arguments are XML names, the values any text, those with XML set a well-formed document.
//
// The answer to QueryStateVariable is a response as well: namespace
// urn:schemas-upnp-org:control-1-0 and the one argument "return" (SOAP-12).
func AppendResponse(dst []byte, namespace, action string, args []Arg) []byte {
	dst = append(dst, prolog+"<u:"...)
	dst = append(dst, action...)
	dst = append(dst, `Response xmlns:u="`...)
	dst = AppendEscaped(dst, namespace)
	dst = append(dst, `">`...)
	for _, a := range args {
		dst = append(dst, '<')
		dst = append(dst, a.Name...)
		dst = append(dst, '>')
		if a.XML && !strings.Contains(a.Value, "]]>") {
			dst = append(append(append(dst, "<![CDATA["...), a.Value...), "]]>"...)
		} else {
			dst = AppendEscaped(dst, a.Value)
		}
		dst = append(dst, "</"...)
		dst = append(dst, a.Name...)
		dst = append(dst, '>')
	}
	dst = append(dst, "</u:"...)
	dst = append(dst, action...)
	return append(dst, "Response>"+epilog...)
}

// AppendFault appends the envelope of a UPnPError (SOAP-10); it goes with
// HTTP status 500. A description over 255 characters is cut.
func AppendFault(dst []byte, code int, description string) []byte {
	dst = append(dst, prolog+
		"<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>"+
		`<detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>`...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = append(dst, "</errorCode><errorDescription>"...)
	dst = AppendEscaped(dst, firstRunes(description, maxDescription))
	return append(dst, "</errorDescription></UPnPError></detail></s:Fault>"+epilog...)
}

func firstRunes(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// AppendEscaped appends s so that it stands for itself in XML text and in
// quoted attribute values. What XML 1.0 cannot carry (control characters,
// invalid UTF-8, U+FFFE, U+FFFF) becomes U+FFFD.
func AppendEscaped(dst []byte, s string) []byte {
	for _, r := range s {
		switch r {
		case '&':
			dst = append(dst, "&amp;"...)
		case '<':
			dst = append(dst, "&lt;"...)
		case '>':
			dst = append(dst, "&gt;"...)
		case '"':
			dst = append(dst, "&quot;"...)
		case '\'':
			dst = append(dst, "&apos;"...)
		case '\t', '\n', '\r': // attribute values and line ends are normalised
			dst = append(dst, "&#"...)
			dst = strconv.AppendInt(dst, int64(r), 10)
			dst = append(dst, ';')
		default:
			if !isChar(r) {
				r = utf8.RuneError
			}
			dst = utf8.AppendRune(dst, r)
		}
	}
	return dst
}
