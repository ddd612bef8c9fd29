package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/config"
	"github.com/linux-igd/upnpd/internal/gena"
	"github.com/linux-igd/upnpd/internal/igd"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/ssdp"
	"github.com/linux-igd/upnpd/internal/wan"
)

// generation serves one configuration on all its LANs.
type generation struct {
	*daemon
	devices follower
	faces   []*igd.Server // what control points see, the announced one first
	events  *gena.Publisher
	ssdp    ssdp.Config
	network portmap.Network // as last told to the table
	lans    map[segment]*lanServer
	told    bool // that the LANs of now are announced
	retry   *time.Timer
	trouble map[segment]string // why a segment cannot be served, as last said
	said    chan announcement
	ended   chan *lanServer
}

// serve runs a generation until it is told to stop, or to make way for a
// successor, which it gives. An error says why the daemon cannot start.
func (d *daemon) serve(ctx context.Context, devices follower) (*successor, error) {
	ctx, cancel := context.WithCancel(ctx)
	g := d.newGeneration(devices)
	d.now.Store(g)
	defer d.watchClients(devices)()
	published := make(chan struct{})
	go func() {
		defer close(published)
		g.events.Run(ctx)
	}()
	states := make(chan wan.State, 1)
	failed := make(chan error, 1)
	go func() {
		failed <- devices.Run(ctx, func(s wan.State) {
			select { // only the newest counts
			case <-states:
			default:
			}
			states <- s
		})
	}()
	defer func() {
		cancel()
		g.stopLANs()
		g.retry.Stop()
		<-failed
		<-published
	}()

	if err := g.reconcile(ctx, devices.State()); err != nil && !d.served {
		return nil, err
	}
	for {
		select {
		case <-ctx.Done():
			d.Log.Infof("Shutting down: %v", context.Cause(ctx))
			return nil, nil
		case s := <-states:
			g.reconcile(ctx, s)
		case <-g.retry.C:
			g.reconcile(ctx, devices.State())
		case lan := <-g.ended:
			g.lost(lan)
		case a := <-g.said:
			if err := g.heard(a); err != nil {
				return nil, err
			}
		case <-d.flushed:
			g.announce(true)
		case question := <-d.asked:
			question(g)
		case sig := <-d.Signals:
			if next := d.signal(sig, devices.State().Uplink); next != nil || d.handOver {
				return next, nil
			}
		}
	}
}

// heard is told of a LAN's first announcement. An error says why the daemon cannot
// start.
func (g *generation) heard(a announcement) error {
	failed := a.err != nil && !a.lan.ipv6 // the log has it, and it goes on trying
	if failed && !g.served {
		return fmt.Errorf("announce on %v: %w", a.lan.segment, a.err)
	}
	a.lan.announced = !failed
	g.checkReady()
	return nil
}

// signal does what a signal asks for: SIGHUP may give a successor.
func (d *daemon) signal(sig os.Signal, known wan.Uplink) *successor {
	switch sig {
	case unix.SIGUSR1:
		d.table.Flush() // see flushed
	case unix.SIGUSR2:
		d.Log.Infof("Shutting down: %v; the kernel keeps the mappings for the next run", sig)
		if fault := d.keeper.Fault(); fault != "" || d.cfg.LeaseFile == "" {
			d.Log.Warnf("without a lease file the next run will not know the mappings, and end them %s", fault)
		}
		d.handOver = true
	default:
		return d.reload(known)
	}
	return nil
}

func (d *daemon) newGeneration(devices follower) *generation {
	cfg, state := d.cfg, devices.State()
	model := cfg.ModelNumber
	if model == "" {
		model = d.Version
	}
	retry := time.NewTimer(time.Hour)
	retry.Stop()
	g := &generation{
		daemon: d, devices: devices, events: gena.New(gena.Config{Logf: d.Log.Infof}),
		ssdp: ssdp.Config{
			Server: d.product(), BootID: d.nextBootID(),
			MaxAge: max(2*cfg.NotifyInterval, 1800*time.Second), Refresh: cfg.NotifyInterval,
			Logf: d.Log.Infof,
		},
		lans:    map[segment]*lanServer{},
		retry:   retry,
		trouble: map[segment]string{},
		said:    make(chan announcement),
		ended:   make(chan *lanServer),
	}
	for _, version := range versions(cfg.IGD) {
		g.addFace(igd.Config{
			Version: version, Events: g.events, IPv6: cfg.IPv6,
			UUID: rootUUID(cfg, state), FriendlyName: cfg.FriendlyName, Serial: cfg.Serial,
			ModelNumber: model, PresentationURL: page(cfg), DescriptionName: cfg.DescriptionName,
			ExternalIP: cfg.ExtIP, UpstreamBitrate: cfg.UpstreamBitrate, DownstreamBitrate: cfg.DownstreamBitrate,
		})
	}
	return g
}

// versions are those of the faces, the announced one first (DESIGN.md, "Two
// faces").
func versions(i config.IGD) []int {
	switch i {
	case config.IGD1:
		return []int{1}
	case config.IGD2:
		return []int{2}
	}
	return []int{1, 2}
}

