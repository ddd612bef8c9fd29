package openwrt_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// testApk makes a package for apk with a stand-in for the tool, which writes down
// its arguments (OPENWRT.md section 5, .apk).
func testApk(t *testing.T, dir string) {
	work := t.TempDir()
	tool := filepath.Join(work, "apk")
	write(t, tool, `#!/bin/sh
case "$*" in *--help) echo "  -s, --script TYPE:SCRIPT"; exit ;; esac
printf '%s\n' "$@" >"$ARGUMENTS"
`, 0o755)
	arguments := filepath.Join(work, "arguments")
	run(t, dir, []string{"APK=" + tool, "ARGUMENTS=" + arguments}, "scripts/apk.sh", "mipsel_24kc")
	got := strings.Split(strings.TrimSpace(string(read(t, arguments))), "\n")
	want := []string{"mkpkg", "name:upnpd", "version:" + version(t) + "-r1", "arch:mipsel_24kc", "license:BSD-3-Clause",
		"depends:libc !miniupnpd-iptables !miniupnpd-nftables",
		"post-install:dist/apk/mipsel_24kc/post-install", "pre-upgrade:dist/apk/mipsel_24kc/pre-upgrade",
		"post-upgrade:dist/apk/mipsel_24kc/post-upgrade", "pre-deinstall:dist/apk/mipsel_24kc/pre-deinstall",
		"post-deinstall:dist/apk/mipsel_24kc/post-deinstall",
		"dist/apk/mipsel_24kc/root", "dist/apk/upnpd-" + version(t) + "-r1_mipsel_24kc.apk"}
	for _, w := range want {
		found := false
		for _, g := range got {
			found = found || g == w
		}
		if !found {
			t.Errorf("apk was called without %q: %q", w, got)
		}
	}
	if v := version(t) + "-r1"; !regexp.MustCompile(`^\d+(\.\d+)*(_(alpha|beta|pre|rc|p)\d*)?-r\d+$`).MatchString(v) {
		t.Errorf("apk takes no version %q", v)
	}

	tree := filepath.Join(dir, "dist/apk/mipsel_24kc")
	files := map[string]entry{}
	for path, e := range installed {
		files[path] = e
	}
	lists := "/lib/apk/packages/upnpd."
	for _, name := range []string{"list", "conffiles", "conffiles_static", "rusers"} {
		files[lists+name] = entry{mode: 0o644}
	}
	compareTree(t, walk(t, filepath.Join(tree, "root")), files)
	list := strings.Fields(string(read(t, filepath.Join(tree, "root", lists+"list"))))
	if len(list) != len(installed)+1 { // and rusers
		t.Errorf("upnpd.list has %q", list)
	}
	config := sum(read(t, filepath.Join(tree, "root/etc/config/upnpd")))
	for name, want := range map[string]string{"conffiles": "/etc/config/upnpd\n", "rusers": "upnpd=415:upnpd=415\n",
		"conffiles_static": "/etc/config/upnpd " + config + "\n"} {
		if got := string(read(t, filepath.Join(tree, "root", lists+name))); got != want {
			t.Errorf("upnpd.%s is %q, want %q", name, got, want)
		}
	}
	testApkHooks(t, tree)

	out, err := try(dir, []string{"APK=false"}, "scripts/apk.sh", "mipsel_24kc")
	if err == nil || strings.Count(out, "\n") != 1 || !strings.Contains(out, "APK=") {
		t.Errorf("without the tool: %v, %q; want one line that says what to do", err, out)
	}
}

// testApkHooks runs the scripts with a base system that says what was called.
func testApkHooks(t *testing.T, tree string) {
	root := t.TempDir()
	write(t, filepath.Join(root, "lib/functions.sh"), `
for f in add_group_and_user default_postinst default_prerm; do
	eval "$f() { echo $f pkgname=\$pkgname PKG_UPGRADE=\$PKG_UPGRADE \$*; }"
done
`, 0o644)
	for hook, want := range map[string]string{
		"post-install":   "add_group_and_user pkgname=upnpd PKG_UPGRADE=\ndefault_postinst pkgname=upnpd PKG_UPGRADE=\n",
		"post-upgrade":   "add_group_and_user pkgname=upnpd PKG_UPGRADE=1\ndefault_postinst pkgname=upnpd PKG_UPGRADE=1\n",
		"pre-deinstall":  "default_prerm pkgname=upnpd PKG_UPGRADE=\n",
		"pre-upgrade":    "",
		"post-deinstall": "",
	} {
		if got := run(t, root, []string{"IPKG_INSTROOT=" + root}, "busybox", "sh", filepath.Join(tree, hook), "2-r1"); got != want {
			t.Errorf("%s called %q, want %q", hook, got, want)
		}
	}
	// apk gives versions as arguments, and does not say what for.
	got := newRouter(t, true, ourChain, true).run(t, filepath.Join(tree, "pre-upgrade"), nil, "2-r1", "1-r1")
	if want := "procd_send_signal upnpd * USR2; upnpd stop"; got != want {
		t.Errorf("pre-upgrade: %q, want %q", got, want)
	}
	for hook, source := range map[string]string{
		"pre-upgrade": "handover", "post-deinstall": "postrm"} {
		_, script, _ := strings.Cut(string(read(t, filepath.Join(checkout(t), "scripts/package", source))), "\n")
		if !strings.HasSuffix(string(read(t, filepath.Join(tree, hook))), script) {
			t.Errorf("%s does not end with scripts/package/%s", hook, source)
		}
	}
	if info, err := os.Stat(filepath.Join(tree, "post-install")); err != nil || info.Mode() != 0o755 {
		t.Errorf("post-install: %v, %v", info, err)
	}
}
