package ctl

import (
	"strings"
)

// jsonText is a part of a JSON document (RFC 8259).
type jsonText []byte

// comma separates a value from the one before.
func (j *jsonText) comma() {
	if n := len(*j); n > 0 && (*j)[n-1] != '[' && (*j)[n-1] != '{' {
		*j = append(*j, ',')
	}
}

// object adds one with these names, which are separated by spaces, and their
// values. It leaves values alone that have no name.
func (j *jsonText) object(names string, values ...any) {
	j.comma()
	*j = append(*j, '{')
	for i, name := range strings.Fields(names) {
		j.comma()
		*j = append(*j, `"`+name+`":`...)
		j.value(values[i])
	}
	*j = append(*j, '}')
}

// value adds one; "" and what is nothing are null. All that does not print is
// escaped, so that the document may be shown on a terminal.
func (j *jsonText) value(v any) {
	if part, ok := v.(jsonText); ok {
		*j = append(*j, part...)
		return
	}
	s, isText := plain(v)
	switch {
	case !isText:
		*j = append(*j, s...)
	case s == "":
		*j = append(*j, "null"...)
	default:
		*j = append(appendEscaped(append(*j, '"'), s, true), '"')
	}
}

// document is a whole reply in JSON.
func document(names string, values ...any) []byte {
	var j jsonText
	j.object(names, values...)
	return append(j, '\n')
}
