//go:build go1.25

package portmap_test

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

func anyRule(allow bool, external portmap.PortRange, text string) portmap.Rule {
	return portmap.Rule{Allow: allow, External: external, Internal: ports(0, 65535), Client: netip.MustParsePrefix("0.0.0.0/0"), Text: text}
}

// TestMapAny: the matrix of SPEC WIP-3.
func TestMapAny(t *testing.T) {
	denyRest := anyRule(false, ports(0, 65535), "deny all")
	for name, tt := range map[string]struct {
		rules  []portmap.Rule
		before []portmap.Request
		change func(*portmap.Request) // of ann's wish for TCP 5000
		same   bool                   // the wished port is given
		within portmap.PortRange      // or one of these; zero: any from 1024
		err    error
	}{
		"free":                      {same: true},
		"held by another":           {before: []portmap.Request{ask(bob, 5000)}},
		"identical":                 {before: []portmap.Request{ask(ann, 5000)}, same: true},
		"own, other remote host":    {before: []portmap.Request{ask(ann, 5000)}, change: func(r *portmap.Request) { r.RemoteHost = peer1 }, same: true},
		"held, other remote host":   {before: []portmap.Request{ask(bob, 5000)}, change: func(r *portmap.Request) { r.RemoteHost = peer1 }},
		"pinned by somebody":        {before: []portmap.Request{pin(bob6, 5000)}, same: true},
		"none wished":               {change: func(r *portmap.Request) { r.ExternalPort = 0 }},
		"of the router":             {change: func(r *portmap.Request) { r.ExternalPort = 9999 }},
		"low":                       {change: func(r *portmap.Request) { r.ExternalPort = 80 }},
		"denied by rule":            {rules: []portmap.Rule{anyRule(false, ports(4000, 6000), "deny")}},
		"one permitted":             {rules: []portmap.Rule{anyRule(true, ports(7777, 7777), "allow"), denyRest}, within: ports(7777, 7777)},
		"two ranges":                {rules: []portmap.Rule{anyRule(false, ports(7001, 7998), "deny"), anyRule(true, ports(7000, 7999), "allow"), denyRest}, within: ports(7000, 7999)},
		"the last":                  {rules: []portmap.Rule{anyRule(true, ports(65535, 65535), "allow"), denyRest}, within: ports(65535, 65535)},
		"the first":                 {rules: []portmap.Rule{anyRule(true, ports(1024, 1024), "allow"), denyRest}, within: ports(1024, 1024)},
		"low ones are for a wish":   {rules: []portmap.Rule{anyRule(true, ports(1, 1023), "allow"), denyRest}, err: portmap.ErrDenied},
		"none permitted":            {rules: []portmap.Rule{denyRest}, err: portmap.ErrDenied},
		"none permitted, none wish": {rules: []portmap.Rule{denyRest}, change: func(r *portmap.Request) { r.ExternalPort = 0 }, err: portmap.ErrDenied},
		"the only one is held":      {rules: []portmap.Rule{anyRule(true, ports(5000, 5000), "allow"), denyRest}, before: []portmap.Request{ask(bob, 5000)}, err: portmap.ErrFull},
		"the only low one is held": {rules: []portmap.Rule{anyRule(true, ports(80, 80), "allow"), denyRest}, before: []portmap.Request{ask(bob, 80)},
			change: func(r *portmap.Request) { r.ExternalPort = 80 }, err: portmap.ErrFull},
		"the only one is the router's": {rules: []portmap.Rule{anyRule(true, ports(9999, 9999), "allow"), denyRest}, err: portmap.ErrFull},
		"only another's is permitted": {rules: []portmap.Rule{anyRule(true, ports(7777, 7777), "allow"), denyRest}, before: []portmap.Request{ask(bob, 7777)},
			err: portmap.ErrFull},
		"for another":      {change: func(r *portmap.Request) { r.From = bob }, err: portmap.ErrNotAuthorized},
		"off-link":         {change: func(r *portmap.Request) { r.Client, r.From = peer1, peer1 }, err: portmap.ErrNotLANHost},
		"to IPv6":          {change: func(r *portmap.Request) { r.Client, r.From = ann6, ann6 }, err: portmap.ErrNotLANHost},
		"low internal":     {change: func(r *portmap.Request) { r.InternalPort = 80 }, err: portmap.ErrDenied},
		"no internal port": {change: func(r *portmap.Request) { r.InternalPort = 0 }, err: portmap.ErrDenied},
		"no protocol":      {change: func(r *portmap.Request) { r.Protocol = 0 }, err: portmap.ErrDenied},
		"too many":         {before: []portmap.Request{ask(ann, 6000), ask(ann, 6001), ask(ann, 6002)}, err: portmap.ErrFull},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *portmap.Config) { c.Policy.Rules, c.Policy.MaxPerClient = tt.rules, 3 })
			w.used[9999] = true
			for _, req := range tt.before {
				w.mustMap(req)
			}
			before, update, req := w.List(), w.UpdateID(), ask(ann, 5000)
			if tt.change != nil {
				tt.change(&req)
			}
			m, err := w.MapAny(req)
			w.checkKernel()
			if !errors.Is(err, tt.err) {
				t.Fatalf("%v, want %v", err, tt.err)
			}
			if err != nil {
				if !slices.Equal(w.List(), before) || w.UpdateID() != update || errors.Is(err, portmap.ErrConflict) || errors.Is(err, portmap.ErrInUse) {
					t.Errorf("%v left %v", err, w.List())
				}
				return
			}
			within := tt.within
			if within == (portmap.PortRange{}) {
				within = ports(1024, 65535)
			}
			if !within.Contains(m.ExternalPort) || (m.ExternalPort == req.ExternalPort) != tt.same || m.InternalPort != req.InternalPort || w.UpdateID() != update+1 {
				t.Errorf("given %+v, update %d after %d", m, w.UpdateID(), update)
			}
			if got, err := w.Lookup(m.Key); err != nil || got != m {
				t.Errorf("Lookup: %+v, %v", got, err)
			}
		})
	}
}

