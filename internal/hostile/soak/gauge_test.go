package soak

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// gauge is what the daemon's process uses, from its birth on.
type gauge struct {
	start time.Time
	fds   int // when it was quiet for the first time, or fewer later; 0: it was not yet
	open  int // fds when last seen
	rss   []use
}

// use is the resident memory at one time, in kB.
type use struct {
	at time.Time
	kB int
}

func (g *gauge) born() { *g = gauge{start: time.Now()} }

// moved forgets the number of descriptors: there are other sockets.
func (g *gauge) moved() { g.fds = 0 }

// lazy is the socket by which PEER asks for connections: it is opened when it is needed,
// and stays.
const lazy = 1

// leaks says what is open that was not when it was quiet for the first time: twice the
// same number, since a program of iptables has some while it runs.
func (w *world) leaks() []string {
	n, names := w.descriptors()
	g := &w.gauge
	before := g.open
	switch g.open = n; {
	case g.fds == 0 && n != before:
		return []string{fmt.Sprintf("descriptors: %d, just before %d", n, before)}
	case g.fds == 0 || n < g.fds:
		g.fds = n
	case n > g.fds+lazy:
		return []string{fmt.Sprintf("descriptors: %d, when it was quiet for the first time %d:%s", n, g.fds, names)}
	}
	return nil
}

// descriptors counts those of the daemon.
func (w *world) descriptors() (n int, names string) {
	dir := fmt.Sprintf("/proc/%d/fd", w.daemon.PID)
	all, err := os.ReadDir(dir)
	if err != nil {
		w.fault("%v", err)
	}
	for _, fd := range all {
		to, _ := os.Readlink(dir + "/" + fd.Name())
		names += " " + to
	}
	return len(all), names
}

// process gives resident memory in kB and the number of threads.
func (w *world) process() (kB, threads int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.daemon.PID))
	if err != nil {
		w.fault("%v", err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &kB)
		_, _ = fmt.Sscanf(line, "Threads: %d", &threads)
	}
	return kB, threads
}

// flatAfter is how long a life must be for its memory to be judged.
const flatAfter = 60 * time.Second

// flat says why memory is not flat, "" when it is or nobody can tell: the median of the
// last third is not more than the first's by a quarter and 1 MB. Single figures may be
// those of a moment at which much was asked.
func (g *gauge) flat() string {
	life := time.Since(g.start)
	var first, last []int
	for _, u := range g.rss {
		switch age := u.at.Sub(g.start); {
		case age < life/3:
			first = append(first, u.kB)
		case age >= 2*life/3:
			last = append(last, u.kB)
		}
	}
	slices.Sort(first)
	slices.Sort(last)
	if life < flatAfter || len(first) == 0 || len(last) == 0 {
		return ""
	}
	before, after := first[len(first)/2], last[len(last)/2]
	if after <= before*5/4+1024 {
		return ""
	}
	return fmt.Sprintf("resident memory: %d kB in the first third of %v, %d kB in the last", before, life, after)
}
