package portmap

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Config is what a Table needs of the rest of the daemon.
type Config struct {
	Firewall Firewall
	Policy   Policy
	// Now is the boot clock, on which leases run.
	Now func() time.Duration
	// InUse reports whether the router itself listens on a port.
	InUse func(Protocol, uint16) (bool, error)
	Logf  func(format string, args ...any)
	// SameHost reports whether two on-link addresses are one host's (SPEC PIN-9).
	// It may take a second, and may call the Table; nil: never.
	SameHost func(a, b netip.Addr) bool
	// SameLAN reports whether an address is a host's on a LAN of from. It is asked
	// where the policy is not Secure, and must not call the Table; nil: always.
	SameLAN func(to, from netip.Addr) bool
	// Decided is told each Decision, and must not call the Table; nil: nobody.
	Decided func(Decision)
	// Changed is called after mappings were made, renewed or ended; nil:
	// nobody.
	Changed func()
	// Flushed is called by Flush, by which PCP's clients lose what they had
	// (ANN-3). It must not call the Table. nil: nobody.
	Flushed func()
}

// Table holds the mappings. Its methods may be called from any goroutine; one
// mutex makes them take turns, the firewall's work included.
type Table struct {
	fw       Firewall
	now      func() time.Duration
	inUse    func(Protocol, uint16) (bool, error)
	logf     func(string, ...any)
	sameHost func(a, b netip.Addr) bool
	sameLAN  func(to, from netip.Addr) bool
	decided  func(Decision)
	observer func()
	flushed  func()
	wake     chan struct{} // tells Run that the next deadline may have changed

	records   sync.Mutex // inside mu, while a list or an entry changes: who reads does not wait for the kernel
	mu        sync.Mutex
	policy    Policy
	network   Network
	placed    bool                 // network is known
	order     []*entry             // as added: what GetGenericPortMappingEntry counts
	pinned    []*entry             // the pinholes, as added
	added     uint64               // entries ever
	ports     map[portKey][]*entry // by external ports, and by those of the clients; those that share an external port differ in where from
	held      map[heldPort]hold    // what nobody else gets yet
	holds     []hold               // all of held, the oldest first
	ids       map[uint16]*entry    // the pinholes by their UniqueID
	lastID    uint16               // the newest UniqueID
	total     int                  // ports mapped, pinned ones included
	pins      int                  // ports pinned
	perClient map[netip.Addr]int
	leases    leaseHeap
	changed   bool          // since the observer was called
	mapped    bool          // the change was one of IPv4 mappings
	updateID  uint32        // SystemUpdateID
	stale     bool          // the kernel may differ from the table
	retryAt   time.Duration // when stale: the next Sync
	awayAt    time.Duration // when not 0: endAway
}

type entry struct {
	Mapping
	lease  int    // index in leases
	number uint64 // rises along Table.order and Table.pinned
	away   bool   // a pinhole to a host that was on a LAN and is not
}

type portKey struct {
	protocol Protocol
	port     uint16
	host     netip.Addr // the zero Addr: ours; or the client, whose own port it is
}

// New makes an empty table. The firewall is told nothing yet: SetNetwork does.
func New(c Config) *Table {
	return &Table{
		fw: c.Firewall, policy: c.Policy, now: c.Now, inUse: c.InUse, logf: c.Logf,
		sameHost: c.SameHost, sameLAN: c.SameLAN, decided: c.Decided, observer: c.Changed, flushed: c.Flushed,
		wake:      make(chan struct{}, 1),
		ports:     map[portKey][]*entry{},
		held:      map[heldPort]hold{},
		ids:       map[uint16]*entry{},
		lastID:    uint16(rand.Uint32()), // nobody holds an ID of an earlier run for one of this
		perClient: map[netip.Addr]int{},
	}
}

// unlock tells the observer what has changed, when the table is free again.
func (t *Table) unlock() {
	changed := t.changed
	if t.mapped {
		t.updateID++
	}
	t.changed, t.mapped = false, false
	t.mu.Unlock()
	if changed && t.observer != nil {
		t.observer()
	}
}

// Map grants a mapping or a pinhole, or says why not: ErrNotLANHost,
// ErrNotAuthorized, ErrDenied, ErrConflict, ErrInUse, ErrFull or ErrFirewall. A
// refusal leaves no trace. The same client asking again for the same Key replaces
// its mapping (SPEC WIP-2, PIN-5).
func (t *Table) Map(req Request) (Mapping, error) {
	what, by := req.wish(), ""
	err := t.vouch(&req)
	t.mu.Lock()
	defer t.unlock()
	if err == nil {
		by, err = t.mapLocked(&req)
	}
	return t.answer(&req, what, by, err)
}

