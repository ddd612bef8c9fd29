// Package portmap owns the port mappings of the router: which ones exist, who
// may ask for them, whom they conflict with, how many there may be and when
// they end. Every protocol room asks it, and it alone tells the firewall.
//
// The rules are those of WANIPConnection (SPEC 5.6, WIP-1 to WIP-24) and of
// DESIGN.md, "Decisions".
package portmap

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Protocol is the transport of a mapping, by its IANA number.
type Protocol uint8

// The transports that can be mapped. The zero Protocol means both, in a Rule.
const (
	TCP Protocol = unix.IPPROTO_TCP
	UDP Protocol = unix.IPPROTO_UDP
)

// String gives the UPnP spelling (PortMappingProtocol, SPEC 5.5).
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	}
	return "any"
}

// ParseProtocol reads TCP or UDP in any case. Nothing else is a protocol
// (SPEC WIP-10): there is no default.
func ParseProtocol(s string) (Protocol, bool) {
	switch {
	case strings.EqualFold(s, "TCP"):
		return TCP, true
	case strings.EqualFold(s, "UDP"):
		return UDP, true
	}
	return 0, false
}

// Origin is the protocol by which a mapping was made.
type Origin uint8

// The protocols that make mappings. The zero Origin is not known.
const (
	UPnP Origin = 1 + iota
	NATPMP
	PCP
)

var origins = [...]string{"-", "UPnP", "NAT-PMP", "PCP"}

// String gives the protocol's name, "-" for none.
func (o Origin) String() string {
	if int(o) < len(origins) {
		return origins[o]
	}
	return origins[0]
}

// Key names one mapping (SPEC WIP-1) or one pinhole (SPEC PIN-5).
type Key struct {
	Protocol     Protocol
	ExternalPort uint16
	RemoteHost   netip.Addr // the zero Addr: any host

	// Pinhole is the LAN host that is reached under its own IPv6 address and
	// port, without translation: Client and InternalPort say the same. The zero
	// Addr: the port is one of the uplink's IPv4 address.
	Pinhole    netip.Addr
	RemotePort uint16 // of a pinhole, or of a mapping by PCP; 0: any
	// RemoteBits is the length of RemoteHost's prefix where PCP's FILTER names
	// more than one host (SPEC MAP-13). RemoteHost is masked then. 0: it is one
	// host, or any.
	RemoteBits uint8
}

// Remote gives the hosts that a mapping is for; the zero Prefix: any.
func (k Key) Remote() netip.Prefix {
	bits := int(k.RemoteBits)
	if bits == 0 {
		bits = k.RemoteHost.BitLen()
	}
	return netip.PrefixFrom(k.RemoteHost, bits)
}

// Mapping is one port that the router forwards to a LAN host, or a pinhole: one
// that the router lets through to it.
type Mapping struct {
	Key
	ID           uint16     // UniqueID of a pinhole, never 0 (SPEC PIN-8)
	Client       netip.Addr // InternalClient: the LAN host
	InternalPort uint16
	Enabled      bool          // false: remembered, but not forwarded (SPEC WIP-12)
	Description  string        // for people; no control characters, at most MaxDescription bytes
	Deadline     time.Duration // on the boot clock: when the lease ends
	Origin       Origin
	Owner        netip.Addr // the host that asked for it
	Nonce        [12]byte   // PCP's proof of who may change it (RFC 6887, section 11.1)
	// Ports is the size of a PORT_SET (SPEC MAP-16): so many ports from
	// ExternalPort and InternalPort on, with one lease. 0: one port.
	Ports uint16
	// Peer: PCP's PEER made it, for the one remote peer that Key names (SPEC
	// PEER-1). A MAP cannot delete it; one with a filter for the same peer takes it
	// over. It shares its external port with others by PCP for the same port of the
	// client. Not every filter for one peer is PEER's: one of a MAP must outlive its
	// renewal.
	Peer bool
}

// MaxPorts is the largest PORT_SET that is given.
const MaxPorts = 64

// count is the number of ports.
func (m *Mapping) count() int { return max(1, int(m.Ports)) }

// MaxDescription is the longest description kept, in bytes (SPEC WIP-24).
const MaxDescription = 256

// String describes the mapping for a log line.
func (m Mapping) String() string {
	if m.Pinhole.IsValid() {
		return m.pinhole()
	}
	from := ""
	if m.filtered() {
		from = " from " + m.remote()
	}
	return fmt.Sprintf("%s%s to %v port %d", m.external(), from, m.Client, m.InternalPort)
}

// external is the protocol and the external ports, for people.
func (m *Mapping) external() string {
	if m.count() > 1 {
		return fmt.Sprintf("%v ports %d to %d", m.Protocol, m.ExternalPort, int(m.ExternalPort)+m.count()-1)
	}
	return fmt.Sprintf("%v port %d", m.Protocol, m.ExternalPort)
}

