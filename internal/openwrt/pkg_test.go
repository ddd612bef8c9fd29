package openwrt_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
)

// epoch is the time of all that the tests pack.
const epoch = 1700000000

// entry is what a package says of a file.
type entry struct {
	mode fs.FileMode
	link string
	// source is the file of the checkout with the same content.
	source string
}

// installed is what an OpenWrt package installs (issue 5, points 1, 3, 4).
var installed = map[string]entry{
	"/usr/sbin/upnpd":                                       {mode: 0o755, source: "BINARY"},
	"/usr/sbin/upnpctl":                                     {mode: fs.ModeSymlink | 0o777, link: "upnpd"},
	"/etc/config/upnpd":                                     {mode: 0o600, source: "files/upnpd.config"},
	"/etc/init.d/upnpd":                                     {mode: 0o755, source: "files/upnpd.init"},
	"/etc/uci-defaults/95-upnpd":                            {mode: 0o755, source: "files/upnpd.defaults"},
	"/usr/share/upnpd/uci.sh":                               {mode: 0o644, source: "files/uci.sh"},
	"/etc/capabilities/upnpd.json":                          {mode: 0o644, source: "files/upnpd.caps"},
	"/usr/share/upnpd/firewall.include":                     {mode: 0o755, source: "files/firewall.include"},
	"/usr/share/nftables.d/chain-post/forward/20-upnpd.nft": {mode: 0o644, source: "files/20-upnpd.nft"},
}

// checkout is the top of the checkout.
func checkout(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// packArchitectures are those of the packages that the tests make.
var packArchitectures = []string{"mipsel_24kc", "x86_64"}

// TestPackages makes packages twice, as a user would: in other directories, at other
// times, with other settings, and where root can make it so, by another user.
func TestPackages(t *testing.T) {
	dir := t.TempDir()
	a := pack(t, filepath.Join(dir, "a"), "export TZ=UTC LC_ALL=C")
	b := pack(t, filepath.Join(dir, "another"), "umask 077; export TZ=Asia/Tokyo LC_ALL=C.UTF-8")
	if os.Geteuid() == 0 {
		run(t, b, nil, "chown", "-R", "65534:65534", b)
		run(t, b, nil, "setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", "scripts/ipk.sh"}, packArchitectures...)...)
	}
	t.Run("equal", func(t *testing.T) { testEqualBuilds(t, a, b) })
	t.Run("form", func(t *testing.T) { testIpkForm(t, a) })
	t.Run("files", func(t *testing.T) { testIpkFiles(t, a) })
	t.Run("control", func(t *testing.T) { testIpkControl(t, a) })
	t.Run("program", func(t *testing.T) { testIpkProgram(t, a) })
	t.Run("hooks", func(t *testing.T) { testIpkHooks(t, a) })
	t.Run("index", func(t *testing.T) { testFeedIndex(t, a) })
	t.Run("apk", func(t *testing.T) { testApk(t, a) })
	t.Run("deb", func(t *testing.T) { testDeb(t, a) })
}

// pack copies the checkout to dir and makes packages there.
func pack(t *testing.T, dir, settings string) string {
	t.Helper()
	script := "set -e\n" + settings + "\nmkdir -p " + dir +
		"\ncp -R go.mod go.sum LICENSE Makefile cmd doc files internal openwrt scripts " + dir + "\ncd " + dir + "\n"
	for _, arch := range packArchitectures {
		script += "make ipk ARCH=" + arch + "\n"
	}
	run(t, checkout(t), nil, "bash", "-c", script+"make deb ARCH=amd64\n")
	return dir
}

// run runs a program in a directory, with more environment, and gives its output.
func run(t testing.TB, dir string, env []string, program string, args ...string) string {
	t.Helper()
	out, err := try(dir, env, program, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	return out
}

// try is run for what may fail.
func try(dir string, env []string, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append(append(cleanEnv(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch)), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// cleanEnv is the environment without what a make around the tests has set.
func cleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "VERSION", "PACKAGE_RELEASE", "MAINTAINER",
			"SIGN_KEY", "APK", "ARCH", "SOURCE_DATE_EPOCH", "GOOS", "GOARCH":
		default:
			env = append(env, e)
		}
	}
	return env
}

// member is a file in an archive.
type member struct {
	*tar.Header
	content []byte
}

// unpack reads a compressed archive.
func unpack(t testing.TB, packed []byte) []member {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if z.Name != "" || !z.ModTime.IsZero() {
		t.Errorf("gzip header names %q, %v: want nothing, or no two builds are equal", z.Name, z.ModTime)
	}
	var members []member
	for archive := tar.NewReader(z); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return members
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, member{header, content})
	}
}

// find gives the content of a member.
func find(t testing.TB, members []member, name string) []byte {
	t.Helper()
	for _, m := range members {
		if m.Name == name {
			return m.content
		}
	}
	t.Fatalf("no %s in the archive", name)
	return nil
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// write makes a file, and the directories above it.
func write(t testing.TB, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// version is the VERSION of the Makefile.
func version(t testing.TB) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^VERSION \?= (\S+)$`).FindSubmatch(read(t, filepath.Join(checkout(t), "Makefile")))
	if m == nil {
		t.Fatal("the Makefile has no VERSION ?=")
	}
	return string(m[1])
}

// fields reads a control file: "Name: value", continued by lines with a space.
func fields(control []byte) map[string]string {
	fields, last := map[string]string{}, ""
	for _, line := range strings.Split(strings.TrimRight(string(control), "\n"), "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok && !strings.HasPrefix(line, " ") {
			fields[name], last = value, name
		} else {
			fields[last] += "\n" + line
		}
	}
	return fields
}

// compareTree compares files found with those wanted, both ways.
func compareTree(t testing.TB, got, want map[string]entry) {
	t.Helper()
	var paths []string
	for path := range got {
		paths = append(paths, path)
	}
	for path := range want {
		if _, ok := got[path]; !ok {
			paths = append(paths, path)
		}
	}
	sort.Strings(paths)
	for _, path := range paths {
		g, inGot := got[path]
		w, inWant := want[path]
		switch {
		case !inGot:
			t.Errorf("%s is missing", path)
		case !inWant:
			t.Errorf("%s should not be there", path)
		case g.link != w.link || w.link == "" && g.mode != w.mode:
			t.Errorf("%s is %v %s, want %v %s", path, g.mode, g.link, w.mode, w.link)
		}
	}
}

// walk lists the files below a directory, and the modes of directories if they
// are not 0755.
func walk(t testing.TB, root string) map[string]entry {
	t.Helper()
	tree := map[string]entry{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		e := entry{mode: info.Mode()}
		if d.Type() == fs.ModeSymlink {
			e.link, err = os.Readlink(path)
		}
		if !d.IsDir() || info.Mode().Perm() != 0o755 && name != "" {
			tree[name] = e
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func sum(content []byte) string { return fmt.Sprintf("%x", sha256.Sum256(content)) }
