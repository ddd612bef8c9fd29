package daemon

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// TestAdminForward: what the administrator redirects is still his forward
// chain's to decide, though our rule stands at its head.
func TestAdminForward(t *testing.T) {
	for _, v := range iptablesVariants {
		t.Run(v, func(t *testing.T) {
			w := raise(t, v)
			redirect := func(port string) {
				w.Router.Run(t, v, "-t", "nat", "-A", "PREROUTING", "-i", lab.WANDev, "-p", "tcp", "--dport", port,
					"-j", "DNAT", "--to-destination", lab.LAN1Addr+":8080")
			}
			redirect("2222") // before our jump
			w.start()
			redirect("2223") // and behind it
			for _, port := range []int{2222, 2223} {
				if got := w.Reaches("TCP", port); got != 0 {
					t.Errorf("the administrator's redirect of port %d, which FORWARD drops, reaches host %d", port, got)
				}
			}
			w.Router.Run(t, v, "-A", "FORWARD", "-p", "tcp", "-d", lab.LAN1Addr, "--dport", "8080", "-j", "ACCEPT")
			if got := w.Reaches("TCP", 2222); got != 1 {
				t.Errorf("once FORWARD accepts it, it reaches %d", got)
			}
			w.Router.Run(t, v, "-D", "FORWARD", "-p", "tcp", "-d", lab.LAN1Addr, "--dport", "8080", "-j", "ACCEPT")
			w.Client(1).Add("TCP", 18080, w.Served(), 0)
			if a, b, c := w.Reaches("TCP", 18080), w.Reaches("TCP", 2222), w.Reaches("TCP", 2223); a != 1 || b != 0 || c != 0 {
				t.Errorf("beside a mapping: it reaches %d, the redirects %d and %d", a, b, c)
			}
		})
	}
}

// TestTwoLANs: each LAN has its own address of the gateway, and a host maps for
// itself only.
func TestTwoLANs(t *testing.T) {
	w := raise(t, "iptables-legacy")
	const routerAddr, hostAddr = "192.168.88.1", "192.168.88.20"
	lab2 := w.LAN2
	w.Router.Run(t, "ip", "link", "add", "guest", "type", "veth", "peer", "name", "eth1")
	w.moveLink("eth1", lab2)
	w.Router.Run(t, "ip", "addr", "add", routerAddr+"/24", "dev", "guest")
	w.Router.Run(t, "ip", "link", "set", "guest", "up")
	lab2.Run(t, "ip", "addr", "add", hostAddr+"/24", "dev", "eth1")
	lab2.Run(t, "ip", "link", "set", "eth1", "up")
	w.daemon = w.Router.StartDaemon(t, lab.Build(t), "--config", "/dev/null", "--iptables-location", "/usr/sbin/iptables-legacy",
		lab.WANDev, lab.LANDev, "guest")

	one := w.Client(1)
	guest := home.Discover(t, hostAddr, routerAddr+":1900", lab2.Dial)
	if !strings.Contains(guest.Control, routerAddr) {
		t.Errorf("the guest LAN is told %s", guest.Control)
	}
	if code := guest.Add("TCP", 18088, 8080, 0); code != 0 {
		t.Errorf("AddPortMapping on the guest LAN: error %d", code)
	}
	if code := one.Add("TCP", 18088, w.Served(), 0); code != 718 {
		t.Errorf("the other LAN's host takes the port: error %d, want 718", code)
	}
	one.Addr = hostAddr
	if code := one.Add("TCP", 18089, w.Served(), 0); code != 718 {
		t.Errorf("mapping for a host of the other LAN: error %d, want 718", code)
	}
}

// moveLink gives a device of the router to another host.
func (w *inLab) moveLink(dev string, to *lab.Host) {
	w.t.Helper()
	w.Router.Run(w.t, "ip", "link", "set", dev, "netns", strconv.Itoa(to.PID))
}

// TestLANRecreated: a LAN device that goes and comes back is served again.
func TestLANRecreated(t *testing.T) {
	w := startInLab(t, "iptables-nft")
	w.Client(1).Add("TCP", 18080, w.Served(), 0)
	w.Router.Run(t, "ip", "link", "del", lab.LANDev)
	if err := w.daemon.WaitLog("br-lan is not up with an IPv4 address; waiting"); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"link", "add", lab.LANDev, "type", "bridge"}, {"link", "set", lab.LANDev, "up"},
		{"link", "set", "lan1", "master", lab.LANDev}, {"link", "set", "lan2", "master", lab.LANDev},
		{"addr", "add", lab.RouterLANAddr + "/24", "dev", lab.LANDev},
	} {
		w.Router.Run(t, "ip", args...)
	}
	home.Until(t, "it is announced again", func() bool { return strings.Count(w.daemon.Log(), "Advertisements Sent") == 2 })
	w.For(w.t)
	if code := w.Client(2).Add("UDP", 18081, w.Served(), 0); code != 0 {
		t.Errorf("AddPortMapping: error %d", code)
	}
	home.Until(t, "both mappings work", func() bool { return w.Reaches("TCP", 18080) == 1 && w.Reaches("UDP", 18081) == 2 })
}

// TestStopUnderSignals: TERM is heard among many other signals.
func TestStopUnderSignals(t *testing.T) {
	w := startInLab(t, "iptables-nft")
	w.Client(1).Add("TCP", 18080, w.Served(), 0)
	for range 300 {
		w.daemon.Signal(syscall.SIGHUP)
		w.daemon.Signal(syscall.SIGUSR1)
	}
	begin := time.Now()
	w.daemon.Stop(t)
	t.Logf("stopped after %v", time.Since(begin))
	w.wantNoRules()
}
