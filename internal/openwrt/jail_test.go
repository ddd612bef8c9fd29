package openwrt

import (
	"slices"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/config"
)

// TestJail: only with nftables, ujail and the user, and where the daemon can write
// (issue 5, point 1).
func TestJail(t *testing.T) {
	tests := []struct {
		name    string
		options []string
		change  func(r *router)
		jailed  bool
		mounts  string // what it may write in
		log     string
	}{
		{name: "auto", jailed: true, mounts: "/var/run/upnpd"},
		{name: "no ujail", change: func(r *router) { r.remove("/sbin/ujail") }},
		{name: "no user", change: func(r *router) { r.write("/etc/passwd", "root:x:0:0:root:/root:/bin/ash\n") }},
		{name: "no capabilities", change: func(r *router) { r.remove("/etc/capabilities") }},
		{name: "fw3", change: func(r *router) { r.remove("/sbin/fw4") }},
		{name: "legacy tables", change: func(r *router) { r.write("/proc/net/ip_tables_names", "nat\nfilter\n") }},
		{name: "no legacy tables", change: func(r *router) { r.write("/proc/net/ip_tables_names", "") }, jailed: true, mounts: "/var/run/upnpd"},
		{name: "iptables", options: []string{"option firewall iptables"}},
		{name: "iptables by its program", options: []string{"option iptables_location /usr/sbin/iptables"}},
		{name: "nftables without fw4", options: []string{"option firewall nftables"}, change: func(r *router) { r.remove("/sbin/fw4") }, jailed: true, mounts: "/var/run/upnpd"},
		{name: "nft", options: []string{"option firewall nft"}, jailed: true, mounts: "/var/run/upnpd"},
		{name: "a directory to be made", options: []string{"option lease_file /etc/upnpd/leases"}, jailed: true, mounts: "/var/run/upnpd /etc/upnpd"},
		{name: "its own directory", options: []string{"option lease_file /etc/upnpd/leases", "option control_socket /etc/upnpd/sock"},
			change: func(r *router) { r.write("/etc/upnpd/leases", ""); r.chown("/etc/upnpd", 415) }, jailed: true, mounts: "/var/run/upnpd /etc/upnpd"},
		{name: "no files", options: []string{"option lease_file none", "option control_socket none"}, jailed: true, mounts: "/var/run/upnpd"},
		{name: "root's directory", options: []string{"option lease_file /etc/upnpd.leases"},
			log: "daemon.notice upnpd: the directory /etc is not of user upnpd, so upnpd runs without a jail; /etc/upnpd would do"},
		{name: "the root directory", options: []string{"option lease_file /leases"},
			log: "daemon.notice upnpd: the directory / is not of user upnpd, so upnpd runs without a jail; /etc/upnpd would do"},
		{name: "a blank", options: []string{"option lease_file '/mnt/my disk/leases'"},
			log: "daemon.notice upnpd: the directory / is not of user upnpd, so upnpd runs without a jail; /etc/upnpd would do"},
		{name: "a low port", options: []string{"option port 1023"},
			log: "daemon.notice upnpd: upnpd.config.port: only root can have a port below 1024, so upnpd runs without a jail"},
		{name: "port 1024", options: []string{"option port 1024"}, jailed: true, mounts: "/var/run/upnpd"},
		{name: "port 0", options: []string{"option port 0"}, jailed: true, mounts: "/var/run/upnpd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRouter(t, section(tt.options...))
			r.jailed()
			if tt.change != nil {
				tt.change(r)
			}
			s := r.init("start")
			jailed := len(s.args("procd_add_jail")) == 1
			if s.happened() != "starts" || jailed != tt.jailed || slices.Contains(s.args("procd_set_param"), "user upnpd") != tt.jailed {
				t.Errorf("it %s, in a jail: %v, want %v: %q", s.happened(), jailed, tt.jailed, s.calls)
			}
			if got := strings.Join(s.args("procd_add_jail_mount_rw"), " "); got != tt.mounts {
				t.Errorf("it may write in %q, want %q", got, tt.mounts)
			}
			if got := strings.Join(s.log, "\n"); got != tt.log {
				t.Errorf("log: %q, want %q", got, tt.log)
			}
			r.owner("/etc", 0)
			for _, dir := range strings.Fields(tt.mounts) {
				r.owner(strings.Replace(dir, "/var/", "/tmp/", 1), 415)
			}
			if c := r.conf(); tt.jailed && c.Firewall != config.FirewallNFTables {
				t.Errorf("firewall %s in a jail, which has no programs", c.Firewall)
			}
		})
	}
}

// TestOwnership: what the root before has left, a jail can use; a link that a jail
// has left leads nowhere.
func TestOwnership(t *testing.T) {
	r := newRouter(t, "")
	r.jailed()
	r.write("/tmp/run/upnpd/leases", "")
	r.write("/etc/shadow", "")
	r.symlink("/etc/shadow", "/tmp/run/upnpd/trap")
	r.init("start")
	r.owner("/tmp/run/upnpd/leases", 415)
	r.owner("/etc/shadow", 0)
	r.remove("/sbin/ujail")
	r.init("restart")
	r.owner("/tmp/run/upnpd/leases", 0)
	r.owner("/etc/shadow", 0)
}

// TestJailChanges: another user or another jail is another process; the stand-in for
// procd fails when only a signal is sent.
func TestJailChanges(t *testing.T) {
	r := newRouter(t, "")
	r.jailed()
	r.init("start")
	for _, set := range []string{"firewall=iptables", "firewall=auto", "lease_file=/etc/upnpd/leases", "lease_file=/etc/leases"} {
		r.must("/sbin/uci", "set", "upnpd.config."+set)
		s := r.init("reload")
		if s.happened() != "starts" || len(s.args("procd_kill")) != 1 || len(s.args("sleep")) != 1 {
			t.Errorf("%s: it %s: %q", set, s.happened(), s.calls)
		}
	}
	// The names of hosts appear later; no reason to restart.
	r.must("/sbin/uci", "delete", "upnpd.config.lease_file")
	r.init("restart")
	r.write("/tmp/dhcp.leases", "")
	if s := r.init("reload"); s.happened() != "gets signal 1" {
		t.Errorf("it %s", s.happened())
	}
}
