package portmap_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/portmap/portmaptest"
)

// TestConflictMatrix walks all of SPEC WIP-2: one mapping is there, another is
// asked for.
func TestConflictMatrix(t *testing.T) {
	anyHost := netip.Addr{}
	for _, protocol := range []portmap.Protocol{portmap.TCP, portmap.UDP} {
		for _, port := range []uint16{5000, 5001} {
			for _, has := range []netip.Addr{anyHost, peer1} {
				for _, wants := range []netip.Addr{anyHost, peer1, peer2} {
					for _, client := range []netip.Addr{ann, bob} {
						w := newWorld(t, nil)
						first := ask(ann, 5000)
						first.RemoteHost = has
						there := w.mustMap(first)

						second := ask(client, port)
						second.Protocol, second.RemoteHost = protocol, wants
						second.InternalPort, second.Description, second.Enabled, second.Lease = 6000, "new", false, time.Minute

						name := fmt.Sprintf("%v %d from %v to %v", protocol, port, wants, client)
						samePort := protocol == portmap.TCP && port == 5000
						if samePort && client != ann { // 718, whatever the remote hosts
							w.refused(second, portmap.ErrConflict)
							continue
						}
						m := w.mustMap(second)
						want := []portmap.Mapping{there, m}
						if samePort && has == wants { // overwritten
							want = want[1:]
						}
						if !slices.Equal(w.List(), want) {
							t.Errorf("%s: table %+v, want %+v", name, w.List(), want)
						}
						second.Deadline = w.clock + time.Minute
						if m != second.Mapping {
							t.Errorf("%s: got %+v, want %+v", name, m, second.Mapping)
						}
					}
				}
			}
		}
	}
}

// TestConflictWithMany: one client may hold a port for several remote hosts,
// and another gets it only when the last of them is gone (WIP-2).
func TestConflictWithMany(t *testing.T) {
	w := newWorld(t, nil)
	hosts := []netip.Addr{peer1, {}, peer2}
	for _, h := range hosts {
		req := ask(ann, 5000)
		req.RemoteHost = h
		w.mustMap(req)
	}
	theirs := ask(bob, 5000)
	theirs.RemoteHost = peer3
	for i, h := range hosts {
		w.refused(theirs, portmap.ErrConflict)
		if w.Len() != len(hosts)-i {
			t.Errorf("%d mappings, want %d", w.Len(), len(hosts)-i)
		}
		if err := w.Unmap(key(portmap.TCP, 5000, h), ann); err != nil {
			t.Error(err)
		}
	}
	w.mustMap(theirs)
}

// TestLookup: RemoteHost, ExternalPort and Protocol name a mapping (WIP-1),
// and "" finds only the wildcard (WIP-18).
func TestLookup(t *testing.T) {
	w := newWorld(t, nil)
	req := ask(ann, 5000)
	req.RemoteHost = peer1
	m := w.mustMap(req)
	if got, err := w.Lookup(m.Key); err != nil || got != m {
		t.Errorf("%+v, %v", got, err)
	}
	for _, k := range []portmap.Key{
		key(portmap.UDP, 5000, peer1), key(portmap.TCP, 5001, peer1),
		key(portmap.TCP, 5000, netip.Addr{}), key(portmap.TCP, 5000, peer2),
	} {
		if got, err := w.Lookup(k); !errors.Is(err, portmap.ErrNoEntry) || got != (portmap.Mapping{}) {
			t.Errorf("%+v finds %+v, %v", k, got, err)
		}
		if err := w.Unmap(k, ann); !errors.Is(err, portmap.ErrNoEntry) { // WIP-13
			t.Errorf("delete %+v: %v", k, err)
		}
	}
	if w.Len() != 1 {
		t.Error("deleted another mapping")
	}
}

