package ctl

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/portmap/portmaptest"
	"github.com/linux-igd/upnpd/internal/sock"
	"github.com/linux-igd/upnpd/internal/wan"
)

var update = flag.Bool("update", false, "write the golden outputs anew")

// aWhile is far longer than anything here takes, when it works.
const aWhile = 20 * time.Second

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// fakeDaemon says what a test wants.
type fakeDaemon struct {
	status   Status
	facts    Facts
	hardware map[netip.Addr][6]byte
	onStatus func()
	onFacts  func(ctx context.Context, live bool)
}

func (d *fakeDaemon) Status() Status {
	if d.onStatus != nil {
		d.onStatus()
	}
	return d.status
}

func (d *fakeDaemon) Facts(ctx context.Context, live bool) Facts {
	if d.onFacts != nil {
		d.onFacts(ctx, live)
	}
	f := d.facts
	if live {
		f.Live = &Live{Passed: true}
	}
	return f
}

func (d *fakeDaemon) Hardware() map[netip.Addr][6]byte { return d.hardware }

// world is a table, a server in front of it and the journal of both.
type world struct {
	t      *testing.T
	fw     *portmaptest.Firewall
	server *Server
	daemon *fakeDaemon
	path   string
	stop   context.CancelFunc
	ended  chan error
}

