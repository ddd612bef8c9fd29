package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Bounds of upnpd.conf, in bytes.
const (
	maxFile = 64 << 10
	maxLine = 1024
)

// readFile reads the named file, or the default one if there is such a file.
// It gives the path of what was read.
func readFile(named, defaultPath string) (string, []setting, error) {
	path := named
	if named == "" {
		path = defaultPath
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeNamedPipe != 0 { // nobody may ever write there
		return "", nil, fmt.Errorf("configuration: %s is a pipe, which cannot be read again; use a file", path)
	}
	f, err := os.Open(path)
	if named == "" && errors.Is(err, os.ErrNotExist) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	settings, err := parseFile(path, f)
	return path, settings, err
}

// parseFile splits a file into settings. Its errors begin with path:line.
func parseFile(path string, r io.Reader) ([]setting, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: longer than %d KiB: is this a configuration?", path, maxFile>>10)
	}
	var settings []setting
	for i, line := range strings.Split(string(data), "\n") {
		place := fmt.Sprintf("%s:%d:", path, i+1)
		switch {
		case strings.IndexByte(line, 0) >= 0:
			return nil, fmt.Errorf("%s a NUL byte: this is not a text file", place)
		case len(line) > maxLine:
			return nil, fmt.Errorf("%s longer than %d bytes", place, maxLine)
		}
		s, err := parseLine(place, strings.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		if s.option.name != "" {
			settings = append(settings, s)
		}
	}
	return settings, nil
}

// parseLine reads `name = value`, or a rule; nothing from an empty line.
func parseLine(place, line string) (setting, error) {
	if line == "" || line[0] == '#' {
		return setting{}, nil
	}
	if verb, rule, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " "); verb == "allow" || verb == "deny" {
		return setting{option: findOption(verb), value: uncommented(rule), place: place + " " + verb}, nil
	}
	name, value, found := strings.Cut(line, "=")
	if !found {
		return setting{}, fmt.Errorf("%s %q: want NAME = VALUE, allow RULE, deny RULE or # COMMENT", place, line)
	}
	name = strings.TrimSpace(name)
	s := setting{option: findOption(name), place: place + " " + name + " ="}
	if s.option.name == "" {
		return setting{}, unknown(fmt.Sprintf("%s %q", place, name), name, "")
	}
	quoted, isQuoted := strings.CutPrefix(strings.TrimSpace(value), `"`)
	if !isQuoted {
		s.value = uncommented(value)
		return s, nil
	}
	var rest string
	if s.value, rest, found = strings.Cut(quoted, `"`); !found || uncommented(rest) != "" {
		return setting{}, fmt.Errorf("%s %q: want one value in double quotes, and nothing after it but a # comment", s.place, strings.TrimSpace(value))
	}
	return s, nil
}

// uncommented cuts off a comment: a # at the beginning or after a blank.
func uncommented(v string) string {
	for i := range len(v) {
		if v[i] == '#' && (i == 0 || v[i-1] == ' ' || v[i-1] == '\t') {
			v = v[:i]
			break
		}
	}
	return strings.TrimSpace(v)
}