// answer tells of what became of a wish, and gives it.
func (t *Table) answer(req *Request, what, by string, err error) (Mapping, error) {
	if err != nil {
		t.refuse(req.From, what, err)
		return Mapping{}, err
	}
	t.decide(Decision{From: req.From, What: what, Verdict: fmt.Sprintf("granted for %d s (%s)", t.seconds(&req.Mapping), by)})
	return req.Mapping, nil
}

// mapLocked makes of the request's mapping what is granted, and says by which rule.
func (t *Table) mapLocked(req *Request) (by string, err error) {
	if by, err = t.policy.permit(t.network, req); err != nil {
		return "", err
	}
	if !req.vouched && t.apart(req.Client, req.From) {
		return "", fmt.Errorf("%w: %v is none on the LAN of %v", ErrNotLANHost, req.Client, req.From)
	}
	old, err := t.conflict(req)
	if err == nil && old == nil {
		err = t.room(req)
	}
	if err != nil {
		return "", err
	}
	return by, t.grant(req, old)
}

// grant tells the kernel and then makes the record, in the place of old (nil: a
// new one).
func (t *Table) grant(req *Request, old *entry) error {
	m := &req.Mapping
	m.Description, m.Owner, m.ID = cleanDescription(m.Description), req.owner(), 0
	if m.Pinhole.IsValid() {
		m.ID = t.idFor(old)
	}
	lease := t.policy.lease(req.Lease, time.Now())
	m.Deadline = t.now() + lease

	if err := t.change(old.mappings(), m); err != nil {
		return err
	}
	defer t.awaken()
	if old == nil {
		t.insert(&entry{Mapping: *m})
	} else {
		before := old.Mapping
		t.index(old, -1)
		t.records.Lock()
		old.Mapping = *m
		t.records.Unlock()
		t.index(old, 1)
		t.leases.moved(old)
		t.touch(m)
		if before.Deadline = m.Deadline; before == *m { // a renewal is no news
			return nil
		}
	}
	t.logMade(m, lease)
	return nil
}

// conflict applies the matrix of SPEC WIP-2: the entry that req replaces, nil
// for a new one, or ErrConflict. One client may hold a port for several remote
// hosts; two clients never share one.
func (t *Table) conflict(req *Request) (*entry, error) {
	var same *entry
	for i := range uint16(req.count()) {
		k := req.portKey().plus(i)
		if err := t.kept(k, req); err != nil {
			return nil, fmt.Errorf("%w: %v port %d is kept for it", err, k.protocol, k.port)
		}
		for _, e := range t.ports[k] {
			switch {
			case e == req.renews || req.renews == nil && e.Key == req.Key && e.Client == req.Client && (e.Origin != PCP || req.Origin == PCP):
				same = e
			case e.Client != req.Client || e.excludes(&req.Mapping):
				err := ErrConflict
				if e.Origin == NATPMP || e.Origin == PCP {
					err = ErrOtherMechanism
				}
				return nil, fmt.Errorf("%w: %v has %s by %v for another %v s", err,
					e.Client, e.external(), e.Origin, t.seconds(&e.Mapping))
			}
		}
	}
	return same, nil
}

// room checks what only a new mapping must pass: quotas, and the ports of the
// router itself, which a pinhole does not touch.
func (t *Table) room(req *Request) error {
	if err := t.quota(&req.Mapping); err != nil || req.Pinhole.IsValid() {
		return err
	}
	return t.free(req.Protocol, req.ExternalPort)
}

// Unmap ends a mapping on behalf of the host from. Errors: ErrNoEntry,
// ErrNotAuthorized (another host's mapping, with a secure policy), ErrFirewall.
func (t *Table) Unmap(k Key, from netip.Addr) error {
	e, _, err := t.own(func() *entry { return t.find(k) }, from)
	defer t.unlock()
	return t.unmapLocked(e, from, fmt.Sprintf("delete %v port %d", k.Protocol, k.ExternalPort), err)
}

// owns says why the host from may not touch the entry, nil when it may. vouched
// says that from is another address of the entry's host.
func (t *Table) owns(e *entry, from netip.Addr, vouched bool) error {
	if e == nil {
		return ErrNoEntry
	}
	if e.Client != from && !vouched && (t.policy.Secure || t.apart(e.Client, from)) {
		return fmt.Errorf("%w: it belongs to %v", ErrNotOwner, e.Client)
	}
	return nil
}

