package firewall

// endOrphans ends the connections with our mark that belong to no mapping: their
// lease has ended, and nobody was there to see it (SPEC WIP-13). While it works no
// mapping may change.
func (f *inForce) endOrphans() error {
	if f.flows.conn == nil { // the kernel has no ctnetlink; that is said already
		return nil
	}
	conn, err := dialConntrack()
	if err != nil {
		return err
	}
	defer conn.Close()
	by := &Flows{conn: conn}
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
