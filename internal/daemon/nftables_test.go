package daemon

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// TestKernelEndsLease: the port of a lease closes though the daemon is dead.
func TestKernelEndsLease(t *testing.T) {
	w := startInLab(t, lab.Nftables)
	w.Client(1).Add("TCP", 18080, w.Served(), 1)
	w.daemon.Kill()
	if got := w.Reaches("TCP", 18080); got != 1 {
		t.Fatalf("the killed daemon's mapping reaches %d, want 1", got)
	}
	home.Until(t, "the kernel closes the port", func() bool { return w.Reaches("TCP", 18080) == 0 })
}

// TestStreamDuringSync: new connections through a mapping find it at every
// moment, while the kernel is made equal to the table again and again.
func TestStreamDuringSync(t *testing.T) {
	w := startInLab(t, lab.Nftables)
	c := w.Client(1)
	c.Add("UDP", 18080, w.Served(), 0)
	for port := range 50 {
		c.Add("TCP", 20000+port, w.Served(), 0)
	}
	var done atomic.Bool
	lost := make(chan string, 1)
	go func() {
		sent, missing := 0, 0
		for ; !done.Load(); sent++ {
			if _, err := w.ReachUDP(w.Internet, lab.WANAddr+":18080", time.Second); err != nil {
				missing++
			}
		}
		lost <- fmt.Sprintf("%d of %d", missing, sent)
	}()
	for range 100 {
		w.daemon.Signal(syscall.SIGHUP)
		if code := c.Add("UDP", 18080, w.Served(), 0); code != 0 { // a renewal
			t.Errorf("renewal: error %d", code)
		}
	}
	done.Store(true)
	got := <-lost
	t.Logf("lost connections: %s", got)
	var missing, sent int
	if fmt.Sscanf(got, "%d of %d", &missing, &sent); missing != 0 || sent < 100 {
		t.Errorf("lost connections: %s", got)
	}
}

// TestAdminRedirectFirst: the administrator's own redirect of a port wins.
func TestAdminRedirectFirst(t *testing.T) {
	w := raise(t, lab.Nftables)
	w.Router.Run(t, "nft", "table ip admin { chain pre { type nat hook prerouting priority dstnat;\ntcp dport 18080 dnat to "+lab.LAN2Addr+":8080\n}\n}")
	w.Router.Run(t, "nft", "add rule inet router forward ct status dnat accept")
	w.start()
	if code := w.Client(1).Add("TCP", 18080, w.Served(), 0); code != 0 {
		t.Fatalf("AddPortMapping: error %d", code)
	}
	if got := w.Reaches("TCP", 18080); got != 2 {
		t.Errorf("port 18080 reaches host %d, want the administrator's 2", got)
	}
}

// TestFlushedByOthers: whatever somebody flushes is back at once.
func TestFlushedByOthers(t *testing.T) {
	w := startInLab(t, lab.Nftables)
	c := w.Client(1)
	c.Add("TCP", 18080, w.Served(), 0)
	c.Add("UDP", 18080, w.Served(), 0)
	for _, damage := range []string{
		"delete table inet upnpd",
		"flush map inet upnpd dnat4",
		"delete element inet upnpd dnat4 { tcp . 18080 : " + lab.LAN1Addr + " . 8080 }",
		"flush chain inet upnpd prerouting",
	} {
		w.Router.Run(t, "nft", damage)
		begin := time.Now()
		home.Until(t, "repair after "+damage, func() bool { return w.Reaches("TCP", 18080) == 1 && w.Reaches("UDP", 18080) == 1 })
		t.Logf("%s: works again after %v at most", damage, time.Since(begin).Round(time.Millisecond))
		time.Sleep(1100 * time.Millisecond) // the watch has its patience back
	}
	w.daemon.Stop(t)
	w.wantNoRules()
}
