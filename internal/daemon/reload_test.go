package daemon

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/config"
	"github.com/linux-igd/upnpd/internal/igd"
	"github.com/linux-igd/upnpd/internal/lab/home"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/wan"
)

func TestSignals(t *testing.T) {
	w := startLoopback(t)
	c := w.Client(1)
	c.Add("TCP", 18080, w.Served(), 0)
	w.reloadGives(testConfig(t, "--deny", "2000 0.0.0.0/0 0-65535"), nil)
	w.signals <- unix.SIGHUP
	home.Until(t, "the new rule is in force", func() bool {
		code := c.Add("TCP", 2000, w.Served(), 0)
		if code == 0 { // not yet
			c.Delete("TCP", 2000)
		}
		return code == 718
	})
	if got := w.Reaches("TCP", 18080); got != 1 {
		t.Errorf("after HUP the mapping reaches %d, want 1", got)
	}
	w.reloadGives(nil, errors.New("upnpd.conf:3: no"))
	w.signals <- unix.SIGHUP
	home.Until(t, "the fault is logged", func() bool {
		return strings.Contains(w.log.String(), "reload: upnpd.conf:3: no; the old configuration stays")
	})
	w.reloadGives(testConfig(t, "--friendly-name", "Other"), nil)
	location := strings.TrimSuffix(c.Control, "/upnp/control/WANIPConn1") + "/gatedesc.xml"
	w.signals <- unix.SIGHUP
	home.Until(t, "it starts anew", func() bool { return strings.Count(w.log.String(), "Advertisements Sent") == 2 })
	if doc := c.Get(location); !strings.Contains(doc, "<friendlyName>Other<") {
		t.Errorf("the name did not change:\n%s", doc)
	}
	if got := w.Reaches("TCP", 18080); got != 1 {
		t.Errorf("after a new start the mapping reaches %d, want 1", got)
	}
	w.reloadGives(testConfig(t, "--friendly-name", "Other", "--forward-rules-append", "yes"), nil)
	w.signals <- unix.SIGHUP
	home.Until(t, "another firewall has the mapping", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.fws == 2 && len(w.fw.Mappings()) == 1
	})
	w.signals <- unix.SIGUSR1
	home.Until(t, "USR1 deletes all", func() bool { return w.Reaches("TCP", 18080) == 0 })
	w.stop()
}

// TestRefusedReload: a configuration that cannot work changes nothing.
func TestRefusedReload(t *testing.T) {
	w := startLoopback(t)
	c := w.Client(1)
	c.Add("TCP", 18080, w.Served(), 0)
	missing := testConfig(t)
	missing.IntIfs = []string{"nosuch"}
	missing.Places = []string{"f:3: intif ="}
	for _, tt := range []struct {
		next *config.Config
		want string
	}{
		{missing, `reload: f:3: intif = "nosuch": there is no such device`},
		{testConfig(t, "--forward-chain-name", "NOPE"), "reload: no chain NOPE"},
		{testConfig(t, "--port", "5000"), "reload: port = 5000: taken"},
	} {
		w.mu.Lock()
		w.portTaken = errors.New("taken")
		w.mu.Unlock()
		w.reloadGives(tt.next, nil)
		w.signals <- unix.SIGHUP
		home.Until(t, tt.want, func() bool { return strings.Contains(w.log.String(), tt.want) })
		if got := w.Reaches("TCP", 18080); got != 1 {
			t.Errorf("%s: the mapping reaches %d, want 1", tt.want, got)
		}
		if code := c.Add("TCP", 18080, w.Served(), 0); code != 0 {
			t.Errorf("%s: AddPortMapping: error %d", tt.want, code)
		}
	}
	if w.fws != 1 {
		t.Errorf("%d firewalls were started, want 1", w.fws)
	}
}

var bootID = regexp.MustCompile(`BOOTID\.UPNP\.ORG: (\d+)`)

