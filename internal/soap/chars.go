package soap

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// isChar reports the production Char of XML 1.0 section 2.2.
func isChar(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' ||
		0x20 <= r && r <= 0xd7ff || 0xe000 <= r && r <= 0xfffd || 0x10000 <= r && r <= utf8.MaxRune
}

// decode replaces references by what they stand for (XML 1.0 section 4.1)
// and normalises line ends (section 2.11).
func decode(raw string) (string, error) {
	i := strings.IndexByte(raw, '&')
	if i < 0 {
		return normalise(raw), nil
	}
	var b strings.Builder
	for ; i >= 0; i = strings.IndexByte(raw, '&') {
		b.WriteString(normalise(raw[:i]))
		ref, rest, ok := strings.Cut(raw[i+1:], ";")
		if !ok {
			return "", syntaxf("reference without semicolon")
		}
		r, ok := reference(ref)
		if !ok {
			return "", syntaxf("reference to an unknown character")
		}
		b.WriteRune(r)
		raw = rest
	}
	b.WriteString(normalise(raw))
	return b.String(), nil
}

// normalise makes every CRLF and CR a LF.
func normalise(s string) string {
	if strings.IndexByte(s, '\r') < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// reference returns the character of one of the five predefined entities or
// of a number.
func reference(ref string) (rune, bool) {
	switch ref {
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "amp":
		return '&', true
	case "apos":
		return '\'', true
	case "quot":
		return '"', true
	}
	digits, ok := strings.CutPrefix(ref, "#")
	if !ok {
		return 0, false
	}
	base := 10
	if hex, ok := strings.CutPrefix(digits, "x"); ok {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil || n > utf8.MaxRune || !isChar(rune(n)) {
		return 0, false
	}
	return rune(n), true
}
