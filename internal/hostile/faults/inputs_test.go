package faults

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// memory is the most that the daemon may ever have had in memory, in kB (issue 8,
// point 4).
const memory = 16 << 10

// peak gives the most that the daemon has had in memory, in kB.
func (h *house) peak() int {
	h.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.daemon.PID))
	found := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(text)
	if err != nil || found == nil {
		h.t.Fatalf("no VmHWM: %v", err)
	}
	n, _ := strconv.Atoi(string(found[1]))
	return n
}

// hugeLeases are files of 100 MB that are found at the start.
var hugeLeases = map[string]func(good []byte) []byte{
	"random":   func([]byte) []byte { return noise(100 << 20) },
	"zeros":    func([]byte) []byte { return make([]byte, 100<<20) },
	"one line": func([]byte) []byte { return bytes.Repeat([]byte("TCP 19000 - 0 "), 100<<20/14) },
	"many good lines": func(good []byte) []byte {
		return append(bytes.Clone(good), bytes.Repeat(lastLine(good), 100<<20/len(lastLine(good)))...)
	},
	"good, then noise": func(good []byte) []byte { return append(bytes.Clone(good), noise(100<<20)...) },
}

// noise are random bytes.
func noise(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{8, 5})
	rng.Read(b)
	return b
}

func lastLine(text []byte) []byte { return text[bytes.LastIndexByte(text[:len(text)-1], '\n')+1:] }

// TestHugeLeaseFile: whatever the lease file is, the daemon starts, with what is good in
// it, says so in a few lines, and has not taken it into memory.
func TestHugeLeaseFile(t *testing.T) {
	t.Parallel()
	h := enter(t, lab.Nftables).begin("")
	h.baseline()
	h.kept(3)
	h.daemon.Stop(t)
	good, err := os.ReadFile(h.file(leasesPath))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range hugeLeases {
		if err := os.WriteFile(h.file(leasesPath), content(good), 0o600); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		h.begin("")
		h.For(t)
		log := h.daemon.Log()
		t.Logf("%s: served after %v, %d kB in memory, %d bytes of log", name, time.Since(began).Round(time.Millisecond), h.peak(), len(log))
		if os.Getenv("UPNPD_RACE") == "" && h.peak() > memory {
			t.Errorf("%s: %d kB in memory", name, h.peak())
		}
		if n := strings.Count(log, "\n"); !strings.Contains(log, "leases: not restored: ") || n > 30 || len(log) > 8000 {
			t.Errorf("%s: %d lines in the log", name, n)
		}
		want := 0
		if strings.Contains(name, "good") {
			want = 3
		}
		if got := len(h.table()); got != want {
			t.Errorf("%s: %d mappings, want %d", name, got, want)
		}
		h.mended(name)
		h.Client(2).Add("TCP", 18080, h.Served(), 0)
		h.kept(want + 1)
		h.daemon.Stop(t)
	}
}

// TestHugeConfiguration ends the start, and says why.
func TestHugeConfiguration(t *testing.T) {
	t.Parallel()
	h := enter(t, lab.Nftables)
	huge := filepath.Join(t.TempDir(), "huge.conf")
	if err := os.WriteFile(huge, bytes.Repeat([]byte("allow any 0.0.0.0/0 any\n"), 10<<20/24), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := h.Router.Launch(lab.Build(t), "--config", huge, lab.WANDev, lab.LANDev)
	if err == nil || !strings.Contains(err.Error(), "huge.conf: longer than 64 KiB") {
		t.Errorf("the start gives %v", err)
	}
}

// TestManyRouterSockets: a router with thousands of sockets and connections of its own
// does not make the daemon slow or large.
func TestManyRouterSockets(t *testing.T) {
	t.Parallel()
	h := enter(t, lab.Nftables).begin("")
	h.baseline()
	const sockets = 5000
	for port := 20000; port < 20000+sockets; port++ {
		if _, err := h.Router.ListenUDP(fmt.Sprintf("0.0.0.0:%d", port)); err != nil {
			t.Fatal(err)
		}
	}
	if code := h.Client(1).Add("UDP", 20000+sockets-1, h.Served(), 0); code != 718 {
		t.Errorf("a port of the router itself: error %d, want 718", code)
	}
	began := time.Now()
	if code := h.Client(1).Add("UDP", 20000+sockets, h.Served(), 0); code != 0 {
		t.Errorf("the next port: error %d", code)
	}
	t.Logf("AddPortMapping beside %d sockets: %v; %d kB in memory", sockets, time.Since(began).Round(time.Microsecond), h.peak())
	if os.Getenv("UPNPD_RACE") == "" && h.peak() > memory {
		t.Errorf("%d kB in memory", h.peak())
	}
	h.mended("many sockets")
}
