package hostile

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// besieged is a house whose lan2 sends what broke others, while lan1 only wants a port.
type besieged struct {
	*house
	bad, bad6, good *peer
	pid             int
}

// TestAdvisories: the advisories of PEERS.md, section 4, one after the other at one
// daemon, which serves an honest client after each.
func TestAdvisories(t *testing.T) {
	t.Parallel()
	h := enter(t).begin()
	s := &besieged{house: h, bad: h.peer(h.LAN2, lab.LAN2Addr).find(), bad6: h.peer(h.LAN2, lab.LAN2Addr6).find(), good: h.peer(h.LAN1, lab.LAN1Addr).find(), pid: h.daemon.PID}
	before := s.memory()
	for _, tt := range []struct {
		name string
		run  func()
	}{
		{"CVE-2013-0229 CVE-2013-0230", s.malformedSearches},
		{"CVE-2012-5958 to 5965, VU#922681", s.longSearches},
		{"CVE-2013-1461 CVE-2013-1462 CVE-2013-2600", s.soapActions},
		{"CVE-2017-1000494, miniupnp 268", s.badXML},
		{"CVE-2019-12106 to 12111, arguments", s.missingArguments},
		{"CVE-2019-12106 to 12111, PCP", s.pcpOptions},
		{"CVE-2019-12106 to 12111, events; CVE-2020-13848", s.subscriptions},
		{"CVE-2016-6255 CVE-2016-8863 CVE-2021-28302", s.posts},
		{"CVE-2014-8361", s.shells},
		{"miniupnpd b24d595 to 8b6de7f: what it took", s.lenient},
		{"miniupnpd: ACLs and IPv6", s.lowPorts},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.t, s.bad.t, s.bad6.t, s.good.t = t, t, t, t
			tt.run()
			s.serves()
		})
	}
	s.t = t
	// What the process has grown by, with the garbage of the last request.
	if after := s.memory(); after > before+6000 && os.Getenv("UPNPD_RACE") == "" {
		t.Errorf("the daemon has %d kB, had %d", after, before)
	} else {
		t.Logf("the daemon has %d kB, had %d", after, before)
	}
}

// serves checks that the same process still grants a port, and nothing else is mapped.
func (s *besieged) serves() {
	s.t.Helper()
	select {
	case <-s.daemon.Ended():
		s.t.Fatal("the daemon has ended")
	default:
	}
	if _, code := s.good.add(wanip1, "AddPortMapping", wish{external: 18080}); code != 0 {
		s.t.Errorf("an honest client: error %d", code)
	}
	if got := s.upnpctl("list"); strings.Count(got, "\n") != 2 || !strings.Contains(got, "18080") {
		s.t.Errorf("there should be one mapping:\n%s", got)
	}
	if code := s.good.remove(wanip1, "TCP", 18080, ""); code != 0 {
		s.t.Errorf("an honest client deletes: error %d", code)
	}
	if s.daemon.PID != s.pid || strings.Contains(s.daemon.Log(), "panic") {
		s.t.Errorf("not the same process, or it panicked")
	}
}

var rss = regexp.MustCompile(`VmRSS:\s*(\d+) kB`)

// memory is the daemon's, in kB.
func (s *besieged) memory() (kB int) {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	found := rss.FindSubmatch(status)
	if err != nil || found == nil {
		s.t.Fatal(err)
	}
	kB, _ = strconv.Atoi(string(found[1]))
	return kB
}

