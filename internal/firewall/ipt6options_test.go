package firewall

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestWithoutIP6tables: port mappings work as before, one line says why there are
// no pinholes, and opening one says it, too.
func TestWithoutIP6tables(t *testing.T) {
	l := lab.Start(t)
	for name, tt := range map[string]struct{ script, chain, want string }{
		"no program":    {"", "FORWARD", "find %s/ip6tables: "},
		"no IPv6":       {"echo 'Perhaps ip6tables or your kernel needs to be upgraded.' >&2; exit 3", "FORWARD", "Perhaps ip6tables or your kernel needs to be upgraded."},
		"no such chain": {`exec /usr/sbin/ip6tables-nft "$@"`, "MINE", "forward_chain_name = MINE: table ip6 filter has no such chain; create it (%s/ip6tables -t filter -N MINE)"},
	} {
		t.Run(name, func(t *testing.T) {
			o := wrapped(t, tt.script)
			if o.ForwardChain = tt.chain; tt.chain == "MINE" {
				l.Router.Run(t, "iptables-nft", "-N", "MINE")
			}
			want := tt.want
			if strings.Contains(want, "%s") {
				want = fmt.Sprintf(want, filepath.Dir(o.Location))
			}
			var said []string
			logf := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
			on(t, l, func() error {
				f, err := NewIPTables(context.Background(), o, lab.WANDev, logf)
				if err != nil {
					return err
				}
				if err := f.Start(); err != nil {
					return err
				}
				if err := f.Sync(homePin, []portmap.Mapping{tcpPin, web}); err != nil {
					return err
				}
				if err := f.Change(nil, &udpPin); err == nil || !strings.Contains(err.Error(), "open a pinhole: ") || !strings.Contains(err.Error(), want) {
					t.Errorf("opening a pinhole: %v, want %s", err, want)
				}
				if err := f.Change([]portmap.Mapping{tcpPin}, nil); err != nil {
					t.Errorf("removing one: %v", err)
				}
				game := game
				if err := f.Change(nil, &game); err != nil {
					return err
				}
				counted, err := f.Packets()
				if len(counted) != 2 {
					t.Errorf("counted %v", counted)
				}
				if differs, verr := f.Verify(); differs != "" || verr != nil {
					t.Errorf("Verify: %s %v", differs, verr)
				}
				if err == nil {
					err = f.Close()
				}
				return err
			})
			if len(said) != 1 || !strings.Contains(said[0], "there will be no IPv6 pinholes: ") || !strings.Contains(said[0], want) {
				t.Errorf("said %q, want %s", said, want)
			}
		})
	}
}

