package portmaptest

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// recorder catches what would have failed a test.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Helper()           {}
func (r *recorder) Error(args ...any) { r.said = append(r.said, fmt.Sprint(args...)) }

func mapping(client string, port uint16) portmap.Mapping {
	return portmap.Mapping{
		Key:    portmap.Key{Protocol: portmap.TCP, ExternalPort: port},
		Client: netip.MustParseAddr(client), InternalPort: port, Enabled: true,
	}
}

// TestFirewallIsStrict: each misuse fails the test and changes nothing.
func TestFirewallIsStrict(t *testing.T) {
	a, b, other := mapping("10.0.0.1", 5000), mapping("10.0.0.1", 5001), mapping("10.0.0.2", 5000)
	other.RemoteHost = netip.MustParseAddr("11.0.0.9")
	changed := a
	changed.Description = "changed"
	nobody := mapping("10.0.0.1", 0)
	set := func(port, ports uint16, change func(*portmap.Mapping)) func(f *Firewall) error {
		m := mapping("10.0.0.1", port)
		m.Ports, m.Origin = ports, portmap.PCP
		if change != nil {
			change(&m)
		}
		return func(f *Firewall) error { return f.Change(nil, &m) }
	}
	from := func(text string) func(*portmap.Mapping) {
		p := netip.MustParsePrefix(text)
		return func(m *portmap.Mapping) { m.RemoteHost, m.RemoteBits = p.Addr(), uint8(p.Bits()) }
	}
	for name, use := range map[string]func(f *Firewall) error{
		"change of a mapping that it does not have": func(f *Firewall) error { return f.Change([]portmap.Mapping{b}, nil) },
		"change of a mapping that is different":     func(f *Firewall) error { return f.Change([]portmap.Mapping{changed}, nil) },
		"adding one that it has":                    func(f *Firewall) error { return f.Change(nil, &a) },
		"adding another client's port":              func(f *Firewall) error { return f.Change(nil, &other) },
		"adding port 0":                             func(f *Firewall) error { return f.Change(nil, &nobody) },
		"a set over another mapping's element":      set(4998, 3, nil),
		"a filter within another": func(f *Firewall) error {
			wide, one := mapping("10.0.0.1", 5002), mapping("10.0.0.1", 5002)
			wide.Origin, one.Origin = portmap.PCP, portmap.PCP
			from("11.0.0.0/8")(&wide)
			one.RemoteHost, one.RemotePort = netip.MustParseAddr("11.0.0.9"), 5
			return f.Sync(portmap.Network{}, []portmap.Mapping{wide, one})
		},
		"a set into another client's port":    set(4998, 3, func(m *portmap.Mapping) { from("11.0.0.0/8")(m); m.Client = other.Client }),
		"a set of one":                        set(6000, 1, nil),
		"a set of too many":                   set(6000, 65, nil),
		"a set beyond the last port":          set(65535, 2, nil),
		"a set beyond the last internal port": set(6000, 2, func(m *portmap.Mapping) { m.InternalPort = 65535 }),
		"a set by UPnP":                       set(6000, 2, func(m *portmap.Mapping) { m.Origin = portmap.UPnP }),
		"a filter by UPnP":                    set(6000, 0, func(m *portmap.Mapping) { from("11.0.0.0/8")(m); m.Origin = portmap.UPnP }),
		"a filter that is not masked":         set(6000, 0, from("11.0.0.1/8")),
		"a filter of one host":                set(6000, 0, from("11.0.0.1/32")),
		"a filter of IPv6":                    set(6000, 0, from("2001:db8::/32")),
		"a remote port by UPnP":               set(6000, 0, func(m *portmap.Mapping) { m.RemotePort, m.Origin = 5, portmap.UPnP }),
		"nothing":                             func(f *Firewall) error { return f.Change(nil, nil) },
		"sync with a mapping twice":           func(f *Firewall) error { return f.Sync(portmap.Network{}, []portmap.Mapping{a, b, a}) },
		"a call during another": func(f *Firewall) error {
			f.busy.Lock()
			defer f.busy.Unlock()
			return f.Change(nil, &b)
		},
	} {
		r := &recorder{}
		f := New(r)
		if err := f.Change(nil, &a); err != nil {
			t.Fatal(err)
		}
		if err := use(f); err == nil || len(r.said) != 1 {
			t.Errorf("%s: error %v, the test is told %q", name, err, r.said)
		}
		if got := f.Mappings(); len(got) != 1 || got[0] != a {
			t.Errorf("%s: changed the kernel: %v", name, got)
		}
	}
	r := &recorder{}
	f := New(r)
	f.Close()
	if err := f.Sync(portmap.Network{}, nil); err == nil || len(r.said) != 1 {
		t.Errorf("a call after Close: %v, %q", err, r.said)
	}
}

