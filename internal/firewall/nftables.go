package firewall

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

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
	// IPv6 says whether there are pinholes. It is to be set before Start.
	IPv6 bool

	conn    *batchConn    // nil after an error that leaves its state unknown
	port    atomic.Uint32 // of conn, for Watch
	now     func() time.Duration
	logf    func(string, ...any)
	layout  layout
	network portmap.Network
	state   elements
	inForce *inForce
	query   *netlink.Conn // for reading; nil until needed
	proved  bool          // the kernel has taken our layout before
}

// grace is added to the kernel's timeout of a lease: the daemon deletes first, and
// deleting what has just expired would undo the whole transaction.
const grace = 5 * time.Second

// NewNFTables opens netlink and checks that the kernel has nf_tables; it
// changes nothing. uplink is the WAN device's name, now the boot clock.
func NewNFTables(uplink string, now func() time.Duration, logf func(string, ...any)) (*NFTables, error) {
	f := &NFTables{now: now, logf: logf, layout: layout{uplink, true}, state: newElements()}
	if err := f.connect(); err != nil {
		return nil, err
	}
	if _, err := f.present(); err != nil {
		return nil, errors.Join(err, f.disconnect())
	}
	f.inForce = newInForce(OpenFlows(logf))
	return f, nil
}

// connect dials when the connection was given up.
func (f *NFTables) connect() error {
	if f.conn != nil {
		return nil
	}
	c, err := dialBatch()
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	f.conn = c
	f.port.Store(c.port)
	return nil
}

// disconnect closes what is open.
func (f *NFTables) disconnect() (err error) {
	if f.conn != nil {
		err = f.conn.socket.Close()
	}
	if f.query != nil {
		err = errors.Join(err, f.query.Close())
	}
	f.conn, f.query = nil, nil
	return err
}

// Start takes over what an earlier run left behind: its table stays in force until
// the first Sync, which makes it ours without a gap; the connections of mappings
// that it does not want end there.
func (f *NFTables) Start() error {
	addresses, err := f.readSet(ext4)
	for _, set := range []string{dnat4, dnat4from, dnat4net} {
		var found []entry
		if err == nil {
			found, err = f.readSet(set)
		}
		for _, e := range found {
			for _, address := range addresses {
				if m, ok := e.mapped(address.key); ok {
					f.inForce.adopt(m)
				}
			}
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) { // no table: a first run
		return err
	}
	for _, set := range pinNames {
		found, err := f.readSet(set)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		for _, e := range found {
			if m, ok := e.pinhole(); ok {
				f.inForce.adopt(m)
			}
		}
	}
	if n := len(f.inForce.mapped); n > 0 {
		f.logf("firewall: mappings found of an earlier run: %d", n)
	}
	return nil
}

// present reports whether our table is in the kernel.
func (f *NFTables) present() (bool, error) {
	_, err := f.ask(unix.NFT_MSG_GETTABLE, 0, attributes(nil).text(unix.NFTA_TABLE_NAME, tableName))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask the kernel for the tables of nf_tables: %w", err)
	}
	return true, nil
}

func (f *NFTables) deleteTable() error {
	if err := f.connect(); err != nil {
		return err
	}
	b := f.conn.begin()
	b.add(unix.NFT_MSG_DELTABLE, 0, attributes(nil).text(unix.NFTA_TABLE_NAME, tableName))
	return f.commit(b)
}

// sets are those that hold mappings.
func (f *NFTables) sets() []string {
	if f.IPv6 {
		return setNames
	}
	return setNames[:len(setNames)-len(pinNames)]
}

