//go:build go1.25

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/portmap/portmaptest"
	"github.com/linux-igd/upnpd/internal/wan"
)

// Two hosts, and how long idle_timeout is here. Each look is an eighth of that
// after the last.
var (
	ann = netip.MustParseAddr("192.168.77.10")
	bob = netip.MustParseAddr("192.168.77.20")
)

const (
	idle  = 80 * time.Second
	looks = idle / 8
)

// vanishing is a table that is watched, with neighbours and counters that are
// played.
type vanishing struct {
	*portmap.Table
	fw  *portmaptest.Firewall
	log []string // of the table and of the watch

	mu       sync.Mutex
	states   map[netip.Addr]wan.NeighborState
	packets  map[portmap.Key]uint64
	err      error // of Neighbors
	countErr error // of Packets
	reads    int
	asked    []netip.Addr
	cut      bool // the LAN has no link
}

func (v *vanishing) State() wan.State {
	v.mu.Lock()
	defer v.mu.Unlock()
	return wan.State{LANs: []wan.LAN{{Name: "br-lan", Index: 3, Up: !v.cut, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.77.1/24")}}}}
}

// counted is a kernel with the packets of vanishing.
type counted struct {
	*portmaptest.Firewall
	v *vanishing
}

func (f counted) Packets() (map[portmap.Key]uint64, error) {
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	all := map[portmap.Key]uint64{}
	for _, m := range f.Mappings() {
		if m.Enabled {
			all[m.Key] = f.v.packets[m.Key]
		}
	}
	return all, f.v.countErr
}

func (v *vanishing) Neighbors() (all []wan.Neighbor, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reads++
	for a, s := range v.states {
		all = append(all, wan.Neighbor{Addr: a, State: s})
	}
	return all, v.err
}

func (v *vanishing) Resolve(a netip.Addr) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked = append(v.asked, a)
	return errors.New("nobody looks at this error")
}

func (v *vanishing) RouteDevice(netip.Addr) (string, error) { return "", nil }
func (v *vanishing) SameHost(a, b netip.Addr) bool          { return false }
func (v *vanishing) SameLAN(to, from netip.Addr) bool       { return to != from }

// set changes what is played.
func (v *vanishing) set(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
}

func (v *vanishing) is(a netip.Addr, s wan.NeighborState) { v.set(func() { v.states[a] = s }) }

// add maps a TCP port for a host.
func (v *vanishing) add(t *testing.T, a netip.Addr, port uint16, enabled bool) portmap.Key {
	t.Helper()
	k := portmap.Key{Protocol: portmap.TCP, ExternalPort: port}
	_, err := v.Map(portmap.Request{From: a, Lease: 24 * time.Hour,
		Mapping: portmap.Mapping{Key: k, Client: a, InternalPort: port, Enabled: enabled, Origin: portmap.UPnP}})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// ports are those that are mapped.
func (v *vanishing) ports() (all []uint16) {
	for _, m := range v.List() {
		all = append(all, m.ExternalPort)
	}
	return all
}

// after sleeps and wants these ports then.
func (v *vanishing) after(t *testing.T, d time.Duration, want ...uint16) {
	t.Helper()
	time.Sleep(d)
	synctest.Wait()
	if got := v.ports(); !slices.Equal(got, want) {
		t.Errorf("mapped are %v, want %v", got, want)
	}
}

func watched(t *testing.T, body func(*testing.T, *vanishing)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		v := &vanishing{fw: portmaptest.New(t), states: map[netip.Addr]wan.NeighborState{}, packets: map[portmap.Key]uint64{}}
		began := time.Now()
		now := func() time.Duration { return time.Since(began) }
		logf := func(format string, args ...any) {
			v.set(func() { v.log = append(v.log, fmt.Sprintf(format, args...)) })
		}
		v.Table = portmap.New(portmap.Config{
			Firewall: counted{v.fw, v}, Now: now, Logf: logf,
			Policy: portmap.Policy{Secure: true, MaxLease: 24 * time.Hour, MaxMappings: 10, MaxPerClient: 10},
			InUse:  func(portmap.Protocol, uint16) (bool, error) { return false, nil },
		})
		v.SetNetwork(portmap.Network{External: netip.MustParseAddr("11.0.0.2"), LANs: []netip.Prefix{netip.MustParsePrefix("192.168.77.1/24")}})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			(&vanished{table: v.Table, routing: v, now: now, idle: idle}).run(ctx, logf)
		}()
		time.Sleep(time.Millisecond) // looks do not come at the moments of the test
		body(t, v)
		cancel()
		<-done
	})
}

// wantLog wants the words in that many lines.
func (v *vanishing) wantLog(t *testing.T, words string, times int) {
	t.Helper()
	if n := strings.Count(strings.Join(v.log, "\n"), words); n != times {
		t.Errorf("%q is %d times in the log, want %d:\n%s", words, n, times, strings.Join(v.log, "\n"))
	}
}

const left = "its host has left the LAN: no answer and no new connection for 80 s"

