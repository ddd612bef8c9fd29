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

// segment is one LAN by one version of IP.
type segment struct {
	name string
	ipv6 bool
}

// String is for log lines.
func (s segment) String() string {
	if s.ipv6 {
		return s.name + " by IPv6"
	}
	return s.name
}

// place is where a segment is served. If it changes, sockets and LOCATION do.
type place struct {
	ifindex int
	addr    netip.Addr // by IPv6 the link-local one
	site    netip.Addr // by IPv6 a global one or a ULA, if there is one (SSDP-6)
}

// placeOf says where a segment is served now; without an address it is not.
func placeOf(lan wan.LAN, ipv6 bool) place {
	if ipv6 {
		return place{lan.Index, lan.LinkLocal(), lan.Global6()}
	}
	return place{ifindex: lan.Index, addr: lan.Addr()}
}

// moved reports whether an address has become another one. One that comes or goes
// only adds or takes a way to the router.
func (p place) moved(now place) bool {
	differ := func(a, b netip.Addr) bool { return a.IsValid() && b.IsValid() && a != b }
	return differ(p.addr, now.addr) || differ(p.site, now.site)
}

// scopes are the groups of a segment, each with the router's address there.
func (p place) scopes(ipv6 bool) []ssdp.Scope {
	if !ipv6 {
		return []ssdp.Scope{{Group: ssdp.Group4(), Addr: p.addr}}
	}
	link, site := ssdp.Groups6()
	list := []ssdp.Scope{{Group: link, Addr: p.addr}}
	if p.site.IsValid() {
		list = append(list, ssdp.Scope{Group: site, Addr: p.site})
	}
	return list
}

// lanServer is discovery and HTTP on one segment.
type lanServer struct {
	segment
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

// startLAN opens the sockets of a segment and serves on them.
func (g *generation) startLAN(ctx context.Context, seg segment, at place) (*lanServer, error) {
	listener, err := g.listen(seg)
	if err != nil {
		return nil, err
	}
	udp, err := g.listenSSDP(seg, at)
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("discovery: %w", err)
	}
	own, cancel := context.WithCancel(ctx)
	s := &lanServer{segment: seg, place: at, cancel: cancel, done: make(chan struct{})}
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
	onLink := func(a netip.Addr) bool {
		prefixes := lan().Prefixes
		if s.ipv6 {
			prefixes = lan().Prefixes6
		}
		return portmap.Network{LANs: prefixes}.OnLink(a)
	}
	// Programs on the router search, too; `upnpctl check` is one.
	maySearch := func(a netip.Addr) bool { return onLink(a) || lan().Local(a) }
	web := &httpmsg.Server{
		Handler: g.handle, ServerName: g.ssdp.Server, Now: time.Now,
		Limits: httpmsg.DefaultLimits(), Allowed: onLink, Device: s.name, Logf: g.Log.Infof,
	}
	served := make(chan error, 1)
	go func() {
		defer cancel()
		served <- web.Serve(ctx, listener)
	}()
	cfg := g.ssdp
	cfg.HTTPPort = listener.Port()
	discovery := ssdp.New(cfg, ssdp.LAN{Scopes: s.place.scopes(s.ipv6), IfIndex: s.place.ifindex, OnLink: maySearch}, udp)
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

// stop ends the server and waits for its goodbye.
func (s *lanServer) stop() {
	s.cancel()
	<-s.done
}
