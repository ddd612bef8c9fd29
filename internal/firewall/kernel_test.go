package firewall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-iptables/iptables"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// These tests put real rules into the kernel of a lab's router. Programs that
// the backend starts inherit the network namespace of the thread that starts
// them, so the whole test body runs inside lab.Host.Do.

func variants(t *testing.T, body func(t *testing.T, l *lab.Lab, iptables string)) {
	for _, v := range []string{"iptables-legacy", "iptables-nft"} {
		t.Run(v, func(t *testing.T) {
			l := lab.Start(t)
			if err := l.Masquerade(v); err != nil {
				t.Fatal(err)
			}
			body(t, l, v)
		})
	}
}

func options(iptables string) IPTablesOptions {
	return IPTablesOptions{Location: "/usr/sbin/" + iptables, ForwardRules: true, ForwardChain: "FORWARD", PreroutingChain: "PREROUTING"}
}

// open makes the backend on the lab's router.
func open(t *testing.T, l *lab.Lab, o IPTablesOptions) (f *IPTables, err error) {
	t.Helper()
	doErr := l.Router.Do(func() error {
		if f, err = NewIPTables(context.Background(), o, lab.WANDev, t.Logf); err == nil {
			err = f.Start()
		}
		return nil
	})
	if doErr != nil {
		t.Fatal(doErr)
	}
	return f, err
}

// on runs f on the router and fails the test if it fails.
func on(t *testing.T, l *lab.Lab, f func() error) {
	t.Helper()
	if err := l.Router.Do(f); err != nil {
		t.Fatal(err)
	}
}

func TestKernelRules(t *testing.T) {
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		before := l.Rules(v)
		f, err := open(t, l, options(v))
		if err != nil {
			t.Fatal(err)
		}
		from := only(web, "11.0.0.9")
		on(t, l, func() error { return f.Sync(home, nil) })
		empty := l.Rules(v)

		on(t, l, func() error { return f.Change(nil, &web) })
		on(t, l, func() error { return f.Change(nil, &from) })
		added := l.Rules(v)
		wantOrder(t, added, "-s 11.0.0.9/32 -p tcp -m tcp --dport 18080", "\n-A UPNPD -p tcp")

		on(t, l, func() error { return witness(v) })

		// The whole, written at once, is what the single changes made.
		on(t, l, func() error { return f.Sync(home, []portmap.Mapping{web, from}) })
		if got := l.Rules(v); got != added {
			t.Errorf("Sync made\n%s\nthe changes made\n%s", got, added)
		}

		moved := web
		moved.InternalPort = 81
		on(t, l, func() error { return f.Change([]portmap.Mapping{web}, &moved) })
		if got := l.Rules(v); strings.Contains(got, ":8080") && !strings.Contains(got, "10:81") {
			t.Errorf("the internal port did not change:\n%s", got)
		}
		on(t, l, func() error { return f.Change([]portmap.Mapping{moved}, nil) })
		on(t, l, func() error { return f.Change([]portmap.Mapping{from}, nil) })
		if got := l.Rules(v); got != empty {
			t.Errorf("after deletion\n%s\nwant\n%s", got, empty)
		}
		on(t, l, func() error { return f.Change(nil, &web) })
		on(t, l, f.Close)
		if got := l.Rules(v); got != before {
			t.Errorf("after Close\n%s\nwant\n%s", got, before)
		}
	})
}

// witness looks for the jumps and the rules of web with somebody else's code.
func witness(program string) error {
	ipt, err := iptables.New(iptables.Path("/usr/sbin/" + program))
	if err != nil {
		return err
	}
	for _, r := range []struct{ table, chain, rule string }{
		{"nat", "PREROUTING", "-j UPNPD-PRE"},
		{"nat", "POSTROUTING", "-j UPNPD-POST"},
		{"filter", "FORWARD", "-j UPNPD"},
		{"nat", "UPNPD", "-p tcp -m tcp --dport 18080 -j DNAT --to-destination 192.168.77.10:8080"},
	} {
		if found, err := ipt.Exists(r.table, r.chain, strings.Fields(r.rule)...); err != nil || !found {
			return fmt.Errorf("go-iptables does not find -t %s -A %s %s: %v", r.table, r.chain, r.rule, err)
		}
	}
	return nil
}

func wantOrder(t *testing.T, text, first, second string) {
	t.Helper()
	if i, j := strings.Index(text, first), strings.Index(text, second); i < 0 || j < 0 || i > j {
		t.Errorf("%q must stand before %q in\n%s", first, second, text)
	}
}

// TestRefusedChange: the kernel takes a change whole or not at all.
func TestRefusedChange(t *testing.T) {
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		f, err := open(t, l, options(v))
		if err != nil {
			t.Fatal(err)
		}
		on(t, l, func() error { return f.Sync(home, nil) })
		before := l.Rules(v)
		other := web
		other.ExternalPort = 1
		on(t, l, func() error {
			err := f.Change([]portmap.Mapping{other}, &web) // other is not there
			if err == nil {
				return fmt.Errorf("deleting an absent rule: no error")
			}
			if !strings.Contains(err.Error(), "--dport 1 ") && v == "iptables-nft" {
				return fmt.Errorf("the error does not name the rule: %w", err)
			}
			return nil
		})
		if got := l.Rules(v); got != before {
			t.Errorf("half a change was made:\n%s", got)
		}
		on(t, l, f.Close)
	})
}

