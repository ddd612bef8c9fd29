package gena

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// subscriber takes a message and answers, some bytes at a time.
type subscriber struct {
	answer string
	step   int
	heard  strings.Builder
	given  int
	full   bool // it was read from without room
}

func (s *subscriber) Write(p []byte) (int, error) { return s.heard.Write(p) }

func (s *subscriber) Read(p []byte) (int, error) {
	s.full = s.full || len(p) == 0
	n := copy(p[:min(len(p), s.step)], s.answer[s.given:])
	if s.given += n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// FuzzAnswer: whatever a subscriber answers, and in whatever pieces, at most 2 kB
// of it are read, it is taken for the same, and only 2xx is a delivery (GENA-13).
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 204", "HTTP/1.1 20", "HTTP/1.1 412 No\r\n\r\n", "HTTP/1.1 +20 x", "HTTP/2.0 200 x",
		"HTTP/1.1 999 x", "HTTP/1.1 302 x\r\nLocation: http://x/\r\n\r\n", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 4000), strings.Repeat("\r\n", 3000)} {
		f.Add(s, uint8(1))
	}
	f.Fuzz(func(t *testing.T, answer string, step uint8) {
		whole, parts := &subscriber{answer: answer, step: 1 << 20}, &subscriber{answer: answer, step: int(step)%64 + 1}
		err, again := exchange(whole, "NOTIFY"), exchange(parts, "NOTIFY")
		if (err == nil) != (again == nil) || err != nil && err.Error() != again.Error() {
			t.Errorf("%q: %v; in pieces of %d: %v", answer, err, parts.step, again)
		}
		if whole.heard.String() != "NOTIFY" || whole.given > maxAnswer || parts.given > maxAnswer || whole.full || parts.full {
			t.Errorf("%q: %d and %d bytes were read", answer, whole.given, parts.given)
		}
		starts := len(answer) >= 12 && strings.HasPrefix(answer, "HTTP/1.") && answer[8] == ' '
		switch {
		case err == nil && (!starts || answer[9] != '2'):
			t.Errorf("%q is taken for a delivery", answer)
		case errors.Is(err, errUnknown) && (!starts || answer[9:12] != "412"):
			t.Errorf("%q is taken for 412", answer)
		}
	})
}
