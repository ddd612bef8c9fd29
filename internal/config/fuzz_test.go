package config

import (
	"bytes"
	"os"
	"regexp"
	"testing"
	"unicode/utf8"
)

// FuzzFile: no input makes the file's parser panic, and every error is one
// printable line that says where.
func FuzzFile(f *testing.F) {
	for _, path := range []string{"testdata/linux-igd.conf", "../../files/upnpd.conf"} {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(bytes.ReplaceAll(data, []byte("\n#"), []byte("\n")))
	}
	f.Add([]byte("allow 1-2 1.2.3.4/255.0.0.0 3 tcp from 1.2.3.4"))
	f.Add([]byte("duration = @1:2\nserial = \"\x1b\xff"))
	place := regexp.MustCompile(`^f:([0-9]+:)? [^\n\r\x00\x1b]+$`)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := defaults()
		settings, err := parseFile("f", bytes.NewReader(data))
		if err == nil {
			err = c.apply(settings)
		}
		if err != nil {
			if s := err.Error(); !place.MatchString(s) {
				t.Errorf("the error does not say where, or is not one line: %q", s)
			}
			return
		}
		for _, s := range []string{c.FriendlyName, c.Serial, c.ModelNumber, c.LeaseFile} {
			if !utf8.ValidString(s) || bytes.ContainsAny([]byte(s), "\x00\x1b\n\r") {
				t.Errorf("let in: %q", s)
			}
		}
	})
}