// TestMapAnyFills: whatever the rules are, each port is given that is permitted
// and free, none else, and none twice; then it says that there is none.
func TestMapAnyFills(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 3))
		var rules []portmap.Rule
		port := func() uint16 { return pick(r, uint16(1020+r.IntN(20)), uint16(65516+r.IntN(20)), 0, 65535) }
		for range r.IntN(6) {
			rule := anyRule(r.IntN(2) == 0, ports(port(), port()), "")
			rule.Client = pick(r, rule.Client, netip.MustParsePrefix("192.168.1.11/32"), netip.MustParsePrefix("192.168.1.10/32"))
			rule.Protocol = pick(r, 0, 0, portmap.TCP, portmap.UDP)
			rules = append(rules, rule)
		}
		rules = append(rules, anyRule(true, ports(1020, 1030), ""), anyRule(true, ports(65530, 65535), ""), anyRule(false, ports(0, 65535), ""))
		asked := 0
		w := newWorld(t, func(c *portmap.Config) {
			// Less than there may be, so that the quota never is the reason.
			c.Policy.Rules, c.Policy.MaxMappings, c.Policy.MaxPerClient = rules, 70000, 70000
			c.Firewall, c.Logf = noKernel{}, func(string, ...any) {}
			inUse := c.InUse
			c.InUse = func(p portmap.Protocol, port uint16) (bool, error) { asked++; return inUse(p, port) }
		})
		permits := func(port uint16) bool { // as Policy says it, port by port
			for _, rule := range rules {
				if rule.External.Contains(port) && rule.Client.Contains(ann) && (rule.Protocol == 0 || rule.Protocol == portmap.TCP) {
					return rule.Allow
				}
			}
			panic("the last rule is for all")
		}
		permitted, free := 0, map[uint16]bool{}
		for port := 1024; port <= 65535; port++ {
			if !permits(uint16(port)) {
				continue
			}
			if permitted++; permitted > 100 {
				break
			}
			switch r.IntN(8) {
			case 0:
				w.used[uint16(port)] = true
			case 1:
				m := ask(bob, uint16(port)).Mapping
				m.Deadline = w.clock + time.Hour
				w.Restore([]portmap.Mapping{m})
				_, err := w.Lookup(m.Key)
				free[uint16(port)] = err != nil // the rules may be others for Bob
			default:
				free[uint16(port)] = true
			}
		}
		if permitted > 100 {
			continue // too many to fill
		}
		for port, ok := range free {
			if !ok {
				delete(free, port)
			}
		}
		for {
			asked = 0
			m, err := w.MapAny(portmap.Request{Mapping: portmap.Mapping{Key: key(portmap.TCP, 0, netip.Addr{}), Client: ann, InternalPort: 2000}, From: ann})
			if asked > 64 {
				t.Fatalf("seed %d: %d questions to the kernel", seed, asked)
			}
			if err != nil {
				want := portmap.ErrFull
				if permitted == 0 {
					want = portmap.ErrDenied
				}
				if !errors.Is(err, want) || len(free) > 0 {
					t.Errorf("seed %d: %v, want %v; free are %v", seed, err, want, free)
				}
				break
			}
			if !free[m.ExternalPort] {
				t.Fatalf("seed %d: port %d is given; rules %+v", seed, m.ExternalPort, rules)
			}
			delete(free, m.ExternalPort)
		}
	}
}

