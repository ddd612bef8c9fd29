package clients

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// version2 matches what Windows and Xbox stumble over (INT-1).
var version2 = regexp.MustCompile(`:2\b|/2/|WANIPv6|DeviceProtection|AddAnyPortMapping|DeletePortMappingRange|GetListOfPortMappings|SystemUpdateID|A_ARG_TYPE`)

// TestWindowsReads: nothing of version 2 is in what Windows fetches, by IPv4
// and IPv6 (issue 6, point 2).
func TestWindowsReads(t *testing.T) {
	h := enter(t, "igd = auto").begin()
	for own, router := range map[string]string{
		lab.LAN1Addr: lab.RouterLANAddr, lab.LAN1Addr6: lab.RouterLANAddr6,
		linkLocal(t, h.LAN1, lab.HostDev).String(): linkLocal(t, h.Router, lab.LANDev).String(),
	} {
		p := h.person(h.LAN1, own)
		at := netip.AddrPortFrom(netip.MustParseAddr(router), 49152).String()
		v1, v2 := p.read("http://"+at+"/gatedesc.xml"), p.read("http://"+at+"/upnp/2/gatedesc.xml")
		if len(v1.services) != 3 || len(v2.services) != 4 {
			t.Errorf("services %v and %v", v1.services, v2.services)
		}
		for _, face := range []struct {
			g    *gateway
			want bool
		}{{v1, false}, {v2, true}} {
			docs := map[string]string{face.g.location: face.g.doc}
			for _, s := range face.g.services {
				r, doc := p.do("GET", s.SCPD, http.Header{"User-Agent": {"Microsoft-Windows/10.0 UPnP/1.0"}}, "")
				if r.StatusCode != 200 || !strings.Contains(doc, "<scpd ") {
					t.Errorf("%s: %s", s.SCPD, r.Status)
				}
				docs[s.SCPD] = doc
			}
			found := false
			for url, doc := range docs {
				words := version2.FindAllString(doc, -1)
				found = found || words != nil
				if !face.want && words != nil {
					t.Errorf("%s has %q", url, words)
				}
			}
			if found != face.want {
				t.Errorf("words of version 2 below %s: %v", face.g.location, found)
			}
		}
	}
}

// TestOneTable: a mapping made by one face is there for the other; version 2
// shows a host its own, version 1 and upnpctl all (DESIGN.md, "Secure by
// default"; ACC-2, ACC-3).
func TestOneTable(t *testing.T) {
	h := enter(t, "igd = auto").begin()
	p1, p2 := h.person(h.LAN1, lab.LAN1Addr), h.person(h.LAN2, lab.LAN2Addr)
	old := p1.read(p1.locate(igd1)).service("WANIPConnection:1")
	young := p1.read(p1.locate(igd2)).service("WANIPConnection:2")
	for _, c := range []int{p1.add(young, 18081, 0), p1.add(old, 18082, 0), p2.add(young, 18083, 0), p2.add(old, 18084, 0)} {
		if c != 0 {
			t.Fatalf("AddPortMapping: error %d", c)
		}
	}
	for _, tt := range []struct {
		who  *person
		face service
		want []string
		end  int
	}{
		{p1, old, []string{"18081", "18082", "18083", "18084"}, 713}, {p2, old, []string{"18081", "18082", "18083", "18084"}, 713},
		{p1, young, []string{"18081", "18082"}, 713}, {p2, young, []string{"18083", "18084"}, 713},
	} {
		var got []string
		for i := 0; ; i++ {
			out, code := tt.who.call(tt.face, "GetGenericPortMappingEntry", "PortMappingIndex", fmt.Sprint(i))
			if code != 0 {
				if code != tt.end {
					t.Errorf("%v by %s ends with error %d, want %d", tt.who.addr, tt.face.Type, code, tt.end)
				}
				break
			}
			got = append(got, out["NewExternalPort"])
		}
		slices.Sort(got)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%v by %s sees %v, want %v", tt.who.addr, tt.face.Type, got, tt.want)
		}
	}
	specific := func(p *person, s service, port string) int {
		_, code := p.call(s, "GetSpecificPortMappingEntry", "RemoteHost", "", "ExternalPort", port, "Protocol", "TCP")
		return code
	}
	for _, tt := range []struct{ got, want int }{
		{specific(p2, old, "18081"), 0}, {specific(p1, old, "18081"), 0},
		{specific(p2, young, "18082"), 606}, {specific(p1, young, "18082"), 0},
	} {
		if tt.got != tt.want {
			t.Errorf("GetSpecificPortMappingEntry: %d, want %d", tt.got, tt.want)
		}
	}
	control := h.Router.Run(t, "sh", "-c", "ln -sf '"+lab.Build(t)+"' /run/upnpctl && /run/upnpctl list")
	for _, port := range []string{"18081", "18082", "18083", "18084"} {
		if strings.Count(control, port) != 1 {
			t.Errorf("upnpctl list shows %s not once:\n%s", port, control)
		}
	}
	// Each face deletes what the other made; nobody deletes another's.
	for _, tt := range []struct{ got, want int }{
		{p2.remove(young, 18081), 606}, {p1.remove(old, 18081), 0}, {p1.remove(young, 18082), 0}, {p1.remove(old, 18082), 714}, {p1.remove(young, 18081), 714},
	} {
		if tt.got != tt.want {
			t.Errorf("DeletePortMapping: %d, want %d", tt.got, tt.want)
		}
	}
}

