package portmap

import (
	"fmt"
	"net/netip"
	"time"
)

// Restore puts mappings of an earlier run back, before SetNetwork is first
// called. It gives those that are no mappings, whose lease has ended or that the
// policy would refuse now, each with the reason. A client that is on no LAN is
// no reason: LANs come up later.
func (t *Table) Restore(all []Mapping) (dropped []error) {
	t.mu.Lock()
	defer t.unlock()
	now := t.now()
	for _, m := range all {
		m.Description = cleanDescription(m.Description)
		m.Deadline = min(m.Deadline, now+t.policy.MaxLease)
		if err := t.restorable(&m, now); err != nil {
			dropped = append(dropped, fmt.Errorf("%v: %w", m, err))
			continue
		}
		t.insert(&entry{Mapping: m})
	}
	return dropped
}

func (t *Table) restorable(m *Mapping, now time.Duration) error {
	if m.Deadline <= now {
		return errEnded
	}
	req := Request{Mapping: *m, From: m.Owner} // no lines that the kernel would refuse, and with them all others
	if _, err := t.policy.allow(&req); err != nil {
		return err
	}
	if old, err := t.conflict(&req); err != nil {
		return err
	} else if old != nil {
		return errTwice
	}
	if err := t.quota(m); err != nil {
		return err
	}
	if !m.Pinhole.IsValid() {
		m.ID = 0
	} else if m.ID == 0 || t.ids[m.ID] != nil {
		m.ID = t.idFor(nil)
	}
	return nil
}

// Revoke ends the mappings that which picks, by the word of the administrator or
// of the daemon, and gives them. If the kernel refuses, none has ended. why is
// for the log.
func (t *Table) Revoke(which func(*Mapping) bool, why string) ([]Mapping, error) {
	t.mu.Lock()
	defer t.unlock()
	return t.endAll(which, netip.Addr{}, why)
}

// Packets counts for each mapping what it has redirected: the first packet of
// each connection. Unlike the other questions this one goes to the kernel.
func (t *Table) Packets() (map[Key]uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fw.Packets()
}

// Verify says how the kernel differs from the table, "" when it does not.
func (t *Table) Verify() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fw.Verify()
}

// Try puts a mapping that nobody asked for into the kernel while use runs. For
// that long, the table does nothing else. Errors: ErrConflict, ErrInUse (take
// another port), ErrFirewall.
func (t *Table) Try(m Mapping, use func()) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ports[m.portKey()]) > 0 {
		return fmt.Errorf("%w: %v port %d", ErrConflict, m.Protocol, m.ExternalPort)
	}
	if err := t.free(m.Protocol, m.ExternalPort); err != nil {
		return err
	}
	m.Deadline = t.now() + time.Second
	if err := t.change(nil, &m); err != nil {
		return err
	}
	use()
	return t.change([]Mapping{m}, nil)
}
