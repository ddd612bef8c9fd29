package ctl

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// clean makes a string safe for terminals and lines: what does not print
// (controls, line separators, marks of direction, bytes that are no UTF-8) is
// shown by its number.
func clean(s string) string {
	b := make([]byte, 0, len(s))
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			b = fmt.Appendf(b, `\x%02x`, s[i])
		case strconv.IsPrint(r):
			b = utf8.AppendRune(b, r)
		default:
			quoted := strconv.AppendQuoteRune(nil, r)
			b = append(b, quoted[1:len(quoted)-1]...)
		}
	}
	return string(b)
}

// printable leaves out what does not print.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return -1
		}
		return r
	}, s)
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

// wide are the characters that terminals draw over two columns, and combining
// those that they draw over the one before: pairs of first and last (Unicode
// 15, East Asian Width W and F; the large blocks of Mn).
var (
	wide = [...]rune{
		0x1100, 0x115F, 0x2E80, 0x303E, 0x3041, 0xA4CF, 0xA960, 0xA97C, 0xAC00, 0xD7A3, 0xF900, 0xFAFF,
		0xFE30, 0xFE6F, 0xFF00, 0xFF60, 0xFFE0, 0xFFE6, 0x1F300, 0x1F64F, 0x1F680, 0x1F6FF, 0x1F900, 0x1F9FF, 0x20000, 0x3FFFD,
	}
	combining = [...]rune{0x0300, 0x036F, 0x1AB0, 0x1AFF, 0x1DC0, 0x1DFF, 0x20D0, 0x20FF, 0xFE00, 0xFE0F, 0xFE20, 0xFE2F}
)

func within(r rune, pairs []rune) bool {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] <= r && r <= pairs[i+1] {
			return true
		}
	}
	return false
}

// width is the number of columns that a clean s takes.
func width(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case within(r, combining[:]):
		case within(r, wide[:]):
			n += 2
		default:
			n++
		}
	}
	return n
}

// appendColumns writes rows of clean cells in columns that line up, two spaces
// apart. A column whose bit is set in right leans to the right.
func appendColumns(b []byte, right uint, rows [][]string) []byte {
	var widths [16]int
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], width(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			gap := strings.Repeat(" ", widths[i]-width(cell))
			switch {
			case right>>i&1 != 0:
				b = append(b, gap+cell...)
			case i == len(row)-1:
				b = append(b, cell...)
			default:
				b = append(b, cell+gap...)
			}
			if i < len(row)-1 {
				b = append(b, "  "...)
			}
		}
		b = append(b, '\n')
	}
	return b
}

// hms gives whole seconds as h:mm:ss.
func hms(d time.Duration) string {
	s := int64(d / time.Second)
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// orDash stands for nothing in a column.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
