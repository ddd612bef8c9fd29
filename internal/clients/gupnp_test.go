package clients

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// Debian's own Python has the bindings; another one on the PATH may not.
const python = "/usr/bin/python3"

// listener is testdata/events.py at work on a LAN host.
type listener struct {
	t  *testing.T
	mu sync.Mutex

	lines  []string
	values map[string]string // "Service Variable": the last value
	count  map[string]int    // events of it
}

// listen starts a GUPnP control point on lan1 for a device type.
func (h *house) listen(deviceType string) *listener {
	h.t.Helper()
	l := &listener{t: h.t, values: map[string]string{}, count: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := h.LAN1.Command(ctx, python, "testdata/events.py", deviceType)
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		l.follow(out)
	}()
	h.t.Cleanup(func() {
		defer cancel()
		in.Close()
		<-read
		if err := cmd.Wait(); err != nil {
			h.t.Errorf("events.py: %v", err)
		}
		if h.t.Failed() {
			h.t.Logf("events.py printed\n%s", strings.Join(l.lines, "\n"))
		}
	})
	return l
}

func (l *listener) follow(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		l.mu.Lock()
		l.lines = append(l.lines, lines.Text())
		var service, variable, value string
		if n, _ := fmt.Sscanf(lines.Text(), "event %s %s %s", &service, &variable, &value); n == 3 {
			_, value, _ = strings.Cut(lines.Text(), "[") // it may have blanks
			l.values[service+" "+variable] = strings.TrimSuffix(value, "]")
			l.count[service+" "+variable]++
		}
		l.mu.Unlock()
	}
}

