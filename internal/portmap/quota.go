package portmap

import "fmt"

// pinsLeft is how many more ports may be pinned: at most half of all, since a host
// has as many IPv6 addresses as it likes.
func (t *Table) pinsLeft() int { return (t.policy.MaxMappings+1)/2 - t.pins }

// quota checks that the table and the client may have the ports of m, too.
func (t *Table) quota(m *Mapping) error {
	if m.Client.Is6() && t.pinsLeft() < m.count() {
		return fmt.Errorf("%w: pinholes are at most half of max_mappings = %d", ErrFull, t.policy.MaxMappings)
	}
	if n := t.policy.MaxMappings; t.total+m.count() > n {
		return fmt.Errorf("%w: max_mappings = %d", ErrFull, n)
	}
	if n := t.policy.MaxPerClient; t.perClient[m.Client]+m.count() > n {
		return fmt.Errorf("%w: %v has max_mappings_per_client = %d", ErrQuota, m.Client, n)
	}
	return nil
}
