package openwrt

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// section is a configuration with these lines in its section.
func section(options ...string) string {
	return "config upnpd 'config'\n\toption extif 'wan'\n\tlist intif 'lan'\n\t" + strings.Join(options, "\n\t") + "\n"
}

// started has the calls of a start with the configuration that is shipped; the last
// ones of an instance are those of its user.
func started(instance ...string) []string {
	return slices.Concat([]string{
		"extra_command [check] [Say what keeps mapped ports from working]",
		"procd_open_service [upnpd] [/etc/init.d/upnpd]",
		"procd_open_instance",
		"procd_set_param [command] [/usr/sbin/upnpd] [-f] [--config] [/var/etc/upnpd.conf]",
		"procd_set_param [respawn] [3600] [5] [5]",
		"procd_set_param [file] [/var/etc/upnpd.conf]",
		"procd_set_param [netdev] [eth1] [br-lan]",
		"procd_set_param [stdout] [1]",
		"procd_set_param [stderr] [1]",
		"procd_set_param [reload_signal] [HUP]",
	}, instance, []string{
		"procd_close_instance",
		"procd_add_reload_trigger [upnpd]",
		"procd_add_reload_interface_trigger [wan]",
		"procd_add_reload_interface_trigger [lan]",
		"uci_load_validate [upnpd] [upnpd] [] []",
		"procd_close_service [set]",
		"upnpd [starts]",
	})
}

var inJail = []string{
	"procd_set_param [user] [upnpd]",
	"procd_set_param [group] [upnpd]",
	"procd_set_param [capabilities] [/etc/capabilities/upnpd.json]",
	"procd_set_param [no_new_privs] [1]",
	"procd_add_jail [upnpd] [log] [procfs]",
	"procd_add_jail_mount [/var/etc/upnpd.conf]",
	"procd_add_jail_mount [/tmp/dhcp.leases]",
	"procd_add_jail_mount_rw [/var/run/upnpd]",
}

// TestStart: the configuration that is shipped (issue 5, point 1).
func TestStart(t *testing.T) {
	for name, jail := range map[string][]string{"as root": nil, "in a jail": inJail} {
		t.Run(name, func(t *testing.T) {
			r := newRouter(t, "")
			if jail != nil {
				r.jailed()
				r.write("/tmp/dhcp.leases", "")
			}
			s := r.init("start")
			if want := started(jail...); !slices.Equal(s.calls, want) {
				t.Errorf("calls:\n%s\nwant:\n%s", strings.Join(s.calls, "\n"), strings.Join(want, "\n"))
			}
			if len(s.log) > 0 {
				t.Errorf("log: %q", s.log)
			}
			c := r.conf()
			if c.ExtIf != "eth1" || !slices.Equal(c.IntIfs, []string{"br-lan"}) {
				t.Errorf("extif %s, intif %s", c.ExtIf, c.IntIfs)
			}
			r.owner("/tmp/run/upnpd", map[bool]uint32{true: 415}[jail != nil])
			r.owner("/tmp/etc/upnpd.conf", 0)
		})
	}
}

// owner checks who owns a file.
func (r *router) owner(path string, want uint32) {
	r.t.Helper()
	info, err := os.Lstat(r.root + path)
	if err != nil {
		r.t.Fatal(err)
	}
	if got := info.Sys().(*syscall.Stat_t).Uid; got != want {
		r.t.Errorf("%s is of user %d, want %d", path, got, want)
	}
}

// TestReload: procd's signal is for what has changed, and only for that
// (OPENWRT.md 0.6).
func TestReload(t *testing.T) {
	r := newRouter(t, "")
	r.jailed()
	r.init("start")
	file := r.inode()
	if got := r.init("reload").happened(); got != "stays" {
		t.Errorf("nothing has changed: it %s", got)
	}
	r.must("/sbin/uci", "set", "upnpd.config.max_lease=60")
	if got := r.init("reload").happened(); got != "gets signal 1" {
		t.Errorf("max_lease has changed: it %s", got)
	}
	if c := r.conf(); c.Policy.MaxLease.Seconds() != 60 {
		t.Errorf("max_lease is %v", c.Policy.MaxLease)
	}
	if r.inode() != file {
		t.Error("upnpd.conf is another file: the jail does not see it")
	}
	r.device("eth1") // it was away and has another index
	if got := r.init("reload").happened(); got != "gets signal 1" {
		t.Errorf("eth1 is another device: it %s", got)
	}
}

