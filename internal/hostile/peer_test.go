package hostile

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

const (
	igd1   = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
	igd2   = "urn:schemas-upnp-org:device:InternetGatewayDevice:2"
	wanip1 = "urn:schemas-upnp-org:service:WANIPConnection:1"
	wanip2 = "urn:schemas-upnp-org:service:WANIPConnection:2"
	wan6fw = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"
)

// peer is a host of the LAN with one of its addresses, which sends whatever it likes.
type peer struct {
	t      testing.TB
	host   *lab.Host
	addr   netip.Addr
	router string // its address that this one asks
	urls   map[string]service

	secrets []string // what version 2 must not tell it
}

type service struct {
	Type    string `xml:"serviceType"`
	Control string `xml:"controlURL"`
	Event   string `xml:"eventSubURL"`
}

// peer makes one that asks at the router's address of the same kind.
func (h *house) peer(host *lab.Host, addr string) *peer {
	a := netip.MustParseAddr(addr)
	p := &peer{t: h.t, host: host, addr: a, router: lab.RouterLANAddr}
	switch {
	case addr == guestHost:
		p.router = guestAddr
	case strings.HasPrefix(addr, "fd"):
		p.router = lab.RouterULA
	case a.Is6():
		p.router = lab.RouterLANAddr6
	}
	return p
}

// find reads both descriptions.
func (p *peer) find() *peer {
	p.t.Helper()
	p.urls = map[string]service{}
	for _, st := range []string{igd1, igd2} {
		_, doc := p.ask("GET "+p.path(p.location(st)), "")
		d := xml.NewDecoder(strings.NewReader(doc))
		for {
			token, err := d.Token()
			if err != nil {
				break
			}
			if e, ok := token.(xml.StartElement); ok && e.Name.Local == "service" {
				var s service
				if err := d.DecodeElement(&s, &e); err != nil {
					p.t.Fatal(err)
				}
				p.urls[s.Type] = s
			}
		}
	}
	if p.urls[wanip1].Control == "" || p.urls[wanip2].Control == "" || p.urls[wan6fw].Control == "" {
		p.t.Fatalf("%v finds %v", p.addr, p.urls)
	}
	return p
}

var locationField = regexp.MustCompile(`(?im)^LOCATION: *(http://\S+)`)

// location searches by unicast.
func (p *peer) location(st string) string {
	p.t.Helper()
	c, err := p.host.ListenUDP(net.JoinHostPort(p.addr.String(), "0"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	to := netip.AddrPortFrom(netip.MustParseAddr(p.router), 1900)
	fmt.Fprint(writer{c, to}, "M-SEARCH * HTTP/1.1\r\nHOST: "+to.String()+"\r\nMAN: \"ssdp:discover\"\r\nST: "+st+"\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 1500)
	n, err := c.Read(b)
	if err != nil {
		p.t.Fatalf("%v searches for %s: %v", p.addr, st, err)
	}
	found := locationField.FindSubmatch(b[:n])
	if found == nil {
		p.t.Fatalf("no LOCATION in %s", b[:n])
	}
	return string(found[1])
}

// writer sends to one place.
type writer struct {
	c  *net.UDPConn
	to netip.AddrPort
}

func (w writer) Write(b []byte) (int, error) { return w.c.WriteToUDPAddrPort(b, w.to) }

// path is what follows the host in a URL.
func (p *peer) path(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[i:]
	}
	return url
}

// authority is the router as Host has it.
func (p *peer) authority() string { return net.JoinHostPort(p.router, strconv.Itoa(port)) }

// ask sends a request with a right Host and Content-Length; start is method and
// target, and lines of the header after it.
func (p *peer) ask(start, body string) (status int, reply string) {
	p.t.Helper()
	line, header, _ := strings.Cut(start, "\r\n")
	if header != "" {
		header += "\r\n"
	}
	return p.raw(fmt.Sprintf("%s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s", line, p.authority(), header, len(body), body))
}

// raw sends bytes, and gives the status and the body of the answer; 0 when the
// connection just ends.
func (p *peer) raw(request string) (status int, body string) {
	p.t.Helper()
	var c net.Conn
	err := p.host.Do(func() (err error) {
		c, err = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: p.addr.AsSlice()}, Timeout: patience}).Dial("tcp", p.authority())
		return err
	})
	if err != nil {
		p.t.Fatalf("%v: %v", p.addr, err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * patience))
	go io.WriteString(c, request) // it may be refused before its end
	reply, err := io.ReadAll(c)
	if len(reply) == 0 && err != nil && strings.Contains(err.Error(), "timeout") {
		p.t.Fatalf("%v: no answer to %.100q: %v", p.addr, request, err)
	}
	head, body, _ := strings.Cut(string(reply), "\r\n\r\n")
	if f := strings.Fields(head); len(f) > 1 {
		status, _ = strconv.Atoi(f[1])
	}
	return status, body
}

