package portmap_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// pmpAsk is client's wish by NAT-PMP for its TCP port, for an hour.
func pmpAsk(client netip.Addr, internal, suggested uint16) portmap.Request {
	req := ask(client, suggested)
	req.InternalPort, req.Origin, req.Description = internal, portmap.NATPMP, ""
	return req
}

// pcpAsk is pmpAsk by PCP, with a nonce.
func pcpAsk(client netip.Addr, internal, suggested uint16, nonce byte) portmap.Request {
	req := pmpAsk(client, internal, suggested)
	req.Origin, req.Nonce = portmap.PCP, nonceOf(nonce)
	return req
}

func nonceOf(b byte) [12]byte { return [12]byte{b, 11: b} }

func with(req portmap.Request, change func(*portmap.Request)) portmap.Request {
	change(&req)
	return req
}

func upnpTo(client netip.Addr, external, internal uint16) portmap.Request {
	req := ask(client, external)
	req.InternalPort = internal
	return req
}

// put asks as the protocol of req does.
func (w *world) put(req portmap.Request) (portmap.Mapping, error) {
	if req.Origin == portmap.UPnP {
		return w.Map(req)
	}
	return w.MapInternal(req)
}

func (w *world) mustPut(req portmap.Request) portmap.Mapping {
	w.t.Helper()
	m, err := w.put(req)
	if err != nil {
		w.t.Fatal(err)
	}
	w.checkKernel()
	return m
}

func ofTCP(external uint16) portmap.Rule {
	r := anyRule(false, ports(external, external), "deny")
	r.Protocol = portmap.TCP
	return r
}

func prefer(r *portmap.Request)  { r.Prefer = true }
func udp(r *portmap.Request)     { r.Protocol = portmap.UDP }
func setOf8(r *portmap.Request)  { r.Ports = 8 }
func off(r *portmap.Request)     { r.Enabled = false }
func byBob(r *portmap.Request)   { r.From = bob }
func fromOne(r *portmap.Request) { r.RemoteHost = peer1 }
func fromNet(r *portmap.Request) {
	r.RemoteHost, r.RemoteBits, r.RemotePort = netip.MustParseAddr("11.0.0.0"), 24, 7
}

