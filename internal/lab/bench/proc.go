package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// userHZ is the unit of times in /proc/PID/stat on Linux, a 100th of a second.
const userHZ = 100

// family returns pid and the processes below it. A daemon that leaves its work
// to helpers pays for them too.
func family(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, path := range stats {
		s, err := readStat(path)
		if err != nil {
			continue // it has ended since
		}
		children[s.parent] = append(children[s.parent], s.pid)
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// stat is what is needed of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	pid, parent int
	ofChildren  time.Duration // CPU time of children that have ended
}

func readStat(path string) (stat, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(text))
}

func parseStat(text string) (stat, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("no program name in %q", text)
	}
	// The third field of proc_pid_stat(5) is the first after the name.
	fields := strings.Fields(text[end+1:])
	if len(fields) < 15 {
		return stat{}, fmt.Errorf("only %d fields in %q", len(fields), text)
	}
	pid, err1 := strconv.Atoi(strings.TrimSpace(text[:open]))
	parent, err2 := strconv.Atoi(fields[1])
	user, err3 := strconv.ParseInt(fields[13], 10, 64)
	system, err4 := strconv.ParseInt(fields[14], 10, 64)
	ticks := time.Duration(user + system)
	return stat{pid: pid, parent: parent, ofChildren: ticks * time.Second / userHZ}, errors.Join(err1, err2, err3, err4)
}

// cpuTime is what a daemon and its helpers, also those that have ended, have
// used. For the living it is exact, for the ended to 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	all, err := family(pid)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, p := range all {
		s, err := readStat(fmt.Sprintf("/proc/%d/stat", p))
		var ts unix.Timespec
		if err == nil {
			// The CPU clock of another process, as clock_getcpuclockid(3) makes it.
			err = unix.ClockGettime(int32(^p<<3|2), &ts)
		}
		if err != nil {
			if p == pid {
				return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
			}
			continue // a helper that has just ended: its parent has its time
		}
		sum += time.Duration(ts.Nano()) + s.ofChildren
	}
	return sum, nil
}

// memory is what a daemon and its helpers hold, in bytes.
type memory struct{ resident, anonymous int64 }

func readMemory(pid int) (memory, error) {
	all, err := family(pid)
	if err != nil {
		return memory{}, err
	}
	var sum memory
	for _, p := range all {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if err != nil {
			if p == pid {
				return memory{}, fmt.Errorf("memory of process %d: %w", pid, err)
			}
			continue
		}
		sum.resident += field(text, "Rss:") << 10
		sum.anonymous += field(text, "Anonymous:") << 10
	}
	return sum, nil
}

// field is the number behind a name in the files of /proc/PID, 0 without it.
func field(text []byte, name string) int64 {
	for _, line := range bytes.Split(text, []byte("\n")) {
		if words := bytes.Fields(line); len(words) > 1 && string(words[0]) == name {
			n, _ := strconv.ParseInt(string(words[1]), 10, 64) // 0 is the answer
			return n
		}
	}
	return 0
}

// wakeUps counts how often the threads of a daemon and its helpers went to
// sleep by themselves, which is how often something has woken them.
func wakeUps(pid int) (int64, error) {
	all, err := family(pid)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, p := range all {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p))
		if err != nil {
			return 0, err
		}
		if p == pid && len(threads) == 0 {
			return 0, fmt.Errorf("threads of process %d: it has ended", pid)
		}
		for _, path := range threads {
			text, err := os.ReadFile(path)
			if err == nil { // else the thread has just ended
				sum += field(text, "voluntary_ctxt_switches:")
			}
		}
	}
	return sum, nil
}