// envelope is the body of an action.
func envelope(typ, action, inner string) string {
	return `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">` +
		`<s:Body><u:` + action + ` xmlns:u="` + typ + `">` + inner + `</u:` + action + `></s:Body></s:Envelope>`
}

// post sends an action's body.
func (p *peer) post(typ, action, body string) (status int, reply string) {
	p.t.Helper()
	return p.ask("POST "+p.path(p.urls[typ].Control)+"\r\nContent-Type: text/xml\r\nSOAPAction: \""+typ+"#"+action+"\"", body)
}

// call runs an action with name, value pairs; names of WANIPConnection are without
// their "New". It gives the out arguments, or the UPnP error.
func (p *peer) call(typ, action string, args ...string) (out map[string]string, code int) {
	p.t.Helper()
	var inner bytes.Buffer
	for i := 0; i+1 < len(args); i += 2 {
		name := args[i]
		if typ != wan6fw || name == "LeaseTimeNew" {
			name = "New" + strings.TrimSuffix(name, "New")
		}
		fmt.Fprintf(&inner, "<%s>", name)
		xml.EscapeText(&inner, []byte(args[i+1]))
		fmt.Fprintf(&inner, "</%s>", name)
	}
	status, reply := p.post(typ, action, envelope(typ, action, inner.String()))
	for _, secret := range p.secrets {
		if typ != wanip1 && strings.Contains(reply, secret) && !strings.Contains(inner.String(), secret) { // ACC-2
			p.t.Errorf("%v: %s%q tells of %s:\n%s", p.addr, action, args, secret, reply)
		}
	}
	out = leaves(reply)
	if status == 200 {
		return out, 0
	}
	code, err := strconv.Atoi(out["errorCode"])
	if err != nil {
		p.t.Fatalf("%v: %s: status %d\n%s", p.addr, action, status, reply)
	}
	return nil, code
}

// leaves gives the text of all elements that hold only text.
func leaves(doc string) map[string]string {
	all := map[string]string{}
	d := xml.NewDecoder(strings.NewReader(doc))
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

// wish is what AddPortMapping and AddAnyPortMapping ask for.
type wish struct {
	remote   string
	external int
	proto    string // TCP if ""
	internal int    // 8080 if 0
	client   string
	disabled bool
	desc     string
	lease    int
}

// add asks for a mapping, for the peer itself unless the wish names a client. It
// gives the port that was reserved and the error.
func (p *peer) add(typ, action string, w wish) (reserved, code int) {
	p.t.Helper()
	if w.proto == "" {
		w.proto = "TCP"
	}
	if w.internal == 0 {
		w.internal = 8080
	}
	if w.client == "" {
		w.client = p.addr.String()
	}
	enabled := "1"
	if w.disabled {
		enabled = "0"
	}
	out, code := p.call(typ, action, "RemoteHost", w.remote, "ExternalPort", strconv.Itoa(w.external), "Protocol", w.proto,
		"InternalPort", strconv.Itoa(w.internal), "InternalClient", w.client, "Enabled", enabled,
		"PortMappingDescription", w.desc, "LeaseDuration", strconv.Itoa(w.lease))
	reserved, _ = strconv.Atoi(out["NewReservedPort"])
	return reserved, code
}

func (p *peer) remove(typ, proto string, external int, remote string) (code int) {
	p.t.Helper()
	_, code = p.call(typ, "DeletePortMapping", "RemoteHost", remote, "ExternalPort", strconv.Itoa(external), "Protocol", proto)
	return code
}

// pin asks for a pinhole.
func (p *peer) pin(client string, internal int, proto byte, lease int) (id string, code int) {
	p.t.Helper()
	out, code := p.call(wan6fw, "AddPinhole", "RemoteHost", "", "RemotePort", "0", "InternalClient", client,
		"InternalPort", strconv.Itoa(internal), "Protocol", strconv.Itoa(int(proto)), "LeaseTime", strconv.Itoa(lease))
	return out["UniqueID"], code
}
