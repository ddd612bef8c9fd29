package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/config"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/portmap/portmaptest"
	"github.com/linux-igd/upnpd/internal/wan"
)

// loopback is the whole daemon in this process, with lo as its LAN: the router
// is 127.0.0.1, its hosts are 127.0.0.2 and 127.0.0.3. The kernel's rules and
// the uplink are played.
type loopback struct {
	t       *testing.T
	signals chan os.Signal
	uplink  *playedUplink
	log     *lockedBuffer
	done    chan error
	router  string
	hosts   map[int]*controlPoint

	mu      sync.Mutex
	fw      *portmaptest.Firewall // the newest
	fws     int
	next    *config.Config // what a reload gives
	nextErr error
}

// playedUplink is an uplink whose state the test sets.
type playedUplink struct {
	mu     sync.Mutex
	state  wan.State
	change chan struct{}
}

func (u *playedUplink) State() wan.State {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

func (u *playedUplink) Counters() (wan.Counters, error) { return wan.Counters{}, nil }
func (u *playedUplink) Close() error                    { return nil }

func (u *playedUplink) Run(ctx context.Context, changed func(wan.State)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-u.change:
			changed(u.State())
		}
	}
}

func (u *playedUplink) set(f func(*wan.State)) {
	u.mu.Lock()
	f(&u.state)
	u.mu.Unlock()
	u.change <- struct{}{}
}

func testConfig(t *testing.T, args ...string) *config.Config {
	t.Helper()
	cfg, _, err := config.Parse(append([]string{"--config", os.DevNull, "-f", "wan0", "lo"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func startLoopback(t *testing.T, args ...string) *loopback {
	t.Helper()
	w := &loopback{
		t: t, signals: make(chan os.Signal, 1), log: &lockedBuffer{}, done: make(chan error, 1),
		uplink: &playedUplink{change: make(chan struct{}), state: wan.State{
			Uplink: wan.Uplink{Name: "wan0", Index: 7, Up: true, Addr: netip.MustParseAddr("11.0.0.2"), Since: portmap.BootTime()},
			LANs:   []wan.LAN{{Name: "lo", Index: 1, Up: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}},
		}},
		hosts: map[int]*controlPoint{},
	}
	port := freeUDPPort(t)
	w.router = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String()
	sys := system{
		follow: func(string, []string, func(string, ...any)) (uplink, error) { return w.uplink, nil },
		firewall: func(*config.Config, *Log) (firewallBackend, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.fw = portmaptest.New(t)
			w.fws++
			return w.fw, nil
		},
		inUse:    func(_ portmap.Protocol, port uint16) (bool, error) { return port == 16000, nil },
		lock:     func() (io.Closer, error) { return io.NopCloser(nil), nil },
		ssdpPort: port,
	}
	ready := make(chan struct{})
	go func() {
		w.done <- run(context.Background(), testConfig(t, args...), Options{
			Version: "test", Log: NewLog(w.log), Signals: w.signals,
			Load: func() (*config.Config, []string, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.next, nil, w.nextErr
			},
			Ready: func() { close(ready) },
		}, sys)
	}()
	select {
	case <-ready:
	case err := <-w.done:
		t.Fatalf("the daemon ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("not ready within 10 s")
	}
	t.Cleanup(func() {
		if w.done != nil {
			w.stop(unix.SIGTERM)
		}
		if t.Failed() {
			t.Logf("log:\n%s", w.log)
		}
	})
	return w
}

// reloadGives sets what the daemon reads at the next SIGHUP.
func (w *loopback) reloadGives(cfg *config.Config, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next, w.nextErr = cfg, err
}

// stop sends the signal and checks that the daemon ends within 2 s.
func (w *loopback) stop(sig os.Signal) {
	w.t.Helper()
	w.signals <- sig
	select {
	case err := <-w.done:
		if err != nil {
			w.t.Errorf("the daemon ended with: %v", err)
		}
	case <-time.After(2 * time.Second):
		w.t.Error("the daemon did not end within 2 s")
	}
	w.done = nil
}

func (w *loopback) firewall() *portmaptest.Firewall {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fw
}

func (w *loopback) client(n int) *controlPoint {
	if w.hosts[n] == nil {
		addr := net.IPv4(127, 0, 0, byte(n+1))
		w.hosts[n] = discover(w.t, addr.String(), w.router, func(network, to string, timeout time.Duration) (net.Conn, error) {
			d := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: addr}}
			if strings.HasPrefix(network, "udp") { // no host but the router itself searches from a loopback address
				d.LocalAddr = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
			}
			return d.Dial(network, to)
		})
	}
	return w.hosts[n]
}

func (w *loopback) reaches(proto string, external int) int {
	for _, m := range w.firewall().Mappings() {
		if m.Protocol.String() == proto && int(m.ExternalPort) == external && m.Enabled && int(m.InternalPort) == w.served() {
			return int(m.Client.As4()[3]) - 1
		}
	}
	return 0
}

func (w *loopback) setWAN(addr string) {
	w.uplink.set(func(s *wan.State) {
		s.Uplink.Addr, _ = netip.ParseAddr(addr)
		s.Uplink.Since = portmap.BootTime()
	})
}

func (w *loopback) served() int { return 8080 }

func TestLoopback(t *testing.T) {
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) { body(t, startLoopback(t)) })
	}
}

