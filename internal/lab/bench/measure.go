package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

const (
	// blockSize is how many requests of a kind one daemon gets before it is
	// the other's turn.
	blockSize = 5
	// settle lets a daemon end what it does after its last reply before its
	// CPU time is read.
	settle = 3 * time.Millisecond
	// calm is how long the daemons are left alone before wake-ups are counted.
	calm = 3 * time.Second
)

// pair is both daemons with the same backend.
type pair struct {
	backend    string
	ours, peer *router
	skipped    string // why the backend is not measured
}

func (p *pair) both() [2]*router { return [2]*router{p.ours, p.peer} }

// run is one run of the benchmark.
type run struct {
	plan     plan
	pairs    []*pair
	rows     map[key]*row
	progress func(format string, args ...any)
}

// record adds a measured value of one daemon.
func (b *run) record(r *router, m measure, count int, value float64) *row {
	k := key{r.backend, m, count}
	if b.rows[k] == nil {
		b.rows[k] = &row{}
	}
	if r.name == ourName {
		b.rows[k].ours = append(b.rows[k].ours, value)
	} else {
		b.rows[k].peer = append(b.rows[k].peer, value)
	}
	return b.rows[k]
}

// atCount measures a pair with count live mappings. Both daemons take turns in
// small blocks, so that what else the machine does hits both alike.
func (b *run) atCount(ctx context.Context, p *pair, count int) error {
	if err := b.turns(ctx, p, count, b.changes, b.reads, b.connections); err != nil {
		return err
	}
	if count <= bySOAP {
		if err := b.turns(ctx, p, count, b.datagrams); err != nil {
			return err
		}
	}
	for round := range b.plan.searches {
		for _, r := range p.both() {
			err := b.searches(r, count)
			if err == nil && round < b.plan.lists {
				err = b.list(r, count)
			}
			if err = errors.Join(context.Cause(ctx), err); err != nil {
				return fmt.Errorf("%s with %s and %d mappings: %w", r.name, r.backend, count, err)
			}
		}
	}
	return b.memory(p, count)
}

// turns gives both daemons blocks of requests until the budget is used up.
func (b *run) turns(ctx context.Context, p *pair, count int, blocks ...func(*router, int) error) error {
	end := time.Now().Add(b.plan.budget)
	for round := 0; round < b.plan.rounds && (round < b.plan.atLeast || time.Now().Before(end)); round++ {
		for _, block := range blocks {
			for _, r := range p.both() {
				if err := errors.Join(context.Cause(ctx), block(r, count)); err != nil {
					return fmt.Errorf("%s with %s and %d mappings: %w", r.name, r.backend, count, err)
				}
			}
		}
	}
	return nil
}

// changes is a block of new mappings, renewals and deletions.
func (b *run) changes(r *router, count int) error {
	return b.withCPU(r, cpuChanges, count, 3*blockSize, func() error {
		return b.repeat(r, count, map[measure]func() (time.Duration, error){
			addMapping: r.add, renewMapping: r.renew, deleteMapping: r.remove,
		}, addMapping, renewMapping, deleteMapping)
	})
}

// reads is a block of actions that change nothing.
func (b *run) reads(r *router, count int) error {
	return b.withCPU(r, cpuReads, count, 2*blockSize, func() error {
		return b.repeat(r, count, map[measure]func() (time.Duration, error){
			getSpecificEntry: r.getSpecific, getExternalIPAddress: r.getExternalIP,
		}, getSpecificEntry, getExternalIPAddress)
	})
}

// repeat calls the requests by turns, on lan1.
func (b *run) repeat(r *router, count int, requests map[measure]func() (time.Duration, error), order ...measure) error {
	return r.lab.LAN1.Do(func() error {
		for range blockSize {
			for _, m := range order {
				took, err := requests[m]()
				if err != nil {
					return err
				}
				b.record(r, m, count, float64(took))
			}
		}
		return nil
	})
}

// withCPU records the CPU time of a block of requests, for 1000 of them.
func (b *run) withCPU(r *router, m measure, count, requests int, block func() error) error {
	before, err := cpuTime(r.pid)
	if err != nil {
		return err
	}
	if err := block(); err != nil {
		return err
	}
	time.Sleep(settle)
	after, err := cpuTime(r.pid)
	b.record(r, m, count, float64(after-before)*1000/float64(requests))
	return err
}

// connections opens connections from the internet through the oldest, the
// middle and the newest mapping.
func (b *run) connections(r *router, count int) error {
	ports := r.live.ports
	for m, port := range map[measure]int{
		connectFirst: ports[0], connectMiddle: ports[len(ports)/2], connectLast: ports[len(ports)-1],
	} {
		server, err := r.lab.LAN1.ListenTCP(netip.AddrPortFrom(r.lab.LAN1.Addr, uint16(port)).String())
		if err != nil {
			return err
		}
		err = r.lab.Internet.Do(func() error {
			for range blockSize {
				took, err := setUp(netip.AddrPortFrom(netip.MustParseAddr(lab.WANAddr), uint16(port)))
				if err != nil {
					return fmt.Errorf("new connection through a mapping: %w", err)
				}
				b.record(r, m, count, float64(took))
			}
			return nil
		})
		if err := errors.Join(err, server.Close()); err != nil {
			return err
		}
	}
	return nil
}

// searches sends one search to the router and one to everybody.
func (b *run) searches(r *router, count int) error {
	return r.lab.LAN1.Do(func() error {
		for m, to := range map[measure]netip.AddrPort{
			searchUnicast: r.search, searchMulticast: netip.MustParseAddrPort("239.255.255.250:1900"),
		} {
			_, took, err := search(to)
			if err != nil {
				return err
			}
			b.record(r, m, count, float64(took))
		}
		return nil
	})
}

// list reads the whole list.
func (b *run) list(r *router, count int) error {
	return r.lab.LAN1.Do(func() error {
		took, estimated, err := r.listAll()
		if err != nil {
			return err
		}
		row := b.record(r, getWholeList, count, float64(took))
		row.estimated = row.estimated || estimated
		return nil
	})
}

// memory reads what both daemons hold right after the work.
func (b *run) memory(p *pair, count int) error {
	for _, r := range p.both() {
		m, err := readMemory(r.pid)
		if err != nil {
			return err
		}
		b.record(r, residentMemory, count, float64(m.resident))
		b.record(r, anonymousMemory, count, float64(m.anonymous))
	}
	return nil
}

// idle counts the wake-ups of all daemons in the same quiet time.
func (b *run) idle(ctx context.Context, count int) error {
	var routers []*router
	for _, p := range b.pairs {
		if p.skipped == "" {
			routers = append(routers, p.ours, p.peer)
		}
	}
	if err := pause(ctx, calm); err != nil {
		return err
	}
	before := make([]int64, len(routers))
	for i, r := range routers {
		var err error
		if before[i], err = wakeUps(r.pid); err != nil {
			return err
		}
	}
	if err := pause(ctx, b.plan.idle); err != nil {
		return err
	}
	for i, r := range routers {
		after, err := wakeUps(r.pid)
		if err != nil {
			return err
		}
		b.record(r, idleWakeUps, count, float64(after-before[i]))
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