// TestNumbering: indexes run from 0 in the order of making, without gaps after
// a deletion, and an overwritten mapping keeps its place (WIP-17, WIP-13).
func TestNumbering(t *testing.T) {
	w := newWorld(t, nil)
	for port := uint16(5000); port < 5005; port++ {
		w.mustMap(ask(ann, port))
	}
	w.mustMap(ask(ann, 5003))
	for _, port := range []uint16{5000, 5002} {
		if err := w.Unmap(key(portmap.TCP, port, netip.Addr{}), ann); err != nil {
			t.Fatal(err)
		}
	}
	w.mustMap(ask(ann, 5000))
	var got []uint16
	for i := 0; ; i++ {
		m, err := w.At(i)
		if err != nil {
			if !errors.Is(err, portmap.ErrNoEntry) {
				t.Error(err)
			}
			break
		}
		got = append(got, m.ExternalPort)
	}
	if want := []uint16{5001, 5003, 5004, 5000}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, i := range []int{-1, 4, 1 << 40} {
		if _, err := w.At(i); !errors.Is(err, portmap.ErrNoEntry) {
			t.Errorf("index %d: %v", i, err)
		}
	}
	if w.Len() != 4 {
		t.Errorf("%d mappings", w.Len())
	}
}

// TestApart: without secure a host speaks for the hosts of its own LAN, and not for
// others (issue 8, point 2).
func TestApart(t *testing.T) {
	w := newWorld(t, func(c *portmap.Config) {
		c.Policy.Secure, c.SameLAN = false, func(to, from netip.Addr) bool { return to == ann && from == bob }
	})
	forBob := ask(bob, 5000)
	forBob.From = ann
	w.refused(forBob, portmap.ErrNotLANHost)
	if _, err := w.MapAny(forBob); !errors.Is(err, portmap.ErrNotLANHost) {
		t.Errorf("MapAny: %v", err)
	}
	w.mustMap(ask(bob, 5000))
	if err := w.Unmap(forBob.Key, ann); !errors.Is(err, portmap.ErrNotAuthorized) || w.Len() != 1 {
		t.Errorf("ann deletes bob's: %v", err)
	}
	forAnn := ask(ann, 5001)
	forAnn.From = bob
	w.mustMap(forAnn)
	if err := w.Unmap(forAnn.Key, bob); err != nil {
		t.Errorf("bob deletes ann's: %v", err)
	}
	w.checkKernel()
}

// TestOwner: with secure, a host maps, changes and deletes only its own
// (DESIGN "Secure by default").
func TestOwner(t *testing.T) {
	forAnn := ask(ann, 5000)
	forAnn.From = bob
	for _, secure := range []bool{true, false} {
		w := newWorld(t, func(c *portmap.Config) { c.Policy.Secure = secure })
		if secure {
			w.refused(forAnn, portmap.ErrNotAuthorized)
			w.mustMap(ask(ann, 5000))
			w.refused(forAnn, portmap.ErrNotAuthorized) // no overwriting either
		} else {
			w.mustMap(forAnn)
		}
		err := w.Unmap(forAnn.Key, bob)
		if secure != errors.Is(err, portmap.ErrNotAuthorized) || secure != (w.Len() == 1) {
			t.Errorf("secure %v: bob deletes ann's mapping: %v", secure, err)
		}
		if !secure {
			continue
		}
		if last := w.log[len(w.log)-1]; last != "refused 192.168.1.11: delete TCP port 5000: not authorized: it belongs to 192.168.1.10" {
			t.Errorf("log %q", last)
		}
		if err := w.Unmap(forAnn.Key, ann); err != nil || w.Len() != 0 {
			t.Errorf("ann deletes hers: %v", err)
		}
		w.checkKernel()
	}
}

// TestNoPort: neither port 0 nor a protocol other than TCP and UDP gets
// through, whatever the rules say (WIP-6, WIP-7, WIP-10).
func TestNoPort(t *testing.T) {
	w := newWorld(t, func(c *portmap.Config) {
		all := portmap.PortRange{Last: 65535}
		c.Policy.Rules = []portmap.Rule{{Allow: true, External: all, Internal: all, Client: netip.MustParsePrefix("0.0.0.0/0")}}
	})
	for _, change := range []func(*portmap.Request){
		func(r *portmap.Request) { r.ExternalPort = 0 },
		func(r *portmap.Request) { r.InternalPort = 0 },
		func(r *portmap.Request) { r.Protocol = 0 },
		func(r *portmap.Request) { r.Protocol = 132 },
	} {
		req := ask(ann, 5000)
		change(&req)
		w.refused(req, portmap.ErrDenied)
	}
}

