package soap

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds of one document. The first two keep the work linear in its length.
const (
	maxAttrs    = 64 // on one element
	maxBindings = 64 // namespace declarations in force
	maxDepth    = 32 // elements open (SOAP-8)
)

// xmlNS is bound to the prefix xml (Namespaces in XML 1.0 section 3).
const xmlNS = "http://www.w3.org/XML/1998/namespace"

type kind int

const (
	kindStart kind = iota
	kindEnd
	kindText
	kindEOF
)

// A token is one start tag, end tag or run of text. An empty element tag
// gives a start and an end.
type token struct {
	kind    kind
	element element // of kindStart
	text    string  // of kindText, decoded
	cdata   bool    // the text comes from a CDATA section
}

type element struct {
	space string // namespace, "" for none or an undeclared prefix
	local string
	attrs []attr
}

type attr struct {
	prefix, local, value string
}

type binding struct {
	prefix, uri string
}

type openElement struct {
	name     string // as written
	bindings int    // in force outside
}

// A scanner reads one document from front to back and holds all that is
// well-formedness: matched tags, one root, nothing around it.
type scanner struct {
	in       []byte
	pos      int
	open     []openElement
	bindings []binding
	empty    bool // an empty element tag was read, its end is due
	markup   bool // a tag, comment or processing instruction was read
	rooted   bool // the root was opened
}

// newScanner strips the byte order mark and checks every character
// (XML 1.0 section 2.2), so that the rest need not.
func newScanner(in []byte) (*scanner, error) {
	in = bytes.TrimPrefix(in, []byte("\ufeff"))
	for i := 0; i < len(in); {
		r, size := utf8.DecodeRune(in[i:])
		if r == utf8.RuneError && size == 1 {
			return nil, syntaxf("invalid UTF-8")
		}
		if !isChar(r) {
			return nil, syntaxf("forbidden character %U", r)
		}
		i += size
	}
	return &scanner{in: in}, nil
}

func syntaxf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSyntax, fmt.Sprintf(format, args...))
}

// next returns the next token; comments and processing instructions are
// checked and skipped.
func (s *scanner) next() (token, error) {
	for {
		if s.empty {
			s.empty = false
			s.close()
			return token{kind: kindEnd}, nil
		}
		rest := s.in[s.pos:]
		switch {
		case len(rest) == 0:
			return s.endOfInput()
		case rest[0] != '<':
			return s.text()
		}
		first := !s.markup
		s.markup, rest = true, rest[1:]
		s.pos++
		switch {
		case bytes.HasPrefix(rest, []byte("/")):
			return s.endTag()
		case bytes.HasPrefix(rest, []byte("![CDATA[")):
			return s.cdata()
		case bytes.HasPrefix(rest, []byte("!--")):
			if err := s.comment(); err != nil {
				return token{}, err
			}
		case bytes.HasPrefix(rest, []byte("!")):
			return token{}, fmt.Errorf("%w: document type declaration", ErrUnsupported)
		case bytes.HasPrefix(rest, []byte("?")):
			if err := s.instruction(first); err != nil {
				return token{}, err
			}
		default:
			return s.startTag()
		}
	}
}

func (s *scanner) endOfInput() (token, error) {
	if !s.rooted || len(s.open) > 0 {
		return token{}, syntaxf("unexpected end")
	}
	return token{kind: kindEOF}, nil
}

// until returns what stands before the next end and reads past it.
func (s *scanner) until(end string) (string, bool) {
	i := bytes.Index(s.in[s.pos:], []byte(end))
	if i < 0 {
		return "", false
	}
	found := string(s.in[s.pos : s.pos+i])
	s.pos += i + len(end)
	return found, true
}

func (s *scanner) text() (token, error) {
	raw := s.in[s.pos:]
	if i := bytes.IndexByte(raw, '<'); i >= 0 {
		raw = raw[:i]
	}
	s.pos += len(raw)
	if bytes.Contains(raw, []byte("]]>")) {
		return token{}, syntaxf("]]> in text")
	}
	if len(s.open) == 0 && !isBlank(string(raw)) {
		return token{}, syntaxf("text outside the root")
	}
	text, err := decode(string(raw))
	return token{kind: kindText, text: text}, err
}

// cdata reads a CDATA section (XML 1.0 section 2.7); its line ends are
// normalised, nothing else in it is.
func (s *scanner) cdata() (token, error) {
	s.pos += len("![CDATA[")
	raw, ok := s.until("]]>")
	if !ok {
		return token{}, syntaxf("CDATA section without end")
	}
	if len(s.open) == 0 {
		return token{}, syntaxf("CDATA section outside the root")
	}
	return token{kind: kindText, text: normalise(raw), cdata: true}, nil
}

// comment reads a comment; "--" may stand in it only at its end.
func (s *scanner) comment() error {
	s.pos += len("!--")
	if _, ok := s.until("--"); !ok {
		return syntaxf("comment without end")
	}
	if !s.take(">") {
		return syntaxf("-- in a comment")
	}
	return nil
}

// take reads past want if it is next.
func (s *scanner) take(want string) bool {
	if bytes.HasPrefix(s.in[s.pos:], []byte(want)) {
		s.pos += len(want)
		return true
	}
	return false
}

// blanks reads past white space and reports whether there was any.
func (s *scanner) blanks() bool {
	start := s.pos
	for s.pos < len(s.in) && isBlankByte(s.in[s.pos]) {
		s.pos++
	}
	return s.pos > start
}

func isBlankByte(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func isBlank(s string) bool { return strings.Trim(s, " \t\r\n") == "" }

// child returns the next element inside the open one; ok is false where the
// open one, or the document, ends. Only white space may stand between
// elements.
func (s *scanner) child() (el element, ok bool, err error) {
	for {
		t, err := s.next()
		if err != nil {
			return element{}, false, err
		}
		switch {
		case t.kind == kindStart:
			return t.element, true, nil
		case t.kind == kindEnd, t.kind == kindEOF:
			return element{}, false, nil
		case t.cdata || !isBlank(t.text):
			return element{}, false, fmt.Errorf("%w: text between elements", ErrEnvelope)
		}
	}
}

// value returns the text of the open element, to its end.
func (s *scanner) value() (string, error) {
	var b strings.Builder
	for {
		t, err := s.next()
		if err != nil {
			return "", err
		}
		switch t.kind {
		case kindEnd:
			return b.String(), nil
		case kindText:
			b.WriteString(t.text)
		default:
			return "", fmt.Errorf("%w: an element inside an argument", ErrEnvelope)
		}
	}
}

// skip reads to the end of the open element.
func (s *scanner) skip() error {
	for depth := len(s.open); len(s.open) >= depth; {
		if _, err := s.next(); err != nil {
			return err
		}
	}
	return nil
}
