package pcp

import (
	"encoding/binary"
	"net/netip"
	"unicode/utf8"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// The options that are known. From 128 on an option may be ignored (PCP-8).
const (
	optThirdParty    = 1
	optPreferFailure = 2
	optFilter        = 3
	optOptional      = 128
	optDescription   = 128 // RFC 7220
	optPortSet       = 130 // RFC 7753
)

// options are those of a MAP request.
type options struct {
	prefer bool // PREFER_FAILURE

	// filter has RemoteHost, RemoteBits and RemotePort of the FILTER behind the
	// last one that clears.
	filtered, cleared bool
	filter            portmap.Key

	described   bool // DESCRIPTION is there
	readable    bool // and is UTF-8
	description string

	ports  uint16 // of PORT_SET; 0: there is none
	parity bool
}

// nextOption cuts the first option off p. ok is false when it is longer than what
// is there.
func nextOption(p []byte) (code byte, data, rest []byte, ok bool) {
	if len(p) < 4 {
		return 0, nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(p[2:]))
	padded := (n + 3) &^ 3
	if padded > len(p)-4 {
		return 0, nil, nil, false
	}
	return p[0], p[4 : 4+n], p[4+padded:], true
}

// appendOption adds an option with its padding.
func appendOption(p []byte, code byte, data []byte) []byte {
	p = append(p, code, 0, byte(len(data)>>8), byte(len(data)))
	p = append(p, data...)
	return append(p, 0, 0, 0)[:(len(p)+3)&^3]
}

// onlyOptional checks the options of an opcode that has none: those that may be
// ignored are.
func onlyOptional(p []byte) result {
	for len(p) > 0 {
		code, _, rest, ok := nextOption(p)
		switch {
		case !ok:
			return malformedOption
		case code < optOptional:
			return unsuppOption
		}
		p = rest
	}
	return success
}

// parseOptions reads the options of a MAP request in their order (PCP-8).
func parseOptions(p []byte, r *request, m *mapRequest) (o options, err result) {
	for len(p) > 0 && err == success {
		code, data, rest, ok := nextOption(p)
		if !ok {
			return o, malformedOption
		}
		err = o.take(code, data, r, m)
		p = rest
	}
	return o, err
}

func (o *options) take(code byte, data []byte, r *request, m *mapRequest) result {
	switch code {
	case optThirdParty: // MAP-14
		switch {
		case len(data) != 16:
			return malformedOption
		case addrAt(data, 0) == r.client:
			return malformedRequest
		}
		return unsuppOption
	case optPreferFailure:
		if len(data) != 0 || o.prefer || o.ports != 0 || r.lifetime == 0 || m.external == 0 {
			return malformedOption
		}
		o.prefer = true
	case optFilter:
		return o.addFilter(data, r)
	case optDescription: // MAP-15
		if o.described {
			return malformedOption
		}
		o.described, o.readable, o.description = true, utf8.Valid(data), string(data)
	case optPortSet: // MAP-16
		if len(data) != 5 || o.prefer || o.ports != 0 || binary.BigEndian.Uint16(data) == 0 {
			return malformedOption
		}
		o.ports, o.parity = binary.BigEndian.Uint16(data), data[4]&1 != 0
	default:
		if code < optOptional {
			return unsuppOption
		}
	}
	return success
}

// addFilter reads a FILTER (MAP-13). A mapping has one at most.
func (o *options) addFilter(data []byte, r *request) result {
	if len(data) != 20 || r.lifetime == 0 {
		return malformedOption
	}
	bits, host := int(data[1]), netip.AddrFrom16([16]byte(data[4:]))
	if bits == 0 {
		o.filtered, o.cleared, o.filter = false, true, portmap.Key{}
		return success
	}
	if r.client.Is4() {
		bits -= 96
	}
	remote, err := host.Unmap().Prefix(bits)
	if err != nil || host.Is4In6() != r.client.Is4() {
		return malformedOption
	}
	f := portmap.Key{RemotePort: binary.BigEndian.Uint16(data[2:])}
	if bits > 0 {
		f.RemoteHost = remote.Addr()
		if !remote.IsSingleIP() {
			f.RemoteBits = uint8(bits)
		}
	}
	if o.filtered && o.filter != f {
		return excessivePeers
	}
	o.filtered, o.filter = true, f
	return success
}

// answerOptions adds to the reply the options of the request that were processed,
// in their order: of DESCRIPTION what was stored, of PORT_SET what was granted. A
// request that deletes gets them back.
func answerOptions(reply, p []byte, o *options, m *portmap.Mapping) []byte {
	for len(p) > 0 {
		code, data, rest, _ := nextOption(p)
		switch code {
		case optPreferFailure, optFilter:
			reply = appendOption(reply, code, data)
		case optDescription:
			if o.readable {
				reply = appendOption(reply, code, []byte(m.Description))
			}
		case optPortSet:
			if m.Ports > 1 {
				reply = appendOption(reply, code, []byte{byte(m.Ports >> 8), byte(m.Ports), byte(m.InternalPort >> 8), byte(m.InternalPort), data[4] & 1})
			}
		}
		p = rest
	}
	return reply
}