// unanswered sends datagrams, of which none may be answered: the first answer that
// comes is that to a good search behind them.
func (s *besieged) unanswered(datagrams []string) {
	s.t.Helper()
	c, err := s.bad.host.ListenUDP(net.JoinHostPort(lab.LAN2Addr, "0"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	w := writer{c, netip.AddrPortFrom(netip.MustParseAddr(lab.RouterLANAddr), 1900)}
	for i, d := range datagrams {
		if _, err := w.Write([]byte(d)); err != nil {
			s.t.Errorf("%.60q: %v", d, err)
		}
		if i%16 == 15 { // the socket of the daemon is not what is tried here
			time.Sleep(time.Millisecond)
		}
	}
	const good = "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1"
	fmt.Fprint(w, "M-SEARCH * HTTP/1.1\r\nHOST: x:1900\r\nMAN: \"ssdp:discover\"\r\nST: "+good+"\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 2000)
	n, err := c.Read(b)
	if err != nil || !strings.Contains(string(b[:n]), good) {
		s.t.Errorf("the first answer is %q, %v", b[:n], err)
	}
}

// malformedSearches: miniupnpd read beyond what has no end.
func (s *besieged) malformedSearches() {
	const line, man, st = "M-SEARCH * HTTP/1.1\r\n", "MAN: \"ssdp:discover\"\r\n", "ST: ssdp:all\r\n"
	all := []string{"", "\x00", "\r\n\r\n", "M", "M-SEARCH", "M-SEARCH *", "M-SEARCH * HTTP/1.1", line, line + man, line + st, line + man + "ST: ssdp:all",
		line + man + "ST:", line + man + "ST:\r\n\r\n", line + man + "ST: \r\n\r\n", line + man + "ST", line + man + st + "MX", line + man + st + "X: " + strings.Repeat("A", 1480),
		line + man + "ST: ssdp:all\x00\r\n\r\n", line + man + "ST: ssdp:all\r\nST: ssdp:all\r\n\r\n", line + "MAN: ssdp:discover\r\n" + st + "\r\n", line + " folded\r\n" + man + st,
		"M-SEARCH * HTTP/9.9\r\n" + man + st + "\r\n", "m-search * HTTP/1.1\r\n" + man + st + "\r\n", "NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive\r\n\r\n", "HTTP/1.1 200 OK\r\n" + st + "\r\n",
		"GET * HTTP/1.1\r\n" + man + st + "\r\n", line + man + st + strings.Repeat("A: b\r\n", 200), strings.Repeat("\n", 1400), line + strings.Repeat(":\r\n", 300),
		line + man + st + "\r\n" + strings.Repeat("x", 60000)}
	for n := range len(line + man + st) {
		all = append(all, (line + man + st)[:n])
	}
	s.unanswered(all)
	for _, n := range []int{8 << 10, 64 << 10, 1 << 20} {
		status, _ := s.bad.raw("POST " + s.bad.path(s.bad.urls[wanip1].Control) + " HTTP/1.1\r\nHost: " + s.bad.authority() + "\r\nSOAPAction: \"" + wanip1 + "#" + strings.Repeat("A", n) + "\"\r\n\r\n")
		if status != 431 && status != 400 && status != 0 {
			s.t.Errorf("a SOAPAction of %d bytes: %d", n, status)
		}
	}
}

// longSearches are what overflowed libupnp's unique_service_name.
func (s *besieged) longSearches() {
	var all []string
	long := strings.Repeat("A", 1200)
	for _, st := range []string{"uuid:" + long, "uuid:" + long + "::upnp:rootdevice", "uuid:x::urn:" + long, "uuid:schemas:device:" + long + ":::", "urn:schemas-upnp-org:device:" + long + ":1",
		"urn:schemas-upnp-org:service:" + long, "uuid:" + strings.Repeat(":", 1000), "::", "uuid::", "uuid:::upnp:rootdevice", "urn::device::1", "urn:schemas-upnp-org:device:InternetGatewayDevice:",
		"urn:schemas-upnp-org:device:InternetGatewayDevice:" + strings.Repeat("9", 900), "urn:schemas-upnp-org:device:InternetGatewayDevice:-1", "upnp:rootdevice" + long, "ssdp:all" + long, long, "%s%n%x"} {
		all = append(all, "M-SEARCH * HTTP/1.1\r\nHOST: x:1900\r\nMAN: \"ssdp:discover\"\r\nST: "+st+"\r\n\r\n",
			"NOTIFY * HTTP/1.1\r\nHOST: x:1900\r\nNTS: ssdp:alive\r\nNT: "+st+"\r\nUSN: "+st+"\r\nLOCATION: http://"+lab.LAN2Addr+"/\r\n\r\n")
	}
	s.unanswered(all)
}

// soapActions: miniupnpd and the Portable SDK trusted the quotes of the header.
func (s *besieged) soapActions() {
	body := envelope(wanip1, "GetExternalIPAddress", "")
	for _, action := range []string{strings.Repeat(`"`, 7000), `"`, `""`, `#`, `"#"`, `"#GetExternalIPAddress`, wanip1 + "#", `"` + wanip1 + `#`, wanip1 + "GetExternalIPAddress", "%s%s%s%n",
		`"` + wanip1 + "#%n%n%n%s\"", `"` + wanip1 + "#" + strings.Repeat("A", 5000) + `"`, `"` + strings.Repeat("urn:", 1500) + `#GetExternalIPAddress"`, `'` + wanip1 + `#GetExternalIPAddress'`,
		`"` + wanip1 + `#GetExternalIPAddress" "`, `""` + wanip1 + `#GetExternalIPAddress""`, "\xff\xfe"} {
		status, reply := s.bad.ask("POST "+s.bad.path(s.bad.urls[wanip1].Control)+"\r\nSOAPAction: "+action, body)
		if status != 400 && !(status == 500 && leaves(reply)["errorCode"] == "401") {
			s.t.Errorf("SOAPAction %.60q: %d\n%s", action, status, reply)
		}
	}
	status, _ := s.bad.ask("POST "+s.bad.path(s.bad.urls[wanip1].Control)+"\r\nSOAPAction: "+strings.Repeat(`"`, 100000), body)
	if status != 431 && status != 400 && status != 0 {
		s.t.Errorf("100,000 quotes: %d", status)
	}
	if status, _ := s.bad.ask("POST "+s.bad.path(s.bad.urls[wanip1].Control)+"\r\nSOAPAction: \""+wanip1+"#GetExternalIPAddress\"", body); status != 200 {
		s.t.Errorf("the right one: %d", status)
	}
}

// badXML: entity bombs, nesting and what ends too early is 402, and costs nothing.
func (s *besieged) badXML() {
	bomb := `<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "` + strings.Repeat("A", 100) + `">`
	for c := 'b'; c < 'k'; c++ {
		bomb += fmt.Sprintf(`<!ENTITY %c "%s">`, c, strings.Repeat(fmt.Sprintf("&%c;", c-1), 10))
	}
	good := envelope(wanip1, "GetExternalIPAddress", "")
	bodies := []string{bomb + "]>" + envelope(wanip1, "GetExternalIPAddress", "<x>&j;</x>"), `<!DOCTYPE x SYSTEM "file:///etc/passwd">` + good, `<!DOCTYPE x [<!ENTITY % p SYSTEM "http://` + lab.LAN2Addr + `/"> %p;]>` + good,
		strings.Repeat("<a>", 10000), envelope(wanip1, "GetExternalIPAddress", strings.Repeat("<a>", 4500)+strings.Repeat("</a>", 4500)),
		"", "<", "<>", "</", "</>", "<?", "<!", "<!-", "<!--", "<![CDATA[", "<a", "<a b", "<a b=", "<a b=\"", "<a b=\"c", "<a b='c'", "&", "&#", "&#x", "&#x110000;", "&#0;", "&unknown;", "\x00", "\xff\xfe<\x00", "\xef\xbb\xbf",
		"<s:Envelope/>", "<s:Envelope><s:Body/></s:Envelope>", strings.Repeat("<a b='", 3000), strings.Repeat("<!--", 5000), strings.Repeat("&lt;", 7000), "<a " + strings.Repeat("b='c' ", 5000) + ">"}
	for _, body := range bodies {
		for range 3 {
			if status, reply := s.bad.post(wanip1, "GetExternalIPAddress", body); status != 500 || leaves(reply)["errorCode"] != "402" && leaves(reply)["errorCode"] != "401" {
				s.t.Errorf("%.60q: %d\n%s", body, status, reply)
			}
		}
	}
	for n := range len(good) - 1 {
		if status, reply := s.bad.post(wanip1, "GetExternalIPAddress", good[:n]); status != 500 {
			s.t.Errorf("%q: %d\n%s", good[:n], status, reply)
		}
	}
	if status, _ := s.bad.post(wanip1, "GetExternalIPAddress", strings.Repeat(" ", 32<<10)+good); status != 413 && status != 0 {
		s.t.Errorf("a body beyond 32 kB: %d", status)
	}
}

// missingArguments: miniupnpd read what was not there.
func (s *besieged) missingArguments() {
	mapping := []string{"RemoteHost", "", "ExternalPort", "30000", "Protocol", "TCP", "InternalPort", "80", "InternalClient", lab.LAN2Addr, "Enabled", "1", "PortMappingDescription", "", "LeaseDuration", "60"}
	flow := []string{"RemoteHost", "", "RemotePort", "0", "InternalClient", lab.LAN2Addr6, "InternalPort", "8080", "Protocol", "6"}
	for _, tt := range []struct {
		typ, action string
		args        []string
	}{
		{wanip1, "AddPortMapping", mapping}, {wanip2, "AddAnyPortMapping", mapping}, {wanip1, "DeletePortMapping", mapping[:6]}, {wanip1, "GetSpecificPortMappingEntry", mapping[:6]},
		{wanip1, "GetGenericPortMappingEntry", []string{"PortMappingIndex", "0"}},
		{wanip2, "DeletePortMappingRange", []string{"StartPort", "1", "EndPort", "2", "Protocol", "TCP", "Manage", "0"}},
		{wanip2, "GetListOfPortMappings", []string{"StartPort", "1", "EndPort", "2", "Protocol", "TCP", "Manage", "0", "NumberOfPorts", "1"}},
		{wan6fw, "GetOutboundPinholeTimeout", flow}, {wan6fw, "AddPinhole", append(flow[:10:10], "LeaseTime", "60")}, {wan6fw, "UpdatePinhole", []string{"UniqueID", "1", "LeaseTimeNew", "60"}},
		{wan6fw, "DeletePinhole", []string{"UniqueID", "1"}}, {wan6fw, "CheckPinholeWorking", []string{"UniqueID", "1"}}, {wan6fw, "GetPinholePackets", []string{"UniqueID", "1"}},
	} {
		for i := 0; i < len(tt.args); i += 2 {
			less := append(append([]string(nil), tt.args[:i]...), tt.args[i+2:]...)
			if _, code := s.bad6.call(tt.typ, tt.action, less...); code != 402 {
				s.t.Errorf("%s without %s: error %d, want 402", tt.action, tt.args[i], code)
			}
		}
		if _, code := s.bad.call(tt.typ, tt.action); code != 402 {
			s.t.Errorf("%s without anything: error %d, want 402", tt.action, code)
		}
	}
}

// pcpOptions: CVE-2019-12111 and ce35670 are about options that say more than there is.
func (s *besieged) pcpOptions() {
	for _, p := range []*peer{s.bad, s.bad6} {
		for _, code := range []byte{0, optThird, optPrefer, optFilter, optDescription, 129, optPortSet, 255} {
			for _, said := range []int{0, 4, 5, 20, 0xffff} {
				for _, there := range []int{0, 4, 20} {
					for _, op := range []byte{0, pcpMap, pcpPeer} {
						a := pcpAsk{lifetime: 1, proto: protoTCP, internal: 22, nonce: "x"} // below 1024: never granted
						if op == pcpPeer {
							a.peer = netip.AddrPortFrom(p.addr.Next(), 9)
						}
						b := pcpMAP(p.addr, a)
						if op == 0 {
							b = pcpHeader(p.addr, 0, 0)
						}
						b = binary.BigEndian.AppendUint16(append(b, code, 0), uint16(said))
						s.pcpNever(p, append(b, make([]byte, there)...))
					}
				}
			}
			p.pcpRaw(pcpHeader(p.addr, 0, 0)) // all of those have been read
			time.Sleep(80 * time.Millisecond) // the daemon looks at 250 a second of one source, and 256 more
		}
	}
}

// pcpNever sends a packet without waiting for its answer, which serves judges.
func (s *besieged) pcpNever(p *peer, b []byte) {
	s.t.Helper()
	c, err := p.host.Dial("udp", net.JoinHostPort(p.router, "5351"), patience)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	c.Write(b)
}

// subscriptions: event URLs, callbacks and SIDs of any kind.
func (s *besieged) subscriptions() {
	path, long := s.bad.path(s.bad.urls[wanip1].Event), strings.Repeat("A", 4000)
	own := "<http://" + lab.LAN2Addr + ":9"
	nt := "\r\nNT: upnp:event\r\nCALLBACK: "
	for _, tt := range []struct {
		start string
		want  []int
	}{
		{"SUBSCRIBE " + path + nt + own + "/" + long + ">", []int{412}},
		{"SUBSCRIBE " + path + nt + strings.Repeat(own+"/>", 30), []int{412}},
		{"SUBSCRIBE " + path + nt + "<>", []int{412}}, {"SUBSCRIBE " + path + nt + "<", []int{412}}, {"SUBSCRIBE " + path + nt + ">", []int{412}}, {"SUBSCRIBE " + path + nt, []int{412}},
		{"SUBSCRIBE " + path + nt + own, []int{412}}, {"SUBSCRIBE " + path + nt + "http://" + lab.LAN2Addr + ":9/", []int{412}}, {"SUBSCRIBE " + path + nt + "<http://>", []int{412}},
		{"SUBSCRIBE " + path + nt + "<http://" + lab.LAN2Addr + ":99999/>", []int{412}}, {"SUBSCRIBE " + path + nt + "<http://[" + lab.LAN2Addr + "]/>", []int{412}}, {"SUBSCRIBE " + path + nt + "<http://%s%n/>", []int{412}},
		{"SUBSCRIBE /" + long + nt + own + "/>", []int{404}}, {"SUBSCRIBE " + path + "x" + nt + own + "/>", []int{404, 405}}, {"SUBSCRIBE /" + nt + own + "/>", []int{404, 405}},
		{"SUBSCRIBE " + path, []int{412}}, {"SUBSCRIBE " + path + "\r\nSID: ", []int{412}}, {"SUBSCRIBE " + path + "\r\nSID: uuid:" + long, []int{412}}, {"SUBSCRIBE " + path + "\r\nSID: %n", []int{412}},
		{"UNSUBSCRIBE " + path, []int{412}}, {"UNSUBSCRIBE " + path + "\r\nSID: uuid:" + long, []int{412}}, {"UNSUBSCRIBE /" + long + "\r\nSID: x", []int{404}},
		{"SUBSCRIBE " + path + "\r\nSID: uuid:x" + nt + own + "/>", []int{400}}, {"NOTIFY " + path, []int{404, 405, 501}},
	} {
		status, _ := s.bad.ask(tt.start, "")
		if status != tt.want[0] && status != tt.want[len(tt.want)-1] && !(len(tt.want) > 2 && status == tt.want[1]) {
			s.t.Errorf("%.120q: %d, want %v", tt.start, status, tt.want)
		}
	}
}
