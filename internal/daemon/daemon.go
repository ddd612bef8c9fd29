// Package daemon puts the rooms together: it starts, reloads and stops them,
// and is the only one that knows them all (DESIGN.md, "Rooms and arrows").
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/config"
	"github.com/linux-igd/upnpd/internal/ctl"
	"github.com/linux-igd/upnpd/internal/igd"
	"github.com/linux-igd/upnpd/internal/pcp"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/wan"
)

// Options are what main gives to Run besides the configuration.
type Options struct {
	Version string
	Log     *Log
	// Signals carries HUP (reload), USR1 (delete all mappings) and USR2 (end
	// and leave the kernel to the next run).
	Signals <-chan os.Signal
	// Load reads the configuration again.
	Load func() (*config.Config, []string, error)
	// Ready is called once, when the daemon serves. What somebody who started
	// it should know is in notice, or "".
	Ready func(notice string)
}

// Run serves until ctx ends, and takes everything of its own out of the kernel
// before it returns. The mappings stay in the lease file. Its error says why it could
// not start, or what is left in the kernel.
func Run(ctx context.Context, cfg *config.Config, o Options) error {
	return run(ctx, cfg, o, linux)
}

// system is what the daemon needs of the machine. Tests have another one.
type system struct {
	follow     func(uplink wan.Uplink, intifs []string, logf func(string, ...any)) (follower, error)
	firewall   func(ctx context.Context, cfg *config.Config, log *Log) (fw firewallBackend, name string, err error)
	sweep      func(ctx context.Context, firewall string, log *Log) error // removes what the other firewall has left
	inUse      func(portmap.Protocol, uint16) (bool, error)
	lock       func() (io.Closer, error) // held by the one daemon of the machine
	confine    func(cfg *config.Config, log *Log) (drop func(nftables bool) error, err error)
	bootID     func() string
	portFree   func(dev string, port uint16) error
	forwarding func() bool
	ssdpPort   uint16
	pcpPort    uint16
	lanRetry   time.Duration // before a LAN that could not be served is tried again
}

// follower follows the WAN and LAN devices.
type follower interface {
	igd.Uplink
	routing
	Run(ctx context.Context, changed func(wan.State)) error
	Close() error
}

// routing is what the kernel knows of other hosts.
type routing interface {
	State() wan.State
	Neighbors() ([]wan.Neighbor, error)
	Resolve(netip.Addr) error
	RouteDevice(netip.Addr) (string, error)
	SameHost(a, b netip.Addr) bool
	SameLAN(to, from netip.Addr) bool
}

// firewallBackend is a portmap.Firewall that is put into the kernel and taken
// out again.
type firewallBackend interface {
	portmap.Firewall
	Start() error // takes over what an earlier run left
	// Guard tells when somebody changed what is ours, until ctx ends.
	Guard(ctx context.Context, repair func(), warnf func(string, ...any))
	// ForwardPath names the chain that drops what we redirect, and what helps;
	// "": none. It may run beside the other methods.
	ForwardPath() (string, error)
	Close() error
}

type daemon struct {
	Options
	sys     system
	cfg     *config.Config
	table   *portmap.Table
	keeper  *portmap.Keeper
	journal *ctl.Journal
	fw      firewallBackend
	fwName  string

	ctx      context.Context
	began    time.Duration          // on the boot clock
	asked    chan func(*generation) // see ask
	flushed  chan struct{}          // all mappings were deleted
	now      atomic.Pointer[generation]
	unguard  func()     // ends the watch over fw
	deaf     func()     // ends the control socket
	handOver bool       // the kernel is left to the next run
	served   bool       // the first generation was ready
	httpPort uint16     // of all LANs, once chosen
	bootID   uint32     // of the last generation
	epoch    *pcp.Epoch // of the mappings
	external netip.Addr // the last one that was announced
}

func run(ctx context.Context, cfg *config.Config, o Options, sys system) (err error) {
	d := &daemon{
		Options: o, sys: sys, cfg: cfg, ctx: ctx, began: portmap.BootTime(),
		journal: ctl.NewJournal(decisions), asked: make(chan func(*generation)), flushed: make(chan struct{}, 1),
		epoch: pcp.NewEpoch(portmap.BootTime),
	}
	d.Log.SetLevel(cfg.LogLevel)
	defer d.Log.OmittedLines()
	alone, err := sys.lock()
	if err != nil {
		return err
	}
	defer alone.Close()
	drop, err := sys.confine(cfg, d.Log)
	if err != nil {
		return err
	}
	if !sys.forwarding() {
		d.Log.Warnf("the kernel does not forward: nothing mapped here works until `sysctl -w net.ipv4.ip_forward=1`")
	}
	devices, err := d.follow(cfg, wan.Uplink{Name: cfg.ExtIf})
	if err != nil {
		return err
	}
	if d.fw, d.fwName, err = sys.firewall(d.ctx, cfg, d.Log); err == nil {
		if err := sys.sweep(d.ctx, d.fwName, d.Log); err != nil {
			d.Log.Warnf("firewall: what an earlier run has left stays: %v", err)
		}
		err = d.fw.Start()
	}
	if err != nil {
		devices.Close()
		return err
	}
	defer func() {
		if !d.handOver {
			err = errors.Join(err, d.fw.Close())
		}
	}()
	d.keeper = portmap.NewKeeper(func() []portmap.Mapping { return d.table.List() }, d.Log.Warnf)
	d.table = portmap.New(portmap.Config{
		Firewall: d.fw, Policy: cfg.Policy, Now: portmap.BootTime, InUse: sys.inUse, Logf: d.Log.Infof,
		Decided: d.journal.Record, Changed: d.changed, SameHost: d.sameHost, SameLAN: d.sameLAN,
		Flushed: d.wasFlushed,
	})
	d.restore()
	d.deaf = func() {}
	d.control(cfg.ControlSocket) // root's, whoever the daemon will be
	if err := drop(d.fwName == string(config.FirewallNFTables)); err != nil {
		d.deaf()
		return err
	}
	d.closePinholes(cfg)
	defer d.guard()()
	defer d.workers()()
	defer func() { d.deaf() }() // to the socket that is there then
	return d.generations(ctx, devices)
}

