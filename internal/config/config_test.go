package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// with parses a command line whose default file is text; no file for "".
func with(t *testing.T, text string, args ...string) (*Config, []string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "upnpd.conf")
	if text != "" {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return parse(args, path)
}

func mustParse(t *testing.T, text string, args ...string) *Config {
	t.Helper()
	c, _, err := with(t, text, args...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	want := &Config{
		ExtIf: "ppp0", IntIfs: []string{"br0"}, Places: []string{"INTIF"},
		Firewall: FirewallAuto,
		IPTables: IPTables{CreateForwardRules: true, ForwardChain: "FORWARD", PreroutingChain: "PREROUTING"},
		Policy: portmap.Policy{
			Secure: true, MaxLease: 604800 * time.Second, MinLease: 120 * time.Second, // WIP-4, MAP-9
			MaxMappings: 1000, MaxPerClient: 200,
		},
		DescriptionName: "gatedesc.xml", NotifyInterval: 900 * time.Second, // SSDP-32
		FriendlyName: "Linux router", UPnP: true, IGD: IGDAuto, IPv6: true, NATPMP: true, PCP: true, LogLevel: LogInfo,
		LeaseFile: "/var/run/upnpd/leases", ControlSocket: "/var/run/upnpd/upnpd.sock", Sandbox: true,
	}
	c, warnings, err := with(t, "", "ppp0", "br0")
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	for _, s := range []string{"default 604800", "default info", "default auto", DefaultPath} {
		if !strings.Contains(Usage(), s) {
			t.Errorf("the usage does not say %q, as the defaults do", s)
		}
	}
}

// TestLinuxIGDFile: the old shipped file keeps its meaning (PEERS.md 1.2).
func TestLinuxIGDFile(t *testing.T) {
	const path = "testdata/linux-igd.conf"
	c, warnings, err := Parse([]string{"--config", path, "-f", "ppp0", "eth1"})
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Foreground, want.Path = true, path
	want.ExtIf, want.IntIfs, want.Places = "ppp0", []string{"eth1"}, []string{"INTIF"}
	want.IPTables.Location = "/sbin/iptables"
	want.LogLevel = LogInfo
	want.UpstreamBitrate, want.DownstreamBitrate = 512000, 512000
	want.Policy.DefaultLease.Length = 24 * time.Hour
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	const warning = `testdata/linux-igd.conf:28: xml_document_path = "/etc/linuxigd" has no meaning here: the descriptions are built in`
	if len(warnings) != 1 || warnings[0] != warning {
		t.Errorf("warnings %q, want %q", warnings, warning)
	}
}

func TestPrecedence(t *testing.T) {
	const file = `
extif = eth0
intif = br0
intif = br1
listenport = 5000
max_lease = 60
secure = no
debug_mode = 3
presentation_url = http://example.com/
deny any 10.0.0.0/8 any
`
	t.Run("file alone", func(t *testing.T) {
		c := mustParse(t, file)
		if c.ExtIf != "eth0" || !reflect.DeepEqual(c.IntIfs, []string{"br0", "br1"}) || c.Port != 5000 ||
			c.Policy.MaxLease != time.Minute || c.Policy.Secure || c.LogLevel != LogDebug ||
			*c.PresentationURL != "http://example.com/" {
			t.Errorf("%+v", c)
		}
	})
	t.Run("flags win, also by another name", func(t *testing.T) {
		c := mustParse(t, file, "--port=0", "--max-lease", "120", "--secure=yes", "--log-level", "error",
			"--presentation-url", "", "--intif", "br7", "--extif=wan", "-f")
		if c.ExtIf != "wan" || !reflect.DeepEqual(c.IntIfs, []string{"br7"}) || c.Port != 0 ||
			c.Policy.MaxLease != 2*time.Minute || !c.Policy.Secure || c.LogLevel != LogError ||
			c.PresentationURL == nil || *c.PresentationURL != "" || !c.Foreground {
			t.Errorf("%+v", c)
		}
	})
	t.Run("arguments replace the file's devices as a whole", func(t *testing.T) {
		c := mustParse(t, file, "ppp0", "-f", "lan1") // -f anywhere
		if c.ExtIf != "ppp0" || !reflect.DeepEqual(c.IntIfs, []string{"lan1"}) || !c.Foreground {
			t.Errorf("%+v", c)
		}
	})
	t.Run("rules: flags first, each in order", func(t *testing.T) {
		c := mustParse(t, file, "--deny", "1 1.1.1.1 1", "--allow", "2 2.2.2.2 2", "--deny=3 3.3.3.3 3")
		var got []string
		for _, r := range c.Policy.Rules {
			got = append(got, r.Text)
		}
		want := []string{"deny 1 1.1.1.1 1", "allow 2 2.2.2.2 2", "deny 3 3.3.3.3 3", "deny any 10.0.0.0/8 any"}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("a bad value in the file is an error even if a flag wins", func(t *testing.T) {
		if _, _, err := with(t, "extif=a\nintif=b\nport=x", "--port", "1"); err == nil {
			t.Error("no error")
		}
	})
}

// TestSample: what is installed parses, as it is and with everything switched
// on, says the defaults, and has every option.
func TestSample(t *testing.T) {
	data, err := os.ReadFile("../../files/upnpd.conf")
	if err != nil {
		t.Fatal(err)
	}
	sample := string(data)

	c := mustParse(t, sample, "ppp0", "lan9")
	want := defaults()
	want.Path, want.ExtIf, want.IntIfs, want.Places = c.Path, "ppp0", []string{"lan9"}, []string{"INTIF"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("as it is: got %+v, want the defaults %+v", c, want)
	}

	all := regexp.MustCompile(`(?m)^#([a-z])`).ReplaceAllString(sample, "$1")
	c, _, err = with(t, all)
	if err != nil {
		t.Fatalf("all options on: %v", err)
	}
	if len(c.Policy.Rules) != 3 {
		t.Errorf("%d rules, want 3", len(c.Policy.Rules))
	}
	want.Path, want.ExtIf, want.IntIfs, want.Places = c.Path, "eth0", []string{"br0"}, []string{c.Path + ":8: intif ="}
	want.Policy.Rules, want.PresentationURL = c.Policy.Rules, c.PresentationURL
	if !reflect.DeepEqual(c, want) {
		t.Errorf("all on: got %+v, want the defaults %+v", c, want)
	}

	for _, o := range options {
		form := `(?m)^#` + o.name + ` = `
		if o.alias != "" {
			form = `\(or ` + o.name + `[,)]`
		} else if o.name == "allow" || o.name == "deny" {
			form = `(?m)^#` + o.name + ` `
		}
		if !regexp.MustCompile(form).MatchString(sample) {
			t.Errorf("option %s is missing in files/upnpd.conf", o.name)
		}
	}
	for i, line := range strings.Split(sample, "\n") {
		if len(line) > 90 {
			t.Errorf("line %d has %d columns", i+1, len(line))
		}
	}
}

func TestUsage(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(Usage(), "\n"), "\n")
	if len(lines) > 24 {
		t.Errorf("%d lines, want at most 24", len(lines))
	}
	for _, l := range lines {
		if len(l) > 80 {
			t.Errorf("%d columns: %q", len(l), l)
		}
	}
	for _, m := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(Usage(), -1) {
		name := strings.ReplaceAll(m[1], "-", "_")
		switch name {
		case "foreground", "config", "check_config", "help", "version":
		default:
			if findOption(name).name == "" {
				t.Errorf("--%s is no flag", m[1])
			}
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want error
	}{
		{[]string{"--help"}, ErrHelp},
		{[]string{"-h"}, ErrHelp},
		{[]string{"-fh", "ppp0", "--max-lease", "abc"}, ErrHelp},
		{[]string{"--version"}, ErrVersion},
		{[]string{"--check-config", "ppp0", "br0"}, ErrChecked},
		{[]string{"--version", "--config", "/nonexistent"}, ErrVersion},
	} {
		if _, _, err := with(t, "", tt.args...); !errors.Is(err, tt.want) {
			t.Errorf("%q: %v, want %v", tt.args, err, tt.want)
		}
	}
}

func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	if c, _, err := parse([]string{"a", "b"}, filepath.Join(dir, "none")); err != nil || c.Path != "" {
		t.Errorf("without the default file: %v, %+v", err, c)
	}
	if _, _, err := parse([]string{"a", "b", "--config", filepath.Join(dir, "none")}, ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a named file that is missing: %v", err)
	}
	if _, _, err := parse([]string{"a", "b", "--config="}, ""); err == nil || err.Error() != `--config "": want the name of a file` {
		t.Error(err)
	}
	if _, _, err := parse([]string{"a", "b", "--config", dir}, ""); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := parse([]string{"a", "b", "--config", pipe}, ""); err == nil || !strings.Contains(err.Error(), "is a pipe") { // nor does it wait
		t.Errorf("a pipe: %v", err)
	}
	c := mustParse(t, "extip = 203.0.113.9\r\nextif=a\r\n\tintif\t=\tb\t\r\n")
	if c.ExtIP != netip.MustParseAddr("203.0.113.9") || c.ExtIf != "a" || c.IntIfs[0] != "b" || c.Path == "" {
		t.Errorf("%+v", c)
	}
}
