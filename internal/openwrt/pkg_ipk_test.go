package openwrt_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// ipkOf reads a package out of its feed.
func ipkOf(t *testing.T, dir, arch string) []byte {
	t.Helper()
	name := "upnpd_" + version(t) + "-r1_" + arch + ".ipk"
	return read(t, filepath.Join(dir, "dist/packages", arch, name))
}

// parts gives the members of control.tar.gz and data.tar.gz.
func parts(t *testing.T, ipk []byte) (control, data []member) {
	t.Helper()
	outer := unpack(t, ipk)
	return unpack(t, find(t, outer, "./control.tar.gz")), unpack(t, find(t, outer, "./data.tar.gz"))
}

// OPENWRT.md section 5: a gzipped tar of three members, all of root, all of one time.
func testIpkForm(t *testing.T, dir string) {
	ipk := ipkOf(t, dir, "mipsel_24kc")
	outer := unpack(t, ipk)
	var names []string
	for _, m := range outer {
		names = append(names, m.Name)
	}
	if got, want := strings.Join(names, " "), "./debian-binary ./data.tar.gz ./control.tar.gz"; got != want {
		t.Errorf("members are %s, want %s", got, want)
	}
	if got := string(find(t, outer, "./debian-binary")); got != "2.0\n" {
		t.Errorf("debian-binary is %q", got)
	}
	control, data := parts(t, ipk)
	for _, members := range [][]member{outer, control, data} {
		last := ""
		for _, m := range members {
			if m.Uid != 0 || m.Gid != 0 || m.Uname != "" || m.Gname != "" {
				t.Errorf("%s belongs to %d:%d (%s:%s), want 0:0 without names", m.Name, m.Uid, m.Gid, m.Uname, m.Gname)
			}
			if m.ModTime.Unix() != epoch {
				t.Errorf("%s is of %v, want SOURCE_DATE_EPOCH", m.Name, m.ModTime)
			}
			if m.Format == tar.FormatPAX {
				t.Errorf("%s has a PAX header, which opkg cannot read", m.Name)
			}
			if !strings.HasPrefix(m.Name, "./") {
				t.Errorf("%s does not begin with ./", m.Name)
			}
			if len(members) != len(outer) && m.Name < last {
				t.Errorf("%s comes after %s: not sorted", m.Name, last)
			}
			last = m.Name
		}
	}
}

func testIpkFiles(t *testing.T, dir string) {
	_, data := parts(t, ipkOf(t, dir, "mipsel_24kc"))
	got := map[string]entry{}
	for _, m := range data {
		path := strings.TrimSuffix(strings.TrimPrefix(m.Name, "."), "/")
		if m.Typeflag == tar.TypeDir {
			if m.Mode != 0o755 {
				t.Errorf("directory %s has mode %o, want 755: opkg gives it to the router's own", m.Name, m.Mode)
			}
			continue
		}
		got[path] = entry{mode: m.FileInfo().Mode(), link: m.Linkname}
		want, known := installed[path]
		if !known || want.link != "" {
			continue
		}
		source := filepath.Join(dir, strings.Replace(want.source, "BINARY", "dist/upnpd-mipsle", 1))
		if !bytes.Equal(m.content, read(t, source)) {
			t.Errorf("%s has not the content of %s", path, want.source)
		}
	}
	compareTree(t, got, installed)
}