// TestReloadEvents: a rule changes without harm to subscriptions. With another
// igd or ipv6 the devices say goodbye; subscriptions are gone, as SSDP-16 has
// it, and new ones begin.
func TestReloadEvents(t *testing.T) {
	h := enter(t, "igd = auto")
	r := h.record()
	h.begin()
	p := h.person(h.LAN1, lab.LAN1Addr)
	old := p.read(p.locate(igd1)).service("WANIPConnection:1")
	young := p.read(p.locate(igd2)).service("WANIPConnection:2")
	l := h.listen(igd1)
	l.hears("at first", map[string]string{"WANIPConnection PortMappingNumberOfEntries": "0"})
	s := p.subscriber()
	first, second := s.subscribe(old), s.subscribe(young)
	s.wait(first, 1)
	s.wait(second, 1)
	h.reload("configuration read again", 1, "igd = auto", "deny 5000 0.0.0.0/0 0-65535")
	p.add(old, 18080, 0)
	s.wait(first, 2)
	s.wait(second, 2)
	r.take()

	h.reload("Advertisements Sent", 2, "igd = 1", "ipv6 = no")
	until(t, "goodbye of both faces", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		n := map[string]bool{}
		for _, d := range r.got {
			if d.header.Get("NTS") == "ssdp:byebye" && d.header.Get("NT") == "upnp:rootdevice" {
				n[d.header.Get("HOST")+d.header.Get("USN")] = true
			}
		}
		return len(n) == 6 // two devices, three groups
	})
	if r := p.request("SUBSCRIBE", old, "SID", first); r.StatusCode != 412 {
		t.Errorf("renewal after the reload: %s, want 412", r.Status)
	}
	for _, method := range []string{"SUBSCRIBE", "UNSUBSCRIBE"} { // there is no such face now
		if resp, _ := p.do(method, young.Event, http.Header{"SID": {second}}, ""); resp.StatusCode != 404 {
			t.Errorf("%s on the face that is gone: %s, want 404", method, resp.Status)
		}
	}
	six := h.person(h.LAN1, lab.LAN1Addr6)
	if r, _, err := six.try("GET", "http://["+lab.RouterLANAddr6+"]:49152/gatedesc.xml", nil, ""); err == nil {
		t.Errorf("with ipv6 = no an IPv6 address answers %s", r.Status)
	}
	third := s.subscribe(old)
	if e := s.wait(third, 1)[0]; e.vars["PortMappingNumberOfEntries"] != "1" || len(e.vars) != 4 {
		t.Errorf("a new subscription begins with %v", e.vars)
	}
	p.add(old, 18081, 0)
	s.wait(third, 2)
	if a, b := len(s.events(first)), len(s.events(second)); a != 2 || b != 2 {
		t.Errorf("subscriptions of before the reload have %d and %d events, want 2", a, b)
	}
	l.hears("after the reload", map[string]string{"WANIPConnection PortMappingNumberOfEntries": "2"})
	// A search between the two goodbyes of the start is answered, so GUPnP may
	// see the device come and go once more.
	until(t, "GUPnP sees the device go and come", func() bool { return l.said("gone") > 0 && l.said("found") == l.said("gone")+1 })

	h.reload("Advertisements Sent", 3, "igd = auto", "ipv6 = yes")
	fourth := s.subscribe(young)
	if e := s.wait(fourth, 1)[0]; e.vars["PortMappingNumberOfEntries"] != "2" || len(e.vars) != 5 {
		t.Errorf("a new subscription of version 2 begins with %v", e.vars)
	}
	if r, _ := six.do("GET", "http://["+lab.RouterLANAddr6+"]:49152/gatedesc.xml", nil, ""); r.StatusCode != 200 {
		t.Errorf("with ipv6 = yes again: %s", r.Status)
	}
}

// TestGrowth: 200 subscriptions that come and go leave nothing in the daemon.
func TestGrowth(t *testing.T) {
	h := enter(t).begin()
	p := h.person(h.LAN1, lab.LAN1Addr)
	wanip := p.read(p.locate(igd1)).service("WANIPConnection:1")
	s := p.subscriber()
	files := func() int {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", h.daemon.PID))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	const hosts, each, rounds = 2, 10, 10
	people := []*person{p, h.person(h.LAN2, lab.LAN2Addr)}
	subscribers := []*subscriber{s, people[1].subscriber()}
	var before int
	for round := range rounds {
		var sids [hosts][each]string
		for i, s := range subscribers {
			for j := range each {
				sids[i][j] = s.subscribe(wanip)
			}
		}
		for i, s := range subscribers {
			for j, sid := range sids[i] {
				if (round+j)%2 == 0 { // others leave before the initial event (GENA-6)
					s.wait(sid, 1)
				}
				if r := people[i].request("UNSUBSCRIBE", wanip, "SID", sid); r.StatusCode != 200 {
					t.Fatalf("UNSUBSCRIBE: %s", r.Status)
				}
				s.wait(sid, 1)
			}
		}
		if round == 0 {
			time.Sleep(100 * time.Millisecond)
			before = files()
		}
	}
	until(t, "no more open files than after the first round", func() bool { return files() <= before })
	// A dump of all goroutines, which ends the daemon.
	if err := h.daemon.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-h.daemon.Ended()
	h.daemon.Kill()
	dump := h.daemon.Log()
	if n := strings.Count(dump, "\ngoroutine "); n < 5 || n > 48 || strings.Contains(dump, "deliver") {
		t.Errorf("%d goroutines, one that delivers: %v", n, strings.Contains(dump, "deliver"))
	} else {
		t.Logf("%d files before, %d goroutines", before, n)
	}
}
