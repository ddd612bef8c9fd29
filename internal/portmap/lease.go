package portmap

import (
	"cmp"
	"container/heap"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// retryEvery is the pause before a Sync that failed is tried again: a fault that
// ends is repaired within a second, the work of iptables included.
const retryEvery = time.Second / 2

// tick does what is due and says how long Run may sleep; false: for ever.
func (t *Table) tick() (time.Duration, bool) {
	t.mu.Lock()
	defer t.unlock()
	now := t.now()
	t.expire(now)
	if t.awayAt != 0 && t.awayAt <= now {
		t.ended(t.endAway())
	}
	if t.stale && t.retryAt <= now {
		t.sync()
	}
	next := time.Duration(-1)
	soon := func(at time.Duration) {
		if next < 0 || at-now < next {
			next = max(at-now, 0)
		}
	}
	if len(t.leases) > 0 {
		soon(t.leases[0].Deadline)
	}
	if t.stale {
		soon(t.retryAt)
	}
	if t.awayAt != 0 {
		soon(t.awayAt)
	}
	return next, next >= 0
}

// expire ends the leases that are due.
func (t *Table) expire(now time.Duration) {
	var due []Mapping
	for len(t.leases) > 0 && t.leases[0].Deadline <= now {
		e := t.leases[0]
		t.end(e, netip.Addr{}, "Expire", "the lease has ended")
		due = append(due, e.Mapping)
	}
	t.ended(due)
}

// ended tells the kernel of mappings that the table has ended by itself. One that
// refuses does not keep them alive: Run repairs it.
func (t *Table) ended(due []Mapping) {
	if len(due) == 0 || t.stale { // while a Sync is due, there is nothing to tell but the whole
		return
	}
	if err := t.fw.Change(due, nil); err != nil {
		t.outdated(err)
	}
}

// change tells the firewall. Somebody may have flushed our rules, so that the
// kernel refuses: then they are put back, and the change is tried once more. A
// kernel that is known to differ gets the whole first, since Change builds on
// what the table says is there.
func (t *Table) change(remove []Mapping, add *Mapping) error {
	if !t.stale && t.fw.Change(remove, add) == nil {
		return nil
	}
	err := t.fw.Sync(t.network, t.list())
	if err == nil {
		t.repaired()
		err = t.fw.Change(remove, add)
	} else if !t.stale {
		t.outdated(err) // only once: clients shall not set the pace of Run's retries
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFirewall, err)
	}
	return nil
}

// sync makes the kernel equal to the table, now or at a later try. Before the
// network is known it leaves what an earlier run has put there.
func (t *Table) sync() error {
	if !t.placed {
		return nil
	}
	err := t.fw.Sync(t.network, t.list())
	if err != nil {
		t.outdated(err)
		return err
	}
	t.repaired()
	return nil
}

func (t *Table) repaired() {
	if t.stale {
		t.logf("the kernel is equal to the table again")
	}
	t.stale = false
}

// outdated notes that the kernel differs. The first failure of a spell is
// logged.
func (t *Table) outdated(err error) {
	if !t.stale {
		t.logf("the kernel is not equal to the table: %v; trying until it is", err)
	}
	t.stale, t.retryAt = true, t.now()+retryEvery
	t.awaken()
}

func (t *Table) awaken() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *Table) find(k Key) *entry {
	for _, e := range t.ports[k.portKey()] {
		if e.Key == k {
			return e
		}
	}
	return nil
}

// touch notes that the mapping is not what it was.
func (t *Table) touch(m *Mapping) {
	t.changed = true
	t.mapped = t.mapped || !m.Pinhole.IsValid()
}

// listOf gives the list that has the mapping: those of IPv4 are numbered without
// regard to pinholes.
func (t *Table) listOf(m *Mapping) *[]*entry {
	if m.Pinhole.IsValid() {
		return &t.pinned
	}
	return &t.order
}

func (k *Key) portKey() portKey { return portKey{k.Protocol, k.ExternalPort, k.Pinhole} }

func (k portKey) plus(n uint16) portKey {
	k.port += n
	return k
}

func (t *Table) insert(e *entry) {
	list := t.listOf(&e.Mapping)
	t.touch(&e.Mapping)
	t.added++
	e.number = t.added
	t.records.Lock()
	*list = append(*list, e)
	t.records.Unlock()
	if e.ID != 0 {
		t.ids[e.ID] = e
	}
	t.index(e, 1)
	heap.Push(&t.leases, e)
}

func (t *Table) remove(e *entry) {
	t.touch(&e.Mapping)
	list := t.listOf(&e.Mapping)
	i, _ := slices.BinarySearchFunc(*list, e.number, func(e *entry, n uint64) int { return cmp.Compare(e.number, n) })
	t.records.Lock()
	*list = slices.Delete(*list, i, i+1)
	t.records.Unlock()
	delete(t.ids, e.ID)
	t.index(e, -1)
	heap.Remove(&t.leases, e.lease)
}

// index makes the entry found by each of its external ports, and by each of its
// client's, or, with -1 instead of 1, not found any more. Those of a pinhole are
// the same outside and inside.
func (t *Table) index(e *entry, one int) {
	t.total += one * e.count()
	if e.Pinhole.IsValid() {
		t.pins += one * e.count()
	}
	if t.perClient[e.Client] += one * e.count(); t.perClient[e.Client] == 0 {
		delete(t.perClient, e.Client)
	}
	for i := range uint16(e.count()) {
		k := e.clientPort(i)
		t.indexPort(k, e, one)
		if !e.Pinhole.IsValid() {
			k.host, k.port = netip.Addr{}, e.ExternalPort+i
			t.indexPort(k, e, one)
		}
	}
}

func (t *Table) indexPort(k portKey, e *entry, one int) {
	all := t.ports[k]
	if one > 0 {
		t.ports[k] = append(all, e)
		return
	}
	i := slices.Index(all, e)
	if all = slices.Delete(all, i, i+1); len(all) > 0 {
		t.ports[k] = all
	} else {
		delete(t.ports, k)
	}
}

func (t *Table) list() []Mapping {
	all := make([]Mapping, 0, len(t.order)+len(t.pinned))
	for _, e := range t.order {
		all = append(all, e.Mapping)
	}
	for _, e := range t.pinned {
		all = append(all, e.Mapping)
	}
	return all
}

// mappings gives the entry's mapping, none for no entry.
func (e *entry) mappings() []Mapping {
	if e == nil {
		return nil
	}
	return []Mapping{e.Mapping}
}

// leaseHeap orders entries by deadline (container/heap).
type leaseHeap []*entry

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].Deadline < h[j].Deadline }
func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].lease, h[j].lease = i, j
}
func (h *leaseHeap) Push(x any) {
	e := x.(*entry)
	e.lease = len(*h)
	*h = append(*h, e)
}
func (h *leaseHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
func (h *leaseHeap) moved(e *entry) { heap.Fix(h, e.lease) }

// cleanDescription drops what could forge a line or disturb a terminal and
// cuts at a character's edge (SPEC WIP-24).
func cleanDescription(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
	if len(s) <= MaxDescription {
		return s
	}
	cut := MaxDescription
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}

// hostOrAny gives the remote host, "*" for any.
func hostOrAny(k Key) string {
	switch {
	case !k.RemoteHost.IsValid():
		return "*"
	case k.RemoteBits != 0:
		return k.Remote().String()
	}
	return k.RemoteHost.String()
}
