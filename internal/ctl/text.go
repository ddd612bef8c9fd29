package ctl

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// appendEscaped makes a string safe for terminals and lines: what does not print
// (controls, line separators, marks of direction, bytes that are no UTF-8)
// becomes \u and its number. With json it is fit for a string of JSON, too.
func appendEscaped(b []byte, s string, json bool) []byte {
	for _, r := range s {
		switch {
		case json && (r == '"' || r == '\\'):
			b = append(b, '\\', byte(r))
		case r != utf8.RuneError && strconv.IsPrint(r):
			b = utf8.AppendRune(b, r)
		default:
			if r > 0xFFFF { // JSON knows only four digits
				high, low := utf16.EncodeRune(r)
				b = fmt.Appendf(b, `\u%04x`, high)
				r = low
			}
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return b
}

// cut shortens s to at most n bytes, at the edge of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// sheet is text for people: lines of cells that end with tabs, but for the last.
type sheet []byte

// line adds lines. Texts are escaped, numbers are not strings for fmt, and "-" is
// shown for what is nothing.
func (t *sheet) line(format string, values ...any) {
	for i, v := range values {
		if s, isText := plain(v); isText {
			values[i] = string(appendEscaped(nil, cmp.Or(s, "-"), false))
		}
	}
	*t = fmt.Appendf(*t, format+"\n", values...)
}

// plain gives the text of a value, "" for nothing: nil and the zero Addr. Numbers
// and bools are no texts.
func plain(v any) (s string, isText bool) {
	switch v := v.(type) {
	case nil:
		return "", true
	case string:
		return v, true
	case error:
		return v.Error(), true
	case netip.Addr:
		if !v.IsValid() {
			return "", true
		}
		return v.String(), true
	case fmt.Stringer:
		return v.String(), true
	}
	return fmt.Sprint(v), false
}

// hms shows a duration as h:mm:ss.
type hms time.Duration

func (d hms) String() string {
	n := int(time.Duration(d) / time.Second)
	return fmt.Sprintf("%d:%02d:%02d", n/3600, n/60%60, n%60)
}

// align gives the lines with spaces instead of tabs, so that columns line up, two
// spaces apart. A column whose bit is set in right leans to the right.
func (t sheet) align(right uint) (b []byte) {
	var widths [16]int
	lines := strings.Split(strings.TrimSuffix(string(t), "\n"), "\n")
	for _, l := range lines {
		cells := strings.Split(l, "\t")
		for i, c := range cells[:len(cells)-1] {
			widths[i] = max(widths[i], width(c))
		}
	}
	for _, l := range lines {
		cells := strings.Split(l, "\t")
		last := len(cells) - 1
		for i, c := range cells[:last] {
			gap := fmt.Sprintf("%*s", widths[i]-width(c), "")
			if right>>i&1 != 0 {
				c = gap + c
			} else {
				c += gap
			}
			b = append(b, c+"  "...)
		}
		b = append(b, cells[last]+"\n"...)
	}
	return b
}

// wide has the characters that terminals draw over two columns, and combining
// those that they draw over the one before: pairs of first and last (Unicode
// 15, East Asian Width W and F; the large blocks of Mn).
const (
	wide = "\u1100\u115F\u2E80\u303E\u3041\uA4CF\uA960\uA97C\uAC00\uD7A3\uF900\uFAFF\uFE30\uFE6F\uFF01\uFF60\uFFE0\uFFE6" +
		"\U0001F300\U0001F64F\U0001F680\U0001F6FF\U0001F900\U0001F9FF\U00020000\U0003FFFD"
	combining = "\u0300\u036F\u1AB0\u1AFF\u1DC0\u1DFF\u20D0\u20FF\uFE00\uFE0F\uFE20\uFE2F"
)

// within reports whether r lies between a pair of pairs.
func within(r rune, pairs string) bool {
	odd := false
	for _, edge := range pairs {
		if odd = !odd; odd && r < edge {
			return false
		} else if !odd && r <= edge {
			return true
		}
	}
	return false
}

// width is the number of columns that s takes.
func width(s string) (n int) {
	for _, r := range s {
		switch {
		case within(r, combining):
		case within(r, wide):
			n += 2
		default:
			n++
		}
	}
	return n
}