// TestMapAnyBusyRouter: the kernel is asked a bounded number of questions, and
// what it cannot say is no free port.
func TestMapAnyBusyRouter(t *testing.T) {
	asked := 0
	var trouble error
	w := newWorld(t, func(c *portmap.Config) {
		c.InUse = func(portmap.Protocol, uint16) (bool, error) { asked++; return true, trouble }
	})
	if _, err := w.MapAny(ask(ann, 5000)); !errors.Is(err, portmap.ErrFull) || asked > 65 {
		t.Errorf("%v after %d questions", err, asked)
	}
	trouble = errors.New("no inet_diag")
	if _, err := w.MapAny(ask(ann, 5000)); !errors.Is(err, portmap.ErrFirewall) || !errors.Is(err, trouble) {
		t.Error(err)
	}
	w.fw.Break(true)
	if _, err := newWorldWith(t, w).MapAny(ask(ann, 5000)); !errors.Is(err, portmap.ErrFirewall) {
		t.Errorf("a kernel that refuses: %v", err)
	}
}

// newWorldWith makes a table on the kernel of another.
func newWorldWith(t *testing.T, other *world) *world {
	return newWorld(t, func(c *portmap.Config) { c.Firewall = other.fw })
}

// TestMapAnyDecision: it says what was wished and what was given.
func TestMapAnyDecision(t *testing.T) {
	var decisions []portmap.Decision
	w := newWorld(t, func(c *portmap.Config) {
		c.Decided = func(d portmap.Decision) { decisions = append(decisions, d) }
		c.Policy.Rules = []portmap.Rule{anyRule(true, ports(7777, 7777), "allow seven"), anyRule(false, ports(0, 65535), "deny all")}
	})
	for range 2 {
		w.MapAny(ask(ann, 5000))
	}
	want := []string{
		"map TCP port 5000 to 192.168.1.10 port 5000, or any other port: granted for 3600 s (port 7777; rule: allow seven)",
		"map TCP port 5000 to 192.168.1.10 port 5000, or any other port: refused: too many mappings: no port that is permitted is free",
	}
	var got []string
	for _, d := range decisions {
		got = append(got, d.What+": "+d.Verdict)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestUnmapRange: only one's own, all at once (SPEC WIP-14).
func TestUnmapRange(t *testing.T) {
	changes := 0
	w := newWorld(t, func(c *portmap.Config) { c.Changed = func() { changes++ } })
	udp := ask(ann, 5001)
	udp.Protocol = portmap.UDP
	specific := ask(ann, 5003)
	specific.RemoteHost = peer1
	left := []portmap.Mapping{w.mustMap(ask(ann, 4999)), w.mustMap(udp), w.mustMap(ask(bob, 5002)), w.mustMap(ask(ann, 5005))}
	w.mustMap(ask(ann, 5000))
	w.mustMap(ask(ann, 5004))
	w.mustMap(specific)
	w.mustMap(ask(ann, 5003))
	left = append(left, w.mustMap(pin(ann6, 5003)))
	all := w.List()
	update := w.UpdateID()
	changes = 0
	refusals := count(w.log, "refused")
	for _, from := range []netip.Addr{ann6, peer1, {}} {
		if n, err := w.UnmapRange(portmap.TCP, 1, 65535, from); n != 0 || !errors.Is(err, portmap.ErrNoEntry) {
			t.Errorf("%v: %d, %v", from, n, err)
		}
	}
	if n, err := w.UnmapRange(portmap.TCP, 5004, 5000, ann); n != 0 || !errors.Is(err, portmap.ErrNoEntry) {
		t.Errorf("the wrong way round: %d, %v", n, err)
	}
	w.fw.Break(true)
	if n, err := w.UnmapRange(portmap.TCP, 5000, 5004, ann); n != 0 || !errors.Is(err, portmap.ErrFirewall) {
		t.Errorf("%d, %v", n, err)
	}
	w.fw.Break(false)
	if !slices.Equal(w.List(), all) || changes != 0 || w.UpdateID() != update || count(w.log, "refused")-refusals != 5 {
		t.Errorf("refused, but %d changes, %q, left %v", changes, w.log, w.List())
	}
	w.Sync()
	calls := w.fw.Calls()
	if n, err := w.UnmapRange(portmap.TCP, 5000, 5004, ann); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if !slices.Equal(w.List(), left) || changes != 1 || w.UpdateID() != update+1 || w.fw.Calls() != calls+1 {
		t.Errorf("%d changes, update %d after %d, %d calls, left %v", changes, w.UpdateID(), update, w.fw.Calls()-calls, w.List())
	}
	w.checkKernel()
	if n, err := w.UnmapRange(portmap.UDP, 0, 65535, ann); n != 1 || err != nil {
		t.Errorf("all of UDP: %d, %v", n, err)
	}
}

// TestAtOwn: the others' do not count (SPEC WIP-17, ACC-3).
func TestAtOwn(t *testing.T) {
	w := newWorld(t, nil)
	own := map[netip.Addr][]portmap.Mapping{}
	for i, client := range []netip.Addr{bob, ann, ann, bob, ann} {
		own[client] = append(own[client], w.mustMap(ask(client, uint16(5000+i))))
		w.mustMap(pin(ann6, uint16(5000+i)))
	}
	for client, want := range own {
		for i, m := range want {
			if got, err := w.AtOwn(i, client); err != nil || got != m {
				t.Errorf("%v %d: %v, %v, want %v", client, i, got, err, m)
			}
		}
		for _, i := range []int{-1, len(want), 1 << 40} {
			if got, err := w.AtOwn(i, client); !errors.Is(err, portmap.ErrNoEntry) {
				t.Errorf("%v %d: %v, %v", client, i, got, err)
			}
		}
	}
	if _, err := w.AtOwn(0, peer1); !errors.Is(err, portmap.ErrNoEntry) {
		t.Error(err)
	}
}

// TestUpdateID: SystemUpdateID (SPEC 5.5, WIP-2) rises once with each change of
// IPv4 mappings, also when one ends several, and with nothing else.
func TestUpdateID(t *testing.T) {
	live(t, nil, func(t *testing.T, w *world) {
		want := w.UpdateID()
		step := func(what string, rises uint32, do func()) {
			t.Helper()
			do()
			if want += rises; w.UpdateID() != want {
				t.Fatalf("%s: %d, want %d", what, w.UpdateID(), want)
			}
		}
		short := func(port uint16) portmap.Request {
			req := ask(ann, port)
			req.Lease = time.Minute
			return req
		}
		step("new", 1, func() { w.mustMap(short(5000)) })
		step("renewed", 1, func() { w.mustMap(short(5000)) })
		step("refused", 0, func() { w.refused(ask(bob, 5000), portmap.ErrConflict) })
		step("another", 1, func() { w.MapAny(short(5001)) })
		step("pinhole", 0, func() { w.mustMap(pin(ann6, 5000)) })
		step("two leases end", 1, func() { after(time.Minute) })
		step("a pinhole's ends", 0, func() { after(time.Hour) })
		step("nothing to flush", 0, func() { w.Flush() })
		step("two more", 2, func() { w.mustMap(short(5000)); w.mustMap(short(5001)) })
		step("kernel", 0, func() { w.Sync(); w.SetNetwork(portmap.Network{External: peer1, LANs: home.LANs}); w.SetNetwork(home) })
		step("revoke", 1, func() { w.Revoke(func(*portmap.Mapping) bool { return true }, "test") })
		step("revoke nothing", 0, func() { w.Revoke(func(*portmap.Mapping) bool { return true }, "test") })
		step("two more", 2, func() { w.mustMap(short(5000)); w.mustMap(short(5001)) })
		step("flush", 1, func() { w.Flush() })
		step("one more", 1, func() { w.mustMap(short(5000)) })
		step("unmap", 1, func() { w.Unmap(short(5000).Key, ann) })
		step("unmap nothing", 0, func() { w.Unmap(short(5000).Key, ann) })
	})
}
