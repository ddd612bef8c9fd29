package igd_test

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/gena"
	"github.com/linux-igd/upnpd/internal/httpmsg"
	"github.com/linux-igd/upnpd/internal/igd"
)

var update = flag.Bool("update", false, "write the golden documents anew")

// document gets and parses one of the device's documents.
func (w *world) document(path string) (doc []byte, root element) {
	w.t.Helper()
	resp := w.get(path)
	if ct, _ := resp.Header.Get("Content-Type"); resp.Status != 200 || ct != xmlType { // HTTP-2
		w.t.Fatalf("GET %s: %d %s", path, resp.Status, ct)
	}
	if !bytes.HasPrefix(resp.Body, []byte("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n")) { // HTTP-3
		w.t.Errorf("%s has no XML declaration", path)
	}
	root, err := parseXML(resp.Body)
	if err != nil {
		w.t.Fatalf("%s: %v", path, err)
	}
	return resp.Body, root
}

func TestGolden(t *testing.T) {
	w := newWorld(t)
	w.golden("testdata", append(scpds(services), "/gatedesc.xml"))
	w = newWorld(t, version2, withEvents)
	w.golden("testdata/2", append(scpds(services2), "/upnp/2/gatedesc.xml"))
}

func withEvents(_ *world, c *igd.Config) { c.Events = gena.New(gena.Config{}) }

func scpds(services []serviceSpec) []string {
	var paths []string
	for _, svc := range services {
		paths = append(paths, svc.scpd)
	}
	return paths
}

