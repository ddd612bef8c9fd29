package ctl

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// manText reads a file of the project, with plain dashes if it is a man page.
func manText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), `\-`, "-")
}

// manNames gives what the first group of the expression matches.
func manNames(text, expression string) map[string]bool {
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(expression).FindAllStringSubmatch(text, -1) {
		all[m[1]] = true
	}
	return all
}

// manEqual holds two sets of names against each other.
func manEqual(t *testing.T, what string, page, code map[string]bool) {
	t.Helper()
	if len(code) == 0 {
		t.Errorf("%s: nothing was found in the code", what)
	}
	for name := range code {
		if !page[name] {
			t.Errorf("%s: upnpctl(8) has no %s", what, name)
		}
	}
	for name := range page {
		if !code[name] {
			t.Errorf("%s: upnpctl(8) has %s, which there is not", what, name)
		}
	}
}

// TestManCommands: upnpctl(8) has the commands and options of --help, each with
// an example, the fields of the JSON and the names of check (issue 4, point 5).
func TestManCommands(t *testing.T) {
	const commands = `(?m)^  ([a-z]+) `
	page := manText(t, "../../doc/upnpctl.8")
	manEqual(t, "commands", manNames(page, `(?m)^\.SS ([a-z]+)`), manNames(usage, commands))
	manEqual(t, "examples", manNames(page, `(?m)^\$ upnpctl ([a-z]+)`), manNames(usage, commands))
	manEqual(t, "options", manNames(page, `(--[a-z-]+)`), manNames(usage, `(--[a-z-]+)`))

	var shown string
	for _, file := range []string{"list.go", "status.go", "check.go"} {
		shown += manText(t, file)
	}
	fields := map[string]bool{}
	for names := range manNames(shown, `(?:object|document)\(("[a-z_ ]+"(?:\+\s*"[a-z_ ]+")*)`) {
		for _, f := range strings.FieldsFunc(names, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz_", r) }) {
			fields[f] = true
		}
	}
	_, json, _ := strings.Cut(page, "\n.SH JSON\n")
	json, _, _ = strings.Cut(json, "\n.SH ")
	manEqual(t, "fields", manNames(json, `\\fB([a-z_]+)\\fR`), fields)

	names := manNames(manText(t, "check.go"), `"(?:PASS|WARN|FAIL)\\t([a-zA-Z]+)`)
	_, check, _ := strings.Cut(page, "\n.SS check")
	check, _, _ = strings.Cut(check, "\n.SS ")
	manEqual(t, "check", manNames(check, `(?m)^\.TP\n\.BI? ([a-zA-Z]+)`), names)
}

// TestManSocket: the pages name the socket where the daemon listens.
func TestManSocket(t *testing.T) {
	for _, name := range []string{"upnpctl.8", "upnpd.8", "upnpd.conf.5"} {
		if !strings.Contains(manText(t, "../../doc/"+name), DefaultSocket) {
			t.Errorf("%s does not name %s", name, DefaultSocket)
		}
	}
}
