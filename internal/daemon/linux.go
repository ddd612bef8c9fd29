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
	"github.com/linux-igd/upnpd/internal/pcp"
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
	sweep: func(ctx context.Context, used string, log *Log) error {
		if used == string(config.FirewallNFTables) {
			return firewall.RemoveChains(ctx, log.Infof)
		}
		return firewall.RemoveTable(log.Infof)
	},
	inUse:   inUse(),
	lock:    lock,
	confine: confine,
	bootID: func() string {
		id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
		return strings.TrimSpace(string(id))
	},
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
	pcpPort:  pcp.Port,
	lanRetry: 5 * time.Second,
}

func inUse() func(portmap.Protocol, uint16) (bool, error) {
	var ports sock.Ports
	return func(p portmap.Protocol, port uint16) (bool, error) { return ports.Listening(p == portmap.TCP, port) }
}

// A killed daemon may leave a child that is just about to become iptables, and
// until then holds what its parent held. It gets this much time.
const (
	lockTries = 10
	lockPause = 50 * time.Millisecond
)

// lock makes sure that one daemon at a time has our chains: a second one would
// take away what the first has put there. The abstract name belongs to the
// network namespace, and ends with the process that holds it.
func lock() (io.Closer, error) {
	c, err := socket.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, "lock", nil)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		if err = c.Bind(&unix.SockaddrUnix{Name: "@upnpd"}); err == nil {
			return c, nil
		}
		if try == lockTries {
			c.Close()
			return nil, fmt.Errorf("another upnpd is running here; stop it first (%w)", err)
		}
		time.Sleep(lockPause)
	}
}

// openFirewall makes the firewall that the configuration asks for, and says
// which one and why.
func openFirewall(ctx context.Context, cfg *config.Config, log *Log) (fw firewallBackend, name string, err error) {
	opts := firewall.IPTablesOptions{
		Location:        cfg.IPTables.Location,
		ForwardRules:    cfg.IPTables.CreateForwardRules,
		ForwardAppend:   cfg.IPTables.ForwardRulesAppend,
		ForwardChain:    cfg.IPTables.ForwardChain,
		PreroutingChain: cfg.IPTables.PreroutingChain,
		IPv6:            cfg.IPv6,
	}
	fw, reason, err := chooseFirewall(ctx, cfg, opts, log)
	if err != nil {
		return nil, "", fmt.Errorf("firewall: %w", err)
	}
	log.Infof("firewall: %s", reason)
	name, _, _ = strings.Cut(reason, ",")
	return fw, name, nil
}

func nfTables(cfg *config.Config, log *Log) (firewallBackend, error) {
	fw, err := firewall.NewNFTables(cfg.ExtIf, portmap.BootTime, log.Infof)
	if err != nil {
		return nil, err // not fw: a nil pointer in an interface is not nil
	}
	fw.IPv6 = cfg.IPv6
	return fw, nil
}

func chooseFirewall(ctx context.Context, cfg *config.Config, opts firewall.IPTablesOptions, log *Log) (fw firewallBackend, reason string, err error) {
	legacy, program := firewall.LegacyTables(), firewall.LegacyProgram()
	switch {
	case cfg.Firewall == config.FirewallIPTables:
		reason = "iptables, as configured"
	case cfg.Firewall == config.FirewallNFTables:
		fw, err = nfTables(cfg, log)
		return fw, "nftables, as configured", err
	case opts.Location != "":
		reason = "iptables, since iptables_location is set"
	case legacy != "" && program != "":
		reason = "iptables, since legacy tables are in force: " + legacy
		opts.Location = program
	case legacy != "":
		fw, err = nfTables(cfg, log)
		return fw, "nftables, though legacy tables are in force (" + legacy + "), since there is no iptables program", err
	default:
		if fw, err = nfTables(cfg, log); err == nil {
			return fw, "nftables, since the kernel has it and no legacy tables are in force", nil
		}
		reason = fmt.Sprintf("iptables, since nftables cannot be used: %v", err)
	}
	if cfg.User != "" {
		return nil, "", fmt.Errorf("user = %s works with nftables alone, since only root's iptables can change rules; this would be %s", cfg.User, reason)
	}
	fw, err = firewall.NewIPTables(ctx, opts, cfg.ExtIf, log.Infof)
	return fw, reason, err
}
