package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// IPv6 addresses of a lab with Lab.IPv6; every prefix has 64 bits. Each LAN host
// also has a ULA and a second, temporary-looking address.
const (
	RouterLANAddr6 = "2001:db8:77::1"
	RouterULA      = "fd77::1"
	LAN1Addr6      = "2001:db8:77::10"
	LAN1Other6     = "2001:db8:77:0:aaaa::10"
	LAN1ULA        = "fd77::10"
	LAN2Addr6      = "2001:db8:77::20"
	LAN2Other6     = "2001:db8:77:0:aaaa::20"
	LAN2ULA        = "fd77::20"
	WANAddr6       = "2001:db8:ff::2"
	InternetAddr6  = "2001:db8:ff::1"
)

// IPv6 gives the lab IPv6 everywhere. Nothing of it is translated; the firewall of
// Masquerade, with the same iptables, drops what comes in unasked.
func (l *Lab) IPv6(iptables string) error {
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	for _, h := range []struct {
		host  *Host
		addr  string
		batch string
	}{
		{l.Router, RouterLANAddr6, fmt.Sprintf("addr add %s/64 dev %[2]s nodad\naddr add %[3]s/64 dev %[2]s nodad\naddr add %[4]s/64 dev %[5]s nodad\nroute add default via %[6]s\n",
			RouterLANAddr6, LANDev, RouterULA, WANAddr6, WANDev, InternetAddr6)},
		{l.LAN1, LAN1Addr6, lanHost(LAN1Addr6, LAN1Other6, LAN1ULA)},
		{l.LAN2, LAN2Addr6, lanHost(LAN2Addr6, LAN2Other6, LAN2ULA)},
		{l.Internet, InternetAddr6, fmt.Sprintf("addr add %s/64 dev %s nodad\nroute add 2001:db8:77::/64 via %s\n", InternetAddr6, HostDev, WANAddr6)},
	} {
		h.host.Addr6 = netip.MustParseAddr(h.addr)
		if err := h.host.ip(ctx, h.batch); err != nil {
			return err
		}
	}
	err := l.Router.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0)
	})
	if err != nil {
		return fmt.Errorf("make the router forward IPv6: %w", err)
	}
	if iptables == Nftables {
		return nil // HomeFirewall's table has both families
	}
	for _, rule := range []string{
		"-P FORWARD DROP",
		"-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		"-A FORWARD -p ipv6-icmp -j ACCEPT",
		"-A FORWARD -i " + LANDev + " -o " + WANDev + " -j ACCEPT",
	} {
		_, ruleErr := l.Router.output(strings.Replace(iptables, "ip", "ip6", 1), append([]string{"-w"}, strings.Fields(rule)...)...)
		err = errors.Join(err, ruleErr)
	}
	return err
}

// lanHost is an ip batch for a LAN host; the first address is the one that it
// connects from.
func lanHost(addr, other, ula string) string {
	var b strings.Builder
	for _, a := range []string{ula, other, addr} {
		fmt.Fprintf(&b, "addr add %s/64 dev %s nodad\n", a, HostDev)
	}
	fmt.Fprintf(&b, "addr change %s/64 dev %s preferred_lft 0\n", other, HostDev) // never chosen by itself
	fmt.Fprintf(&b, "route add default via %s\n", RouterLANAddr6)
	return b.String()
}
