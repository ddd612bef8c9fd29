package firewall

import (
	"errors"

	"golang.org/x/sys/unix"
)

// endOrphans ends the connections with our mark that belong to no mapping: their
// lease has ended, and nobody was there to see it (SPEC WIP-13). While it works no
// mapping may change.
func (f *inForce) endOrphans() {
	if f.flows.conn == nil { // the kernel has no ctnetlink; that is said already
		return
	}
	conn, err := dialConntrack()
	if err == nil {
		var all []change
		for m := range f.mapped {
			all = append(all, change{m, false})
		}
		flows, alive := &Flows{conn: conn}, newMatcher(all)
		err = errors.Join(flows.endMarked(unix.AF_INET, alive), flows.endMarked(unix.AF_INET6, alive), conn.Close())
	}
	if err != nil {
		f.flows.logf("firewall: connections of leases that ended before the start may go on: %v", err)
	}
}

// endMarked ends the connections of an address family with our mark, but for those
// that belong to a mapping that is alive.
func (f *Flows) endMarked(family byte, alive matcher) error {
	ask, err := markedRequest(family)
	if err != nil {
		return err
	}
	replies, err := f.list(ask)
	if err != nil {
		return err
	}
	for _, reply := range replies {
		c, err := parseFlow(reply.Data)
		if err == nil && number(attribute(reply.Data[sizeofNfgenmsg:], ctaMark))&connMark != 0 && !alive.wants(c) {
			err = f.delete(reply.Data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
