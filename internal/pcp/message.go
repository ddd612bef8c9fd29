package pcp

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// The layout of RFC 6887, section 7 (SPEC 7.1). All numbers are big-endian.
const (
	version    = 2
	response   = 0x80 // in the second byte: R of PCP, a response of NAT-PMP, too
	headerLen  = 24
	mapLen     = headerLen + 36
	peerLen    = mapLen + 20
	maxMessage = 1100
)

// The opcodes.
const (
	opAnnounce = 0
	opMap      = 1
	opPeer     = 2
)

// result is a result code (SPEC 7.2). Those from 1 on are errors.
type result uint8

const (
	success result = iota
	unsuppVersion
	notAuthorized
	malformedRequest
	unsuppOpcode
	unsuppOption
	malformedOption
	networkFailure
	noResources
	unsuppProtocol
	userExQuota
	cannotProvide
	addressMismatch
	excessivePeers
)

var resultNames = [...]string{"SUCCESS", "UNSUPP_VERSION", "NOT_AUTHORIZED", "MALFORMED_REQUEST", "UNSUPP_OPCODE",
	"UNSUPP_OPTION", "MALFORMED_OPTION", "NETWORK_FAILURE", "NO_RESOURCES", "UNSUPP_PROTOCOL", "USER_EX_QUOTA",
	"CANNOT_PROVIDE_EXTERNAL", "ADDRESS_MISMATCH", "EXCESSIVE_REMOTE_PEERS"}

// Error gives the name in RFC 6887, section 7.4.
func (r result) Error() string { return resultNames[r] }

// lifetime is how long a client should expect the same answer, in seconds.
func (r result) lifetime() uint32 {
	switch r {
	case networkFailure, noResources, userExQuota, cannotProvide:
		return 30
	}
	return 1800
}

// resultOf is the result code for an error of the table. What is not there need not
// be deleted.
func resultOf(err error) result {
	switch {
	case err == nil, errors.Is(err, portmap.ErrNoEntry): // PMP-13, MAP-10
		return success
	case errors.Is(err, portmap.ErrQuota): // an ErrFull, too
		return userExQuota
	case errors.Is(err, portmap.ErrFull), errors.Is(err, portmap.ErrFirewall):
		return noResources
	case errors.Is(err, portmap.ErrCannotProvide):
		return cannotProvide
	case errors.Is(err, portmap.ErrFilters):
		return excessivePeers
	}
	return notAuthorized
}

// request is a request of version 2. Of an opcode other than MAP and PEER only
// packet is known.
type request struct {
	portmap.Request
	packet   []byte
	size     int        // of packet without its options
	lifetime uint32     // wished, in seconds; 0 deletes
	address  netip.Addr // the suggested external one; unspecified: any

	filtered, described bool // FILTER, DESCRIPTION came
}

// least is how long a request with the opcode is without options.
func least(op byte) int {
	switch op {
	case opMap:
		return mapLen
	case opPeer:
		return peerLen
	}
	return headerLen
}

// parseMap reads a MAP request (RFC 6887, section 11.1) of the host From, or the
// same of a PEER request, that is not too short.
func (q *request) parseMap() result {
	p := q.packet
	op := p[1] &^ response // news reads our own
	q.Peer, q.size = op == opPeer, least(op)
	q.lifetime = binary.BigEndian.Uint32(p[4:])
	q.Client, q.Origin = q.From, portmap.PCP
	q.Nonce = [12]byte(p[24:])
	q.Protocol = portmap.Protocol(p[36])
	q.InternalPort = binary.BigEndian.Uint16(p[40:])
	q.ExternalPort = binary.BigEndian.Uint16(p[42:])
	q.address = addrAt(p, 44)
	if q.Protocol == 0 && q.InternalPort != 0 { // MAP-1
		return malformedRequest
	}
	if q.Peer && !q.parsePeer(p) {
		return malformedRequest
	}
	return q.parseOptions(p[q.size:])
}

// parsePeer reads what PEER has beyond MAP (RFC 6887, section 12.1): the remote peer.
// It never deletes, so there are no wildcards. What is suggested is wanted.
func (q *request) parsePeer(p []byte) bool {
	q.Prefer = true
	q.RemotePort, q.RemoteHost = binary.BigEndian.Uint16(p[mapLen:]), addrAt(p, mapLen+4)
	return q.InternalPort != 0 && q.RemotePort != 0 && q.RemoteHost.BitLen() == q.From.BitLen() &&
		q.RemoteHost.IsGlobalUnicast() && q.RemoteHost != q.From
}

// addrAt reads an address; IPv4 comes as ::ffff:a.b.c.d.
func addrAt(p []byte, at int) netip.Addr { return netip.AddrFrom16([16]byte(p[at:])).Unmap() }

// respond begins a response: the request again, with another header. To a failure
// it is whole, with all its options (PCP-7); suggested values become assigned ones
// by that (MAP-2). Of nothing, it is an announcement (ANN-1).
func (s *Server) respond(p []byte, r result, lifetime uint32) []byte {
	reply := make([]byte, min(max(headerLen, (len(p)+3)&^3), maxMessage))
	copy(reply, p)
	reply[0], reply[1], reply[2], reply[3] = version, reply[1]|response, 0, byte(r)
	binary.BigEndian.PutUint32(reply[4:], lifetime)
	binary.BigEndian.PutUint32(reply[8:], s.cfg.Epoch.Seconds())
	if r != unsuppVersion && r != malformedRequest && r != malformedOption { // else the end of the client's address stays
		clear(reply[12:headerLen])
	}
	return reply
}

// assign sets the assigned address in a response to MAP.
func assign(reply []byte, address netip.Addr) {
	a := address.As16()
	copy(reply[44:], a[:])
}