// TestVanishedHost: what belongs to a host that does not answer for idle_timeout is
// removed and logged; others' mappings stay, and those of hosts of which the kernel
// knows nothing (issue 4, point 4).
func TestVanishedHost(t *testing.T) {
	watched(t, func(t *testing.T, v *vanishing) {
		v.is(ann, wan.NeighborReachable)
		v.add(t, ann, 5000, true)
		v.add(t, bob, 6000, true) // not in the neighbour table
		v.add(t, ann, 5001, true)
		v.add(t, ann, 5002, false)
		v.after(t, time.Hour, 5000, 6000, 5001, 5002)
		for _, a := range []netip.Addr{ann, bob} {
			if !slices.Contains(v.asked, a) {
				t.Errorf("the kernel was not told to ask %v", a)
			}
		}
		v.is(ann, wan.NeighborFailed)
		v.after(t, idle, 5000, 6000, 5001, 5002) // the first look that sees it comes later
		v.after(t, 2*looks, 6000)
		v.wantLog(t, "Proto:TCP Port:5000 ("+left+")", 1)
		v.wantLog(t, "Proto:TCP Port:5001 ("+left+")", 1)
		v.wantLog(t, "Proto:TCP Port:5002 ("+left+")", 1)
		if got := v.fw.Mappings(); len(got) != 1 {
			t.Errorf("the kernel has %v", got)
		}
		v.add(t, ann, 5000, true) // it is back, and asks, but the entry is the old one
		v.is(ann, wan.NeighborReachable)
		v.is(bob, wan.NeighborFailed)
		v.after(t, idle+2*looks, 5000)
		v.after(t, time.Hour, 5000)
	})
}

// TestHostComesBack: each answer is a new beginning; that the kernel asks again is
// none.
func TestHostComesBack(t *testing.T) {
	watched(t, func(t *testing.T, v *vanishing) {
		v.add(t, ann, 5000, true)
		for range 5 {
			v.is(ann, wan.NeighborFailed)
			v.after(t, idle-looks, 5000)
			v.is(ann, wan.NeighborReachable)
			v.after(t, looks, 5000)
		}
		v.is(ann, wan.NeighborFailed)
		v.after(t, idle/2, 5000)
		v.is(ann, wan.NeighborUnknown)
		v.after(t, idle/2, 5000)
		v.after(t, 2*looks)
		v.wantLog(t, left, 1)
	})
}

// TestPacketsRestartTheWait: of the mapping that they came for.
func TestPacketsRestartTheWait(t *testing.T) {
	watched(t, func(t *testing.T, v *vanishing) {
		k := v.add(t, ann, 5000, true)
		v.set(func() { v.packets[k] = 7 }) // of old
		v.add(t, ann, 5001, true)
		v.is(ann, wan.NeighborFailed)
		v.after(t, idle/2, 5000, 5001)
		v.set(func() { v.packets[k]++ })
		v.after(t, idle/2+2*looks, 5000)
		v.after(t, idle/2-2*looks, 5000)
		v.after(t, 2*looks)
		v.wantLog(t, left, 2)
	})
}

// TestLANDown: when the LAN has no link, as while a switch starts, nobody has left
// it; the wait begins anew.
func TestLANDown(t *testing.T) {
	watched(t, func(t *testing.T, v *vanishing) {
		v.add(t, ann, 5000, true)
		v.is(ann, wan.NeighborFailed)
		v.after(t, idle/2, 5000)
		v.set(func() { v.cut = true })
		v.after(t, time.Hour, 5000)
		v.set(func() { v.cut = false })
		v.after(t, idle, 5000)
		v.after(t, 2*looks)
	})
}

// TestNothingToWatch: while there is no mapping, nothing is asked.
func TestNothingToWatch(t *testing.T) {
	watched(t, func(t *testing.T, v *vanishing) {
		v.is(ann, wan.NeighborFailed)
		v.after(t, time.Hour)
		v.add(t, ann, 5000, true)
		v.after(t, idle, 5000)
		v.after(t, 2*looks)
		reads, asked := v.reads, len(v.asked)
		v.after(t, time.Hour)
		if v.reads != reads || len(v.asked) != asked || reads == 0 || reads > 11 {
			t.Errorf("the neighbours were read %d times and then %d, asked %d and then %d", reads, v.reads-reads, asked, len(v.asked)-asked)
		}
		v.add(t, ann, 5000, true) // what was noted of it before counts no more
		v.after(t, idle, 5000)
		v.after(t, 2*looks)
	})
}

// TestWatchFails: once a spell it is said; nothing is removed for want of
// knowledge, and what the kernel does not let go of is removed later.
func TestWatchFails(t *testing.T) {
	watched(t, func(t *testing.T, v *vanishing) {
		const cannot = "idle_timeout: cannot look for hosts that have left: "
		v.add(t, ann, 5000, true)
		v.is(ann, wan.NeighborFailed)
		v.set(func() { v.err = errors.New("netlink is gone") })
		v.after(t, time.Hour, 5000)
		v.wantLog(t, cannot+"netlink is gone", 1)
		v.set(func() { v.err, v.countErr = nil, errors.New("no counters") })
		v.after(t, time.Hour, 5000)
		v.wantLog(t, cannot, 1) // the same spell
		v.set(func() { v.countErr = nil })
		v.after(t, looks, 5000)
		v.fw.Break(true)
		v.after(t, time.Hour, 5000)
		v.wantLog(t, cannot, 2)
		v.fw.Break(false)
		v.after(t, looks)
		v.wantLog(t, left, 1)
	})
}
