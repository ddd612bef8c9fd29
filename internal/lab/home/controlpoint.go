package home

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Dialer opens connections from one LAN host.
type Dialer func(network, addr string, timeout time.Duration) (net.Conn, error)

// ControlPoint is a UPnP client on a LAN host, made of Go's own HTTP and XML.
type ControlPoint struct {
	// Addr is the host's own.
	Addr string
	// Web asks from there.
	Web *http.Client
	// Control is the URL of WANIPConnection:1.
	Control string

	t testing.TB
}

// wanIPType is the service that is asked for ports.
const wanIPType = "urn:schemas-upnp-org:service:WANIPConnection:1"

// Discover searches at the router by unicast (SSDP-42) and reads the
// description that the answer points to.
func Discover(t testing.TB, addr, router string, dial Dialer) *ControlPoint {
	t.Helper()
	cp := &ControlPoint{t: t, Addr: addr, Web: &http.Client{
		Timeout: patience,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
				return dial("tcp4", addr, patience)
			},
		},
	}}
	found := location.FindStringSubmatch(Search(t, router, dial))
	if found == nil {
		t.Fatal("no LOCATION in the answer")
	}
	description := found[1]
	var root struct {
		URLs []string `xml:"device>deviceList>device>deviceList>device>serviceList>service>controlURL"`
	}
	if err := xml.Unmarshal([]byte(cp.Get(description)), &root); err != nil || len(root.URLs) != 1 {
		t.Fatalf("description at %s: control URLs %q, %v", description, root.URLs, err)
	}
	base, _ := url.Parse(description)
	control, err := base.Parse(root.URLs[0])
	if err != nil {
		t.Fatal(err)
	}
	cp.Control = control.String()
	return cp
}

var location = regexp.MustCompile(`(?im)^LOCATION: *(http://\S+)`)

// searches are as many as the standard wants of a control point, for lost datagrams.
const searches = 3

// Search gives the answer to a search for the connection service.
func Search(t testing.TB, router string, dial Dialer) string {
	t.Helper()
	c, err := dial("udp4", router, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer := make([]byte, 1500)
	for range searches {
		fmt.Fprintf(c, "M-SEARCH * HTTP/1.1\r\nHOST: %s\r\nMAN: \"ssdp:discover\"\r\nST: %s\r\n\r\n", router, wanIPType)
		c.SetReadDeadline(time.Now().Add(patience / searches))
		var n int
		if n, err = c.Read(answer); err == nil {
			return string(answer[:n])
		}
	}
	t.Fatalf("no answer to %d searches: %v", searches, err)
	return ""
}

// Get gives a document of the router.
func (cp *ControlPoint) Get(url string) string {
	cp.t.Helper()
	r, err := cp.Web.Get(url)
	if err != nil {
		cp.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != 200 {
		cp.t.Fatalf("GET %s: %s, %v", url, r.Status, err)
	}
	return string(body)
}

// Call runs an action with name, value pairs. It gives the out arguments, or
// the UPnP error code.
func (cp *ControlPoint) Call(action string, args ...string) (out map[string]string, code int) {
	cp.t.Helper()
	out, code, err := cp.Try(action, args...)
	if err != nil {
		cp.t.Fatalf("%s: %v", action, err)
	}
	return out, code
}

// Try is Call for a daemon that may be away.
func (cp *ControlPoint) Try(action string, args ...string) (out map[string]string, code int, err error) {
	var body bytes.Buffer
	fmt.Fprintf(&body, `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:%s xmlns:u="%s">`, action, wanIPType)
	for i := 0; i+1 < len(args); i += 2 {
		fmt.Fprintf(&body, "<%s>", args[i])
		xml.EscapeText(&body, []byte(args[i+1]))
		fmt.Fprintf(&body, "</%s>", args[i])
	}
	fmt.Fprintf(&body, "</u:%s></s:Body></s:Envelope>", action)
	req, err := http.NewRequest("POST", cp.Control, &body)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Content-Type", `text/xml; charset="utf-8"`)
	req.Header.Set("SOAPAction", fmt.Sprintf("%q", wanIPType+"#"+action))
	r, err := cp.Web.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, 0, err
	}
	out = leaves(text)
	switch {
	case r.StatusCode == 200:
		return out, 0, nil
	case r.StatusCode == 500 && out["errorCode"] != "":
		code, err = strconv.Atoi(out["errorCode"])
		return nil, code, err
	}
	return nil, 0, errors.New(r.Status)
}

// leaves gives the text of all elements that hold only text.
func leaves(doc []byte) map[string]string {
	all := map[string]string{}
	d := xml.NewDecoder(bytes.NewReader(doc))
	var text strings.Builder
	for {
		token, err := d.Token()
		if err != nil {
			return all
		}
		switch x := token.(type) {
		case xml.StartElement:
			text.Reset()
		case xml.CharData:
			text.Write(x)
		case xml.EndElement:
			all[x.Name.Local] = text.String()
		}
	}
}

// Add maps an external port to a port of the host itself. It gives the UPnP error
// code, 0 for none.
func (cp *ControlPoint) Add(proto string, external, internal int, lease int) int {
	cp.t.Helper()
	_, code := cp.Call("AddPortMapping", "NewRemoteHost", "", "NewExternalPort", strconv.Itoa(external),
		"NewProtocol", proto, "NewInternalPort", strconv.Itoa(internal), "NewInternalClient", cp.Addr,
		"NewEnabled", "1", "NewPortMappingDescription", "test & <more>", "NewLeaseDuration", strconv.Itoa(lease))
	return code
}

// Delete gives the UPnP error code, 0 for none.
func (cp *ControlPoint) Delete(proto string, external int) int {
	cp.t.Helper()
	_, code := cp.Call("DeletePortMapping", "NewRemoteHost", "", "NewExternalPort", strconv.Itoa(external), "NewProtocol", proto)
	return code
}

// ExternalAddress is what the router says its own is.
func (cp *ControlPoint) ExternalAddress() string {
	cp.t.Helper()
	out, code := cp.Call("GetExternalIPAddress")
	if code != 0 {
		cp.t.Fatalf("GetExternalIPAddress: error %d", code)
	}
	return out["NewExternalIPAddress"]
}
