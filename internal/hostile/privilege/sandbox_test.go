package privilege

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestSandbox: with nftables every thread has the filter, with iptables none.
func TestSandbox(t *testing.T) {
	for _, tt := range []struct{ firewall, option, filter string }{
		{lab.Nftables, "", "2"},
		{lab.Nftables, "sandbox = no", "0"},
		{"iptables-nft", "", "0"},
	} {
		t.Run(tt.firewall+tt.option, func(t *testing.T) {
			h := enter(t, tt.firewall, tt.option)
			h.begin()
			wantThreads(t, h.daemon.PID, map[string]string{"Seccomp": tt.filter})
		})
	}
}

// TestSandboxLife: in all that it does, the daemon makes no system call that its
// sandbox refuses: strace shows those as ENOSYS.
func TestSandboxLife(t *testing.T) {
	h := enter(t, lab.Nftables)
	dir := t.TempDir()
	trace, program := filepath.Join(dir, "trace"), filepath.Join(dir, "upnpd")
	script := fmt.Sprintf("#!/bin/sh\nexec strace -D -f -o %s %s \"$@\"\n", trace, lab.Build(t))
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	h.run(program)
	h.life("")
	h.daemon.Stop(t)
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	before, after, ok := strings.Cut(string(text), "seccomp(SECCOMP_SET_MODE_FILTER")
	if !ok || !strings.Contains(after, "sendmsg(") {
		t.Fatalf("no sandbox, or no work, in %d bytes of trace", len(text))
	}
	t.Logf("%d calls before the sandbox, %d in it", strings.Count(before, "\n"), strings.Count(after, "\n"))
	for _, line := range regexp.MustCompile(`(?m)^.*\bENOSYS\b.*$`).FindAllString(after, -1) {
		t.Errorf("refused: %s", line)
	}
}
