package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/config"
	"github.com/linux-igd/upnpd/internal/lab/home"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/portmap/portmaptest"
	"github.com/linux-igd/upnpd/internal/wan"
)

// loopback is the whole daemon in this process, with lo as its LAN: the router
// is 127.0.0.1, its hosts are 127.0.0.2 and 127.0.0.3. The kernel's rules and
// the uplink are played.
type loopback struct {
	t       *testing.T
	ctx     context.Context
	cancel  func()
	signals chan os.Signal
	uplink  *playedDevices
	log     *lockedBuffer
	done    chan error
	router  string
	pcpPort uint16
	hosts   map[int]*home.ControlPoint

	mu        sync.Mutex
	fw        *portmaptest.Firewall // the newest
	fws       int
	next      *config.Config // what a reload gives
	nextErr   error
	portTaken error // what a try of a new HTTP port gives
}

// playedDevices are devices whose state the test sets.
type playedDevices struct {
	mu        sync.Mutex
	state     wan.State
	change    chan struct{}
	neighbors []wan.Neighbor
}

func (u *playedDevices) State() wan.State {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

func (u *playedDevices) Counters() (wan.Counters, error) { return wan.Counters{}, nil }
func (u *playedDevices) Close() error                    { return nil }

func (u *playedDevices) Neighbors() ([]wan.Neighbor, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.neighbors, nil
}

func (u *playedDevices) Resolve(netip.Addr) error { return nil }

func (u *playedDevices) RouteDevice(netip.Addr) (string, error) { return "wan0", nil }
func (u *playedDevices) SameHost(a, b netip.Addr) bool          { return false }
func (u *playedDevices) SameLAN(to, from netip.Addr) bool       { return to != from }

func (u *playedDevices) Run(ctx context.Context, changed func(wan.State)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-u.change:
			changed(u.State())
		}
	}
}

func (u *playedDevices) set(f func(*wan.State)) {
	u.mu.Lock()
	f(&u.state)
	u.mu.Unlock()
	u.change <- struct{}{}
}

// playedFirewall is a kernel that becomes the world's when it is started.
type playedFirewall struct {
	*portmaptest.Firewall
	w *loopback
}

func (f *playedFirewall) Start() error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.fw = f.Firewall
	f.w.fws++
	return nil
}

func (f *playedFirewall) ForwardPath() (string, error) { return "", nil }

func (f *playedFirewall) Guard(ctx context.Context, _ func(), _ func(string, ...any)) { <-ctx.Done() }