// TestQuotas: the table and each client's share are bounded; what is replaced
// or deleted does not count twice.
func TestQuotas(t *testing.T) {
	w := newWorld(t, func(c *portmap.Config) { c.Policy.MaxMappings, c.Policy.MaxPerClient = 5, 3 })
	for port := uint16(5000); port < 5003; port++ {
		w.mustMap(ask(ann, port))
	}
	w.refused(ask(ann, 5003), portmap.ErrFull)
	w.mustMap(ask(ann, 5002)) // replaces
	w.mustMap(ask(bob, 6000))
	w.mustMap(ask(bob, 6001))
	w.refused(ask(bob, 6002), portmap.ErrFull) // the table's
	if err := w.Unmap(key(portmap.TCP, 5000, netip.Addr{}), ann); err != nil {
		t.Fatal(err)
	}
	w.mustMap(ask(bob, 6002))
	w.refused(ask(ann, 5000), portmap.ErrFull)
	for port := uint16(6000); port < 6002; port++ {
		if err := w.Unmap(key(portmap.TCP, port, netip.Addr{}), bob); err != nil {
			t.Fatal(err)
		}
	}
	w.mustMap(ask(bob, 6000))
	w.mustMap(ask(bob, 6001))
	w.refused(ask(bob, 6003), portmap.ErrFull) // the one that stayed counts
	w.Flush()
	for port := uint16(5000); port < 5003; port++ {
		w.mustMap(ask(ann, port)) // nothing is counted after a flush
	}

	p := policy()
	p.MaxMappings, p.MaxPerClient = 1, 1
	w.SetPolicy(p)
	if w.Len() != 3 {
		t.Error("SetPolicy ended mappings")
	}
	w.mustMap(ask(ann, 5000)) // renewals go on
	w.refused(ask(bob, 6000), portmap.ErrFull)
}

