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
	for name, use := range map[string]func(f *Firewall) error{
		"change of a mapping that it does not have": func(f *Firewall) error { return f.Change([]portmap.Mapping{b}, nil) },
		"change of a mapping that is different":     func(f *Firewall) error { return f.Change([]portmap.Mapping{changed}, nil) },
		"adding one that it has":                    func(f *Firewall) error { return f.Change(nil, &a) },
		"adding another client's port":              func(f *Firewall) error { return f.Change(nil, &other) },
		"adding port 0":                             func(f *Firewall) error { return f.Change(nil, &nobody) },
		"nothing":                                   func(f *Firewall) error { return f.Change(nil, nil) },
		"sync with a mapping twice":                 func(f *Firewall) error { return f.Sync(portmap.Network{}, []portmap.Mapping{a, b, a}) },
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
