package openwrt_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// debian is what the Debian package installs (issue 5, point 4).
var debian = map[string]entry{
	"/usr/sbin/upnpd":                          {mode: 0o755, source: "dist/upnpd-amd64"},
	"/usr/sbin/upnpctl":                        {link: "upnpd"},
	"/etc/upnpd.conf":                          {mode: 0o644, source: "files/upnpd.conf"},
	"/etc/default/upnpd":                       {mode: 0o644, source: "files/upnpd.default"},
	"/lib/systemd/system/upnpd.service":        {mode: 0o644, source: "files/upnpd.service"},
	"/usr/share/man/man5/upnpd.conf.5.gz":      {mode: 0o644, source: "doc/upnpd.conf.5"},
	"/usr/share/man/man8/upnpd.8.gz":           {mode: 0o644, source: "doc/upnpd.8"},
	"/usr/share/man/man8/upnpctl.8.gz":         {mode: 0o644, source: "doc/upnpctl.8"},
	"/usr/share/doc/upnpd/copyright":           {mode: 0o644, source: "LICENSE"},
	"/usr/share/doc/upnpd/changelog.Debian.gz": {mode: 0o644},
}

// testDeb reads the package, and installs, upgrades and removes it in a root of
// its own, in which no script may start anything.
func testDeb(t *testing.T, dir string) {
	deb := filepath.Join(dir, "dist/upnpd_"+version(t)+"-1_amd64.deb")
	t.Run("control", func(t *testing.T) { testDebControl(t, deb) })
	t.Run("owners", func(t *testing.T) {
		lines := strings.Split(strings.TrimSpace(run(t, dir, nil, "dpkg-deb", "-c", deb)), "\n")
		for _, line := range lines {
			if f := strings.Fields(line); len(f) < 6 || f[1] != "root/root" {
				t.Errorf("not root's: %s", line)
			}
		}
		if len(lines) < len(debian) {
			t.Errorf("%d files, want more than %d", len(lines), len(debian))
		}
	})
	root := filepath.Join(t.TempDir(), "root")
	run(t, dir, nil, "dpkg-deb", "-x", deb, root)
	compareTree(t, walk(t, root), debian)
	for path, e := range debian {
		if e.source == "" {
			continue
		}
		content := read(t, filepath.Join(root, path))
		if strings.HasSuffix(path, ".gz") {
			content = gunzip(t, content)
		}
		if !bytes.Equal(content, read(t, filepath.Join(dir, e.source))) {
			t.Errorf("%s has not the content of %s", path, e.source)
		}
	}
	t.Run("unit", func(t *testing.T) { testUnit(t, root) })
	t.Run("install", func(t *testing.T) { testDebInstall(t, dir, deb) })
}

func gunzip(t *testing.T, packed []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func testDebControl(t *testing.T, deb string) {
	got := fields([]byte(run(t, "/", nil, "dpkg-deb", "-f", deb)))
	for name, want := range map[string]string{
		"Package": "upnpd", "Version": version(t) + "-1", "Architecture": "amd64", "Section": "net", "Priority": "optional",
		"Depends": "", "Conflicts": "linux-igd", "Replaces": "linux-igd",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if size, _ := strconv.Atoi(got["Installed-Size"]); size < 3000 || size > 10000 {
		t.Errorf("Installed-Size is %q, want about 3700 (kB)", got["Installed-Size"])
	}
	if !regexp.MustCompile(`^[^<]+ <\S+@\S+>$`).MatchString(got["Maintainer"]) {
		t.Errorf("Maintainer is %q", got["Maintainer"])
	}
	conffiles := strings.Fields(run(t, "/", nil, "dpkg-deb", "-I", deb, "conffiles"))
	if strings.Join(conffiles, " ") != "/etc/default/upnpd /etc/upnpd.conf" {
		t.Errorf("conffiles are %q", conffiles)
	}
}

func testDebInstall(t *testing.T, dir, deb string) {
	if os.Geteuid() != 0 {
		t.Skip("dpkg installs only for root")
	}
	root := filepath.Join(t.TempDir(), "root")
	for _, d := range []string{"info", "updates"} {
		if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "var/lib/dpkg/status"), "", 0o644)
	dpkg := func(args ...string) {
		t.Helper()
		out := run(t, dir, []string{"DPKG_MAINTSCRIPT_DEBUG="}, "dpkg", append([]string{"--root=" + root, "--log=/dev/null",
			"--force-script-chrootless", "--force-confold"}, args...)...)
		if strings.Contains(out, "systemctl") || strings.Contains(out, "error") {
			t.Errorf("dpkg %v: %s", args, out)
		}
	}
	there := func(path string, want bool) {
		t.Helper()
		if _, err := os.Lstat(filepath.Join(root, path)); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", path, err == nil, want)
		}
	}
	const wanted = "/etc/systemd/system/multi-user.target.wants/upnpd.service"
	dpkg("-i", deb)
	there(wanted, true) // enabled

	// What the administrator changed stays over an upgrade, with the leases.
	config, leases := filepath.Join(root, "etc/default/upnpd"), filepath.Join(root, "var/lib/upnpd/leases")
	write(t, config, "EXTIFACE=eth0\nINTIFACE=br0\n", 0o644)
	write(t, leases, "", 0o600)
	write(t, filepath.Join(root, "run/upnpd/leases"), "", 0o600)
	if err := os.Remove(filepath.Join(root, wanted)); err != nil {
		t.Fatal(err)
	}
	dpkg("-i", deb)
	there(wanted, false) // disabled stays disabled
	if got := string(read(t, config)); !strings.Contains(got, "EXTIFACE=eth0") {
		t.Errorf("/etc/default/upnpd is %q after an upgrade", got)
	}
	dpkg("-r", "upnpd")
	there("/usr/sbin/upnpd", false)
	there("/etc/default/upnpd", true)
	there("/var/lib/upnpd/leases", true)
	dpkg("-P", "upnpd")
	for _, path := range []string{"/etc/default/upnpd", "/etc/upnpd.conf", "/var/lib/upnpd", "/run/upnpd", wanted} {
		there(path, false)
	}
}