// hears waits until the last values are these; it gives how long that took.
func (l *listener) hears(what string, want map[string]string) {
	l.t.Helper()
	begin := time.Now()
	for {
		got := map[string]string{}
		l.mu.Lock()
		for name := range want {
			got[name] = l.values[name]
		}
		l.mu.Unlock()
		if maps.Equal(got, want) {
			break
		}
		if time.Since(begin) > patience {
			l.t.Fatalf("%s: the subscriber has %q, want %q", what, got, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if d := time.Since(begin); d > moment {
		l.t.Errorf("%s: the subscriber heard it after %v", what, d)
	}
}

// moment is what an event may take: two pauses of 200 ms, the control point's
// and the test's own time on a busy machine.
const moment = 2 * time.Second

func (l *listener) said(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(strings.Join(l.lines, "\n"), part)
}

// TestGUPnPEvents: a real control point stays subscribed to all services of a
// face while mappings and the uplink change (issue 6, point 1).
func TestGUPnPEvents(t *testing.T) {
	for face, st := range map[string]string{"auto": igd1, "1": igd1, "2": igd2, "auto, asked for 2": igd2} {
		t.Run(face, func(t *testing.T) {
			t.Parallel()
			h := enter(t, "igd = "+strings.Fields(strings.Replace(face, ",", " ", 1))[0]).begin()
			version2 := st == igd2
			p := h.person(h.LAN2, lab.LAN2Addr)
			g := p.read(p.locate(st))
			l := h.listen(st)
			h.initial(l, g, version2)
			h.mappings(l, p, g.service(":WANIPConnection:"), version2)
			h.uplink(l)
			if got := l.said("lost") + l.said("gone"); got != 0 || l.said("found") != 1 {
				t.Errorf("the subscription was lost or began again")
			}
			l.agrees(p, g.service(":WANIPConnection:"))
		})
	}
}

// initial wants every evented variable of every service with its value (GENA-6).
func (h *house) initial(l *listener, g *gateway, version2 bool) {
	h.t.Helper()
	want := map[string]string{
		"Layer3Forwarding DefaultConnectionService":   g.uuids[2] + ":WANConnectionDevice:1,urn:upnp-org:serviceId:WANIPConn1",
		"WANCommonInterfaceConfig PhysicalLinkStatus": "Up",
		"WANIPConnection PossibleConnectionTypes":     "IP_Routed",
		"WANIPConnection ConnectionStatus":            "Connected",
		"WANIPConnection ExternalIPAddress":           lab.WANAddr,
		"WANIPConnection PortMappingNumberOfEntries":  "0",
	}
	if version2 {
		want["Layer3Forwarding DefaultConnectionService"] = g.uuids[2] + ":WANConnectionDevice:2,urn:upnp-org:serviceId:WANIPConn1"
		want["WANIPConnection SystemUpdateID"] = "0"
		want["WANIPv6FirewallControl FirewallEnabled"] = "1"
		want["WANIPv6FirewallControl InboundPinholeAllowed"] = "1"
	}
	until(h.t, "it is subscribed", func() bool { return len(g.services) == l.said("evented") && l.said("event ") >= len(want) })
	l.hears("initial events", want)
	if l.said("event ") != len(want) {
		h.t.Errorf("initial events are not %d in number", len(want))
	}
}

// mappings come, go and expire (GENA-10, GENA-11).
func (h *house) mappings(l *listener, p *person, wanip service, version2 bool) {
	h.t.Helper()
	id := 0
	entries := func(what, n string) {
		h.t.Helper()
		want := map[string]string{"WANIPConnection PortMappingNumberOfEntries": n}
		if id++; version2 {
			want["WANIPConnection SystemUpdateID"] = fmt.Sprint(id)
		}
		l.hears(what, want)
	}
	for _, port := range []int{18080, 18081} {
		if code := p.add(wanip, port, 0); code != 0 {
			h.t.Fatalf("AddPortMapping: error %d", code)
		}
		entries("a mapping is made", fmt.Sprint(port-18079))
	}
	if code := p.remove(wanip, 18080); code != 0 {
		h.t.Errorf("DeletePortMapping: error %d", code)
	}
	entries("it is deleted", "1")
	if code := p.add(wanip, 18082, 1); code != 0 {
		h.t.Fatalf("AddPortMapping: error %d", code)
	}
	entries("one with a lease is made", "2")
	time.Sleep(900 * time.Millisecond) // its life
	entries("it has expired", "1")
}

// uplink has its address and its link changed.
func (h *house) uplink(l *listener) {
	h.t.Helper()
	const address, status, link = "WANIPConnection ExternalIPAddress", "WANIPConnection ConnectionStatus", "WANCommonInterfaceConfig PhysicalLinkStatus"
	for _, step := range []struct {
		what string
		on   *lab.Host
		ip   []string // the last one is waited for
		want map[string]string
	}{
		{"another address", h.Router, []string{"addr add 11.0.0.3/25 dev wan0", "addr del 11.0.0.2/24 dev wan0"}, map[string]string{address: "11.0.0.3", status: "Connected", link: "Up"}},
		{"no address", h.Router, []string{"-4 addr flush dev wan0"}, map[string]string{address: "", status: "Disconnected", link: "Up"}},
		{"an address again", h.Router, []string{"addr add 11.0.0.4/24 dev wan0"}, map[string]string{address: "11.0.0.4", status: "Connected", link: "Up"}},
		{"the cable is out", h.Internet, []string{"link set eth0 down"}, map[string]string{link: "Down", status: "Disconnected"}},
		{"the cable is in", h.Internet, []string{"link set eth0 up"}, map[string]string{link: "Up", status: "Connected", address: "11.0.0.4"}},
		{"the device is down", h.Router, []string{"link set wan0 down"}, map[string]string{link: "Down", status: "Disconnected"}},
		{"the device is up", h.Router, []string{"link set wan0 up"}, map[string]string{link: "Up", status: "Connected", address: "11.0.0.4"}},
	} {
		for _, line := range step.ip {
			step.on.Run(h.t, "ip", strings.Fields(line)...)
		}
		l.hears(step.what, step.want)
	}
}

// agrees compares what was told with what the actions answer.
func (l *listener) agrees(p *person, wanip service) {
	l.t.Helper()
	address, _ := p.call(wanip, "GetExternalIPAddress")
	status, _ := p.call(wanip, "GetStatusInfo")
	l.hears("at the end", map[string]string{
		"WANIPConnection ExternalIPAddress":          address["NewExternalIPAddress"],
		"WANIPConnection ConnectionStatus":           status["NewConnectionStatus"],
		"WANIPConnection PortMappingNumberOfEntries": "1",
	})
}