// TestInUse: ports of the router itself are refused (WIP-11), but a mapping
// that exists can be renewed.
func TestInUse(t *testing.T) {
	broken := errors.New("no /proc")
	var fail error
	var asked []string
	w := newWorld(t, func(c *portmap.Config) {
		inUse := c.InUse
		c.InUse = func(p portmap.Protocol, port uint16) (bool, error) {
			asked = append(asked, fmt.Sprint(p, port))
			used, _ := inUse(p, port)
			return used, fail
		}
	})
	w.mustMap(ask(ann, 5001))
	w.used[5000], w.used[5001] = true, true
	w.refused(ask(ann, 5000), portmap.ErrInUse)
	w.mustMap(ask(ann, 5001))
	if want := []string{"TCP 5001", "TCP 5000"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	other := ask(ann, 7000)
	other.InternalPort = 5000 // the router's port is not the host's
	w.mustMap(other)

	fail = broken
	w.refused(ask(ann, 5002), portmap.ErrFirewall)
	if _, err := w.Map(ask(ann, 5002)); !errors.Is(err, broken) {
		t.Errorf("the cause is lost: %v", err)
	}
}

// TestDescription: nothing that forges a line or disturbs a terminal is kept,
// and at most MaxDescription bytes of whole characters (WIP-24).
func TestDescription(t *testing.T) {
	for _, tt := range []struct{ give, want string }{
		{"", ""},
		{"Skype UDP at 192.168.1.10:5000 (2044)", "Skype UDP at 192.168.1.10:5000 (2044)"},
		{"a\r\nTCP:80:1.2.3.4:80\x00\x1b[2J\u0085\x7f", "aTCP:80:1.2.3.4:80[2J"},
		{"<b>&\"'", "<b>&\"'"}, // escaped where it is written
		{"a\xffb\xc3", "ab"},
		{"Küche 厨房 🎮", "Küche 厨房 🎮"},
		{strings.Repeat("x", 256), strings.Repeat("x", 256)},
		{strings.Repeat("x", 3000), strings.Repeat("x", 256)},
		{strings.Repeat("x", 255) + "ü", strings.Repeat("x", 255)},
		{strings.Repeat("x", 254) + "üx", strings.Repeat("x", 254) + "ü"},
		{strings.Repeat("x", 253) + "🎮", strings.Repeat("x", 253)},
		{strings.Repeat("\n", 3000) + "x", "x"},
	} {
		w := newWorld(t, nil)
		req := ask(ann, 5000)
		req.Description = tt.give
		if m := w.mustMap(req); m.Description != tt.want {
			t.Errorf("%.40q: got %q, want %q", tt.give, m.Description, tt.want)
		}
	}
}

// TestNetwork: the kernel follows the network, by one Sync for each change.
func TestNetwork(t *testing.T) {
	w := newWorld(t, nil)
	w.mustMap(ask(ann, 5000))
	if w.fw.Syncs() != 1 || w.fw.External() != home.External {
		t.Errorf("%d syncs, external %v", w.fw.Syncs(), w.fw.External())
	}
	w.SetNetwork(portmap.Network{External: home.External, LANs: slices.Clone(home.LANs)})
	if w.fw.Syncs() != 1 {
		t.Error("a sync without a change")
	}
	moved := portmap.Network{External: netip.MustParseAddr("11.0.0.77"), LANs: home.LANs}
	w.SetNetwork(moved)
	if w.fw.Syncs() != 2 || w.fw.External() != moved.External {
		t.Errorf("moved: %d syncs, external %v", w.fw.Syncs(), w.fw.External())
	}
	self := ask(ann, 5001)
	self.Client, self.From = moved.External, moved.External
	w.refused(self, portmap.ErrNotLANHost)

	// The uplink is gone: what exists stays, and more can be asked for.
	w.SetNetwork(portmap.Network{LANs: home.LANs})
	w.mustMap(ask(ann, 5001))
	// The LAN is renumbered: what exists stays until its lease ends.
	other := portmap.Network{LANs: []netip.Prefix{netip.MustParsePrefix("172.16.0.1/24")}}
	w.SetNetwork(other)
	other.LANs[0] = home.LANs[0] // the table has its own copy
	w.refused(ask(ann, 5002), portmap.ErrNotLANHost)
	if w.Len() != 2 || w.fw.Repairs() != 0 {
		t.Errorf("%d mappings, %d repairs", w.Len(), w.fw.Repairs())
	}
}

// TestReplaceFirewall: another firewall gets everything (HUP).
func TestReplaceFirewall(t *testing.T) {
	w := newWorld(t, nil)
	w.mustMap(ask(ann, 5000))
	w.mustMap(ask(bob, 5001))
	w.ReplaceFirewall(func() portmap.Firewall {
		w.fw.Close()
		w.fw = portmaptest.New(t)
		return w.fw
	})
	w.checkKernel()
	if w.fw.External() != home.External || w.Len() != 2 {
		t.Errorf("external %v, %d mappings", w.fw.External(), w.Len())
	}
	w.mustMap(ask(ann, 5002))
}

// TestFlush ends everything in one call to the kernel (SIGUSR1).
func TestFlush(t *testing.T) {
	w := newWorld(t, nil)
	for port := uint16(5000); port < 5100; port++ {
		w.mustMap(ask(ann, port))
	}
	calls := w.fw.Calls()
	w.Flush()
	w.checkKernel()
	if w.Len() != 0 || w.fw.Calls() != calls+1 {
		t.Errorf("%d mappings left, %d calls", w.Len(), w.fw.Calls()-calls)
	}
	if _, err := w.Lookup(ask(ann, 5000).Key); !errors.Is(err, portmap.ErrNoEntry) {
		t.Error(err)
	}
	w.mustMap(ask(bob, 5000))
}
