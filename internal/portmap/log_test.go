package portmap_test

import (
	"net/netip"
	"slices"
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

// TestRefusalLog: a refusal is a line that says who, what and why; no client
// fills the log, and none silences another (DESIGN "Clear refusals").
func TestRefusalLog(t *testing.T) {
	w := newWorld(t, nil)
	w.mustMap(ask(bob, 5000))
	w.log = nil
	for range 100 {
		w.Map(ask(ann, 5000))
	}
	const line = "refused 192.168.1.10: map TCP port 5000 to 192.168.1.10 port 5000: " +
		"held already: 192.168.1.11 has TCP port 5000 by UPnP for another 3600 s"
	if len(w.log) != 10 || w.log[0] != line || w.log[9] != line {
		t.Errorf("%d lines, want 10 of %q: %q", len(w.log), line, w.log)
	}
	w.log = nil
	w.Map(ask(bob, 80))
	if want := "refused 192.168.1.11: map TCP port 80 to 192.168.1.11 port 80: " +
		"denied by the rules: ports below 1024 need an allow rule"; !slices.Equal(w.log, []string{want}) {
		t.Errorf("another client: %q, want %q", w.log, want)
	}
	w.log = nil
	w.clock += 10 * time.Second
	for range 100 {
		w.Map(ask(ann, 80))
	}
	if len(w.log) != 2 || w.log[0] != "refused 192.168.1.10: 90 more refusals not shown" {
		t.Errorf("after 10 s: %q", w.log)
	}
	w.log = nil
	w.clock += time.Hour // no more than a full burst is saved up
	for range 100 {
		w.Map(ask(ann, 80))
	}
	if len(w.log) != 11 {
		t.Errorf("after an hour: %d lines, want 10 and one about those not shown", len(w.log))
	}
}

// TestRefusalLogOfMany: the sum is bounded too, and so is what is remembered.
func TestRefusalLogOfMany(t *testing.T) {
	w := newWorld(t, nil)
	flood := func(net byte) int {
		w.log = nil
		for i := range 1000 {
			for range 20 {
				w.Map(ask(netip.AddrFrom4([4]byte{10, 9, net + byte(i/250), byte(1 + i%250)}), 80))
			}
		}
		return len(w.log)
	}
	if n := flood(1); n != 650 { // 64 clients and the rest together, 10 each
		t.Errorf("%d lines, want 650", n)
	}
	if n := flood(1); n != 0 {
		t.Errorf("at once again: %d lines, want none", n)
	}
	w.clock += time.Hour
	if n := flood(100); n != 650 { // those of then are forgotten
		t.Errorf("others, an hour later: %d lines, want 650", n)
	}
}
