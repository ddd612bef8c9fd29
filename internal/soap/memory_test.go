package soap

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// shapes are bodies of about n bytes that made other readers slow or large: tags
// in tags and endless names (CVE-2020-13848, CVE-2017-1000494, miniupnpd issue
// 268), references, pieces of text.
var shapes = map[string]func(n int) string{
	"nested tags":       func(n int) string { return strings.Repeat("<a>", n/7) + strings.Repeat("</a>", n/7) },
	"a nested header":   func(n int) string { return header + strings.Repeat("<a>", n/3) },
	"open tags":         func(n int) string { return strings.Repeat("<a>", n/3) },
	"nested namespaces": func(n int) string { return strings.Repeat("<a xmlns:u='m'>", n/15) },
	"attributes":        func(n int) string { return "<a" + numbered(" a%d=''", n) + "/>" },
	"namespaces":        func(n int) string { return "<a" + numbered(" xmlns:a%d='x'", n) + "/>" },
	"a long name":       func(n int) string { return "<" + strings.Repeat("a", n) + "/>" },
	"arguments":         func(n int) string { return argument("</b>" + strings.Repeat("<b>1</b>", n/8) + "<b>") },
	"other arguments":   func(n int) string { return argument("</b>" + numbered("<b%d/>", n) + "<b>") },
	"references":        func(n int) string { return argument(strings.Repeat("&lt;", n/4)) },
	"ampersands":        func(n int) string { return argument(strings.Repeat("&", n)) },
	"an open reference": func(n int) string { return argument("&" + strings.Repeat("a", n)) },
	"CDATA":             func(n int) string { return argument(strings.Repeat("<![CDATA[]]>", n/12)) },
	"an open CDATA":     func(n int) string { return argument("<![CDATA[" + strings.Repeat("]", n)) },
	"comments":          func(n int) string { return argument(strings.Repeat("x<!---->", n/8)) },
	"an open comment":   func(n int) string { return "<!--" + strings.Repeat("-", n) },
	"instructions":      func(n int) string { return strings.Repeat("<?a ?>", n/6) },
	"returns":           func(n int) string { return argument(strings.Repeat("\r", n)) },
}

// header is where a reader skips what it does not know.
const header = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header>`

func numbered(format string, n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func argument(text string) string { return "<u:A xmlns:u='m'><b>" + text + "</b></u:A>" }

// TestMemory: reading a body takes memory in proportion to it at most, all in all,
// whatever is in it: pieces are not copied again and again (issue 8, point 8).
func TestMemory(t *testing.T) {
	for name, shape := range shapes {
		var took [2]uint64
		for i, n := range []int{16 << 10, 32 << 10} {
			body := []byte(shape(n))
			if body[1] != 's' {
				body = []byte(opening + shape(n) + closing)
			}
			took[i] = allocated(func() { _, _ = ParseCall(body) })
			if took[i] > 4*uint64(len(body)) {
				t.Errorf("%s: %d bytes to read %d", name, took[i], len(body))
			}
		}
		if t.Logf("%s: %d, %d bytes", name, took[0], took[1]); took[1] > 5*took[0]/2+4096 {
			t.Errorf("%s: %d bytes, for twice the body %d", name, took[0], took[1])
		}
	}
}

// allocated is the memory that f takes, what it gives back included.
func allocated(f func()) uint64 {
	least := ^uint64(0)
	var before, after runtime.MemStats
	for range 3 { // others may allocate, too
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}
