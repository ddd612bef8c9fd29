package firewall

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestListing: what a program prints is taken for a table's rules only when it looks
// like them, whole: without its jumps in it, they would be made again (issue 8, point 5).
func TestListing(t *testing.T) {
	for _, tt := range []struct {
		script string
		ok     bool
	}{
		{`printf -- '-P PREROUTING ACCEPT\n-A PREROUTING -j UPNPD-PRE\n'`, true},
		{`printf -- '-P PREROUTING ACCEPT\n-A PREROUTING -j UPNP'`, false},
		{`echo 'usage: iptables'`, false},
		{`exit 0`, false},
		{`printf -- '-P PREROUTING ACCEPT\n'; exit 1`, false},
	} {
		path := filepath.Join(t.TempDir(), "iptables")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+tt.script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		listing, err := (&family{path: path}).list(context.Background(), 1, "nat")
		if (err == nil) != tt.ok || (listing != "") != tt.ok {
			t.Errorf("%s: %q, %v", tt.script, listing, err)
		}
	}
}

// TestExplainBound: one line of the log does not hold all that a program can say.
func TestExplainBound(t *testing.T) {
	if n := len(explain(strings.Repeat("no ", 30000), "")); n > explained {
		t.Errorf("%d bytes", n)
	}
}
