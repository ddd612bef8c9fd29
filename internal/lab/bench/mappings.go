package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// lease is what every mapping asks for; it outlives the whole run.
const lease = "3600"

// mappings are the live ones of a router, oldest first. Both daemons of a pair
// see the same ports in the same order: the random numbers begin alike.
type mappings struct {
	ports  []int
	next   int
	random *rand.Rand
}

func newMappings() mappings {
	return mappings{next: 2000, random: rand.New(rand.NewPCG(1, 2))}
}

// any is the port of some live mapping.
func (m *mappings) any() int { return m.ports[m.random.IntN(len(m.ports))] }

// add maps one more port of lan1, to the same port there.
func (r *router) add() (time.Duration, error) {
	port := r.live.next
	r.live.next++
	took, err := r.mapPort(port)
	if err == nil {
		r.live.ports = append(r.live.ports, port)
	}
	return took, err
}

// renew asks for a live mapping again.
func (r *router) renew() (time.Duration, error) { return r.mapPort(r.live.any()) }

func (r *router) mapPort(port int) (time.Duration, error) {
	p := strconv.Itoa(port)
	_, took, err := r.svc.call("AddPortMapping",
		"NewRemoteHost", "", "NewExternalPort", p, "NewProtocol", "TCP", "NewInternalPort", p,
		"NewInternalClient", lab.LAN1Addr, "NewEnabled", "1", "NewPortMappingDescription", "bench "+p,
		"NewLeaseDuration", lease)
	return took, err
}

// remove deletes some live mapping.
func (r *router) remove() (time.Duration, error) {
	port := r.live.any()
	_, took, err := r.svc.call("DeletePortMapping", specific(port)...)
	if err == nil {
		i := slices.Index(r.live.ports, port)
		r.live.ports = slices.Delete(r.live.ports, i, i+1)
	}
	return took, err
}

// specific are the arguments that name a mapping.
func specific(port int) []string {
	return []string{"NewRemoteHost", "", "NewExternalPort", strconv.Itoa(port), "NewProtocol", "TCP"}
}

func (r *router) getSpecific() (time.Duration, error) {
	_, took, err := r.svc.call("GetSpecificPortMappingEntry", specific(r.live.any())...)
	return took, err
}

func (r *router) getExternalIP() (time.Duration, error) {
	_, took, err := r.svc.call("GetExternalIPAddress")
	return took, err
}

func (r *router) getGeneric(index int) (time.Duration, error) {
	_, took, err := r.svc.call("GetGenericPortMappingEntry", "NewPortMappingIndex", strconv.Itoa(index))
	return took, err
}

// wholeListBudget is how long reading the whole list may take; a list that
// takes longer is read in part.
const wholeListBudget = 10 * time.Second

// listAll reads the whole list by index, as control points do. When that would
// take too long, it reads entries at even distances and estimates.
func (r *router) listAll() (took time.Duration, estimated bool, err error) {
	const probes = 50
	n := len(r.live.ports)
	if _, err := r.getGeneric(n); !errors.Is(err, outOfRange) {
		return 0, false, fmt.Errorf("%s lists more than the %d live mappings (%v)", r.name, n, err)
	}
	if n > 2*probes {
		for i := range probes {
			one, err := r.getGeneric(i * n / probes)
			if err != nil {
				return 0, false, err
			}
			took += one
		}
		if took *= time.Duration(n); took/probes > wholeListBudget {
			return took / probes, true, nil
		}
	}
	start := time.Now()
	for i := range n {
		if _, err := r.getGeneric(i); err != nil {
			return 0, false, fmt.Errorf("entry %d of %d: %w", i, n, err)
		}
	}
	return time.Since(start), false, nil
}

// bySOAP is how many mappings a miniupnpd gets by SOAP at most.
const bySOAP = 1000

// fill maps ports until count mappings live. progress is called now and then.
// The thread must be on lan1.
func (r *router) fill(ctx context.Context, count int, progress func(string, ...any)) error {
	start, said, stocked := time.Now(), time.Now(), false
	for len(r.live.ports) < count {
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("fill %s to %d mappings: stopped at %d after %v: %w",
				r.name, count, len(r.live.ports), time.Since(start).Round(time.Second), err)
		}
		if r.name == peerName && len(r.live.ports) == bySOAP {
			if err := r.stock(count - bySOAP - 1); err != nil {
				return err
			}
			stocked = true
		}
		// After stock this change of its own makes miniupnpd read all rules; the
		// first one may fail because others have changed the table.
		_, err := r.add()
		if err != nil && stocked {
			_, err = r.add()
		}
		stocked = false
		if err != nil {
			return fmt.Errorf("fill %s to %d mappings: %w", r.name, count, err)
		}
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			progress("%s %s: %d of %d mappings", r.backend, r.name, len(r.live.ports), count)
		}
	}
	return r.known()
}

// known asks for mappings all over the list.
func (r *router) known() error {
	const probes = 100
	for i := range probes {
		port := r.live.ports[i*len(r.live.ports)/probes]
		if err := r.knows(port, lab.LAN1Addr); err != nil {
			return err
		}
	}
	return nil
}

// knows asks for the mapping of a port to the same port of a host.
func (r *router) knows(port int, host string) error {
	reply, _, err := r.svc.call("GetSpecificPortMappingEntry", specific(port)...)
	if err != nil {
		return fmt.Errorf("%s with %s does not know its port %d: %w", r.name, r.backend, port, err)
	}
	for _, want := range []string{"<NewInternalClient>" + host + "<", "<NewInternalPort>" + strconv.Itoa(port) + "<"} {
		if !strings.Contains(string(reply), want) {
			return fmt.Errorf("%s with %s has no %q for port %d: %s", r.name, r.backend, want, port, reply)
		}
	}
	return nil
}