// newWorld serves at a path of its own until the test ends.
func newWorld(t *testing.T) *world {
	w := &world{t: t, fw: portmaptest.New(t), daemon: &fakeDaemon{}, path: filepath.Join(t.TempDir(), "sock"), ended: make(chan error, 1)}
	w.daemon.status, w.daemon.facts = goodStatus(), goodFacts()
	journal := NewJournal(200)
	table := portmap.New(portmap.Config{
		Firewall: w.fw,
		Policy:   portmap.Policy{MaxLease: 604800 * time.Second, MaxMappings: 5000, MaxPerClient: 5000},
		Now:      func() time.Duration { return 1000 * time.Second },
		InUse:    func(portmap.Protocol, uint16) (bool, error) { return false, nil },
		Logf:     func(string, ...any) {},
		Decided:  journal.Record,
	})
	if err := table.SetNetwork(portmap.Network{External: addr("11.0.0.2"), LANs: []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24"), netip.MustParsePrefix("2001:db8::1/64")}}); err != nil {
		t.Fatal(err)
	}
	w.server = &Server{Table: table, Daemon: w.daemon, Journal: journal, Logf: t.Logf, LeaseFiles: []string{}}
	l, err := sock.ListenUnix(w.path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	go func() { w.ended <- w.server.Serve(ctx, l) }()
	t.Cleanup(func() { w.end() })
	return w
}

// end stops the server and wants it to end soon and clean.
func (w *world) end() {
	w.t.Helper()
	w.stop()
	select {
	case err := <-w.ended:
		if err != nil {
			w.t.Errorf("Serve: %v", err)
		}
		w.ended <- nil
	case <-time.After(aWhile):
		w.t.Fatal("Serve does not end")
	}
}

// mapping asks for one; change may adapt it.
func (w *world) mapping(client string, port uint16, change func(*portmap.Request)) {
	w.t.Helper()
	req := portmap.Request{
		Mapping: portmap.Mapping{
			Key: portmap.Key{Protocol: portmap.TCP, ExternalPort: port}, Client: addr(client), InternalPort: port,
			Enabled: true, Origin: portmap.UPnP,
		},
		Lease: time.Hour, From: addr(client),
	}
	if change != nil {
		change(&req)
	}
	if _, err := w.server.Table.Map(req); err != nil {
		w.t.Fatal(err)
	}
}

// pinhole opens one for TCP port 8080.
func (w *world) pinhole(client string, change func(*portmap.Request)) {
	w.t.Helper()
	w.mapping(client, 8080, func(r *portmap.Request) {
		r.Pinhole = r.Client
		change(r)
	})
}

// home makes the mappings of the golden outputs.
func (w *world) home() {
	w.mapping("192.168.1.20", 6881, func(r *portmap.Request) { r.Description, r.Origin = "日本 torrent", portmap.PCP })
	w.mapping("192.168.1.5", 3074, func(r *portmap.Request) {
		r.Protocol, r.Description, r.Lease, r.InternalPort = portmap.UDP, "Xbox", 7*24*time.Hour, 3075
	})
	w.mapping("192.168.1.5", 40000, func(r *portmap.Request) { r.RemoteHost = addr("11.0.0.101") })
	w.mapping("192.168.1.5", 40000, func(r *portmap.Request) {
		r.RemoteHost, r.Enabled, r.Description = addr("11.0.0.20"), false, "not forwarded"
	})
	w.mapping("192.168.1.66", 8080, func(r *portmap.Request) {
		r.Description, r.Lease, r.Origin, r.From = hostile, 59*time.Second, portmap.NATPMP, addr("192.168.1.2")
	})
	w.pinhole("2001:db8::5", func(*portmap.Request) {})
	w.pinhole("2001:db8::5", func(r *portmap.Request) { r.RemotePort, r.Description = 5000, "from one port" })
	w.pinhole("2001:db8::5", func(r *portmap.Request) { r.RemoteHost, r.RemotePort = addr("2001:db8:ff::1"), 5000 })
	w.pinhole("2001:db8::6", func(r *portmap.Request) { r.RemoteHost = addr("2001:db8:ff::1") })
	w.daemon.hardware = map[netip.Addr][6]byte{addr("192.168.1.20"): {0xde, 0xad, 0xbe, 0xef, 0, 1}}
	w.leases("9 de:ad:be:ef:00:01 192.168.1.77 nas 01:de:ad\n9 aa:aa:aa:aa:aa:aa 192.168.1.5 家庭 *\n9 aa:aa:aa:aa:aa:ab 192.168.1.66 * *\n")
}

// hostile is a description that a mapping can have: table drops the controls.
const hostile = "a\u202eb\u2028c\u2066d\ue000e\U000e0041\\n\"<\ufeff"

// leases writes a file as dnsmasq's.
func (w *world) leases(text string) {
	w.t.Helper()
	path := filepath.Join(filepath.Dir(w.path), "dhcp.leases")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.server.LeaseFiles = []string{"/no/such/file", path}
}

// upnpctl runs the client.
func (w *world) upnpctl(args ...string) (stdout, stderr string, code int) {
	w.t.Helper()
	return upnpctl(append([]string{"--socket", w.path}, args...)...)
}

func upnpctl(args ...string) (stdout, stderr string, code int) {
	var out, fault bytes.Buffer
	code = Run(args, &out, &fault)
	return out.String(), fault.String(), code
}

// says wants a command to end with the code, and the part in its output.
func (w *world) says(code int, part string, args ...string) string {
	w.t.Helper()
	stdout, stderr, got := w.upnpctl(args...)
	if got != code || !strings.Contains(stdout+stderr, part) {
		w.t.Errorf("upnpctl %s: code %d, %q, %q; want %d and %q", strings.Join(args, " "), got, stdout, stderr, code, part)
	}
	return stdout
}

// dial connects without the client.
func (w *world) dial() *net.UnixConn {
	w.t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: w.path, Net: "unix"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(aWhile)); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// readAll gives all that the server answers.
func readAll(t *testing.T, c net.Conn) string {
	t.Helper()
	answer, err := io.ReadAll(c)
	if err != nil && !strings.Contains(err.Error(), "connection reset") { // what it did not read
		t.Fatal(err)
	}
	return string(answer)
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

func goodStatus() Status {
	return Status{
		Version: "0.1.0", Uptime: 76*time.Hour + 5*time.Minute + 6*time.Second,
		Uplink:     wan.Uplink{Name: "wan0", Index: 2, Up: true, Addr: addr("11.0.0.2"), Speed: 1e9},
		ExternalIP: addr("11.0.0.2"), Firewall: "nftables",
		LANs: []LANStatus{
			{Name: "br-lan", Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24"), netip.MustParsePrefix("10.9.0.1/16")}, Served: true},
			{Name: "br-guest", Why: "there is no such device"},
		},
		MaxMappings: 1000, MaxPerClient: 200, LeaseFile: "/var/run/upnpd/leases",
	}
}

func goodFacts() Facts {
	return Facts{
		Uplink: wan.Uplink{Name: "wan0", Index: 2, Up: true, Addr: addr("11.0.0.2")},
		Route:  "wan0", Firewall: "nftables",
		LANs:     []LANFacts{{Name: "br-lan", Addr: addr("192.168.1.1"), Up: true, Joined: true, Answered: true}},
		Mappings: 5, Now: time.Date(2025, 3, 1, 12, 0, 0, 0, time.Local),
	}
}

var errTest = errors.New("this is a test")
