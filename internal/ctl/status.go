package ctl

import (
	"net/netip"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// shownRefusals is how many refusals status shows.
const shownRefusals = 5

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
	client, most := largestClient(all)
	refusals := s.Journal.refusals(shownRefusals)
	if json {
		var speed any
		if st.Uplink.Speed > 0 {
			speed = st.Uplink.Speed
		}
		return document("version uptime uplink uplink_up uplink_address uplink_speed external_address firewall forward_path forward_path_error lans "+
			"mappings max_mappings max_mappings_per_client largest_client largest_host largest_mappings lease_file lease_file_error refusals",
			st.Version, int(st.Uptime/time.Second), st.Uplink.Name, st.Uplink.Up, st.Uplink.Addr, speed, st.ExternalIP, st.Firewall, st.ForwardPath, st.ForwardErr, lansJSON(st.LANs),
			len(all), st.MaxMappings, st.MaxPerClient, client, names[client.String()], most, st.LeaseFile, st.LeaseFault, refusalsJSON(refusals))
	}
	t := statusText(&st)
	t.line("mappings\t%d of %d", len(all), st.MaxMappings)
	if most > 0 {
		t.line("largest\t%s: %d of %d", names.label(client), most, st.MaxPerClient)
	}
	leases := st.LeaseFile
	if st.LeaseFault != "" {
		leases += ": " + st.LeaseFault
	}
	t.line("leases\t%s", leases)
	now := time.Now()
	for _, e := range refusals {
		t = append(t, "refused\t"...)
		t.decision(e, now)
	}
	return t.align(0)
}

func statusText(st *Status) (t sheet) {
	forward := st.ForwardPath
	if st.ForwardErr != nil {
		forward = "not known: " + st.ForwardErr.Error()
	} else if forward == "" {
		forward = "mapped connections pass"
	}
	up := "down"
	if st.Uplink.Index == 0 {
		up = "no such device"
	} else if st.Uplink.Up {
		up = "up"
	}
	t.line("upnpd\t%s, up %s\nuplink\t%s, %s, %s\nexternal\t%s\nfirewall\t%s\nforwarding\t%s",
		st.Version, hms(st.Uptime), st.Uplink.Name, up, st.Uplink.Addr, st.ExternalIP, st.Firewall, forward)
	for i := range st.LANs {
		l, served := &st.LANs[i], "served"
		if !l.Served {
			served = "not served: " + l.Why
		}
		for i := len(l.Addrs) - 1; i >= 0; i-- {
			served = l.Addrs[i].String() + ", " + served
		}
		t.line("LAN %s\t%s", l.Name, served)
	}
	return t
}

func lansJSON(all []LANStatus) jsonText {
	j := jsonText("[")
	for i := range all {
		l, addrs := &all[i], jsonText("[")
		for _, p := range l.Addrs {
			addrs.comma()
			addrs.value(p.String())
		}
		j.object("device addresses served reason", l.Name, append(addrs, ']'), l.Served, l.Why)
	}
	return append(j, ']')
}

func refusalsJSON(all []*entry) jsonText {
	j := jsonText("[")
	for _, e := range all {
		j.object("time from what verdict times", e.Time.Unix(), e.From, e.What, e.Verdict, e.times)
	}
	return append(j, ']')
}
