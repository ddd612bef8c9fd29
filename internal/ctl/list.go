package ctl

import (
	"fmt"
	"net/netip"
	"sort"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// byKey orders mappings by protocol, external port and remote host, and pinholes
// of one port by host.
type byKey []portmap.Mapping

func (s byKey) Len() int      { return len(s) }
func (s byKey) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s byKey) Less(i, j int) bool {
	a, b := &s[i].Key, &s[j].Key
	switch {
	case a.Protocol != b.Protocol:
		return a.Protocol < b.Protocol
	case a.ExternalPort != b.ExternalPort:
		return a.ExternalPort < b.ExternalPort
	case a.Pinhole != b.Pinhole:
		return a.Pinhole.Less(b.Pinhole)
	case a.RemoteHost != b.RemoteHost:
		return a.RemoteHost.Less(b.RemoteHost)
	}
	return a.RemotePort < b.RemotePort
}

// hosts names the remote hosts, one or those of a prefix; "": all.
func hosts(k *portmap.Key) string {
	switch {
	case !k.RemoteHost.IsValid():
		return ""
	case k.RemoteBits != 0:
		return k.Remote().String()
	}
	return k.RemoteHost.String()
}

// remote names who may connect, "" for everybody.
func remote(k *portmap.Key) string {
	switch {
	case k.RemotePort == 0:
		return hosts(k)
	case k.RemoteHost.IsValid() && k.RemoteBits == 0:
		return netip.AddrPortFrom(k.RemoteHost, k.RemotePort).String()
	}
	return strings.TrimSpace(fmt.Sprintf("%s port %d", hosts(k), k.RemotePort))
}

// ports is the number of a mapping's ports.
func ports(m *portmap.Mapping) uint16 { return max(1, m.Ports) }

// span shows n ports.
func span(first, n uint16) string {
	if n == 1 {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, first+n-1)
}

// list shows the mappings.
func (s *Server) list(json bool) []byte {
	all := s.Table.List()
	sort.Sort(byKey(all))
	counts, err := s.Table.Packets()
	if err != nil {
		s.Logf("upnpctl list: packets are not known: %v", err)
	}
	names := s.names()
	text, rows := sheet("PROTO\tEXTERNAL\tFROM\tCLIENT\tINTERNAL\tLEASE\tBY\tPACKETS\tDESCRIPTION\n"), jsonText("[")
	for i := range all {
		m := &all[i]
		var packets any
		if err == nil {
			packets = counts[m.Key]
		}
		state := packets
		if !m.Enabled {
			state = "disabled"
		}
		left := s.Table.Remaining(*m)
		var id, remotePort any
		if m.ID != 0 {
			id = m.ID
		}
		if m.RemotePort != 0 {
			remotePort = m.RemotePort
		}
		values := []any{m.Protocol, m.ExternalPort, hosts(&m.Key), m.Client, names[m.Client.String()], m.InternalPort, int(left / time.Second),
			m.Origin, m.Owner, m.Enabled, packets, m.Description, remotePort, id, ports(m), names.label(m.Client), state, hms(left), remote(&m.Key),
			span(m.ExternalPort, ports(m)), span(m.InternalPort, ports(m))}
		if json {
			rows.object("protocol external_port remote_host client host internal_port lease made_by owner enabled packets description remote_port unique_id ports", values...)
		} else {
			text.line("%[1]v\t%[20]s\t%[19]s\t%[16]s\t%[21]s\t%[18]s\t%[8]v\t%[17]v\t%[12]s", values...)
		}
	}
	switch {
	case json:
		return document("mappings", append(rows, ']'))
	case len(all) == 0:
		return []byte("no mappings\n")
	}
	return text.align(1<<1 | 1<<4 | 1<<5 | 1<<7)
}
