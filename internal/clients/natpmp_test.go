package clients

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	natpmp "github.com/jackpal/go-nat-pmp"

	"github.com/linux-igd/upnpd/internal/lab"
)

// secondAddr is another address of the internet host, outside of the prefixes that
// the tests let in.
const secondAddr = "11.0.0.129"

// raiseMaps starts the daemon on a router whose LAN hosts serve TCP and UDP on port
// pinPort by IPv4, too. options are lines of upnpd.conf; flags start the daemon again.
func raiseMaps(t *testing.T, w *pinRouter, options ...string) (flags []string) {
	t.Helper()
	w.Internet.Run(t, "ip", "addr", "add", secondAddr+"/24", "dev", lab.HostDev)
	for _, h := range []*lab.Host{w.LAN1, w.LAN2} {
		_, tcp := h.EchoTCP(pinPort)
		_, udp := h.EchoUDP(pinPort)
		if err := errors.Join(tcp, udp); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(t.TempDir(), "upnpd.conf")
	if err := os.WriteFile(conf, []byte(strings.Join(append(options, ""), "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	flags = []string{"--config", conf}
	w.start(flags...)
	return flags
}

// reaches asks a server from an address of the internet host, and gives the server's
// own address and port, "" when nothing comes back. want says how long to wait.
func reaches(l *lab.Lab, from, proto, to string, want bool) string {
	timeout := pinSilence
	if want {
		timeout = pinPatience
	}
	reply := make([]byte, 200)
	n := 0
	l.Internet.Do(func() error {
		d := net.Dialer{Timeout: timeout}
		if proto == "tcp" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		} else {
			d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
		}
		c, err := d.Dial(proto, to)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(timeout))
		if proto == "udp" {
			c.Write([]byte{0})
		}
		n, err = c.Read(reply)
		return err
	})
	_, reached, _ := strings.Cut(string(reply[:n]), " ")
	reached, _, _ = strings.Cut(reached, "-")
	return reached
}

// wantReached checks where a connection from the internet to the router gets.
func wantReached(t *testing.T, l *lab.Lab, proto string, port int, want string) {
	t.Helper()
	to := net.JoinHostPort(lab.WANAddr, strconv.Itoa(port))
	if got := reaches(l, lab.InternetAddr, proto, to, want != ""); got != want {
		t.Errorf("%s port %d gets to %q, want %q", proto, port, got, want)
	}
}

// jackpal runs requests of github.com/jackpal/go-nat-pmp on a host.
func jackpal(h *lab.Host, f func(c *natpmp.Client) error) error {
	c := natpmp.NewClientWithTimeout(net.ParseIP(lab.RouterLANAddr), pinPatience)
	return h.Do(func() error { return f(c) })
}

// pmpMaps maps by it, and checks all that it tells. want is the port, otherPort any
// but the suggested one.
func pmpMaps(t *testing.T, h *lab.Host, proto string, internal, suggested, want, lifetime int) (port int) {
	t.Helper()
	err := jackpal(h, func(c *natpmp.Client) error {
		r, err := c.AddPortMapping(proto, internal, suggested, lifetime)
		if err != nil {
			return err
		}
		if port = int(r.MappedExternalPort); want == otherPort && port != suggested && port > 0 {
			want = port
		}
		if int(r.InternalPort) != internal || port != want || int(r.PortMappingLifetimeInSeconds) != lifetime {
			err = fmt.Errorf("%+v, want port %d for %d s", *r, want, lifetime)
		}
		return err
	})
	if err != nil {
		t.Errorf("%s: %s port %d, suggested %d: %v", h.Name, proto, internal, suggested, err)
	}
	return port
}

const otherPort = -1

// list runs upnpctl list on a router, and gives the words of the line of each port.
func list(t testing.TB, l *lab.Lab) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, line := range strings.Split(upnpctl(t, l, "list"), "\n") {
		if words := strings.Fields(line); len(words) > 2 && words[0] != "PROTO" {
			all[words[0]+" "+words[1]] = words
		}
	}
	return all
}

func upnpctl(t testing.TB, l *lab.Lab, args ...string) string {
	t.Helper()
	l.Router.Run(t, "ln", "-sf", lab.Build(t), "/run/upnpctl")
	return l.Router.Run(t, "/run/upnpctl", args...)
}

var natpmpcMapped = regexp.MustCompile(`Mapped public port (\d+) protocol (\w+) to local port (\d+) life?time (\d+)`) // it lacks a letter

// natpmpc maps by the program of that name, which must say what is wanted.
func (w *pinRouter) natpmpc(want string, args ...string) {
	w.t.Helper()
	out := w.LAN1.Run(w.t, "natpmpc", append([]string{"-g", lab.RouterLANAddr, "-a"}, args...)...)
	got := ""
	if found := natpmpcMapped.FindStringSubmatch(out); found != nil {
		got = strings.Join(found[1:], " ")
	}
	if got != want || !strings.Contains(out, "Public IP address : "+lab.WANAddr) {
		w.t.Errorf("natpmpc %q says %q, want %q:\n%s", args, got, want, out)
	}
}

// TestNATPMP: natpmpc and go-nat-pmp map, renew and delete over real NAT (issue 7,
// points 1 and 5).
func TestNATPMP(t *testing.T) {
	pinVariants(t, func(t *testing.T, w *pinRouter) {
		raiseMaps(t, w)
		err := jackpal(w.LAN1, func(c *natpmp.Client) error {
			r, err := c.GetExternalAddress()
			if err == nil && (netip.AddrFrom4(r.ExternalIPAddress).String() != lab.WANAddr || r.SecondsSinceStartOfEpoc > 60) {
				err = fmt.Errorf("%+v", *r)
			}
			return err
		})
		if err != nil {
			t.Errorf("external address: %v", err)
		}
		inner := net.JoinHostPort(lab.LAN1Addr, strconv.Itoa(pinPort))
		pmpMaps(t, w.LAN1, "tcp", pinPort, 18080, 18080, 3600)
		w.natpmpc("18081 UDP 8080 1800", "18081", "8080", "UDP", "1800")
		wantReached(t, w.Lab, "tcp", 18080, inner)
		wantReached(t, w.Lab, "udp", 18081, inner)
		w.natpmpc("18080 TCP 8080 100", "19999", "8080", "TCP", "100") // PMP-8, and a renewal may shorten
		if got := list(t, w.Lab)["TCP 18080"]; len(got) < 7 || got[5] > "0:01:40" || got[6] != "NAT-PMP" {
			t.Errorf("after a renewal for 100 s: %q", got)
		}
		port := pmpMaps(t, w.LAN2, "tcp", pinPort, 18080, otherPort, 600) // PMP-9
		wantReached(t, w.Lab, "tcp", port, net.JoinHostPort(lab.LAN2Addr, strconv.Itoa(pinPort)))
		pmpMaps(t, w.LAN2, "udp", pinPort, 18080, otherPort, 600) // lan1's, by PMP-11
		pmpMaps(t, w.LAN1, "udp", 9081, 18080, 18080, 600)
		w.deletes()
		w.stop()
	})
}

// deletes ends what TestNATPMP made.
func (w *pinRouter) deletes() {
	w.t.Helper()
	w.natpmpc("0 TCP 8080 0", "0", "8080", "TCP", "0")
	wantReached(w.t, w.Lab, "tcp", 18080, "")
	wantReached(w.t, w.Lab, "udp", 18081, net.JoinHostPort(lab.LAN1Addr, strconv.Itoa(pinPort)))
	pmpMaps(w.t, w.LAN1, "tcp", pinPort, 0, 0, 0) // nothing there: no error (PMP-13)
	pmpMaps(w.t, w.LAN1, "udp", 9001, 19001, 19001, 600)
	pmpMaps(w.t, w.LAN1, "tcp", 9002, 19002, 19002, 600)
	pmpMaps(w.t, w.LAN2, "udp", 9003, 19003, 19003, 600)
	pmpMaps(w.t, w.LAN1, "udp", 0, 0, 0, 0) // all of that protocol and host (PMP-14)
	got := list(w.t, w.Lab)
	if len(got) != 4 || got["TCP 19002"] == nil || got["UDP 19003"] == nil {
		w.t.Errorf("after the deletion of all UDP of lan1: %q", got)
	}
	wantReached(w.t, w.Lab, "udp", 18081, "")
}
