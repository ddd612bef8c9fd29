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

// nextOption cuts the first option off p: code is that of data. A nil data says
// that it is longer than what is there.
func nextOption(p []byte) (data, rest []byte) {
	if len(p) >= 4 {
		n := int(binary.BigEndian.Uint16(p[2:]))
		if end := 4 + (n+3)&^3; end <= len(p) {
			return p[4 : 4+n], p[end:]
		}
	}
	return nil, nil
}

// parseOptions reads the options of a request in their order (PCP-8).
func (q *request) parseOptions(p []byte) result {
	for len(p) > 0 {
		data, rest := nextOption(p)
		if data == nil {
			return malformedOption
		}
		if r := q.take(p[0], data); r != success {
			return r
		}
		p = rest
	}
	return success
}

func (q *request) take(code byte, data []byte) result {
	if q.packet[1] != opMap && code != optThirdParty && code != optDescription {
		code |= optOptional - 1 // those are for MAP only: as if they were not known
	}
	switch code {
	case optThirdParty: // MAP-14
		if len(data) == 16 && addrAt(data, 0) == q.From {
			return malformedRequest
		} else if len(data) == 16 {
			return unsuppOption
		}
	case optPreferFailure:
		if len(data) == 0 && !q.Prefer && q.Ports == 0 && q.lifetime != 0 && q.ExternalPort != 0 {
			q.Prefer = true
			return success
		}
	case optFilter:
		return q.filter(data)
	case optDescription: // MAP-15
		s := string(data)
		if !utf8.ValidString(s) {
			return success
		}
		if !q.described {
			q.described, q.Description, q.NoDescription = true, s, s == ""
			return success
		}
	case optPortSet: // MAP-16
		if len(data) == 5 && !q.Prefer && q.Ports == 0 {
			q.Ports, q.Parity = binary.BigEndian.Uint16(data), data[4]&1 != 0
			if q.Ports != 0 {
				return success
			}
		}
	default:
		if code < optOptional {
			return unsuppOption
		}
		return success
	}
	return malformedOption
}

// filter reads a FILTER (MAP-13). A mapping has one at most; the table knows
// whether there is one already.
func (q *request) filter(data []byte) result {
	if len(data) != 20 || q.lifetime == 0 {
		return malformedOption
	}
	bits, host := int(data[1]), addrAt(data, 4)
	q.RemotePort, q.RemoteBits = binary.BigEndian.Uint16(data[2:]), 0
	if bits == 0 {
		q.RemoteHost, q.RemotePort = netip.Addr{}, 0
		q.filtered, q.NoFilter = false, true
		return success
	}
	if host.Is4() {
		bits -= 96
	}
	prefix, err := host.Prefix(bits)
	switch {
	case err != nil || host.BitLen() != q.From.BitLen():
		return malformedOption
	case q.filtered:
		return excessivePeers
	}
	q.filtered = true
	if q.RemoteHost = prefix.Addr(); bits == 0 { // any, of IPv4
		q.RemoteHost = netip.Addr{}
	} else if bits < host.BitLen() {
		q.RemoteBits = uint8(bits)
	}
	return success
}

// appendOptions adds to the reply the options of the request that were processed,
// in their order: of DESCRIPTION what was stored, of PORT_SET what was granted. A
// request that deletes gets them back.
func (q *request) appendOptions(reply []byte, m *portmap.Mapping) []byte {
	for p := q.packet[q.size:]; len(p) > 0; {
		code := p[0]
		data, rest := nextOption(p)
		p = rest
		switch code {
		case optPreferFailure, optFilter:
		case optDescription:
			if !utf8.ValidString(string(data)) {
				continue
			}
			data = []byte(m.Description)
		case optPortSet:
			if m.Ports <= 1 {
				continue
			}
			data = append([]byte(nil), data...)
			binary.BigEndian.PutUint16(data, m.Ports)
			binary.BigEndian.PutUint16(data[2:], m.InternalPort)
		default:
			continue
		}
		reply = append(reply, code, 0, byte(len(data)>>8), byte(len(data)))
		reply = append(append(reply, data...), 0, 0, 0)
		reply = reply[:len(reply)&^3]
	}
	return reply
}
