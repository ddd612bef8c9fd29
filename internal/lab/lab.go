// Package lab raises a small home network in network namespaces: two LAN
// hosts on one bridge, the router, and a host on the internet. Tests and the
// demo use it; the daemon never does. Nothing in it reaches a real network.
//
//	lan1 192.168.77.10 --+
//	                     +-- br-lan 192.168.77.1 [router] wan0 11.0.0.2 -- 11.0.0.1 internet
//	lan2 192.168.77.20 --+
//
// The WAN side is 11.0.0.0/24 because control points refuse reserved ranges
// as "not connected". Hosts have no names in /run/netns, so any number of labs
// run side by side; host.go says how each ends with the process that made it.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Devices and addresses of every lab. LAN hosts and the internet host call
// their only device HostDev.
const (
	LANDev  = "br-lan"
	WANDev  = "wan0"
	HostDev = "eth0"

	LANPrefix     = "192.168.77.0/24"
	RouterLANAddr = "192.168.77.1"
	LAN1Addr      = "192.168.77.10"
	LAN2Addr      = "192.168.77.20"
	WANAddr       = "11.0.0.2"
	InternetAddr  = "11.0.0.1"
)

// runTimeout bounds every command that the lab runs to its end.
const runTimeout = 30 * time.Second

// Lab is one raised network. Close takes it down.
type Lab struct {
	Router, LAN1, LAN2, Internet *Host
}

// New raises a lab; ctx bounds the raising only. The error wraps EPERM when
// the process may not make namespaces.
func New(ctx context.Context) (*Lab, error) {
	l := &Lab{}
	for _, h := range []struct {
		field      **Host
		name, addr string
	}{
		{&l.Router, "router", RouterLANAddr},
		{&l.LAN1, "lan1", LAN1Addr},
		{&l.LAN2, "lan2", LAN2Addr},
		{&l.Internet, "internet", InternetAddr},
	} {
		host, err := newHost(h.name, netip.MustParseAddr(h.addr))
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		*h.field = host
	}
	if err := l.connect(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Start raises a lab for one test and takes it down at its end. Without root
// or namespaces the test is skipped, or fails when CI or UPNPD_NO_SKIP is set.
func Start(t testing.TB) *Lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runTimeout)
	defer cancel()
	l, err := New(ctx)
	if errors.Is(err, syscall.EPERM) {
		reason := fmt.Sprintf("the lab needs root and network namespaces: %v", err)
		if os.Getenv("CI") != "" || os.Getenv("UPNPD_NO_SKIP") != "" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	if err != nil {
		t.Fatalf("raise the lab (scripts/setup.sh installs what it needs): %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("take the lab down: %v", err)
		}
	})
	return l
}

// Close ends every process and server on the hosts and takes the network down.
func (l *Lab) Close() error {
	var errs []error
	for _, h := range []*Host{l.Router, l.LAN1, l.LAN2, l.Internet} {
		if h != nil {
			errs = append(errs, h.close())
		}
	}
	return errors.Join(errs...)
}

// connect lays the cables and gives every host its addresses and routes.
func (l *Lab) connect(ctx context.Context) error {
	for _, h := range []*Host{l.Router, l.LAN1, l.LAN2, l.Internet} {
		if err := h.Do(noDuplicates); err != nil {
			return err
		}
	}
	router := fmt.Sprintf(`
link set lo up
link add %[1]s type bridge
link add lan1 type veth peer name %[3]s netns %[4]d
link add lan2 type veth peer name %[3]s netns %[5]d
link add %[2]s type veth peer name %[3]s netns %[6]d
link set lan1 master %[1]s up
link set lan2 master %[1]s up
link set %[1]s up
link set %[2]s up
addr add %[7]s/24 broadcast + dev %[1]s
addr add %[8]s/24 broadcast + dev %[2]s
route add default via %[9]s
`, LANDev, WANDev, HostDev, l.LAN1.PID, l.LAN2.PID, l.Internet.PID,
		RouterLANAddr, WANAddr, InternetAddr)
	if err := l.Router.ip(ctx, router); err != nil {
		return err
	}
	for _, h := range []*Host{l.LAN1, l.LAN2, l.Internet} {
		batch := fmt.Sprintf("link set lo up\nlink set %[1]s up\naddr add %[2]s/24 broadcast + dev %[1]s\n", HostDev, h.Addr)
		if h != l.Internet {
			batch += "route add default via " + RouterLANAddr + "\n"
		}
		if err := h.ip(ctx, batch); err != nil {
			return err
		}
	}
	return l.Router.Do(routerSysctls)
}

// noDuplicates spares the second in which link-local addresses cannot be used yet.
func noDuplicates() error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	return err
}

// routerSysctls makes a router of the namespace it runs in. Bridged frames stay
// out of iptables, as on OpenWrt.
func routerSysctls() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("make the router forward: %w", err)
	}
	err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("0"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("keep bridged frames out of iptables: %w", err)
	}
	return nil
}

// Masquerade gives the router the NAT and firewall of a home router; see
// HomeFirewall.
func (l *Lab) Masquerade(iptables string) error {
	for _, command := range HomeFirewall(iptables) {
		if _, err := l.Router.output(command[0], command[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// HomeFirewall are the commands that make a home router: LAN hosts reach the
// internet under WANAddr, and the internet reaches no LAN host. iptables is the
// program: "iptables", "iptables-legacy" or "iptables-nft"; or Nftables for a
// router without any, whose forward chain accepts upnpd's mark as the README
// says.
func HomeFirewall(iptables string) (commands [][]string) {
	if iptables == Nftables {
		return [][]string{{"nft", nftRouter}}
	}
	for _, rule := range []string{
		"-t nat -A POSTROUTING -o " + WANDev + " -j MASQUERADE",
		"-P FORWARD DROP",
		"-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		"-A FORWARD -i " + LANDev + " -o " + WANDev + " -j ACCEPT",
	} {
		commands = append(commands, append([]string{iptables, "-w"}, strings.Fields(rule)...))
	}
	return commands
}

// Nftables stands for a router whose own rules are nftables'.
const Nftables = "nftables"

const nftRouter = "table inet router {\n" +
	"chain forward { type filter hook forward priority filter; policy drop;\n" +
	"ct state established,related accept\n" +
	"iifname " + LANDev + " oifname " + WANDev + " accept\n" +
	"meta nfproto ipv4 ct mark & 0x10000000 == 0x10000000 ct status dnat accept\n" +
	"meta nfproto ipv6 ct mark & 0x10000000 == 0x10000000 accept\n" +
	"meta l4proto ipv6-icmp accept\n}\n" +
	"chain postrouting { type nat hook postrouting priority srcnat;\n" +
	"meta nfproto ipv4 oifname " + WANDev + " masquerade\n}\n}"

// Rules returns the router's filter and nat rules as iptables -S lists them,
// or the error's text, so that two answers can be compared.
func (l *Lab) Rules(iptables string) string {
	if iptables == Nftables {
		out, err := l.Router.output("nft", "list", "ruleset")
		if err != nil {
			return err.Error()
		}
		return out
	}
	var all strings.Builder
	for _, table := range []string{"filter", "nat"} {
		out, err := l.Router.output(iptables, "-w", "-t", table, "-S")
		if err != nil {
			out = err.Error() + "\n"
		}
		fmt.Fprintf(&all, "# %s\n%s", table, out)
	}
	return all.String()
}
