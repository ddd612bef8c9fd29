package portmap_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestLog has the lines that people grep for (PEERS.md 1.6).
func TestLog(t *testing.T) {
	w := newWorld(t, nil)
	req := ask(ann, 5000)
	req.InternalPort = 6000
	w.mustMap(req)
	req.Protocol, req.RemoteHost = portmap.UDP, peer1
	w.mustMap(req)
	if err := w.Unmap(req.Key, ann); err != nil {
		t.Fatal(err)
	}
	w.Flush()
	want := []string{
		`AddPortMap: RemoteHost: * Prot: TCP ExtPort: 5000 Int: 192.168.1.10.6000 Lease: 3600 s Desc: "test"`,
		`AddPortMap: RemoteHost: 11.0.0.101 Prot: UDP ExtPort: 5000 Int: 192.168.1.10.6000 Lease: 3600 s Desc: "test"`,
		`DeletePortMap: Proto:UDP Port:5000`,
		`Flush: 1 mappings deleted`,
	}
	if !slices.Equal(w.log, want) {
		t.Errorf("got  %q\nwant %q", w.log, want)
	}
}

// TestLogAbout: each line has the host that it is about as the first address of its
// args, by which the log knows whose share it is.
func TestLogAbout(t *testing.T) {
	about := map[string]netip.Addr{}
	w := newWorld(t, func(c *portmap.Config) {
		c.Logf = func(format string, args ...any) {
			for _, a := range args {
				if host, ok := a.(netip.Addr); ok {
					kind, _, _ := strings.Cut(fmt.Sprintf(format, args...), " ")
					about[kind] = host
					return
				}
			}
			t.Errorf(format, args...)
		}
	})
	for _, req := range []portmap.Request{ask(bob, 5000), ask(bob, 5001), pin(bob6, 5000), pin(bob6, 5001)} {
		req.RemoteHost = peer1
		if req.Pinhole.IsValid() {
			req.RemoteHost = peer6
		}
		w.mustMap(req)
		if req.ExternalPort == 5001 {
			w.Unmap(req.Key, req.Client)
		}
	}
	w.Map(ask(ann, 5000))
	w.after(2 * time.Hour)
	want := map[string]netip.Addr{"AddPortMap:": bob, "DeletePortMap:": bob, "ExpireMapping:": bob,
		"AddPinhole:": bob6, "DeletePinhole:": bob6, "ExpirePinhole:": bob6, "refused": ann}
	if !maps.Equal(about, want) {
		t.Errorf("got  %v\nwant %v", about, want)
	}
}

// TestRefusalLog: a refusal is a line that says who, what and why (DESIGN "Clear
// refusals").
func TestRefusalLog(t *testing.T) {
	w := newWorld(t, nil)
	w.mustMap(ask(bob, 5000))
	w.log = nil
	w.Map(ask(ann, 5000))
	w.Map(ask(bob, 80))
	want := []string{
		"refused 192.168.1.10: map TCP port 5000 to 192.168.1.10 port 5000: " +
			"held already: 192.168.1.11 has TCP port 5000 by UPnP for another 3600 s",
		"refused 192.168.1.11: map TCP port 80 to 192.168.1.11 port 80: " +
			"denied by the rules: ports below 1024 need an allow rule",
	}
	if !slices.Equal(w.log, want) {
		t.Errorf("got  %q\nwant %q", w.log, want)
	}
}