// TestBootID grows with every initial announcement, also after an address of
// the LAN has changed (SPEC SSDP-12, SSDP-15).
func TestBootID(t *testing.T) {
	w := startLoopback(t)
	last := 0
	wantGreater := func(when string) {
		t.Helper()
		found := bootID.FindStringSubmatch(w.search())
		if found == nil {
			t.Fatal("no BOOTID")
		}
		id, err := strconv.Atoi(found[1])
		if err != nil || id <= last {
			t.Errorf("%s: BOOTID %s after %d", when, found[1], last)
		}
		last = id
	}
	announced := func(n int) {
		home.Until(t, "it is announced", func() bool { return strings.Count(w.log.String(), "Advertisements Sent") == n })
	}
	wantGreater("at the start")
	w.reloadGives(testConfig(t, "--friendly-name", "Other"), nil)
	w.signals <- unix.SIGHUP
	announced(2)
	wantGreater("after a new start")
	w.uplink.set(func(s *wan.State) {
		s.LANs = []wan.LAN{{Name: "lo", Index: 1, Up: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.9/8")}}}
	})
	announced(3)
	w.router = strings.Replace(w.router, "127.0.0.1:", "127.0.0.9:", 1)
	wantGreater("after another address of the LAN")
}

// TestRootUUID: stable, different on every router, from the first MAC there is
// (SPEC SSDP-21).
func TestRootUUID(t *testing.T) {
	lans := func(macs ...byte) wan.State {
		var s wan.State
		for _, m := range macs {
			s.LANs = append(s.LANs, wan.LAN{MAC: [6]byte{0, 0, 0, 0, 0, m}})
		}
		return s
	}
	auto := testConfig(t)
	one := rootUUID(auto, lans(1))
	if one == rootUUID(auto, lans(2)) || one == igd.NewUUID("") {
		t.Error("two routers have one UUID")
	}
	for _, same := range []wan.State{lans(1), lans(1, 2), lans(0, 1)} {
		if got := rootUUID(auto, same); got != one {
			t.Errorf("%s, want %s", got, one)
		}
	}
	const mine = "8d3c5a0e-52c4-4a6b-9f0e-3b1d7c2a9e54"
	if got := rootUUID(testConfig(t, "--uuid", mine), lans(1)); got != mine {
		t.Errorf("%s, want %s", got, mine)
	}
}

// TestLANThatCannotBeServed: it is tried again until it can.
func TestLANThatCannotBeServed(t *testing.T) {
	w := startLoopback(t)
	c := w.Client(1)
	lan := func(prefixes ...netip.Prefix) {
		w.uplink.set(func(s *wan.State) { s.LANs = []wan.LAN{{Name: "lo", Index: 1, Up: true, Prefixes: prefixes}} })
	}
	lan()
	var taken interface{ Close() error }
	home.Until(t, "the port is free", func() (ok bool) {
		var err error
		taken, err = listenHTTP(c.Control)
		return err == nil
	})
	lan(netip.MustParsePrefix("127.0.0.1/8"))
	home.Until(t, "it says so", func() bool { return strings.Contains(w.log.String(), "next try in 50ms") })
	taken.Close()
	home.Until(t, "it serves", func() bool {
		_, _, err := c.Try("GetExternalIPAddress")
		return err == nil
	})
}

// TestIPv6ThatCannotBeServed: IPv4 is, and the daemon starts.
func TestIPv6ThatCannotBeServed(t *testing.T) {
	six := []netip.Prefix{netip.MustParsePrefix("fe80::1/64")}
	t.Run("its address cannot be used", func(t *testing.T) {
		w := startLoopback6(t, six)
		if _, _, err := w.Client(1).Try("GetExternalIPAddress"); err != nil {
			t.Error(err)
		}
		if !strings.Contains(w.log.String(), "ssdp: announce fe80::1: ") {
			t.Error("nothing is said of it")
		}
	})
	t.Run("another program has the port", func(t *testing.T) {
		taken, err := net.Listen("tcp6", "[::]:0")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		_, port, _ := net.SplitHostPort(taken.Addr().String())
		w := startLoopback6(t, six, "--port", port)
		if _, _, err := w.Client(1).Try("GetExternalIPAddress"); err != nil {
			t.Error(err)
		}
		for range 3 { // more tries
			w.uplink.set(func(*wan.State) {})
		}
		taken.Close()
		home.Until(t, "the port is free", func() bool { return strings.Contains(w.log.String(), "ssdp: announce fe80::1: ") })
		if n := strings.Count(w.log.String(), "next try in"); n != 1 {
			t.Errorf("said %d times", n)
		}
	})
}

// TestPinholesCount: a pinhole that an earlier run opened is one of the mappings
// that the log counts.
func TestPinholesCount(t *testing.T) {
	host := netip.MustParseAddr("2001:db8::5")
	file := portmap.LeaseFile{Path: filepath.Join(t.TempDir(), "leases"), BootID: "this boot", Now: portmap.BootTime}
	if err := file.Write([]portmap.Mapping{{
		Key: portmap.Key{Protocol: portmap.TCP, ExternalPort: 8080, Pinhole: host}, ID: 7,
		Client: host, InternalPort: 8080, Enabled: true, Owner: host, Deadline: portmap.BootTime() + time.Hour,
	}}); err != nil {
		t.Fatal(err)
	}
	args := []string{"--lease-file", file.Path, "--control-socket", ""}
	w := startLoopback(t, args...)
	if !strings.Contains(w.log.String(), "leases: mappings restored from "+file.Path+": 1") {
		t.Error("not counted at the start")
	}
	w.reloadGives(testConfig(t, args...), nil)
	w.signals <- unix.SIGHUP
	home.Until(t, "it is read again", func() bool { return strings.Contains(w.log.String(), "mappings kept: 1") })
}
