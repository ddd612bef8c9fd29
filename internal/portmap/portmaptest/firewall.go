// Package portmaptest has a kernel for tests of everything above
// portmap.Firewall. It holds its caller to that interface's contract and can
// be told to refuse.
package portmaptest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// ErrRefused is what the Firewall says when it was told to refuse.
var ErrRefused = errors.New("refused by the test")

// ErrLost is what Change says of a mapping that Lose took away.
var ErrLost = errors.New("no such rule")

// Firewall is a portmap.Firewall without a kernel. Whatever a kernel would not
// do, or a correct Table never asks, fails the test: adding what is there,
// taking out what is not, two calls at once, a Sync with contradictions, any
// call after Close. Its own methods may be called at any time.
type Firewall struct {
	t    testing.TB
	busy sync.Mutex // held by the one call that is allowed at a time

	mu       sync.Mutex
	network  portmap.Network
	mappings map[portmap.Key]portmap.Mapping
	calls    int
	syncs    int
	repairs  int
	refuse   map[int]bool // calls to refuse, by number
	broken   bool
	closed   bool
	leaves   map[netip.AddrPort]map[netip.AddrPort]uint16
	lost     bool // since the last Sync: what Change finds is no fault of the caller
}

// New makes an empty Firewall that reports misuse to t.
func New(t testing.TB) *Firewall {
	return &Firewall{t: t, mappings: map[portmap.Key]portmap.Mapping{}, refuse: map[int]bool{}, leaves: map[netip.AddrPort]map[netip.AddrPort]uint16{}}
}

// Change is portmap.Firewall's.
func (f *Firewall) Change(remove []portmap.Mapping, add *portmap.Mapping) error {
	f.t.Helper()
	if !f.busy.TryLock() {
		return f.misuse("Change during another call")
	}
	defer f.busy.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call(); err != nil {
		return err
	}
	next := maps.Clone(f.mappings)
	for _, old := range remove {
		has, ok := next[old.Key]
		if !ok && f.lost {
			return ErrLost
		}
		if !ok || has != old {
			return f.misuse("Change takes out %+v, the kernel has %+v", old, has)
		}
		delete(next, old.Key)
	}
	if add != nil {
		if err := f.add(next, *add); err != nil {
			return err
		}
	}
	if len(remove) == 0 && add == nil {
		return f.misuse("Change of nothing")
	}
	f.mappings = next
	return nil
}

// Sync is portmap.Firewall's.
func (f *Firewall) Sync(n portmap.Network, all []portmap.Mapping) error {
	f.t.Helper()
	if !f.busy.TryLock() {
		return f.misuse("Sync during another call")
	}
	defer f.busy.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.call(); err != nil {
		return err
	}
	next := map[portmap.Key]portmap.Mapping{}
	for _, m := range all {
		if err := f.add(next, m); err != nil {
			return err
		}
		if f.mappings[m.Key] != m {
			f.repairs++
		}
	}
	for k := range f.mappings {
		if _, ok := next[k]; !ok {
			f.repairs++
		}
	}
	f.network = portmap.Network{External: n.External, LANs: slices.Clone(n.LANs)}
	f.mappings = next
	f.lost = false
	f.syncs++
	return nil
}

// Packets is portmap.Firewall's: as many for each mapping as its external port.
func (f *Firewall) Packets() (map[portmap.Key]uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, f.misuse("a call after Close")
	}
	all := map[portmap.Key]uint64{}
	for k := range f.mappings {
		all[k] = uint64(k.ExternalPort)
	}
	return all, nil
}

// SourcePort is portmap.Firewall's: what Leaves said.
func (f *Firewall) SourcePort(m *portmap.Mapping) (uint16, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, f.misuse("a call after Close")
	}
	if f.broken {
		return 0, ErrRefused
	}
	return f.leaves[netip.AddrPortFrom(m.Client, m.InternalPort)][netip.AddrPortFrom(m.RemoteHost, m.RemotePort)], nil
}

// Leaves says that there is a connection from a client to a peer, and which
// external port it leaves from.
func (f *Firewall) Leaves(client, peer netip.AddrPort, port uint16) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leaves[client] == nil {
		f.leaves[client] = map[netip.AddrPort]uint16{}
	}
	f.leaves[client][peer] = port
}

// Verify is portmap.Firewall's. It sees what Lose has done.
func (f *Firewall) Verify() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return "", f.misuse("a call after Close")
	case f.lost:
		return "the mappings are lost", nil
	}
	return "", nil
}

// Close empties the kernel. No call may follow.
func (f *Firewall) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mappings = map[portmap.Key]portmap.Mapping{}
	f.closed = true
	return nil
}

// call counts a call and decides whether it is refused.
func (f *Firewall) call() error {
	f.t.Helper()
	if f.closed {
		return f.misuse("a call after Close")
	}
	f.calls++
	if f.broken || f.refuse[f.calls] {
		return ErrRefused
	}
	return nil
}

