package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// reading is the part of doc/benchmarks.md that is written by hand.
//
//go:embed reading.md
var reading string

// machine is what the results were measured on.
type machine struct {
	cpu, kernel, ours, date string
	cores                   int
	peers                   []string
}

func (b *run) machine(o options) (machine, error) {
	m := machine{cores: runtime.NumCPU(), date: time.Now().UTC().Format("2006-01-02")}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	m.cpu = "unknown CPU"
	if found := regexp.MustCompile(`(?m)^(?:model name|cpu model|Model)\s*:\s*(.+)$`).FindSubmatch(info); found != nil {
		m.cpu = string(found[1])
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, err
	}
	m.kernel = unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Machine[:])
	if m.ours, err = version(o.upnpd); err != nil {
		return m, err
	}
	for _, backend := range []string{nftables, iptables} {
		if o.peers[backend] == "" {
			continue
		}
		v, err := version(o.peers[backend])
		if err != nil {
			return m, err
		}
		m.peers = append(m.peers, fmt.Sprintf("%s for %s", v, backend))
	}
	return m, nil
}

// version is the first line that "program --version" prints.
func version(program string) (string, error) {
	out, err := exec.Command(program, "--version").Output()
	if err != nil && len(out) == 0 {
		return "", fmt.Errorf("%s --version: %w", program, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line), nil
}

func (m machine) text() string {
	return fmt.Sprintf("%s, %d cores, %s, %s\nupnpd %s; %s\n", m.cpu, m.cores, m.kernel, m.date, m.ours, strings.Join(m.peers, "; "))
}

// heads are the columns of both tables.
var heads = []string{"backend", "what", "mappings", "n", "ours", "p99", "peer", "p99", "ratio", "target", ""}

// cells are the rows of both tables, in order.
func (b *run) cells() [][]string {
	var all [][]string
	for _, p := range b.pairs {
		if p.skipped != "" {
			all = append(all, append([]string{p.backend, "left out: " + p.skipped}, make([]string, len(heads)-2)...))
			continue
		}
		for m := range measures {
			for _, count := range b.plan.counts {
				if r := b.rows[key{p.backend, m, count}]; r != nil {
					all = append(all, r.cells(key{p.backend, m, count}))
				}
			}
			if line := b.growth(p.backend, m); line != nil {
				all = append(all, line)
			}
		}
	}
	return all
}

func (r *row) cells(k key) []string {
	name, unit := k.measure.describe()
	n := strconv.Itoa(len(r.ours))
	if len(r.ours) != len(r.peer) {
		n += "/" + strconv.Itoa(len(r.peer))
	}
	line := []string{k.backend, name, strconv.Itoa(k.count), n}
	for _, s := range []samples{r.ours, r.peer} {
		median, p99 := digits(s.quantile(0.5)/unit), digits(s.quantile(0.99)/unit)
		if len(s) < 10 || k.measure.perSecond() { // of rates it would be one of the best
			p99 = "-"
		}
		line = append(line, median, p99)
	}
	ratio, ok := r.ratio()
	limit, wanted := target(k)
	if !ok {
		return append(line, "-", "", "")
	}
	mark := ""
	if r.estimated {
		mark = "~"
	}
	line = append(line, mark+digits(ratio))
	return append(line, verdict(ratio, limit, wanted)...)
}

// growth is the row that compares our largest count with our smallest.
func (b *run) growth(backend string, m measure) []string {
	small, large := b.plan.counts[0], b.plan.counts[len(b.plan.counts)-1]
	first, last := b.rows[key{backend, m, small}], b.rows[key{backend, m, large}]
	if !flat(backend, m) || small == large || first == nil || last == nil {
		return nil
	}
	name, _ := m.describe()
	name, _, _ = strings.Cut(name, ",")
	ratio := last.ours.quantile(0.5) / first.ours.quantile(0.5)
	line := []string{backend, name + ", growth", fmt.Sprintf("%d:%d", large, small), "", "", "", "", "", digits(ratio)}
	return append(line, verdict(ratio, flatLimit, true)...)
}

func verdict(ratio, limit float64, wanted bool) []string {
	switch {
	case !wanted:
		return []string{"", ""}
	case ratio <= limit:
		return []string{"<= " + strconv.FormatFloat(limit, 'g', -1, 64), "met"}
	}
	return []string{"<= " + strconv.FormatFloat(limit, 'g', -1, 64), "MISSED"}
}

// digits gives a number with as many decimals as tell something.
func digits(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// text is the table for the terminal.
func (b *run) text() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	last := ""
	for _, line := range append([][]string{heads}, b.cells()...) {
		if line[0] != last && last != "" {
			fmt.Fprintln(w, strings.Repeat("\t", len(line)-1))
		}
		last = line[0]
		fmt.Fprintln(w, strings.Join(line, "\t"))
	}
	_ = w.Flush() // into memory
	return out.String()
}

// write writes the Markdown file.
func (b *run) write(path string, about machine) error {
	var out strings.Builder
	out.WriteString("# Measured beside miniupnpd\n\nMade by `make bench-doc`; the tables are not edited by hand.\n\n")
	fmt.Fprintf(&out, "- Machine: %s, %d cores, %s\n- Ours: upnpd %s\n", about.cpu, about.cores, about.kernel, about.ours)
	for _, p := range about.peers {
		fmt.Fprintf(&out, "- Peer: %s\n", p)
	}
	fmt.Fprintf(&out, "- Date: %s\n\n%s", about.date, reading)
	last := ""
	for _, line := range b.cells() {
		if line[0] != last {
			last = line[0]
			fmt.Fprintf(&out, "\n## %s\n\n| %s |\n|---|%s\n", last, strings.Join(heads[1:], " | "), strings.Repeat("--:|", len(heads)-3)+"---|")
		}
		fmt.Fprintf(&out, "| %s |\n", strings.Join(line[1:], " | "))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(out.String()), 0o644)
}
