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

func set(n uint16, req portmap.Request) portmap.Request {
	req.Ports = n
	return req
}

// TestPortSet: SPEC MAP-16. As many ports as there are in one place, never more.
func TestPortSet(t *testing.T) {
	parity := func(r *portmap.Request) { r.Parity = true }
	deny := anyRule(false, ports(0, 65535), "deny")
	only := func(first, last uint16) []portmap.Rule {
		return []portmap.Rule{anyRule(true, ports(first, last), "allow"), deny}
	}
	inside := anyRule(false, ports(0, 65535), "deny")
	inside.Internal = ports(5003, 5003)
	for name, tt := range map[string]struct {
		rules    []portmap.Rule
		before   []portmap.Request
		used     uint16
		req      portmap.Request
		external uint16 // 0: any other
		ports    uint16
		err      error
	}{
		"all of them":                 {req: set(8, pcpAsk(ann, 5000, 6000, 'a')), external: 6000, ports: 8},
		"of size 1":                   {req: set(1, pcpAsk(ann, 5000, 6000, 'a')), external: 6000},
		"64":                          {req: set(64, pcpAsk(ann, 5000, 6000, 'a')), external: 6000, ports: 64},
		"not more than 64":            {req: set(65535, pcpAsk(ann, 5000, 6000, 'a')), external: 6000, ports: 64},
		"up to the last":              {req: set(8, pcpAsk(ann, 5000, 65528, 'a')), external: 65528, ports: 8},
		"not beyond the last":         {rules: append([]portmap.Rule{anyRule(true, ports(0, 5), "allow")}, only(65533, 65535)...), req: set(8, pcpAsk(ann, 5000, 65534, 'a')), external: 65533, ports: 3},
		"not beyond the last inside":  {rules: []portmap.Rule{anyRule(true, ports(0, 65535), "allow")}, req: set(8, pcpAsk(ann, 65533, 6000, 'a')), external: 6000, ports: 3},
		"somewhere else":              {before: []portmap.Request{ask(bob, 6007)}, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), ports: 8},
		"the router's port":           {used: 6003, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), ports: 8},
		"another's first":             {before: []portmap.Request{set(3, pcpAsk(bob, 5000, 6006, 'b'))}, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), ports: 8},
		"another's last":              {before: []portmap.Request{set(3, pcpAsk(bob, 5000, 5998, 'b'))}, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), ports: 8},
		"another's within":            {before: []portmap.Request{set(3, pcpAsk(bob, 5000, 6003, 'b'))}, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), ports: 8},
		"within another's":            {before: []portmap.Request{set(8, pcpAsk(bob, 5000, 5998, 'b'))}, req: set(3, pcpAsk(ann, 5000, 6000, 'a')), ports: 3},
		"beside another's":            {before: []portmap.Request{set(3, pcpAsk(bob, 5000, 5997, 'b')), ask(bob, 6008)}, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), external: 6000, ports: 8},
		"its own other set":           {before: []portmap.Request{set(3, pcpAsk(ann, 4000, 6006, 'b'))}, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), ports: 8},
		"one port inside another set": {before: []portmap.Request{set(8, pcpAsk(bob, 5000, 6000, 'b'))}, req: pcpAsk(ann, 5000, 6007, 'a')},
		"fewer":                       {rules: only(6000, 6009), before: []portmap.Request{ask(bob, 6004)}, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), external: 6005, ports: 5},
		"one":                         {rules: only(6000, 6002), before: []portmap.Request{ask(bob, 6001)}, req: set(8, pcpAsk(ann, 5000, 6002, 'a')), external: 6002},
		"none":                        {rules: only(6000, 6000), before: []portmap.Request{ask(bob, 6000)}, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), err: portmap.ErrFull},
		"denied":                      {rules: []portmap.Rule{deny}, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), err: portmap.ErrDenied},
		"denied inside":               {rules: []portmap.Rule{inside}, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), external: 6000, ports: 3},
		"own port inside":             {before: []portmap.Request{upnpTo(ann, 7000, 5004)}, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), external: 6000, ports: 4},
		"MAP-7":                       {req: with(set(8, pcpAsk(ann, 5000, 5346, 'a')), udp), ports: 8},
		"PMP-11":                      {before: []portmap.Request{with(pmpAsk(bob, 5000, 6003), udp)}, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), ports: 8},
		"PREFER_FAILURE":              {before: []portmap.Request{ask(bob, 6004)}, req: with(set(8, pcpAsk(ann, 5000, 6000, 'a')), prefer), external: 6000, ports: 4},
		"parity":                      {rules: only(6001, 6009), req: with(set(8, pcpAsk(ann, 5000, 6001, 'a')), parity), external: 6002, ports: 8},
		"parity of odd ones":          {rules: only(6000, 6009), req: with(set(9, pcpAsk(ann, 5001, 6000, 'a')), parity), external: 6001, ports: 9},
		"parity that there is not":    {rules: only(6001, 6001), req: with(set(8, pcpAsk(ann, 5000, 6001, 'a')), parity), external: 6001},
		"quota":                       {before: []portmap.Request{set(64, pcpAsk(ann, 2000, 0, 'a')), set(30, pcpAsk(ann, 3000, 0, 'a'))}, req: set(8, pcpAsk(ann, 5000, 6000, 'a')), external: 6000, ports: 6},
		"no quota": {before: []portmap.Request{set(64, pcpAsk(ann, 2000, 0, 'a')), set(36, pcpAsk(ann, 3000, 0, 'a'))},
			req: set(8, pcpAsk(ann, 5000, 6000, 'a')), err: portmap.ErrQuota},
		"quota of the table": {before: []portmap.Request{set(64, pcpAsk(ann, 2000, 0, 'a')), set(64, pcpAsk(bob, 2000, 0, 'a')), set(20, pcpAsk(bob, 3000, 0, 'a'))},
			req: set(8, pcpAsk(ann, 5000, 6000, 'a')), external: 6000, ports: 2},
		"pinholes":              {req: set(8, pcpAsk(ann6, 5000, 0, 'a')), external: 5000, ports: 8},
		"quota of pinholes":     {before: []portmap.Request{set(60, pcpAsk(bob6, 5000, 0, 'a')), pin(anna6, 5000)}, req: set(64, pcpAsk(ann6, 5000, 0, 'a')), external: 5000, ports: 14},
		"no quota of pinholes":  {before: []portmap.Request{set(60, pcpAsk(bob6, 5000, 0, 'a')), set(15, pcpAsk(anna6, 5000, 0, 'a'))}, req: set(8, pcpAsk(ann6, 5000, 0, 'a')), err: portmap.ErrFull},
		"IPv4 beside pinholes":  {before: []portmap.Request{set(64, pcpAsk(bob6, 5000, 0, 'a')), set(64, pcpAsk(anna6, 5000, 0, 'a'))}, req: set(64, pcpAsk(ann, 5000, 6000, 'a')), external: 6000, ports: 64},
		"pinholes, denied":      {rules: []portmap.Rule{inside}, req: set(8, pcpAsk(ann6, 5000, 0, 'a')), external: 5000, ports: 3},
		"pinholes, one by UPnP": {before: []portmap.Request{pin(ann6, 5002)}, req: set(8, pcpAsk(ann6, 5000, 0, 'a')), external: 5000, ports: 2},
		"pinholes up to 65535":  {req: set(8, pcpAsk(ann6, 65530, 0, 'a')), external: 65530, ports: 6},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			w := newWorld(t, func(c *portmap.Config) {
				c.Policy.Rules, c.Policy.MaxPerClient, c.Policy.MaxMappings = tt.rules, 100, 150
				inUse := c.InUse
				c.InUse = func(p portmap.Protocol, port uint16) (bool, error) { asked++; return inUse(p, port) }
			})
			w.used[tt.used] = tt.used != 0
			for _, req := range tt.before {
				w.mustPut(req)
			}
			asked = 0
			m, err := w.MapInternal(tt.req)
			w.checkKernel()
			if !errors.Is(err, tt.err) {
				t.Fatalf("%+v, %v, want %v", m, err, tt.err)
			}
			if asked > 64 {
				t.Errorf("%d questions to the kernel", asked)
			}
			if err != nil {
				return
			}
			if m.ExternalPort != tt.external && tt.external != 0 || tt.external == 0 && m.ExternalPort == tt.req.ExternalPort || m.Ports != tt.ports || m.InternalPort != tt.req.InternalPort {
				t.Errorf("%d ports from %d on, want %d from %d on", m.Ports, m.ExternalPort, tt.ports, tt.external)
			}
			if got, err := w.Lookup(m.Key); got != m || err != nil {
				t.Errorf("Lookup: %+v, %v, want %+v", got, err, m)
			}
		})
	}
}

