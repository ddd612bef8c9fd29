//go:build vm

package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestVM is a home router's life on a 32-bit MIPS kernel, with each firewall
// (issue 5, point 7).
func TestVM(t *testing.T) {
	var all []measured
	for _, v := range variants {
		t.Run(v, func(t *testing.T) {
			programs := map[string]string{}
			if peer := vmPeers[v]; peer != "" {
				programs["usr/sbin/miniupnpd"] = peer + "/usr/sbin/miniupnpd"
			}
			w := bootVM(t, v, programs)
			t.Logf("booted in %v", w.vm.BootTime.Round(100*time.Millisecond))
			for _, name := range []string{"map, reach, delete", "two hosts, one port", "WAN address changes", "bad input"} {
				w.part(t, name, func(w *inVM) {
					w.start()
					bodies[name](w.t, w)
					w.stop()
					w.wantNoRules()
				})
			}
			w.part(t, "lease ends", vmLeaseEnds)
			w.part(t, "renewal", vmRenewal)
			w.part(t, "restarts", vmRestarts)
			w.part(t, "measure", func(w *inVM) {
				all = append(all, w.measureOurs())
				if vmPeers[v] != "" {
					all = append(all, w.measurePeer())
				}
			})
		})
	}
	t.Logf("in the virtual machine\n%s", vmTable(all))
}

// part runs a part of the router's life as a test of its own.
func (w *inVM) part(t *testing.T, name string, body func(w *inVM)) {
	t.Run(name, func(t *testing.T) {
		part := *w
		part.t, part.hosts = t, map[int]*controlPoint{}
		body(&part)
		w.peer = part.peer
		if t.Failed() {
			t.Logf("log of upnpd:\n%s", part.sh("cat %[1]s; kill -9 $(cat %[2]s) 2>/dev/null; true", vmLog, vmPID))
		}
	})
}

// vmLeaseEnds: the daemon ends a lease; with nftables the kernel does, when
// there is no daemon.
func vmLeaseEnds(w *inVM) {
	w.start()
	c := w.client(1)
	open := func() {
		w.t.Helper()
		for _, proto := range []string{"TCP", "UDP"} {
			if code := c.add(proto, 18081, w.served(), 3); code != 0 {
				w.t.Fatalf("%s: AddPortMapping: error %d", proto, code)
			}
			if got := w.reaches(proto, 18081); got != 1 {
				w.t.Fatalf("%s: the mapped port reaches host %d, want 1", proto, got)
			}
		}
	}
	closed := func() bool { return w.reaches("TCP", 18081) == 0 && w.reaches("UDP", 18081) == 0 }
	open()
	until(w.t, "the lease of 3 seconds ends", closed)
	if got := w.listed(); len(got) != 0 {
		w.t.Errorf("after the lease: %+v", got)
	}
	if w.iptables == lab.Nftables {
		open()
		w.kill()
		until(w.t, "the kernel closes the ports", closed)
		w.start()
		if got := w.listed(); len(got) != 0 {
			w.t.Errorf("the next run has %+v", got)
		}
	}
	w.stop()
	w.wantNoRules()
}

// vmRenewal: a renewed lease is a longer one, also in this kernel, which ignores
// the new timeout of an element that it has; and the counter goes on.
func vmRenewal(w *inVM) {
	w.start()
	c := w.client(1)
	for _, proto := range []string{"TCP", "UDP"} {
		if code := c.add(proto, 18082, w.served(), 6); code != 0 {
			w.t.Fatalf("%s: AddPortMapping: error %d", proto, code)
		}
		if got := w.reaches(proto, 18082); got != 1 {
			w.t.Fatalf("%s: the mapped port reaches host %d, want 1", proto, got)
		}
	}
	began := time.Now()
	for _, proto := range []string{"TCP", "UDP"} {
		before := w.packets(proto, 18082)
		if before == 0 {
			w.t.Errorf("%s: no packet is counted", proto)
		}
		if code := c.add(proto, 18082, w.served(), 3600); code != 0 {
			w.t.Fatalf("%s: renewal: error %d", proto, code)
		}
		if after := w.packets(proto, 18082); after < before {
			w.t.Errorf("%s: %d packets, before the renewal %d", proto, after, before)
		}
	}
	if late := time.Since(began); late > 5*time.Second {
		w.t.Fatalf("the renewals took %v, longer than the leases", late)
	}
	if w.iptables == lab.Nftables {
		if out := w.sh("nft list map inet upnpd dnat4"); !strings.Contains(out, "timeout 1h") {
			w.t.Errorf("the kernel has\n%s", out)
		}
	}
	// Past the end of the first leases, which a kernel keeps 5 seconds longer.
	w.sh("sleep %d", 12-int(time.Since(began).Seconds()))
	for _, proto := range []string{"TCP", "UDP"} {
		if got := w.reaches(proto, 18082); got != 1 {
			w.t.Errorf("%s: after the first lease's end host %d is reached, want 1", proto, got)
		}
	}
	w.stop()
	w.wantNoRules()
}

// vmRestarts: mappings outlive a kill -9 and a clean stop.
func vmRestarts(w *inVM) {
	w.start()
	for _, proto := range []string{"TCP", "UDP"} {
		if code := w.client(1).add(proto, 18083, w.served(), 3600); code != 0 {
			w.t.Fatalf("%s: AddPortMapping: error %d", proto, code)
		}
	}
	reached := func(when string, want int) {
		w.t.Helper()
		for _, proto := range []string{"TCP", "UDP"} {
			if got := w.reaches(proto, 18083); got != want {
				w.t.Errorf("%s: %s host %d is reached, want %d", proto, when, got, want)
			}
		}
	}
	reached("at first", 1)
	w.wait("the lease file is written", "[ $(grep -c 18083 "+leasesPath+") = 2 ]", vmStatus)
	w.kill()
	reached("after kill -9", 1)
	w.start()
	reached("adopted by the next run,", 1)
	if got := w.packets("TCP", 18083); got < 2 {
		w.t.Errorf("the next run counts %d packets, 3 have come", got)
	}
	w.stop()
	w.wantNoRules()
	reached("after the stop", 0)
	w.start()
	reached("restored", 1)
	for _, proto := range []string{"TCP", "UDP"} {
		if code := w.client(1).delete(proto, 18083); code != 0 {
			w.t.Errorf("%s: DeletePortMapping: error %d", proto, code)
		}
	}
	reached("deleted,", 0)
	w.stop()
	w.wantNoRules()
}