// unmapLocked ends the mapping unless err says why not, and tells what became of
// the wish.
func (t *Table) unmapLocked(e *entry, from netip.Addr, what string, err error) error {
	if err == nil {
		err = t.change(e.mappings(), nil)
	}
	if err != nil {
		t.refuse(from, what, err)
		return err
	}
	t.remove(e)
	t.hold(&e.Mapping)
	t.logEnd(&e.Mapping, "Delete", "")
	t.decide(Decision{From: from, What: what, Verdict: "granted"})
	return nil
}

// Lookup finds a mapping by its exact Key; ErrNoEntry when there is none.
func (t *Table) Lookup(k Key) (Mapping, error) {
	t.records.Lock()
	defer t.records.Unlock()
	for _, list := range [...][]*entry{t.order, t.pinned} {
		for _, e := range list {
			if e.Key == k {
				return e.Mapping, nil
			}
		}
	}
	return Mapping{}, ErrNoEntry
}

// At gives the i-th IPv4 mapping in the order of their making, from 0 without gaps
// (SPEC WIP-17); ErrNoEntry beyond the last.
func (t *Table) At(i int) (Mapping, error) {
	t.records.Lock()
	defer t.records.Unlock()
	if i < 0 || i >= len(t.order) {
		return Mapping{}, ErrNoEntry
	}
	return t.order[i].Mapping, nil
}

// Len is the number of IPv4 mappings.
func (t *Table) Len() int {
	t.records.Lock()
	defer t.records.Unlock()
	return len(t.order)
}

// List copies all mappings, and then all pinholes, in the order of their making.
func (t *Table) List() []Mapping {
	t.records.Lock()
	defer t.records.Unlock()
	return t.list()
}

// Remaining is what is left of m's lease, in whole seconds, rounded up
// (SPEC WIP-5).
func (t *Table) Remaining(m Mapping) time.Duration { return t.remaining(m) }

func (t *Table) remaining(m Mapping) time.Duration {
	return time.Duration(t.seconds(&m)) * time.Second
}

func (t *Table) seconds(m *Mapping) int {
	return int(max(0, m.Deadline-t.now()+time.Second-1) / time.Second)
}

// SetPolicy replaces the policy. Mappings that it would no longer allow stay
// until their leases end.
func (t *Table) SetPolicy(p Policy) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.policy = p
}

// SetNetwork tells the table where the router now is, and makes the kernel
// follow if that changed. If the kernel refuses, the error says why, and Run
// tries again until it does not. Pinholes to addresses that are no longer on a LAN
// are closed, and end when those are not back soon (SPEC PIN-10).
func (t *Table) SetNetwork(n Network) error {
	t.mu.Lock()
	defer t.unlock()
	if t.placed && t.network.External == n.External && slices.Equal(t.network.LANs, n.LANs) {
		return nil
	}
	t.moveAway(n)
	t.placed, t.network = true, Network{External: n.External, LANs: slices.Clone(n.LANs)}
	return t.sync()
}

// ReplaceFirewall makes the firewall that replace gives equal to the table.
// While replace runs, nobody uses either firewall.
func (t *Table) ReplaceFirewall(replace func() Firewall) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fw = replace()
	t.sync()
}

// Sync makes the kernel equal to the table. If the kernel refuses, Run tries
// again until it does not.
func (t *Table) Sync() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sync()
}

// Flush ends all mappings (linux-igd's SIGUSR1), and gives their number.
func (t *Table) Flush() int {
	t.mu.Lock()
	defer t.unlock()
	n := len(t.order) + len(t.pinned)
	t.changed, t.mapped = true, len(t.order) > 0
	t.records.Lock()
	t.order, t.pinned, t.leases = nil, nil, nil
	t.records.Unlock()
	clear(t.ports)
	clear(t.ids)
	clear(t.held)
	t.holds = nil
	clear(t.perClient)
	t.total, t.pins = 0, 0
	t.sync()
	t.logf("Flush: %d mappings deleted", n)
	t.decide(Decision{What: "delete all mappings", Verdict: fmt.Sprintf("%d deleted", n)})
	if t.flushed != nil {
		t.flushed()
	}
	return n
}

// Run ends leases when they are due and repairs the kernel after a failure. It
// sleeps until then, and returns when ctx ends.
func (t *Table) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if next, ok := t.tick(); ok {
			timer.Reset(next)
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-t.wake:
		}
	}
}
