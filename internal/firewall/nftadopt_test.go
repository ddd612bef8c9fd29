package firewall

import (
	"regexp"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// nftOf is the text of our table, with everything that only the clock changes cut
// out: what it has of an element's time is the one it was written with.
func nftOf(t *testing.T, l *lab.Lab) string {
	t.Helper()
	return regexp.MustCompile(` expires [0-9hdms]+|counter packets \d+ bytes \d+`).
		ReplaceAllString(l.Router.Run(t, "nft", "list", "table", "inet", "upnpd"), "")
}

// takeNFT starts a run that finds that many mappings of an earlier one, and checks
// that the start changes nothing.
func takeNFT(t *testing.T, l *lab.Lab, mappings int) *NFTables {
	t.Helper()
	before := nftOf(t, l)
	f := openNFT(t, l)
	t.Cleanup(func() { f.inForce.flows.Close(); f.disconnect() }) // of a run that is not closed
	if got := nftOf(t, l); got != before {
		t.Errorf("the start made\n%s\nof\n%s", got, before)
	}
	if n := len(f.inForce.mapped); n != mappings {
		t.Errorf("took over %d mappings, want %d", n, mappings)
	}
	return f
}

// TestNFTTakeOver: a stream through a mapping loses no packet, not even one that
// begins a connection, when a run that was killed is followed by another, and its
// element is not touched; a connection through a mapping that is not restored
// ends (issue 4, point 2).
func TestNFTTakeOver(t *testing.T) {
	l := lab.Start(t)
	if _, err := l.LAN2.EchoUDP(8080); err != nil {
		t.Fatal(err)
	}
	kept := []portmap.Mapping{leased(game, time.Hour), leased(web, time.Hour), leased(only(web, "11.0.0.9"), time.Hour)}
	open, from := leased(game, time.Hour), leased(only(game, "11.0.0.1"), time.Hour)
	open.ExternalPort, open.Client = 18081, addr("192.168.77.20")
	from.ExternalPort, from.Client = 18082, addr("192.168.77.20")
	gone := []portmap.Mapping{open, from}

	killed := openNFT(t, l)
	t.Cleanup(func() { killed.inForce.flows.Close(); killed.disconnect() })
	on(t, l, func() error { return killed.Sync(home, kept) })
	want := nftOf(t, l)
	s := newStream(t, l, "11.0.0.2:18080")
	p := newPeer(t, l.Internet, "11.0.0.1:4001")
	packets := func(f *NFTables) (n uint64) {
		t.Helper()
		on(t, l, func() error {
			all, err := f.Packets()
			n = all[game.Key]
			return err
		})
		return n
	}
	until(t, "the stream flows", func() bool { return packets(killed) > 0 })
	f := killed
	for range 5 {
		for i := range gone {
			on(t, l, func() error { return f.Change(nil, &gone[i]) })
		}
		until(t, "the mappings that will be gone are open", func() bool { return p.ask("11.0.0.2:18081") != "" && p.ask("11.0.0.2:18082") != "" })
		counted := packets(f)
		f = takeNFT(t, l, len(kept)+len(gone))
		on(t, l, func() error { return f.Sync(home, kept) })
		until(t, "connections of mappings that are not restored end", func() bool { return p.ask("11.0.0.2:18081")+p.ask("11.0.0.2:18082") == "" })
		if got := nftOf(t, l); got != want {
			t.Errorf("taken over\n%s\nwant\n%s", got, want)
		}
		if n := packets(f); n < counted {
			t.Errorf("%d packets were counted, and now %d", counted, n)
		}
	}
	// A renewal that the lease file knows and the kernel does not yet.
	kept[0].Deadline += time.Hour
	counted := packets(f)
	f = takeNFT(t, l, len(kept))
	on(t, l, func() error { return f.Sync(home, kept) })
	if n := packets(f); n < counted {
		t.Errorf("%d packets were counted, and now %d", counted, n)
	}
	if sent, lost := s.end(t); lost != 0 || sent < 100 {
		t.Errorf("%d of %d datagrams are lost", lost, sent)
	} else {
		t.Logf("%d datagrams", sent)
	}
	on(t, l, f.Close)
}

// TestNFTOtherAddress: when the uplink's address changed while nobody looked, what
// was connected through the old one ends.
func TestNFTOtherAddress(t *testing.T) {
	l := lab.Start(t)
	if _, err := l.LAN1.EchoUDP(8080); err != nil {
		t.Fatal(err)
	}
	all := []portmap.Mapping{leased(game, time.Hour)}
	killed := openNFT(t, l)
	t.Cleanup(func() { killed.inForce.flows.Close(); killed.disconnect() })
	on(t, l, func() error { return killed.Sync(home, all) })
	p := newPeer(t, l.Internet, "11.0.0.1:4001")
	until(t, "connected", func() bool { return p.ask("11.0.0.2:18080") != "" })
	moved := home
	moved.External = addr("11.0.0.77")
	f := takeNFT(t, l, 1)
	on(t, l, func() error { return f.Sync(moved, all) })
	until(t, "the connection at the old address ends", func() bool { return p.ask("11.0.0.2:18080") == "" })

	// A run that ends before its first Sync leaves nothing, either.
	on(t, l, func() error { return f.Sync(home, all) })
	until(t, "connected again", func() bool { return p.ask("11.0.0.2:18080") != "" })
	f = takeNFT(t, l, 1)
	on(t, l, f.Close)
	if p.ask("11.0.0.2:18080") != "" {
		t.Error("the connection goes on after Close")
	}
}

// TestNFTOtherLayout: a table of our name that is built otherwise is replaced.
func TestNFTOtherLayout(t *testing.T) {
	l := lab.Start(t)
	week := leased(web, 604800*time.Second)
	all := []portmap.Mapping{week, only(week, "11.0.0.9")}
	for name, table := range map[string]string{
		"empty":             "",
		"keys":              "set ext4 { type ipv4_addr; elements = { 11.0.0.2 }; }; map dnat4 { type inet_service : ipv4_addr; elements = { 1 : 192.168.77.10 }; };",
		"keys as long":      "set ext4 { type ipv4_addr; elements = { 11.0.0.2 }; }; map dnat4 { type inet_service . inet_proto : ipv4_addr . inet_service; flags timeout; counter; elements = { 1 . tcp : 192.168.77.10 . 1 }; };",
		"families":          "set ext4 { type ipv6_addr; elements = { ::1 }; }; set dnat4from { type ipv6_addr; elements = { ::1 }; };",
		"a chain, no hook":  "chain prerouting { accept; };",
		"another hook":      "chain prerouting { type nat hook output priority 0; };",
		"other rules":       "chain prerouting { type nat hook prerouting priority dstnat + 1; drop; };",
		"a chain too many":  "chain mine { accept; };",
		"dormant":           "flags dormant;",
		"without a counter": "map dnat4 { type inet_proto . inet_service : ipv4_addr . inet_service; flags timeout; elements = { tcp . 1 : 192.168.77.10 . 1 }; };",
	} {
		t.Run(name, func(t *testing.T) {
			l.Router.Run(t, "nft", "table inet upnpd { "+table+" }")
			f := openNFT(t, l)
			on(t, l, func() error { return f.Sync(home, all) })
			if name == "a chain too many" {
				l.Router.Run(t, "nft", "delete chain inet upnpd mine") // emptied, and not ours
			}
			golden(t, "upnpd.nft", nftRuleset(t, l))
			on(t, l, f.Close)
		})
	}
}

// TestEntryMapped: what is read of the elements that an earlier run left.
func TestEntryMapped(t *testing.T) {
	m := only(game, "11.0.0.9")
	for _, tt := range []struct {
		name  string
		entry entry
		want  mapped
	}{
		{"dnat4", dnat(game).entry(0), newMapped(home.External, &game)},
		{"dnat4from", dnat(m).entry(0), newMapped(home.External, &m)},
		{"a short key", entry{key: []byte{6, 0, 0, 0}, value: make([]byte, 8)}, mapped{}},
		{"a long key", entry{key: make([]byte, 16), value: make([]byte, 8)}, mapped{}},
		{"no value", entry{key: make([]byte, 8)}, mapped{}},
		{"nothing", entry{}, mapped{}},
	} {
		if got, ok := tt.entry.mapped(home.External.AsSlice()); ok != (tt.want != mapped{}) || ok && got != tt.want {
			t.Errorf("%s: got %v %v, want %v", tt.name, got, ok, tt.want)
		}
	}
	if _, ok := dnat(game).entry(0).mapped(nil); ok {
		t.Error("a mapping without an address")
	}
}
