package firewall

import (
	"context"
	"os"
	"strings"
)

// LegacyTables lists the tables that legacy iptables has in force in this
// network namespace, "" for none. Their rules see every packet, whatever
// nf_tables says, so the forward chain that matters is theirs.
func LegacyTables() string {
	names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(names)), " ")
}

// LegacyProgram is the path of an iptables that speaks to the legacy tables, ""
// when there is none.
func LegacyProgram() string {
	for _, name := range []string{"iptables-legacy", "/usr/sbin/iptables-legacy", "/sbin/iptables-legacy"} {
		if path, err := find(name); err == nil {
			return path
		}
	}
	path, _, err := programs("") // before nf_tables there was no other name
	if err != nil {
		return ""
	}
	return path
}

// Guard has nothing to listen to: legacy tables tell nobody when they change.
// Lost rules are seen by the next change, and by Sync.
func (f *IPTables) Guard(ctx context.Context, _ func(), _ func(string, ...any)) { <-ctx.Done() }
