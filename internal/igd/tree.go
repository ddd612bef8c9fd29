package igd

import (
	"fmt"
	"hash/fnv"
	"net/netip"

	"github.com/linux-igd/upnpd/internal/soap"
)

// device is one device of the tree.
type device struct {
	typ      string
	name     string // friendlyName
	uuid     string
	services []*service
	devices  []*device
}

// walk visits the device and then those in it, as SPEC 1.3 orders them.
func (d *device) walk(visit func(*device)) {
	visit(d)
	for _, sub := range d.devices {
		sub.walk(visit)
	}
}

// tree is InternetGatewayDevice with what it must have (SPEC 5.1). Version 2
// has no DeviceProtection (SPEC DEV-1).
func (s *Server) tree() *device {
	const urn = "urn:schemas-upnp-org:device:"
	version, root, seed, connectionServices := ":1", s.cfg.UUID, s.cfg.UUID, []*service{wanIPConnection()}
	if s.v2 {
		version, seed, connectionServices = ":2", s.cfg.UUID+"/v2", []*service{wanIPConnection2()}
		root = NewUUID(seed)
		if s.cfg.IPv6 {
			connectionServices = append(connectionServices, wanIPv6FirewallControl())
		}
	}
	connection := &device{
		typ: urn + "WANConnectionDevice" + version, name: "WAN connection",
		uuid:     NewUUID(seed + "/WANConnectionDevice"),
		services: connectionServices,
	}
	wanDevice := &device{
		typ: urn + "WANDevice" + version, name: "WAN",
		uuid:     NewUUID(seed + "/WANDevice"),
		services: []*service{wanCommonInterfaceConfig()},
		devices:  []*device{connection},
	}
	return &device{
		typ: urn + "InternetGatewayDevice" + version, name: s.cfg.FriendlyName,
		uuid:     root,
		services: []*service{layer3Forwarding()},
		devices:  []*device{wanDevice},
	}
}

// NewUUID makes the UUID that belongs to a seed, always the same one: version 8
// of RFC 9562, from a 128-bit FNV-1a hash.
func NewUUID(seed string) string {
	h := fnv.New128a()
	h.Write([]byte("upnpd " + seed))
	b := h.Sum(nil)
	b[6] = b[6]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// documentsID is a 24-bit hash of all documents.
func (s *Server) documentsID() uint32 {
	h := fnv.New32a()
	h.Write([]byte(s.description(netip.Addr{})))
	s.root.walk(func(d *device) {
		for _, svc := range d.services {
			h.Write([]byte(svc.scpd(0)))
		}
	})
	return h.Sum32() & 0xffffff
}

// description writes the root description as seen from the router's address
// local, in the element order of the UDA schema (SPEC HTTP-3 to HTTP-5).
func (s *Server) description(local netip.Addr) string {
	b := fmt.Appendf(nil, xmlDeclaration+`<root xmlns="urn:schemas-upnp-org:device-1-0" configId="%d">
  <specVersion><major>1</major><minor>1</minor></specVersion>
`, s.configID)
	b = s.appendDevice(b, s.root, "  ", local)
	return string(append(b, "</root>\n"...))
}

func (s *Server) appendDevice(b []byte, d *device, indent string, local netip.Addr) []byte {
	element := func(name, value string) {
		if value == "" {
			return
		}
		b = fmt.Appendf(b, "%s  <%s>", indent, name)
		b = soap.AppendEscaped(b, value)
		b = fmt.Appendf(b, "</%s>\n", name)
	}
	b = fmt.Appendf(b, "%s<device>\n", indent)
	element("deviceType", d.typ)
	element("friendlyName", d.name)
	element("manufacturer", "upnpd")
	element("manufacturerURL", projectURL)
	element("modelDescription", "UPnP Internet Gateway Device for Linux")
	element("modelName", "upnpd")
	element("modelNumber", s.cfg.ModelNumber)
	element("modelURL", projectURL)
	element("serialNumber", s.cfg.Serial)
	element("UDN", "uuid:"+d.uuid)
	b = fmt.Appendf(b, "%s  <serviceList>\n", indent)
	for _, svc := range d.services {
		b = s.appendService(b, svc, indent+"    ")
	}
	b = fmt.Appendf(b, "%s  </serviceList>\n", indent)
	if len(d.devices) > 0 {
		b = fmt.Appendf(b, "%s  <deviceList>\n", indent)
		for _, sub := range d.devices {
			b = s.appendDevice(b, sub, indent+"    ", local)
		}
		b = fmt.Appendf(b, "%s  </deviceList>\n", indent)
	}
	if d == s.root {
		element("presentationURL", s.presentationURL(local))
	}
	return fmt.Appendf(b, "%s</device>\n", indent)
}

const projectURL = "https://github.com/linux-igd/upnpd"

func (s *Server) presentationURL(local netip.Addr) string {
	if s.cfg.PresentationURL != OwnPage {
		return s.cfg.PresentationURL
	}
	host := local.WithZone("").String()
	if local.Is6() {
		host = "[" + host + "]"
	}
	return "http://" + host + "/"
}

// appendService writes the service element.
func (s *Server) appendService(b []byte, svc *service, indent string) []byte {
	return fmt.Appendf(b, `%[1]s<service>
%[1]s  <serviceType>%[2]s</serviceType>
%[1]s  <serviceId>urn:upnp-org:serviceId:%[3]s</serviceId>
%[1]s  <SCPDURL>%[4]s</SCPDURL>
%[1]s  <controlURL>%[5]s</controlURL>
%[1]s  <eventSubURL>%[6]s</eventSubURL>
%[1]s</service>
`, indent, svc.typ, svc.id, s.path("scpd/", svc.file), s.path("control/", svc.id), s.eventPath(svc))
}
