//go:build go1.25

package portmap_test

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/portmap/portmaptest"
)

// model is the table as simply as it can be said: a list, searched each time.
type model struct {
	list   []portmap.Mapping
	lans   []netip.Prefix
	away   map[portmap.Key]bool // pinholes that end at awayAt
	awayAt time.Duration
	policy portmap.Policy
	used   map[uint16]bool
	update uint32
	held   []heldPort
	leaves map[flow]uint16
	now    func() time.Duration
}

// request says what must come of a request that the kernel does not refuse.
func (m *model) request(req portmap.Request) error {
	own, all := m.left(req.Client)
	same := slices.ContainsFunc(m.list, func(o portmap.Mapping) bool { return o.Key == req.Key })
	switch {
	case !slices.ContainsFunc(m.lans, func(p netip.Prefix) bool { return p.Contains(req.Client) }):
		return portmap.ErrNotLANHost
	case (req.From.Is6() || req.Client.Is6()) && min(req.ExternalPort, req.InternalPort) < 1024 && req.From != req.Client:
		return portmap.ErrDenied // whoever it is
	case m.policy.Secure && req.From != req.Client && !((req.From.Is6() || req.Client.Is6()) && annAlone(req.From, req.Client)): // PIN-9
		return portmap.ErrNotAuthorized
	case req.ExternalPort < 1024 || req.InternalPort < 1024:
		return portmap.ErrDenied
	case m.conflict(req):
		return portmap.ErrConflict
	case same:
		return nil
	case all < 1 || own < 1:
		return portmap.ErrFull
	case m.used[req.ExternalPort] && !isPinhole(req.Mapping):
		return portmap.ErrInUse
	}
	return nil
}

// put records a granted mapping: in the place of its Key, or at the end.
func (m *model) put(p portmap.Mapping) {
	for i, o := range m.list {
		if o.Key == p.Key {
			m.list[i] = p
			return
		}
	}
	m.list = append(m.list, p)
}

// drop ends mappings. Those of IPv4 with one deadline end with one change.
func (m *model) drop(ended func(portmap.Mapping) bool) {
	moments := map[time.Duration]bool{}
	m.list = slices.DeleteFunc(m.list, func(o portmap.Mapping) bool {
		end := ended(o)
		if end && !isPinhole(o) {
			moments[o.Deadline] = true
		}
		return end
	})
	m.update += uint32(len(moments))
}

func isPinhole(m portmap.Mapping) bool { return m.Pinhole.IsValid() }

// ofIPv4 gives what GetGenericPortMappingEntry counts.
func (m *model) ofIPv4() []portmap.Mapping { return slices.DeleteFunc(slices.Clone(m.list), isPinhole) }

// all gives the list as the table does: pinholes last.
func (m *model) all() []portmap.Mapping {
	pinned := slices.DeleteFunc(slices.Clone(m.list), func(o portmap.Mapping) bool { return !isPinhole(o) })
	return append(m.ofIPv4(), pinned...)
}

