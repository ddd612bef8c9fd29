package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/httpmsg"
	"github.com/linux-igd/upnpd/internal/pcp"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
	"github.com/linux-igd/upnpd/internal/ssdp"
)

// firstPort is where the search for a free HTTP port begins, as in libupnp.
const firstPort, portTries = 49152, 100

// addUPnP opens what a segment needs for UPnP: discovery and HTTP.
func (g *generation) addUPnP(s *lanServer) error {
	listener, err := g.listen(s.segment)
	if err != nil {
		return err
	}
	s.sockets = append(s.sockets, listener)
	udp, err := g.listenSSDP(s.segment, s.place)
	if err != nil {
		return fmt.Errorf("discovery: %w; stop it, or set upnp = no", err)
	}
	s.sockets = append(s.sockets, udp)
	onLink := func(a netip.Addr) bool { return g.onLink(s.segment, a) }
	// Programs on the router search, too; `upnpctl check` is one.
	maySearch := func(a netip.Addr) bool { return onLink(a) || g.lan(s.segment).Local(a) }
	web := &httpmsg.Server{
		Handler: g.handle, ServerName: g.ssdp.Server, Now: time.Now,
		Limits: httpmsg.DefaultLimits(), Allowed: onLink, Device: s.name, Logf: g.Log.Infof,
	}
	cfg := g.ssdp
	cfg.HTTPPort = listener.Port()
	discovery := ssdp.New(cfg, ssdp.LAN{Scopes: s.place.scopes(s.ipv6), IfIndex: s.place.ifindex, OnLink: maySearch}, udp)
	s.tasks = append(s.tasks, func(ctx context.Context) error { return web.Serve(ctx, listener) }, func(ctx context.Context) error {
		return discovery.Run(ctx, func(err error) {
			select {
			case g.said <- announcement{s, err}:
			case <-ctx.Done():
			}
		})
	})
	return nil
}

// addPCP opens what a segment needs for NAT-PMP and PCP.
func (g *generation) addPCP(s *lanServer) error {
	listen := sock.ListenUDP
	if s.ipv6 {
		listen = sock.ListenUDP6
	}
	udp, err := listen(s.name, g.sys.pcpPort)
	if err != nil {
		return fmt.Errorf("%w; stop it, or set natpmp = no and pcp = no", err)
	}
	s.announced = true // there is nothing to wait for
	s.sockets = append(s.sockets, udp)
	s.pcp = pcp.New(pcp.Config{
		Table: g.table, State: g.devices.State, ExternalIP: g.cfg.ExtIP,
		NATPMP: g.cfg.NATPMP, PCP: g.cfg.PCP,
		MinLease: g.cfg.Policy.MinLease, MaxLease: g.cfg.Policy.MaxLease,
		Now: portmap.BootTime, Epoch: g.epoch, Logf: g.Log.Infof,
	}, pcp.LAN{
		Addr: s.place.addr, IfIndex: s.place.ifindex, IPv6: s.ipv6,
		OnLink: func(a netip.Addr) bool { return g.onLink(s.segment, a) },
	}, udp)
	s.tasks = append(s.tasks, s.pcp.Run)
	return nil
}

// announce tells the clients of NAT-PMP and PCP that the external address or the
// mappings are others now (PMP-6, ANN-2, ANN-4). With lost, the epoch begins anew
// (ANN-3).
func (g *generation) announce(lost bool) {
	if lost {
		g.epoch.Reset()
	}
	for _, s := range g.lans {
		if s.pcp != nil {
			s.pcp.Announce()
		}
	}
}

// listenSSDP opens the socket of discovery, a member of the segment's groups.
func (g *generation) listenSSDP(seg segment, at place) (*sock.UDP, error) {
	listen := sock.ListenUDP
	if seg.ipv6 {
		listen = sock.ListenUDP6
	}
	udp, err := listen(seg.name, g.sys.ssdpPort)
	if err != nil {
		return nil, err
	}
	for _, scope := range at.scopes(seg.ipv6) {
		if err := udp.Join(scope.Group); err != nil {
			udp.Close()
			return nil, err
		}
	}
	return udp, nil
}

// handle answers a request, with a line for log_level = debug.
func (g *generation) handle(req *httpmsg.Request) *httpmsg.Response {
	face := g.faces[0]
	for _, f := range g.faces[1:] {
		if f.Has(req.Target) {
			face = f
		}
	}
	r := face.Handle(req)
	action, _ := req.Header.Get("SOAPAction")
	g.Log.Debugf("%v: %s %s %s: %d", req.Remote, req.Method, req.Target, action, r.Status)
	return r
}

// listen opens the HTTP port, the same on all segments: the configured one, or
// the first that is free.
func (g *generation) listen(seg segment) (*sock.Listener, error) {
	listen := sock.ListenTCP
	if seg.ipv6 {
		listen = sock.ListenTCP6
	}
	port, tries := g.cfg.Port, 1
	if port == 0 {
		port = g.httpPort // as chosen before
	}
	if port == 0 {
		port, tries = firstPort, portTries
	}
	for {
		l, err := listen(seg.name, port)
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
