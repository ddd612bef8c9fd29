package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// RemoveTable removes our nftables table, with the connections of its mappings,
// when a run that did not end by itself has left it, and iptables is used now.
func RemoveTable(logf func(string, ...any)) error {
	f, err := NewNFTables("", func() time.Duration { return 0 }, logf)
	if err != nil {
		return nil // a kernel without nf_tables has nothing of ours
	}
	present, err := f.present()
	if err == nil && present {
		logf("firewall: removing the nftables table that an earlier run left behind")
		return errors.Join(f.Start(), f.Close())
	}
	return errors.Join(err, f.inForce.close(), f.disconnect())
}

// RemoveChains is RemoveTable for our iptables chains, when nftables is used now.
func RemoveChains(ctx context.Context, logf func(string, ...any)) error {
	var errs []error
	for _, program := range ofOurChains(ctx) {
		logf("firewall: removing the chains that an earlier run left behind by %s", program)
		f, err := NewIPTables(ctx, IPTablesOptions{
			Location: program, ForwardRules: true, ForwardChain: "FORWARD", PreroutingChain: "PREROUTING",
		}, "", logf)
		if err == nil {
			err = errors.Join(f.Start(), f.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ofOurChains gives the iptables programs to whose tables our chains belong.
func ofOurChains(ctx context.Context) (found []string) {
	if program := LegacyProgram(); program != "" && slices.Contains(strings.Fields(LegacyTables()), "nat") {
		if _, err := execute(ctx, program, "", "-w", fmt.Sprint(lockWait), "-t", "nat", "-S", mapChain); err == nil {
			found = append(found, program)
		}
	}
	_, _ = inspect(func(conn *netlink.Conn) (string, error) { // an error: there is no nf_tables
		chains, err := readChains(conn)
		for _, c := range chains {
			if c.family == unix.NFPROTO_IPV4 && c.table == "nat" && c.name == mapChain {
				program, _, err := programs("iptables-nft")
				if err != nil {
					program = "iptables"
				}
				found = append(found, program)
			}
		}
		return "", err
	})
	return found
}
