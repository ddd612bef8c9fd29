package daemon

import (
	"context"
	"errors"
	"io"
	"net/netip"

	"github.com/linux-igd/upnpd/internal/config"
	"github.com/linux-igd/upnpd/internal/pcp"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/ssdp"
	"github.com/linux-igd/upnpd/internal/wan"
)

// segment is one LAN by one version of IP, for UPnP or for the protocols of port 5351:
// where another program has the ports of the one, the other is served.
type segment struct {
	name  string
	ipv6  bool
	byPCP bool // NAT-PMP and PCP
}

// String is for log lines.
func (s segment) String() string {
	name := s.name
	if s.ipv6 {
		name += " by IPv6"
	}
	if s.byPCP {
		name += " for NAT-PMP and PCP"
	}
	return name
}

// spoken reports whether the configuration wants it.
func (s segment) spoken(cfg *config.Config) bool {
	switch {
	case s.ipv6 && !cfg.IPv6:
		return false
	case s.byPCP:
		return cfg.PCP || cfg.NATPMP && !s.ipv6 // NAT-PMP is for IPv4
	}
	return cfg.UPnP
}

// main tells those that clients must find: UPnP's, or without it the others.
func (s segment) main(cfg *config.Config) bool { return s.byPCP != cfg.UPnP }

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

// lanServer serves one segment.
type lanServer struct {
	segment
	place     place
	tasks     []func(context.Context) error // one for each protocol
	sockets   []io.Closer
	pcp       *pcp.Server // nil: of UPnP
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
	s := &lanServer{segment: seg, place: at, done: make(chan struct{})}
	add := g.addUPnP
	if seg.byPCP {
		add = g.addPCP
	}
	if err := add(s); err != nil {
		return nil, errors.Join(err, s.close())
	}
	own, cancel := context.WithCancel(ctx)
	s.cancel = cancel
	go func() {
		s.err = errors.Join(s.run(own), s.close())
		cancel()
		close(s.done)
		select {
		case g.ended <- s:
		case <-ctx.Done(): // the generation is over
		}
	}()
	return s, nil
}

// run serves until ctx ends or one of the tasks fails.
func (s *lanServer) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error)
	for _, task := range s.tasks {
		go func() {
			err := task(ctx)
			cancel()
			ended <- err
		}()
	}
	var errs []error
	for range s.tasks {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

func (s *lanServer) close() error {
	var errs []error
	for _, c := range s.sockets {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// lan is what is known of the segment's LAN at this moment.
func (g *generation) lan(seg segment) wan.LAN {
	for _, lan := range g.devices.State().LANs {
		if lan.Name == seg.name {
			return lan
		}
	}
	return wan.LAN{}
}

// onLink reports whether an address is a host's of the segment.
func (g *generation) onLink(seg segment, a netip.Addr) bool {
	lan := g.lan(seg)
	prefixes := lan.Prefixes
	if seg.ipv6 {
		prefixes = lan.Prefixes6
	}
	return portmap.Network{LANs: prefixes}.OnLink(a)
}

// stop ends the server and waits for its goodbye.
func (s *lanServer) stop() {
	s.cancel()
	<-s.done
}