func testIpkControl(t *testing.T, dir string) {
	control, data := parts(t, ipkOf(t, dir, "mipsel_24kc"))
	want := map[string]string{
		"Package": "upnpd", "Version": version(t) + "-r1", "Architecture": "mipsel_24kc",
		"Depends":    "libc", // the only one that each router has; the program is static
		"Recommends": "kmod-nf-conntrack-netlink",
		// Section 0: they have the same configuration file. Before 22.03 it was one package.
		"Conflicts":    "miniupnpd, miniupnpd-iptables, miniupnpd-nftables",
		"Require-User": "upnpd=415:upnpd=415", "License": "BSD-3-Clause", "Section": "net",
		"Source": "upnpd", "SourceName": "upnpd", "LicenseFiles": "LICENSE",
		"SourceDateEpoch": strconv.Itoa(epoch),
	}
	got := fields(find(t, control, "./control"))
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
	}
	size, used := 0, 0
	size, _ = strconv.Atoi(got["Installed-Size"]) // in bytes: opkg compares it with the free space
	for _, m := range data {
		used += len(m.content)
	}
	if size < used || size > used+64<<10 {
		t.Errorf("Installed-Size is %q, the files have %d bytes", got["Installed-Size"], used)
	}
	if got["Maintainer"] == "" || !strings.Contains(got["Description"], "\n ") {
		t.Errorf("Maintainer %q, Description %q", got["Maintainer"], got["Description"])
	}
	if got := string(find(t, control, "./conffiles")); got != "/etc/config/upnpd\n" {
		t.Errorf("conffiles are %q", got)
	}
	modes := map[string]int64{"./": 0o755, "./control": 0o644, "./conffiles": 0o644, "./postinst": 0o755,
		"./prerm": 0o755, "./prerm-pkg": 0o755, "./postrm": 0o755}
	for _, m := range control {
		if want, ok := modes[m.Name]; !ok || m.Mode != want {
			t.Errorf("control.tar.gz has %s with mode %o, want %o", m.Name, m.Mode, want)
		}
	}
	if len(control) != len(modes) {
		t.Errorf("control.tar.gz has %d members, want %d", len(control), len(modes))
	}
}

// The program in the package is of that architecture, needs no library, and
// says its version (for the feed's generic test; the x86 one can be asked here).
func testIpkProgram(t *testing.T, dir string) {
	for arch, want := range map[string]elf.FileHeader{
		"mipsel_24kc": {Class: elf.ELFCLASS32, Data: elf.ELFDATA2LSB, Machine: elf.EM_MIPS},
		"x86_64":      {Class: elf.ELFCLASS64, Data: elf.ELFDATA2LSB, Machine: elf.EM_X86_64},
	} {
		_, data := parts(t, ipkOf(t, dir, arch))
		program := find(t, data, "./usr/sbin/upnpd")
		f, err := elf.NewFile(bytes.NewReader(program))
		if err != nil {
			t.Fatal(err)
		}
		if f.Class != want.Class || f.Data != want.Data || f.Machine != want.Machine {
			t.Errorf("%s: the program is %v %v %v, want %v %v %v", arch, f.Class, f.Data, f.Machine, want.Class, want.Data, want.Machine)
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				t.Errorf("%s: the program needs a dynamic linker", arch)
			}
		}
		if !bytes.Contains(program, []byte(version(t))) {
			t.Errorf("%s: the version %s is not in the program", arch, version(t))
		}
	}
}

// OPENWRT.md section 5: what opkg reads from a feed.
func testFeedIndex(t *testing.T, dir string) {
	for _, arch := range packArchitectures {
		feed := filepath.Join(dir, "dist/packages", arch)
		index := read(t, filepath.Join(feed, "Packages"))
		z, err := gzip.NewReader(bytes.NewReader(read(t, filepath.Join(feed, "Packages.gz"))))
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := io.ReadAll(z); err != nil || !bytes.Equal(plain, index) {
			t.Errorf("%s: Packages.gz has not the content of Packages (%v)", arch, err)
		}
		if !bytes.HasSuffix(index, []byte("\n\n")) || bytes.Count(index, []byte("\n\n")) != 1 {
			t.Errorf("%s: Packages is not one paragraph with an empty line behind it", arch)
		}
		got := fields(index)
		ipk := read(t, filepath.Join(feed, got["Filename"]))
		if want := strconv.Itoa(len(ipk)); got["Size"] != want {
			t.Errorf("%s: Size is %s, want %s", arch, got["Size"], want)
		}
		if want := sum(ipk); got["SHA256sum"] != want {
			t.Errorf("%s: SHA256sum is %s, want %s", arch, got["SHA256sum"], want)
		}
		control, _ := parts(t, ipk)
		for name, value := range fields(find(t, control, "./control")) {
			if strings.TrimRight(got[name], "\n") != value {
				t.Errorf("%s: %s is %q in the index, %q in the package", arch, name, got[name], value)
			}
		}
		entries, err := os.ReadDir(feed)
		if err != nil || len(entries) != 3 {
			t.Errorf("%s: the feed has %v (%v), want the package and its index", arch, entries, err)
		}
	}
}

