package soak

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// ctl runs upnpctl on the router. It fails when check finds a failure.
func (w *world) ctl(args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := w.Router.Command(ctx, filepath.Join(filepath.Dir(lab.Build(w.t)), "upnpctl"), args...).Output()
	if err != nil && args[0] != "check" {
		w.fault("upnpctl %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// table is what upnpctl lists.
func (w *world) table() map[key]lease {
	var doc struct {
		Mappings []struct {
			Protocol     string `json:"protocol"`
			ExternalPort uint16 `json:"external_port"`
			RemoteHost   string `json:"remote_host"`
			RemotePort   uint16 `json:"remote_port"`
			Client       string `json:"client"`
			InternalPort uint16 `json:"internal_port"`
			Ports        uint16 `json:"ports"`
			Lease        int    `json:"lease"`
			MadeBy       string `json:"made_by"`
			Owner        string `json:"owner"`
			Enabled      bool   `json:"enabled"`
			Description  string `json:"description"`
		} `json:"mappings"`
	}
	asked := time.Now()
	if err := json.Unmarshal([]byte(w.ctl("list", "--json")), &doc); err != nil {
		w.fault("upnpctl list: %v", err)
	}
	all := map[key]lease{}
	for _, m := range doc.Mappings {
		l := lease{key: key{m.Protocol, m.ExternalPort, m.RemoteHost, m.RemotePort, m.Client}, internal: m.InternalPort, ports: m.Ports,
			by: m.MadeBy, enabled: m.Enabled, text: m.Description}
		l.first, l.last = shownUntil(asked, m.Lease)
		if _, twice := all[l.key]; twice || m.Owner != m.Client {
			w.fault("upnpctl list: %v is there twice, or asked for by %s", l, m.Owner)
		}
		all[l.key] = l
	}
	return all
}

// shownUntil gives the bounds of a lease of which so many seconds, rounded up, were left
// between asked and now.
func shownUntil(asked time.Time, seconds int) (first, last time.Time) {
	d := time.Duration(seconds) * time.Second
	return asked.Add(d - time.Second), time.Now().Add(d)
}

// compare gives all that differs now.
func (w *world) compare() (table map[key]lease, said []string) {
	table = w.table()
	for _, c := range w.clients {
		listed := maps.Clone(table)
		maps.DeleteFunc(listed, func(k key, _ lease) bool { return k.client != c.addr.String() })
		said = append(said, c.differs(listed)...)
	}
	for k := range table {
		if !slices.ContainsFunc(w.clients, func(c *client) bool { return c.addr.String() == k.client }) {
			said = append(said, fmt.Sprintf("the table has %v of nobody", table[k]))
		}
	}
	said = append(said, differ("lease file", w.leaseFile(), table)...)
	said = append(said, w.shown(table)...)
	said = append(said, w.kernelDiffers(table)...)
	return table, said
}

// differ compares what another place has with the table, which was read before. What
// ends just now may be in one of them.
func differ(place string, have, table map[key]lease) (said []string) {
	for k, l := range table {
		if o, ok := have[k]; (!ok || !o.sees(l)) && l.left() > 0 {
			said = append(said, fmt.Sprintf("%s has %v; the table has %v", place, o, l))
		}
	}
	for k, o := range have {
		if _, ok := table[k]; !ok && o.left() > -inexact {
			said = append(said, fmt.Sprintf("%s has %v, which the table has not", place, o))
		}
	}
	return said
}

// leaseFile reads it as portmap.LeaseFile describes it.
func (w *world) leaseFile() map[key]lease {
	all := map[key]lease{}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/run/upnpd/leases", w.Router.PID))
	if err != nil {
		w.fault("lease file: %v", err)
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		w.t.Fatal(err)
	}
	boot := time.Now().Add(-time.Duration(ts.Nano()))
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for _, line := range lines[min(1, len(lines)):] {
		f := strings.SplitN(line, " ", 17)
		if len(f) != 17 {
			w.fault("lease file: %q", line)
			continue
		}
		number := func(s string) uint16 { n, _ := strconv.ParseUint(s, 10, 16); return uint16(n) }
		l := lease{key: key{f[1], number(f[2]), strings.TrimPrefix(f[3], "-"), number(f[4]), f[5]}, internal: number(f[6]), ports: max(1, number(f[7])),
			by: f[9], enabled: f[8] != "off", text: f[16]}
		ms, _ := strconv.ParseInt(f[13], 10, 64)
		l.first = boot.Add(time.Duration(ms) * time.Millisecond)
		l.last = l.first
		all[l.key] = l
	}
	return all
}

// shown compares what UPnP shows: version 1 all mappings of IPv4, version 2 a client's
// own.
func (w *world) shown(table map[key]lease) (said []string) {
	four := maps.Clone(table)
	maps.DeleteFunc(four, func(k key, _ lease) bool { return strings.Contains(k.client, ":") })
	plain := func(l lease) lease { // what UPnP can say
		l.by, l.ports, l.rport, l.remote = "", 0, 0, strings.SplitN(l.remote, "/", 2)[0]
		return l
	}
	all := map[key]lease{}
	for n := 0; n <= len(four); n++ {
		asked := time.Now()
		out, code := w.clients[n%4].call(old, "GetGenericPortMappingEntry", "NewPortMappingIndex", itoa(n))
		if code != 0 {
			break
		}
		l := plain(entry(asked, out))
		all[l.key] = l
	}
	want := map[key]lease{}
	for _, l := range four {
		l = plain(l)
		want[l.key] = l
	}
	said = append(said, differ("version 1", all, want)...)
	for _, c := range w.clients[:4] {
		own := maps.Clone(want)
		maps.DeleteFunc(own, func(k key, _ lease) bool { return k.client != c.addr.String() })
		have := map[key]lease{}
		for _, proto := range []string{"TCP", "UDP"} {
			maps.Copy(have, c.listing(proto))
		}
		said = append(said, differ("version 2", have, own)...)
	}
	return said
}

// listing is GetListOfPortMappings.
func (c *client) listing(proto string) map[key]lease {
	asked := time.Now()
	out, code := c.call(young, "GetListOfPortMappings", "NewStartPort", "0", "NewEndPort", "65535", "NewProtocol", proto, "NewManage", "1", "NewNumberOfPorts", "0")
	var doc struct {
		Entries []struct {
			Any []struct {
				XMLName xml.Name
				Text    string `xml:",chardata"`
			} `xml:",any"`
		} `xml:"PortMappingEntry"`
	}
	if code != 0 {
		return nil // 730: none
	}
	if err := xml.Unmarshal([]byte(out["NewPortListing"]), &doc); err != nil {
		c.w.fault("GetListOfPortMappings: %v", err)
	}
	all := map[key]lease{}
	for _, e := range doc.Entries {
		out := map[string]string{}
		for _, v := range e.Any {
			out[v.XMLName.Local] = v.Text
		}
		out["NewPortMappingDescription"], out["NewLeaseDuration"] = out["NewDescription"], out["NewLeaseTime"]
		l := entry(asked, out)
		all[l.key] = l
	}
	return all
}

// entry reads the arguments that describe a mapping.
func entry(asked time.Time, out map[string]string) lease {
	number := func(name string) int { n, _ := strconv.Atoi(out[name]); return n }
	l := lease{key: key{out["NewProtocol"], uint16(number("NewExternalPort")), out["NewRemoteHost"], 0, out["NewInternalClient"]},
		internal: uint16(number("NewInternalPort")), enabled: out["NewEnabled"] == "1", text: out["NewPortMappingDescription"]}
	l.first, l.last = shownUntil(asked, number("NewLeaseDuration"))
	return l
}