// add puts m among the mappings as the kernel would.
func (f *Firewall) add(to map[portmap.Key]portmap.Mapping, m portmap.Mapping) error {
	f.t.Helper()
	if _, ok := to[m.Key]; ok {
		return f.misuse("%v is added twice", m)
	}
	for _, o := range to {
		if o.Protocol != m.Protocol || o.Pinhole != m.Pinhole || last(o) < int(m.ExternalPort) || last(m) < int(o.ExternalPort) {
			continue
		}
		if o.Client != m.Client {
			return f.misuse("%v, but the port belongs to %v", m, o.Client) // SPEC WIP-2
		}
		if o.Remote() == m.Remote() && o.RemotePort == m.RemotePort {
			return f.misuse("%v, but %v has elements of it", m, o) // each port of a set is one element
		}
		if m.Enabled && o.Enabled && interval(&m) && interval(&o) && overlap(&m, &o) {
			return f.misuse("%v, but its element overlaps that of %v", m, o) // nftables: EEXIST
		}
	}
	if m.Protocol != portmap.TCP && m.Protocol != portmap.UDP || m.ExternalPort == 0 || m.InternalPort == 0 || !m.Client.IsValid() {
		return f.misuse("%v is no mapping", m)
	}
	switch p, pcp := m.Remote(), m.Origin == portmap.PCP; {
	case m.RemoteBits != 0 && (!pcp || !p.IsValid() || p.IsSingleIP() || p != p.Masked()),
		m.Ports == 1 || m.Ports > 64 || m.Ports != 0 && !pcp || last(m) > 65535 || int(m.InternalPort)+last(m)-int(m.ExternalPort) > 65535:
		return f.misuse("%v is no set of ports or has no filter: %+v", m, m)
	case !m.Pinhole.IsValid() && (!m.Client.Is4() || m.RemotePort != 0 && !pcp || m.ID != 0),
		m.Pinhole.IsValid() && (!m.Client.Is6() || m.Client.Is4In6() || m.Client != m.Pinhole || m.InternalPort != m.ExternalPort || m.ID == 0),
		m.RemoteHost.IsValid() && m.RemoteHost.Is4() != m.Client.Is4():
		return f.misuse("%v is neither a mapping nor a pinhole: %+v", m, m)
	}
	for _, o := range to {
		if m.ID != 0 && o.ID == m.ID {
			return f.misuse("%v has the UniqueID of %v", m, o) // SPEC PIN-8
		}
	}
	to[m.Key] = m
	return nil
}

// interval reports whether nftables has the mapping in a set of intervals.
func interval(m *portmap.Mapping) bool {
	return m.RemoteBits != 0 || m.RemotePort != 0 && !m.Pinhole.IsValid()
}

// overlap reports whether a remote host and port may come through both.
func overlap(m, o *portmap.Mapping) bool {
	p, q := m.Remote(), o.Remote()
	return (m.RemotePort == 0 || o.RemotePort == 0 || m.RemotePort == o.RemotePort) && (!p.IsValid() || !q.IsValid() || p.Overlaps(q))
}

// last is the last external port of a mapping.
func last(m portmap.Mapping) int { return int(m.ExternalPort) + max(1, int(m.Ports)) - 1 }

func (f *Firewall) misuse(format string, args ...any) error {
	f.t.Helper()
	err := fmt.Errorf("firewall: "+format, args...)
	f.t.Error(err)
	return err
}

// Refuse makes the n-th call from now fail with ErrRefused; 1 is the next one.
// A refused call changes nothing.
func (f *Firewall) Refuse(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse[f.calls+n] = true
}

// Break makes every call fail with ErrRefused, until Break(false).
func (f *Firewall) Break(broken bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = broken
}

// Mappings gives what the kernel has, ordered by protocol, external port, pinned
// host and remote host.
func (f *Firewall) Mappings() []portmap.Mapping {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Values(f.mappings), Compare)
}

// Compare orders mappings as Mappings does.
func Compare(a, b portmap.Mapping) int {
	return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.ExternalPort, b.ExternalPort),
		a.Pinhole.Compare(b.Pinhole), a.RemoteHost.Compare(b.RemoteHost), cmp.Compare(a.RemoteBits, b.RemoteBits), cmp.Compare(a.RemotePort, b.RemotePort))
}

// External gives the uplink's address as the last Sync said it.
func (f *Firewall) External() netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.network.External
}

// Calls counts the calls of Change and Sync, the refused ones included.
func (f *Firewall) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Syncs counts the Syncs that were not refused.
func (f *Firewall) Syncs() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.syncs
}

// Repairs counts the mappings that Syncs had to put right. It stays 0 while
// the kernel follows the table by Change alone.
func (f *Firewall) Repairs() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.repairs
}

// Lose makes the kernel forget everything, as after somebody's flush. Until
// the next Sync, a Change of what is not there any more fails with ErrLost.
func (f *Firewall) Lose() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.mappings)
	f.lost = true
}
