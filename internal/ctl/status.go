package ctl

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// shownRefusals is how many refusals status shows.
const shownRefusals = 5

// refusals gives the last ones, the oldest first.
func (j *Journal) refusals() []entry {
	all := j.last()
	var found []entry
	for i := len(all) - 1; i >= 0 && len(found) < shownRefusals; i-- {
		if all[i].Refused {
			found = append([]entry{all[i]}, found...)
		}
	}
	return found
}

// largestClient is the host with the most mappings; with as many, the first.
func largestClient(all []portmap.Mapping) (client netip.Addr, most int) {
	count := map[netip.Addr]int{}
	for i := range all {
		a := all[i].Client
		if count[a]++; count[a] > most {
			client, most = a, count[a]
		}
	}
	return client, most
}

// status shows how the daemon is.
func (s *Server) status(json bool) []byte {
	st, all, names := s.Daemon.Status(), s.Table.List(), s.names()
	if json {
		return s.statusJSON(&st, all, names)
	}
	version := fmt.Sprintf("%s, up %s", clean(st.Version), hms(st.Uptime))
	rows := [][]string{
		{"upnpd", version},
		{"uplink", uplinkText(&st)},
		{"external", addrText(st.ExternalIP)},
		{"firewall", st.Firewall},
		{"forwarding", forwardText(&st)},
	}
	for _, l := range st.LANs {
		served := "served"
		if !l.Served {
			served = "not served: " + clean(l.Why)
		}
		for i := range l.Addrs {
			served = l.Addrs[len(l.Addrs)-1-i].String() + ", " + served
		}
		rows = append(rows, []string{"LAN " + clean(l.Name), served})
	}
	mappings := fmt.Sprintf("%d of %d", len(all), st.MaxMappings)
	if client, most := largestClient(all); most > 0 {
		mappings += fmt.Sprintf("; %s has most: %d of %d", names.label(client), most, st.MaxPerClient)
	}
	leases := clean(st.LeaseFile)
	if st.LeaseFault != "" {
		leases += ": " + clean(st.LeaseFault)
	}
	rows = append(rows, []string{"mappings", mappings}, []string{"leases", orDash(leases)})
	now := time.Now()
	for _, e := range s.Journal.refusals() {
		line := e.appendTo(nil, now)
		rows = append(rows, []string{"refused", string(line[:len(line)-1])})
	}
	return appendColumns(nil, 0, rows)
}

func uplinkText(st *Status) string {
	u := &st.Uplink
	switch {
	case u.Index == 0:
		return clean(u.Name) + ", no such device"
	case !u.Up:
		return clean(u.Name) + ", down"
	case !u.Addr.IsValid():
		return clean(u.Name) + ", up, no address"
	}
	return fmt.Sprintf("%s, up, %v", clean(u.Name), u.Addr)
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}

func forwardText(st *Status) string {
	switch {
	case st.ForwardErr != nil:
		return "not known: " + clean(st.ForwardErr.Error())
	case st.ForwardPath != "":
		return clean(st.ForwardPath)
	}
	return "mapped connections pass"
}

func (s *Server) statusJSON(st *Status, all []portmap.Mapping, names hostNames) []byte {
	var j jsonText
	j.open("", '{')
	j.text("version", st.Version)
	j.number("uptime", int64(st.Uptime/time.Second))
	j.open("uplink", '{')
	j.text("device", st.Uplink.Name)
	j.flag("up", st.Uplink.Up)
	j.addr("address", st.Uplink.Addr)
	if st.Uplink.Speed > 0 {
		j.number("speed", int64(st.Uplink.Speed))
	} else {
		j.raw("speed", "null")
	}
	j.close('}')
	j.addr("external_address", st.ExternalIP)
	j.text("firewall", st.Firewall)
	j.orNull("forward_path", st.ForwardPath)
	j.orNull("forward_path_error", errText(st.ForwardErr))
	j.open("lans", '[')
	for _, l := range st.LANs {
		j.open("", '{')
		j.text("device", l.Name)
		j.open("addresses", '[')
		for _, p := range l.Addrs {
			j.text("", p.String())
		}
		j.close(']')
		j.flag("served", l.Served)
		j.orNull("reason", l.Why)
		j.close('}')
	}
	j.close(']')
	j.number("mappings", int64(len(all)))
	j.number("max_mappings", int64(st.MaxMappings))
	j.number("max_mappings_per_client", int64(st.MaxPerClient))
	if client, most := largestClient(all); most > 0 {
		j.open("largest_client", '{')
		j.addr("client", client)
		j.orNull("host", names.of(client))
		j.number("mappings", int64(most))
		j.close('}')
	} else {
		j.raw("largest_client", "null")
	}
	j.orNull("lease_file", st.LeaseFile)
	j.orNull("lease_file_error", st.LeaseFault)
	j.refusals(s.Journal.refusals())
	j.close('}')
	return append(j, '\n')
}

func (j *jsonText) refusals(entries []entry) {
	j.open("refusals", '[')
	for _, e := range entries {
		j.open("", '{')
		j.number("time", e.Time.Unix())
		j.addr("from", e.From)
		j.text("what", e.What)
		j.text("verdict", e.Verdict)
		j.number("times", int64(e.times))
		j.close('}')
	}
	j.close(']')
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
