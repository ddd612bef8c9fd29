package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// TestCheckInLab: check finds what is wrong with a real router, and nothing else
// (issue 4, point 3).
func TestCheckInLab(t *testing.T) {
	inVariants(t, func(t *testing.T, w *inLab) {
		w.Client(1).Add("TCP", 19000, w.Served(), 0)
		ipt := w.iptables
		if ipt == lab.Nftables {
			ipt = "iptables"
		}
		for _, tt := range []struct {
			name, breaks, mends string
			wants               string // in the lines that are not PASS; "" wants none
		}{
			{"all is well", "true", "true", ""},
			{"forwarding", "sysctl -w net.ipv4.ip_forward=0", "sysctl -w net.ipv4.ip_forward=1", "forwarding  net.ipv4.ip_forward = 0"},
			{"no route", "ip route del default", "ip route add default via 11.0.0.1", "route       there is none to the internet"},
			{"no search", ipt + " -I INPUT -p udp --dport 1900 -j DROP", ipt + " -D INPUT -p udp --dport 1900 -j DROP", "a search is not answered at " + lab.RouterLANAddr},
			{"forward", ipt + " -I FORWARD -p udp --dport 9 -j DROP", ipt + " -D FORWARD -p udp --dport 9 -j DROP", "live        a packet through a temporary mapping was lost"},
		} {
			w.Router.Run(t, "sh", "-c", tt.breaks)
			code, text, _ := strings.Cut(string(w.reply("check live")), "\n")
			var trouble []string
			for _, line := range strings.Split(text, "\n") {
				if strings.HasPrefix(line, "WARN") || strings.HasPrefix(line, "FAIL") {
					trouble = append(trouble, line)
				}
			}
			if all := strings.Join(trouble, "\n"); (tt.wants == "") != (code == "0" && all == "") || !strings.Contains(all, tt.wants) {
				t.Errorf("%s: code %s\n%s\nwant %q", tt.name, code, all, tt.wants)
			}
			w.Router.Run(t, "sh", "-c", tt.mends)
		}
		if got := string(w.request("status json")); !strings.Contains(got, `"served":true`) || !strings.Contains(got, `"forward_path":null`) {
			t.Errorf("status: %s", got)
		}
	})
}

// TestDeleteInLab: by the administrator's word the mapping, its connections and its
// lease are gone, and a restart does not bring them back (issue 4, point 3).
func TestDeleteInLab(t *testing.T) {
	inVariants(t, func(t *testing.T, w *inLab) {
		w.mirror(1, 9000)
		w.Client(1).Add("UDP", 19000, 9000, 0)
		w.Client(1).Add("TCP", 19000, 9000, 0)
		w.kept(2)
		c, err := w.Internet.Dial("udp4", fmt.Sprintf("%s:%d", lab.WANAddr, 19000), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if !ask(c, 1, 2*time.Second) {
			t.Fatal("no answer")
		}
		if got := string(w.request("delete UDP 19000")); !strings.HasPrefix(got, "deleted UDP port 19000") {
			t.Errorf("delete: %q", got)
		}
		home.Until(t, "the connection is gone", func() bool { return !ask(c, 2, 50*time.Millisecond) })
		w.kept(1)
		w.daemon.Kill()
		w.restart()
		if got := w.redirects(); len(got) != 1 || !strings.HasPrefix(got[0], "tcp 19000 ") {
			t.Errorf("after a restart: %q", got)
		}
		if got := string(w.request("flush")); got != "mappings deleted: 1\n" {
			t.Errorf("flush: %q", got)
		}
		w.kept(0)
		if got := w.redirects(); len(got) > 0 {
			t.Errorf("after flush: %q", got)
		}
	})
}
