package browser

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const shell = "chromium-headless-shell"

// trust lets pages of the internet talk to the LAN, which Chromium stops by
// itself since version 142 when nobody allows it: other browsers do not, and
// what never leaves the browser would prove nothing.
var trust = strings.Join([]string{
	"LocalNetworkAccessChecks", "LocalNetworkAccessChecksWebRTC", "LocalNetworkAccessChecksWebSockets",
	"LocalNetworkAccessChecksWebTransport", "LocalNetworkAccessForNavigations", "LocalNetworkAccessForSubframeNavigations",
	"LocalNetworkAccessForFencedFrameNavigations", "LocalNetworkAccessForWorkers",
	"BlockInsecurePrivateNetworkRequests", "PrivateNetworkAccessSendPreflights", // in versions before
}, ",")

// browse opens a page in a new browser on LAN host 1, until done is closed.
func (h *house) browse(url string, done <-chan struct{}) {
	h.t.Helper()
	if _, err := exec.LookPath(shell); err != nil {
		needed(h.t, shell+" is missing; scripts/setup.sh installs it where the distribution has it (Debian 12 and later)")
	}
	dir := h.t.TempDir()
	cmd := h.LAN1.Command(context.Background(), shell,
		"--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
		"--disable-breakpad", "--mute-audio", "--user-data-dir="+dir, "--disable-features="+trust,
		"--remote-debugging-pipe", // without that it ends when the page is loaded
		url)
	for _, name := range []string{"HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"} {
		cmd.Env = append(cmd.Env, name+"="+dir) // nothing is left elsewhere
	}
	orders, order, err := os.Pipe() // it ends when nobody can give it orders any more
	if err != nil {
		h.t.Fatal(err)
	}
	defer order.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer null.Close()
	var log bytes.Buffer
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{orders, null}, &log, &log
	err = cmd.Start()
	orders.Close()
	if err != nil {
		h.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-done:
	case err := <-ended:
		h.t.Fatalf("the browser ended: %v\n%s", err, &log)
	case <-time.After(pageTime):
		h.t.Errorf("the page did not end within %v", pageTime)
	}
	order.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		h.t.Error("the browser does not end by itself")
	}
	endGroup(h.t, cmd.Process.Pid)
	if h.t.Failed() {
		h.t.Logf("the browser said:\n%s", &log)
	}
}

// pageTime bounds the life of a page.
const pageTime = 60 * time.Second

// endGroup ends the browser with all its processes and waits for the last.
func endGroup(t testing.TB, pid int) {
	t.Helper()
	_ = syscall.Kill(-pid, syscall.SIGKILL) // all may have ended by themselves
	for end := time.Now().Add(patience); runs(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Error("the browser does not end")
			return
		}
	}
}

// runs reports whether a process of the group does anything: those that have
// ended may wait long for a parent who counts them.
func runs(group int) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range all {
		text, _ := os.ReadFile(name) // it may be gone
		var state string
		var parent, pgrp int
		_, rest, _ := strings.Cut(string(text), ") ")
		if n, _ := fmt.Sscan(rest, &state, &parent, &pgrp); n == 3 && pgrp == group && state != "Z" && state != "X" {
			return true
		}
	}
	return false
}

// needed skips the test for want of a program, or fails it where none may skip.
func needed(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" || os.Getenv("UPNPD_NO_SKIP") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}
