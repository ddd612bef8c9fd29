package firewall

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

var update = flag.Bool("update", false, "write the golden rulesets anew")

// openNFT makes the backend on the lab's router.
func openNFT(t *testing.T, l *lab.Lab) *NFTables {
	t.Helper()
	var f *NFTables
	on(t, l, func() (err error) {
		if f, err = NewNFTables(lab.WANDev, portmap.BootTime, t.Logf); err != nil {
			return err
		}
		return f.Start()
	})
	return f
}

// leased is a mapping with a lease from now.
func leased(m portmap.Mapping, lease time.Duration) portmap.Mapping {
	m.Deadline = portmap.BootTime() + lease
	return m
}

var changing = regexp.MustCompile(`(expires|timeout) [0-9hdms]+|counter packets \d+ bytes \d+`)

// ruleset is `nft list ruleset` without what changes by itself.
func nftRuleset(t *testing.T, l *lab.Lab) string {
	t.Helper()
	return changing.ReplaceAllStringFunc(l.Router.Run(t, "nft", "list", "ruleset"), func(s string) string {
		word, _, _ := strings.Cut(s, " ")
		return word + " ..."
	})
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the ruleset is not as in %s:\n%s", path, got)
	}
}

// TestNFTRuleset: the whole table as text, and applied twice it is equal.
func TestNFTRuleset(t *testing.T) {
	l := lab.Start(t)
	before := nftRuleset(t, l)
	f := openNFT(t, l)
	week := leased(web, 604800*time.Second)
	all := []portmap.Mapping{week, only(week, "11.0.0.9")}
	on(t, l, func() error { return f.Sync(home, all) })
	once := nftRuleset(t, l)
	golden(t, "upnpd.nft", once)
	on(t, l, func() error { return f.Sync(home, all) })
	if twice := nftRuleset(t, l); twice != once {
		t.Errorf("applied twice:\n%s\nwant\n%s", twice, once)
	}

	// Single changes make what Sync makes.
	on(t, l, func() error { return f.Sync(home, nil) })
	empty := nftRuleset(t, l)
	for i := range all {
		on(t, l, func() error { return f.Change(nil, &all[i]) })
	}
	if got := nftRuleset(t, l); got != once {
		t.Errorf("changes made\n%s\nSync made\n%s", got, once)
	}
	on(t, l, func() error { return f.Change(all, nil) })
	if got := nftRuleset(t, l); got != empty {
		t.Errorf("after deletion\n%s\nwant\n%s", got, empty)
	}
	on(t, l, f.Close)
	if got := nftRuleset(t, l); got != before {
		t.Errorf("after Close\n%s\nwant\n%s", got, before)
	}
}

// TestNFTSources: of the mappings that share a client's port, the oldest gives
// the source port, and the next follows it.
func TestNFTSources(t *testing.T) {
	one, two := leased(web, time.Hour), leased(web, time.Hour)
	two.ExternalPort = 18081
	s := newElements()
	step := func(remove []portmap.Mapping, add *portmap.Mapping, want ...uint16) {
		t.Helper()
		s.commit(s.change(home, remove, add))
		var got []uint16
		for _, e := range s.all(snat4) {
			got = append(got, e.to.Port())
		}
		if len(got) != len(want) || len(got) == 1 && got[0] != want[0] {
			t.Errorf("source ports %v, want %v", got, want)
		}
	}
	renewed := one
	renewed.Deadline += time.Minute
	step(nil, &one, 18080)
	step(nil, &two, 18080)
	step([]portmap.Mapping{one}, &renewed, 18080) // keeps its place
	step([]portmap.Mapping{renewed}, nil, 18081)
	step(nil, &one, 18081)
	step([]portmap.Mapping{one, two}, nil) // both at once
	if len(s.active)+len(s.sources) != 0 {
		t.Errorf("left: %+v", s)
	}
}

// TestNFTRepair: Sync makes the kernel right whatever somebody did to it.
func TestNFTRepair(t *testing.T) {
	l := lab.Start(t)
	f := openNFT(t, l)
	week := leased(web, 604800*time.Second)
	all := []portmap.Mapping{week, only(week, "11.0.0.9")}
	on(t, l, func() error { return f.Sync(home, all) })
	once := nftRuleset(t, l)
	for _, damage := range []string{
		"flush ruleset",
		"delete table inet upnpd",
		"flush map inet upnpd dnat4",
		"delete element inet upnpd dnat4 { tcp . 18080 : 192.168.77.10 . 8080 }",
		"flush chain inet upnpd prerouting",
		"add element inet upnpd dnat4 { udp . 1 : 192.168.77.20 . 1 }",
		"delete element inet upnpd ext4 { 11.0.0.2 }",
		"add rule inet upnpd prerouting accept",
	} {
		l.Router.Run(t, "nft", damage)
		on(t, l, func() error { return f.Sync(home, all) })
		if got := nftRuleset(t, l); got != once {
			t.Errorf("after %q and Sync\n%s\nwant\n%s", damage, got, once)
		}
	}
	l.Router.Run(t, "nft", "delete table inet upnpd")
	on(t, l, func() error {
		if err := f.Change(all[:1], nil); err == nil {
			t.Error("a change without the table: no error")
		}
		return f.Sync(home, all)
	})
	if got := nftRuleset(t, l); got != once {
		t.Errorf("after a refused change and Sync:\n%s", got)
	}
	on(t, l, f.Close)
}

