package daemon

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzLog: whatever hosts have said, a call is one line that prints: no command to
// a terminal, no change of direction, no second line (issue 8, point 8).
func FuzzLog(f *testing.F) {
	for _, s := range []string{"granted", "a\nupnpd: forged", "\x1b[2J", "\u009b2J", "\u202edrowssap", "\u2028", "\xff\xfe", "\x00", "游戏🎮", "%s%n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var out bytes.Buffer
		NewLog(&out, io.Discard).Infof("<%s>", text)
		line, whole := strings.CutSuffix(out.String(), "\n")
		for _, r := range line {
			whole = whole && strconv.IsPrint(r)
		}
		if !whole || !utf8.ValidString(line) || utf8.RuneCountInString(line) != utf8.RuneCountInString(text)+2 {
			t.Errorf("%q is logged as %q", text, out.String())
		}
	})
}