// TestPortSetPart: each port of a set is found, and is what its set is: one lease,
// one entry. No more ports are told than were asked for.
func TestPortSetPart(t *testing.T) {
	w := newWorld(t, nil)
	whole := w.mustPut(set(8, pcpAsk(ann, 5000, 6000, 'a')))
	for _, tt := range []struct {
		req      portmap.Request
		external uint16
		ports    uint16
		err      error
	}{
		{req: set(8, pcpAsk(ann, 5000, 7000, 'a')), external: 6000, ports: 8},
		{req: set(64, pcpAsk(ann, 5000, 7000, 'a')), external: 6000, ports: 8},
		{req: set(3, pcpAsk(ann, 5000, 7000, 'a')), external: 6000, ports: 3},
		{req: pcpAsk(ann, 5000, 7000, 'a'), external: 6000},
		{req: set(4, pcpAsk(ann, 5006, 7000, 'a')), external: 6006, ports: 2},
		{req: set(4, pcpAsk(ann, 5007, 6007, 'a')), external: 6007},
		{req: with(pcpAsk(ann, 5007, 6007, 'a'), prefer), external: 6007},
		{req: with(pcpAsk(ann, 5007, 6000, 'a'), prefer), err: portmap.ErrCannotProvide},
		{req: pcpAsk(ann, 5003, 7000, 'b'), external: 6003, err: portmap.ErrNonce},
		{req: pmpAsk(ann, 5003, 7000), external: 6003},
	} {
		w.clock += time.Minute
		m, err := w.MapInternal(tt.req)
		if !errors.Is(err, tt.err) || m.ExternalPort != tt.external || m.Ports != tt.ports || m.Client.IsValid() && m.InternalPort != tt.req.InternalPort {
			t.Errorf("%v port %d: %+v, %v", tt.req.Origin, tt.req.InternalPort, m, err)
		}
		if err == nil && tt.req.Origin == portmap.PCP {
			whole.Deadline = w.clock + time.Hour
		}
		if got := w.List(); len(got) != 1 || got[0] != whole {
			t.Fatalf("the table has %+v, want %+v", got, whole)
		}
		w.checkKernel()
	}
}

