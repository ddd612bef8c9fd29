// Package ssdp is discovery: it tells a LAN that the gateway is there,
// answers the searches of control points and says goodbye at the end.
//
// The rules are section 1 of SPEC.md (rows SSDP-1 to SSDP-51), taken from the
// discovery chapter of the UPnP Device Architecture 1.1 and 2.0.
//
// One Server serves one LAN device over a socket that the caller has bound to
// that device and joined to the groups. IPv4 has one group, IPv6 has two: the
// link's, where we are a link-local address, and the site's, where we are a
// global or a unique local one (annex A of UDA 2.0). One goroutine reads the socket and
// decides what deserves an answer; the goroutine of Run owns everything that
// is sent and the single timer behind it, so an idle server sleeps until the
// next search or the next refresh.
package ssdp

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/linux-igd/upnpd/internal/sock"
)

// Port is the UDP port of SSDP (SSDP-1).
const Port = 1900

// defaultMaxAge is used where Config.MaxAge is zero (SSDP-10).
const defaultMaxAge = 1800 * time.Second

// Group4 is the IPv4 multicast group of SSDP (SSDP-1).
func Group4() netip.Addr { return netip.AddrFrom4([4]byte{239, 255, 255, 250}) }

// Groups6 are the IPv6 multicast groups of SSDP, ff02::c and ff05::c (SSDP-6).
func Groups6() (link, site netip.Addr) {
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 0x0c}),
		netip.AddrFrom16([16]byte{0: 0xff, 1: 0x05, 15: 0x0c})
}

// Target is one NT/USN row of a device tree (SPEC 1.3).
type Target struct {
	NT   string // notification type: upnp:rootdevice, uuid:UUID or a urn
	UUID string // of the device that owns the row, without the prefix "uuid:"
}

// USN is the unique service name of the row: "uuid:UUID" for the row of the
// UUID itself, else "uuid:UUID::NT" (SPEC 1.3).
func (t Target) USN() string {
	udn := "uuid:" + t.UUID
	if t.NT == udn {
		return udn
	}
	return udn + "::" + t.NT
}

// Device is one root device with everything below it.
type Device struct {
	Targets  []Target // in the order of SPEC 1.3, each row once
	Path     string   // of the description: LOCATION = http://ADDR:PORT + Path
	ConfigID uint32   // CONFIGID.UPNP.ORG, at most 16777215 (SSDP-13)

	// Announce says that alive is sent and that ssdp:all and upnp:rootdevice
	// find the device. A device without it is found by its UUIDs, and by the
	// types that no device before it in Config.Devices has. Goodbye is said
	// for every device.
	Announce bool
}

// Config is what all LANs have in common (SSDP-11).
type Config struct {
	Devices  []Device
	Server   string        // value of SERVER: "OS/version UPnP/1.1 product/version"
	BootID   uint32        // BOOTID.UPNP.ORG, below 1<<31 (SSDP-12)
	MaxAge   time.Duration // how long an announcement holds, in whole seconds; 0 is 1800 s (SSDP-10)
	Refresh  time.Duration // announce again within this time; 0 or more than MaxAge/2 is MaxAge/2 (SSDP-32)
	HTTPPort uint16        // of the descriptions, for LOCATION

	// Logf must be safe for concurrent use; nil logs nothing.
	Logf func(format string, args ...any)

	// Rand returns a uniform random time in [0, d), d > 0; nil takes
	// math/rand/v2. Tests set it.
	Rand func(d time.Duration) time.Duration
}

// Scope is a multicast group, and who we are for those who are in it (SSDP-6):
// for 239.255.255.250 the router's IPv4 address, for ff02::c its link-local
// address, for ff05::c a global or a unique local one.
type Scope struct {
	Group netip.Addr
	Addr  netip.Addr // source of all messages and in LOCATION; the router's own, without a zone
}

// LAN is one served LAN.
type LAN struct {
	Scopes  []Scope // of one family; everything is sent once to each
	IfIndex int     // of the LAN device: nothing else is listened to (SSDP-8)

	// OnLink tells whether an address is a host of this LAN, so not a
	// broadcast address. It is called from the reading goroutine.
	OnLink func(netip.Addr) bool
}

// Conn is what a Server needs of its socket, bound to the LAN device and to
// Port and a member of the groups. *sock.UDP is one.
type Conn interface {
	// ReadFrom waits for a datagram until ctx ends. A longer one than p gives
	// sock.ErrTruncated.
	ReadFrom(ctx context.Context, p []byte) (int, sock.Packet, error)
	// WriteTo sends a datagram from the address src.
	WriteTo(ctx context.Context, p []byte, to netip.AddrPort, src netip.Addr) error
}

// Server announces and answers on one LAN. Make one with New.
type Server struct {
	cfg  Config
	lan  LAN
	conn Conn

	found chan burst // from the reading goroutine to Run
	limit *limiter   // of the reading goroutine
}

// maxFound is the number of searches that may wait for Run to look at them.
const maxFound = 16

// New returns a Server for one LAN; it does nothing before Run. The socket
// stays the caller's to close, after Run has returned.
func New(cfg Config, lan LAN, c Conn) *Server {
	if cfg.MaxAge <= 0 {
		cfg.MaxAge = defaultMaxAge
	}
	if cfg.Refresh <= 0 || cfg.Refresh > cfg.MaxAge/2 {
		cfg.Refresh = cfg.MaxAge / 2
	}
	if cfg.Logf == nil {
		cfg.Logf = func(string, ...any) {}
	}
	if cfg.Rand == nil {
		cfg.Rand = func(d time.Duration) time.Duration { return rand.N(d) }
	}
	return &Server{
		cfg:   cfg,
		lan:   lan,
		conn:  c,
		found: make(chan burst, maxFound),
		limit: newLimiter(),
	}
}
