package clients

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// patience bounds every wait for something that must happen.
const patience = 10 * time.Second

// house is a lab whose router runs the daemon with nftables and IPv6.
type house struct {
	*lab.Lab
	t      *testing.T
	daemon *lab.Daemon
	config string // path of the configuration file
}

// enter raises a house; options are lines of upnpd.conf.
func enter(t *testing.T, options ...string) *house {
	t.Helper()
	h := &house{Lab: lab.Start(t), t: t, config: filepath.Join(t.TempDir(), "upnpd.conf")}
	if err := errors.Join(h.Masquerade(lab.Nftables), h.IPv6(lab.Nftables)); err != nil {
		t.Fatal(err)
	}
	h.configure(options...)
	return h
}

// begin starts the daemon.
func (h *house) begin() *house {
	h.t.Helper()
	h.daemon = h.Router.StartDaemon(h.t, lab.Build(h.t), "--config", h.config, lab.WANDev, lab.LANDev)
	return h
}

func (h *house) configure(options ...string) {
	h.t.Helper()
	text := strings.Join(append(options, "firewall = nftables", ""), "\n")
	if err := os.WriteFile(h.config, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// reload sends SIGHUP after the configuration has changed, and waits for what the log
// says then, n times in all.
func (h *house) reload(line string, n int, options ...string) {
	h.t.Helper()
	h.configure(options...)
	if err := h.daemon.Signal(syscall.SIGHUP); err != nil {
		h.t.Fatal(err)
	}
	until(h.t, line, func() bool { return strings.Count(h.daemon.Log(), line) >= n })
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// zone names the device of a host whose link-local address is used.
func zone(t testing.TB, h *lab.Host, dev string) string {
	t.Helper()
	var index int
	err := h.Do(func() error {
		d, err := net.InterfaceByName(dev)
		if err == nil {
			index = d.Index
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(index) // Go remembers names of devices, those of other hosts, too
}

// linkLocal gives the link-local address of a host's device.
func linkLocal(t testing.TB, h *lab.Host, dev string) netip.Addr {
	t.Helper()
	for _, word := range strings.Fields(h.Run(t, "ip", "-6", "-o", "addr", "show", "dev", dev, "scope", "link")) {
		if p, err := netip.ParsePrefix(word); err == nil {
			return p.Addr()
		}
	}
	t.Fatalf("no link-local address on %s", h.Name)
	return netip.Addr{}
}

// person is a LAN host as a control point by HTTP, from one address.
type person struct {
	t    testing.TB
	host *lab.Host
	addr netip.Addr
	web  *http.Client
}

// person makes a control point that comes from addr.
func (h *house) person(host *lab.Host, addr string) *person {
	h.t.Helper()
	p := &person{t: h.t, host: host, addr: netip.MustParseAddr(addr)}
	from := &net.TCPAddr{IP: p.addr.AsSlice()}
	if p.addr.IsLinkLocalUnicast() {
		from.Zone = zone(h.t, host, lab.HostDev)
	}
	p.web = &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, _, addr string) (c net.Conn, err error) {
			if to := netip.MustParseAddrPort(addr); to.Addr().IsLinkLocalUnicast() {
				addr = netip.AddrPortFrom(to.Addr().WithZone(from.Zone), to.Port()).String()
			}
			err = host.Do(func() error {
				c, err = (&net.Dialer{LocalAddr: from, Timeout: patience}).Dial("tcp", addr)
				return err
			})
			return c, err
		},
	}}
	return p
}

// do sends a request and gives the answer with its body.
func (p *person) do(method, url string, header http.Header, body string) (*http.Response, string) {
	p.t.Helper()
	r, text, err := p.try(method, url, header, body)
	if err != nil {
		p.t.Fatal(err)
	}
	return r, text
}

func (p *person) try(method, url string, header http.Header, body string) (*http.Response, string, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	req.Header = header
	r, err := p.web.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return r, string(text), err
}

// gateway is one face of the router as its description tells it.
type gateway struct {
	location string
	doc      string
	uuids    []string // root, WANDevice, WANConnectionDevice
	services []service
}

type service struct {
	Type    string `xml:"serviceType"`
	ID      string `xml:"serviceId"`
	SCPD    string `xml:"SCPDURL"`
	Control string `xml:"controlURL"`
	Event   string `xml:"eventSubURL"`
}

type device struct {
	Type     string    `xml:"deviceType"`
	UDN      string    `xml:"UDN"`
	Services []service `xml:"serviceList>service"`
	Devices  []device  `xml:"deviceList>device"`
}

// read fetches a description; all URLs become absolute.
func (p *person) read(location string) *gateway {
	p.t.Helper()
	r, doc := p.do("GET", location, http.Header{"User-Agent": {"Microsoft-Windows/10.0 UPnP/1.0"}}, "")
	var root struct {
		Device device `xml:"device"`
	}
	if err := xml.Unmarshal([]byte(doc), &root); err != nil || r.StatusCode != 200 {
		p.t.Fatalf("description at %s: %s, %v", location, r.Status, err)
	}
	base, err := url.Parse(location)
	if err != nil {
		p.t.Fatal(err)
	}
	g := &gateway{location: location, doc: doc}
	for d := &root.Device; d != nil; {
		g.uuids = append(g.uuids, d.UDN)
		for _, s := range d.Services {
			for _, ref := range []*string{&s.SCPD, &s.Control, &s.Event} {
				*ref = base.ResolveReference(&url.URL{Path: *ref}).String()
			}
			g.services = append(g.services, s)
		}
		if len(d.Devices) == 0 {
			break
		}
		d = &d.Devices[0]
	}
	if len(g.uuids) != 3 || len(g.services) < 3 {
		p.t.Fatalf("description at %s has devices %q and services %v", location, g.uuids, g.services)
	}
	return g
}

// service gives the one whose type has the word.
func (g *gateway) service(word string) service {
	for _, s := range g.services {
		if strings.Contains(s.Type, word) {
			return s
		}
	}
	return service{}
}

// locate searches by unicast and gives the LOCATION of the answer.
func (p *person) locate(st string) string {
	p.t.Helper()
	c, err := p.host.Dial("udp4", lab.RouterLANAddr+":1900", patience)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "M-SEARCH * HTTP/1.1\r\nHOST: %s:1900\r\nMAN: \"ssdp:discover\"\r\nST: %s\r\n\r\n", lab.RouterLANAddr, st)
	c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 1500)
	n, err := c.Read(b)
	if err != nil {
		p.t.Fatalf("no answer to a search for %s: %v", st, err)
	}
	return parseDatagram(p.t, b[:n]).header.Get("LOCATION")
}

const (
	igd1 = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
	igd2 = "urn:schemas-upnp-org:device:InternetGatewayDevice:2"
)

// call runs an action with name, value pairs, without their "New". It gives
// the out arguments or the UPnP error.
func (p *person) call(s service, action string, args ...string) (map[string]string, int) {
	p.t.Helper()
	out, code, err := p.tryCall(s, action, args...)
	if err != nil {
		p.t.Fatalf("%s: %v", action, err)
	}
	return out, code
}

func (p *person) tryCall(s service, action string, args ...string) (map[string]string, int, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:%s xmlns:u="%s">`, action, s.Type)
	for i := 0; i+1 < len(args); i += 2 {
		fmt.Fprintf(&b, "<New%[1]s>%[2]s</New%[1]s>", args[i], args[i+1])
	}
	fmt.Fprintf(&b, "</u:%s></s:Body></s:Envelope>", action)
	r, text, err := p.try("POST", s.Control, http.Header{
		"Content-Type": {`text/xml; charset="utf-8"`}, "SOAPAction": {strconv.Quote(s.Type + "#" + action)},
	}, b.String())
	if err != nil {
		return nil, 0, err
	}
	out := leaves([]byte(text))
	switch code, err := strconv.Atoi(out["errorCode"]); {
	case r.StatusCode == 200:
		return out, 0, nil
	case r.StatusCode == 500 && err == nil:
		return nil, code, nil
	}
	return nil, 0, errors.New(r.Status)
}

// add maps an external port to port 8080 of the caller.
func (p *person) add(s service, external, lease int) int {
	p.t.Helper()
	_, code, err := p.tryAdd(s, external, lease)
	if err != nil {
		p.t.Fatalf("AddPortMapping: %v", err)
	}
	return code
}

func (p *person) tryAdd(s service, external, lease int) (map[string]string, int, error) {
	return p.tryCall(s, "AddPortMapping", "RemoteHost", "", "ExternalPort", strconv.Itoa(external), "Protocol", "TCP",
		"InternalPort", "8080", "InternalClient", p.addr.String(), "Enabled", "1", "PortMappingDescription", "a house", "LeaseDuration", strconv.Itoa(lease))
}

func (p *person) remove(s service, external int) int {
	p.t.Helper()
	_, code := p.call(s, "DeletePortMapping", "RemoteHost", "", "ExternalPort", strconv.Itoa(external), "Protocol", "TCP")
	return code
}

// leaves gives the text of all elements that hold only text.
func leaves(doc []byte) map[string]string {
	all := map[string]string{}
	d := xml.NewDecoder(bytes.NewReader(doc))
	for text := ""; ; {
		token, err := d.Token()
		if err != nil {
			return all
		}
		switch x := token.(type) {
		case xml.StartElement:
			text = ""
		case xml.CharData:
			text += string(x)
		case xml.EndElement:
			all[x.Name.Local], text = text, ""
		}
	}
}

// datagram is a message of SSDP.
type datagram struct {
	start  string // NOTIFY, HTTP/1.1 ...
	header http.Header
	from   netip.AddrPort
}

func parseDatagram(t testing.TB, b []byte) datagram {
	t.Helper()
	start, rest, _ := strings.Cut(string(b), "\r\n")
	header := http.Header{}
	for _, line := range strings.Split(rest, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			header.Add(name, strings.TrimSpace(value))
		}
	}
	return datagram{start: start, header: header}
}
