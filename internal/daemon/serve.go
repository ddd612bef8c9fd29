package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/config"
	"github.com/linux-igd/upnpd/internal/igd"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/ssdp"
	"github.com/linux-igd/upnpd/internal/wan"
)

// generation serves one configuration on all its LANs.
type generation struct {
	*daemon
	devices follower
	gateway *igd.Server
	ssdp    ssdp.Config
	network portmap.Network // as last told to the table
	lans    map[string]*lanServer
	told    bool // that the LANs of now are announced
	retry   *time.Timer
	said    chan announcement
	ended   chan *lanServer
}

// serve runs a generation until it is told to stop, or to make way for a
// successor, which it gives. An error says why the daemon cannot start.
func (d *daemon) serve(ctx context.Context, devices follower) (*successor, error) {
	ctx, cancel := context.WithCancel(ctx)
	g := d.newGeneration(devices)
	defer d.watchClients(devices)()
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
			if a.err != nil && !d.served {
				return nil, fmt.Errorf("announce on %s: %w", a.lan.name, a.err)
			}
			a.lan.announced = a.err == nil
			g.checkReady()
		case question := <-d.asked:
			question(g)
		case sig := <-d.Signals:
			if next := d.signal(sig, devices.State().Uplink); next != nil || d.handOver {
				return next, nil
			}
		}
	}
}

// signal does what a signal asks for: SIGHUP may give a successor.
func (d *daemon) signal(sig os.Signal, known wan.Uplink) *successor {
	switch sig {
	case unix.SIGUSR1:
		d.table.Flush()
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
	gateway := igd.New(igd.Config{
		UUID: rootUUID(cfg, state), FriendlyName: cfg.FriendlyName, Serial: cfg.Serial,
		ModelNumber: model, PresentationURL: page(cfg), DescriptionName: cfg.DescriptionName,
		ExternalIP: cfg.ExtIP, UpstreamBitrate: cfg.UpstreamBitrate, DownstreamBitrate: cfg.DownstreamBitrate,
	}, d.table, devices, portmap.BootTime)

	root := ssdp.Device{Path: gateway.DescriptionPath(), ConfigID: gateway.ConfigID(), Announce: true}
	for _, row := range gateway.Advertised() {
		root.Targets = append(root.Targets, ssdp.Target(row))
	}
	retry := time.NewTimer(time.Hour)
	retry.Stop()
	return &generation{
		daemon: d, devices: devices, gateway: gateway,
		ssdp: ssdp.Config{
			Devices: []ssdp.Device{root}, Server: d.product(),
			BootID: d.nextBootID(),
			MaxAge: max(2*cfg.NotifyInterval, 1800*time.Second), Refresh: cfg.NotifyInterval,
			Logf: d.Log.Infof,
		},
		lans:  map[string]*lanServer{},
		retry: retry,
		said:  make(chan announcement),
		ended: make(chan *lanServer),
	}
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
	n := network(s)
	g.warnExternal(g.network.External, n.External)
	g.network = n
	errs := []error{g.table.SetNetwork(n)}
	if g.cfg.UPnP {
		if g.moved(s) {
			g.stopLANs()
			g.ssdp.BootID = g.nextBootID() // SSDP-15, and SSDP-11: the same on all LANs
		}
		for _, lan := range s.LANs {
			errs = append(errs, g.reconcileLAN(ctx, lan))
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
		running := g.lans[lan.Name]
		if running != nil && lan.Addr().IsValid() && lan.Addr() != running.place.addr {
			return true
		}
	}
	return false
}

func (g *generation) reconcileLAN(ctx context.Context, lan wan.LAN) error {
	want := place{lan.Index, lan.Addr()}
	running := g.lans[lan.Name]
	if running != nil {
		if running.place == want && lan.Up {
			return nil
		}
		delete(g.lans, lan.Name)
		running.stop()
	}
	if lan.Index == 0 || !lan.Up || !want.addr.IsValid() {
		if running != nil || !g.told {
			g.Log.Infof("%s is not up with an IPv4 address; waiting", lan.Name)
		}
		return nil
	}
	server, err := g.startLAN(ctx, lan)
	if err != nil {
		if g.served {
			g.tryAgain(lan.Name, err)
		}
		return fmt.Errorf("serve %s: %w", lan.Name, err)
	}
	g.lans[lan.Name] = server
	g.told = false
	return nil
}

func (g *generation) tryAgain(lan string, err error) {
	g.Log.Errorf("serve %s: %v; next try in %v", lan, err, g.sys.lanRetry)
	g.retry.Reset(g.sys.lanRetry)
}

// lost is told that a LAN's server ended by itself.
func (g *generation) lost(lan *lanServer) {
	if g.lans[lan.name] == lan {
		delete(g.lans, lan.name)
		g.tryAgain(lan.name, lan.err)
	}
}

// checkReady says when every LAN that can be served is announced, and reports
// the start.
func (g *generation) checkReady() {
	for _, lan := range g.lans {
		if !lan.announced {
			return
		}
	}
	if !g.told {
		g.told = true
		if len(g.lans) > 0 {
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
	for name, lan := range g.lans {
		lan.stop()
		delete(g.lans, name)
	}
}
