package firewall

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// program writes a shell script.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestExecute: what a program is given and says, and how it may end.
func TestExecute(t *testing.T) {
	large := strings.Repeat("a line of the input\n", 20000) // more than a pipe holds
	for _, tt := range []struct {
		name, script, input string
		args                []string
		want, fault         string
	}{
		{name: "arguments", script: `printf '%s,' "$0" "$@" | sed 's/.*program/program/'`, args: []string{"-S", "a b"}, want: "program,-S,a b,"},
		{name: "input and output", script: "cat", input: large, want: large},
		{name: "nothing", script: "exit 0"},
		{name: "input that is not read", script: "echo done", input: large, want: "done\n"},
		{name: "failure", script: "echo no such table >&2; echo text; exit 3", fault: "exit status 3: no such table"},
		{name: "failure with much to say", script: "cat >&2; exit 1", input: large, fault: "exit status 1: a line of the input"},
		{name: "much said in a success", script: "cat >&2", input: large},
		{name: "a signal", script: "kill -9 $$", fault: "signal: killed"},
		{name: "output kept by a child", script: "sleep 60 & echo $! >\"$0.pid\"; echo done", fault: "i/o timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := program(t, tt.script)
			began := time.Now()
			got, err := execute(context.Background(), path, tt.input, tt.args...)
			if tt.fault == "" && (err != nil || got != tt.want) {
				t.Errorf("%d bytes, %v; want %d", len(got), err, len(tt.want))
			}
			if tt.fault != "" && (err == nil || got != "" || !strings.Contains(err.Error(), tt.fault) || !strings.Contains(err.Error(), path)) {
				t.Errorf("%q, %v; want %s", got, err, tt.fault)
			}
			if err != nil && len(err.Error()) > explained+200 || time.Since(began) > execTimeout {
				t.Errorf("after %v: %.2000v", time.Since(began), err)
			}
			if pid, err := os.ReadFile(path + ".pid"); err == nil {
				execute(context.Background(), "/bin/kill", "", strings.TrimSpace(string(pid)))
			}
		})
	}
}

// TestExecuteStuck: who calls does not wait for a program that does not end.
func TestExecuteStuck(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	path := program(t, "exec sleep 60")
	if got, err := execute(ctx, path, strings.Repeat("x", 1<<20)); got != "" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := execute(context.Background(), "/nowhere/iptables", ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// TestExecuteLeavesNothing: no descriptor stays open, however it ends.
func TestExecuteLeavesNothing(t *testing.T) {
	open := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	good, bad := program(t, "cat"), program(t, "exit 1")
	before := open()
	for range 20 {
		execute(context.Background(), good, "text")
		execute(context.Background(), bad, "text")
		execute(context.Background(), "/nowhere", "text")
	}
	if after := open(); after > before+2 { // the runtime's own, at the first time
		t.Errorf("%d descriptors, were %d", after, before)
	}
}

// TestFind: as a shell does, but never in a directory that depends on where we are.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	for _, d := range []string{one, two, filepath.Join(one, "iptables")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, mode := range map[string]os.FileMode{two + "/iptables": 0o755, one + "/plain": 0o644, two + "/other": 0o755} {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	was, err := os.Getwd()
	if err == nil {
		err = os.Chdir(two)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.Chdir(was)
	t.Setenv("PATH", "::.:"+one+":"+two)
	for name, want := range map[string]string{
		"iptables": two + "/iptables", "other": two + "/other", "plain": "", "none": "",
		two + "/iptables": two + "/iptables", one + "/iptables": "", "./other": "./other", one + "/plain": "", "/nowhere/x": "",
	} {
		if got, err := find(name); got != want && err == nil || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	t.Setenv("PATH", "::.")
	if got, err := find("other"); err == nil {
		t.Errorf("found %s where we are", got)
	}
}