func testConfig(t *testing.T, args ...string) *config.Config {
	t.Helper()
	if !strings.Contains(strings.Join(args, " "), "--lease-file") {
		args = append(args, "--lease-file", "", "--control-socket", "")
	}
	cfg, _, err := config.Parse(append([]string{"--config", os.DevNull, "-f", "wan0", "lo"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func startLoopback(t *testing.T, args ...string) *loopback {
	t.Helper()
	return startLoopback6(t, nil, args...)
}

// startLoopback6 gives lo IPv6 addresses that it does not have.
func startLoopback6(t *testing.T, six []netip.Prefix, args ...string) *loopback {
	t.Helper()
	w := &loopback{
		t: t, signals: make(chan os.Signal, 1), log: &lockedBuffer{}, done: make(chan error, 1),
		uplink: &playedDevices{change: make(chan struct{}), state: wan.State{
			Uplink: wan.Uplink{Name: "wan0", Index: 7, Up: true, Addr: netip.MustParseAddr("11.0.0.2"), Since: portmap.BootTime()},
			LANs:   []wan.LAN{{Name: "lo", Index: 1, Up: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}, Prefixes6: six}},
		}},
		hosts: map[int]*home.ControlPoint{},
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	port := freeUDPPort(t)
	w.router = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String()
	w.pcpPort = freeUDPPort(t)
	sys := system{
		follow: func(_ wan.Uplink, intifs []string, _ func(string, ...any)) (follower, error) {
			if intifs[0] == "nosuch" {
				return &playedDevices{state: wan.State{LANs: []wan.LAN{{Name: "nosuch"}}}}, nil
			}
			return w.uplink, nil
		},
		firewall: func(_ context.Context, cfg *config.Config, _ *Log) (firewallBackend, string, error) {
			if cfg.IPTables.ForwardChain == "NOPE" {
				return nil, "", errors.New("no chain NOPE")
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			return &playedFirewall{Firewall: portmaptest.New(t), w: w}, "played", nil
		},
		sweep: func(context.Context, string, *Log) error { return nil },
		inUse: func(_ portmap.Protocol, port uint16) (bool, error) { return port == 16000, nil },
		portFree: func(string, uint16) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.portTaken
		},
		forwarding: func() bool { return true },
		lock:       func() (io.Closer, error) { return io.NopCloser(nil), nil },
		confine: func(*config.Config, *Log) (func(bool) error, error) {
			return func(bool) error { return nil }, nil
		},
		bootID:   func() string { return "this boot" },
		ssdpPort: port,
		pcpPort:  w.pcpPort,
		lanRetry: 50 * time.Millisecond,
	}
	ready := make(chan struct{})
	go func() {
		w.done <- run(w.ctx, testConfig(t, args...), Options{
			Version: "test", Log: NewLog(w.log, w.log), Signals: w.signals,
			Load: func() (*config.Config, []string, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.next, nil, w.nextErr
			},
			Ready: func(string) { close(ready) },
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
			w.stop()
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

// stop ends the daemon and checks that it takes no more than 2 s.
func (w *loopback) stop() {
	w.t.Helper()
	w.cancel()
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

func (w *loopback) Client(n int) *home.ControlPoint {
	if w.hosts[n] == nil {
		addr := net.IPv4(127, 0, 0, byte(n+1))
		w.hosts[n] = home.Discover(w.t, addr.String(), w.router, dialFrom(addr))
	}
	return w.hosts[n]
}

func dialFrom(addr net.IP) home.Dialer {
	return func(network, to string, timeout time.Duration) (net.Conn, error) {
		d := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: addr}}
		if strings.HasPrefix(network, "udp") { // no host but the router itself searches from a loopback address
			router, _, _ := net.SplitHostPort(to)
			d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(router)}
		}
		return d.Dial(network, to)
	}
}

func (w *loopback) search() string {
	w.t.Helper()
	return home.Search(w.t, w.router, dialFrom(nil))
}

// listenHTTP takes the port of a control URL on all devices.
func listenHTTP(control string) (net.Listener, error) {
	u, err := url.Parse(control)
	if err != nil {
		return nil, err
	}
	return net.Listen("tcp4", ":"+u.Port())
}

func (w *loopback) Reaches(proto string, external int) int {
	for _, m := range w.firewall().Mappings() {
		if m.Protocol.String() == proto && int(m.ExternalPort) == external && m.Enabled && int(m.InternalPort) == w.Served() {
			return int(m.Client.As4()[3]) - 1
		}
	}
	return 0
}

func (w *loopback) Answers(external int) int { return w.Reaches("UDP", external) }

func (w *loopback) SetWAN(addr string) {
	w.uplink.set(func(s *wan.State) {
		s.Uplink.Addr, _ = netip.ParseAddr(addr)
		s.Uplink.Since = portmap.BootTime()
	})
}

func (w *loopback) Served() int { return 8080 }

func TestLoopback(t *testing.T) {
	for name, body := range home.Jobs {
		t.Run(name, func(t *testing.T) { body(t, startLoopback(t)) })
	}
}

// TestRouterPort: a port of the router itself is never given away.
func TestRouterPort(t *testing.T) {
	w := startLoopback(t)
	if code := w.Client(1).Add("TCP", 16000, w.Served(), 0); code != 718 { // WIP-11, v1
		t.Errorf("error %d, want 718", code)
	}
}

// TestLANComesAndGoes: a LAN is served while it is up with an address.
func TestLANComesAndGoes(t *testing.T) {
	w := startLoopback(t)
	w.Client(1)
	w.uplink.set(func(s *wan.State) {
		s.LANs = []wan.LAN{{Name: "lo", Index: 1, Up: true}}
	})
	home.Until(t, "it says that it waits", func() bool { return strings.Contains(w.log.String(), "lo is not up with an IPv4 address; waiting") })
	w.uplink.set(func(s *wan.State) {
		s.LANs = []wan.LAN{{Name: "lo", Index: 1, Up: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}}
	})
	home.Until(t, "it serves again", func() bool {
		_, _, err := w.Client(1).Try("GetExternalIPAddress")
		return err == nil
	})
}

func TestWANWarnings(t *testing.T) {
	w := startLoopback(t)
	for addr, want := range map[string]string{"192.168.1.7": "192.168.1.7 is private", "100.64.3.4": "100.64.3.4 is shared"} {
		w.SetWAN(addr)
		home.Until(t, want, func() bool { return strings.Contains(w.log.String(), want) })
		if got := w.Client(1).ExternalAddress(); got != addr {
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