// golden compares documents with the files of their names.
func (w *world) golden(dir string, paths []string) {
	t := w.t
	t.Helper()
	for _, path := range paths {
		doc, _ := w.document(path)
		golden := filepath.Join(dir, filepath.Base(path))
		if *update {
			if err := os.WriteFile(golden, doc, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(doc, want) {
			t.Errorf("%s is not as in %s (see -update):\n%s", path, golden, doc)
		}
	}
}

// configIDs are equal on all documents and in the announcements.
func TestConfigID(t *testing.T) {
	w := newWorld(t)
	v2 := newWorld(t, version2)
	want := strconv.Itoa(int(v2.server.ConfigID()))
	for _, path := range append(scpds(services2), v2.server.DescriptionPath()) {
		if _, root := v2.document(path); root.attr("configId") != want { // SSDP-13
			t.Errorf("%s has configId %s, the device says %s", path, root.attr("configId"), want)
		}
	}
	want = strconv.Itoa(int(w.server.ConfigID()))
	for _, path := range append(scpds(services), w.server.DescriptionPath()) {
		if _, root := w.document(path); root.attr("configId") != want { // SSDP-13
			t.Errorf("%s has configId %s, the device says %s", path, root.attr("configId"), want)
		}
	}
	if id := w.server.ConfigID(); id > 16777215 { // SSDP-13
		t.Errorf("configId %d", id)
	}
	if again := newWorld(t).server.ConfigID(); again != w.server.ConfigID() {
		t.Errorf("the same documents have the configIds %s and %d", want, again)
	}
	for name, change := range map[string]func(*igd.Config){
		"uuid":             func(c *igd.Config) { c.UUID = igd.NewUUID("another") },
		"friendly_name":    func(c *igd.Config) { c.FriendlyName += "s" },
		"serial":           func(c *igd.Config) { c.Serial = "" },
		"model_number":     func(c *igd.Config) { c.ModelNumber = "0.1.1" },
		"presentation_url": func(c *igd.Config) { c.PresentationURL = "" },
		"version":          func(c *igd.Config) { c.Version = 2 },
		"events":           func(c *igd.Config) { c.Events = gena.New(gena.Config{}) },
	} {
		other := newWorld(t, func(_ *world, c *igd.Config) { change(c) })
		if other.server.ConfigID() == w.server.ConfigID() {
			t.Errorf("another %s has the same configId", name)
		}
	}
}

// deviceOrder is the sequence of the UDA's device schema (HTTP-5).
var deviceOrder = []string{
	"deviceType", "friendlyName", "manufacturer", "manufacturerURL", "modelDescription", "modelName",
	"modelNumber", "modelURL", "serialNumber", "UDN", "UPC", "iconList", "serviceList", "deviceList", "presentationURL",
}

var deviceLimits = map[string]int{ // HTTP-4: must be shorter, in characters
	"friendlyName": 64, "manufacturer": 64, "modelName": 32, "modelDescription": 128, "modelNumber": 32, "serialNumber": 64,
}

var required = []string{"deviceType", "friendlyName", "manufacturer", "modelName", "UDN", "serviceList"}

func TestDescription(t *testing.T) {
	t.Run("version 1", func(t *testing.T) {
		udns := checkDescription(t, newWorld(t), "1", layer3Spec, wanCommonSpec, wanIPSpec)
		if udns[0] != "uuid:"+rootUUID {
			t.Errorf("the root is %s", udns[0])
		}
	})
	t.Run("version 2", func(t *testing.T) {
		checkDescription(t, newWorld(t, version2), "2", layer3Spec2, wanCommonSpec2, wanIPSpec2, firewall6Spec)
	})
	t.Run("version 2 without IPv6", func(t *testing.T) {
		w := newWorld(t, version2, func(_ *world, c *igd.Config) { c.IPv6 = false })
		checkDescription(t, w, "2", layer3Spec2, wanCommonSpec2, wanIPSpec2)
	})
}

// checkDescription gives the UDNs from the root on.
func checkDescription(t *testing.T, w *world, version string, layer3, wanCommon serviceSpec, connections ...serviceSpec) []string {
	t.Helper()
	doc, root := w.document(w.server.DescriptionPath())
	if root.XMLName.Local != "root" || root.XMLName.Space != "urn:schemas-upnp-org:device-1-0" { // HTTP-3
		t.Errorf("root element %v", root.XMLName)
	}
	if v := root.child("specVersion"); v.child("major").Text != "1" || v.child("minor").Text != "1" { // HTTP-3
		t.Errorf("specVersion %+v", v)
	}
	if bytes.Contains(doc, []byte("URLBase")) { // HTTP-3
		t.Error("URLBase in a UDA 1.1 description")
	}
	if !slices.Equal(root.names(), []string{"specVersion", "device"}) {
		t.Errorf("root has %q", root.names())
	}

	gateway := root.child("device")
	wanDevice := gateway.child("deviceList", "device")
	connection := wanDevice.child("deviceList", "device")
	var udns []string
	for _, d := range []struct {
		element
		typ      string
		services []serviceSpec
	}{ // SPEC 5.1
		{gateway, "InternetGatewayDevice:", []serviceSpec{layer3}},
		{wanDevice, "WANDevice:", []serviceSpec{wanCommon}},
		{connection, "WANConnectionDevice:", connections},
	} {
		if got := d.child("deviceType").Text; got != "urn:schemas-upnp-org:device:"+d.typ+version {
			t.Fatalf("deviceType %q, want %s%s", got, d.typ, version)
		}
		checkDevice(t, d.element)
		list := d.child("serviceList").children("service")
		if len(list) != len(d.services) {
			t.Fatalf("%d services in %s, want %d", len(list), d.typ, len(d.services)) // INT-1, INT-4
		}
		for i, svc := range list {
			checkService(t, w, svc, d.services[i])
		}
		if udn := d.child("UDN").Text; slices.Contains(udns, udn) { // SSDP-21
			t.Errorf("%s twice", udn)
		} else {
			udns = append(udns, udn)
		}
	}
	if n := len(connection.children("deviceList")); n != 0 {
		t.Error("there is a device in WANConnectionDevice")
	}
	return udns
}

func checkDevice(t *testing.T, d element) {
	t.Helper()
	typ := d.child("deviceType").Text
	last := -1
	for _, name := range d.names() {
		at := slices.Index(deviceOrder, name)
		if at <= last { // HTTP-5
			t.Errorf("%s: %s is not where the schema has it: %q", typ, name, d.names())
		}
		last = at
	}
	for _, name := range required { // HTTP-4
		if e := d.child(name); e.Text == "" && len(e.Elements) == 0 {
			t.Errorf("%s: no %s", typ, name)
		}
	}
	for name, limit := range deviceLimits { // HTTP-4
		if n := len([]rune(d.child(name).Text)); n >= limit {
			t.Errorf("%s: %s of %d characters", typ, name, n)
		}
	}
	if udn := d.child("UDN").Text; !uuidPattern.MatchString(udn) {
		t.Errorf("%s: UDN %q", typ, udn)
	}
}

var uuidPattern = regexp.MustCompile(`^uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// checkService holds HTTP-4 for a service.
func checkService(t *testing.T, w *world, svc element, want serviceSpec) {
	t.Helper()
	if !slices.Equal(svc.names(), []string{"serviceType", "serviceId", "SCPDURL", "controlURL", "eventSubURL"}) {
		t.Errorf("service has %q", svc.names())
	}
	if svc.child("serviceType").Text != want.typ || svc.child("serviceId").Text != want.id {
		t.Errorf("service %+v, want %s", svc, want.typ)
	}
	if svc.child("SCPDURL").Text != want.scpd || svc.child("controlURL").Text != want.control {
		t.Errorf("%s: SCPDURL %s, controlURL %s", want.typ, svc.child("SCPDURL").Text, svc.child("controlURL").Text)
	}
	w.document(svc.child("SCPDURL").Text)
}

// What a person put into the configuration is read as it was written.
func TestDescriptionEscapes(t *testing.T) {
	const nasty = `A & B's <"router"> ]]> é €`
	w := newWorld(t, func(_ *world, c *igd.Config) {
		c.FriendlyName, c.Serial, c.ModelNumber = nasty, nasty, nasty
		c.PresentationURL = "http://192.168.1.1/?a=1&b='2'"
	})
	_, root := w.document("/gatedesc.xml")
	d := root.child("device")
	for _, name := range []string{"friendlyName", "serialNumber", "modelNumber"} {
		if got := d.child(name).Text; got != nasty {
			t.Errorf("%s is %q, want %q", name, got, nasty)
		}
	}
	if got := d.child("presentationURL").Text; got != "http://192.168.1.1/?a=1&b='2'" {
		t.Errorf("presentationURL %q", got)
	}
}

func TestPresentationURL(t *testing.T) {
	for _, tt := range []struct{ configured, local, want string }{
		{igd.OwnPage, "192.168.1.1", "http://192.168.1.1/"}, // HTTP-5
		{igd.OwnPage, "10.0.0.1", "http://10.0.0.1/"},       // on another LAN
		{igd.OwnPage, "2001:db8:1::1", "http://[2001:db8:1::1]/"},
		{igd.OwnPage, "fe80::1", "http://[fe80::1]/"},
		{igd.OwnPage, "fe80::1%br-lan", "http://[fe80::1]/"}, // a zone is nothing to others
		{"https://router.example/", "192.168.1.1", "https://router.example/"},
		{"", "192.168.1.1", ""},
	} {
		w := newWorld(t, func(_ *world, c *igd.Config) { c.PresentationURL = tt.configured })
		resp := w.server.Handle(&httpmsg.Request{
			Method: "GET", Target: "/gatedesc.xml", Local: netip.AddrPortFrom(netip.MustParseAddr(tt.local), 49152),
		})
		root, err := parseXML(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		d := root.child("device")
		if got := d.child("presentationURL").Text; got != tt.want || len(d.children("presentationURL")) == 1 != (tt.want != "") {
			t.Errorf("%q on %s: presentationURL %q, want %q", tt.configured, tt.local, got, tt.want)
		}
	}
}

// A value that is not there leaves its element out.
func TestDescriptionWithoutValues(t *testing.T) {
	w := newWorld(t, func(_ *world, c *igd.Config) { c.Serial, c.ModelNumber = "", "" })
	_, root := w.document("/gatedesc.xml")
	for _, name := range []string{"serialNumber", "modelNumber"} {
		if slices.Contains(root.child("device").names(), name) {
			t.Errorf("an empty %s", name)
		}
	}
	checkDevice(t, root.child("device"))
}

// What discovery announces are the rows of SPEC 1.3, with the description's UDNs.
func TestAdvertised(t *testing.T) {
	checkAdvertised(t, newWorld(t), "1")
	checkAdvertised(t, newWorld(t, version2), "2", "WANIPv6FirewallControl:1")
	checkAdvertised(t, newWorld(t, version2, func(_ *world, c *igd.Config) { c.IPv6 = false }), "2")
}

func checkAdvertised(t *testing.T, w *world, version string, more ...string) {
	t.Helper()
	_, root := w.document(w.server.DescriptionPath())
	gateway := root.child("device")
	wanDevice := gateway.child("deviceList", "device")
	connection := wanDevice.child("deviceList", "device")
	udn := func(d element) string { return strings.TrimPrefix(d.child("UDN").Text, "uuid:") }
	r, d, c := udn(gateway), udn(wanDevice), udn(connection)
	want := []igd.Advertised{
		{NT: "upnp:rootdevice", UUID: r},
		{NT: "uuid:" + r, UUID: r},
		{NT: "urn:schemas-upnp-org:device:InternetGatewayDevice:" + version, UUID: r},
		{NT: "urn:schemas-upnp-org:service:Layer3Forwarding:1", UUID: r},
		{NT: "uuid:" + d, UUID: d},
		{NT: "urn:schemas-upnp-org:device:WANDevice:" + version, UUID: d},
		{NT: "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1", UUID: d},
		{NT: "uuid:" + c, UUID: c},
		{NT: "urn:schemas-upnp-org:device:WANConnectionDevice:" + version, UUID: c},
		{NT: "urn:schemas-upnp-org:service:WANIPConnection:" + version, UUID: c},
	}
	for _, name := range more {
		want = append(want, igd.Advertised{NT: "urn:schemas-upnp-org:service:" + name, UUID: c})
	}
	if got := w.server.Advertised(); !slices.Equal(got, want) { // SSDP-20
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// UDNs are stable and of one router alone (SSDP-21): each MAC address gives
// other UUIDs for all three devices of both versions.
func TestUUIDs(t *testing.T) {
	if a, b := igd.NewUUID("x"), igd.NewUUID("x"); a != b {
		t.Errorf("%s is not stable: %s", a, b)
	}
	seen := map[string]string{}
	for last := range 64 {
		seed := fmt.Sprintf("02005e1000%02x/InternetGatewayDevice", last)
		own := func(_ *world, c *igd.Config) { c.UUID = igd.NewUUID(seed) }
		for _, row := range append(newWorld(t, own).server.Advertised(), newWorld(t, own, version2).server.Advertised()...) {
			if row.NT != "uuid:"+row.UUID {
				continue
			}
			if before, ok := seen[row.UUID]; ok {
				t.Fatalf("%s and %s both have %s", before, seed, row.UUID)
			}
			seen[row.UUID] = seed
			if !uuidPattern.MatchString(row.NT) || row.UUID[14] != '8' || !strings.Contains("89ab", row.UUID[19:20]) {
				t.Fatalf("%s is not a UUID of RFC 9562 version 8", row.UUID)
			}
		}
	}
	if len(seen) != 2*3*64 {
		t.Errorf("%d UUIDs", len(seen))
	}
}
