package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An emulated machine can come to a stop in the middle of its life, without a word
// on the console. Such a life is lived once more from the start, in a machine that is
// new. Nothing else is tried twice: what fails while the machine gives signs of life
// has failed.
//
// As a test that has failed cannot pass any more, each life is a process of its own.

const (
	// lives is how many machines a firewall may have, lifetime how long one lives at
	// most on a busy host.
	lives    = 3
	lifetime = 150 * time.Second
	// lifeEnv has in such a process the directory for its results.
	lifeEnv = "UPNPD_LIFE"
	// The results: how the machine stopped, and what was measured.
	stillFile    = "still"
	measuredFile = "measured"
)

// live lives the life of a router with this firewall in another process, again when
// the machine came to a stop, and gives what was measured.
func live(t *testing.T, firewall string) (all []measured) {
	t.Helper()
	end, limited := t.Deadline()
	for n := 1; ; n++ {
		dir := t.TempDir()
		cmd := exec.Command("/proc/self/exe", "-test.v", "-test.count=1", "-test.run=^TestLife$/^"+firewall+"$")
		if limited {
			cmd.Args = append(cmd.Args, "-test.timeout="+(time.Until(end)-20*time.Second).String())
		}
		cmd.Env = append(os.Environ(), lifeEnv+"="+dir)
		began := time.Now()
		out, err := cmd.CombinedOutput()
		still, noStill := os.ReadFile(filepath.Join(dir, stillFile))
		if err == nil || noStill != nil {
			t.Logf("\n%s", out)
			if err == nil {
				err = load(filepath.Join(dir, measuredFile), &all)
			}
			if err != nil {
				t.Fatalf("the life with %s: %v", firewall, err)
			}
			return all
		}
		t.Logf("\nvm: %s: life %d of at most %d ended after %v: %s\n%s", firewall, n, lives,
			time.Since(began).Round(time.Second), still, quote(out))
		if n == lives {
			t.Fatalf("%d machines came to a stop", n)
		}
		if limited && time.Until(end) < lifetime {
			t.Fatal("no time for another life")
		}
	}
}

// quote marks each line, for those who look for lines of tests that failed.
func quote(out []byte) string {
	return "| " + strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "\n| ")
}

// judge tells, at the end of a life that failed, whether the machine had come to a
// stop. What failed before that is not made good by it.
func (w *world) judge(dir string) {
	if !w.t.Failed() || w.vm == nil {
		return
	}
	if _, err := w.vm.Sh(""); !errors.Is(err, errStill) || w.faulty {
		return
	}
	w.t.Logf("the emulator says\n%s", w.vm.Processor())
	if err := os.WriteFile(filepath.Join(dir, stillFile), []byte(w.vm.dead.Error()), 0o600); err != nil {
		w.t.Error(err)
	}
}

func save(path string, all []measured) error {
	text, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("write measurements: %w", err)
	}
	return os.WriteFile(path, text, 0o600)
}

func load(path string, all *[]measured) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, all)
}
