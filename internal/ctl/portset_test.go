package ctl

import (
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// sets makes what only PCP does: several ports as one mapping, and filters.
func (w *world) sets() {
	w.t.Helper()
	ask := func(port, ports uint16, remote string, bits uint8, remotePort uint16) {
		req := portmap.Request{
			Mapping: portmap.Mapping{
				Key:    portmap.Key{Protocol: portmap.UDP, ExternalPort: port + 1000, RemotePort: remotePort, RemoteBits: bits},
				Client: addr("192.168.1.20"), InternalPort: port, Origin: portmap.PCP, Ports: ports, Nonce: [12]byte{1},
			},
			Lease: time.Hour, From: addr("192.168.1.20"),
		}
		if remote != "" {
			req.RemoteHost = addr(remote)
		}
		if _, err := w.server.Table.MapInternal(req); err != nil {
			w.t.Fatal(err)
		}
	}
	ask(20000, 8, "", 0, 0)
	ask(21000, 3, "11.0.0.0", 24, 0)
	ask(22000, 0, "11.0.0.0", 24, 53)
	ask(23000, 0, "", 0, 53)
	ask(24000, 0, "11.0.0.1", 0, 53)
}

// What is open is shown whole: each port of a PORT_SET, and the prefix of a FILTER.
func TestPortSets(t *testing.T) {
	w := newWorld(t)
	w.sets()
	var rows []string
	for _, line := range strings.Split(w.says(0, "", "list"), "\n") {
		if f := strings.Fields(line); len(f) > 5 {
			rows = append(rows, strings.Join(f[1:len(f)-4], " "))
		}
	}
	const want = `EXTERNAL FROM CLIENT INTERNAL
21000-21007 - 192.168.1.20 20000-20007
22000-22002 11.0.0.0/24 192.168.1.20 21000-21002
23000 11.0.0.0/24 port 53 192.168.1.20 22000
24000 port 53 192.168.1.20 23000
25000 11.0.0.1:53 192.168.1.20 24000`
	if got := strings.Join(rows, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	json := w.says(0, "", "list", "--json")
	for _, part := range []string{`"external_port":21000,"remote_host":null,`, `"ports":8}`, `"remote_host":"11.0.0.0/24",`, `"ports":3}`, `"ports":1}`} {
		if !strings.Contains(json, part) {
			t.Errorf("no %s in %s", part, json)
		}
	}
	if lines := w.says(0, "UDP:22002:11.0.0.0/24:192.168.1.20:21002:", "export", "--remote-host"); strings.Count(lines, "\n") != 14 {
		t.Errorf("exported:\n%s", lines)
	}
	w.says(1, "there is no such mapping", "delete", "UDP", "21008")
	w.says(1, "there is no such mapping", "delete", "UDP", "20999")
	w.says(0, "deleted UDP ports 21000 to 21007 to 192.168.1.20 port 20000", "delete", "UDP", "21007")
}
