package soak

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// call runs an action of a face with name, value pairs. It gives the out arguments
// and the UPnP error code; -1 without any answer, which is a fault.
func (c *client) call(face, action string, args ...string) (map[string]string, int) {
	s := c.w.faces[face]
	var b bytes.Buffer
	fmt.Fprintf(&b, `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:%s xmlns:u="%s">`, action, s.kind)
	for i := 0; i+1 < len(args); i += 2 {
		fmt.Fprintf(&b, "<%s>", args[i])
		xml.EscapeText(&b, []byte(args[i+1]))
		fmt.Fprintf(&b, "</%s>", args[i])
	}
	fmt.Fprintf(&b, "</u:%s></s:Body></s:Envelope>", action)
	r, text, err := c.http("POST", s.control, &b, "Content-Type", `text/xml; charset="utf-8"`, "SOAPAction", strconv.Quote(s.kind+"#"+action))
	if err != nil {
		c.w.fault("%v: %s: %v", c.addr, action, err)
		return nil, -1
	}
	out := leaves(text)
	if r.StatusCode == 200 {
		return out, 0
	}
	code, err := strconv.Atoi(out["errorCode"])
	if err != nil {
		c.w.fault("%v: %s: %s\n%s", c.addr, action, r.Status, text)
		return nil, -1
	}
	return nil, code
}

