package pcp

import (
	"encoding/binary"
	"net/netip"
)

// The layout of RFC 6887, section 7 (SPEC 7.1). All numbers are big-endian.
const (
	version    = 2
	response   = 0x80 // in the second byte: R of PCP, a response of NAT-PMP, too
	headerLen  = 24
	mapLen     = headerLen + 36
	maxMessage = 1100
)

// The opcodes.
const (
	opAnnounce = 0
	opMap      = 1
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
	case success:
		return 0
	case networkFailure, noResources, userExQuota, cannotProvide:
		return 30
	}
	return 1800
}

// request is the header of a request.
type request struct {
	opcode   byte
	lifetime uint32     // wished, in seconds; 0 deletes
	client   netip.Addr // who says that it asks
}

// parseRequest reads a header of version 2. ok is false for what draws no answer
// (PCP-3).
func parseRequest(p []byte) (r request, err result, ok bool) {
	switch {
	case len(p) < headerLen:
		return r, success, false
	case len(p) > maxMessage, len(p)%4 != 0: // PCP-4
		return r, malformedRequest, true
	}
	r.opcode, r.lifetime, r.client = p[1], binary.BigEndian.Uint32(p[4:]), addrAt(p, 8)
	return r, success, true
}

// mapRequest is the payload of MAP (RFC 6887, section 11.1).
type mapRequest struct {
	nonce    [12]byte
	protocol uint8
	internal uint16
	external uint16     // suggested; 0: any
	address  netip.Addr // suggested; unspecified: any
}

// parseMap reads the payload of a MAP request.
func parseMap(p []byte) (m mapRequest, err result) {
	if len(p) < mapLen { // PCP-4
		return m, malformedRequest
	}
	m = mapRequest{[12]byte(p[24:]), p[36], binary.BigEndian.Uint16(p[40:]), binary.BigEndian.Uint16(p[42:]), addrAt(p, 44)}
	if m.protocol == 0 && m.internal != 0 { // MAP-1
		return m, malformedRequest
	}
	return m, success
}

// addrAt reads an address; IPv4 comes as ::ffff:a.b.c.d.
func addrAt(p []byte, at int) netip.Addr { return netip.AddrFrom16([16]byte(p[at:])).Unmap() }

// setHeader makes of a request's first bytes those of the response.
func setHeader(p []byte, r result, lifetime, epoch uint32) {
	p[0], p[1], p[2], p[3] = version, p[1]|response, 0, byte(r)
	binary.BigEndian.PutUint32(p[4:], lifetime)
	binary.BigEndian.PutUint32(p[8:], epoch)
	switch r {
	case unsuppVersion, malformedRequest, malformedOption: // not understood: the end of the client's address stays
	default:
		clear(p[12:headerLen])
	}
}

// failure is the response to a request that failed: the request again, with all
// its options (PCP-7). Suggested values become assigned ones by that (MAP-2).
func failure(p []byte, r result, lifetime, epoch uint32) []byte {
	reply := make([]byte, min(max(headerLen, (len(p)+3)&^3), maxMessage))
	copy(reply, p)
	setHeader(reply, r, lifetime, epoch)
	return reply
}

// granted is the response to a MAP that succeeded, without options.
func granted(p []byte, lifetime, epoch uint32, external uint16, address netip.Addr) []byte {
	reply := make([]byte, mapLen, max(mapLen, len(p)))
	copy(reply, p[:mapLen])
	setHeader(reply, success, lifetime, epoch)
	clear(reply[37:40]) // reserved
	assign(reply, external, address)
	return reply
}

// assign sets the assigned fields of a response to MAP.
func assign(reply []byte, external uint16, address netip.Addr) {
	binary.BigEndian.PutUint16(reply[42:], external)
	a := address.As16()
	copy(reply[44:], a[:])
}

// announcement is the ANNOUNCE response, solicited or not (ANN-1, ANN-2).
func announcement(epoch uint32) []byte {
	p := make([]byte, headerLen)
	setHeader(p, success, 0, epoch)
	return p
}
