package daemon

import (
	"context"
	"net/netip"

	"github.com/linux-igd/upnpd/internal/ctl"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
	"github.com/linux-igd/upnpd/internal/wan"
)

// control answers on the control socket at the path ("": none) from now on, until
// deaf is called. Without it, the daemon does its work all the same.
func (d *daemon) control(path string) {
	if path == "" {
		d.deaf()
		d.deaf = func() {}
		return
	}
	l, err := sock.ListenUnix(path)
	if err != nil {
		d.Log.Warnf("control_socket: %v; upnpctl will not work there", err)
		return
	}
	d.deaf()
	ctx, cancel := context.WithCancel(context.Background())
	server := &ctl.Server{Table: d.table, Daemon: &view{d, ctx}, Journal: d.journal, Logf: d.Log.Infof}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(ctx, l); err != nil && ctx.Err() == nil {
			d.Log.Warnf("control_socket: %v; upnpctl does not work any more", err)
		}
		l.Close()
	}()
	d.deaf = func() {
		cancel()
		<-done
	}
}

// view is the daemon as the control socket sees it, a ctl.Daemon.
type view struct {
	*daemon
	ctx context.Context // of the control socket
}

// ask has the serving goroutine, which owns what is to be looked at, run a
// question; false: the control socket is closing.
func (v *view) ask(question func(*generation)) bool {
	answered := make(chan struct{})
	select {
	case v.asked <- func(g *generation) { question(g); close(answered) }:
		<-answered
		return true
	case <-v.ctx.Done():
		return false
	}
}

// Status is what `upnpctl status` shows.
func (v *view) Status() ctl.Status {
	s := ctl.Status{Version: v.Version, Uptime: portmap.BootTime() - v.began, LeaseFault: v.keeper.Fault()}
	v.ask(func(g *generation) {
		state := g.devices.State()
		s.Uplink, s.ExternalIP = state.Uplink, state.Uplink.Addr
		if g.cfg.ExtIP.IsValid() {
			s.ExternalIP = g.cfg.ExtIP
		}
		for _, lan := range state.LANs {
			s.LANs = append(s.LANs, g.lanStatus(lan.Name))
		}
		s.MaxMappings, s.MaxPerClient = g.cfg.Policy.MaxMappings, g.cfg.Policy.MaxPerClient
		s.LeaseFile = g.cfg.LeaseFile
		s.Firewall = g.fwName
	})
	s.ForwardPath, s.ForwardErr = v.forwardPath()
	return s
}

func (g *generation) lanStatus(name string) ctl.LANStatus {
	s := ctl.LANStatus{Name: name, Why: "the device is down or has no IPv4 address"}
	for _, lan := range g.devices.State().LANs {
		if lan.Name != name {
			continue
		}
		s.Addrs = network(wan.State{LANs: []wan.LAN{lan}}, g.cfg.IPv6).LANs
		switch server := g.lans[segment{name: name}]; {
		case !g.cfg.UPnP:
			s.Why = "upnp = no"
		case server != nil && server.announced:
			s.Served, s.Why = true, ""
		case lan.Up && lan.Addr().IsValid():
			s.Why = "not announced yet; the log says why"
		}
	}
	return s
}

// Hardware gives the MAC addresses of the hosts on the LANs.
func (v *view) Hardware() map[netip.Addr][6]byte {
	all := map[netip.Addr][6]byte{}
	var devices follower
	if !v.ask(func(g *generation) { devices = g.devices }) {
		return all
	}
	neighbors, err := devices.Neighbors()
	if err != nil {
		v.Log.Infof("control socket: %v", err)
	}
	for _, n := range neighbors {
		all[n.Addr] = n.MAC
	}
	return all
}