// actor does random things to a table and its model.
type actor struct {
	t      *testing.T
	w      *world
	m      *model
	r      *rand.Rand
	now    func() time.Duration
	broken bool // the kernel refuses everything
	unsure bool // the kernel may refuse a call or two
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func (a *actor) key() portmap.Key {
	return key(pick(a.r, portmap.TCP, portmap.UDP), uint16(1020+a.r.IntN(30)), pick(a.r, netip.Addr{}, netip.Addr{}, peer1, peer2))
}

func (a *actor) client() netip.Addr {
	return pick(a.r, ann, ann, bob, bob, netip.MustParseAddr("10.9.3.4"), netip.MustParseAddr("192.168.9.9"))
}

func (a *actor) mapping() {
	client := a.client()
	req := portmap.Request{
		Mapping: portmap.Mapping{Key: a.key(), Client: client, InternalPort: uint16(1020 + a.r.IntN(30)),
			Enabled: a.r.IntN(4) > 0, Origin: portmap.UPnP, Description: pick(a.r, "", "a", "b")},
		Lease: time.Duration(a.r.IntN(120)) * time.Second, From: client,
	}
	if a.r.IntN(10) == 0 {
		req.From = pick(a.r, a.client(), ann6, bob6) // a control point may have found the gateway by IPv6
	}
	a.ask(req)
}

func (a *actor) ask(req portmap.Request) {
	want := a.m.request(req)
	if want == nil && a.broken {
		want = portmap.ErrFirewall
	}
	got, err := a.w.Map(req)
	if a.unsure && errors.Is(err, portmap.ErrFirewall) {
		return
	}
	if !errors.Is(err, want) {
		a.t.Fatalf("map %+v: %v, want %v; table %v", req, err, want, a.m.list)
	}
	if err != nil {
		return
	}
	lease := req.Lease
	if lease == 0 || lease > a.m.policy.MaxLease {
		lease = a.m.policy.MaxLease
	}
	req.Deadline, req.Owner = a.now()+lease, req.From
	if a.m.policy.Secure {
		req.Owner = req.Client
	}
	if isPinhole(req.Mapping) {
		req.ID = got.ID
		for _, o := range a.m.list { // PIN-5, PIN-8
			if got.ID == 0 || isPinhole(o) && (o.Key == got.Key) != (o.ID == got.ID) {
				a.t.Fatalf("%+v beside %+v", got, o)
			}
		}
	} else {
		a.m.update++
	}
	if got != req.Mapping {
		a.t.Fatalf("map gives %+v, want %+v", got, req.Mapping)
	}
	a.m.put(got)
}

func (a *actor) unmapping() {
	k, from := a.key(), a.client()
	if list := a.m.ofIPv4(); len(list) > 0 && a.r.IntN(2) == 0 {
		o := pick(a.r, list...)
		k, from = o.Key, pick(a.r, o.Client, from, ann6)
	}
	var want error
	i := slices.IndexFunc(a.m.list, func(o portmap.Mapping) bool { return o.Key == k })
	switch {
	case i < 0:
		want = portmap.ErrNoEntry
	case a.m.policy.Secure && a.m.list[i].Client != from && !(from.Is6() && annAlone(a.m.list[i].Client, from)): // PIN-9
		want = portmap.ErrNotAuthorized
	case a.broken:
		want = portmap.ErrFirewall
	}
	err := a.w.Unmap(k, from)
	if a.unsure && errors.Is(err, portmap.ErrFirewall) {
		return
	}
	if !errors.Is(err, want) {
		a.t.Fatalf("unmap %+v by %v: %v, want %v", k, from, err, want)
	}
	if want == nil {
		o := a.m.list[i]
		a.gone(func(m portmap.Mapping) bool { return m == o })
	}
}

// step does one random thing.
func (a *actor) step() {
	switch n := a.r.IntN(100); {
	case n < 20:
		a.mapping()
	case n < 35:
		a.internal()
	case n < 49:
		a.peering()
	case n < 50:
		a.leaving()
	case n < 59:
		a.pinhole()
	case n < 63:
		a.unmapping()
	case n < 69:
		a.unmappingInternal()
	case n < 73:
		a.byID()
	case n < 75:
		pick(a.r, a.unmappingRange, a.unmappingAll)()
	case n < 90:
		after(time.Duration(a.r.IntN(5000)) * time.Millisecond)
	case n < 91:
		after(time.Minute) // also long enough for the repair of the kernel
	case n < 92:
		a.w.Flush()
		if len(a.m.ofIPv4()) > 0 {
			a.m.update++
		}
		a.m.list, a.m.held = nil, nil
	case n < 93:
		a.m.policy.Secure = !a.m.policy.Secure
		a.m.policy.MaxLease = pick(a.r, time.Minute, time.Hour)
		a.w.SetPolicy(a.m.policy)
	case n < 94:
		a.move()
	case n < 95:
		a.unsure = true
		a.w.fw.Refuse(1 + a.r.IntN(3))
	case n < 97:
		a.broken = !a.broken
		a.w.fw.Break(a.broken)
	default:
		a.w.Sync()
	}
	a.m.drop(a.over)
}

// over reports whether a mapping has ended by now.
func (a *actor) over(o portmap.Mapping) bool {
	return o.Deadline <= a.now() || a.m.away[o.Key] && a.m.awayAt <= a.now()
}

// compare holds table, model and, once it had time for repairs, the kernel
// against each other.
func (a *actor) compare(kernel bool) {
	if got := a.w.List(); !slices.Equal(got, a.m.all()) {
		a.t.Fatalf("table\n%v\nmodel\n%v", got, a.m.all())
	}
	if got := a.w.UpdateID(); got != a.m.update {
		a.t.Fatalf("SystemUpdateID %d, want %d", got, a.m.update)
	}
	list := a.m.ofIPv4()
	for i, want := range list {
		at, errAt := a.w.At(i)
		found, errFound := a.w.Lookup(want.Key)
		if errAt != nil || errFound != nil || at != want || found != want {
			a.t.Fatalf("%d: at %+v %v, lookup %+v %v, want %+v", i, at, errAt, found, errFound, want)
		}
	}
	if _, err := a.w.At(len(list)); !errors.Is(err, portmap.ErrNoEntry) || a.w.Len() != len(list) {
		a.t.Fatalf("%d mappings and more: %v", a.w.Len(), err)
	}
	if !kernel {
		return
	}
	want := slices.Clone(a.m.list)
	slices.SortFunc(want, portmaptest.Compare)
	if got := a.w.fw.Mappings(); !slices.Equal(got, want) {
		a.t.Fatalf("kernel\n%v\nmodel\n%v", got, want)
	}
}

// TestModel does thousands of random things, with a kernel that fails at
// times, and compares the table with the model and the kernel.
func TestModel(t *testing.T) {
	for seed := range uint64(20) {
		live(t, func(c *portmap.Config) {
			c.Policy.MaxLease, c.Policy.MaxMappings, c.Policy.MaxPerClient = time.Hour, 15, 5
			c.Logf, c.SameHost = func(string, ...any) {}, annAlone
		}, func(t *testing.T, w *world) {
			w.used[1030], w.used[1031] = true, true
			p := policy()
			p.MaxLease, p.MaxMappings, p.MaxPerClient = time.Hour, 15, 5
			start := time.Now()
			a := &actor{t: t, w: w, m: &model{policy: p, used: w.used, lans: home.LANs, leaves: map[flow]uint16{}}, r: rand.New(rand.NewPCG(seed, 2)),
				now: func() time.Duration { return 1000*time.Second + time.Since(start) }}
			a.m.now = a.now
			for round := range 40 {
				// With failures only the table must be right ...
				for range 20 {
					a.step()
					a.compare(false)
				}
				// ... and the kernel too, within a second after the last of them.
				a.broken, a.unsure = false, false
				w.fw.Break(false)
				after(2 * time.Second)
				w.Sync() // uses up refusals that were still to come
				w.Sync()
				w.Sync()
				after(time.Second)
				a.m.drop(a.over)
				a.compare(true)
				if round%8 == 0 {
					a.restarts(t)
				}
				repairs := w.fw.Repairs()
				// Without failures the kernel follows step by step.
				for range 20 {
					pick(a.r, a.mapping, a.mapping, a.unmapping, a.pinhole, a.internal, a.internal, a.peering, a.peering, a.peering, a.leaving, a.unmappingInternal, a.byID, a.unmappingRange, a.unmappingAll, func() { after(time.Second) })()
					a.m.drop(a.over)
					a.compare(true)
				}
				w.Sync()
				if n := w.fw.Repairs() - repairs; n != 0 {
					t.Fatalf("%d repairs without a failure", n)
				}
			}
			synctest.Wait()
		})
	}
}
