package firewall

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// counted checks what a mapping has counted; a PORT_SET has one number.
func counted(t *testing.T, l *lab.Lab, f backend, m portmap.Mapping, want uint64) {
	t.Helper()
	on(t, l, func() error {
		all, err := f.Packets()
		if n, ok := all[m.Key]; n != want || !ok || len(all) != 1 {
			t.Errorf("counted: %v, want %d for %v alone", all, want, m.Key)
		}
		return err
	})
}

// agrees checks that the kernel is as the backend thinks.
func agrees(t *testing.T, l *lab.Lab, f backend) {
	t.Helper()
	on(t, l, func() error {
		said, err := f.Verify()
		if said != "" {
			t.Errorf("the kernel differs: %s", said)
		}
		return err
	})
}

// TestPortSet: each port of a PORT_SET leads to the one with its offset, inward and
// outward (SPEC MAP-16); it counts, is renewed and ends as one.
func TestPortSet(t *testing.T) {
	flowsLab(t, func(t *testing.T, l *lab.Lab, f backend) {
		set := leased(game, time.Hour)
		set.ExternalPort, set.InternalPort, set.Ports, set.Origin = 20000, 30000, 8, portmap.PCP
		for i := range 10 {
			if _, err := l.LAN1.EchoUDP(uint16(29999 + i)); err != nil {
				t.Fatal(err)
			}
		}
		p := newPeer(t, l.Internet, "11.0.0.1:4000")
		reaches := func(when string, ports int) {
			t.Helper()
			for i := -1; i < 9; i++ {
				want := ""
				if i >= 0 && i < ports {
					want = fmt.Sprintf("lan1 192.168.77.10:%d-11.0.0.1:4000", 30000+i)
				}
				to := fmt.Sprintf("11.0.0.2:%d", 20000+i)
				until(t, fmt.Sprintf("%s: %s brings %q", when, to, want), func() bool { return p.ask(to) == want })
			}
		}
		reaches("before", 0)
		on(t, l, func() error { return f.Change(nil, &set) })
		agrees(t, l, f)
		reaches("mapped", 8)
		counted(t, l, f, set, 8)

		renewed := set
		renewed.Deadline += time.Minute
		on(t, l, func() error { return f.Change([]portmap.Mapping{set}, &renewed) })
		counted(t, l, f, set, 8)
		again := renewed
		again.Deadline += time.Minute
		on(t, l, func() error { return f.Sync(home, []portmap.Mapping{again}) })
		agrees(t, l, f)
		reaches("renewed and synced", 8)
		counted(t, l, f, set, 8) // no new connections
		other := newPeer(t, l.Internet, "11.0.0.1:4001")
		until(t, "another peer gets through", func() bool { return other.ask("11.0.0.2:20001") != "" })
		counted(t, l, f, set, 9)

		smaller := again
		smaller.Ports = 3
		on(t, l, func() error { return f.Change([]portmap.Mapping{again}, &smaller) })
		agrees(t, l, f)
		reaches("smaller", 3)
		counted(t, l, f, set, 4) // each port kept its own

		on(t, l, func() error { return f.Change([]portmap.Mapping{smaller}, nil) })
		agrees(t, l, f)
		reaches("removed", 0)
		on(t, l, f.Close)
	})
}

// TestPortSetOutward: what the client sends from its ports leaves from the mapped
// ones; where another mapping is older, from that one's, until it ends.
func TestPortSetOutward(t *testing.T) {
	flowsLab(t, func(t *testing.T, l *lab.Lab, f backend) {
		set := leased(game, time.Hour)
		set.ExternalPort, set.InternalPort, set.Ports = 20000, 30000, 8
		on(t, l, func() error { return f.Change(nil, &set) })
		for i := range 8 {
			p := newPeer(t, l.LAN1, fmt.Sprintf("192.168.77.10:%d", 30000+i))
			want := fmt.Sprintf("internet 11.0.0.1:7777-11.0.0.2:%d", 20000+i)
			if got := p.ask("11.0.0.1:7777"); got != want {
				t.Errorf("from %d: %q, want %q", 30000+i, got, want)
			}
		}
		on(t, l, f.Close)
	})
}

// TestPortSetSources: the ports of a set share sources with others as single ports
// do.
func TestPortSetSources(t *testing.T) {
	older, set := leased(web, time.Hour), leased(web, time.Hour)
	set.ExternalPort, set.InternalPort, set.Ports = 20000, 8079, 3
	s := newElements()
	step := func(remove []portmap.Mapping, add *portmap.Mapping, want ...uint16) {
		t.Helper()
		s.commit(s.change(home, remove, add))
		var got []uint16
		for _, e := range s.all(snat4) {
			got = append(got, e.port, e.to.Port())
		}
		for _, n := range want {
			if !slices.Contains(got, n) {
				t.Errorf("sources %v, want %v", got, want)
			}
		}
		if len(got) != len(want) {
			t.Errorf("sources %v, want %v", got, want)
		}
	}
	step(nil, &older, 8080, 18080)
	step(nil, &set, 8079, 20000, 8080, 18080, 8081, 20002)
	step([]portmap.Mapping{older}, nil, 8079, 20000, 8080, 20001, 8081, 20002)
	step([]portmap.Mapping{set}, nil)
	if len(s.active)+len(s.sources) != 0 {
		t.Errorf("left: %+v", s)
	}
}

// TestPortSetAdopted: another run finds each port, and ends the connections of all
// when it does not want them.
func TestPortSetAdopted(t *testing.T) {
	flowsLab(t, func(t *testing.T, l *lab.Lab, f backend) {
		sets := []portmap.Mapping{leased(game, time.Hour), filtered(21000, "11.0.0.0/24", 0)}
		sets[0].ExternalPort, sets[0].InternalPort, sets[0].Ports = 20000, 8080, 8
		sets[1].Ports = 8
		on(t, l, func() error { return f.Sync(home, sets) })
		p := newPeer(t, l.Internet, "11.0.0.1:4000")
		reached := func() string { return p.ask("11.0.0.2:20000") + p.ask("11.0.0.2:21000") }
		until(t, "the sets work", func() bool { return strings.Count(reached(), "lan1") == 2 })
		var next backend
		var found map[mapped]uint16
		switch f := f.(type) {
		case *NFTables:
			n := openNFT(t, l)
			next, found = n, n.inForce.mapped
			t.Cleanup(func() { f.inForce.flows.Close(); f.disconnect() })
		case *IPTables:
			n, err := open(t, l, f.opts)
			if err != nil {
				t.Fatal(err)
			}
			next, found = n, n.inForce.mapped
			t.Cleanup(func() { f.inForce.flows.Close() })
		}
		want := 0
		for i := range sets {
			for _, one := range single(&sets[i]) {
				want++
				if _, ok := found[newMapped(home.External, &one)]; !ok {
					t.Errorf("not found: %v", one)
				}
			}
		}
		if len(found) != want {
			t.Errorf("%d are found, want %d", len(found), want)
		}
		on(t, l, func() error { return next.Sync(home, nil) })
		until(t, "the connections end", func() bool { return reached() == "" })
		on(t, l, next.Close)
	})
}