// changed hears of every change of the table.
func (d *daemon) changed() {
	d.keeper.Changed()
	if g := d.now.Load(); g != nil {
		g.events.Changed()
	}
}

// wasFlushed hears that all mappings were deleted.
func (d *daemon) wasFlushed() {
	select {
	case d.flushed <- struct{}{}:
	default: // it is known already
	}
}

// sameHost tells whether two addresses are one LAN host's, by the devices that are
// followed now.
func (d *daemon) sameHost(a, b netip.Addr) bool {
	g := d.now.Load()
	return g != nil && g.devices.SameHost(a, b)
}

// sameLAN tells whether an address is a host's on a LAN of from.
func (d *daemon) sameLAN(to, from netip.Addr) bool {
	g := d.now.Load()
	return g != nil && g.devices.SameLAN(to, from)
}

// decisions is how many the daemon remembers.
const decisions = 200

// workers run until the result is called: the end of leases, and their file.
func (d *daemon) workers() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background()) // the last request comes first
	var wg sync.WaitGroup
	for _, run := range []func(context.Context){d.table.Run, d.keeper.Run} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			run(ctx)
		}()
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// guard watches over the present firewall until the result is called.
func (d *daemon) guard() (stop func()) {
	ctx, cancel := context.WithCancel(d.ctx)
	done := make(chan struct{})
	fw := d.fw
	go func() {
		defer close(done)
		fw.Guard(ctx, d.table.Sync, d.Log.Warnf)
	}()
	d.unguard = func() {
		cancel()
		<-done
	}
	return func() { d.unguard() } // of the firewall that is there then
}

// generations runs one generation after another: a reload that changes more
// than the policy ends one and begins the next. The table outlives them.
func (d *daemon) generations(ctx context.Context, devices follower) error {
	for {
		next, err := d.serve(ctx, devices)
		devices.Close()
		if next == nil {
			return err
		}
		if next.cfg.Port != d.cfg.Port {
			d.httpPort = 0
		}
		d.cfg, devices = next.cfg, next.devices
	}
}

// follow begins to follow the devices of cfg. The LANs must be there; the
// uplink may come later. known is what is known of the uplink already.
func (d *daemon) follow(cfg *config.Config, known wan.Uplink) (follower, error) {
	devices, err := d.sys.follow(known, cfg.IntIfs, d.Log.Infof)
	if err != nil {
		return nil, err
	}
	for i, lan := range devices.State().LANs {
		if lan.Index == 0 {
			devices.Close()
			return nil, fmt.Errorf("%s %q: there is no such device (`ip link` lists them)", cfg.Places[i], lan.Name)
		}
	}
	return devices, nil
}

// network is what the table must know of the state of the devices.
func network(s wan.State, ipv6 bool) portmap.Network {
	var n portmap.Network
	if s.Uplink.Connected() {
		n.External = s.Uplink.Addr
	}
	for _, lan := range s.LANs {
		n.LANs = append(n.LANs, lan.Prefixes...)
		for _, p := range lan.Prefixes6 {
			if ipv6 && !p.Addr().IsLinkLocalUnicast() { // nobody beyond the link can reach those
				n.LANs = append(n.LANs, p)
			}
		}
	}
	return n
}

// warnExternal says once per address when people on the internet cannot reach
// it (DESIGN.md: it is mapped anyway).
func (d *daemon) warnExternal(old, now netip.Addr) {
	if old == now || d.cfg.ExtIP.IsValid() || !now.IsValid() {
		return
	}
	shared := netip.MustParsePrefix("100.64.0.0/10")
	switch {
	case now.IsPrivate():
		d.Log.Warnf("the WAN address %v is private: another router stands in front of this one, and ports open here only as far as that one lets them; open them there too, or make it a bridge. If you know the public address, set extip", now)
	case shared.Contains(now):
		d.Log.Warnf("the WAN address %v is shared (carrier-grade NAT): nobody on the internet can reach a port here; ask the provider for a public address", now)
	}
}

// rootUUID is the configured one, or one made from the first MAC of a LAN, so
// that it is stable and differs between routers (SPEC SSDP-21).
func rootUUID(cfg *config.Config, s wan.State) string {
	if cfg.UUID != "" {
		return cfg.UUID
	}
	mac := [6]byte{}
	for _, lan := range s.LANs {
		if mac = lan.MAC; mac != [6]byte{} {
			break
		}
	}
	return igd.NewUUID(fmt.Sprintf("%x/InternetGatewayDevice", mac))
}

// nextBootID is the wall clock's second, and greater than the last (SSDP-12).
func (d *daemon) nextBootID() uint32 {
	d.bootID = max(d.bootID+1, uint32(time.Now().Unix())&0x7fffffff)
	return d.bootID
}

// product is the SERVER header: OS/version UPnP/1.1 product/version.
func (d *daemon) product() string {
	var u unix.Utsname
	release := "0"
	if unix.Uname(&u) == nil {
		release = unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("Linux/%s UPnP/1.1 upnpd/%s", strings.ReplaceAll(release, " ", "_"), d.Version)
}