// Change replaces the elements of mappings in one transaction.
func (f *NFTables) Change(remove []portmap.Mapping, add *portmap.Mapping) error {
	if add != nil && add.Pinhole.IsValid() && !f.IPv6 {
		return errors.New("open a pinhole: IPv6 is switched off")
	}
	if err := f.connect(); err != nil {
		return err
	}
	next := f.state.change(f.network, remove, add)
	if next.empty() {
		return nil
	}
	b := f.conn.begin()
	for _, set := range f.sets() {
		gone, come := entries(next.gone, set, 0), entries(next.come, set, f.now())
		f.keepCounts(set, gone, come)
		b.elements(unix.NFT_MSG_DELSETELEM, set, gone)
		b.elements(unix.NFT_MSG_NEWSETELEM, set, come)
	}
	if err := f.commit(b); err != nil {
		return err
	}
	f.state.commit(next)
	f.inForce.change(remove, add)
	return nil
}

// Sync puts the table, its chains and rules into the kernel and makes the maps
// equal to the mappings, in one transaction; elements that are right already
// stay untouched. A table of our name that is built otherwise is replaced.
func (f *NFTables) Sync(n portmap.Network, all []portmap.Mapping) error {
	if !f.IPv6 {
		n = withoutIPv6(n)
	}
	want := newElements()
	for i := range all {
		want.commit(want.change(n, nil, &all[i]))
	}
	err := f.trySync(n, want)
	if builtOtherwise(err) && f.deleteTable() == nil {
		err = f.trySync(n, want)
	}
	if err != nil {
		return err
	}
	first := !f.proved
	f.proved = true
	f.network, f.state = n, want
	f.inForce.sync(n, all)
	if first {
		if err := f.inForce.endOrphans(); err != nil {
			f.logf("firewall: connections of leases that ended before the start may go on: %v", err)
		}
	}
	return nil
}

// withoutIPv6 is a network without hosts for pinholes.
func withoutIPv6(n portmap.Network) portmap.Network {
	lans := n.LANs
	n.LANs = nil
	for _, p := range lans {
		if p.Addr().Is4() {
			n.LANs = append(n.LANs, p)
		}
	}
	return n
}

// builtOtherwise: a table of our name has sets or chains that are not like ours, as
// this kernel says it: chains with another hook are EOPNOTSUPP; kernels that do not
// compare sets see keys of a wrong length, EINVAL.
func builtOtherwise(err error) bool {
	return errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)
}

// trySync also tries it without counters if the kernel has never taken any.
func (f *NFTables) trySync(n portmap.Network, want elements) error {
	err := f.sync(n, want)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) { // something expired, or somebody else wrote, between reading and writing
		err = f.sync(n, want)
	}
	if err == nil || f.proved || !f.layout.counters {
		return err
	}
	f.layout.counters = false
	if f.sync(n, want) != nil {
		f.layout.counters = true
		return err
	}
	f.logf("firewall: this kernel has no counters in maps: mappings are not counted")
	return nil
}

func (f *NFTables) sync(n portmap.Network, want elements) error {
	if err := f.connect(); err != nil {
		return err
	}
	b := f.conn.begin()
	f.layout.install(b, f.IPv6)
	if !f.IPv6 && !f.proved {
		f.layout.removePinholes(b)
	}
	b.add(unix.NFT_MSG_DELSETELEM, 0, setHead(ext4)) // all of them
	if n.External.Is4() {
		b.elements(unix.NFT_MSG_NEWSETELEM, ext4, []entry{{key: n.External.AsSlice()}})
	}
	for _, name := range f.sets() {
		have, err := f.readSet(name)
		if err != nil && !errors.Is(err, unix.ENOENT) { // no such table or map is no fault
			return err
		}
		gone, missing := want.compare(name, have, f.now())
		b.elements(unix.NFT_MSG_DELSETELEM, name, gone)
		b.elements(unix.NFT_MSG_NEWSETELEM, name, missing)
	}
	return f.commit(b)
}

// commit sends the batch. ENOENT and EEXIST are answers to single messages; after
// any other error nobody knows what is wrong with the connection, so it is given
// up.
func (f *NFTables) commit(b *batch) error {
	err := f.conn.commit(b)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EEXIST) {
		f.conn.socket.Close()
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
	err := f.deleteTable()
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return errors.Join(err, f.inForce.close(), f.disconnect())
}
