package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/httpmsg"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
	"github.com/linux-igd/upnpd/internal/ssdp"
	"github.com/linux-igd/upnpd/internal/wan"
)

// firstPort is where the search for a free HTTP port begins, as in libupnp.
const firstPort, portTries = 49152, 100

// place is where a LAN is served. If it changes, sockets and LOCATION do.
type place struct {
	ifindex int
	addr    netip.Addr
}

// lanServer is discovery and HTTP on one LAN device.
type lanServer struct {
	name      string
	place     place
	announced bool
	cancel    context.CancelFunc
	done      chan struct{}
	err       error // why it ended by itself; read after done
}

// announcement is what a LAN's server says of its first announcement.
type announcement struct {
	lan *lanServer
	err error
}

// startLAN opens the sockets of a LAN and serves on them.
func (g *generation) startLAN(ctx context.Context, lan wan.LAN) (*lanServer, error) {
	listener, err := g.listen(lan.Name)
	if err != nil {
		return nil, err
	}
	udp, err := sock.ListenUDP(lan.Name, g.sys.ssdpPort)
	if err == nil {
		if err = udp.Join(ssdp.Group4()); err != nil {
			udp.Close()
		}
	}
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("discovery: %w", err)
	}
	own, cancel := context.WithCancel(ctx)
	s := &lanServer{
		name: lan.Name, place: place{lan.Index, lan.Addr()},
		cancel: cancel, done: make(chan struct{}),
	}
	go func() {
		s.err = errors.Join(g.runLAN(own, s, listener, udp), listener.Close(), udp.Close())
		cancel()
		close(s.done)
		select {
		case g.ended <- s:
		case <-ctx.Done(): // the generation is over
		}
	}()
	return s, nil
}

// runLAN serves until ctx ends or one of the two rooms fails.
func (g *generation) runLAN(ctx context.Context, s *lanServer, listener *sock.Listener, udp *sock.UDP) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The follower knows the prefixes of this moment.
	lan := func() wan.LAN {
		for _, lan := range g.devices.State().LANs {
			if lan.Name == s.name {
				return lan
			}
		}
		return wan.LAN{}
	}
	onLink := func(a netip.Addr) bool { return portmap.Network{LANs: lan().Prefixes}.OnLink(a) }
	// Programs on the router search, too; `upnpctl check` is one.
	maySearch := func(a netip.Addr) bool { return onLink(a) || lan().Local(a) }
	web := &httpmsg.Server{
		Handler: g.handle, ServerName: g.ssdp.Server, Now: time.Now,
		Limits: httpmsg.DefaultLimits(), Allowed: onLink, Logf: g.Log.Infof,
	}
	served := make(chan error, 1)
	go func() {
		defer cancel()
		served <- web.Serve(ctx, listener)
	}()
	cfg := g.ssdp
	cfg.HTTPPort = listener.Port()
	discovery := ssdp.New(cfg, ssdp.LAN{
		Scopes:  []ssdp.Scope{{Group: ssdp.Group4(), Addr: s.place.addr}},
		IfIndex: s.place.ifindex, OnLink: maySearch,
	}, udp)
	err := discovery.Run(ctx, func(err error) {
		select {
		case g.said <- announcement{s, err}:
		case <-ctx.Done():
		}
	})
	cancel()
	return errors.Join(err, <-served)
}

// handle answers a request, with a line for log_level = debug.
func (g *generation) handle(req *httpmsg.Request) *httpmsg.Response {
	r := g.gateway.Handle(req)
	action, _ := req.Header.Get("SOAPAction")
	g.Log.Debugf("%v: %s %s %s: %d", req.Remote, req.Method, req.Target, action, r.Status)
	return r
}

// listen opens the HTTP port, the same on all LANs: the configured one, or the
// first that is free.
func (g *generation) listen(dev string) (*sock.Listener, error) {
	port, tries := g.cfg.Port, 1
	if port == 0 {
		port = g.httpPort // as chosen before
	}
	if port == 0 {
		port, tries = firstPort, portTries
	}
	for {
		l, err := sock.ListenTCP(dev, port)
		if err == nil {
			g.daemon.httpPort = port
			return l, nil
		}
		if tries--; tries == 0 || !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("port %d for HTTP: %w", port, err)
		}
		port++
	}
}

// stop ends the server and waits for its goodbye.
func (s *lanServer) stop() {
	s.cancel()
	<-s.done
}