// filtered reports whether connections may not come from anywhere.
func (k *Key) filtered() bool { return k.RemoteHost.IsValid() || k.RemotePort != 0 }

// remote is where connections may come from, for people.
func (k *Key) remote() string {
	from := hostOrAny(*k)
	if from == "*" {
		from = "any"
	}
	if k.RemotePort != 0 {
		from += fmt.Sprintf(" port %d", k.RemotePort)
	}
	return from
}

// Request is a host's wish for a mapping.
type Request struct {
	Mapping               // Deadline and Owner are ignored
	Lease   time.Duration // wished; 0 means as long as the policy gives, with Peer: no new mapping
	From    netip.Addr    // the host that asks; a link-local address has its LAN device as zone

	// For MapInternal:

	Prefer        bool // PREFER_FAILURE: this ExternalPort or none
	Parity        bool // of a PORT_SET: odd ports to odd ones, if possible
	NoFilter      bool // FILTER with prefix length 0: what a mapping is filtered by ends; a filter in Key takes its place
	NoDescription bool // DESCRIPTION of length 0: what a mapping is described by ends

	vouched bool   // From is another address of Client's host
	renews  *entry // whatever its Key is
	asked   int    // questions to the kernel
}

// Network is what the table must know of the router's own addresses.
type Network struct {
	External netip.Addr     // the uplink's address; the zero Addr while there is none
	LANs     []netip.Prefix // the router's own addresses on served LANs, with their prefix lengths
}

// OnLink reports whether a is a host of a served LAN that is not the router:
// in a prefix, and none of the router's, network or broadcast addresses.
func (n Network) OnLink(a netip.Addr) bool {
	if !a.IsValid() || a.IsMulticast() || a.IsUnspecified() || a == n.External {
		return false
	}
	found := false
	for _, p := range n.LANs {
		if p.Addr() == a {
			return false
		}
		if !p.Contains(a) {
			continue
		}
		if p.Bits() < a.BitLen()-1 && (a == p.Masked().Addr() || a == lastAddr(p)) {
			return false
		}
		found = true
	}
	return found
}

// lastAddr is the highest address of p: of an IPv4 prefix, its broadcast address.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Firewall is the kernel's side of the table. Change and Sync are atomic: on
// error the kernel is as it was before. The methods are called one at a time.
type Firewall interface {
	// Change takes mappings out of the kernel and puts one in (nil: none), as
	// one change.
	Change(remove []Mapping, add *Mapping) error
	// Sync makes the kernel equal to exactly these mappings, without a gap
	// for those that it has already.
	Sync(n Network, all []Mapping) error
	// Packets counts what each mapping has redirected: NAT sees the first
	// packet of a connection.
	Packets() (map[Key]uint64, error)
	// SourcePort gives the external port that the connection of m's client to m's one
	// remote peer leaves from, if there is one already; 0: there is none.
	SourcePort(m *Mapping) (uint16, error)
	// Verify says in words how the kernel differs from what it was last told,
	// "" when it does not. It changes nothing.
	Verify() (string, error)
}

// Why a request was refused. Errors of this package wrap one of these and add
// the details that a person needs.
var (
	ErrNotLANHost    = errors.New("not a host on a served LAN")
	ErrNotAuthorized = errors.New("not authorized")
	ErrDenied        = errors.New("denied by the rules")
	ErrConflict      = errors.New("held already")
	ErrInUse         = errors.New("in use by the router itself")
	ErrFull          = errors.New("too many mappings")
	ErrNoEntry       = errors.New("no such mapping")
	ErrFirewall      = errors.New("the kernel refused the change")

	// ErrNotOwner is the ErrNotAuthorized of who names what another host has.
	ErrNotOwner = fmt.Errorf("%w", ErrNotAuthorized)
	// ErrOtherMechanism is an ErrConflict with what NAT-PMP or PCP made (SPEC WIP-11).
	ErrOtherMechanism = fmt.Errorf("%w", ErrConflict)
	// ErrQuota is the ErrFull of one client.
	ErrQuota = fmt.Errorf("%w", ErrFull)
	// ErrNonce: the mapping is there, but not by this nonce (SPEC MAP-3).
	ErrNonce = errors.New("it was made by another nonce or protocol")
	// ErrCannotProvide: not with this external port (SPEC MAP-5, MAP-6).
	ErrCannotProvide = errors.New("the wished external port cannot be given")
	// ErrFilters: a mapping has one filter at most (SPEC MAP-13: EXCESSIVE_REMOTE_PEERS).
	ErrFilters = errors.New("it has another filter")
)

// Why a mapping of an earlier run does not come back.
var (
	errEnded = errors.New("the lease has ended")
	errTwice = errors.New("it is there twice")
)

// BootTime reads CLOCK_BOOTTIME, the clock of all leases: it goes on during
// suspend and does not jump when the wall clock is set.
func BootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("portmap: CLOCK_BOOTTIME: " + err.Error()) // since Linux 2.6.39
	}
	return time.Duration(ts.Nano())
}
