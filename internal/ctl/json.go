package ctl

import (
	"fmt"
	"net/netip"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonText builds a JSON document (RFC 8259) from left to right; the commas come
// by themselves. In arrays, names are "".
type jsonText []byte

// name begins a member of an object, or with "" an element of an array.
func (j *jsonText) name(name string) {
	if n := len(*j); n > 0 && (*j)[n-1] != '{' && (*j)[n-1] != '[' {
		*j = append(*j, ',')
	}
	if name != "" {
		*j = append(*j, `"`+name+`":`...)
	}
}

// open begins an object or an array, bracket says which.
func (j *jsonText) open(name string, bracket byte) {
	j.name(name)
	*j = append(*j, bracket)
}

func (j *jsonText) close(bracket byte) { *j = append(*j, bracket) }

// raw is a value that needs no quotes.
func (j *jsonText) raw(name, value string) {
	j.name(name)
	*j = append(*j, value...)
}

func (j *jsonText) number(name string, n int64) { j.raw(name, strconv.FormatInt(n, 10)) }

func (j *jsonText) flag(name string, is bool) {
	value := "false"
	if is {
		value = "true"
	}
	j.raw(name, value)
}

// addr is a string, null for the zero Addr.
func (j *jsonText) addr(name string, a netip.Addr) {
	value := ""
	if a.IsValid() {
		value = a.String()
	}
	j.orNull(name, value)
}

// orNull is a string, null for "".
func (j *jsonText) orNull(name, s string) {
	if s == "" {
		j.raw(name, "null")
		return
	}
	j.text(name, s)
}

// text is a string. Everything that does not print is escaped, so that the
// document may be shown on a terminal; bytes that are no UTF-8 become U+FFFD.
func (j *jsonText) text(name, s string) {
	j.name(name)
	b := append(*j, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case strconv.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	*j = append(b, '"')
}
