package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/ctl"
	"github.com/linux-igd/upnpd/internal/firewall"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
	"github.com/linux-igd/upnpd/internal/ssdp"
	"github.com/linux-igd/upnpd/internal/wan"
)

// somewhere is a public address, for asking the kernel for a route. Nothing is
// sent there.
var somewhere = netip.AddrFrom4([4]byte{1, 0, 0, 1})

// livePeer is who a live check pretends to be: TEST-NET-2 (RFC 5737).
var livePeer = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1}), 9)

const (
	// liveWait bounds the wait for a packet on its way through the kernel.
	liveWait = 200 * time.Millisecond
	livePoll = 5 * time.Millisecond
	// discard is the port of RFC 863: no host does anything with what comes.
	discard = 9
	// searchWait bounds the wait for our own answer to a search, with MX 1.
	searchWait = 2 * time.Second
)

// Facts are what `upnpctl check` judges.
func (v *view) Facts(ctx context.Context, live bool) ctl.Facts {
	f := ctl.Facts{Now: time.Now(), Mappings: len(v.table.List())}
	var state wan.State
	var devices follower
	upnp, ipv6 := false, false
	if !v.ask(func(g *generation) {
		devices, state, upnp, ipv6 = g.devices, g.devices.State(), g.cfg.UPnP, g.cfg.IPv6
		f.Uplink, f.ExtIP, f.Firewall = state.Uplink, g.cfg.ExtIP, g.fwName
	}) {
		return f
	}
	f.Route, f.RouteErr = devices.RouteDevice(somewhere)
	f.NotForwarding = notForwarding(state)
	if ipv6 {
		f.NotForwarding = append(f.NotForwarding, notForwarding6(state)...)
	}
	f.ForwardPath, f.ForwardErr = v.forwardPath()
	for _, lan := range state.LANs {
		f.LANs = append(f.LANs, v.lanFacts(ctx, lan, upnp))
	}
	for _, port := range []uint16{ssdp.Port, 5351} {
		names, err := sock.Users(port)
		if err != nil {
			names = []string{err.Error()}
		}
		if len(names) > 0 {
			f.Strangers = append(f.Strangers, ctl.Stranger{Port: port, Names: names})
		}
	}
	f.Drift, f.DriftErr = v.table.Verify()
	if live {
		passed, err := v.tryPacket(ctx, state, devices)
		f.Live = &ctl.Live{Passed: passed, Err: err}
	}
	return f
}

// forwardPath says whose forward chain drops what we redirect.
func (v *view) forwardPath() (string, error) {
	var fw firewallBackend
	var uplink string
	if !v.ask(func(g *generation) { fw, uplink = g.fw, g.cfg.ExtIf }) {
		return "", context.Canceled
	}
	warning, err := fw.ForwardPath()
	if _, ours := fw.(*firewall.NFTables); !ours {
		return warning, err
	}
	legacy, legacyErr := firewall.LegacyForwardPath(v.ctx, uplink)
	if warning != "" && legacy != "" {
		warning += "; "
	}
	return warning + legacy, errors.Join(err, legacyErr)
}

// notForwarding lists the sysctls that keep packets from being forwarded.
func notForwarding(s wan.State) (off []string) {
	names := []string{"net.ipv4.ip_forward"}
	for _, dev := range devices(s) { // a dot in the name of a device is / for sysctl
		names = append(names, "net.ipv4.conf."+strings.ReplaceAll(dev, ".", "/")+".forwarding")
	}
	for i, name := range names {
		if readSysctl(name) == "0" {
			off = append(off, name)
			if i == 0 {
				break // the others follow
			}
		}
	}
	return off
}

// notForwarding6 is the same for IPv6, where there is a LAN to forward to.
func notForwarding6(s wan.State) []string {
	const name = "net.ipv6.conf.all.forwarding" // that of a device changes nothing
	for _, lan := range s.LANs {
		if lan.Global6().IsValid() && readSysctl(name) == "0" {
			return []string{name}
		}
	}
	return nil
}