func TestSignals(t *testing.T) {
	w := startLoopback(t)
	c := w.client(1)
	c.add("TCP", 18080, w.served(), 0)
	w.reloadGives(testConfig(t, "--deny", "2000 0.0.0.0/0 0-65535"), nil)
	w.signals <- unix.SIGHUP
	until(t, "the new rule is in force", func() bool { return c.add("TCP", 2000, w.served(), 0) == 718 })
	if got := w.reaches("TCP", 18080); got != 1 {
		t.Errorf("after HUP the mapping reaches %d, want 1", got)
	}
	w.reloadGives(nil, errors.New("upnpd.conf:3: no"))
	w.signals <- unix.SIGHUP
	until(t, "the fault is logged", func() bool {
		return strings.Contains(w.log.String(), "reload: upnpd.conf:3: no; the old configuration stays")
	})
	w.reloadGives(testConfig(t, "--friendly-name", "Other"), nil)
	location := strings.TrimSuffix(c.control, "/upnp/control/WANIPConn1") + "/gatedesc.xml"
	w.signals <- unix.SIGHUP
	until(t, "it starts anew", func() bool { return strings.Count(w.log.String(), "Advertisements Sent") == 2 })
	if doc := c.get(location); !strings.Contains(doc, "<friendlyName>Other<") {
		t.Errorf("the name did not change:\n%s", doc)
	}
	if got := w.reaches("TCP", 18080); got != 1 {
		t.Errorf("after a new start the mapping reaches %d, want 1", got)
	}
	w.reloadGives(testConfig(t, "--friendly-name", "Other", "--forward-rules-append", "yes"), nil)
	w.signals <- unix.SIGHUP
	until(t, "another firewall has the mapping", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.fws == 2 && len(w.fw.Mappings()) == 1
	})
	w.signals <- unix.SIGUSR1
	until(t, "USR1 deletes all", func() bool { return w.reaches("TCP", 18080) == 0 })
	w.stop(unix.SIGINT)
}

// TestRouterPort: a port of the router itself is never given away.
func TestRouterPort(t *testing.T) {
	w := startLoopback(t)
	if code := w.client(1).add("TCP", 16000, w.served(), 0); code != 718 { // WIP-11, v1
		t.Errorf("error %d, want 718", code)
	}
}

// TestLANComesAndGoes: a LAN is served while it is up with an address.
func TestLANComesAndGoes(t *testing.T) {
	w := startLoopback(t)
	w.client(1)
	w.uplink.set(func(s *wan.State) {
		s.LANs = []wan.LAN{{Name: "lo", Index: 1, Up: true}}
	})
	until(t, "it says that it waits", func() bool { return strings.Contains(w.log.String(), "lo is not up with an IPv4 address; waiting") })
	w.uplink.set(func(s *wan.State) {
		s.LANs = []wan.LAN{{Name: "lo", Index: 1, Up: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}}
	})
	until(t, "it serves again", func() bool {
		_, _, err := w.client(1).try("GetExternalIPAddress")
		return err == nil
	})
}

func TestWANWarnings(t *testing.T) {
	w := startLoopback(t)
	for addr, want := range map[string]string{"192.168.1.7": "192.168.1.7 is private", "100.64.3.4": "100.64.3.4 is shared"} {
		w.setWAN(addr)
		until(t, want, func() bool { return strings.Contains(w.log.String(), want) })
		if got := w.client(1).externalAddress(); got != addr {
			t.Errorf("reported %s, want %s", got, addr)
		}
	}
}

func freeUDPPort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
