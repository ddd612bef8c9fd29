package openwrt_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// router is a directory with stand-ins for what the packages' scripts call on a
// router; each writes down how it was called.
type router struct {
	dir string
}

// newRouter makes a router: with a table inet upnpd, with a forward chain of fw4
// that has that text, with a daemon that runs until the signal.
func newRouter(t *testing.T, table bool, chain string, daemon bool) router {
	r := router{t.TempDir()}
	called := `echo "${0##*/} $*" >>` + r.dir + "/calls\n"
	script := func(name, body string) { write(t, filepath.Join(r.dir, name), "#!/bin/sh\n"+body, 0o755) }
	if table {
		write(t, filepath.Join(r.dir, "table"), "", 0o644)
	}
	if daemon {
		write(t, filepath.Join(r.dir, "running"), "", 0o644)
	}
	write(t, filepath.Join(r.dir, "chain"), chain, 0o644)
	script("bin/nft", `case "$*" in
"list table inet upnpd") test -e `+r.dir+`/table ;;
"list chain inet fw4 forward") test -s `+r.dir+`/chain && cat `+r.dir+`/chain ;;
*) exit 9 ;;
esac
`)
	script("bin/pidof", `test "$*" = upnpd && test -e `+r.dir+"/running\n")
	script("bin/fw4", called)
	script("bin/uci", called)
	script("bin/sleep", called)
	script("etc/init.d/upnpd", called+"rm -f "+r.dir+"/running\n")
	write(t, filepath.Join(r.dir, "lib/functions/procd.sh"), `procd_send_signal() {
	echo "procd_send_signal $*" >>`+r.dir+`/calls
	rm -f `+r.dir+`/running
}
`, 0o644)
	for _, name := range []string{"var/run/upnpd/leases", "var/etc/upnpd.conf", "var/etc/other.conf"} {
		write(t, filepath.Join(r.dir, name), "", 0o644)
	}
	return r
}

// run runs one of the scripts, as it is but for its paths, which lie in the
// router's directory, and gives the calls.
func (r router) run(t *testing.T, name string, env []string, args ...string) string {
	t.Helper()
	calls, out := runMoved(t, r.dir, name, []string{"/lib/functions/", "/etc/init.d/", "/var/run/", "/var/etc/"}, env, args...)
	if out != "" {
		t.Errorf("%s %v printed %q", name, args, out)
	}
	return calls
}

// runMoved runs scripts/package/NAME, or the file with that path, with some of its
// paths below dir, and the stand-ins in dir/bin. It gives the calls that they wrote
// to dir/calls, and the output.
func runMoved(t *testing.T, dir, name string, paths, env []string, args ...string) (calls, out string) {
	t.Helper()
	if !filepath.IsAbs(name) {
		name = filepath.Join(checkout(t), "scripts/package", name)
	}
	text := string(read(t, name))
	for _, path := range paths {
		text = strings.ReplaceAll(text, path, dir+path)
	}
	script := filepath.Join(dir, filepath.Base(name))
	write(t, script, text, 0o755)
	write(t, filepath.Join(dir, "calls"), "", 0o644)
	env = append(env, "PATH="+filepath.Join(dir, "bin")+":/usr/sbin:/usr/bin:/sbin:/bin")
	out = run(t, dir, env, "busybox", append([]string{"sh", script}, args...)...)
	return strings.ReplaceAll(strings.TrimSpace(string(read(t, filepath.Join(dir, "calls")))), "\n", "; "), out
}

const ourChain = "chain forward { policy drop; meta nfproto ipv4 ct mark & 0x10000000 == 0x10000000 ct status dnat accept }\n"

