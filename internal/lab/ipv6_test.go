package lab

import (
	"testing"
	"time"
)

// TestIPv6: LAN hosts reach the internet, and it does not reach them.
func TestIPv6(t *testing.T) {
	for _, firewall := range []string{"iptables-legacy", "iptables-nft", Nftables} {
		t.Run(firewall, func(t *testing.T) {
			l := Start(t)
			if err := l.Masquerade(firewall); err != nil {
				t.Fatal(err)
			}
			if err := l.IPv6(firewall); err != nil {
				t.Fatal(err)
			}
			for _, h := range []*Host{l.LAN1, l.Internet} {
				if _, err := h.EchoTCP6(8080); err != nil {
					t.Fatal(err)
				}
			}
			out, err := l.ReachTCP(l.LAN1, "["+InternetAddr6+"]:8080", 5*time.Second)
			if err != nil || out[:len("internet [2001:db8:ff::1]:8080-[2001:db8:77::10]:")] != "internet [2001:db8:ff::1]:8080-[2001:db8:77::10]:" {
				t.Errorf("from the LAN: %q, %v", out, err)
			}
			if out, err := l.ReachTCP(l.Internet, "["+LAN1Addr6+"]:8080", time.Second/2); err == nil {
				t.Errorf("from the internet: %q", out)
			}
		})
	}
}
