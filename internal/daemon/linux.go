package daemon

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/config"
	"github.com/linux-igd/upnpd/internal/firewall"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/sock"
	"github.com/linux-igd/upnpd/internal/ssdp"
	"github.com/linux-igd/upnpd/internal/wan"
)

// linux is the machine that the daemon runs on.
var linux = system{
	follow: func(uplink wan.Uplink, intifs []string, logf func(string, ...any)) (follower, error) {
		return wan.Follow(uplink, intifs, portmap.BootTime, logf)
	},
	firewall: openFirewall,
	inUse: func(p portmap.Protocol, port uint16) (bool, error) {
		return sock.Listening(p == portmap.TCP, port)
	},
	lock: lock,
	portFree: func(dev string, port uint16) error {
		l, err := sock.ListenTCP(dev, port)
		if err != nil {
			return err
		}
		return l.Close()
	},
	forwarding: func() bool {
		text, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		return err != nil || strings.TrimSpace(string(text)) != "0"
	},
	ssdpPort: ssdp.Port,
	lanRetry: 5 * time.Second,
}

// lock makes sure that one daemon at a time has our chains: a second one would
// take away what the first has put there. The abstract name belongs to the
// network namespace, and ends with the process that holds it.
func lock() (io.Closer, error) {
	c, err := socket.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, "lock", nil)
	if err != nil {
		return nil, err
	}
	if err := c.Bind(&unix.SockaddrUnix{Name: "@upnpd"}); err != nil {
		c.Close()
		return nil, fmt.Errorf("another upnpd is running here; stop it first (%w)", err)
	}
	return c, nil
}

func openFirewall(ctx context.Context, cfg *config.Config, log *Log) (firewallBackend, error) {
	if cfg.Firewall == config.FirewallNFTables {
		return nil, fmt.Errorf("firewall = nftables: this version has the iptables backend only; set firewall = iptables (iptables-nft puts the rules into nf_tables)")
	}
	fw, err := firewall.NewIPTables(ctx, firewall.IPTablesOptions{
		Location:        cfg.IPTables.Location,
		ForwardRules:    cfg.IPTables.CreateForwardRules,
		ForwardAppend:   cfg.IPTables.ForwardRulesAppend,
		ForwardChain:    cfg.IPTables.ForwardChain,
		PreroutingChain: cfg.IPTables.PreroutingChain,
	}, cfg.ExtIf, log.Infof)
	if err != nil {
		return nil, fmt.Errorf("firewall: %w", err)
	}
	return fw, nil
}
