package igd_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/gena"
	"github.com/linux-igd/upnpd/internal/httpmsg"
	"github.com/linux-igd/upnpd/internal/igd"
	"github.com/linux-igd/upnpd/internal/wan"
)

// subscriber gets the events of a Publisher: one property set each.
type subscriber chan []string

// dial is a connection to it.
func (s subscriber) dial(context.Context, string, netip.Addr, netip.AddrPort) (io.ReadWriteCloser, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		req, err := http.ReadRequest(bufio.NewReader(theirs))
		if err != nil {
			return
		}
		body, _ := io.ReadAll(req.Body)
		root, _ := parseXML(body)
		var all []string
		for _, property := range root.children("property") {
			for _, v := range property.Elements {
				all = append(all, v.XMLName.Local+"="+v.Text)
			}
		}
		io.WriteString(theirs, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		s <- all
	}()
	return ours, nil
}

func (s subscriber) next(t *testing.T) []string {
	t.Helper()
	select {
	case all := <-s:
		return all
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
		return nil
	}
}

// subscribed makes a world whose events come to the subscriber.
func subscribed(t *testing.T, change ...func(*world, *igd.Config)) (*world, subscriber, *gena.Publisher) {
	s := make(subscriber, 16)
	events := gena.New(gena.Config{Dial: s.dial})
	w := newWorld(t, append(change, func(_ *world, c *igd.Config) { c.Events = events })...)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { events.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return w, s, events
}

func (w *world) subscribe(path string) {
	w.t.Helper()
	resp := w.server.Handle(&httpmsg.Request{
		Method: "SUBSCRIBE", Target: path, Minor: 1,
		Header: httpmsg.Header{{Name: "CALLBACK", Value: "<http://" + alice.String() + ":5000/>"}, {Name: "NT", Value: "upnp:event"}},
		Local:  netip.AddrPortFrom(router, 49152), Remote: netip.AddrPortFrom(alice, 50000),
	})
	if resp.Status != 200 {
		w.t.Fatalf("SUBSCRIBE %s: %d", path, resp.Status)
	}
	resp.Sent()
}

// GENA-6: the first event has every evented variable of the service and no
// other, with its value.
func TestInitialEvents(t *testing.T) {
	for _, tt := range []struct {
		services []serviceSpec
		change   []func(*world, *igd.Config)
	}{{services, nil}, {services2, []func(*world, *igd.Config){version2}}} {
		w, s, _ := subscribed(t, tt.change...)
		for _, svc := range tt.services {
			var want []string
			for _, v := range svc.vars {
				if v.evented {
					want = append(want, v.name+"="+w.query(svc, v.name))
				}
			}
			w.subscribe(strings.Replace(svc.control, "control", "event", 1))
			if got := s.next(t); !slices.Equal(got, want) || len(want) == 0 {
				t.Errorf("%s: %q, want %q", svc.control, got, want)
			}
		}
	}
}

// What changes is told: GENA-11 in one message.
func TestEvents(t *testing.T) {
	w, s, events := subscribed(t, version2)
	w.subscribe("/upnp/2/event/WANIPConn1")
	s.next(t)
	w.expect(0, alice, wanIPSpec2, "AddPortMapping", mapping()...)
	events.Changed()
	if got, want := s.next(t), []string{"PortMappingNumberOfEntries=1", "SystemUpdateID=1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	w.expect(0, alice, wanIPSpec2, "AddPortMapping", mapping()...) // a renewal: only the counter
	events.Changed()
	if got, want := s.next(t), []string{"SystemUpdateID=2"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	w.change(wan.Uplink{Name: "wan0"})
	events.Changed()
	if got, want := s.next(t), []string{"ConnectionStatus=Disconnected", "ExternalIPAddress="}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
