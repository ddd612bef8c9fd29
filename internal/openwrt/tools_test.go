package openwrt

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
)

// toolbox has the programs of a router, made once for all tests.
type toolbox struct {
	once sync.Once
	dir  string
	err  error
}

var toolDir toolbox

func TestMain(m *testing.M) {
	code := m.Run()
	if toolDir.dir != "" {
		os.RemoveAll(toolDir.dir)
	}
	os.Exit(code)
}

func (b *toolbox) get(t *testing.T) string {
	t.Helper()
	b.once.Do(func() { b.err = b.fill() })
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.dir
}

// fill builds upnpd and the stand-in for uci, and copies busybox with its libraries.
func (b *toolbox) fill() (err error) {
	if b.dir, err = os.MkdirTemp("", "upnpd-openwrt-"); err != nil {
		return err
	}
	for to, source := range map[string]string{"/usr/sbin/upnpd": "../../cmd/upnpd", "/sbin/uci": "./standin"} {
		build := exec.Command("go", "build", "-o", b.dir+"/root"+to, source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // there are no libraries for them
		if out, err := build.CombinedOutput(); err != nil {
			return errors.New("build " + source + ": " + string(out))
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return errors.New("no busybox: install the package busybox")
	}
	return copyProgram(busybox, b.dir+"/root", "/bin/busybox")
}

// copyProgram copies a program to a path in another root, with the libraries that it
// needs.
func copyProgram(program, root, path string) error {
	files := map[string]string{program: path}
	ldd, _ := exec.Command("ldd", program).Output() // it fails for a static one
	for _, m := range regexp.MustCompile(`(?:=> )?(/\S+) \(0x`).FindAllStringSubmatch(string(ldd), -1) {
		files[m[1]] = m[1]
	}
	for from, to := range files {
		if err := copyFile(from, root+to); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// installTools hard-links the programs into a router.
func (r *router) installTools() {
	r.t.Helper()
	dir := toolDir.get(r.t) + "/root"
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		to := r.root + path[len(dir):]
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.Link(path, to); err != nil {
			return copyFile(path, to)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}
