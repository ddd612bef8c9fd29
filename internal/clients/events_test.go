package clients

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// initialVars are the evented variables of WANIPConnection:2.
var initialVars = []string{"ConnectionStatus", "ExternalIPAddress", "PortMappingNumberOfEntries", "PossibleConnectionTypes", "SystemUpdateID"}

// over makes a URL of the router one of another address of it.
func (s service) over(t *testing.T, addr netip.Addr) service {
	t.Helper()
	for _, ref := range []*string{&s.SCPD, &s.Control, &s.Event} {
		u, err := url.Parse(*ref)
		if err != nil {
			t.Fatal(err)
		}
		port, _ := strconv.ParseUint(u.Port(), 10, 16)
		u.Host = netip.AddrPortFrom(addr, uint16(port)).String()
		*ref = u.String()
	}
	return s
}

// TestSubscription: the life of one, by IPv4, by a global IPv6 address and by
// a link-local one, whose callback has no zone (GENA-14).
func TestSubscription(t *testing.T) {
	h := enter(t, "igd = auto").begin()
	first := h.person(h.LAN1, lab.LAN1Addr)
	wanip := first.read(first.locate(igd2)).service("WANIPConnection:2")
	external := 20000
	for name, way := range map[string]struct{ host, router string }{
		"IPv4":       {lab.LAN1Addr, lab.RouterLANAddr},
		"IPv6":       {lab.LAN1Addr6, lab.RouterLANAddr6},
		"ULA":        {lab.LAN1ULA, lab.RouterULA},
		"link-local": {linkLocal(t, h.LAN1, lab.HostDev).String(), linkLocal(t, h.Router, lab.LANDev).String()},
	} {
		t.Run(name, func(t *testing.T) {
			p := h.person(h.LAN1, way.host)
			p.t = t
			s, svc := p.subscriber(), wanip.over(t, netip.MustParseAddr(way.router))
			sid := s.subscribe(svc)
			answered := time.Now()
			e := s.wait(sid, 1)[0]
			if got := slices.Sorted(maps.Keys(e.vars)); !slices.Equal(got, initialVars) || e.at.Before(answered.Add(-50*time.Millisecond)) || e.path != "/e?x=1" {
				t.Errorf("initial event %+v", e) // GENA-6
			}
			external++
			if code := first.add(wanip, external, 0); code != 0 {
				t.Fatalf("AddPortMapping: error %d", code)
			}
			e = s.wait(sid, 2)[1]
			if got := slices.Sorted(maps.Keys(e.vars)); !slices.Equal(got, []string{"PortMappingNumberOfEntries", "SystemUpdateID"}) {
				t.Errorf("a new mapping tells %v", e.vars) // GENA-11
			}
			for timeout, want := range map[string]string{"Second-1": "1800", "Second-3600": "3600", "Second-infinite": "1800", "Second-999999": "86400"} {
				r := p.request("SUBSCRIBE", svc, "SID", sid, "TIMEOUT", timeout)
				if r.StatusCode != 200 || r.Header.Get("SID") != sid || r.Header.Get("TIMEOUT") != "Second-"+want {
					t.Errorf("renewal with %s: %s %v", timeout, r.Status, r.Header) // GENA-2, GENA-4
				}
			}
			first.remove(wanip, external)
			e = s.wait(sid, 3)[2]
			if got := slices.Sorted(maps.Keys(e.vars)); !slices.Equal(got, []string{"PortMappingNumberOfEntries", "SystemUpdateID"}) {
				t.Errorf("after the renewals a change tells %v", e.vars) // GENA-4: no initial event
			}
			for _, status := range []int{200, 412} {
				if r := p.request("UNSUBSCRIBE", svc, "SID", sid); r.StatusCode != status {
					t.Errorf("UNSUBSCRIBE: %s, want %d", r.Status, status) // GENA-5
				}
			}
			if r := p.request("SUBSCRIBE", svc, "SID", sid); r.StatusCode != 412 {
				t.Errorf("renewal after UNSUBSCRIBE: %s", r.Status)
			}
			next := s.subscribe(svc)
			first.add(wanip, external, 0)
			s.wait(next, 1)
			if got := len(s.events(sid)); got != 3 {
				t.Errorf("%d events in all, want 3: one came after UNSUBSCRIBE", got)
			}
			p.request("UNSUBSCRIBE", svc, "SID", next)
			first.remove(wanip, external)
		})
	}
}

