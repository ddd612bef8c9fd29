package ssdp

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/httpmsg"
)

// The three messages that are sent, with the headers of SPEC 1.2 in the order
// of its table. SEARCHPORT is absent: searches come to 1900 (SSDP-14).

// alive is one row of an announcement (UDA 1.2.2).
func (s *Server) alive(scope Scope, d *Device, t Target) []byte {
	return httpmsg.AppendMessage(nil, "NOTIFY * HTTP/1.1", httpmsg.Header{
		{Name: "HOST", Value: scope.host()},
		{Name: "CACHE-CONTROL", Value: s.cacheControl()},
		{Name: "LOCATION", Value: s.location(scope, d)},
		{Name: "NT", Value: t.NT},
		{Name: "NTS", Value: "ssdp:alive"},
		{Name: "SERVER", Value: s.cfg.Server},
		{Name: "USN", Value: t.USN()},
		{Name: "BOOTID.UPNP.ORG", Value: decimal(s.cfg.BootID)},
		{Name: "CONFIGID.UPNP.ORG", Value: decimal(d.ConfigID)},
	})
}

// byebye takes one row back (UDA 1.2.3).
func (s *Server) byebye(scope Scope, d *Device, t Target) []byte {
	return httpmsg.AppendMessage(nil, "NOTIFY * HTTP/1.1", httpmsg.Header{
		{Name: "HOST", Value: scope.host()},
		{Name: "NT", Value: t.NT},
		{Name: "NTS", Value: "ssdp:byebye"},
		{Name: "USN", Value: t.USN()},
		{Name: "BOOTID.UPNP.ORG", Value: decimal(s.cfg.BootID)},
		{Name: "CONFIGID.UPNP.ORG", Value: decimal(d.ConfigID)},
	})
}

// response answers a search with one row (UDA 1.3.3).
func (s *Server) response(scope Scope, a answer, now time.Time) []byte {
	return httpmsg.AppendMessage(nil, "HTTP/1.1 200 OK", httpmsg.Header{
		{Name: "CACHE-CONTROL", Value: s.cacheControl()},
		{Name: "LOCATION", Value: s.location(scope, a.device)},
		{Name: "SERVER", Value: s.cfg.Server},
		{Name: "USN", Value: a.USN()},
		{Name: "ST", Value: a.NT},
		{Name: "EXT", Value: ""},
		{Name: "DATE", Value: now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")},
		{Name: "BOOTID.UPNP.ORG", Value: decimal(s.cfg.BootID)},
		{Name: "CONFIGID.UPNP.ORG", Value: decimal(a.device.ConfigID)},
	})
}

func (s *Server) cacheControl() string {
	return "max-age=" + strconv.FormatInt(int64(s.cfg.MaxAge/time.Second), 10)
}

// location is a URL with the router's literal address in this scope, without a
// zone (SSDP-6, SSDP-11).
func (s *Server) location(scope Scope, d *Device) string {
	host := netip.AddrPortFrom(scope.Addr.WithZone(""), s.cfg.HTTPPort)
	return "http://" + host.String() + d.Path
}

// to is where announcements go.
func (s Scope) to() netip.AddrPort { return netip.AddrPortFrom(s.Group, Port) }

// host is the HOST header, in capitals as the standard writes it (SSDP-6).
func (s Scope) host() string { return strings.ToUpper(s.to().String()) }

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
