// Package igd is the Internet Gateway Device as control points see it: the
// device tree with its descriptions, and the actions of its services. Port
// mappings themselves are portmap's matter.
//
// It follows InternetGatewayDevice:1 with Layer3Forwarding:1,
// WANCommonInterfaceConfig:1 and WANIPConnection:1, and InternetGatewayDevice:2
// with WANIPConnection:2 and WANIPv6FirewallControl:1 (SPEC 5), and the UPnP
// Device Architecture for descriptions (SPEC 2) and control (SPEC 3).
//
// The two versions are two devices, each a [Server] with UUIDs and paths of its
// own: what Windows and Xbox fetch has nothing of version 2 in it (SPEC INT-1).
package igd

import (
	"net/netip"
	"time"

	"github.com/linux-igd/upnpd/internal/gena"
	"github.com/linux-igd/upnpd/internal/httpmsg"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/wan"
)

// Uplink is what igd asks about the way to the internet.
type Uplink interface {
	State() wan.State                // from memory
	Counters() (wan.Counters, error) // from the kernel
}

// Config describes the device to its users.
type Config struct {
	UUID         string // of the root device; the others derive from it
	FriendlyName string
	Serial       string // "" leaves the element out
	ModelNumber  string // "" leaves the element out
	// PresentationURL is a page for people; "" leaves the element out, and
	// OwnPage means the router's own address.
	PresentationURL string
	// DescriptionName is the file name of the description, as in LOCATION.
	DescriptionName string
	// ExternalIP is reported instead of the uplink's address when valid.
	ExternalIP netip.Addr
	// UpstreamBitrate and DownstreamBitrate, in bit/s, are reported instead
	// of the link's speed when not 0.
	UpstreamBitrate, DownstreamBitrate uint64
	// Version of InternetGatewayDevice: 1 or 2; 0 is 1.
	Version int
	// IPv6 has WANIPv6FirewallControl in the tree, of version 2 only.
	IPv6 bool
	// Events sends the evented variables to subscribers; nil: nobody can
	// subscribe.
	Events *gena.Publisher
}

// OwnPage as PresentationURL stands for http://ADDRESS-ON-THE-LAN/.
const OwnPage = "own"

// Server answers for one device tree: for one version of the gateway.
type Server struct {
	cfg      Config
	v2       bool
	table    *portmap.Table
	uplink   Uplink
	now      func() time.Duration // boot clock
	root     *device
	configID uint32
	docs     map[string]string   // SCPDs by path
	control  map[string]*service // services by control path
	events   map[string]*service // services by event path
}

// New makes a Server. now is the boot clock.
func New(cfg Config, table *portmap.Table, uplink Uplink, now func() time.Duration) *Server {
	s := &Server{
		cfg: cfg, v2: cfg.Version == 2, table: table, uplink: uplink, now: now,
		docs: map[string]string{}, control: map[string]*service{}, events: map[string]*service{},
	}
	s.root = s.tree()
	s.configID = s.documentsID()
	s.root.walk(func(d *device) {
		for _, svc := range d.services {
			s.docs[s.path("scpd/", svc.file)] = svc.scpd(s.configID)
			s.control[s.path("control/", svc.id)] = svc
			if path := s.eventPath(svc); path != "" {
				s.events[path] = svc
				cfg.Events.Topic(path, func() []gena.Property { return s.evented(svc) })
			}
		}
	})
	return s
}

// path is that of a service. It has a directory, so that
// description_document_name, which has none, never hides one; and that of
// version 2 has one more, so that the two never meet.
func (s *Server) path(what, name string) string {
	if s.v2 {
		return "/upnp/2/" + what + name
	}
	return "/upnp/" + what + name
}

// eventPath is empty where nobody can subscribe (SPEC GENA-15). Every service
// has evented variables.
func (s *Server) eventPath(svc *service) string {
	if s.cfg.Events == nil {
		return ""
	}
	return s.path("event/", svc.id)
}

// evented gives the evented variables with their values, in the order of the
// SCPD. A table that changes meanwhile is read again, so that the number of
// mappings and SystemUpdateID are of one moment (SPEC GENA-11).
func (s *Server) evented(svc *service) []gena.Property {
	var all []gena.Property
	for range eventedTries {
		before := s.table.UpdateID()
		all = all[:0]
		for i := range svc.vars {
			if v := &svc.vars[i]; v.evented {
				all = append(all, gena.Property{Name: v.name, Value: v.get(s)})
			}
		}
		if s.table.UpdateID() == before {
			break
		}
	}
	return all
}

// eventedTries bounds the readings while clients change the table all the time;
// the next event is right again.
const eventedTries = 4

// ConfigID changes when the documents do (CONFIGID.UPNP.ORG, SPEC SSDP-13).
func (s *Server) ConfigID() uint32 { return s.configID }

// DescriptionPath is the path of the root description, for LOCATION.
func (s *Server) DescriptionPath() string {
	if s.v2 {
		return s.path("", s.cfg.DescriptionName)
	}
	return "/" + s.cfg.DescriptionName
}

// Has reports whether path is one of this Server's.
func (s *Server) Has(path string) bool {
	return path == s.DescriptionPath() || s.docs[path] != "" || s.control[path] != nil || s.events[path] != nil
}

// Advertised is one row of what discovery announces (SPEC 1.3).
type Advertised struct{ NT, UUID string }

// Advertised lists the rows of the tree in the order of SPEC 1.3.
func (s *Server) Advertised() []Advertised {
	rows := []Advertised{{"upnp:rootdevice", s.root.uuid}}
	s.root.walk(func(d *device) {
		rows = append(rows, Advertised{"uuid:" + d.uuid, d.uuid}, Advertised{d.typ, d.uuid})
		for _, svc := range d.services {
			rows = append(rows, Advertised{svc.typ, d.uuid})
		}
	})
	return rows
}

// Handle answers one HTTP request.
func (s *Server) Handle(req *httpmsg.Request) *httpmsg.Response {
	path := req.Target
	if svc := s.control[path]; svc != nil {
		if req.Method != "POST" {
			return httpmsg.NotAllowed(req.Method, "POST")
		}
		return s.handleControl(svc, req)
	}
	if s.events[path] != nil {
		return s.cfg.Events.Handle(req)
	}
	doc, ok := s.docs[path]
	if path == s.DescriptionPath() {
		doc, ok = s.description(req.Local.Addr()), true
	}
	if !ok {
		return &httpmsg.Response{Status: 404}
	}
	if req.Method != "GET" && req.Method != "HEAD" {
		return httpmsg.NotAllowed(req.Method, "GET, HEAD")
	}
	return xmlResponse(200, []byte(doc))
}

func xmlResponse(status int, body []byte) *httpmsg.Response {
	return &httpmsg.Response{
		Status: status,
		Header: httpmsg.Header{{Name: "Content-Type", Value: `text/xml; charset="utf-8"`}},
		Body:   body,
	}
}