// TestPortSetFills: sets and single ports of two hosts, at random, until nothing is
// left: no port is given twice (the kernel of the tests sees to it), and each is.
func TestPortSetFills(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(t, func(c *portmap.Config) {
			c.Policy.Rules = []portmap.Rule{anyRule(true, ports(6000, 6099), "allow"), anyRule(false, ports(0, 65535), "deny")}
			c.Logf = func(string, ...any) {}
		})
		given, failed := 0, 0
		for internal := uint16(2000); failed < 2 && internal < 60000; internal += 64 {
			req := set(uint16(r.IntN(20)), pcpAsk(pick(r, ann, bob), internal, uint16(5990+r.IntN(120)), 'a'))
			req.Parity = r.IntN(2) == 0
			m, err := w.MapInternal(req)
			if err != nil && !errors.Is(err, portmap.ErrFull) {
				t.Fatal(err)
			}
			if err != nil {
				failed++
				continue
			}
			if max(1, req.Ports) < max(1, m.Ports) {
				t.Fatalf("asked for %d, given %d", req.Ports, m.Ports)
			}
			given += max(1, int(m.Ports))
		}
		if given != 100 {
			t.Errorf("seed %d: %d of 100 ports were given", seed, given)
		}
		w.checkKernel()
		all := w.List()
		again := newWorld(t, nil) // and all of them survive a restart
		if dropped := again.Restore(all); dropped != nil || !slices.Equal(again.List(), all) {
			t.Errorf("restart: %v", dropped)
		}
	}
}