// TestNFTMany: thousands of mappings, more than fit into one message.
func TestNFTMany(t *testing.T) {
	l := lab.Start(t)
	f := openNFT(t, l)
	var all []portmap.Mapping
	for i := range 3000 {
		m := leased(web, time.Hour)
		m.ExternalPort, m.InternalPort = uint16(20000+i), uint16(20000+i)
		all = append(all, m)
	}
	count := func() int {
		return strings.Count(l.Router.Run(t, "nft", "list", "map", "inet", "upnpd", "dnat4"), " : 192.168.77.10 . ")
	}
	on(t, l, func() error { return f.Sync(home, all) })
	if got := count(); got != len(all) {
		t.Errorf("%d elements, want %d", got, len(all))
	}
	on(t, l, func() error { return f.Sync(home, all[:1500]) })
	if got := count(); got != 1500 {
		t.Errorf("%d elements, want 1500", got)
	}
	moved := home
	moved.External = netip.MustParseAddr("11.0.0.77")
	on(t, l, func() error { return f.Sync(moved, all[:1500]) })
	if got := strings.Count(l.Router.Run(t, "nft", "list", "map", "inet", "upnpd", "snat4"), " : 11.0.0.77 . "); got != 1500 {
		t.Errorf("%d sources with the new address, want 1500", got)
	}
	on(t, l, f.Close)
}

// TestNFTCounters: new connections are counted, across renewals, repairs and runs.
func TestNFTCounters(t *testing.T) {
	l := lab.Start(t)
	if err := l.Masquerade(lab.Nftables); err != nil {
		t.Fatal(err)
	}
	if _, err := l.LAN1.EchoTCP(8080); err != nil {
		t.Fatal(err)
	}
	f := openNFT(t, l)
	m := leased(web, time.Hour)
	on(t, l, func() error { return f.Sync(home, []portmap.Mapping{m}) })
	connect := func(times int) {
		t.Helper()
		for range times {
			if _, err := l.ReachTCP(l.Internet, lab.WANAddr+":18080", 2*time.Second); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := func(when string, n uint64) {
		t.Helper()
		on(t, l, func() error {
			counters, err := f.Packets()
			if got := counters[m.Key]; got != n {
				t.Errorf("%s: %d connections counted, want %d", when, got, n)
			}
			return err
		})
	}
	want("at first", 0)
	connect(3)
	want("after connections", 3)
	renewed := m
	renewed.Deadline += time.Minute
	on(t, l, func() error { return f.Change([]portmap.Mapping{m}, &renewed) })
	want("after a renewal", 3)
	connect(2)
	want("after further connections", 5)
	again := renewed
	again.Deadline += time.Hour
	on(t, l, func() error { return f.Sync(home, []portmap.Mapping{again}) })
	want("after a Sync that wrote the element anew", 5)
	killed := f
	t.Cleanup(func() { killed.inForce.flows.Close(); killed.disconnect() })
	f = openNFT(t, l)
	on(t, l, func() error { return f.Sync(home, []portmap.Mapping{again}) })
	want("for the next run", 5)
	on(t, l, func() error { return f.Change([]portmap.Mapping{again}, nil) })
	on(t, l, func() error { return f.Change(nil, &again) })
	want("for the next mapping of the port", 0)
	on(t, l, f.Close)
}

// TestNFTExpiry: the kernel ends a lease by itself, though nobody is there.
func TestNFTExpiry(t *testing.T) {
	l := lab.Start(t)
	f := openNFT(t, l)
	m := leased(web, time.Second-grace) // the grace is as long
	on(t, l, func() error { return f.Sync(home, []portmap.Mapping{m}) })
	listed := func() bool {
		return strings.Contains(l.Router.Run(t, "nft", "list", "map", "inet", "upnpd", "dnat4"), "18080")
	}
	if !listed() {
		t.Fatal("the element is not there")
	}
	for end := time.Now().Add(10 * time.Second); listed(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the kernel still has it 10 s after its end")
		}
	}
	on(t, l, f.Close)
}
