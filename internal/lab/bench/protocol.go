package main

import (
	"fmt"
	"net/netip"
	"time"
)

// protocol is one of the two that are asked by datagrams.
type protocol struct {
	name    string
	mapping func(from netip.Addr, port uint16, seconds uint32) []byte
	read    func(from netip.Addr) []byte
	// one by one, in milliseconds, and many at a time, in requests per second
	latency, rate kinds
}

// kinds are the measures of the requests of a protocol.
type kinds struct{ add, renew, read measure }

// protocols gives both.
func protocols() [2]protocol {
	return [2]protocol{
		{"NAT-PMP", natpmpMap, natpmpAddress,
			kinds{natpmpAdd, natpmpRenew, natpmpRead}, kinds{natpmpAddRate, natpmpRenewRate, natpmpReadRate}},
		{"PCP", pcpMap, pcpAnnounce,
			kinds{pcpAdd, pcpRenew, pcpRead}, kinds{pcpAddRate, pcpRenewRate, pcpReadRate}},
	}
}

const (
	// The ports asked for, behind all those of SOAP. Each is always the same
	// host's: upnpd keeps a deleted one for that host for two minutes (RFC 6887,
	// section 15).
	firstAsked, askedPorts = 54000, 10000

	leaseSeconds = 3600 // outlives the whole run, as lease does

	// pace is the time between two requests of one host in the mean, a little
	// more than what upnpd's limit of 250 a second wants, which forgives 256
	// at once.
	pace = 5 * time.Millisecond
)

// nextAsked are n more ports, and the hosts to ask for them.
func (r *router) nextAsked(n int) []uint16 {
	ports := make([]uint16, n)
	for i := range ports {
		ports[i] = firstAsked + uint16(r.asked%askedPorts)
		r.asked++
	}
	return ports
}

// of is the host that asks for a port.
func (r *router) of(port uint16) *asker { return r.askers[port%hosts] }

// datagrams is a block of requests by NAT-PMP and by PCP: first one by one, then
// many at a time. It begins when the limits of upnpd have forgotten the block
// before it, so that no request of a block is one too many, and leaves no mapping.
func (b *run) datagrams(r *router, count int) error {
	for _, p := range protocols() {
		time.Sleep(time.Until(r.rested))
		start, before := time.Now(), r.requests
		err := r.lab.LAN1.Do(func() error {
			if err := b.oneByOne(r, count, p); err != nil {
				return err
			}
			return b.together(r, count, p)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		r.rested = start.Add(pace * time.Duration(r.requests-before) / hosts)
	}
	return nil
}

// oneByOne measures requests that wait for each other: new mappings and renewals
// by turns, then reads.
func (b *run) oneByOne(r *router, count int, p protocol) error {
	ports := r.nextAsked(blockSize)
	one := func(m measure, a *asker, request []byte) error {
		r.requests++
		took, err := a.ask(request)
		if err == nil {
			b.record(r, m, count, float64(took))
		}
		return err
	}
	for _, port := range ports {
		mapping := p.mapping(r.of(port).addr, port, leaseSeconds)
		for _, m := range []measure{p.latency.add, p.latency.renew} {
			if err := one(m, r.of(port), mapping); err != nil {
				return err
			}
		}
	}
	if err := r.ready(p); err != nil {
		return err
	}
	for _, port := range ports {
		if err := one(p.latency.read, r.of(port), p.read(r.of(port).addr)); err != nil {
			return err
		}
	}
	return r.forget(ports, p)
}

// together measures requests of all hosts at the same time.
func (b *run) together(r *router, count int, p protocol) error {
	ports := r.nextAsked(blockSize * hosts)
	mapping := func(a *asker, port uint16) []byte { return p.mapping(a.addr, port, leaseSeconds) }
	for _, kind := range []struct {
		m       measure
		request func(*asker, uint16) []byte
	}{
		{p.rate.add, mapping},
		{p.rate.renew, mapping},
		{p.rate.read, func(a *asker, _ uint16) []byte { return p.read(a.addr) }},
	} {
		if err := r.ready(p); err != nil {
			return err
		}
		took, err := r.all(ports, kind.request)
		if err != nil {
			return err
		}
		b.record(r, kind.m, count, float64(len(ports))/took.Seconds())
	}
	return r.forget(ports, p)
}

// ready waits until the daemon has done what it still does after an answer: one
// more answer says so.
func (r *router) ready(p protocol) error {
	a := r.askers[r.requests%hosts]
	r.requests++
	_, err := a.ask(p.read(a.addr))
	return err
}

// all sends one request for each port in a burst; every host must have one.
func (r *router) all(ports []uint16, request func(*asker, uint16) []byte) (time.Duration, error) {
	requests := make([][][]byte, hosts)
	for _, port := range ports {
		i := port % hosts
		requests[i] = append(requests[i], request(r.askers[i], port))
	}
	r.requests += len(ports)
	return burst(r.askers, requests)
}

// forget checks that the last mapping is there and deletes all of these, which
// is not measured.
func (r *router) forget(ports []uint16, p protocol) error {
	last := ports[len(ports)-1]
	if err := r.knows(int(last), r.of(last).addr.String()); err != nil {
		return err
	}
	if r.name == ourName {
		_, err := r.all(ports, func(a *asker, port uint16) []byte { return p.mapping(a.addr, port, 0) })
		return err
	}
	// By NAT-PMP and PCP it looks through its list by index, which takes a
	// second with 1000 mappings in iptables.
	for _, port := range ports {
		svc := r.svc
		svc.from = r.of(port).addr
		if _, _, err := svc.call("DeletePortMapping", specific(int(port))...); err != nil {
			return err
		}
	}
	return nil
}
