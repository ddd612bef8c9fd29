package firewall

// endOrphans ends the connections with our mark that belong to no mapping: their
// lease has ended, and nobody was there to see it (SPEC WIP-13). While it works no
// mapping may change.
func (f *inForce) endOrphans() {
	if f.flows.conn == nil { // the kernel has no ctnetlink; that is said already
		return
	}
	conn, err := dialConntrack()
	if err == nil {
		err = f.endMarked(&Flows{conn: conn})
		conn.Close()
	}
	if err != nil {
		f.flows.logf("firewall: connections of leases that ended before the start may go on: %v", err)
	}
}

// endMarked is endOrphans by a connection to ctnetlink.
func (f *inForce) endMarked(by *Flows) error {
	replies, err := by.list(markedRequest())
	if err != nil {
		return err
	}
	var all []change
	for m := range f.mapped {
		all = append(all, change{m, false})
	}
	alive := newMatcher(all)
	for _, reply := range replies {
		c, err := parseFlow(reply.Data)
		if err == nil && number(attribute(reply.Data[sizeofNfgenmsg:], ctaMark))&connMark != 0 && !alive.wants(c) {
			err = by.delete(reply.Data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
