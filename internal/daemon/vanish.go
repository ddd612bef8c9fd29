package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/wan"
)

// vanished finds mappings whose client has left the LAN (idle_timeout).
type vanished struct {
	table   *portmap.Table
	routing routing
	now     func() time.Duration
	idle    time.Duration // without an answer of the client, and without a packet
	gone    map[netip.Addr]time.Duration
	heard   map[portmap.Key]traffic
}

// traffic is what a mapping had redirected, and since when no more.
type traffic struct {
	packets uint64
	since   time.Duration
}

// watchClients begins to look for clients that have left, if the configuration
// wants that, until the result is called: nobody may tell the table of them once
// the firewall is closed.
func (d *daemon) watchClients(r routing) (stop func()) {
	if d.cfg.IdleTimeout == 0 {
		return func() {}
	}
	v := &vanished{table: d.table, routing: r, now: portmap.BootTime, idle: d.cfg.IdleTimeout}
	ctx, cancel := context.WithCancel(d.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.run(ctx, d.Log.Warnf)
	}()
	return func() {
		cancel()
		<-done
	}
}

// run looks at the clients from time to time until ctx ends. The kernel asks
// them; a host that it cannot find for the whole of idle is gone.
func (v *vanished) run(ctx context.Context, logf func(string, ...any)) {
	v.gone = map[netip.Addr]time.Duration{}
	every := min(max(v.idle/8, time.Second), 30*time.Second)
	for failing := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		err := v.look()
		if err != nil && !failing {
			logf("idle_timeout: cannot look for hosts that have left: %v", err)
		}
		failing = err != nil
	}
}

func (v *vanished) look() error {
	clients := map[netip.Addr]bool{}
	for _, m := range v.table.List() {
		clients[m.Client] = true
	}
	for a := range v.gone {
		if !clients[a] {
			delete(v.gone, a)
		}
	}
	if len(clients) == 0 {
		return nil
	}
	neighbors, err := v.routing.Neighbors()
	if err != nil {
		return err
	}
	states := map[netip.Addr]wan.NeighborState{}
	for _, n := range neighbors {
		states[n.Addr] = n.State
	}
	now := v.now()
	for a := range clients {
		_, was := v.gone[a]
		if v.cutOff(a) {
			delete(v.gone, a)
			continue
		}
		switch states[a] {
		case wan.NeighborReachable:
			delete(v.gone, a)
		case wan.NeighborFailed:
			if !was {
				v.gone[a] = now
			}
		}
		_ = v.routing.Resolve(a) // a host that is on no LAN now is left alone
	}
	return v.revoke(now)
}

// cutOff reports whether the client's LAN has no link: then nobody can tell
// whether the client has left.
func (v *vanished) cutOff(client netip.Addr) bool {
	for _, lan := range v.routing.State().LANs {
		if lan.OnLink(client) {
			return !lan.Up
		}
	}
	return false
}

// revoke ends the mappings that have been useless for long enough.
func (v *vanished) revoke(now time.Duration) error {
	if len(v.gone) == 0 {
		return nil
	}
	packets, err := v.table.Packets()
	if err != nil {
		return err
	}
	heard := make(map[portmap.Key]traffic, len(packets))
	for k, n := range packets {
		t, known := v.heard[k]
		if !known || t.packets != n {
			t = traffic{n, now}
		}
		heard[k] = t
	}
	v.heard = heard
	_, err = v.table.Revoke(func(m *portmap.Mapping) bool {
		left, ok := v.gone[m.Client]
		t, counted := v.heard[m.Key]
		return ok && now-left >= v.idle && (!counted || now-t.since >= v.idle)
	}, fmt.Sprintf("its host has left the LAN: no answer and no new connection for %d s", int(v.idle/time.Second)))
	return err
}