// addFace makes a device tree that control points see. The first is announced.
func (g *generation) addFace(cfg igd.Config) {
	face := igd.New(cfg, g.table, g.devices, portmap.BootTime)
	root := ssdp.Device{Path: face.DescriptionPath(), ConfigID: face.ConfigID(), Announce: len(g.faces) == 0}
	for _, row := range face.Advertised() {
		root.Targets = append(root.Targets, ssdp.Target(row))
	}
	g.faces = append(g.faces, face)
	g.ssdp.Devices = append(g.ssdp.Devices, root)
}

// page is the router's own web page, as igd wants it named.
func page(cfg *config.Config) string {
	if cfg.PresentationURL == nil {
		return igd.OwnPage
	}
	return *cfg.PresentationURL
}

// reconcile makes the table and the LAN servers follow the devices. What fails
// is tried again; the error is for who starts the daemon.
func (g *generation) reconcile(ctx context.Context, s wan.State) error {
	n := network(s, g.cfg.IPv6)
	g.warnExternal(g.network.External, n.External)
	changed := g.network.External != n.External
	g.network = n
	errs := []error{g.table.SetNetwork(n)}
	g.events.Changed()
	if changed && n.External.IsValid() {
		reported := n.External
		if g.cfg.ExtIP.IsValid() {
			reported = g.cfg.ExtIP
		}
		g.announce(g.external != reported)
		g.daemon.external = reported
	}
	if g.moved(s) {
		g.stopLANs()
		g.ssdp.BootID = g.nextBootID() // SSDP-15, and SSDP-11: the same on all LANs
	}
	for _, lan := range s.LANs {
		for _, seg := range []segment{{lan.Name, false, false}, {lan.Name, true, false}, {lan.Name, false, true}, {lan.Name, true, true}} {
			if seg.spoken(g.cfg) {
				errs = append(errs, g.reconcileLAN(ctx, lan, seg))
			}
		}
	}
	err := errors.Join(errs...)
	if err == nil {
		g.checkReady()
	}
	return err
}

// moved reports whether a LAN that is served has another address now.
func (g *generation) moved(s wan.State) bool {
	for _, lan := range s.LANs {
		for seg, running := range g.lans {
			if seg.name == lan.Name && running.place.moved(placeOf(lan, seg.ipv6)) {
				return true
			}
		}
	}
	return false
}

func (g *generation) reconcileLAN(ctx context.Context, lan wan.LAN, seg segment) error {
	want, main := placeOf(lan, seg.ipv6), seg.main(g.cfg)
	running := g.lans[seg]
	if running != nil {
		if running.place == want && lan.Up {
			return nil
		}
		delete(g.lans, seg)
		running.stop()
	}
	if lan.Index == 0 || !lan.Up || !want.addr.IsValid() {
		if main && !seg.ipv6 && (running != nil || !g.told) {
			g.Log.Infof("%s is not up with an IPv4 address; waiting", lan.Name)
		}
		return nil
	}
	server, err := g.startLAN(ctx, seg, want)
	if err != nil {
		further := seg.ipv6 || !main // nobody shall be without a gateway for it
		if g.served || further {
			g.tryAgain(seg, err)
		}
		if further {
			return nil
		}
		return fmt.Errorf("serve %v: %w", seg, err)
	}
	g.lans[seg] = server
	if g.trouble[seg] != "" {
		g.Log.Infof("serve %v: it works now", seg)
	}
	delete(g.trouble, seg)
	g.told = g.told && !main
	return nil
}

// tryAgain says so once, though it may take for ever.
func (g *generation) tryAgain(lan segment, err error) {
	why := fmt.Sprintf("serve %v: %v; next try in %v", lan, err, g.sys.lanRetry)
	if g.trouble[lan] != why {
		g.Log.Errorf("%s", why)
	}
	g.trouble[lan] = why
	g.retry.Reset(g.sys.lanRetry)
}

// lost is told that a LAN's server ended by itself.
func (g *generation) lost(lan *lanServer) {
	if g.lans[lan.segment] == lan {
		delete(g.lans, lan.segment)
		g.tryAgain(lan.segment, lan.err)
	}
}

// checkReady says when every LAN that can be served is announced, and reports
// the start.
func (g *generation) checkReady() {
	announced := false
	for seg, lan := range g.lans {
		if !lan.announced {
			return
		}
		announced = announced || seg.main(g.cfg)
	}
	if !g.told {
		g.told = true
		if announced {
			g.Log.Infof("Advertisements Sent.  Listening for requests ... ")
		} else {
			g.Log.Infof("nothing is announced yet: no LAN is up with an address, or upnp = no")
		}
	}
	if !g.served {
		g.daemon.served = true
		g.Ready(g.notice())
	}
}

// notice is what somebody who starts the daemon should know.
func (g *generation) notice() string {
	if up := g.devices.State().Uplink; up.Index == 0 {
		return fmt.Sprintf("EXTIF %s: there is no such device yet; waiting for it", up.Name)
	}
	return ""
}

// stopLANs ends all LAN servers, after their goodbyes.
func (g *generation) stopLANs() {
	for _, lan := range g.lans {
		lan.cancel()
	}
	for seg, lan := range g.lans {
		lan.stop()
		delete(g.lans, seg)
	}
}
