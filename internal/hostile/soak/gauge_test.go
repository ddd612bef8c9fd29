package soak

import (
	"fmt"
	"os"
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
	case n > g.fds:
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

// flat says why memory is not flat, "" when it is or nobody can tell: the last third's
// maximum is not more than the first's by a quarter and 1 MB.
func (g *gauge) flat(third time.Duration) string {
	most := func(first bool) (kB int) {
		for _, u := range g.rss {
			age := u.at.Sub(g.start)
			if first && age < third || !first && age >= 2*third {
				kB = max(kB, u.kB)
			}
		}
		return kB
	}
	first, last := most(true), most(false)
	if 3*third < flatAfter || first == 0 || last <= first*5/4+1024 {
		return ""
	}
	return fmt.Sprintf("resident memory: %d kB in the first third of %v, %d kB in the last", first, 3*third, last)
}