func TestFirewallRefuses(t *testing.T) {
	f := New(t)
	a, b := mapping("10.0.0.1", 5000), mapping("10.0.0.1", 5001)
	f.Refuse(2)
	if err := f.Change(nil, &a); err != nil {
		t.Fatal(err)
	}
	if err := f.Change([]portmap.Mapping{a}, nil); !errors.Is(err, ErrRefused) || len(f.Mappings()) != 1 {
		t.Errorf("the second call: %v, %v", err, f.Mappings())
	}
	f.Break(true)
	for range 3 {
		if err := f.Sync(portmap.Network{}, nil); !errors.Is(err, ErrRefused) || len(f.Mappings()) != 1 {
			t.Errorf("broken: %v, %v", err, f.Mappings())
		}
	}
	f.Break(false)
	f.Lose()
	if err := f.Change([]portmap.Mapping{a}, nil); !errors.Is(err, ErrLost) {
		t.Errorf("after Lose: %v", err)
	}
	n := portmap.Network{External: netip.MustParseAddr("11.0.0.2")}
	if err := f.Sync(n, []portmap.Mapping{b, a}); err != nil || f.Repairs() != 2 || f.External() != n.External {
		t.Errorf("repair: %v, %d repairs, external %v", err, f.Repairs(), f.External())
	}
	if got := f.Mappings(); len(got) != 2 || got[0] != a || got[1] != b {
		t.Errorf("not ordered: %v", got)
	}
	if f.Calls() != 7 || f.Syncs() != 1 {
		t.Errorf("%d calls, %d syncs; want 7 and 1", f.Calls(), f.Syncs())
	}
}

// TestFirewallSets: what sets and filters leave to others is theirs.
func TestFirewallSets(t *testing.T) {
	f := New(t)
	for _, change := range []func(*portmap.Mapping){
		func(m *portmap.Mapping) { m.Ports = 8 },
		func(m *portmap.Mapping) { m.Ports, m.RemoteHost, m.RemoteBits = 8, netip.MustParseAddr("11.0.0.0"), 8 },
		func(m *portmap.Mapping) { m.RemoteHost, m.RemoteBits = netip.MustParseAddr("12.0.0.0"), 16 },
		func(m *portmap.Mapping) { m.RemoteHost, m.RemotePort = netip.MustParseAddr("13.0.0.1"), 5 },
		func(m *portmap.Mapping) { m.RemoteHost, m.RemotePort = netip.MustParseAddr("13.0.0.1"), 6 },
		func(m *portmap.Mapping) { m.RemoteHost = netip.MustParseAddr("13.0.0.1") },
		func(m *portmap.Mapping) { m.ExternalPort += 8 },
		func(m *portmap.Mapping) { m.ExternalPort, m.Ports = m.ExternalPort-64, 64 },
		func(m *portmap.Mapping) { m.Protocol, m.Ports = portmap.UDP, 64 },
	} {
		m := mapping("10.0.0.1", 5000)
		m.Origin = portmap.PCP
		change(&m)
		if err := f.Change(nil, &m); err != nil {
			t.Error(err)
		}
	}
}
