package daemon

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// Debian's own Python has the bindings; another one on the PATH may not.
const python = "/usr/bin/python3"

// wantLines checks that the output has the lines, in this order.
func wantLines(t *testing.T, output string, lines ...string) {
	t.Helper()
	rest := output
	for _, line := range lines {
		_, after, ok := strings.Cut(rest, line)
		if !ok {
			t.Fatalf("no %q (in its place) in\n%s", line, output)
		}
		rest = after
	}
}

// TestUpnpc: the commands of miniupnpc's upnpc that the issue names.
func TestUpnpc(t *testing.T) {
	w := startInLab(t, "iptables-nft")
	run := func(args ...string) string { return w.LAN1.Run(t, "upnpc", args...) }

	wantLines(t, run("-s"), "Found valid IGD : http://192.168.77.1:", "/upnp/control/WANIPConn1",
		"Connection Type : IP_Routed", "Status : Connected", "ExternalIPAddress = 11.0.0.2")
	wantLines(t, run("-a", lab.LAN1Addr, "8080", "18080", "TCP", "3600"),
		"external 11.0.0.2:18080 TCP is redirected to internal 192.168.77.10:8080 (duration=3600)")
	wantLines(t, run("-e", "two words", "-r", "8080", "UDP"),
		"external 11.0.0.2:8080 UDP is redirected to internal 192.168.77.10:8080")
	wantLines(t, run("-l"), " 0 TCP 18080->192.168.77.10:8080  'libminiupnpc' ''", " 1 UDP  8080->192.168.77.10:8080  'two words' ''")
	if w.Reaches("TCP", 18080) != 1 || w.Reaches("UDP", 8080) != 1 {
		t.Error("upnpc's mappings do not work")
	}
	wantLines(t, run("-d", "18080", "TCP"), "UPNP_DeletePortMapping() returned : 0")
	wantLines(t, refused(t, w.LAN1, "-d", "18080", "TCP"), "UPNP_DeletePortMapping() failed with code : 714")
	wantLines(t, refused(t, w.LAN2, "-a", lab.LAN2Addr, "8080", "8080", "UDP"), "failed with code 718 (ConflictInMappingEntry)")
}

// refused runs upnpc, which must fail, and gives what it printed.
func refused(t *testing.T, h *lab.Host, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := h.Command(ctx, "upnpc", args...).CombinedOutput()
	if err == nil {
		t.Errorf("upnpc %v succeeded:\n%s", args, out)
	}
	return string(out)
}

// TestPythonMiniupnpc: the library as Python programs use it.
func TestPythonMiniupnpc(t *testing.T) {
	w := startInLab(t, "iptables-legacy")
	out := w.LAN1.Run(t, python, "-c", `
import miniupnpc
u = miniupnpc.UPnP()
u.discoverdelay = 500
print("found", u.discover())
u.selectigd()
print("status", u.statusinfo()[0], u.connectiontype(), u.externalipaddress())
print("add", u.addportmapping(18080, "TCP", u.lanaddr, 8080, "a mapping", ""))
print("specific", u.getspecificportmapping(18080, "TCP"))
print("generic", u.getgenericportmapping(0), u.getgenericportmapping(1))
print("delete", u.deleteportmapping(18080, "TCP"))
print("bytes", u.totalbytereceived() > 0)
`)
	wantLines(t, out, "found 1", "status Connected IP_Routed 11.0.0.2", "add True",
		`specific ('192.168.77.10', 8080, 'a mapping', True, 604`,
		`generic (18080, 'TCP', ('192.168.77.10', 8080), 'a mapping', '1', '', 604`, "None",
		"delete True", "bytes True")
}

// TestGUPnP: a strict control point reads every document and calls actions.
func TestGUPnP(t *testing.T) {
	w := startInLab(t, "iptables-nft")
	out := w.LAN1.Run(t, python, "testdata/gupnp.py", lab.LAN1Addr)
	wantLines(t, out,
		"device urn:schemas-upnp-org:device:InternetGatewayDevice:1",
		"device urn:schemas-upnp-org:device:WANDevice:1",
		"device urn:schemas-upnp-org:device:WANConnectionDevice:1",
		"service urn:schemas-upnp-org:service:Layer3Forwarding:1 2 actions 1 variables",
		"service urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1 5 actions 8 variables",
		"service urn:schemas-upnp-org:service:WANIPConnection:1 11 actions 17 variables",
		"address 11.0.0.2", "add\n", "entry 192.168.77.10 GUPnP <&>", "delete\n", "delete again error 714")
}

// TestGSSDP: discovery without any route for multicast on the router.
func TestGSSDP(t *testing.T) {
	w := raise(t, "iptables-legacy")
	w.Router.Run(t, "ip", "route", "del", "default")
	w.start()
	out := w.LAN1.Run(t, "gssdp-discover", "-i", lab.HostDev, "-n", "1")
	if got := strings.Count(out, "resource available"); got != 10 {
		t.Errorf("gssdp-discover sees %d resources, want the 10 of SPEC 1.3:\n%s", got, out)
	}
}