// Issue 5, point 4: reproducible byte for byte, whoever packs, where and when.
func testEqualBuilds(t *testing.T, a, b string) {
	compared := 0
	err := filepath.WalkDir(filepath.Join(a, "dist"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, a)
		if !bytes.Equal(read(t, path), read(t, filepath.Join(b, name))) {
			t.Errorf("%s: two builds differ", name)
		}
		compared++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 + 2*3 + 1; compared != want {
		t.Errorf("compared %d files, want %d: programs, feeds, the Debian package", compared, want)
	}
}

// testIpkHooks runs the scripts that opkg calls: they leave the work to the base
// system's functions, with all arguments, and do nothing where there is none.
func testIpkHooks(t *testing.T, dir string) {
	control, _ := parts(t, ipkOf(t, dir, "mipsel_24kc"))
	work := t.TempDir()
	for _, hook := range []string{"postinst", "prerm"} {
		script := filepath.Join(work, "upnpd."+hook)
		write(t, script, string(find(t, control, "./"+hook)), 0o755)
		root := filepath.Join(work, hook)
		if got := run(t, work, []string{"IPKG_INSTROOT=" + root}, "busybox", "sh", script, "upgrade", "2-r1"); got != "" {
			t.Errorf("%s without a base system printed %q", hook, got)
		}
		write(t, filepath.Join(root, "lib/functions.sh"), "default_"+hook+"() { echo \"$# $*\"; }\n", 0o644)
		got := run(t, work, []string{"IPKG_INSTROOT=" + root}, "busybox", "sh", script, "upgrade", "2-r1")
		if want := "3 " + script + " upgrade 2-r1\n"; got != want {
			t.Errorf("default_%s got %q, want %q", hook, got, want)
		}
	}
	for hook, source := range map[string]string{"prerm-pkg": "handover", "postrm": "postrm"} {
		if !bytes.Equal(find(t, control, "./"+hook), read(t, filepath.Join(dir, "scripts/package", source))) {
			t.Errorf("%s is not scripts/package/%s", hook, source)
		}
	}
}

// OPENWRT.md section 5, the table of architectures.
func TestArchitectures(t *testing.T) {
	want := map[string]string{}
	for env, arches := range map[string]string{
		"GOARCH=mips GOMIPS=softfloat":     "mips_24kc mips_4kec mips_mips32",
		"GOARCH=mipsle GOMIPS=softfloat":   "mipsel_24kc mipsel_74kc mipsel_mips32",
		"GOARCH=arm GOARM=5":               "arm_cortex-a9 arm_xscale arm_arm926ej-s arm_fa526",
		"GOARCH=arm GOARM=6":               "arm_arm1176jzf-s_vfp",
		"GOARCH=arm GOARM=7":               "arm_cortex-a7_neon-vfpv4 arm_cortex-a15_neon-vfpv4 arm_cortex-a9_vfpv3-d16 arm_cortex-a9_neon",
		"GOARCH=arm64":                     "aarch64_cortex-a53 aarch64_cortex-a72 aarch64_cortex-a76 aarch64_generic",
		"GOARCH=amd64":                     "x86_64",
		"GOARCH=386":                       "i386_pentium4",
		"GOARCH=386 GO386=softfloat":       "i386_pentium-mmx",
		"GOARCH=mips64 GOMIPS64=softfloat": "mips64_octeonplus",
		"GOARCH=riscv64":                   "riscv64_generic riscv64_riscv64",
		"GOARCH=loong64":                   "loongarch64_generic",
	} {
		for _, arch := range strings.Fields(arches) {
			want[arch] = env
		}
	}
	makefile := string(read(t, filepath.Join(checkout(t), "Makefile")))
	experiment := regexp.MustCompile(` GOEXPERIMENT=\S+`)
	for _, line := range strings.Split(string(read(t, filepath.Join(checkout(t), "scripts/package/arches"))), "\n") {
		arch, target, ok := strings.Cut(line, " ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(target) + `: *export GOENV = (.*)$`).FindStringSubmatch(makefile)
		if m == nil {
			t.Errorf("%s: the Makefile has no target %s", arch, target)
			continue
		}
		if got := experiment.ReplaceAllString(m[1], ""); got != want[arch] {
			t.Errorf("%s is built with %q, want %q", arch, got, want[arch])
		}
		delete(want, arch)
	}
	for arch := range want {
		t.Errorf("no package for %s", arch)
	}
}
