package clients

import (
	"context"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// upnpc runs miniupnpc's upnpc on lan1 and gives what it has to say of an action: all
// but what it prints of itself and of the search.
func (w *pinRouter) upnpc(args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := w.LAN1.Command(ctx, "upnpc", args...).CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed { // an action that fails, perhaps
		w.t.Fatalf("upnpc %v: %v\n%s", args, err, out)
	}
	_, said, ok := strings.Cut(string(out), "Local LAN ip address : ")
	if !ok {
		w.t.Fatalf("upnpc %v finds nothing:\n%s", args, out)
	}
	_, said, _ = strings.Cut(said, "\n")
	return said
}

// TestUpnpcPinholes: upnpc's IPv6 commands, found by a search from a link-local
// address, and with the URL of version 2 while version 1 is announced (issue 6, point 5).
func TestUpnpcPinholes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, igd string
		at        func(w *pinRouter) []string
	}{
		{"search", "2", func(*pinRouter) []string { return []string{"-m", lab.HostDev} }},
		{"global", "auto", func(w *pinRouter) []string {
			return []string{"-u", w.point(w.LAN1, lab.LAN1Addr6).location}
		}},
		{"link-local", "auto", func(w *pinRouter) []string {
			at := w.point(w.LAN1, pinLinkLocal(t, w.LAN1, lab.HostDev)).location
			return []string{"-m", lab.HostDev, "-u", strings.Replace(at, "]", "%25"+lab.HostDev+"]", 1)}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := raisePin(t, lab.Nftables)
			w.start("--igd", tt.igd)
			at := append([]string{"-6"}, tt.at(w)...)
			run := func(args ...string) string { return w.upnpc(append(at[:len(at):len(at)], args...)...) }
			want := func(want string, args ...string) {
				t.Helper()
				if got := run(args...); got != want {
					t.Errorf("upnpc %v says\n%swant\n%s", args, got, want)
				}
			}
			// The search takes two seconds each time; once is enough.
			open := run("-A", "", "0", lab.LAN1Addr6, "8080", "TCP", "3600")
			found := regexp.MustCompile(`^AddPinhole: \(\[\]:0 -> \[2001:db8:77::10\]:8080\) / Pinhole ID = (\d+)\n$`).FindStringSubmatch(open)
			if found == nil {
				t.Fatalf("upnpc -A says\n%s", open)
			}
			if tt.name == "search" {
				at = []string{"-6", "-u", w.point(w.LAN1, lab.LAN1Addr6).location}
			}
			id := found[1]
			want("GetPinholePackets: Pinhole ID = "+id+" / PinholePackets = 0\n", "-K", id)
			want("CheckPinholeWorking() failed with code 709 (NoPacketSent)\n", "-C", id)
			w.wantIn("with upnpc -A", true, false)
			want("CheckPinholeWorking: Pinhole ID = "+id+" / IsWorking = Yes\n", "-C", id)
			want("CheckPinholeWorking: Pinhole ID = "+id+" / IsWorking = Yes\nUpdatePinhole: Pinhole ID = "+id+" with Lease Time: 600\n", "-U", id, "600")
			want("GetOutboundPinholeTimeout: ([2001:db8:77::10]:8080 -> []:0) / Timeout = 7440\n", "-G", "", "0", lab.LAN1Addr6, "8080", "6")
			want("GetOutboundPinholeTimeout: ([2001:db8:77::10]:8080 -> [2001:db8:ff::1]:53) / Timeout = 120\n", "-G", lab.InternetAddr6, "53", lab.LAN1Addr6, "8080", "17")
			if said := run("-S"); !strings.Contains(said, "Firewall Enabled: Yes\n   Inbound Pinhole Allowed: Yes\n") {
				t.Errorf("upnpc -S says\n%s", said)
			}
			want("UPNP_DeletePinhole() returned : 0\n", "-D", id)
			w.wantIn("after upnpc -D", false, false)
			want("UPNP_DeletePinhole() returned : 704\n", "-D", id)
			want("GetPinholePackets() failed with code 704 (NoSuchEntry)\n", "-K", id)
			want("AddPinhole([]:0 -> [2001:db8:77::20]:8080) failed with code 606 (Action not authorized)\n", "-A", "", "0", lab.LAN2Addr6, "8080", "UDP", "60")
			w.stop()
		})
	}
}

// TestUpnpcVersion2: upnpc's commands of version 2 by IPv4 (issue 6, point 5; SPEC
// WIP-3, WIP-14).
func TestUpnpcVersion2(t *testing.T) {
	t.Parallel()
	for _, igd := range []string{"auto", "2"} {
		t.Run(igd, func(t *testing.T) {
			t.Parallel()
			w := raisePin(t, "iptables-nft")
			w.start("--igd", igd)
			p := w.unpointed(w.LAN1, lab.LAN1Addr)
			found := pinLocation.FindStringSubmatch(p.search(pinConnect2, lab.RouterLANAddr, pinPatience))
			if found == nil {
				t.Fatal("no version 2")
			}
			lease := regexp.MustCompile(`' (3600|359\d)\n`)
			want := func(want string, args ...string) {
				t.Helper()
				if got := lease.ReplaceAllString(w.upnpc(append([]string{"-u", found[1]}, args...)...), "' LEASE\n"); got != want {
					t.Errorf("upnpc %v says\n%swant\n%s", args, got, want)
				}
			}
			const head = "ExternalIPAddress = 11.0.0.2\n"
			const columns = " i protocol exPort->inAddr:inPort description remoteHost leaseTime\n"
			const none = "GetListOfPortMappings() returned 730 (UnknownError)\n"
			want(head+"InternalIP:Port = 192.168.77.10:8080\nexternal 11.0.0.2:18080 TCP is redirected to internal 192.168.77.10:8080 (duration=3600)\n",
				"-n", lab.LAN1Addr, "8080", "18080", "TCP", "3600")
			want(head+"InternalIP:Port = 192.168.77.10:8081\nexternal 11.0.0.2:18081 UDP is redirected to internal 192.168.77.10:8081 (duration=3600)\n",
				"-e", "two words", "-n", lab.LAN1Addr, "8081", "18081", "UDP", "3600")
			// Another host has the port: another one is taken.
			if said := w.LAN2.Run(t, "upnpc", "-u", found[1], "-n", lab.LAN2Addr, "8080", "18080", "TCP", "3600"); !regexp.MustCompile(
				`external 11\.0\.0\.2:(\d+) TCP is redirected to internal 192\.168\.77\.20:8080`).MatchString(said) || strings.Contains(said, ":18080 TCP is redirected") {
				t.Errorf("another host's -n says\n%s", said)
			}
			want(columns+" 0 TCP 18080->192.168.77.10:8080  'libminiupnpc' '' LEASE\n"+
				" 1 UDP 18081->192.168.77.10:8081  'two words' '' LEASE\n", "-L") // only its own
			want("UPNP_DeletePortMappingRange() returned : 0\n", "-N", "18000", "18099", "TCP")
			want("UPNP_DeletePortMappingRange() failed with code : 730\n", "-N", "18000", "18099", "TCP")
			want(none+" 0 UDP 18081->192.168.77.10:8081  'two words' '' LEASE\n", "-L")
			want("UPNP_DeletePortMappingRange() returned : 0\n", "-N", "18081", "18081", "UDP")
			want(none+none, "-L")
			w.stop()
		})
	}
}
