package faults

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
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

// shipped builds a daemon without the race detector, whose own memory is many times
// the daemon's.
func shipped(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "upnpd")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/linux-igd/upnpd/cmd/upnpd").CombinedOutput(); err != nil {
		t.Fatalf("build upnpd: %v\n%s", err, out)
	}
	return path
}

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

// hugeSize is the size of lease files that are found at the start.
const hugeSize = 100 << 20

// hugeLeases are what such files hold again and again, after a good one or not.
var hugeLeases = map[string]func(good []byte) []byte{
	"random":            func([]byte) []byte { return noise() },
	"zeros":             func([]byte) []byte { return make([]byte, 1<<20) },
	"one line":          func([]byte) []byte { return bytes.Repeat([]byte("TCP 19000 - 0 "), 1<<16) },
	"good, then copies": func(good []byte) []byte { return bytes.Repeat(lastLine(good), 1<<13) },
	"good, then noise":  func([]byte) []byte { return noise() },
}

// noise are random bytes.
func noise() []byte {
	b := make([]byte, 1<<20)
	rng := rand.NewChaCha8([32]byte{8, 5})
	rng.Read(b)
	return b
}

// hugeFile writes head and then content until that is hugeSize.
func hugeFile(t *testing.T, path string, head, content []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 0; size < hugeSize && err == nil; size += len(head) {
		_, err = f.Write(head)
		head = content
	}
	if err != nil {
		t.Fatal(err)
	}
}

func lastLine(text []byte) []byte { return text[bytes.LastIndexByte(text[:len(text)-1], '\n')+1:] }

// TestHugeLeaseFile: whatever the lease file is, the daemon starts, with what is good in
// it, says so in a few lines, and has not taken it into memory.
func TestHugeLeaseFile(t *testing.T) {
	t.Parallel()
	daemon := shipped(t)
	h := enter(t, lab.Nftables).begin(daemon)
	h.baseline()
	h.kept(3)
	h.daemon.Stop(t)
	good, err := os.ReadFile(h.file(leasesPath))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range hugeLeases {
		restored := 0
		var head []byte
		if strings.HasPrefix(name, "good, ") {
			head, restored = good, 3
		}
		hugeFile(t, h.file(leasesPath), head, content(good))
		began := time.Now()
		h.begin(daemon)
		h.For(t)
		log := h.daemon.Log()
		t.Logf("%s: served after %v, %d kB in memory, %d bytes of log", name, time.Since(began).Round(time.Millisecond), h.peak(), len(log))
		if h.peak() > memory {
			t.Errorf("%s: %d kB in memory", name, h.peak())
		}
		if n := strings.Count(log, "\n"); !strings.Contains(log, "leases: not restored: ") || n > 30 || len(log) > 8000 {
			t.Errorf("%s: %d lines in the log", name, n)
		}
		if got := len(h.table()); got != restored {
			t.Errorf("%s: %d mappings, want %d", name, got, restored)
		}
		h.mended(name)
		h.Client(2).Add("TCP", 18080, h.Served(), 0)
		h.kept(restored + 1)
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
	h := enter(t, lab.Nftables).begin(shipped(t))
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
	if h.peak() > memory {
		t.Errorf("%d kB in memory", h.peak())
	}
	h.mended("many sockets")
}