// TestMapInternal: what NAT-PMP and PCP are given, by what there is.
func TestMapInternal(t *testing.T) {
	const other = 0 // any but the one that was wished
	denyRest := anyRule(false, ports(0, 65535), "deny all")
	for name, tt := range map[string]struct {
		rules    []portmap.Rule
		before   []portmap.Request
		req      portmap.Request
		external uint16         // given; other
		origin   portmap.Origin // of what is there after it; zero: of req
		more     bool           // a mapping more than before
		err      error
	}{
		"PMP-8 NAT-PMP's own, another hint":   {before: []portmap.Request{pmpAsk(ann, 5000, 6000)}, req: pmpAsk(ann, 5000, 7000), external: 6000},
		"PMP-8 by UPnP":                       {before: []portmap.Request{upnpTo(ann, 6000, 5000)}, req: pmpAsk(ann, 5000, 7000), external: 6000, origin: portmap.UPnP},
		"PMP-8 by PCP":                        {before: []portmap.Request{pcpAsk(ann, 5000, 6000, 'a')}, req: pmpAsk(ann, 5000, 7000), external: 6000, origin: portmap.PCP},
		"PMP-8 by UPnP and by itself":         {before: []portmap.Request{pmpAsk(ann, 5000, 6000), upnpTo(ann, 6001, 5000)}, req: pmpAsk(ann, 5000, 7000), external: 6000},
		"PMP-8 forwarding nothing":            {before: []portmap.Request{with(upnpTo(ann, 6000, 5000), off)}, req: pmpAsk(ann, 5000, 7000), external: 7000, more: true},
		"PMP-8 of another host":               {before: []portmap.Request{upnpTo(bob, 6000, 5000)}, req: pmpAsk(ann, 5000, 7000), external: 7000, more: true},
		"PMP-8 of the other protocol":         {before: []portmap.Request{pmpAsk(ann, 5000, 6000)}, req: with(pmpAsk(ann, 5000, 7000), udp), external: 7000, more: true},
		"PMP-9 suggested":                     {req: pmpAsk(ann, 5000, 6000), external: 6000, more: true},
		"PMP-9 no suggestion":                 {req: pmpAsk(ann, 5000, 0), external: 5000, more: true},
		"PMP-9 suggested is another's":        {before: []portmap.Request{ask(bob, 6000)}, req: pmpAsk(ann, 5000, 6000), external: other, more: true},
		"PMP-9 suggested is its own":          {before: []portmap.Request{ask(ann, 6000)}, req: pmpAsk(ann, 5000, 6000), external: other, more: true},
		"PMP-9 suggested is the router's":     {req: pmpAsk(ann, 5000, 9999), external: other, more: true},
		"PMP-9 none free":                     {rules: []portmap.Rule{anyRule(true, ports(6000, 6000), "allow"), denyRest}, before: []portmap.Request{ask(bob, 6000)}, req: pmpAsk(ann, 5000, 6000), err: portmap.ErrFull},
		"PMP-9 all forbidden":                 {rules: []portmap.Rule{denyRest}, req: pmpAsk(ann, 5000, 6000), err: portmap.ErrDenied},
		"PMP-10 privileged":                   {req: pmpAsk(ann, 5000, 80), external: other, more: true},
		"PMP-10 privileged inside":            {req: pmpAsk(ann, 80, 5000), err: portmap.ErrDenied},
		"PMP-10 forbidden by a rule":          {rules: []portmap.Rule{ofTCP(6000)}, req: pmpAsk(ann, 5000, 6000), external: other, more: true},
		"PMP-11 companion is another's":       {before: []portmap.Request{with(pmpAsk(bob, 5000, 6000), udp)}, req: pmpAsk(ann, 5000, 6000), external: other, more: true},
		"PMP-11 companion is another's, PCP":  {before: []portmap.Request{with(pmpAsk(bob, 5000, 6000), udp)}, req: pcpAsk(ann, 5000, 6000, 'a'), external: other, more: true},
		"PMP-11 companion is another's, UPnP": {before: []portmap.Request{with(pmpAsk(bob, 5000, 6000), udp)}, req: ask(ann, 6000), err: portmap.ErrConflict},
		"PMP-11 by UPnP there is none":        {before: []portmap.Request{with(ask(bob, 6000), udp)}, req: pcpAsk(ann, 5000, 6000, 'a'), external: 6000, more: true},
		"PMP-11 NAT-PMP needs it":             {before: []portmap.Request{with(ask(bob, 6000), udp)}, req: pmpAsk(ann, 5000, 6000), external: other, more: true},
		"PMP-11 companion is its own":         {before: []portmap.Request{with(pmpAsk(ann, 5000, 6000), udp)}, req: pmpAsk(ann, 5000, 6000), external: 6000, more: true},

		"MAP-3 the nonce":               {before: []portmap.Request{pcpAsk(ann, 5000, 6000, 'a')}, req: pcpAsk(ann, 5000, 7000, 'a'), external: 6000},
		"MAP-3 another nonce":           {before: []portmap.Request{pcpAsk(ann, 5000, 6000, 'a')}, req: pcpAsk(ann, 5000, 7000, 'b'), external: 6000, err: portmap.ErrNonce},
		"MAP-3 by UPnP":                 {before: []portmap.Request{upnpTo(ann, 6000, 5000)}, req: pcpAsk(ann, 5000, 7000, 'a'), external: 6000, err: portmap.ErrNonce},
		"MAP-3 by UPnP and NAT-PMP":     {before: []portmap.Request{pmpAsk(ann, 5000, 6001), upnpTo(ann, 6000, 5000)}, req: pcpAsk(ann, 5000, 7000, 'a'), external: 6000, err: portmap.ErrNonce},
		"MAP-3 by UPnP and the nonce":   {before: []portmap.Request{pcpAsk(ann, 5000, 6001, 'a'), upnpTo(ann, 6000, 5000)}, req: pcpAsk(ann, 5000, 7000, 'a'), external: 6001},
		"MAP-3 NAT-PMP's is taken over": {before: []portmap.Request{pmpAsk(ann, 5000, 6000)}, req: pcpAsk(ann, 5000, 7000, 'a'), external: 6000},
		"MAP-3 shared with UPnP":        {before: []portmap.Request{pmpAsk(ann, 5000, 6000), with(upnpTo(ann, 6000, 5001), fromOne)}, req: pcpAsk(ann, 5000, 7000, 'a'), external: 6000, err: portmap.ErrNonce},
		"MAP-3 of another host":         {before: []portmap.Request{pcpAsk(bob, 5000, 6000, 'a')}, req: pcpAsk(ann, 5000, 7000, 'b'), external: 7000, more: true},
		"MAP-5 PREFER_FAILURE, same":    {before: []portmap.Request{pcpAsk(ann, 5000, 6000, 'a')}, req: with(pcpAsk(ann, 5000, 6000, 'a'), prefer), external: 6000},
		"MAP-5 PREFER_FAILURE, other":   {before: []portmap.Request{pcpAsk(ann, 5000, 6000, 'a')}, req: with(pcpAsk(ann, 5000, 7000, 'a'), prefer), err: portmap.ErrCannotProvide},
		"MAP-6 suggested":               {req: pcpAsk(ann, 5000, 6000, 'a'), external: 6000, more: true},
		"MAP-6 never for a poor hint":   {before: []portmap.Request{ask(bob, 6000)}, req: pcpAsk(ann, 5000, 6000, 'a'), external: other, more: true},
		"MAP-6 hint is its own by UPnP": {before: []portmap.Request{ask(ann, 6000)}, req: pcpAsk(ann, 5000, 6000, 'a'), external: other, more: true},
		"MAP-6 PREFER_FAILURE, free":    {req: with(pcpAsk(ann, 5000, 6000, 'a'), prefer), external: 6000, more: true},
		"MAP-6 PREFER_FAILURE, held":    {before: []portmap.Request{ask(bob, 6000)}, req: with(pcpAsk(ann, 5000, 6000, 'a'), prefer), err: portmap.ErrCannotProvide},
		"MAP-6 PREFER_FAILURE, own":     {before: []portmap.Request{ask(ann, 6000)}, req: with(pcpAsk(ann, 5000, 6000, 'a'), prefer), err: portmap.ErrCannotProvide},
		"MAP-6 PREFER_FAILURE, router":  {req: with(pcpAsk(ann, 5000, 9999, 'a'), prefer), err: portmap.ErrCannotProvide},
		"MAP-6 PREFER_FAILURE, denied":  {req: with(pcpAsk(ann, 5000, 80, 'a'), prefer), err: portmap.ErrCannotProvide},
		"MAP-6 PREFER_FAILURE for any":  {before: []portmap.Request{ask(bob, 5000)}, req: with(pcpAsk(ann, 5000, 0, 'a'), prefer), external: other, more: true},
		"MAP-7 UDP 5350":                {req: with(pcpAsk(ann, 5000, 5350, 'a'), udp), external: other, more: true},
		"MAP-7 UDP 5351":                {req: with(pmpAsk(ann, 5351, 0), udp), external: other, more: true},
		"MAP-7 UDP 5351 by UPnP":        {req: with(ask(ann, 5351), udp), err: portmap.ErrInUse},
		"MAP-7 TCP 5351":                {req: pcpAsk(ann, 5000, 5351, 'a'), external: 5351, more: true},
		"MAP-7 pinhole UDP 5351":        {req: with(pcpAsk(ann6, 5351, 0, 'a'), udp), external: 5351, more: true},
		"MAP-7 UPnP pinhole UDP 5351":   {req: with(pin(ann6, 5351), udp), external: 5351, more: true},
		"MAP-8 quota of the client":     {before: []portmap.Request{ask(ann, 1), ask(ann, 2), ask(ann, 3)}, rules: []portmap.Rule{anyRule(true, ports(0, 65535), "allow")}, req: pcpAsk(ann, 5000, 0, 'a'), err: portmap.ErrQuota},
		"MAP-8 quota of the table": {before: []portmap.Request{ask(bob, 2001), ask(bob, 2002), ask(bob, 2003), ask(ann, 2004), ask(ann, 2005)},
			req: pmpAsk(ann, 5000, 0), err: portmap.ErrFull},
		"MAP-12 pinhole":              {req: pcpAsk(ann6, 5000, 6000, 'a'), external: 5000, more: true},
		"MAP-12 pinhole, the nonce":   {before: []portmap.Request{pcpAsk(ann6, 5000, 0, 'a')}, req: pcpAsk(ann6, 5000, 6000, 'a'), external: 5000},
		"MAP-12 pinhole, other nonce": {before: []portmap.Request{pcpAsk(ann6, 5000, 0, 'a')}, req: pcpAsk(ann6, 5000, 0, 'b'), external: 5000, err: portmap.ErrNonce},
		"MAP-12 pinhole, by UPnP":     {before: []portmap.Request{pin(ann6, 5000)}, req: pcpAsk(ann6, 5000, 0, 'a'), external: 5000, err: portmap.ErrNonce},
		"MAP-12 pinhole by UPnP from one host": {before: []portmap.Request{with(pin(ann6, 5000), func(r *portmap.Request) { r.RemoteHost = peer6 })},
			req: pcpAsk(ann6, 5000, 0, 'a'), external: 5000, more: true},
		"MAP-12 pinhole, PREFER_FAILURE": {req: with(pcpAsk(ann6, 5000, 6000, 'a'), prefer), err: portmap.ErrCannotProvide},
		"MAP-12 pinhole, denied":         {req: pcpAsk(ann6, 80, 0, 'a'), err: portmap.ErrDenied},

		"7.3 UPnP on PCP's":                   {before: []portmap.Request{pcpAsk(ann, 6000, 6000, 'a')}, req: ask(ann, 6000), err: portmap.ErrConflict},
		"7.3 UPnP on PCP's, other remote":     {before: []portmap.Request{pcpAsk(ann, 6000, 6000, 'a')}, req: with(ask(ann, 6000), fromOne), err: portmap.ErrConflict},
		"7.3 UPnP inside PCP's set":           {before: []portmap.Request{with(pcpAsk(bob, 6000, 6000, 'a'), func(r *portmap.Request) { r.Ports = 3 })}, req: ask(ann, 6002), err: portmap.ErrConflict},
		"7.3 UPnP inside its own PCP set":     {before: []portmap.Request{with(pcpAsk(ann, 6000, 6000, 'a'), func(r *portmap.Request) { r.Ports = 2 })}, req: ask(ann, 6001), err: portmap.ErrConflict},
		"7.3 UPnP on NAT-PMP's":               {before: []portmap.Request{pmpAsk(ann, 6000, 6000)}, req: upnpTo(ann, 6000, 5000), external: 6000},
		"7.3 UPnP on another's NAT-PMP":       {before: []portmap.Request{pmpAsk(bob, 6000, 6000)}, req: ask(ann, 6000), err: portmap.ErrConflict},
		"7.3 pinhole on PCP's":                {before: []portmap.Request{pcpAsk(ann6, 6000, 0, 'a')}, req: pin(ann6, 6000), err: portmap.ErrConflict},
		"7.3 pinhole beside PCP's":            {before: []portmap.Request{pcpAsk(ann6, 6000, 0, 'a')}, req: with(pin(ann6, 6000), func(r *portmap.Request) { r.RemoteHost = peer6 }), external: 6000, more: true},
		"secure: for another":                 {req: with(pcpAsk(ann, 5000, 0, 'a'), byBob), err: portmap.ErrNotAuthorized},
		"secure: another's is not even found": {before: []portmap.Request{pcpAsk(ann, 5000, 0, 'a')}, req: with(pcpAsk(ann, 5000, 0, 'a'), byBob), err: portmap.ErrNotAuthorized},
		"off-link":                            {req: pcpAsk(peer1, 5000, 0, 'a'), err: portmap.ErrNotLANHost},
		"a rule of today":                     {rules: []portmap.Rule{ofTCP(6000), anyRule(true, ports(1, 65535), "allow")}, req: pcpAsk(ann, 5000, 6000, 'a'), external: other, more: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *portmap.Config) {
				c.Policy.Rules, c.Policy.MaxPerClient, c.Policy.MaxMappings = tt.rules, 3, 5
			})
			w.used[9999] = true
			for _, req := range tt.before {
				w.mustPut(req)
			}
			w.clock += time.Minute
			before := w.List()
			m, err := w.put(tt.req)
			w.checkKernel()
			if !errors.Is(err, tt.err) {
				t.Fatalf("%+v, %v, want %v", m, err, tt.err)
			}
			if err != nil {
				if !slices.Equal(w.List(), before) || m.ExternalPort != tt.external || tt.external != 0 && !slices.Contains(before, m) {
					t.Errorf("%v gave %+v, left %v", err, m, w.List())
				}
				return
			}
			if tt.external == other && (m.ExternalPort == tt.req.ExternalPort || m.ExternalPort < 1024) || tt.external != other && m.ExternalPort != tt.external {
				t.Errorf("given port %d, want %d", m.ExternalPort, tt.external)
			}
			if tt.origin == 0 {
				tt.origin = tt.req.Origin
			}
			renewed := m.Deadline == w.clock+time.Hour
			if !slices.Contains(w.List(), m) || m.Origin != tt.origin || renewed != (tt.origin == tt.req.Origin) || m.InternalPort != tt.req.InternalPort {
				t.Errorf("%+v of %+v", m, w.List())
			}
			if more := len(w.List()) - len(before); more != 0 && !tt.more || more != 1 && tt.more {
				t.Errorf("%d mappings more: %v", more, w.List())
			}
		})
	}
}
