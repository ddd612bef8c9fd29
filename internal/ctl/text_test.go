package ctl

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for s, want := range map[string]string{
		"plain":                "plain",
		"日本語 é e\u0301 😀":      "日本語 é e\u0301 😀",
		"a\tb\nc\r\x00\x1b[1m": `a\u0009b\u000ac\u000d\u0000\u001b[1m`,
		"\x7f\u0085\u009b":     `\u007f\u0085\u009b`,
		"\u2028\u2029\u202e":   `\u2028\u2029\u202e`,
		"\u2066\u2069\u200e":   `\u2066\u2069\u200e`,
		"\xff\xc3":             `\ufffd\ufffd`,
		"\ufffd":               `\ufffd`,
		`\"`:                   `\"`,
		"\U000e0041":           `\udb40\udc41`,
	} {
		if got := string(appendEscaped(nil, s, false)); got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
	if got, want := string(appendEscaped(nil, `a"b\`+"\n", true)), `a\"b\\\u000a`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A JSON reader gets back what was written.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{"", "a", hostile, "\xff\x00\u2028\"\\/", "\ufffd", "\U0010ffff", "\xed\xa0\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text := document("a b c", s, jsonText(`[1]`), nil)
		var got struct {
			A *string
			B []int
			C *string
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%q: %v in %s", s, err, text)
		}
		if want := string([]rune(s)); s == "" && got.A != nil || s != "" && *got.A != want {
			t.Errorf("%q: got %v", s, got.A)
		}
		if bad := unprintable(string(text)); bad != "" || strings.Count(string(text), "\n") != 1 {
			t.Errorf("%q: %s has %s", s, text, bad)
		}
	})
}

// Text is one line, prints, and is in columns whatever stands there.
func FuzzColumns(f *testing.F) {
	f.Add("a", "b")
	f.Add("日本", "\t\n")
	f.Add(hostile, "e\u0301")
	f.Fuzz(func(t *testing.T, a, b string) {
		var table sheet
		table.line("%s\t%s\t|", a, b)
		table.line("%s\t%s\t|", b, a)
		text := string(table.align(2))
		if bad := unprintable(text); bad != "" || strings.Count(text, "\n") != 2 || !utf8.ValidString(text) {
			t.Fatalf("%q, %q: %q has %s", a, b, text, bad)
		}
		one, two, _ := strings.Cut(text, "\n")
		if bar := strings.LastIndex(one, "|"); width(one[:bar]) != width(two[:strings.LastIndex(two, "|")]) {
			t.Errorf("%q, %q: not in columns:\n%s", a, b, text)
		}
	})
}

func TestAlign(t *testing.T) {
	s := sheet("A\tRIGHT\tC\na\t1\tlong last cell\n" + "日本\t1000000\t-\nno tabs, however long, change nothing\n")
	want := "A       RIGHT  C\na           1  long last cell\n日本  1000000  -\nno tabs, however long, change nothing\n"
	if got := string(s.align(1 << 1)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestWidth(t *testing.T) {
	for s, want := range map[string]int{
		"": 0, "abc": 3, "é": 1, "e\u0301": 1, "日本": 4, "한글": 4, "ｆｕｌｌ": 8, "ｱ": 1, "😀": 2, "א": 1, "☎\ufe0f": 1, "\U00020000": 2,
		"\u115f": 2, "\u1160": 1, "\u10ff": 1, "\ua4cf": 2, "\ua4d0": 1,
	} {
		if got := width(s); got != want {
			t.Errorf("%q: %d columns, want %d", s, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		s    string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"日本", 5, "日"}, {"日本", 6, "日本"}, {"日", 2, ""}, {"\x80\x80", 1, ""}} {
		if got := cut(tt.s, tt.n); got != tt.want {
			t.Errorf("cut %q at %d: %q", tt.s, tt.n, got)
		}
	}
}

func TestHMS(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0:00:00", 59 * time.Second: "0:00:59", time.Hour: "1:00:00", 604800 * time.Second: "168:00:00",
		time.Hour + time.Minute + time.Second + time.Millisecond: "1:01:01",
	} {
		if got := hms(d).String(); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}
