package portmap_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/portmap/portmaptest"
)

var (
	ann   = netip.MustParseAddr("192.168.1.10")
	bob   = netip.MustParseAddr("192.168.1.11")
	peer1 = netip.MustParseAddr("11.0.0.101")
	peer2 = netip.MustParseAddr("11.0.0.102")
	peer3 = netip.MustParseAddr("11.0.0.103")

	// Ann's host has a second address of the same prefix, and one of the site.
	ann6  = netip.MustParseAddr("2001:db8:1::10")
	anna6 = netip.MustParseAddr("2001:db8:1::f00:10")
	annl6 = netip.MustParseAddr("fd00:1::10")
	bob6  = netip.MustParseAddr("2001:db8:1::11")
	peer6 = netip.MustParseAddr("2001:db8:9::101")

	home = portmap.Network{
		External: netip.MustParseAddr("11.0.0.2"),
		LANs: []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24"), netip.MustParsePrefix("10.9.0.1/16"),
			netip.MustParsePrefix("2001:db8:1::1/64"), netip.MustParsePrefix("fd00:1::1/64")},
	}
)

// world is a table and all that it touches.
type world struct {
	*portmap.Table
	t     *testing.T
	fw    *portmaptest.Firewall
	clock time.Duration // the boot clock of tests without time
	used  map[uint16]bool
	log   []string
}

func policy() portmap.Policy {
	return portmap.Policy{Secure: true, MaxLease: 604800 * time.Second, MaxMappings: 1000, MaxPerClient: 200}
}

// newWorld makes a table at home; change may adapt its Config, nil for none.
func newWorld(t *testing.T, change func(*portmap.Config)) *world {
	w := &world{t: t, fw: portmaptest.New(t), clock: 1000 * time.Second, used: map[uint16]bool{}}
	c := portmap.Config{
		Firewall: w.fw,
		Policy:   policy(),
		Now:      func() time.Duration { return w.clock },
		InUse:    func(_ portmap.Protocol, port uint16) (bool, error) { return w.used[port], nil },
		Logf:     func(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) },
	}
	if change != nil {
		change(&c)
	}
	w.Table = portmap.New(c)
	w.SetNetwork(home)
	return w
}

func key(p portmap.Protocol, port uint16, remote netip.Addr) portmap.Key {
	return portmap.Key{Protocol: p, ExternalPort: port, RemoteHost: remote}
}

// ask is client's wish for TCP port to its own port, for an hour.
func ask(client netip.Addr, port uint16) portmap.Request {
	return portmap.Request{
		Mapping: portmap.Mapping{Key: key(portmap.TCP, port, netip.Addr{}), Client: client, InternalPort: port,
			Enabled: true, Description: "test", Origin: portmap.UPnP, Owner: client},
		Lease: time.Hour, From: client,
	}
}

// pin is client's wish for a pinhole to its TCP port, for an hour.
func pin(client netip.Addr, port uint16) portmap.Request {
	req := ask(client, port)
	req.Pinhole = client
	return req
}

// annAlone is a neighbour table in which all of Ann's addresses are one host's.
func annAlone(a, b netip.Addr) bool {
	all := []netip.Addr{ann, ann6, anna6, annl6}
	return slices.Contains(all, a) && slices.Contains(all, b)
}

// after lets time pass and does what is due.
func (w *world) after(d time.Duration) {
	w.clock += d
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w.Run(ctx)
}

func (w *world) mustMap(req portmap.Request) portmap.Mapping {
	w.t.Helper()
	m, err := w.Map(req)
	if err != nil {
		w.t.Fatal(err)
	}
	w.checkKernel()
	return m
}

// refused asks and wants the error, no trace, and one log line.
func (w *world) refused(req portmap.Request, want error) {
	w.t.Helper()
	before, lines := w.List(), len(w.log)
	m, err := w.Map(req)
	if !errors.Is(err, want) {
		w.t.Errorf("map %v by %v: %v, want %v", req.Mapping, req.From, err, want)
	}
	if m != (portmap.Mapping{}) || !slices.Equal(w.List(), before) {
		w.t.Errorf("map %v: refused, but gave %+v and left %v", req.Mapping, m, w.List())
	}
	what := "map"
	if req.Pinhole.IsValid() {
		what = "open pinhole"
	}
	if want := fmt.Sprintf("refused %v: %s ", req.From, what); len(w.log) != lines+1 || !strings.HasPrefix(w.log[lines], want) {
		w.t.Errorf("log %q, want one line that begins %q", w.log[lines:], want)
	}
	w.checkKernel()
}

// checkKernel wants the kernel equal to the table.
func (w *world) checkKernel() {
	w.t.Helper()
	list := w.List()
	slices.SortFunc(list, portmaptest.Compare)
	if got := w.fw.Mappings(); !slices.Equal(got, list) {
		w.t.Errorf("the kernel has\n%v\nthe table\n%v", got, list)
	}
}