// TestBusy: two clients change the table as fast as they can, beside a
// subscriber that is slow and two that are gone: everyone else gets the final
// value, in few messages, and no request waits (GENA-9, GENA-12).
func TestBusy(t *testing.T) {
	h := enter(t, "igd = auto")
	release := make(chan struct{})
	t.Cleanup(func() { close(release) }) // after the daemon has stopped
	h.begin()
	people := []*person{h.person(h.LAN1, lab.LAN1Addr), h.person(h.LAN2, lab.LAN2Addr)}
	wanip2 := people[0].read(people[0].locate(igd2)).service("WANIPConnection:2")
	wanip1 := people[0].read(people[0].locate(igd1)).service("WANIPConnection:1")

	slow := people[1].subscriber()
	slow.took = func() { <-release }
	slowSID := slow.subscribe(wanip2)
	// One refuses connections, the other's packets get lost.
	h.LAN2.Run(t, "nft", "table inet f { chain i { type filter hook input priority 0; tcp dport 4444 drop; }; }")
	for _, port := range []string{"4443", "4444"} {
		people[1].request("SUBSCRIBE", wanip2, "NT", "upnp:event", "CALLBACK", "<http://"+lab.LAN2Addr+":"+port+"/>")
	}
	good := []*subscriber{people[0].subscriber(), people[1].subscriber()}
	good[1].took = func() { time.Sleep(150 * time.Millisecond) } // most changes meet a message under way
	sids := []string{good[0].subscribe(wanip1), good[1].subscribe(wanip2)}
	for i := range good {
		good[i].wait(sids[i], 1)
	}

	begin := time.Now()
	slowest, changes := work(people, wanip1, begin.Add(2*time.Second))
	end := time.Now()
	out, _ := people[0].call(wanip2, "GetExternalIPAddress")
	if len(out) == 0 {
		t.Error("nobody answers")
	}
	for i := range good {
		want := []string{"", strconv.Itoa(changes)}[i]
		until(t, "the last values", func() bool {
			got := good[i].values(sids[i])
			return got["PortMappingNumberOfEntries"] == "2" && got["SystemUpdateID"] == want
		})
		time.Sleep(250 * time.Millisecond) // would there be more?
		all := good[i].events(sids[i])
		last := all[len(all)-1]
		if d := last.at.Sub(end); d > moment {
			t.Errorf("subscriber %d has the last value %v after the change", i, d)
		}
		if most := int(last.at.Sub(begin)/(200*time.Millisecond)) + 3; len(all) > most || len(all) < 5 {
			t.Errorf("subscriber %d: %d messages for %d changes, want at most %d", i, len(all), changes, most)
		}
	}
	// SystemUpdateID has counted every change, and goes with the number (GENA-11).
	for i, e := range good[1].events(sids[1]) {
		if e.vars["SystemUpdateID"] == "" {
			t.Errorf("message %d tells %v without SystemUpdateID", i, e.vars)
		}
	}
	if got := len(slow.events(slowSID)); got != 1 {
		t.Errorf("the slow subscriber has %d messages, want 1 under way", got)
	}
	t.Logf("%d changes in %v, the slowest took %v; %d messages", changes, end.Sub(begin), slowest, len(good[0].events(sids[0])))
	if slowest > moment {
		t.Errorf("AddPortMapping took up to %v", slowest)
	}
}

// work makes each person map and delete as fast as it can until then, and a
// last mapping. It gives the time of the slowest request and the number of changes.
func work(people []*person, wanip service, end time.Time) (slowest time.Duration, changes int) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for n, p := range people {
		all.Add(1)
		go func() {
			defer all.Done()
			for last := false; !last; {
				last = time.Now().After(end)
				begin := time.Now()
				_, code, err := p.tryAdd(wanip, 21000+n, 0)
				took := time.Since(begin)
				if !last && err == nil && code == 0 {
					_, code, err = p.tryCall(wanip, "DeletePortMapping", "RemoteHost", "", "ExternalPort", fmt.Sprint(21000+n), "Protocol", "TCP")
				}
				mu.Lock()
				slowest = max(slowest, took)
				if changes++; !last {
					changes++
				}
				mu.Unlock()
				if code != 0 || err != nil {
					p.t.Errorf("error %d, %v", code, err)
					return
				}
			}
		}()
	}
	all.Wait()
	return slowest, changes
}

// TestLimits: 16 subscriptions for a host and 64 in all; who leaves makes room
// (GENA-13).
func TestLimits(t *testing.T) {
	h := enter(t).begin()
	first := h.person(h.LAN1, lab.LAN1Addr)
	wanip := first.read(first.locate(igd1)).service("WANIPConnection:1")
	ask := func(p *person) (int, string) {
		r := p.request("SUBSCRIBE", wanip, "NT", "upnp:event", "CALLBACK", "<http://"+p.addr.String()+":9/>")
		return r.StatusCode, r.Header.Get("SID")
	}
	var people []*person
	sids := map[*person]string{}
	for i := range 5 {
		addr := fmt.Sprintf("192.168.77.%d", 30+i)
		h.LAN1.Run(t, "ip", "addr", "add", addr+"/24", "dev", lab.HostDev)
		people = append(people, h.person(h.LAN1, addr))
	}
	for i, p := range people {
		room := 16
		if i == 4 {
			room = 0 // 64 are there
		}
		for n := range room + 1 {
			status, sid := ask(p)
			if want := map[bool]int{true: 200, false: 503}[n < room]; status != want {
				t.Fatalf("host %d, subscription %d: %d, want %d", i, n+1, status, want)
			}
			if sid != "" {
				sids[p] = sid
			}
		}
	}
	first.request("UNSUBSCRIBE", wanip, "SID", sids[people[1]])
	if status, _ := ask(people[0]); status != 503 {
		t.Errorf("the 17th of a host: %d", status)
	}
	// Its initial event is still due, 200 ms after SUBSCRIBE (GENA-6).
	until(t, "the place of one who has left is free", func() bool { status, _ := ask(people[4]); return status == 200 })
}
