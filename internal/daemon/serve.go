package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/igd"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/ssdp"
	"github.com/linux-igd/upnpd/internal/wan"
)

// lanRetry is the pause before a LAN that could not be served is tried again.
const lanRetry = 5 * time.Second

// generation serves one configuration on all its LANs.
type generation struct {
	*daemon
	follower uplink
	gateway  *igd.Server
	ssdp     ssdp.Config
	lans     map[string]*lanServer
	external portmap.Network // as last told to the table
	ready    bool
	retry    *time.Timer
	ended    chan *lanServer
	said     chan *lanServer // has announced
}

// serve runs a generation until it is told to stop, or to make way for a
// successor, which it gives.
func (d *daemon) serve(ctx context.Context, follower uplink) (*successor, error) {
	ctx, cancel := context.WithCancel(ctx)
	g := d.newGeneration(follower)
	states := make(chan wan.State, 1)
	failed := make(chan error, 1)
	go func() {
		failed <- follower.Run(ctx, func(s wan.State) {
			select { // only the newest counts
			case <-states:
			default:
			}
			states <- s
		})
	}()
	defer func() {
		cancel()
		g.stop()
		<-failed
	}()

	if err := g.reconcile(ctx, follower.State()); err != nil && !d.served {
		return nil, err // who starts the daemon hears the reason
	}
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case err := <-failed:
			failed <- nil
			return nil, err
		case s := <-states:
			g.reconcile(ctx, s)
		case <-g.retry.C:
			g.reconcile(ctx, follower.State())
		case lan := <-g.said:
			lan.announced = true
			g.checkReady()
		case lan := <-g.ended:
			g.lost(lan)
		case sig := <-d.Signals:
			switch sig {
			case unix.SIGUSR1:
				d.table.Flush()
			case unix.SIGHUP:
				if next, err := d.reload(); next != nil || err != nil {
					return next, err
				}
			default:
				d.Log.Infof("Shutting down on signal %d (%v)", sig, sig)
				return nil, nil
			}
		}
	}
}

func (d *daemon) newGeneration(follower uplink) *generation {
	cfg, state := d.cfg, follower.State()
	page := igd.OwnPage
	if cfg.PresentationURL != nil {
		page = *cfg.PresentationURL
	}
	model := cfg.ModelNumber
	if model == "" {
		model = d.Version
	}
	gateway := igd.New(igd.Config{
		UUID: rootUUID(cfg, state), FriendlyName: cfg.FriendlyName, Serial: cfg.Serial,
		ModelNumber: model, PresentationURL: page, DescriptionName: cfg.DescriptionName,
		ExternalIP: cfg.ExtIP, UpstreamBitrate: cfg.UpstreamBitrate, DownstreamBitrate: cfg.DownstreamBitrate,
	}, d.table, follower, portmap.BootTime)

	root := ssdp.Device{Path: gateway.DescriptionPath(), Announce: true}
	for _, row := range gateway.Advertised() {
		root.Targets = append(root.Targets, ssdp.Target(row))
	}
	retry := time.NewTimer(time.Hour)
	retry.Stop()
	return &generation{
		daemon: d, follower: follower, gateway: gateway,
		ssdp: ssdp.Config{
			Devices: []ssdp.Device{root}, Server: d.product(),
			BootID: d.nextBootID(), ConfigID: gateway.ConfigID(),
			MaxAge: max(2*cfg.NotifyInterval, 1800*time.Second), Refresh: cfg.NotifyInterval,
			Logf: d.Log.Infof,
		},
		lans:  map[string]*lanServer{},
		retry: retry,
		ended: make(chan *lanServer),
		said:  make(chan *lanServer),
	}
}

// reconcile makes the table and the LAN servers follow the devices. What could
// not be served is logged and tried again; the errors are for the start.
func (g *generation) reconcile(ctx context.Context, s wan.State) error {
	n := network(s)
	g.warnExternal(g.external.External, n.External)
	g.external = n
	g.table.SetNetwork(n)
	var errs []error
	if g.cfg.UPnP {
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
		if !g.ready || running != nil {
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
	return nil
}

func (g *generation) tryAgain(lan string, err error) {
	g.Log.Errorf("serve %s: %v; next try in %v", lan, err, lanRetry)
	g.retry.Reset(lanRetry)
}

// lost is told that a LAN's server ended by itself.
func (g *generation) lost(lan *lanServer) {
	if g.lans[lan.name] != lan {
		return
	}
	delete(g.lans, lan.name)
	g.tryAgain(lan.name, lan.err)
}

// checkReady reports the start when every LAN that can be served is announced.
func (g *generation) checkReady() {
	if g.ready {
		return
	}
	for _, lan := range g.lans {
		if !lan.announced {
			return
		}
	}
	g.ready = true
	g.Log.Infof("Advertisements Sent.  Listening for requests ... ")
	if !g.served {
		g.daemon.served = true
		g.Ready()
	}
}

// stop ends all LAN servers, after their goodbyes.
func (g *generation) stop() {
	g.retry.Stop()
	for _, lan := range g.lans {
		lan.cancel()
	}
	for _, lan := range g.lans {
		lan.stop()
	}
}
