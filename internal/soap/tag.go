package soap

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// startTag reads a start tag or an empty element tag, after its '<'.
func (s *scanner) startTag() (token, error) {
	if s.rooted && len(s.open) == 0 {
		return token{}, syntaxf("a second root")
	}
	if len(s.open) == maxDepth {
		return token{}, fmt.Errorf("%w: deeper than %d elements", ErrUnsupported, maxDepth)
	}
	start := s.pos
	prefix, local, err := s.qname()
	if err != nil {
		return token{}, err
	}
	name := string(s.in[start:s.pos])
	if prefix == "xmlns" {
		return token{}, syntaxf("element with the prefix xmlns")
	}
	attrs, err := s.attributes()
	if err != nil {
		return token{}, err
	}
	s.empty = s.take("/")
	if !s.take(">") {
		return token{}, syntaxf("tag %s without end", name)
	}
	s.rooted = true
	s.open = append(s.open, openElement{name, len(s.bindings)})
	if err := s.bind(attrs); err != nil {
		return token{}, err
	}
	return token{kind: kindStart, element: element{s.namespace(prefix), local, attrs}}, nil
}

// endTag reads an end tag, after its '<'.
func (s *scanner) endTag() (token, error) {
	s.pos += len("/")
	start := s.pos
	if _, _, err := s.qname(); err != nil {
		return token{}, err
	}
	name := string(s.in[start:s.pos])
	s.blanks()
	if !s.take(">") {
		return token{}, syntaxf("tag /%s without end", name)
	}
	if len(s.open) == 0 || s.open[len(s.open)-1].name != name {
		return token{}, syntaxf("/%s closes another element", name)
	}
	s.close()
	return token{kind: kindEnd}, nil
}

// close ends the innermost element and its namespace declarations.
func (s *scanner) close() {
	last := len(s.open) - 1
	s.bindings = s.bindings[:s.open[last].bindings]
	s.open = s.open[:last]
}

// bind puts the namespace declarations among attrs in force.
func (s *scanner) bind(attrs []attr) error {
	for _, a := range attrs {
		switch {
		case a.prefix == "" && a.local == "xmlns":
			s.bindings = append(s.bindings, binding{"", a.value})
		case a.prefix == "xmlns" && (a.local == "xml" || a.local == "xmlns"):
			return syntaxf("reserved prefix %s declared", a.local)
		case a.prefix == "xmlns":
			s.bindings = append(s.bindings, binding{a.local, a.value})
		}
	}
	if len(s.bindings) > maxBindings {
		return fmt.Errorf("%w: more than %d namespace declarations", ErrUnsupported, maxBindings)
	}
	return nil
}

// namespace returns what the prefix of an element stands for.
func (s *scanner) namespace(prefix string) string {
	if prefix == "xml" {
		return xmlNS
	}
	for i := len(s.bindings) - 1; i >= 0; i-- {
		if s.bindings[i].prefix == prefix {
			return s.bindings[i].uri
		}
	}
	return ""
}

// qname reads a name with at most one prefix (Namespaces in XML section 4).
func (s *scanner) qname() (prefix, local string, err error) {
	name := s.name()
	prefix, local, ok := strings.Cut(name, ":")
	if !ok {
		prefix, local = "", name
	} else if !isNCName(prefix) {
		return "", "", syntaxf("name %q", name)
	}
	if !isNCName(local) {
		return "", "", syntaxf("name %q", name)
	}
	return prefix, local, nil
}

// name reads the longest run of bytes that names are made of, and of bytes
// outside ASCII, which isNCName refuses: no UPnP name has them.
func (s *scanner) name() string {
	start := s.pos
	for s.pos < len(s.in) && (isNameByte(s.in[s.pos]) || s.in[s.pos] >= utf8.RuneSelf) {
		s.pos++
	}
	return string(s.in[start:s.pos])
}

func isNameByte(c byte) bool {
	return isNameStart(c) || '0' <= c && c <= '9' || c == '-' || c == '.' || c == ':'
}

func isNameStart(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
}

func isNCName(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isNameByte(s[i]) || s[i] == ':' {
			return false
		}
	}
	return s != "" && isNameStart(s[0])
}

// attributes reads the attributes of a tag, up to the byte that ends them,
// which stays unread.
func (s *scanner) attributes() ([]attr, error) {
	var attrs []attr
	for {
		blank := s.blanks()
		if s.pos == len(s.in) || strings.IndexByte("/>?", s.in[s.pos]) >= 0 {
			return attrs, nil
		}
		if !blank {
			return nil, syntaxf("no blank before an attribute")
		}
		a, err := s.attribute()
		if err != nil {
			return nil, err
		}
		for _, b := range attrs {
			if a.prefix == b.prefix && a.local == b.local {
				return nil, syntaxf("attribute %s comes twice", a.local)
			}
		}
		if len(attrs) == maxAttrs {
			return nil, fmt.Errorf("%w: more than %d attributes", ErrUnsupported, maxAttrs)
		}
		attrs = append(attrs, a)
	}
}

func (s *scanner) attribute() (attr, error) {
	prefix, local, err := s.qname()
	if err != nil {
		return attr{}, err
	}
	s.blanks()
	if !s.take("=") {
		return attr{}, syntaxf("attribute %s without value", local)
	}
	s.blanks()
	quote := ""
	switch {
	case s.take(`"`):
		quote = `"`
	case s.take(`'`):
		quote = `'`
	default:
		return attr{}, syntaxf("attribute %s without quotes", local)
	}
	raw, ok := s.until(quote)
	if !ok || strings.Contains(raw, "<") {
		return attr{}, syntaxf("value of attribute %s without end", local)
	}
	value, err := decode(raw)
	return attr{prefix, local, value}, err
}

// instruction reads a processing instruction, after its '<', and has no use
// for any but the XML declaration, which must be the first markup.
func (s *scanner) instruction(first bool) error {
	s.pos += len("?")
	target := s.name()
	if !isNCName(target) {
		return syntaxf("processing instruction %q", target)
	}
	blank := s.blanks()
	content, ok := s.until("?>")
	if !ok {
		return syntaxf("processing instruction without end")
	}
	if !blank && content != "" {
		return syntaxf("no blank after the target of a processing instruction")
	}
	if !strings.EqualFold(target, "xml") {
		return nil
	}
	if target != "xml" || !first {
		return syntaxf("XML declaration after the start")
	}
	return declaration(content)
}

// declaration checks the XML declaration: version 1.0, in UTF-8 (SOAP-8).
func declaration(content string) error {
	if strings.Contains(content, "&") {
		return syntaxf("reference in the XML declaration")
	}
	s := &scanner{in: []byte(" " + content)}
	attrs, err := s.attributes()
	if err != nil {
		return fmt.Errorf("XML declaration: %w", err)
	}
	if s.pos != len(s.in) || len(attrs) == 0 || attrs[0].local != "version" {
		return syntaxf("XML declaration")
	}
	for _, a := range attrs {
		switch {
		case a.prefix != "":
			return syntaxf("%s:%s in the XML declaration", a.prefix, a.local)
		case a.local == "version" && a.value == "1.0":
		case a.local == "encoding" && strings.EqualFold(a.value, "utf-8"):
		case a.local == "standalone" && (a.value == "yes" || a.value == "no"):
		default:
			return fmt.Errorf("%w: %s %q", ErrUnsupported, a.local, a.value)
		}
	}
	return nil
}