// http makes a request to a path of the router with header fields.
func (c *client) http(method, path string, body io.Reader, fields ...string) (*http.Response, []byte, error) {
	req, err := http.NewRequest(method, "http://"+router(c)+path, body)
	if err != nil {
		return nil, nil, err
	}
	for i := 0; i+1 < len(fields); i += 2 {
		req.Header[fields[i]] = []string{fields[i+1]}
	}
	r, err := c.web.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return r, text, err
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

func actions4() []action {
	return append([]action{
		{16, "UPnP", "AddPortMapping", (*client).add},
		{4, "UPnP", "AddPortMapping again", (*client).renew},
		{6, "UPnP", "AddAnyPortMapping", (*client).addAny},
		{8, "UPnP", "DeletePortMapping", (*client).remove},
		{2, "UPnP", "DeletePortMappingRange", (*client).removeRange},
		{2, "UPnP", "a bad AddPortMapping", (*client).addBadly},
		{8, "NAT-PMP", "NAT-PMP map", (*client).pmpMap},
		{3, "NAT-PMP", "NAT-PMP delete", (*client).pmpDelete},
		{1, "NAT-PMP", "NAT-PMP delete all", (*client).pmpDeleteAll},
	}, actions()...)
}

func actions6() []action {
	return append([]action{
		{12, "UPnP", "AddPinhole", (*client).pin},
		{5, "UPnP", "UpdatePinhole", (*client).updatePin},
		{5, "UPnP", "DeletePinhole", (*client).unpin},
		{2, "UPnP", "a bad AddPinhole", (*client).pinBadly},
	}, actions()...)
}

// actions are those of both families.
func actions() []action {
	return []action{
		{10, "PCP", "MAP", (*client).pcpMap},
		{3, "PCP", "MAP again", (*client).pcpRenew},
		{4, "PCP", "MAP delete", (*client).pcpDelete},
		{4, "PCP", "PEER", (*client).pcpPeer},
		{3, "PCP", "a bad request of PCP", (*client).pcpBadly},
		{1, "GENA", "SUBSCRIBE", (*client).subscribe},
		{1, "GENA", "UNSUBSCRIBE", (*client).unsubscribe},
		{2, "SSDP", "M-SEARCH", (*client).seek},
		{2, "garbage", "garbage by UDP", (*client).garbageUDP},
		{2, "garbage", "garbage by TCP", (*client).garbageTCP},
	}
}

// mapping makes up a mapping by UPnP, and its arguments.
func (c *client) mapping(external uint16) (l lease, seconds uint32, args []string) {
	l = lease{key: key{c.proto(), external, pick(c.rng, "", "", "", lab.InternetAddr, "11.0.0.9"), 0, c.addr.String()},
		internal: inside + uint16(c.rng.IntN(upnpPorts)), ports: 1, by: "UPnP", enabled: c.rng.IntN(5) > 0, text: c.text()}
	seconds = uint32(c.wish())
	wished := itoa(seconds)
	if seconds == 604800 {
		wished = pick(c.rng, "0", "604800", "4000000000")
	}
	enabled := "0"
	if l.enabled {
		enabled = "1"
	}
	return l, seconds, []string{"NewRemoteHost", l.remote, "NewExternalPort", itoa(l.external), "NewProtocol", l.proto, "NewInternalPort", itoa(l.internal),
		"NewInternalClient", l.client, "NewEnabled", enabled, "NewPortMappingDescription", l.text, "NewLeaseDuration", wished}
}

func (c *client) add() (string, bool) {
	l, seconds, args := c.mapping(c.outside())
	asked := time.Now()
	_, code := c.call(pick(c.rng, old, young), "AddPortMapping", args...)
	return c.granted(l, asked, seconds, code)
}

// actionFailed is the error of a kernel that refused, as it may while rules are flushed.
const actionFailed = 501

// renew asks once more for what it has, which must be granted.
func (c *client) renew() (string, bool) {
	port := c.outside()
	l, ok := c.own(func(l lease) bool { return l.by == "UPnP" && l.external >= port && !denied(l) })
	if !ok {
		return "not asked", false
	}
	enabled, seconds, asked := "0", uint32(c.wish()), time.Now()
	if l.enabled {
		enabled = "1"
	}
	_, code := c.call(pick(c.rng, old, young), "AddPortMapping", "NewRemoteHost", l.remote, "NewExternalPort", itoa(l.external), "NewProtocol", l.proto,
		"NewInternalPort", itoa(l.internal), "NewInternalClient", l.client, "NewEnabled", enabled, "NewPortMappingDescription", l.text, "NewLeaseDuration", itoa(seconds))
	if code != 0 && code != actionFailed {
		c.w.fault("%v: error %d for the renewal of %v", c.addr, code, l)
	}
	return c.granted(l, asked, seconds, code)
}

// granted books a lease if the error code is 0.
func (c *client) granted(l lease, asked time.Time, seconds uint32, code int) (string, bool) {
	l.first, l.last = until(asked, seconds)
	if code == 0 {
		c.put(l)
	}
	return fmt.Sprintf("error %d: %v", code, l), code == 0
}

func (c *client) addAny() (string, bool) {
	l, seconds, args := c.mapping(pick(c.rng, 0, c.outside()))
	asked := time.Now()
	out, code := c.call(young, "AddAnyPortMapping", args...)
	port, _ := strconv.ParseUint(out["NewReservedPort"], 10, 16)
	if l.external = uint16(port); code == 0 && port == 0 {
		c.w.fault("%v: AddAnyPortMapping gives %v", c.addr, out)
	}
	return c.granted(l, asked, seconds, code)
}

// own gives a lease of the client, if it has any that fits and is not about to end.
func (c *client) own(fits func(lease) bool) (found lease, ok bool) {
	for _, l := range c.held {
		if fits(l) && l.left() > inexact && (!ok || fmt.Sprint(l.key) < fmt.Sprint(found.key)) {
			found, ok = l, true
		}
	}
	return found, ok
}

// remove deletes what it has, or tries to delete what it has not.
func (c *client) remove() (string, bool) {
	k := key{c.proto(), c.outside(), pick(c.rng, "", "", lab.InternetAddr), 0, c.addr.String()}
	port := c.outside()
	if l, ok := c.own(func(l lease) bool { return l.external >= port && l.rport == 0 }); ok && c.rng.IntN(3) > 0 {
		k = l.key
		if len(k.remote) > 11 && k.remote != lab.InternetAddr { // a prefix has no name in UPnP
			k.remote = ""
		}
	}
	_, code := c.call(pick(c.rng, old, young), "DeletePortMapping", "NewRemoteHost", k.remote, "NewExternalPort", itoa(k.external), "NewProtocol", k.proto)
	_, mine := c.held[k]
	if code == 0 && !mine {
		c.w.fault("%v deleted %+v, which it did not have", c.addr, k)
	}
	if code == 0 {
		c.drop(k)
	}
	return fmt.Sprintf("error %d: %+v", code, k), code == 0
}

func (c *client) removeRange() (string, bool) {
	proto, first, n := c.proto(), c.outside(), uint16(c.rng.IntN(8))
	_, code := c.call(young, "DeletePortMappingRange", "NewStartPort", itoa(first), "NewEndPort", itoa(first+n), "NewProtocol", proto, "NewManage", pick(c.rng, "0", "1"))
	said := fmt.Sprintf("error %d: %s %d-%d", code, proto, first, first+n)
	if code == 0 && !c.dropAll(func(l lease) bool { return l.proto == proto && l.external >= first && l.external+l.ports-1 <= first+n }) {
		c.w.fault("%v: DeletePortMappingRange deleted what it did not have: %s", c.addr, said)
	}
	return said, code == 0
}

// addBadly asks for what nobody may have.
func (c *client) addBadly() (string, bool) {
	_, _, args := c.mapping(c.outside())
	i := pick(c.rng, 3, 3, 5, 7, 9, 9, 11, 15)
	args[i] = map[int]string{3: pick(c.rng, "0", "65536", "80", "-1", "5abc"), 5: "SCTP", 7: pick(c.rng, "0", "70000", "22"),
		9: pick(c.rng, lab.RouterLANAddr, "192.168.77.255", "127.0.0.1", "11.0.0.1", "192.168.77.99", "name"), 11: "perhaps", 15: "-5"}[i]
	_, code := c.call(pick(c.rng, old, young), "AddPortMapping", args...)
	if code == 0 {
		c.w.fault("%v: AddPortMapping is granted: %q", c.addr, args)
	}
	return fmt.Sprintf("error %d: %s %s", code, args[i-1], args[i]), false
}
