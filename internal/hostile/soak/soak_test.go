package soak

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// shortLife is what each firewall gets in make test.
const shortLife = 25 * time.Second

// longLife is from when on the second half of a life has one process.
const longLife = 2 * time.Minute

// TestSoak: random clients of every protocol, and weather (issue 8, point 7).
func TestSoak(t *testing.T) {
	firewalls := []string{lab.Nftables, "iptables-legacy", "iptables-nft"}
	if one := os.Getenv("UPNPD_FIREWALL"); one != "" {
		firewalls = []string{one}
	}
	seed := uint64(time.Now().UnixNano() % 1e9)
	if text := os.Getenv("UPNPD_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("UPNPD_SEED: %v", err)
		}
		seed = n
	}
	lab.Build(t)
	if text := os.Getenv("UPNPD_SOAK"); text != "" {
		whole, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("UPNPD_SOAK: %v", err)
		}
		for _, firewall := range firewalls { // in turn
			t.Run(firewall, func(t *testing.T) { live(t, firewall, seed, whole/time.Duration(len(firewalls))) })
		}
		return
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, firewall := range firewalls {
		all.Add(1)
		go func() { // they wait more than they compute: t.Parallel would run few
			defer all.Done()
			t.Run(firewall, func(t *testing.T) { live(t, firewall, seed, shortLife) })
		}()
	}
}

// live is one life with one firewall: rounds of requests, weather and quiet.
func live(t *testing.T, firewall string, seed uint64, life time.Duration) {
	t.Logf("seed %d", seed)
	w := raise(t, firewall, seed)
	began := time.Now()
	t.Logf("%7s %-9s %-10s %8s %8s %8s %7s %6s %6s %6s %6s %6s %6s %7s %5s", "s", "wind", "storm", "UPnP", "NAT-PMP", "PCP", "GENA", "SSDP", "events", "junk", "table", "settle", "RSS", "threads", "fds")
	rounds := 0
	for ; time.Since(began) < life; rounds++ {
		if w.wan == "" {
			w.changeAddress()
		}
		var wind string
		w.together(20+w.rng.IntN(60), func() { wind = w.blow(winds()) })
		half := life >= longLife && time.Since(began) > life/2
		if half && w.gauge.start.Before(began.Add(life/2)) && !w.aged {
			w.aged = true
			w.restart()
		}
		storm := w.blow(storms(!half))
		w.mend()
		table, settled := w.quiet()
		w.report(time.Since(began), wind, storm, len(table), settled)
	}
	if w.aged {
		if why := w.gauge.flat(); why != "" && os.Getenv("UPNPD_RACE") == "" {
			w.fault("%s", why)
		}
	}
	w.summary(rounds)
	if len(w.faults) > 0 {
		w.autopsy(nil)
	}
}

// settleTime bounds the wait until all places are equal: the lease file is written
// within a second, the kernel follows at once; machines are slow.
const settleTime = time.Minute

// quiet compares all places until nothing differs, and then what packets reach.
func (w *world) quiet() (table map[key]lease, settled time.Duration) {
	w.t.Helper()
	began := time.Now()
	for {
		var said []string
		table, said = w.compare()
		said = append(said, w.leaks()...)
		if len(said) == 0 {
			settled = time.Since(began)
			said = w.packets(table)
		} else if time.Since(began) < settleTime && len(w.faults) == 0 {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if len(said) > 0 || len(w.faults) > 0 {
			w.autopsy(said)
		}
		for _, c := range w.clients {
			c.settle()
		}
		return table, settled
	}
}

// report writes the line of a quiet point.
func (w *world) report(at time.Duration, wind, storm string, table int, settled time.Duration) {
	kB, threads := w.process()
	w.gauge.rss = append(w.gauge.rss, use{time.Now(), kB})
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.done
	w.t.Logf("%7.1f %-9s %-10s %8d %8d %8d %7d %6d %6d %6d %6d %6.2f %6d %7d %5d", at.Seconds(), wind, storm, d["UPnP"], d["NAT-PMP"], d["PCP"], d["GENA"], d["SSDP"], d["event"], d["garbage"],
		table, settled.Seconds(), kB, threads, w.gauge.fds)
}

// summary says how much was done, and that all was granted at times: a daemon that
// refuses everything has no differences either.
func (w *world) summary(rounds int) {
	w.mu.Lock()
	var parts []string
	for _, protocol := range []string{"UPnP", "NAT-PMP", "PCP", "GENA", "SSDP"} {
		n, ok := w.done[protocol], w.done[protocol+" ok"]
		parts = append(parts, fmt.Sprintf("%s %d of %d", protocol, ok, n))
		if ok == 0 {
			w.faults = append(w.faults, protocol+": nothing was granted")
		}
	}
	events := w.done["event"]
	w.mu.Unlock()
	var rss []int
	for _, u := range w.gauge.rss {
		rss = append(rss, u.kB)
	}
	w.t.Logf("%s: %d quiet points; granted: %s; events %d; RSS of the last process %d to %d kB in %v", w.firewall, rounds,
		strings.Join(parts, ", "), events, slices.Min(rss), slices.Max(rss), time.Since(w.gauge.start).Round(time.Second))
}

// mostDifferences are shown.
const mostDifferences = 40

// autopsy ends the test, with all that helps to find out why.
func (w *world) autopsy(said []string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	log := strings.Split(w.daemon.Log(), "\n")
	slices.Sort(said)
	if n := len(said); n > mostDifferences {
		said = append(said[:mostDifferences], fmt.Sprintf("and %d more", n-mostDifferences))
	}
	w.t.Fatalf("%s, UPNPD_SEED=%d; configuration %+v, uplink %q\nfaults:\n  %s\ndifferences:\n  %s\nthe last that happened:\n  %s\nlog:\n  %s", w.firewall, w.seed, w.conf, w.wan,
		strings.Join(w.faults, "\n  "), strings.Join(said, "\n  "), strings.Join(w.told, "\n  "), strings.Join(log[max(0, len(log)-80):], "\n  "))
}
