package firewall

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// crowd is a table over the real kernel, and hosts that ask for all that there is.
type crowd struct {
	*portmap.Table
	t       *testing.T
	r       *rand.Rand
	backend backend
	granted map[portmap.Origin]int
	peers   int
	logged  []string
}

// serve makes a table for the backend, with what an earlier run had.
func (c *crowd) serve(f backend, leases []portmap.Mapping) error {
	c.backend = f
	c.Table = portmap.New(portmap.Config{
		Firewall: f, Now: portmap.BootTime,
		Policy: portmap.Policy{Secure: true, MaxLease: time.Hour, MaxMappings: 60, MaxPerClient: 25},
		InUse:  func(portmap.Protocol, uint16) (bool, error) { return false, nil },
		Logf: func(format string, args ...any) {
			if line := fmt.Sprintf(format, args...); strings.Contains(line, "kernel") {
				c.logged = append(c.logged, line)
			}
		},
	})
	for _, err := range c.Restore(leases) {
		if !strings.HasSuffix(err.Error(), "the lease has ended") { // a moment ago
			return err
		}
	}
	return c.SetNetwork(home6)
}

func oneOf[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

// wish is a request of any protocol, for few hosts, ports and peers.
func (c *crowd) wish() portmap.Request {
	client := addr(oneOf(c.r, "192.168.77.10", "192.168.77.10", "192.168.77.11", client6))
	req := portmap.Request{From: client, Lease: time.Duration(1+c.r.IntN(4)) * time.Second}
	req.Client, req.InternalPort, req.Enabled = client, uint16(3000+c.r.IntN(6)), true
	req.Protocol, req.ExternalPort = oneOf(c.r, portmap.TCP, portmap.UDP), uint16(4000+c.r.IntN(8))
	req.Origin, req.Nonce[0] = oneOf(c.r, portmap.UPnP, portmap.NATPMP, portmap.PCP, portmap.PCP, portmap.PCP, portmap.PCP), byte(c.r.IntN(4)/3)
	remote, other := "11.0.0.1", "11.0.0.9"
	if client.Is6() {
		remote, other = remote6, "2001:db8:ff::9"
	}
	req.RemoteHost = addr(oneOf(c.r, remote, other))
	switch {
	case req.Origin != portmap.PCP:
		if req.Nonce, req.Enabled = [12]byte{}, c.r.IntN(4) > 0; req.Origin == portmap.NATPMP || c.r.IntN(2) == 0 {
			req.RemoteHost = netip.Addr{}
		}
		if req.Origin == portmap.UPnP && client.Is6() {
			req.Pinhole, req.ExternalPort = client, req.InternalPort
		}
	case c.r.IntN(2) == 0:
		req.Peer, req.Prefer, req.RemotePort = true, true, uint16(1+c.r.IntN(3))
		if c.r.IntN(4) > 0 {
			req.ExternalPort = 0
		}
	default:
		c.filter(&req, remote)
	}
	return req
}

// filter makes a MAP of the request, with any filter or none.
func (c *crowd) filter(req *portmap.Request, remote string) {
	req.Prefer, req.NoFilter, req.Ports = c.r.IntN(6) == 0, c.r.IntN(3) == 0, oneOf[uint16](c.r, 0, 0, 4)
	req.RemotePort = oneOf[uint16](c.r, 0, 1)
	switch c.r.IntN(4) {
	case 0, 1:
		req.RemoteHost, req.RemotePort = netip.Addr{}, req.RemotePort*uint16(c.r.IntN(2))
	case 2:
		bits := req.RemoteHost.BitLen() - oneOf(c.r, 1, 2, 8)
		p, _ := addr(remote).Prefix(bits)
		req.RemoteHost, req.RemoteBits = p.Addr(), uint8(bits)
	}
}

// step asks for something, or ends it. Whatever the table grants, the kernel takes.
func (c *crowd) step() error {
	req, err := c.wish(), error(nil)
	switch n := c.r.IntN(8); {
	case n == 0:
		err = c.Unmap(req.Key, req.From)
	case n == 1 && req.Origin == portmap.UPnP:
		_, err = c.UnmapRange(req.Protocol, req.ExternalPort, req.ExternalPort+2, req.From)
	case n < 3 && req.Origin != portmap.UPnP:
		err = c.UnmapInternal(req.Protocol, req.Client, req.InternalPort, req.Origin, req.Nonce)
	case req.Origin == portmap.UPnP:
		_, err = c.Map(req)
	case req.Origin == portmap.NATPMP && req.Client.Is6():
	default:
		_, err = c.MapInternal(req)
	}
	switch {
	case errors.Is(err, portmap.ErrFirewall):
		return fmt.Errorf("%+v: %w; the table has %v", req, err, c.List())
	case err == nil && req.Peer:
		c.peers++
	case err == nil:
		c.granted[req.Origin]++
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	c.Run(done) // what is due
	return nil
}

// sorted is what the kernel has, without its order and what changes by itself, nor
// which of several mappings of a source is in snat4: one that was led to another
// port of its client counts as new there until all is told at once.
func sorted(text string) string {
	lines := strings.FieldsFunc(changing.ReplaceAllString(text, ""), func(r rune) bool { return r == '\n' || r == ',' || r == '{' })
	for i := range lines {
		lines[i] = strings.Trim(lines[i], " \t}")
		if source, _, ok := strings.Cut(lines[i], " : "+home.External.String()); ok {
			lines[i] = source
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// without gives the lines of one text that another one does not have.
func without(text, other string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool {
		return slices.Contains(strings.Split(other, "\n"), line)
	}), "\n")
}

// TestRandom: two hosts by all protocols, with filters, PEER and PORT_SETs, and
// restarts: the kernel takes all that the table grants, and has what it would have
// if it were told all at once.
func TestRandom(t *testing.T) {
	run := func(t *testing.T, l *lab.Lab, again func() backend, rules func() string, rounds int) {
		c := &crowd{t: t, r: rand.New(rand.NewPCG(7, 7)), granted: map[portmap.Origin]int{}}
		on(t, l, func() error { return c.serve(again(), nil) })
		for round := range rounds {
			on(t, l, func() error {
				for range 50 {
					if err := c.step(); err != nil {
						return err
					}
				}
				return nil
			})
			agrees(t, l, c.backend)
			before := sorted(rules())
			on(t, l, func() error { c.Sync(); return nil })
			if after := sorted(rules()); after != before {
				t.Fatalf("round %d: changes made\n%s\nSync makes\n%s\nof %v", round, without(before, after), without(after, before), c.List())
			}
			if round%4 == 3 {
				f := again()
				on(t, l, func() error { return c.serve(f, c.List()) })
				agrees(t, l, f)
			}
			if c.logged != nil {
				t.Fatal(c.logged)
			}
		}
		t.Logf("granted: %v, %d by PEER; %d at last", c.granted, c.peers, len(c.List()))
		on(t, l, c.backend.Close)
	}
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		o := options(v)
		o.IPv6 = true
		run(t, l, func() backend {
			f, err := open(t, l, o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.inForce.flows.Close() })
			return f
		}, func() string { return l.Rules(v) }, 4)
	})
	t.Run(lab.Nftables, func(t *testing.T) {
		l := lab.Start(t)
		run(t, l, func() backend { return openNFT6(t, l) }, func() string { return nftRuleset(t, l) }, 12)
	})
}
