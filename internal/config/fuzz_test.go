package config

import (
	"bytes"
	"os"
	"regexp"
	"strings"
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
	f.Add(append([]byte("serial = x #"), bytes.Repeat([]byte("x"), maxLine)...))
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
		for _, line := range bytes.Split(data, []byte("\n")) {
			if len(line) > maxLine {
				t.Errorf("a line of %d bytes is read", len(line))
			}
		}
		for _, s := range []string{c.FriendlyName, c.Serial, c.ModelNumber, c.LeaseFile} {
			if !utf8.ValidString(s) || bytes.ContainsAny([]byte(s), "\x00\x1b\n\r") {
				t.Errorf("let in: %q", s)
			}
		}
	})
}

// FuzzArgs: whatever the command line says, an error is one printable line, and
// what is taken has devices that a kernel can have.
func FuzzArgs(f *testing.F) {
	for _, s := range []string{"eth0\x00br-lan", "a234567890123456\x00b", "--allow=2-1 0.0.0.0/0 3\x00a\x00b", "--allow=1 0.0.0.0/0 3-2\x00a\x00b", "-f\x00eth0\x00br-lan\x00br-guest", "--extif=a\x00--intif=b\x00--intif=c", "a\x00a", "--port=65536\x00a\x00b",
		"--allow=1-2 0.0.0.0/0 3\x00a\x00b", "--friendly-name\x00\x1b[0m\x00a\x00b", "--\x1b=1", "-\x1b", "--config=", "-fh", "--", "--duration=@1:2\x00a\x00b", "\n\x00\r", "--secur=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, words string) {
		line, err := readArgs(strings.Split(words, "\x00"))
		c := defaults()
		if err == nil {
			err = c.apply(line.settings)
		}
		if err == nil {
			err = c.checkDevices()
		}
		if err != nil {
			if !printable(err.Error()) {
				t.Errorf("%q: the error is not one line: %q", words, err)
			}
			return
		}
		for i, name := range append([]string{c.ExtIf}, c.IntIfs...) {
			if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ \t\n") || i > 0 && name == c.ExtIf {
				t.Errorf("%q: devices %q, %q", words, c.ExtIf, c.IntIfs)
			}
		}
		for i := range c.Policy.Rules {
			if r := &c.Policy.Rules[i]; r.External.First > r.External.Last || r.Internal.First > r.Internal.Last || !r.Client.IsValid() {
				t.Errorf("%q: rule %+v", words, r)
			}
		}
		if p := c.Policy; p.MaxLease <= 0 || p.MaxMappings < 1 || p.MaxPerClient < 1 || p.MaxMappings > 65535 || c.NotifyInterval <= 0 {
			t.Errorf("%q: %+v", words, p)
		}
	})
}