func (r *router) inode() uint64 {
	r.t.Helper()
	info, err := os.Stat(r.root + "/tmp/etc/upnpd.conf")
	if err != nil {
		r.t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// TestStaged: `uci set` is enough, as in the words; without a commit it is
// gone after the next boot (OPENWRT.md 0.2).
func TestStaged(t *testing.T) {
	r := newRouter(t, "")
	r.networks(map[string]network{
		"wan":   {"option proto dhcp\noption device eth1", "eth1", true},
		"fiber": {"option proto dhcp\noption device eth7", "eth7", false},
		"lan":   {"option proto static\noption device br-lan", "br-lan", false},
	})
	r.init("start")
	r.must("/sbin/uci", "set", "upnpd.config.extif=fiber")
	if strings.Contains(r.read("/etc/config/upnpd"), "fiber") {
		t.Fatal("the stand-in has committed")
	}
	s := r.init("restart")
	if c := r.conf(); c.ExtIf != "eth7" || s.happened() != "starts" {
		t.Errorf("extif %s; it %s", c.ExtIf, s.happened())
	}
	r.remove("/tmp/.uci")
	r.init("restart")
	if c := r.conf(); c.ExtIf != "eth1" {
		t.Errorf("extif %s after a boot", c.ExtIf)
	}
}

// TestRestart waits for the end of what ran: procd would start the next one as the
// user of the last.
func TestRestart(t *testing.T) {
	r := newRouter(t, "")
	r.init("start")
	s := r.init("restart")
	var order []string
	for _, c := range s.calls {
		switch name, _, _ := strings.Cut(c, " "); name {
		case "procd_kill", "sleep", "procd_open_instance", "upnpd":
			order = append(order, c)
		}
	}
	want := []string{"procd_kill [upnpd]", "sleep [1]", "procd_open_instance", "upnpd [starts]"}
	if !slices.Equal(order, want) {
		t.Errorf("%q, want %q", order, want)
	}
}

// TestDisabled: `enabled 0` starts nothing and says so, also at a reload.
func TestDisabled(t *testing.T) {
	const line = "daemon.notice upnpd: disabled; to start it: uci set upnpd.config.enabled=1; uci commit upnpd; /etc/init.d/upnpd start"
	for _, word := range []string{"0", "off", "false", "no", "disabled"} {
		r := newRouter(t, section("option enabled "+word))
		s := r.init("start")
		if s.happened() != "" || len(s.args("procd_open_instance")) > 0 || !slices.Equal(s.log, []string{line}) {
			t.Errorf("%s: it %s; %q; %q", word, s.happened(), s.calls, s.log)
		}
		if got := s.args("procd_add_reload_trigger"); !slices.Equal(got, []string{"upnpd"}) {
			t.Errorf("%s: nothing would start it: %q", word, got)
		}
	}
	r := newRouter(t, section("option enabled on"))
	if got := r.init("start").happened(); got != "starts" {
		t.Fatalf("it %s", got)
	}
	r.must("/sbin/uci", "set", "upnpd.config.enabled=0")
	if got := r.init("reload").happened(); got != "stops" {
		t.Errorf("it %s", got)
	}
	r.must("/sbin/uci", "set", "upnpd.config.enabled=1")
	if got := r.init("reload").happened(); got != "starts" {
		t.Errorf("it %s", got)
	}
}

// TestCheck: /etc/init.d/upnpd check.
func TestCheck(t *testing.T) {
	r := newRouter(t, "")
	if got := r.must("/etc/init.d/upnpd", "check", "--live"); got != "upnpctl check --live\n" {
		t.Errorf("%q", got)
	}
	if got := r.must("/etc/init.d/upnpd", "enabled"); got != "94 15\n" {
		t.Errorf("START and STOP are %q", got)
	}
}

// TestValidation: the types that LuCI and validate_data are told name options that
// there are.
func TestValidation(t *testing.T) {
	r := newRouter(t, "")
	r.init("start")
	all := lines(r.read("/validation"))
	if len(all) < 20 {
		t.Fatalf("%q", all)
	}
	known := daemonOptions(t)
	for _, line := range all {
		name, kind, ok := strings.Cut(line, ":")
		if !ok || kind == "" || !slices.Contains(known, name) && !slices.Contains([]string{"enabled", "upload", "download"}, name) {
			t.Errorf("%q", line)
		}
	}
}
