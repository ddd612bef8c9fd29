package ctl

import (
	"sort"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// byKey orders mappings by protocol, external port and remote host.
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
	}
	return a.RemoteHost.Less(b.RemoteHost)
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
		values := []any{m.Protocol, m.ExternalPort, m.RemoteHost, m.Client, names[m.Client.String()], m.InternalPort, int(left / time.Second),
			m.Origin, m.Owner, m.Enabled, packets, m.Description, names.label(m.Client), state, hms(left)}
		if json {
			rows.object("protocol external_port remote_host client host internal_port lease made_by owner enabled packets description", values...)
		} else {
			text.line("%[1]v\t%[2]d\t%[3]v\t%[13]s\t%[6]d\t%[15]s\t%[8]v\t%[14]v\t%[12]s", values...)
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
