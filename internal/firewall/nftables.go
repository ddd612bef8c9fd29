package firewall

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// NFTables is a portmap.Firewall in a table of its own (DESIGN.md, "Kernel
// model, nftables"; NFTABLES.md): static rules, and all mappings in maps, so
// that a change is one transaction of a few set elements however many there
// are. The kernel itself ends a lease when nobody else does.
//
// Its methods are called one at a time, as portmap.Table does.
type NFTables struct {
	dial    func() (*nftables.Conn, error)
	conn    *nftables.Conn // nil after an error that leaves its state unknown
	port    atomic.Uint32  // of conn, for Watch
	now     func() time.Duration
	logf    func(string, ...any)
	layout  layout
	network portmap.Network
	state   elements
	inForce *inForce
	counted map[portmap.Key]uint64 // by elements that were written anew since
	query   *netlink.Conn          // for reading elements; nil until needed
	link    *netlink.Conn          // what conn sends by
	proved  bool                   // the kernel has taken our layout before
}

// grace is added to the kernel's timeout of a lease: the daemon deletes first, and
// deleting what has just expired would undo the whole transaction.
const grace = 5 * time.Second

// Buffers of the socket: for a Sync of as many mappings as there are ports, sent
// as one message, and for the kernel's answers. The memory is used only then.
const (
	sendBuffer    = 16 << 20
	receiveBuffer = 1 << 20
)

// answerTime bounds the wait for the kernel's answers.
const answerTime = 10 * time.Second

// NewNFTables opens netlink and checks that the kernel has nf_tables; it
// changes nothing. uplink is the WAN device's name, now the boot clock.
func NewNFTables(uplink string, now func() time.Duration, logf func(string, ...any)) (*NFTables, error) {
	f := &NFTables{now: now, logf: logf, layout: newLayout(uplink, true), state: newElements(),
		counted: map[portmap.Key]uint64{},
	}
	f.dial = func() (*nftables.Conn, error) {
		return nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
			f.link = c
			return errors.Join(c.SetReadBuffer(receiveBuffer), c.SetWriteBuffer(sendBuffer), f.remember(c))
		}))
	}
	if err := f.connect(); err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	if _, err := f.conn.ListTablesOfFamily(nftables.TableFamilyINet); err != nil {
		return nil, errors.Join(fmt.Errorf("ask the kernel for nf_tables: %w", err), f.conn.CloseLasting())
	}
	f.inForce = newInForce(OpenFlows(logf))
	return f, nil
}

// connect dials when the connection was given up.
func (f *NFTables) connect() (err error) {
	if f.conn == nil {
		f.conn, err = f.dial()
	}
	return err
}

// Start removes what an earlier run left behind. Rules come with Sync.
func (f *NFTables) Start() error {
	switch present, err := f.present(); {
	case err != nil:
		return err
	case !present:
		return nil
	}
	f.conn.DelTable(f.layout.table)
	if err := f.flush(); err != nil {
		return fmt.Errorf("remove the table of an earlier run: %w", err)
	}
	f.logf("firewall: removed the table that an earlier run left behind")
	return nil
}

// present reports whether our table is in the kernel.
func (f *NFTables) present() (bool, error) {
	tables, err := f.conn.ListTablesOfFamily(f.layout.table.Family)
	if err != nil {
		return false, fmt.Errorf("list the tables of nf_tables: %w", err)
	}
	ours := func(t *nftables.Table) bool { return t.Name == f.layout.table.Name }
	return slices.ContainsFunc(tables, ours), nil
}

// Change replaces the elements of mappings in one transaction.
func (f *NFTables) Change(remove []portmap.Mapping, add *portmap.Mapping) error {
	if err := f.connect(); err != nil {
		return err
	}
	next := f.state.change(f.network, remove, add)
	if next.empty() {
		return nil
	}
	lost := f.rewritten(next)
	for _, e := range next.gone {
		if err := f.conn.SetDeleteElements(f.layout.set(e.set), []nftables.SetElement{{Key: e.key(), Val: e.value()}}); err != nil {
			return err
		}
	}
	for _, e := range next.come {
		if err := f.conn.SetAddElements(f.layout.set(e.set), []nftables.SetElement{e.element(f.now())}); err != nil {
			return err
		}
	}
	if err := f.flush(); err != nil {
		return err
	}
	f.state.commit(next)
	f.addUp(lost)
	for k, m := range next.active {
		if m == nil {
			delete(f.counted, k)
		}
	}
	f.inForce.change(remove, add)
	return nil
}