// TestJumpsComeBack: Sync repairs what somebody flushed.
func TestJumpsComeBack(t *testing.T) {
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		f, err := open(t, l, options(v))
		if err != nil {
			t.Fatal(err)
		}
		all := []portmap.Mapping{web}
		on(t, l, func() error { return f.Sync(home, all) })
		before := l.Rules(v)
		for _, flush := range [][]string{{"-t", "nat", "-F", "PREROUTING"}, {"-D", "FORWARD", "-j", "UPNPD"}, {"-t", "nat", "-F", "UPNPD"}} {
			l.Router.Run(t, v, flush...)
			on(t, l, func() error { return f.Sync(home, all) })
			if got := l.Rules(v); got != before {
				t.Errorf("after %v and Sync\n%s\nwant\n%s", flush, got, before)
			}
		}
		on(t, l, f.Close)
	})
}

func TestOptionsThatCannotWork(t *testing.T) {
	l := lab.Start(t)
	alone := filepath.Join(t.TempDir(), "iptables")
	if err := os.WriteFile(alone, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*IPTablesOptions)
		want   string
	}{
		"no program":       {func(o *IPTablesOptions) { o.Location = "/nowhere/iptables" }, "set iptables_location"},
		"no restore":       {func(o *IPTablesOptions) { o.Location = alone }, "iptables-restore beside it"},
		"no such chain":    {func(o *IPTablesOptions) { o.PreroutingChain = "MINE" }, "prerouting_chain_name = MINE: table nat has no such chain"},
		"no forward chain": {func(o *IPTablesOptions) { o.ForwardChain = "MINE" }, "forward_chain_name = MINE: table filter"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options("iptables-nft")
			tt.change(&o)
			if _, err := open(t, l, o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestLostJump: a change of rules that nobody would reach is refused.
func TestLostJump(t *testing.T) {
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		f, err := open(t, l, options(v))
		if err != nil {
			t.Fatal(err)
		}
		on(t, l, func() error { return f.Sync(home, nil) })
		l.Router.Run(t, v, "-t", "nat", "-F", "PREROUTING")
		on(t, l, func() error {
			if f.Change(nil, &web) == nil {
				return errors.New("the change was taken without the jump")
			}
			return f.Sync(home, nil)
		})
		on(t, l, func() error { return f.Change(nil, &web) })
		l.Router.Run(t, v, "-t", "nat", "-F", "UPNPD")
		on(t, l, func() error {
			if f.Change([]portmap.Mapping{web}, &web) == nil {
				return errors.New("a renewal does not see that the rules are gone")
			}
			return nil
		})
		on(t, l, f.Close)
	})
}

// TestStop: when the daemon ends, nothing waits for the lock of iptables.
func TestStop(t *testing.T) {
	l := lab.Start(t)
	dir := t.TempDir()
	for _, name := range []string{"iptables", "iptables-restore"} {
		script := fmt.Sprintf("#!/bin/sh\n[ ! -e %s/hang ] || exec sleep 60\nexec /usr/sbin/%s \"$@\"\n", dir, strings.Replace(name, "iptables", "iptables-nft", 1))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o := options("iptables-nft")
	o.Location = filepath.Join(dir, "iptables")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	on(t, l, func() error {
		f, err := NewIPTables(ctx, o, lab.WANDev, t.Logf)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "hang"), nil, 0o644); err != nil {
			return err
		}
		time.AfterFunc(100*time.Millisecond, cancel)
		if err := f.Sync(home, nil); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("Sync while the daemon ends: %v", err)
		}
		if err := os.Remove(filepath.Join(dir, "hang")); err != nil {
			return err
		}
		return f.Close()
	})
}

// TestForeignJump: a rule of the administrator that leads to our chain stays,
// and holds nothing up.
func TestForeignJump(t *testing.T) {
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		f, err := open(t, l, options(v))
		if err != nil {
			t.Fatal(err)
		}
		on(t, l, func() error { return f.Sync(home, []portmap.Mapping{web}) })
		l.Router.Run(t, v, "-I", "FORWARD", "-i", lab.WANDev, "-m", "comment", "--comment", "my \"own\"", "-j", "UPNPD")
		on(t, l, f.Close)
		got := l.Rules(v)
		if strings.Contains(got, "DNAT") || !strings.Contains(got, "-j UPNPD\n") || strings.Contains(got, "-A FORWARD -j UPNPD") {
			t.Errorf("after Close:\n%s", got)
		}
		if f, err = open(t, l, options(v)); err != nil {
			t.Fatal(err)
		}
		on(t, l, func() error { return f.Sync(home, []portmap.Mapping{web}) })
		on(t, l, f.Close)
	})
}