// TestFilter: SPEC MAP-13, one filter for each mapping.
func TestFilter(t *testing.T) {
	noFilter := func(r *portmap.Request) { r.NoFilter = true }
	plain := func(*portmap.Request) {}
	portOnly := func(r *portmap.Request) { r.RemotePort = 9 }
	net6 := func(r *portmap.Request) { r.RemoteHost, r.RemoteBits = netip.MustParseAddr("2001:db8::"), 32 }
	host6 := func(r *portmap.Request) { r.RemoteHost = peer6 }
	both := func(a, b func(*portmap.Request)) func(*portmap.Request) {
		return func(r *portmap.Request) { a(r); b(r) }
	}
	for name, tt := range map[string]struct {
		client      netip.Addr
		before, ask func(*portmap.Request)
		want        func(*portmap.Request)
		err         error
	}{
		"a new one":            {before: plain, ask: fromNet, want: fromNet},
		"kept":                 {before: fromNet, ask: plain, want: fromNet},
		"again":                {before: fromNet, ask: fromNet, want: fromNet},
		"another":              {before: fromNet, ask: fromOne, err: portmap.ErrFilters},
		"another prefix":       {before: fromNet, ask: both(fromNet, func(r *portmap.Request) { r.RemoteBits = 16 }), err: portmap.ErrFilters},
		"another port":         {before: fromNet, ask: both(fromNet, portOnly), err: portmap.ErrFilters},
		"no more":              {before: fromNet, ask: noFilter, want: plain},
		"instead":              {before: fromNet, ask: both(noFilter, fromOne), want: fromOne},
		"a port":               {before: plain, ask: portOnly, want: portOnly},
		"IPv6, kept":           {client: ann6, before: net6, ask: plain, want: net6},
		"IPv6, no more":        {client: ann6, before: net6, ask: noFilter, want: plain},
		"IPv6, UPnP has it":    {client: ann6, before: plain, ask: host6, err: portmap.ErrNonce},
		"IPv6, beside of UPnP": {client: ann6, before: plain, ask: net6, want: net6},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			if !tt.client.IsValid() {
				tt.client = ann
			} else {
				w.mustPut(with(pin(ann6, 5000), host6))
			}
			mine := pcpAsk(tt.client, 5000, 5000, 'a')
			w.mustPut(set(3, with(mine, tt.before)))
			before := w.List()
			m, err := w.MapInternal(set(3, with(mine, tt.ask)))
			w.checkKernel()
			if !errors.Is(err, tt.err) {
				t.Fatalf("%+v, %v, want %v", m, err, tt.err)
			}
			if err != nil {
				if !slices.Equal(w.List(), before) {
					t.Errorf("left %v", w.List())
				}
				return
			}
			want := with(mine, tt.want)
			if m.RemoteHost != want.RemoteHost || m.RemoteBits != want.RemoteBits || m.RemotePort != want.RemotePort || m.Ports != 3 || len(w.List()) != len(before) {
				t.Errorf("%+v", m)
			}
			if got, err := w.Lookup(m.Key); got != m || err != nil {
				t.Errorf("Lookup: %+v, %v", got, err)
			}
		})
	}
}

