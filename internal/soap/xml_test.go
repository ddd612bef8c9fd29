package soap

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// laxer lists the errors on input that encoding/xml may accept although
// XML 1.0 and its namespaces do not, and on what this reader leaves out.
var laxer = []string{
	"invalid UTF-8", // in comments and instructions
	"forbidden character",
	"name ", // outside ASCII; empty on one side of the colon
	"processing instruction \"",
	"no blank",
	"comes twice",
	"text outside the root",
	"CDATA section outside the root",
	"a second root",
	"unexpected end", // no root at all
	"prefix xmlns",
	"reserved prefix",
	"XML declaration",
	"reference to an unknown character", // surrogates
}

func show(c Call) string {
	var b strings.Builder
	b.WriteString(c.Namespace + " " + c.Action)
	for _, a := range c.Args {
		b.WriteString("|" + a.Name + "=" + a.Value)
	}
	return b.String()
}

func TestParseCall(t *testing.T) {
	for _, tt := range calls {
		t.Run(tt.name, func(t *testing.T) {
			call, err := ParseCall([]byte(tt.body))
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Fatalf("got %+v, %v; want error %v", call, err, tt.err)
			}
			if err == nil && show(call) != tt.want {
				t.Errorf("got\n%s\nwant\n%s", show(call), tt.want)
			}
			compare(t, []byte(tt.body))
		})
	}
}

// compare parses body here and with encoding/xml. What that refuses we must
// refuse, what we accept must have the same meaning there, and what we call
// no XML it must refuse too, but for the list above.
func compare(t *testing.T, body []byte) {
	t.Helper()
	call, err := ParseCall(body)
	theirs, xmlErr := walk(body)
	switch {
	case err == nil && xmlErr != nil:
		t.Fatalf("%q: accepted, encoding/xml: %v", body, xmlErr)
	case err == nil && show(call) != show(theirs):
		t.Fatalf("%q:\ngot  %q\nwant %q", body, show(call), show(theirs))
	case errors.Is(err, ErrSyntax) && xmlErr == nil:
		for _, reason := range laxer {
			if strings.Contains(err.Error(), reason) {
				return
			}
		}
		t.Fatalf("%q: %v, but encoding/xml accepts it", body, err)
	case err != nil && !errors.Is(err, ErrSyntax) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrEnvelope):
		t.Fatalf("%q: error of no kind: %v", body, err)
	}
}

// walk reads body to its end with encoding/xml and returns the first element
// of depth 3 outside a Header, as the action, and the elements in it.
func walk(body []byte) (Call, error) {
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	d, raw := xml.NewDecoder(bytes.NewReader(body)), xml.NewDecoder(bytes.NewReader(body))
	var (
		call     Call
		declared []xml.StartElement // what is open, as written
		header   bool
	)
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return call, nil
		}
		if err != nil {
			return Call{}, err
		}
		written, err := raw.RawToken()
		if err != nil {
			return Call{}, fmt.Errorf("RawToken where Token succeeds: %w", err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			declared = append(declared, written.(xml.StartElement).Copy())
			switch {
			case len(declared) == 2:
				header = tok.Name.Local == "Header"
			case len(declared) == 3 && !header && call.Action == "":
				call.Namespace, call.Action = tok.Name.Space, tok.Name.Local
				if !isDeclared(declared) {
					call.Namespace = "" // encoding/xml says the prefix
				}
			case len(declared) == 4 && !header:
				call.Args = append(call.Args, Arg{Name: tok.Name.Local})
			}
		case xml.EndElement:
			declared = declared[:len(declared)-1]
		case xml.CharData:
			if len(declared) == 4 && !header && len(call.Args) > 0 {
				call.Args[len(call.Args)-1].Value += string(tok)
			}
		}
	}
}

// isDeclared reports whether the prefix of the innermost element is.
func isDeclared(open []xml.StartElement) bool {
	prefix := open[len(open)-1].Name.Space
	if prefix == "" || prefix == "xml" {
		return true
	}
	for _, el := range open {
		for _, a := range el.Attr {
			if a.Name.Space == "xmlns" && a.Name.Local == prefix {
				return true
			}
		}
	}
	return false
}

