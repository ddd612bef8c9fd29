// Command bench measures upnpd beside Debian's miniupnpd: each on a router of
// its own in the lab's network namespaces, in one run, by turns, with the same
// backend and the same mappings. It needs root and the packages of
// scripts/bench.sh, which starts it. There are no limits on absolute times: it
// fails only when something does not work.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const ourName, peerName = "upnpd", "miniupnpd"

// announcing is how long upnpd announces NAT-PMP and PCP after its start: ten
// times, the last after 128 s (RFC 6886, section 3.2.1). It is not idle before.
const announcing = 130 * time.Second

// plan is how much is measured.
type plan struct {
	counts          []int         // of live mappings, rising
	rounds, atLeast int           // blocks of each kind for each daemon
	budget          time.Duration // after it no more than atLeast rounds
	searches, lists int
	idle            time.Duration // the time in which wake-ups are counted
	idleCount       int           // the number of mappings then
	quiet           time.Duration // how long the daemons must have run before
	limit           time.Duration // of the whole run
}

func full(idle time.Duration) plan {
	return plan{counts: []int{10, 100, 1000, 5000}, rounds: 40, atLeast: 6, budget: 12 * time.Second,
		searches: 10, lists: 3, idle: idle, idleCount: 100, quiet: announcing, limit: 12 * time.Minute}
}

func quick() plan {
	return plan{counts: []int{10, 100, 1000}, rounds: 10, atLeast: 2, budget: 3 * time.Second,
		searches: 3, lists: 1, idle: 5 * time.Second, idleCount: 100, limit: 4 * time.Minute}
}

// options are the command line.
type options struct {
	upnpd string
	peers map[string]string // programs by backend
	doc   string
	plan  plan
}

func main() {
	ours := flag.String("upnpd", "bin/upnpd", "the upnpd to measure")
	peers := map[string]*string{}
	for _, backend := range []string{iptables, nftables} {
		peers[backend] = flag.String("miniupnpd-"+backend, "", "the miniupnpd built for "+backend+"; without it the backend is left out")
	}
	counts := flag.String("counts", "", "numbers of live mappings, as in 10,100; default 10,100,1000,5000")
	short := flag.Bool("quick", false, "fewer samples and mappings, for trying out")
	idle := flag.Duration("idle", 30*time.Second, "how long to count idle wake-ups in a full run")
	doc := flag.String("doc", "", "write the results to this Markdown file, too")
	flag.Parse()
	o := options{upnpd: *ours, peers: map[string]string{}, doc: *doc, plan: full(*idle)}
	if *short {
		o.plan = quick()
	}
	if *counts != "" {
		o.plan.counts = nil
		for _, word := range strings.Split(*counts, ",") {
			n, err := strconv.Atoi(word)
			if err != nil || n < 1 || n > 50000 {
				fmt.Fprintf(os.Stderr, "bench: -counts %s: %q is no number of mappings\n", *counts, word)
				os.Exit(2)
			}
			o.plan.counts = append(o.plan.counts, n)
		}
	}
	for backend, program := range peers {
		o.peers[backend] = *program
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := bench(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// bench runs the plan and prints what came out, also when it ended early.
func bench(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root; nothing outside of them is touched")
	}
	if o.upnpd, err = filepath.Abs(o.upnpd); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "upnpd-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithTimeoutCause(ctx, o.plan.limit, fmt.Errorf("not done after %v", o.plan.limit))
	defer cancel()
	start := time.Now()
	b := &run{plan: o.plan, rows: map[key]*row{}, progress: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%4.0f s  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}}
	about, err := b.machine(o)
	if err != nil {
		return err
	}
	err = errors.Join(b.all(ctx, o, dir), b.end())
	b.progress("done")
	fmt.Print("\n", about.text(), "\n", b.text())
	if err == nil && o.doc != "" {
		err = b.write(o.doc, about)
	}
	return err
}

// all starts the daemons and measures them at each count.
func (b *run) all(ctx context.Context, o options, dir string) error {
	for _, backend := range []string{nftables, iptables} {
		p := &pair{backend: backend}
		b.pairs = append(b.pairs, p)
		b.progress("%s: starting %s and %s", backend, ourName, peerName)
		if err := p.start(ctx, o, dir); err != nil {
			return err
		}
		if p.skipped != "" {
			b.progress("%s: left out: %s", backend, p.skipped)
		}
	}
	started := time.Now()
	for _, count := range b.plan.counts {
		if err := b.fillAll(ctx, count); err != nil {
			return err
		}
		for _, p := range b.pairs {
			if p.skipped != "" {
				continue
			}
			b.progress("%s, %d mappings: measuring", p.backend, count)
			if err := b.atCount(ctx, p, count); err != nil {
				return err
			}
		}
		if count == b.plan.idleCount {
			if err := pause(ctx, time.Until(started.Add(b.plan.quiet))); err != nil {
				return err
			}
			b.progress("%d mappings: counting idle wake-ups for %v", count, b.plan.idle)
			if err := b.idle(ctx, count); err != nil {
				return err
			}
		}
	}
	return nil
}

// start brings both daemons up, or sets skipped.
func (p *pair) start(ctx context.Context, o options, dir string) (err error) {
	if o.peers[p.backend] == "" {
		p.skipped = "no miniupnpd for it was given"
		return nil
	}
	if p.ours, err = raise(ctx, ourName, p.backend); err != nil {
		return err
	}
	err = p.ours.startOurs(o.upnpd)
	if errors.Is(err, errRefused) {
		p.skipped = err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	if p.peer, err = raise(ctx, peerName, p.backend); err != nil {
		return err
	}
	return p.peer.startPeer(ctx, o.peers[p.backend], dir)
}

// fillAll gives every daemon count mappings, all at the same time.
func (b *run) fillAll(ctx context.Context, count int) error {
	b.progress("filling up to %d mappings", count)
	var wait sync.WaitGroup
	errs := make(chan error, 2*len(b.pairs))
	for _, p := range b.pairs {
		if p.skipped != "" {
			continue
		}
		for _, r := range p.both() {
			wait.Add(1)
			go func() {
				defer wait.Done()
				errs <- r.lab.LAN1.Do(func() error { return r.fill(ctx, count, b.progress) })
			}()
		}
	}
	wait.Wait()
	close(errs)
	var all error
	for err := range errs {
		all = errors.Join(all, err)
	}
	return all
}

// end stops the daemons and takes their labs down.
func (b *run) end() error {
	var errs []error
	for _, p := range b.pairs {
		for _, r := range p.both() {
			if r != nil {
				errs = append(errs, r.close())
			}
		}
	}
	return errors.Join(errs...)
}
