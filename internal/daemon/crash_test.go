package daemon

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// crashes are the labs of TestCrash: 200 kills in all (issue 4, point 1).
var crashes = []struct {
	router string
	kills  int
}{{lab.Nftables, 50}, {lab.Nftables, 50}, {"iptables-legacy", 50}, {"iptables-nft", 50}}

const (
	// lossTime is how old an acknowledgement is that a crash may not undo.
	lossTime = time.Second
	// crashHTTP is the daemon's port in each of its lives.
	crashHTTP = "5000"
)

// TestCrash: kill -9 at random moments while two hosts add, renew and delete
// mappings as fast as they can. No mapping acknowledged more than a second before
// is lost, none deleted more than a second before returns, and the kernel is equal
// to the table (issue 4, points 1 and 2).
func TestCrash(t *testing.T) {
	for i, c := range crashes {
		t.Run(fmt.Sprintf("%s-%d", c.router, i), func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			newCrasher(t, c.router, seed).run(c.kills)
		})
	}
}

// crasher is a router whose daemon is killed, and its clients.
type crasher struct {
	*inLab
	rng     *rand.Rand
	clients []*crashClient
	starts  []time.Duration
	certain int    // how often a kill left no doubt about what a client was told
	killed  string // about the last kill, for who looks for a fault
}

func newCrasher(t *testing.T, router string, seed uint64) *crasher {
	c := &crasher{inLab: raise(t, router), rng: rand.New(rand.NewPCG(seed, 0))}
	c.launch()
	for i := range 4 { // two on each host
		port := crashPort + uint16(i)*crashPorts
		c.clients = append(c.clients, newCrashClient(1+i%2, port, c.Client(1+i%2), rand.New(rand.NewPCG(seed, uint64(i)))))
	}
	return c
}

func (c *crasher) run(kills int) {
	c.load(time.Second, false, false, c.daemon.Kill)
	for range kills - 1 {
		switch c.rng.IntN(4) {
		case 0: // it dies before it serves, or soon after
			c.load(time.Duration(c.rng.IntN(100))*time.Millisecond, true, false, c.spawn())
		case 1: // the file is written again
			c.serve()
			c.load(time.Second+time.Duration(c.rng.IntN(600))*time.Millisecond, false, c.rng.IntN(2) == 0, c.daemon.Kill)
		default:
			c.serve()
			c.load(time.Duration(c.rng.IntN(700))*time.Millisecond, false, c.rng.IntN(4) == 0, c.daemon.Kill)
		}
		if c.t.Failed() {
			return
		}
	}
	c.serve()
	c.reached()
	acks := 0
	for _, client := range c.clients {
		acks += client.acks
	}
	slices.Sort(c.starts)
	c.t.Logf("%d kills, %d acknowledgements, of which %d could not be undone; restarts: median %v, longest %v", kills, acks,
		c.certain, c.starts[len(c.starts)/2].Round(time.Millisecond), c.starts[len(c.starts)-1].Round(time.Millisecond))
	if acks < 10*kills || c.certain < kills {
		c.t.Error("that is too little to show anything")
	}
	if err := c.daemon.Quit(); err != nil {
		c.t.Error(err)
	}
	c.wantNoRules()
}

