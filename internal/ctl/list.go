package ctl

import (
	"fmt"
	"net/netip"
	"sort"
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

// remote names who may connect, "" for everybody.
func remote(k *portmap.Key) string {
	switch {
	case k.RemotePort != 0 && k.RemoteHost.IsValid():
		return netip.AddrPortFrom(k.RemoteHost, k.RemotePort).String()
	case k.RemotePort != 0:
		return fmt.Sprintf("port %d", k.RemotePort)
	case k.RemoteHost.IsValid():
		return k.RemoteHost.String()
	}
	return ""
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
		values := []any{m.Protocol, m.ExternalPort, m.RemoteHost, m.Client, names[m.Client.String()], m.InternalPort, int(left / time.Second),
			m.Origin, m.Owner, m.Enabled, packets, m.Description, remotePort, id, names.label(m.Client), state, hms(left), remote(&m.Key)}
		if json {
			rows.object("protocol external_port remote_host client host internal_port lease made_by owner enabled packets description remote_port unique_id", values...)
		} else {
			text.line("%[1]v\t%[2]d\t%[18]s\t%[15]s\t%[6]d\t%[17]s\t%[8]v\t%[16]v\t%[12]s", values...)
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
