package openwrt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/config"
)

// installed says where the files of files/ go.
var installed = map[string]string{
	"upnpd.init":       "/etc/init.d/upnpd",
	"uci.sh":           "/usr/share/upnpd/uci.sh",
	"upnpd.config":     "/etc/config/upnpd",
	"upnpd.defaults":   "/etc/uci-defaults/95-upnpd",
	"firewall.include": "/usr/share/upnpd/firewall.include",
	"20-upnpd.nft":     "/usr/share/nftables.d/chain-post/forward/20-upnpd.nft",
	"upnpd.caps":       "/etc/capabilities/upnpd.json",
}

// applets are the programs of busybox that these scripts may use, all of them in
// OpenWrt's.
var applets = []string{
	"sh", "basename", "cat", "chown", "cmp", "grep", "ls", "md5sum", "mkdir", "mv", "printf", "rm", "sed", "tr",
}

// router is a small OpenWrt in a directory, for chroot.
type router struct {
	t    *testing.T
	root string
}

// network is what netifd knows of one.
type network struct {
	config string // its options, as UCI lines; "": another network made it
	device string // l3_device while it is up, "" while it is down
	route  bool   // it has the default route
}

// usual is the network of most routers: wan by DHCP, a bridge for the LAN.
func usual() map[string]network {
	return map[string]network{
		"wan": {"option proto dhcp\noption device eth1", "eth1", true},
		"lan": {"option proto static\noption device br-lan", "br-lan", false},
	}
}

// newRouter installs upnpd, with this UCI configuration of it ("": the one that is
// shipped).
func newRouter(t *testing.T, uci string) *router {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	r := &router{t, t.TempDir()}
	if err := os.CopyFS(r.root, os.DirFS("testdata/root")); err != nil {
		t.Fatal(err)
	}
	r.installTools()
	for _, name := range applets {
		r.symlink("busybox", "/bin/"+name)
	}
	for file, path := range installed {
		text, err := os.ReadFile("../../files/" + file)
		if err != nil {
			t.Fatal(err)
		}
		r.write(path, string(text))
	}
	r.executable("/etc/init.d/upnpd", "/etc/rc.common", "/sbin/logger", "/sbin/ubus")
	r.symlink("/tmp", "/var")
	r.write("/tmp/run/keep", "")
	r.write("/dev/null", "")
	r.write("/etc/passwd", "root:x:0:0:root:/root:/bin/ash\n")
	r.write("/etc/group", "root:x:0:\n")
	if uci != "" {
		r.write("/etc/config/upnpd", uci)
	}
	r.networks(usual())
	return r
}

// networks replaces what netifd has, and makes the devices of those that are up.
func (r *router) networks(all map[string]network) {
	r.t.Helper()
	r.remove("/network")
	var text strings.Builder
	for name, n := range all {
		if n.config != "" {
			fmt.Fprintf(&text, "config interface '%s'\n%s\n", name, n.config)
		}
		r.write("/network/"+name+"/keep", "")
		if n.device != "" {
			r.write("/network/"+name+"/l3_device", n.device+"\n")
			r.device(n.device)
		}
		if n.route {
			r.write("/network/"+name+"/default_route", "")
		}
	}
	r.write("/etc/config/network", text.String())
}

// device makes a network device, with an index that no other has had.
func (r *router) device(name string) {
	indexes++
	r.write("/sys/class/net/"+name+"/ifindex", fmt.Sprintln(indexes))
}

var indexes int

// jailed installs what a jail needs: ujail, the user, and fw4.
func (r *router) jailed() {
	r.write("/sbin/ujail", "#!/bin/sh\n")
	r.write("/sbin/fw4", "#!/bin/sh\necho \"$@\" >>/fw4.calls\n")
	r.executable("/sbin/ujail", "/sbin/fw4")
	r.write("/etc/passwd", r.read("/etc/passwd")+"upnpd:x:415:415:upnpd:/var/run/upnpd:/bin/false\n")
	r.write("/etc/group", r.read("/etc/group")+"upnpd:x:415:upnpd\n")
}

// run runs a program of the router. What it prints on stderr is a fault.
func (r *router) run(argv ...string) (stdout string, err error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Path = argv[0]
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.root}
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	err = cmd.Run()
	if bad.Len() > 0 {
		r.t.Errorf("%q on stderr:\n%s", argv, bad.String())
	}
	return out.String(), err
}

// must is run, for what has to succeed.
func (r *router) must(argv ...string) string {
	r.t.Helper()
	out, err := r.run(argv...)
	if err != nil {
		r.t.Fatalf("%q: %v", argv, err)
	}
	return out
}

// service is what a command of the init script did.
type service struct {
	calls []string // of OpenWrt's functions, as `NAME [ARGUMENT]...`
	log   []string // as `PRIORITY TAG: TEXT`
	err   error
}

// init runs the init script.
func (r *router) init(args ...string) service {
	r.t.Helper()
	r.remove("/calls")
	r.remove("/log")
	_, err := r.run(append([]string{"/etc/init.d/upnpd"}, args...)...)
	var code *exec.ExitError
	if err != nil && (!errors.As(err, &code) || code.ExitCode() == 99) {
		r.t.Errorf("upnpd %q: %v", args, err)
	}
	return service{lines(r.read("/calls")), lines(r.read("/log")), err}
}

// happened is what procd did then: "starts", "gets signal 1", "stays" or "stops",
// "" for nothing.
func (s service) happened() string {
	var all []string
	for _, c := range s.calls {
		if what, ok := strings.CutPrefix(c, "upnpd ["); ok {
			all = append(all, strings.TrimSuffix(what, "]"))
		}
	}
	return strings.Join(all, ", ")
}

// args are the arguments of all calls of this function.
func (s service) args(name string) (all []string) {
	for _, c := range s.calls {
		if rest, ok := strings.CutPrefix(c, name+" ["); ok {
			all = append(all, strings.ReplaceAll(strings.TrimSuffix(rest, "]"), "] [", " "))
		}
	}
	return all
}

// conf is the configuration that the daemon would read.
func (r *router) conf() *config.Config {
	r.t.Helper()
	c, _, err := config.Parse([]string{"-f", "--config", r.root + "/tmp/etc/upnpd.conf"})
	if err != nil {
		r.t.Fatalf("%v\n%s", err, r.read("/tmp/etc/upnpd.conf"))
	}
	return c
}

// rules are those of a configuration, as text.
func rules(c *config.Config) (all []string) {
	for _, rule := range c.Policy.Rules {
		all = append(all, regexp.MustCompile(` #.*`).ReplaceAllString(rule.Text, ""))
	}
	return all
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// read gives the text of a file, "" for none.
func (r *router) read(path string) string {
	text, err := os.ReadFile(r.root + path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	return string(text)
}

func (r *router) write(path, text string) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Dir(r.root+path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.root+path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *router) remove(path string) {
	if err := os.RemoveAll(r.root + path); err != nil {
		r.t.Fatal(err)
	}
}

func (r *router) executable(paths ...string) {
	for _, path := range paths {
		if err := os.Chmod(r.root+path, 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *router) symlink(target, path string) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Dir(r.root+path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Symlink(target, r.root+path); err != nil {
		r.t.Fatal(err)
	}
}

func (r *router) chown(path string, uid int) {
	r.t.Helper()
	if err := os.Chown(r.root+path, uid, uid); err != nil {
		r.t.Fatal(err)
	}
}
