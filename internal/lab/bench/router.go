package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

const (
	nftables = "nftables"
	iptables = "iptables"
	legacy   = "iptables-legacy"

	// startTimeout bounds the wait for a daemon that has just been started.
	startTimeout = 10 * time.Second
)

// errRefused says that a program does not know the backend.
var errRefused = errors.New("this upnpd has no such backend")

// router is a lab with one of the two daemons on its router.
type router struct {
	name    string // "upnpd" or "miniupnpd"
	backend string
	lab     *lab.Lab
	pid     int
	svc     service
	search  netip.AddrPort // where the daemon takes unicast searches
	stop    func() error
	live    mappings

	askers   []*asker  // hosts that speak NAT-PMP and PCP
	asked    int       // ports that they have asked for
	requests int       // that they have sent
	rested   time.Time // when they may send more
	log      io.Closer // nil without one
}

// raise makes a lab with the firewall of a home router in rules of the backend.
func raise(ctx context.Context, name, backend string) (*router, error) {
	l, err := lab.New(ctx)
	if err != nil {
		return nil, err
	}
	r := &router{name: name, backend: backend, lab: l, stop: func() error { return nil }}
	r.search = netip.AddrPortFrom(l.Router.Addr, 1900)
	r.live = newMappings()
	if backend == iptables {
		err = l.Masquerade(legacy)
	} else {
		err = r.run(ctx, homeRules, "nft", "-f", "-")
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := r.newAskers(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return r, nil
}

// homeRules are lab.Masquerade's in nftables, with the chains that a
// miniupnpd fills and the accept rule that upnpd asks for. Both stand in both
// labs: an empty chain and a rule that matches nothing cost both the same.
const homeRules = `
table inet filter {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state established,related accept
		iifname "` + lab.LANDev + `" oifname "` + lab.WANDev + `" accept
		meta nfproto ipv4 ct mark & 0x10000000 == 0x10000000 ct status dnat accept
		jump miniupnpd
	}
	chain miniupnpd { }
	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		jump prerouting_miniupnpd
	}
	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
		jump postrouting_miniupnpd
		oifname "` + lab.WANDev + `" masquerade
	}
	chain prerouting_miniupnpd { }
	chain postrouting_miniupnpd { }
}
`

// run runs a program on the router with input as its standard input.
func (r *router) run(ctx context.Context, input, program string, args ...string) error {
	cmd := r.lab.Router.Command(ctx, program, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return nil
}

// startOurs starts upnpd with quotas that the largest count fits in; all else
// is as delivered.
func (r *router) startOurs(program string) error {
	args := []string{"--config", "/dev/null", "--firewall", r.backend, "--max-mappings", "65535", "--max-mappings-per-client", "65535"}
	if r.backend == iptables {
		location, err := exec.LookPath(legacy)
		if err != nil {
			return err
		}
		args = append(args, "--iptables-location", location)
	}
	d, err := r.lab.Router.Launch(program, append(args, lab.WANDev, lab.LANDev)...)
	if err != nil {
		if strings.Contains(err.Error(), "this version has the iptables backend only") {
			return errRefused
		}
		return err
	}
	r.pid, r.stop = d.PID, d.Quit
	return r.discover()
}

// chains are what miniupnpd's iptables_init.sh makes.
const chains = `
-t nat -N MINIUPNPD
-t nat -I PREROUTING -i ` + lab.WANDev + ` -j MINIUPNPD
-t mangle -N MINIUPNPD
-t mangle -I PREROUTING -i ` + lab.WANDev + ` -j MINIUPNPD
-t filter -N MINIUPNPD
-t filter -I FORWARD -i ` + lab.WANDev + ` ! -o ` + lab.WANDev + ` -j MINIUPNPD
-t nat -N MINIUPNPD-POSTROUTING
-t nat -I POSTROUTING -o ` + lab.WANDev + ` -j MINIUPNPD-POSTROUTING
`

// peerConfig is miniupnpd's; what it does not name is as delivered. PCP comes
// with NAT-PMP.
const peerConfig = `ext_ifname=` + lab.WANDev + `
listening_ip=` + lab.LANDev + `
port=0
enable_natpmp=yes
ipv6_disable=yes
secure_mode=yes
system_uptime=yes
uuid=6f1d0c9e-7f0a-4c53-9a70-3b2d5e8c1f64
allow 1024-65535 0.0.0.0/0 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`

// withLog runs a program with a /dev of its own in which there is a system log.
// Without one a miniupnpd writes to the machine's console, which may be slow.
const withLog = `
mount -t tmpfs -o mode=755 none /dev
mknod -m 666 /dev/null c 1 3
mknod -m 444 /dev/urandom c 1 9
ln -s "$1" /dev/log
shift
exec "$@"
`

// drain makes a socket for system logs at path and reads what comes.
func (r *router) drain(path string) (string, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return "", fmt.Errorf("a log for miniupnpd: %w", err)
	}
	go func() {
		for buf := make([]byte, 8192); ; {
			if _, err := conn.Read(buf); err != nil {
				return // the run has ended
			}
		}
	}()
	r.log = conn
	return path, nil
}

// startPeer starts miniupnpd with its files in dir.
func (r *router) startPeer(ctx context.Context, program, dir string) error {
	if r.backend == iptables {
		for _, line := range strings.Split(strings.TrimSpace(chains), "\n") {
			if err := r.run(ctx, "", legacy, append([]string{"-w"}, strings.Fields(line)...)...); err != nil {
				return err
			}
		}
	}
	config, pidFile := filepath.Join(dir, r.backend+".conf"), filepath.Join(dir, r.backend+".pid")
	if err := os.WriteFile(config, []byte(peerConfig), 0o600); err != nil {
		return err
	}
	logSocket, err := r.drain(filepath.Join(dir, r.backend+".log"))
	if err != nil {
		return err
	}
	// It goes to the background by itself; staying in the foreground would
	// mean its debug mode.
	if err := r.run(ctx, "", "unshare", "-m", "sh", "-c", withLog, "sh", logSocket, program, "-f", config, "-P", pidFile); err != nil {
		return err
	}
	if err := r.discover(); err != nil {
		return err
	}
	text, err := os.ReadFile(pidFile)
	if err == nil {
		r.pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if err != nil {
		return fmt.Errorf("process of miniupnpd: %w", err)
	}
	r.stop = func() error { return unix.Kill(r.pid, unix.SIGTERM) } // the lab's end waits for it
	return nil
}

// discover waits until the daemon answers a search.
func (r *router) discover() error {
	return r.lab.LAN1.Do(func() (err error) {
		for end := time.Now().Add(startTimeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if r.svc, err = discover(r.search); err == nil {
				return nil
			}
		}
		return fmt.Errorf("%s with %s does not serve: %w", r.name, r.backend, err)
	})
}

// close ends the daemon and its lab, and all that still runs there.
func (r *router) close() error {
	err := errors.Join(r.stop(), r.lab.Close())
	for _, a := range r.askers {
		_ = unix.Close(a.fd) // nothing is lost with it
	}
	if r.log != nil {
		err = errors.Join(err, r.log.Close())
	}
	return err
}
