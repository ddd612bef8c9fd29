// Package igd is the Internet Gateway Device as control points see it: the
// device tree with its descriptions, and the actions of its services. Port
// mappings themselves are portmap's matter.
//
// It follows InternetGatewayDevice:1 with Layer3Forwarding:1,
// WANCommonInterfaceConfig:1 and WANIPConnection:1 (SPEC 5), and the UPnP
// Device Architecture for descriptions (SPEC 2) and control (SPEC 3).
package igd

import (
	"net/netip"
	"time"

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
}

// OwnPage as PresentationURL stands for http://ADDRESS-ON-THE-LAN/.
const OwnPage = "own"

// Server answers for one device tree.
type Server struct {
	cfg      Config
	table    *portmap.Table
	uplink   Uplink
	now      func() time.Duration // boot clock
	root     *device
	configID uint32
	docs     map[string]string   // SCPDs by path
	control  map[string]*service // services by control path
}

// New makes a Server. now is the boot clock.
func New(cfg Config, table *portmap.Table, uplink Uplink, now func() time.Duration) *Server {
	s := &Server{
		cfg: cfg, table: table, uplink: uplink, now: now,
		docs: map[string]string{}, control: map[string]*service{},
	}
	s.root = s.tree()
	s.configID = s.documentsID()
	s.root.walk(func(d *device) {
		for _, svc := range d.services {
			s.docs[svc.scpdPath()] = svc.scpd(s.configID)
			s.control[svc.controlPath()] = svc
		}
	})
	return s
}

// ConfigID changes when the documents do (CONFIGID.UPNP.ORG, SPEC SSDP-13).
func (s *Server) ConfigID() uint32 { return s.configID }

// DescriptionPath is the path of the root description, for LOCATION.
func (s *Server) DescriptionPath() string { return "/" + s.cfg.DescriptionName }

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
			return notAllowed(req.Method, "POST")
		}
		return s.handleControl(svc, req)
	}
	doc, ok := s.docs[path]
	if path == s.DescriptionPath() {
		doc, ok = s.description(req.Local.Addr()), true
	}
	if !ok {
		return &httpmsg.Response{Status: 404}
	}
	if req.Method != "GET" && req.Method != "HEAD" {
		return notAllowed(req.Method, "GET, HEAD")
	}
	return xmlResponse(200, []byte(doc))
}

// notAllowed is 405 for a method of HTTP or UPnP, 501 for others (SPEC HTTP-11).
func notAllowed(method, allow string) *httpmsg.Response {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH",
		"M-POST", "SUBSCRIBE", "UNSUBSCRIBE", "NOTIFY":
		return &httpmsg.Response{Status: 405, Header: httpmsg.Header{{Name: "Allow", Value: allow}}}
	}
	return &httpmsg.Response{Status: 501}
}

func xmlResponse(status int, body []byte) *httpmsg.Response {
	return &httpmsg.Response{
		Status: status,
		Header: httpmsg.Header{{Name: "Content-Type", Value: `text/xml; charset="utf-8"`}},
		Body:   body,
	}
}