// spawn starts the daemon and does not wait for it.
func (c *crasher) spawn() (kill func()) {
	c.t.Helper()
	args := append([]string{"-f"}, c.args("--port", crashHTTP)...)
	cmd := c.Router.Command(context.Background(), lab.Build(c.t), args...)
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	return func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// launch starts the daemon and waits until it serves. Its log is shown when the
// test fails: only that of the last life, for each is long.
func (c *crasher) launch() {
	c.t.Helper()
	d, err := c.Router.Launch(lab.Build(c.t), c.args("--port", crashHTTP)...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.daemon = d
	c.t.Cleanup(func() {
		if d.Kill(); c.t.Failed() && d == c.daemon {
			log := d.Log()
			c.t.Logf("the end of the log of the last daemon:\n%s", log[max(len(log)-2000, 0):])
		}
	})
}

// serve starts the daemon again, and checks what it and the kernel have.
func (c *crasher) serve() {
	c.t.Helper()
	began := time.Now()
	c.launch()
	c.starts = append(c.starts, time.Since(began))
	if log := c.daemon.Log(); strings.Contains(log, "not restored") || strings.Contains(log, "DATA RACE") {
		c.t.Errorf("after a crash:\n%s", log)
	}
	var want []string
	have, now := map[portmap.Key]mapState{}, time.Now()
	for _, m := range c.table() {
		k, s := m.state(now)
		have[k] = s
		if s.enabled {
			want = append(want, m.redirect())
		}
	}
	slices.Sort(want)
	if got := c.redirects(); !slices.Equal(got, want) {
		c.t.Errorf("the kernel has\n%s\nthe table\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, client := range c.clients {
		for _, k := range client.keys {
			if err := client.compare(k, have[k]); err != nil {
				c.t.Errorf("%v; %s", err, c.killed)
			}
			delete(have, k)
		}
	}
	for k, s := range have {
		c.t.Errorf("nobody asked for %v: %v", k, s)
	}
}

// awaitWrite waits until the daemon is about to write the lease file, for at most
// a second.
func (c *crasher) awaitWrite() {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		c.t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, c.file(filepath.Dir(leasesPath)), unix.IN_CREATE|unix.IN_MODIFY); err != nil {
		c.t.Fatal(err)
	}
	unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
}

// load has the clients work, and kills the daemon: early, it may not serve yet;
// aimed, it writes the leases at that moment.
func (c *crasher) load(life time.Duration, early, aimed bool, kill func()) {
	var working sync.WaitGroup
	var dead atomic.Bool
	for _, client := range c.clients {
		working.Add(1)
		go func() {
			defer working.Done()
			for !dead.Load() {
				err := client.step()
				if err != nil && !early && !dead.Load() {
					c.t.Errorf("while the daemon lives: %v", err)
				}
				if err != nil {
					time.Sleep(time.Millisecond) // it does not listen yet
				}
			}
		}()
	}
	var late atomic.Int64
	working.Add(1)
	go func() {
		defer working.Done()
		for !dead.Load() {
			if d := stall(); d > 0 {
				late.Add(int64(d))
			}
		}
	}()
	began := time.Now()
	time.Sleep(life)
	if aimed {
		c.awaitWrite()
	}
	dead.Store(true)
	killed := time.Now()
	kill()
	if info, err := os.Stat(c.file(leasesPath)); err == nil {
		c.killed = fmt.Sprintf("life %v, real %v, file written %v before; the machine stood still for %v", life, killed.Sub(began), killed.Sub(info.ModTime()), time.Duration(late.Load()))
		for _, line := range strings.Split(c.daemon.Log(), "\n") {
			if strings.Contains(line, "leases") && !strings.Contains(line, "Map") {
				c.killed += "\n" + line
			}
		}
	}
	working.Wait()
	for _, client := range c.clients {
		c.certain += client.crashed(killed, lossTime+time.Duration(late.Load()))
	}
}

// stall sleeps a little and says for how long the machine had no time for it: a
// busy one gives the daemon none either, and the second is not over. Less than a
// tenth of a second does not count.
func stall() time.Duration {
	const nap, much = 5 * time.Millisecond, 100 * time.Millisecond
	began := time.Now()
	time.Sleep(nap)
	if d := time.Since(began) - nap; d > much {
		return d
	}
	return 0
}

// reached tries ports from the internet.
func (c *crasher) reached() {
	c.t.Helper()
	tried := map[int]int{}
	for _, client := range c.clients {
		for _, k := range client.keys {
			leads := client.may[k][0]
			if k.RemoteHost.IsValid() {
				continue
			}
			k.RemoteHost = netip.MustParseAddr(lab.InternetAddr) // for this peer, that one comes first
			if special := client.may[k][0]; special.enabled {
				leads = special
			}
			want := 0
			if leads.enabled {
				want = client.host
			}
			if want > 0 && leads.internal != c.Served() || tried[want] == 3 {
				continue
			}
			tried[want]++
			if got := c.Reaches(k.Protocol.String(), int(k.ExternalPort)); got != want {
				c.t.Errorf("%v port %d reaches host %d, want %d", k.Protocol, k.ExternalPort, got, want)
			}
		}
	}
	if tried[1] == 0 || tried[2] == 0 {
		c.t.Error("no mapping was left to be tried")
	}
}

var (
	nftElement = regexp.MustCompile(`(?:([0-9.]+) \. )?(tcp|udp) \. (\d+) [^:,}]*: ([0-9.]+) \. (\d+)`)
	iptRule    = regexp.MustCompile(`(?m)^-A UPNPD (?:-s ([0-9.]+)/32 )?-p (tcp|udp) -m \S+ --dport (\d+) -j DNAT --to-destination ([0-9.]+):(\d+)$`)
)

// redirects is what the kernel has, ordered, as listed.redirect has it.
func (w *inLab) redirects() []string {
	w.t.Helper()
	var found [][]string
	if w.iptables == lab.Nftables {
		inward, _, _ := strings.Cut(w.Router.Run(w.t, "nft", "list table inet upnpd"), "map snat4")
		found = nftElement.FindAllStringSubmatch(inward, -1)
	} else {
		found = iptRule.FindAllStringSubmatch(w.Router.Run(w.t, w.iptables, "-w", "-t", "nat", "-S", "UPNPD"), -1)
	}
	var all []string
	for _, f := range found {
		all = append(all, fmt.Sprintf("%s %s from %s to %s", f[2], f[3], orAny(f[1]), net.JoinHostPort(f[4], f[5])))
	}
	slices.Sort(all)
	return all
}

// redirect is what the kernel should have of an enabled mapping.
func (m listed) redirect() string {
	k, _ := m.state(time.Time{})
	return fmt.Sprintf("%s %d from %s to %s", strings.ToLower(m.Protocol), m.ExternalPort, orAny(addrText(k.RemoteHost)),
		net.JoinHostPort(m.Client, strconv.Itoa(m.InternalPort)))
}

func orAny(addr string) string {
	if addr == "" {
		return "any"
	}
	return addr
}

// addrText is an address in an argument of UPnP: "" for none.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