// An upgrade leaves the mappings in the kernel when the kernel ends them by itself.
func TestHandover(t *testing.T) {
	upgrade := []string{"PKG_UPGRADE=1"}
	handed, stopped := "procd_send_signal upnpd * USR2; upnpd stop", "upnpd stop"
	for name, c := range map[string]struct {
		table, daemon bool
		env, args     []string
		want          string
	}{
		"opkg, prerm":             {true, true, upgrade, []string{"upgrade", "2-r1"}, handed},
		"old opkg":                {true, true, nil, []string{"upgrade", "2-r1"}, handed},
		"old opkg, prerm-pkg":     {true, true, nil, []string{"/usr/lib/opkg/info/upnpd.prerm", "upgrade", "2-r1"}, handed},
		"apk, pre-upgrade":        {true, true, upgrade, []string{"2-r1", "1-r1"}, handed},
		"iptables":                {false, true, upgrade, []string{"upgrade", "2-r1"}, stopped},
		"no daemon runs":          {true, false, upgrade, []string{"upgrade", "2-r1"}, stopped},
		"opkg, removal":           {true, true, []string{"PKG_UPGRADE=0"}, []string{"/usr/lib/opkg/info/upnpd.prerm", "remove"}, ""},
		"apk, removal":            {true, true, nil, []string{"2-r1"}, ""},
		"first installation":      {true, true, nil, []string{"install"}, ""},
		"an image is being built": {true, true, []string{"PKG_UPGRADE=1", "IPKG_INSTROOT=/image"}, []string{"upgrade"}, ""},
	} {
		if got := newRouter(t, c.table, ourChain, c.daemon).run(t, "handover", c.env, c.args...); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A removal leaves nothing of ours behind but a configuration that was changed.
func TestPostrm(t *testing.T) {
	removed := "uci -q delete firewall.upnpd; uci commit firewall"
	for name, c := range map[string]struct {
		chain     string
		env, args []string
		want      string
	}{
		"removal":                 {ourChain, nil, []string{"remove"}, removed + "; fw4 -q reload"},
		"apk, removal":            {ourChain, nil, []string{"2-r1"}, removed + "; fw4 -q reload"},
		"removal without fw4":     {"", nil, []string{"remove"}, removed},
		"upgrade":                 {ourChain, nil, []string{"upgrade", "2-r1"}, ""},
		"upgrade, by environment": {ourChain, []string{"PKG_UPGRADE=1"}, nil, ""},
		"an image is being built": {ourChain, []string{"IPKG_INSTROOT=/image"}, []string{"remove"}, ""},
	} {
		r := newRouter(t, false, c.chain, false)
		if got := r.run(t, "postrm", c.env, c.args...); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		var left []string
		for path := range walk(t, filepath.Join(r.dir, "var")) {
			left = append(left, path)
		}
		if want := 3; c.want == "" && len(left) != want {
			t.Errorf("%s: %v are left, want all", name, left)
		}
		if c.want != "" && (len(left) != 1 || left[0] != "/etc/other.conf") {
			t.Errorf("%s: %v are left, want what is not ours", name, left)
		}
	}
}

// The scripts of the Debian package: conventions of deb-systemd-helper, nothing is
// started in another root, an upgrade hands over.
func TestDebScripts(t *testing.T) {
	const enable = "deb-systemd-helper unmask upnpd.service; deb-systemd-helper --quiet was-enabled upnpd.service; " +
		"deb-systemd-helper enable upnpd.service"
	const reload = "; systemctl --system daemon-reload"
	const active = "; systemctl is-active --quiet upnpd.service"
	const restart = "; deb-systemd-invoke restart upnpd.service"
	for name, c := range map[string]struct {
		script, args   string
		active, tables bool
		env            []string
		want           string
	}{
		"first installation": {"postinst", "configure", false, false, nil, enable + reload + "; deb-systemd-invoke start upnpd.service"},
		"upgrade, nftables": {"postinst", "configure 0.1", true, true, nil, enable + reload + active +
			"; systemctl kill --kill-who=main --signal=USR2 upnpd.service" + active + restart},
		"upgrade, iptables":     {"postinst", "configure 0.1", true, false, nil, enable + reload + active + restart},
		"upgrade, it was off":   {"postinst", "configure 0.1", false, false, nil, enable + reload + active},
		"in another root":       {"postinst", "configure", false, true, []string{"DPKG_ROOT=/nonexistent"}, enable},
		"unknown word":          {"postinst", "triggered", false, true, nil, ""},
		"removal":               {"prerm", "remove", true, true, nil, "deb-systemd-invoke stop upnpd.service"},
		"removal, another root": {"prerm", "remove", true, true, []string{"DPKG_ROOT=/nonexistent"}, ""},
		"an upgrade stops not":  {"prerm", "upgrade 0.2", true, true, nil, ""},
		"removed":               {"postrm", "remove", false, true, nil, strings.TrimPrefix(reload, "; ")},
		"removed, another root": {"postrm", "remove", false, true, []string{"DPKG_ROOT=/nonexistent"}, ""},
		"purged": {"postrm", "purge", false, true, []string{"DPKG_ROOT=/nonexistent"},
			"deb-systemd-helper purge upnpd.service; deb-systemd-helper unmask upnpd.service"},
	} {
		dir := t.TempDir()
		called := `echo "${0##*/} $*" >>` + dir + "/calls\n"
		for program, body := range map[string]string{
			"systemctl":          "case $1 in is-active) test -e " + dir + "/active ;; kill) rm -f " + dir + "/active ;; esac\n",
			"deb-systemd-helper": "", "deb-systemd-invoke": "", "sleep": "",
		} {
			write(t, filepath.Join(dir, "bin", program), "#!/bin/sh\n"+called+body, 0o755)
		}
		write(t, filepath.Join(dir, "bin/nft"), "#!/bin/sh\ntest -e "+dir+"/tables\n", 0o755)
		write(t, filepath.Join(dir, "run/systemd/system/x"), "", 0o644)
		write(t, filepath.Join(dir, "etc/default/upnpd"), "EXTIFACE=\n", 0o644)
		for file, is := range map[string]bool{"active": c.active, "tables": c.tables} {
			if is {
				write(t, filepath.Join(dir, file), "", 0o644)
			}
		}
		got, out := runMoved(t, dir, "deb/"+c.script, []string{"/run/systemd/", "/etc/default/"}, c.env, strings.Fields(c.args)...)
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if hint := strings.Contains(out, "set EXTIFACE"); hint != (name == "first installation") {
			t.Errorf("%s printed %q", name, out)
		}
	}
}