// Sync puts the table, its chains and rules into the kernel and makes the maps
// equal to the mappings, in one transaction; elements that are right already
// stay untouched, with their counters.
func (f *NFTables) Sync(n portmap.Network, all []portmap.Mapping) error {
	if err := f.connect(); err != nil {
		return err
	}
	want := newElements()
	for i := range all {
		want.commit(want.change(n, nil, &all[i]))
	}
	lost, err := f.sync(n, want)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) { // something expired, or somebody else wrote, between reading and writing
		lost, err = f.sync(n, want)
	}
	if errors.Is(err, unix.EEXIST) { // a table of our name with other maps or chains
		f.conn.DelTable(f.layout.table)
		if err = f.flush(); err == nil {
			lost, err = f.sync(n, want)
		}
	}
	if err != nil && !f.proved && f.layout.counters {
		f.layout = newLayout(f.layout.uplink, false)
		if lost, err = f.sync(n, want); err == nil {
			f.logf("firewall: this kernel has no counters in maps: mappings are not counted")
		} else {
			f.layout = newLayout(f.layout.uplink, true)
		}
	}
	if err != nil {
		return err
	}
	f.proved = true
	f.network, f.state = n, want
	f.addUp(lost)
	maps.DeleteFunc(f.counted, func(k portmap.Key, _ uint64) bool { _, ok := want.active[k]; return !ok })
	f.inForce.sync(n, all)
	return nil
}

// sync gives what the elements that it wrote anew have counted.
func (f *NFTables) sync(n portmap.Network, want elements) (lost map[portmap.Key]uint64, err error) {
	if err := f.connect(); err != nil {
		return nil, err
	}
	lost = map[portmap.Key]uint64{}
	have := map[string][]present{}
	for _, name := range mapNames {
		elements, err := f.readMap(name)
		if err != nil && !errors.Is(err, unix.ENOENT) { // no such table or map is no fault
			return nil, err
		}
		have[name] = elements
	}
	f.layout.install(f.conn)
	f.conn.FlushSet(f.layout.set(ext4))
	if n.External.Is4() {
		f.add(ext4, []nftables.SetElement{{Key: n.External.AsSlice()}})
	}
	for _, name := range mapNames {
		gone, missing := want.compare(name, have[name], f.now())
		f.rewrittenIn(name, gone, lost)
		f.remove(name, gone)
		f.add(name, missing)
	}
	return lost, f.flush()
}

// chunk is how many elements fit into one message (16-bit attribute lengths).
const chunk = 500

func (f *NFTables) add(set string, elements []nftables.SetElement) {
	for len(elements) > 0 {
		n := min(chunk, len(elements))
		f.conn.SetAddElements(f.layout.set(set), elements[:n])
		elements = elements[n:]
	}
}

func (f *NFTables) remove(set string, gone []present) {
	var elements []nftables.SetElement
	for _, e := range gone {
		elements = append(elements, nftables.SetElement{Key: e.key, Val: e.value})
	}
	for len(elements) > 0 {
		n := min(chunk, len(elements))
		f.conn.SetDeleteElements(f.layout.set(set), elements[:n])
		elements = elements[n:]
	}
}

// flush sends the batch. ENOENT and EEXIST are answers to single messages; after
// any other error nobody knows which answer belongs to what, so the connection
// is given up.
func (f *NFTables) flush() error {
	if err := f.link.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return fmt.Errorf("nf_tables: %w", err)
	}
	err := f.conn.Flush()
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EEXIST) {
		f.conn.CloseLasting()
		f.conn = nil
	}
	return fmt.Errorf("nf_tables: %w", err)
}

// Guard calls repair after somebody else changed our table, until ctx ends. At
// first, and whenever the rules change, it looks whether mapped connections pass
// the forward chains, and warns of what is new.
func (f *NFTables) Guard(ctx context.Context, repair func(), warnf func(string, ...any)) {
	var said string
	look := func() {
		warning, err := f.ForwardPath()
		if err != nil {
			warning = fmt.Sprintf("cannot tell whether mapped connections pass: %v", err)
		}
		if warning != said && warning != "" {
			warnf("firewall: %s", warning)
		}
		said = warning
	}
	if err := f.Watch(ctx, repair, look); err != nil {
		warnf("firewall: cannot see who changes the rules: %v", err)
		<-ctx.Done()
	}
}

// Close takes the table out of the kernel and ends the connections of all
// mappings.
func (f *NFTables) Close() error {
	err := f.connect()
	if err == nil {
		f.conn.DelTable(f.layout.table)
		if err = f.flush(); errors.Is(err, unix.ENOENT) {
			err = nil
		}
	}
	if f.conn != nil {
		err = errors.Join(err, f.conn.CloseLasting())
	}
	err = errors.Join(err, f.inForce.close())
	if f.query != nil {
		err = errors.Join(err, f.query.Close())
	}
	return err
}
