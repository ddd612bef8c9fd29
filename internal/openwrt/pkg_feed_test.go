package openwrt_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// openwrt/upnpd/Makefile is run in a stand-in for OpenWrt's build system and must
// define and install what the other packages have (issue 5, point 3).
func TestFeedPackage(t *testing.T) {
	top, out := checkout(t), t.TempDir()
	run(t, top, nil, "make", "-C", "openwrt/upnpd", "TOPDIR="+filepath.Join(top, "internal/openwrt/testdata/sdk"), "OUT="+out, "all")
	compareTree(t, walk(t, filepath.Join(out, "root")), installed)
	for path, want := range installed {
		if want.link != "" || want.source == "BINARY" {
			continue
		}
		if sum(read(t, filepath.Join(out, "root", path))) != sum(read(t, filepath.Join(top, want.source))) {
			t.Errorf("%s has not the content of %s", path, want.source)
		}
	}
	for script, source := range map[string]string{"preinst": "handover", "prerm": "handover", "postrm": "postrm"} {
		if got, want := string(read(t, filepath.Join(out, script))), string(read(t, filepath.Join(top, "scripts/package", source))); got != want {
			t.Errorf("%s is not scripts/package/%s:\n%s", script, source, got)
		}
	}
	if got := string(read(t, filepath.Join(out, "conffiles"))); got != "/etc/config/upnpd\n" {
		t.Errorf("conffiles are %q", got)
	}
	want := map[string]string{
		"NAME": "upnpd", "VERSION": version(t) + "-r1", "LICENSE": "BSD-3-Clause", "SECTION": "net",
		"FLAGS": "no-mips16", "USERID": "upnpd=415:upnpd=415",
		"DEPENDS":          "@(aarch64||mips) +kmod-nft-nat +kmod-nf-conntrack-netlink",
		"CONFLICTS":        "miniupnpd-iptables miniupnpd-nftables",
		"GO_PKG_BUILD_PKG": "github.com/linux-igd/upnpd/cmd/upnpd",
		// The feed's generic test runs upnpd --version and looks for the version.
		"GO_PKG_LDFLAGS_X": "main.version=" + version(t),
		"MISSING":          "", // files on which the build depends
	}
	for _, line := range strings.Split(string(read(t, filepath.Join(out, "fields"))), "\n") {
		name, value, _ := strings.Cut(line, " ")
		if w, ok := want[name]; ok && value != w {
			t.Errorf("%s is %q, want %q", name, value, w)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s is not defined", name)
	}
}

// scripts/feeds looks for packages in the directories of a feed, not at its top,
// and takes their names from the directories.
func TestFeedLayout(t *testing.T) {
	found, err := filepath.Glob(filepath.Join(checkout(t), "openwrt", "*", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if !strings.Contains(string(read(t, path)), "$(eval $(call BuildPackage,"+filepath.Base(filepath.Dir(path))+"))") {
			t.Errorf("%s does not make the package of its directory's name", path)
		}
	}
	if len(found) == 0 {
		t.Error("openwrt/ has no package")
	}
}
