package ctl

import (
	"sort"
	"strconv"
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
	packets, err := s.Table.Packets()
	if err != nil {
		s.Logf("upnpctl list: packets are not known: %v", err)
	}
	known := err == nil
	names := s.names()
	if json {
		return s.listJSON(all, packets, known, names)
	}
	if len(all) == 0 {
		return []byte("no mappings\n")
	}
	rows := [][]string{{"PROTO", "EXTERNAL", "FROM", "CLIENT", "INTERNAL", "LEASE", "BY", "PACKETS", "DESCRIPTION"}}
	for i := range all {
		m := &all[i]
		from, count := "-", "-"
		if m.RemoteHost.IsValid() {
			from = m.RemoteHost.String()
		}
		switch {
		case !m.Enabled:
			count = "disabled"
		case known:
			count = strconv.FormatUint(packets[m.Key], 10)
		}
		rows = append(rows, []string{
			m.Protocol.String(), strconv.Itoa(int(m.ExternalPort)), from, names.label(m.Client), strconv.Itoa(int(m.InternalPort)),
			hms(s.Table.Remaining(*m)), m.Origin.String(), count, orDash(clean(m.Description)),
		})
	}
	const right = 1<<1 | 1<<4 | 1<<5 | 1<<7
	return appendColumns(nil, right, rows)
}

func (s *Server) listJSON(all []portmap.Mapping, packets map[portmap.Key]uint64, known bool, names hostNames) []byte {
	var j jsonText
	j.open("", '{')
	j.open("mappings", '[')
	for i := range all {
		m := &all[i]
		j.open("", '{')
		j.text("protocol", m.Protocol.String())
		j.number("external_port", int64(m.ExternalPort))
		j.addr("remote_host", m.RemoteHost)
		j.addr("client", m.Client)
		j.orNull("host", names.of(m.Client))
		j.number("internal_port", int64(m.InternalPort))
		j.number("lease", int64(s.Table.Remaining(*m)/time.Second))
		j.text("made_by", m.Origin.String())
		j.addr("owner", m.Owner)
		j.flag("enabled", m.Enabled)
		if known {
			j.number("packets", int64(packets[m.Key]))
		} else {
			j.raw("packets", "null")
		}
		j.text("description", m.Description)
		j.close('}')
	}
	j.close(']')
	j.close('}')
	return append(j, '\n')
}