// devices lists the names of the uplink and the LANs.
func devices(s wan.State) []string {
	names := []string{s.Uplink.Name}
	for _, lan := range s.LANs {
		names = append(names, lan.Name)
	}
	return names
}

// readSysctl gives a kernel parameter as sysctl(8) names it, "" when there is
// none.
func readSysctl(name string) string {
	path := strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
	text, err := os.ReadFile("/proc/sys/" + path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// lanFacts looks whether a LAN can find us, if it shall.
func (v *view) lanFacts(ctx context.Context, lan wan.LAN, upnp bool) ctl.LANFacts {
	f := ctl.LANFacts{Name: lan.Name, Addr: lan.Addr(), Up: lan.Up, Off: !upnp}
	if !lan.Up || !f.Addr.IsValid() || f.Off {
		return f
	}
	group := ssdp.Group4()
	if f.Joined, f.Err = sock.Joined(lan.Name, group); f.Err != nil {
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, searchWait)
	defer cancel()
	to := netip.AddrPortFrom(group, v.sys.ssdpPort)
	search := fmt.Sprintf("M-SEARCH * HTTP/1.1\r\nHOST: %v\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: upnp:rootdevice\r\n\r\n", to)
	reply, err := sock.SelfSearch(ctx, lan.Name, f.Addr, to, []byte(search))
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		f.Err = err
	}
	f.Answered = strings.HasPrefix(string(reply), "HTTP/1.1 200")
	return f
}

// tryPacket maps a port for a moment, puts a packet into the kernel as if it had
// come from the internet, and looks whether it got as far as out to the LAN: only
// then its connection is tracked.
func (v *view) tryPacket(ctx context.Context, s wan.State, devices follower) (passed bool, err error) {
	client, err := someClient(s)
	if err != nil {
		return false, err
	}
	route, err := devices.RouteDevice(livePeer.Addr())
	if err != nil {
		return false, err
	}
	if hindrance := sock.InjectHindrance(route != ""); hindrance != "" {
		return false, errors.New(hindrance)
	}
	for port := uint16(65535); port >= 65000; port-- {
		to := netip.AddrPortFrom(s.Uplink.Addr, port)
		m := portmap.Mapping{
			Key:    portmap.Key{Protocol: portmap.UDP, ExternalPort: port},
			Client: client, InternalPort: discard, Enabled: true,
		}
		var sendErr error
		err = v.table.Try(m, func() {
			if sendErr = sock.InjectUDP(livePeer, to); sendErr == nil {
				passed, sendErr = tracked(ctx, livePeer, to, netip.AddrPortFrom(client, discard))
			}
		})
		if !errors.Is(err, portmap.ErrConflict) && !errors.Is(err, portmap.ErrInUse) {
			return passed, errors.Join(err, sendErr)
		}
	}
	return false, err
}

// someClient is a host that may get one packet: it need not exist.
func someClient(s wan.State) (netip.Addr, error) {
	if !s.Uplink.Connected() {
		return netip.Addr{}, errors.New("the uplink has no address")
	}
	for _, lan := range s.LANs {
		for _, p := range lan.Prefixes {
			for a := p.Masked().Addr().Next(); p.Contains(a); a = a.Next() {
				if lan.Up && (portmap.Network{LANs: lan.Prefixes}).OnLink(a) {
					return a, nil
				}
			}
		}
	}
	return netip.Addr{}, errors.New("no LAN is up with an address")
}

// tracked waits until the kernel tracks the connection to the client.
func tracked(ctx context.Context, src, dst, client netip.AddrPort) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, liveWait)
	defer cancel()
	for {
		found, err := firewall.Tracked(portmap.UDP, src, dst, client)
		if found || err != nil {
			return found, err
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(livePoll):
		}
	}
}