// TestFilterSound: what is no filter is refused before the kernel sees it.
func TestFilterSound(t *testing.T) {
	w := newWorld(t, nil)
	for name, change := range map[string]func(*portmap.Request){
		"bits without a host": func(r *portmap.Request) { r.RemoteBits = 24 },
		"not masked":          func(r *portmap.Request) { r.RemoteHost, r.RemoteBits = peer1, 24 },
		"one host":            func(r *portmap.Request) { r.RemoteHost, r.RemoteBits = peer1, 32 },
		"too many bits":       func(r *portmap.Request) { r.RemoteHost, r.RemoteBits = peer1, 64 },
		"of IPv6":             func(r *portmap.Request) { r.RemoteHost, r.RemoteBits = netip.MustParseAddr("2001:db8::"), 32 },
		"one of IPv6":         func(r *portmap.Request) { r.RemoteHost = peer6 },
		"IPv4 in IPv6":        func(r *portmap.Request) { r.RemoteHost, r.RemoteBits = netip.MustParseAddr("::ffff:11.0.0.0"), 120 },
		"IPv4 in IPv6, pinhole": func(r *portmap.Request) {
			r.Client, r.From, r.RemoteHost, r.RemoteBits = ann6, ann6, netip.MustParseAddr("::ffff:11.0.0.0"), 120
		},
		"by NAT-PMP":       func(r *portmap.Request) { fromNet(r); r.Origin = portmap.NATPMP },
		"a set by NAT-PMP": func(r *portmap.Request) { r.Ports = 4; r.Origin = portmap.NATPMP },
	} {
		if m, err := w.MapInternal(with(pcpAsk(ann, 5000, 5000, 'a'), change)); !errors.Is(err, portmap.ErrDenied) || m.Client.IsValid() {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	w.checkKernel()
}

func TestRemote(t *testing.T) {
	for want, k := range map[string]portmap.Key{
		"invalid Prefix": {}, "11.0.0.101/32": {RemoteHost: peer1}, "2001:db8:9::101/128": {RemoteHost: peer6},
		"11.0.0.0/8": {RemoteHost: netip.MustParseAddr("11.0.0.0"), RemoteBits: 8},
	} {
		if got := k.Remote(); got.String() != want || got == (netip.Prefix{}) != (want == "invalid Prefix") {
			t.Errorf("%v, want %s", got, want)
		}
	}
}

// TestPCPDescription: SPEC MAP-15. It stays until another one comes, or an empty one.
func TestPCPDescription(t *testing.T) {
	w := newWorld(t, nil)
	for _, tt := range []struct {
		description string
		none        bool
		want        string
	}{{"first\n", false, "first"}, {"", false, "first"}, {"second", false, "second"}, {"", true, ""}, {"", false, ""}} {
		m := w.mustPut(with(pcpAsk(ann, 5000, 5000, 'a'), func(r *portmap.Request) { r.Description, r.NoDescription = tt.description, tt.none }))
		if m.Description != tt.want {
			t.Errorf("%q, %v: %q, want %q", tt.description, tt.none, m.Description, tt.want)
		}
	}
}

// TestNonce: SPEC MAP-3, INT-20. A client that draws a new nonce each time renews
// its mapping only with pcp_nonce = same-host; the first nonce stays the one.
func TestNonce(t *testing.T) {
	for _, sameHost := range []bool{false, true} {
		w := newWorld(t, func(c *portmap.Config) { c.Policy.SameHostNonce = sameHost })
		first := w.mustPut(pcpAsk(ann, 5000, 6000, 'a'))
		w.clock += time.Minute
		m, err := w.MapInternal(pcpAsk(ann, 5000, 7000, 'b'))
		if errors.Is(err, portmap.ErrNonce) == sameHost || m.ExternalPort != 6000 || m.Nonce != first.Nonce || (m.Deadline == first.Deadline) == sameHost {
			t.Errorf("same-host %v: %+v, %v", sameHost, m, err)
		}
		if _, err := w.MapInternal(pcpAsk(ann, 5000, 7000, 'a')); err != nil {
			t.Errorf("same-host %v: its own nonce: %v", sameHost, err)
		}
		// The rules hold in the next run, too.
		next := newWorld(t, func(c *portmap.Config) { c.Policy.SameHostNonce = sameHost })
		next.clock = w.clock
		next.Restore(w.List())
		next.Sync()
		if _, err := next.MapInternal(pcpAsk(ann, 5000, 7000, 'b')); errors.Is(err, portmap.ErrNonce) == sameHost {
			t.Errorf("same-host %v: after a restart: %v", sameHost, err)
		}
		if m, err := next.MapInternal(pcpAsk(ann, 5000, 7000, 'a')); err != nil || m.ExternalPort != 6000 {
			t.Errorf("same-host %v: its own nonce after a restart: %+v, %v", sameHost, m, err)
		}
	}
	// Of a mapping that another host made for Ann, she is not the host.
	w := newWorld(t, func(c *portmap.Config) { c.Policy.SameHostNonce, c.Policy.Secure = true, false })
	w.mustPut(with(pcpAsk(ann, 5000, 6000, 'a'), byBob))
	if _, err := w.MapInternal(pcpAsk(ann, 5000, 6000, 'b')); !errors.Is(err, portmap.ErrNonce) {
		t.Errorf("another owner: %v", err)
	}
}

// TestMapInternalKernel: a kernel that refuses leaves no trace.
func TestMapInternalKernel(t *testing.T) {
	w := newWorld(t, nil)
	w.mustPut(pmpAsk(ann, 5000, 6000))
	before := w.List()
	w.fw.Break(true)
	for _, req := range []portmap.Request{set(8, pcpAsk(ann, 5001, 7000, 'a')), pcpAsk(ann, 5000, 6000, 'a'), pcpAsk(ann6, 5000, 0, 'a')} {
		if m, err := w.MapInternal(req); !errors.Is(err, portmap.ErrFirewall) || m.Client.IsValid() || !slices.Equal(w.List(), before) {
			t.Errorf("%+v, %v; %v", m, err, w.List())
		}
	}
	w.fw.Break(false)
	w.Sync()
	w.checkKernel()
}

// TestPortSetPolicy: each port of a set must be permitted, later, too.
func TestPortSetPolicy(t *testing.T) {
	for name, deny := range map[string]func(*portmap.Rule){
		"external": func(r *portmap.Rule) { r.External = ports(6002, 6002) },
		"internal": func(r *portmap.Rule) { r.Internal = ports(5002, 5002) },
	} {
		w := newWorld(t, nil)
		w.mustPut(set(3, pcpAsk(ann, 5000, 6000, 'a')))
		p := policy()
		p.Rules = []portmap.Rule{anyRule(false, ports(0, 65535), "deny")}
		deny(&p.Rules[0])
		w.SetPolicy(p)
		before := w.List()
		if m, err := w.MapInternal(set(3, pcpAsk(ann, 5000, 6000, 'a'))); !errors.Is(err, portmap.ErrDenied) || !slices.Equal(w.List(), before) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		next := newWorld(t, func(c *portmap.Config) { c.Policy = p })
		if dropped := next.Restore(before); len(dropped) != 1 || !errors.Is(dropped[0], portmap.ErrDenied) {
			t.Errorf("%s: restored, %v", name, dropped)
		}
	}
}