func FuzzParseCall(f *testing.F) {
	for _, tt := range calls {
		f.Add([]byte(tt.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) { compare(t, body) })
}

// FuzzValue puts the input where it matters most: the text of an argument.
func FuzzValue(f *testing.F) {
	for _, s := range []string{"a", " ", "&lt;", "&#13;\r\n", "<![CDATA[a]]>", "]]>", "<!--a-->", "<?a b?>", "\r\r\n", "&#x10ffff;", "\ufffe"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { compare(t, []byte(in("<b>"+s+"</b>"))) })
}

// FuzzTag puts it into a tag.
func FuzzTag(f *testing.F) {
	for _, s := range []string{"b", "b a='c'", `b xmlns:u="m"`, "b a=\"&quot;\"\n", "b:c", "u:b", "é", "b a='>'", "b a = 'c'b='c'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		compare(t, []byte(in("<"+s+"/>")))
		compare(t, []byte(in("<"+s+">x</b>")))
		compare(t, []byte(opening+"<"+s+"/>"+closing))
	})
}

// FuzzDeclaration puts it into the XML declaration.
func FuzzDeclaration(f *testing.F) {
	for _, s := range []string{`version="1.0"`, `version='1.0' encoding='utf-8'`, `version="1.0" standalone="no"`,
		`version = "1.1"`, `version="1.0" encoding="latin1"`, `encoding="x" version="1.0"`, `version="1.0" encoding=" utf-8"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { compare(t, []byte("<?xml "+s+"?>"+in(""))) })
}

// FuzzAppend: what is written is read back the same, here and by
// encoding/xml, but for characters that XML cannot carry.
func FuzzAppend(f *testing.F) {
	f.Add("urn:schemas-upnp-org:service:WANIPConnection:1", "a<b>&\"c\"'\t\r\n")
	f.Add("\x00", "\xff\ufffe]]>")
	f.Add("", "")
	f.Add("urn:x", strings.Repeat("é", 256))
	clean := func(s string) string {
		return strings.Map(func(r rune) rune {
			if !isChar(r) {
				return '\ufffd'
			}
			return r
		}, s)
	}
	f.Fuzz(func(t *testing.T, namespace, value string) {
		out := AppendResponse(nil, namespace, "A", []Arg{{Name: "b", Value: value}, {Name: "c", Value: "d"}})
		want := show(Call{clean(namespace), "AResponse", []Arg{{Name: "b", Value: clean(value)}, {Name: "c", Value: "d"}}})
		compare(t, out)
		if call, err := ParseCall(out); err != nil || show(call) != want {
			t.Fatalf("got %q, %v, want %q", show(call), err, want)
		}
		var fault struct {
			Code        int    `xml:"Body>Fault>detail>UPnPError>errorCode"`
			Description string `xml:"Body>Fault>detail>UPnPError>errorDescription"`
		}
		out = AppendFault(nil, 501, value)
		if err := xml.Unmarshal(out, &fault); err != nil || fault.Code != 501 || fault.Description != clean(firstRunes(value, 255)) {
			t.Fatalf("%q: got %+v, %v", out, fault, err)
		}
	})
}

// TestMutations changes real requests in random places and ways, the same
// ones in every run.
func TestMutations(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"<", ">", "&", ";", "\"", "'", "/", "=", ":", " ", "\r", "\n", "]]>", "<!--", "-->", "--", "<![CDATA[", "<?", "?>",
		"<!DOCTYPE a>", "&lt;", "&#13;", "xmlns", "xmlns=''", "xmlns:u='m'", "u:", "s:", "\x00", "\xff", "é", "<b>", "</b>", "<b/>", "\ufeff", "1", "-"}
	const rounds = 12000
	accepted := 0
	for i := range rounds {
		row := calls[i%8]
		body := []byte(row.body)
		for range 1 + rng.IntN(2) {
			at := rng.IntN(len(body))
			end := min(len(body), at+rng.IntN(4))
			switch rng.IntN(4) {
			case 0: // remove
				body = append(body[:at:at], body[end:]...)
			case 1: // insert
				body = []byte(string(body[:at]) + pieces[rng.IntN(len(pieces))] + string(body[at:]))
			case 2: // replace
				body = []byte(string(body[:at]) + pieces[rng.IntN(len(pieces))] + string(body[end:]))
			case 3: // move
				to := rng.IntN(len(body))
				body[at], body[to] = body[to], body[at]
			}
		}
		if _, err := ParseCall(body); err == nil {
			accepted++
		}
		compare(t, body)
	}
	if accepted < rounds/40 || accepted > rounds*39/40 {
		t.Errorf("%d of %d were accepted: the mutations say little", accepted, rounds)
	}
}