// testUnit has systemd judge the unit (issue 5, point 6); the score of its sandbox,
// from 10 (none) down to 0, goes to the log.
func testUnit(t *testing.T, root string) {
	unit := filepath.Join(root, "lib/systemd/system/upnpd.service")
	text := string(read(t, unit))
	// The programs must exist where the unit is verified.
	work := t.TempDir()
	copied := filepath.Join(work, "upnpd.service")
	write(t, copied, strings.ReplaceAll(text, "/usr/sbin/upnpd", filepath.Join(root, "usr/sbin/upnpd")), 0o644)
	out, err := try(work, nil, "systemd-analyze", "verify", "--man=no", copied)
	if strings.Contains(out, "upnpd.service") || err != nil && out == "" { // it may find faults in other units
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	m := regexp.MustCompile(`^systemd (\d+)`).FindStringSubmatch(run(t, work, nil, "systemd-analyze", "--version"))
	if m == nil {
		t.Fatal("systemd-analyze says no version")
	}
	if v, _ := strconv.Atoi(m[1]); v >= 250 { // the first with --offline
		out := run(t, work, nil, "systemd-analyze", "security", "--no-pager", "--offline=yes", copied)
		score := regexp.MustCompile(`Overall exposure level for \S+: (\d+\.\d+)`).FindStringSubmatch(out)
		if score == nil {
			t.Fatalf("systemd-analyze security gives no score:\n%s", out)
		}
		t.Logf("exposure level: %s", score[1])
		if level, err := strconv.ParseFloat(score[1], 64); err != nil || level > 2.5 {
			t.Errorf("exposure level %s, want at most 2.5:\n%s", score[1], out)
		}
	}
	for _, want := range []string{
		"CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW", "ExecReload=/bin/kill -HUP $MAINPID", "Restart=on-failure",
		"RuntimeDirectory=upnpd", "RuntimeDirectoryPreserve=yes", // the lease file outlives the daemon
		"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET",
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("the unit has no line %s", want)
		}
	}
	testUnitCondition(t, text)
}

// testUnitCondition runs ExecCondition: without devices the daemon is not started,
// and the journal says what to do.
func testUnitCondition(t *testing.T, unit string) {
	m := regexp.MustCompile(`(?m)^ExecCondition=/bin/sh -c '(.*)'$`).FindStringSubmatch(unit)
	if m == nil {
		t.Fatal("the unit has no ExecCondition")
	}
	config := filepath.Join(t.TempDir(), "upnpd.conf")
	script := strings.ReplaceAll(strings.ReplaceAll(m[1], "$$", "$"), "/etc/upnpd.conf", config)
	for _, c := range []struct {
		extiface, config string
		starts           bool
	}{
		{"", string(read(t, filepath.Join(checkout(t), "files/upnpd.conf"))), false},
		{"", "", false},
		{"eth0", "", true},
		{"", "max_lease = 60\n  extif=ppp0\n", true},
		{"", "ext_ifname = eth1\n", true},
		{"", "extip = 192.0.2.1\n#extif = eth0\n", false},
	} {
		write(t, config, c.config, 0o644)
		out, err := try("/", []string{"EXTIFACE=" + c.extiface}, "/bin/sh", "-c", script)
		if (err == nil) != c.starts {
			t.Errorf("EXTIFACE=%q, upnpd.conf %.20q: %v, want start %v", c.extiface, c.config, err, c.starts)
		}
		if said := strings.Contains(out, "EXTIFACE") && strings.Contains(out, "/etc/default/upnpd"); said == c.starts {
			t.Errorf("EXTIFACE=%q, upnpd.conf %.20q: it said %q", c.extiface, c.config, out)
		}
	}
}

// A package for each architecture of Debian and Ubuntu that the binaries run on.
func TestDebianArchitectures(t *testing.T) {
	for arch, want := range map[string]string{"amd64": "amd64", "arm64": "arm64", "armhf": "arm6", "armel": "arm5",
		"i386": "386-softfloat", "mipsel": "mipsle", "riscv64": "riscv64"} {
		if got := strings.TrimSpace(run(t, checkout(t), nil, "scripts/deb.sh", "--target", arch)); got != want {
			t.Errorf("%s has the binary %s, want %s", arch, got, want)
		}
	}
	if out, err := try(checkout(t), nil, "scripts/deb.sh", "--target", "vax"); err == nil || !strings.Contains(out, "known are: amd64") {
		t.Errorf("unknown architecture: %v, %q", err, out)
	}
}
