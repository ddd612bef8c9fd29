package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// mend is how long the kernel may differ from the table once a fault has ended.
const mend = time.Second

// house is a home whose router runs the daemon, and whose tests break something.
type house struct {
	*home.Home
	t      *testing.T
	rules  string // lab.Nftables, or a program of iptables
	config string // path of the configuration file
	daemon *lab.Daemon

	slowest time.Duration // of the repairs
}

// enter raises a home with a configured router.
func enter(t *testing.T, rules string, options ...string) *house {
	t.Helper()
	h := &house{Home: home.Start(t), t: t, rules: rules, config: filepath.Join(t.TempDir(), "upnpd.conf")}
	if err := h.Masquerade(rules); err != nil {
		t.Fatal(err)
	}
	h.configure(options...)
	return h
}

// configure writes the configuration file: a choice of firewall, and these lines.
func (h *house) configure(options ...string) {
	h.t.Helper()
	if h.rules == lab.Nftables {
		options = append(options, "firewall = nftables")
	} else if !strings.Contains(strings.Join(options, "\n"), "iptables_location") {
		options = append(options, "iptables_location = /usr/sbin/"+h.rules)
	}
	if err := os.WriteFile(h.config, []byte(strings.Join(options, "\n")+"\n"), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// begin starts the daemon; through is a program that runs it, or "".
func (h *house) begin(through string) *house {
	h.t.Helper()
	binary := lab.Build(h.t)
	if through != "" {
		binary = through
	}
	h.daemon = h.Router.StartDaemon(h.t, binary, "--config", h.config, lab.WANDev, lab.LANDev)
	return h
}

// file is the path by which this process sees a file of the router.
func (h *house) file(path string) string { return fmt.Sprintf("/proc/%d/root%s", h.Router.PID, path) }

// ctl runs upnpctl; the exit code does not matter.
func (h *house) ctl(args ...string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, _ := h.Router.Command(ctx, filepath.Join(filepath.Dir(lab.Build(h.t)), "upnpctl"), args...).Output()
	return string(out)
}

// table is what the daemon believes that the kernel has.
func (h *house) table() (all []string) {
	h.t.Helper()
	var list struct {
		Mappings []struct {
			Protocol string `json:"protocol"`
			Port     int    `json:"external_port"`
			Client   string `json:"client"`
			Internal int    `json:"internal_port"`
		} `json:"mappings"`
	}
	text := h.ctl("list", "--json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		h.t.Fatalf("upnpctl list: %v in %q", err, text)
	}
	for _, m := range list.Mappings {
		all = append(all, fmt.Sprintf("%s %d %s", strings.ToLower(m.Protocol), m.Port, net.JoinHostPort(m.Client, strconv.Itoa(m.Internal))))
	}
	slices.Sort(all)
	return all
}

var (
	nftElement = regexp.MustCompile(`(tcp|udp) \. (\d+) [^:,}]*: ([0-9.]+) \. (\d+)`)
	iptRule    = regexp.MustCompile(`(?m)^-A UPNPD -p (tcp|udp) -m \S+ --dport (\d+) -j DNAT --to-destination ([0-9.]+):(\d+)$`)
)

// kernel is what the kernel has, as nft and iptables list it, and where it sends
// what comes to which WAN address.
func (h *house) kernel() (all []string, external string) {
	h.t.Helper()
	var found [][]string
	if h.rules == lab.Nftables {
		text := h.nft("list", "map", "inet", "upnpd", "dnat4")
		found = nftElement.FindAllStringSubmatch(text, -1)
		external = h.nft("list", "set", "inet", "upnpd", "ext4")
	} else {
		external = h.nft("-w", "-t", "nat", "-S")
		found = iptRule.FindAllStringSubmatch(external, -1)
	}
	for _, f := range found {
		all = append(all, fmt.Sprintf("%s %s %s", f[1], f[2], net.JoinHostPort(f[3], f[4])))
	}
	slices.Sort(all)
	return all, external
}

// nft runs nft, or the router's iptables, and gives what it lists; nothing, when
// there is nothing.
func (h *house) nft(args ...string) string {
	program := h.rules
	if program == lab.Nftables {
		program = "nft"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, _ := h.Router.Command(ctx, program, args...).Output()
	return string(out)
}

// differs says how the rules that the kernel lists differ from the table, "" for
// not at all.
func (h *house) differs() string {
	h.t.Helper()
	kernel, external := h.kernel()
	table := h.table()
	if !slices.Equal(kernel, table) {
		return fmt.Sprintf("kernel %q, table %q", kernel, table)
	}
	if wan := h.wan(); wan != "" && !strings.Contains(external, wan) {
		return fmt.Sprintf("no %s in %q", wan, external)
	}
	return ""
}

// checked wants that upnpctl check, too, finds the kernel right.
func (h *house) checked(when string) {
	h.t.Helper()
	if h.rules != lab.Nftables {
		for _, jump := range []string{"-A PREROUTING -j UPNPD-PRE\n", "-A POSTROUTING -j UPNPD-POST\n"} {
			if n := strings.Count(h.nft("-w", "-t", "nat", "-S"), jump); n != 1 {
				h.t.Errorf("%s: %d times %s", when, n, jump)
			}
		}
	}
	for _, line := range strings.Split(h.ctl("check"), "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[1] == "kernel" {
			if f[0] != "PASS" {
				h.t.Errorf("%s: %s", when, line)
			}
			return
		}
	}
	h.t.Errorf("%s: upnpctl check says nothing of the kernel", when)
}

// wan is the address that the uplink has now.
func (h *house) wan() string {
	found := regexp.MustCompile(`inet ([0-9.]+)`).FindStringSubmatch(h.Router.Run(h.t, "ip", "-4", "-o", "addr", "show", "dev", lab.WANDev))
	if found == nil {
		return ""
	}
	return found[1]
}

// mended wants kernel and table equal soon after a fault has ended. How soon is
// measured; only that it happens is a condition, since machines may be slow.
func (h *house) mended(fault string) {
	h.t.Helper()
	began := time.Now()
	for {
		said := h.differs()
		if said == "" {
			break
		}
		if time.Since(began) > 30*mend {
			h.t.Fatalf("%s: %v after its end: %s", fault, time.Since(began), said)
		}
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(began)
	if h.slowest = max(h.slowest, took); took > mend {
		h.t.Logf("%s: equal again after %v", fault, took.Round(time.Millisecond))
	}
}

// alive wants the process that was started, and that it answers.
func (h *house) alive() {
	h.t.Helper()
	select {
	case <-h.daemon.Ended():
		h.t.Fatal("the daemon has ended")
	default:
	}
	if got := h.Client(1).ExternalAddress(); got != h.wan() {
		h.t.Errorf("GetExternalIPAddress: %q, want %q", got, h.wan())
	}
}

// logged counts the lines of the log that contain the words.
func (h *house) logged(words string) int { return strings.Count(h.daemon.Log(), words) }

const (
	hangUp     = syscall.SIGHUP
	leasesPath = "/run/upnpd/leases"
)

// kept waits until the lease file has that many mappings.
func (h *house) kept(want int) { h.t.Helper(); h.keptAt(leasesPath, want) }

func (h *house) keptAt(path string, want int) {
	h.t.Helper()
	home.Until(h.t, fmt.Sprintf("the lease file has %d mappings", want), func() bool {
		text, _ := os.ReadFile(h.file(path))
		return strings.Count(string(text), "\n") == want+1
	})
}

// again kills the daemon and starts it again.
func (h *house) again() {
	h.t.Helper()
	h.daemon.Kill()
	h.begin("")
	h.For(h.t)
}
