package clients

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// pinPoint is a control point on a host that asks from one of its addresses.
type pinPoint struct {
	t        *testing.T
	h        *lab.Host
	from     netip.Addr
	zone     int // index of the host's device
	web      *http.Client
	location string
	services map[string]string // control URLs by type
}

const (
	pinService  = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"
	pinConnect2 = "urn:schemas-upnp-org:service:WANIPConnection:2"
)

var pinLocation = regexp.MustCompile(`(?im)^LOCATION: *(http://\S+)`)

// point is a control point of the host that found the version 2 face from the
// address.
func (w *pinRouter) point(h *lab.Host, from string) *pinPoint {
	w.t.Helper()
	p := w.unpointed(h, from)
	answer := p.search(pinService, w.routerFor(p.from), pinPatience)
	found := pinLocation.FindStringSubmatch(answer)
	if found == nil {
		w.t.Fatalf("%s, from %s: no LOCATION in the answer %q", h.Name, from, answer)
	}
	p.read(found[1])
	if p.services[pinService] == "" {
		w.t.Fatalf("%s has the services %v", found[1], p.services)
	}
	return p
}

// unpointed is point without a search.
func (w *pinRouter) unpointed(h *lab.Host, from string) *pinPoint {
	w.t.Helper()
	p := &pinPoint{t: w.t, h: h, from: netip.MustParseAddr(from)}
	if err := h.Do(func() error {
		dev, err := net.InterfaceByName(lab.HostDev)
		if err == nil {
			p.zone = dev.Index
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	p.web = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(_ context.Context, _, addr string) (net.Conn, error) { return p.dial("tcp", addr) },
	}}
	return p
}

// dial connects from the control point's address.
func (p *pinPoint) dial(network, addr string) (c net.Conn, err error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	zone := p.scope(to.Addr())
	err = p.h.Do(func() error {
		var err error
		if network == "udp" {
			c, err = net.DialUDP("udp", &net.UDPAddr{IP: p.from.AsSlice(), Zone: zone}, &net.UDPAddr{IP: to.Addr().AsSlice(), Port: int(to.Port()), Zone: zone})
			return err
		}
		d := net.Dialer{Timeout: pinPatience, LocalAddr: &net.TCPAddr{IP: p.from.AsSlice(), Zone: zone}}
		c, err = d.Dial("tcp", netip.AddrPortFrom(to.Addr().WithZone(zone), to.Port()).String())
		return err
	})
	return c, err
}

// scope is the zone that an address needs, in figures: Go keeps names of devices for a
// minute, whatever the host.
func (p *pinPoint) scope(a netip.Addr) string {
	if a.IsLinkLocalUnicast() || a.IsMulticast() {
		return strconv.Itoa(p.zone)
	}
	return ""
}

// routerFor is the router's address for what comes from one of a host's.
func (w *pinRouter) routerFor(from netip.Addr) string {
	switch {
	case from.Is4():
		return lab.RouterLANAddr
	case from.IsLinkLocalUnicast():
		return pinLinkLocal(w.t, w.Router, lab.LANDev)
	}
	return lab.RouterLANAddr6
}

// pinLinkLocal is the link-local address of a host's device.
func pinLinkLocal(t *testing.T, h *lab.Host, dev string) string {
	t.Helper()
	found := regexp.MustCompile(`inet6 (fe80:[0-9a-f:]+)/`).FindStringSubmatch(h.Run(t, "ip", "-6", "addr", "show", "dev", dev))
	if found == nil {
		t.Fatalf("%s has no link-local address on %s", h.Name, dev)
	}
	return found[1]
}

// search gives the answer to a unicast search (SPEC SSDP-42), "" for none.
func (p *pinPoint) search(target, router string, timeout time.Duration) string {
	p.t.Helper()
	c, err := p.dial("udp", net.JoinHostPort(router, "1900"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "M-SEARCH * HTTP/1.1\r\nHOST: %s\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: %s\r\n\r\n", c.RemoteAddr(), target)
	c.SetReadDeadline(time.Now().Add(timeout))
	answer := make([]byte, 1500)
	n, _ := c.Read(answer)
	return string(answer[:n])
}

// read fetches the description and keeps the services of it.
func (p *pinPoint) read(location string) {
	p.t.Helper()
	r, err := p.web.Get(location)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	base, _ := url.Parse(location)
	p.location, p.services = location, map[string]string{}
	for d := xml.NewDecoder(r.Body); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			p.t.Fatalf("description %s: %v", location, err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "service" {
			var s struct {
				Type string `xml:"serviceType"`
				URL  string `xml:"controlURL"`
			}
			if err := d.DecodeElement(&s, &start); err != nil {
				p.t.Fatal(err)
			}
			at, err := base.Parse(s.URL)
			if err != nil {
				p.t.Fatal(err)
			}
			p.services[s.Type] = at.String()
		}
	}
}

var pinResult = regexp.MustCompile(`<(UniqueID|PinholePackets|IsWorking|errorCode)>([^<]*)</`)

// call runs an action of WANIPv6FirewallControl with name, value pairs. It gives the
// one out argument, or the UPnP error code.
func (p *pinPoint) call(action string, args ...string) (out string, code int) {
	p.t.Helper()
	var in strings.Builder
	for i := 0; i+1 < len(args); i += 2 {
		fmt.Fprintf(&in, "<%[1]s>%[2]s</%[1]s>", args[i], args[i+1])
	}
	body := fmt.Sprintf(`<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:%[1]s xmlns:u="%[2]s">%[3]s</u:%[1]s></s:Body></s:Envelope>`,
		action, pinService, in.String())
	req, err := http.NewRequest("POST", p.services[pinService], strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", `text/xml; charset="utf-8"`)
	req.Header.Set("SOAPAction", fmt.Sprintf("%q", pinService+"#"+action))
	r, err := p.web.Do(req)
	if err != nil {
		p.t.Fatalf("%s: %v", action, err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Fatalf("%s: %v", action, err)
	}
	found := pinResult.FindSubmatch(text)
	switch {
	case r.StatusCode == 200 && found != nil:
		return string(found[2]), 0
	case r.StatusCode == 200:
		return "", 0
	case r.StatusCode == 500 && found != nil && string(found[1]) == "errorCode":
		code, _ = strconv.Atoi(string(found[2]))
		return "", code
	}
	p.t.Fatalf("%s: %s\n%s", action, r.Status, text)
	return "", 0
}

// add opens a pinhole to port pinPort of lan1's global address.
func (p *pinPoint) add(remote string, remotePort int, proto string, lease int) (id string) {
	p.t.Helper()
	id, code := p.try(remote, remotePort, lab.LAN1Addr6, pinPort, proto, lease)
	if code != 0 {
		p.t.Fatalf("AddPinhole %s from %q port %d: error %d", proto, remote, remotePort, code)
	}
	return id
}

// try is AddPinhole; it may be refused.
func (p *pinPoint) try(remote string, remotePort int, client string, port int, proto string, lease int) (id string, code int) {
	p.t.Helper()
	return p.call("AddPinhole", "RemoteHost", remote, "RemotePort", strconv.Itoa(remotePort), "InternalClient", client,
		"InternalPort", strconv.Itoa(port), "Protocol", map[string]string{"TCP": "6", "UDP": "17"}[proto], "LeaseTime", strconv.Itoa(lease))
}

// update is UpdatePinhole, and gives the error code.
func (p *pinPoint) update(id string, lease int) int {
	p.t.Helper()
	_, code := p.call("UpdatePinhole", "UniqueID", id, "NewLeaseTime", strconv.Itoa(lease))
	return code
}

// want checks what the action answers for a pinhole: an out argument or an error
// code.
func (p *pinPoint) want(action, id, out string, code int) {
	p.t.Helper()
	if got, gotCode := p.call(action, "UniqueID", id); got != out || gotCode != code {
		p.t.Errorf("%s of %s, from %v: %q, error %d, want %q, error %d", action, id, p.from, got, gotCode, out, code)
	}
}

// packets is GetPinholePackets.
func (p *pinPoint) packets(id string) int {
	p.t.Helper()
	out, code := p.call("GetPinholePackets", "UniqueID", id)
	n, err := strconv.Atoi(out)
	if err != nil || code != 0 {
		p.t.Fatalf("GetPinholePackets of %s: %q, error %d", id, out, code)
	}
	return n
}
