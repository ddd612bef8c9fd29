package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// manPage reads a man page of doc/, with plain dashes.
func manPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../doc/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), `\-`, "-")
}

// entry is what upnpd.conf(5) says of one option.
type entry struct{ name, form, text string }

// manEntries gives the entries of upnpd.conf(5). Of two that share a text, the
// first has none.
func manEntries(t *testing.T) []entry {
	t.Helper()
	var all []entry
	for _, part := range regexp.MustCompile(`(?m)^\.(TP|TQ|SH|PP).*\n`).Split(manPage(t, "upnpd.conf.5"), -1) {
		head, text, _ := strings.Cut(part, "\n")
		if m := regexp.MustCompile(`^\\fB([a-z0-9_]+)\\fR (.*)$`).FindStringSubmatch(head); m != nil {
			all = append(all, entry{m[1], m[2], text})
		}
	}
	return all
}

// TestManOptions: upnpd.conf(5) has each option once and no other (issue 4,
// point 5).
func TestManOptions(t *testing.T) {
	count := map[string]int{}
	for _, e := range manEntries(t) {
		count[e.name]++
		if findOption(e.name).name == "" {
			t.Errorf("%s is no option", e.name)
		}
	}
	for _, o := range options {
		if count[o.name] != 1 {
			t.Errorf("%s is there %d times, want once", o.name, count[o.name])
		}
	}
	for _, m := range regexp.MustCompile(`\b[a-z]+_[a-z_]+\b`).FindAllString(manPage(t, "upnpd.conf.5"), -1) {
		if findOption(m).name == "" {
			t.Errorf("%s is no option", m)
		}
	}
}

// TestManValues: the defaults, the words and the bounds that upnpd.conf(5) names
// are those of the code.
func TestManValues(t *testing.T) {
	inWords := []string{"extif", "intif", "allow", "deny", "presentation_url", "xml_document_path"}
	bounds := regexp.MustCompile(`\b(\d+) to (\d+)\b`)
	var bounded int
	for _, e := range manEntries(t) {
		o := findOption(e.name)
		if o.name == "" || e.text == "" {
			continue // the other test says so
		}
		takes := func(v string) bool { return o.set(defaults(), v) == nil }
		m := regexp.MustCompile(`\n\.br\nDefault: (.*)\n`).FindAllStringSubmatch(e.text, -1)
		if len(m) != 1 {
			t.Errorf("%s: %d defaults, want one", e.name, len(m))
			continue
		}
		value, checked := strings.CutPrefix(m[0][1], `\fB`)
		value = strings.Trim(strings.TrimSuffix(value, `\fR`), `"`)
		c := defaults()
		switch {
		case checked == slices.Contains(inWords, e.name):
			t.Errorf("%s: default %s", e.name, m[0][1])
		case checked && (o.set(c, value) != nil || !reflect.DeepEqual(c, defaults())):
			t.Errorf("%s: %q is not the default of the code", e.name, value)
		}
		for _, word := range regexp.MustCompile(`\\fB([a-z]+)\\fR`).FindAllStringSubmatch(e.form, -1) {
			if e.form[0] == '=' && !takes(word[1]) {
				t.Errorf("%s: the value %q is refused", e.name, word[1])
			}
		}
		if m := bounds.FindStringSubmatch(e.text); m != nil && strings.HasPrefix(e.form, "= ") {
			bounded++
			checkBounds(t, e, m[1], m[2], takes)
		}
	}
	if bounded < 10 {
		t.Errorf("only %d options with bounds were found", bounded)
	}
}

// checkBounds tries the least and the largest number, or text by its length,
// and what is beyond them.
func checkBounds(t *testing.T, e entry, least, most string, takes func(string) bool) {
	t.Helper()
	first, _ := strconv.Atoi(least)
	last, _ := strconv.Atoi(most)
	for n, want := range map[int]bool{first: true, last: true, first - 1: false, last + 1: false} {
		value := strconv.Itoa(n)
		switch e.form {
		case `= \fInumber\fR`, `= \fIseconds\fR`:
		default:
			if n < 0 {
				continue
			}
			value = strings.Repeat("a", n)
		}
		if takes(value) != want {
			t.Errorf("%s: it takes %q: %v, but the page says %d to %d", e.name, value, !want, first, last)
		}
	}
}

// TestManFlags: upnpd(8) has the flags that are no options of the file, and no
// flag that there is not.
func TestManFlags(t *testing.T) {
	page := manPage(t, "upnpd.8")
	own := map[string]bool{"foreground": false, "config": false, "check-config": false, "help": false, "version": false}
	for _, m := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(page, -1) {
		if _, ok := own[m[1]]; ok {
			own[m[1]] = true
		} else if findOption(strings.ReplaceAll(m[1], "-", "_")).name == "" {
			t.Errorf("--%s is no flag", m[1])
		}
	}
	for name, there := range own {
		if !there {
			t.Errorf("upnpd(8) has no --%s", name)
		}
	}
}