// wrapped are options for programs in a directory of the test's; ip6tables is a
// script, or absent.
func wrapped(t *testing.T, script string) IPTablesOptions {
	t.Helper()
	o := options("iptables-nft")
	dir := t.TempDir()
	o.Location, o.IPv6 = filepath.Join(dir, "iptables"), true
	for name, body := range map[string]string{
		"iptables": `exec /usr/sbin/iptables-nft "$@"`, "iptables-restore": `exec /usr/sbin/iptables-nft-restore "$@"`,
		"ip6tables": script, "ip6tables-restore": strings.Replace(script, "ip6tables-nft", "ip6tables-nft-restore", 1),
	} {
		if body == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// TestPortMappingsRunNoIP6tables: what concerns port mappings only does not wait
// for ip6tables, and nothing of it runs without IPv6.
func TestPortMappingsRunNoIP6tables(t *testing.T) {
	l := lab.Start(t)
	ran := filepath.Join(t.TempDir(), "ran")
	o := wrapped(t, "echo >>"+ran+`; exec /usr/sbin/ip6tables-nft "$@"`)
	runs := func() int {
		b, _ := os.ReadFile(ran)
		return len(b)
	}
	for _, tt := range []struct{ v6, forward bool }{{true, true}, {false, true}, {true, false}} {
		o.IPv6, o.ForwardRules = tt.v6, tt.forward
		at := runs()
		f, err := open(t, l, o)
		if err != nil {
			t.Fatal(err)
		}
		on(t, l, func() error { return f.Sync(homePin, nil) })
		if got := runs() - at; got > 0 != (tt.v6 && tt.forward) {
			t.Errorf("%+v: ip6tables ran %d times until the Sync", tt, got)
		}
		at = runs()
		on(t, l, func() error { return f.Change(nil, &web) })
		on(t, l, func() error { return f.Change([]portmap.Mapping{web}, &web) })
		on(t, l, func() error { return f.Change([]portmap.Mapping{web}, nil) })
		if got := runs() - at; got != 0 {
			t.Errorf("%+v: ip6tables ran %d times for a port mapping", tt, got)
		}
		on(t, l, f.Close)
	}
}

// TestForwardPathIP6Tables: the warning is there when a packet does not get to its pinhole,
// and the command that it names helps.
func TestForwardPathIP6Tables(t *testing.T) {
	variants6(t, func(t *testing.T, l *lab.Lab, o IPTablesOptions, _ func() string) {
		six := strings.Replace(o.Location, "iptables", "ip6tables", 1)
		for _, tt := range []struct {
			name, rules string
			appended    bool
			chain       string
			warn        bool
		}{
			{"policy", "-P FORWARD DROP", false, "FORWARD", false},
			{"policy, at the end", "-P FORWARD DROP", true, "FORWARD", false},
			{"accepts all", "-A FORWARD -j ACCEPT", true, "FORWARD", false},
			{"drops before", "-A FORWARD -j DROP", true, "FORWARD", true},
			{"drops what comes in before", "-A FORWARD -i wan0 -j REJECT", true, "FORWARD", true},
			{"a chain that is used", "-P FORWARD DROP\n-N mine\n-A FORWARD -j mine", false, "mine", false},
			{"a chain that is not used", "-P FORWARD DROP\n-N mine", false, "mine", true},
		} {
			t.Run(tt.name, func(t *testing.T) {
				l.Router.Run(t, "sh", "-c", "for ipt in "+o.Location+" "+six+"; do $ipt -F; $ipt -X; $ipt -P FORWARD ACCEPT; "+
					"$ipt -A FORWARD -p ipv6-icmp -j ACCEPT; $ipt -A FORWARD "+established+"; done 2>/dev/null; true")
				for _, rule := range strings.Split(tt.rules, "\n") {
					l.Router.Run(t, six, strings.Fields(rule)...)
				}
				if tt.chain != "FORWARD" {
					l.Router.Run(t, o.Location, "-N", tt.chain)
					l.Router.Run(t, o.Location, "-I", "FORWARD", "-j", tt.chain)
				}
				o := o
				o.ForwardChain, o.ForwardAppend = tt.chain, tt.appended
				f, err := open(t, l, o)
				if err != nil {
					t.Fatal(err)
				}
				on(t, l, func() error { return f.Sync(homePin, []portmap.Mapping{udpPin}) })
				ask := func() (warning string) {
					t.Helper()
					on(t, l, func() (err error) { warning, err = f.ForwardPath(); return err })
					return warning
				}
				warning := ask()
				if (warning != "") != tt.warn {
					t.Errorf("the warning is %q", warning)
				}
				pass(t, l, !tt.warn, "udp 8080 0")
				if tt.warn {
					_, command, ok := strings.Cut(warning, "chain FORWARD of table ip6 filter drops connections to IPv6 pinholes; let them pass: ")
					if !ok {
						t.Fatalf("the warning is %q", warning)
					}
					l.Router.Run(t, "sh", "-c", command)
					if warning := ask(); warning != "" {
						t.Errorf("after %s: %s", command, warning)
					}
					pass(t, l, true, "udp 8080 0")
				}
				on(t, l, f.Close)
			})
		}
	})
}
