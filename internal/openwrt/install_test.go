package openwrt

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const include = `
config include 'upnpd'
	option type 'script'
	option path '/usr/share/upnpd/firewall.include'
	option family 'any'
	option reload '1'
`

// defaults runs the uci-defaults script as opkg does: in a subshell, by its path.
func (r *router) defaults() string {
	r.t.Helper()
	return r.must("/bin/sh", "-c", "(cd /etc/uci-defaults && . /etc/uci-defaults/95-upnpd) && echo done")
}

// TestDefaults: the firewall gets the include once, and everything else stays (issue
// 5, point 1).
func TestDefaults(t *testing.T) {
	const others = "config defaults 'd'\n\toption forward 'REJECT'\n\nconfig include 'miniupnpd'\n\toption path '/usr/share/miniupnpd/firewall.include'\n"
	r := newRouter(t, "")
	r.write("/etc/config/firewall", others)
	for range 2 {
		if got := r.defaults(); got != "done\n" {
			t.Errorf("%q", got)
		}
		if got := strings.TrimSpace(r.read("/etc/config/firewall")); got != strings.TrimSpace(others+include) {
			t.Errorf("%s", got)
		}
	}
	if r.read("/tmp/.uci/firewall") != "" {
		t.Error("not committed")
	}
	if r.read("/log") != "" {
		t.Errorf("log: %s", r.read("/log"))
	}
	changed := strings.Replace(others+include, "'1'", "'0'", 1)
	r.write("/etc/config/firewall", changed)
	r.defaults()
	if got := r.read("/etc/config/firewall"); got != changed {
		t.Errorf("what the user changed is %s", got)
	}
}

// TestDefaultsReload: a fw4 that runs has to take in the snippet; at the first boot
// none runs yet.
func TestDefaultsReload(t *testing.T) {
	r := newRouter(t, "")
	r.jailed() // there is a fw4
	r.write("/etc/config/firewall", "\n")
	r.defaults()
	if got := r.read("/fw4.calls"); got != "" {
		t.Errorf("fw4 %s", got)
	}
	r.write("/tmp/run/fw4.state", "{}")
	r.defaults()
	if got := r.read("/fw4.calls"); got != "-q reload\n" {
		t.Errorf("fw4 %s", got)
	}
}

// TestDefaultsDisabled: a daemon that miniupnpd's configuration keeps from running
// does not do so without a word (OPENWRT.md 0.1).
func TestDefaultsDisabled(t *testing.T) {
	r := newRouter(t, shipped)
	r.write("/etc/config/firewall", "\n")
	cmd := exec.Command("/bin/sh", "/etc/uci-defaults/95-upnpd")
	cmd.Path, cmd.Dir = "/bin/sh", "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.root}
	out, err := cmd.CombinedOutput() // opkg shows what is on stderr
	const want = "upnpd: /etc/config/upnpd, which was here already, says enabled '0'; to start upnpd: uci set upnpd.config.enabled=1; uci commit upnpd; /etc/init.d/upnpd start\n"
	if err != nil || string(out) != want || r.read("/log") != "user.notice "+want {
		t.Errorf("%v, %q; log: %q", err, out, r.read("/log"))
	}
	if got := r.read("/etc/config/upnpd"); got != shipped {
		t.Errorf("the configuration was changed:\n%s", got)
	}
}

// TestFirewallInclude: sourced with a poisoned config(), under the firewall's lock,
// it only sends a signal: it neither waits nor keeps the lock (OPENWRT.md section 4).
func TestFirewallInclude(t *testing.T) {
	r := newRouter(t, "")
	for _, pipe := range []string{"/answer", "/asked"} {
		if err := syscall.Mkfifo(r.root+pipe, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// fw4 calls it so.
	const call = `config() { echo "You cannot use UCI in firewall includes!" >&2; exit 1; }; exec 1000>/lock; . /usr/share/upnpd/firewall.include`
	if out := r.must("/bin/sh", "-c", call); out != "" {
		t.Errorf("it says %q", out)
	}
	// It has come back, while ubus still waits for somebody to open the pipe.
	asked := make(chan string, 1)
	go func() {
		err := os.WriteFile(r.root+"/answer", []byte("go\n"), 0)
		asked <- fmt.Sprintf("%s%v", r.read("/asked"), err)
	}()
	select {
	case got := <-asked:
		if want := "-t 5 call service signal {\"name\":\"upnpd\",\"signal\":1}\n<nil>"; got != want {
			t.Errorf("ubus %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody called ubus")
	}
}

// TestSnippet: it loads inside fw4's chain whatever else that has: no define, no
// other object (OPENWRT.md section 4; a bad one would leave no firewall at all).
func TestSnippet(t *testing.T) {
	path, err := filepath.Abs("../../files/20-upnpd.nft")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	text := "table inet fw4 {\nchain forward {\ntype filter hook forward priority filter; policy drop;\ninclude \"" + path + "\"\n}\n}\n"
	cmd := exec.CommandContext(ctx, "sh", "-c", "nft -f - && nft list table inet fw4")
	cmd.Stdin = strings.NewReader(text)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, rule := range []string{
		`meta nfproto ipv4 ct mark & 0x10000000 == 0x10000000 ct status dnat accept`,
		`meta nfproto ipv6 ct mark & 0x10000000 == 0x10000000 accept`,
	} {
		if !bytes.Contains(out, []byte(rule)) {
			t.Errorf("no rule %q in\n%s", rule, out)
		}
	}
	if snippet, _ := os.ReadFile(path); bytes.ContainsAny(snippet, "$@") {
		t.Error("it has a define or a set")
	}
}

// TestCapabilities: NET_ADMIN and NET_RAW, in all sets, as ujail reads them.
func TestCapabilities(t *testing.T) {
	text, err := os.ReadFile("../../files/upnpd.caps")
	if err != nil {
		t.Fatal(err)
	}
	var sets map[string][]string
	if err := json.Unmarshal(text, &sets); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bounding", "effective", "ambient", "permitted", "inheritable"} {
		if got := sets[name]; !slices.Equal(got, []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}) {
			t.Errorf("%s: %q", name, got)
		}
		delete(sets, name)
	}
	if len(sets) > 0 {
		t.Errorf("%q", sets)
	}
}

// TestShippedConfig: upnpd.config names every option of the daemon, and what is
// commented out there works (issue 5, point 2).
func TestShippedConfig(t *testing.T) {
	text, err := os.ReadFile("../../files/upnpd.config")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range daemonOptions(t) {
		if !regexp.MustCompile(`\b` + name + `\b`).Match(text) {
			t.Errorf("%s is not in it", name)
		}
	}
	for _, line := range lines(string(text)) {
		if len(strings.ReplaceAll(line, "\t", "        ")) > 96 {
			t.Errorf("long line: %s", line)
		}
	}
	uncommented := regexp.MustCompile(`(?m)^#(\t(option|list) |config )`).ReplaceAll(text, []byte("$1"))
	r := newRouter(t, string(uncommented))
	s := r.init("start")
	if s.happened() != "starts" || len(s.log) > 0 {
		t.Fatalf("it %s; log: %q", s.happened(), s.log)
	}
	c := r.conf()
	if c.FriendlyName != "Linux router" || c.UpstreamBitrate != 40_000_000 || c.IPTables.Location == "" ||
		!slices.Equal(rules(c), []string{"allow 80 192.168.1.10 8080 tcp from 192.168.1.10"}) {
		t.Errorf("%s", describe(c))
	}
}
