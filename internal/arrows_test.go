package internal

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/linux-igd/upnpd/"

// arrows are the imports between rooms that DESIGN.md allows, and no others.
var arrows = map[string]string{
	"cmd/upnpd": "daemon config ctl",
	"daemon":    "config igd gena ssdp pcp ctl portmap firewall wan httpmsg sock",
	"igd":       "soap gena httpmsg portmap wan",
	"gena":      "httpmsg sock",
	"ssdp":      "httpmsg sock",
	"pcp":       "portmap wan sock",
	"ctl":       "portmap wan sock",
	"firewall":  "portmap",
	"config":    "portmap",
	"httpmsg":   "sock",
	"portmap":   "",
	"wan":       "",
	"soap":      "",
	"sock":      "",
}

// testRooms are for tests and the demo only: they may import what they like,
// and no room may import them.
var testRooms = []string{"clients", "hostile", "hostile/browser", "hostile/faults", "hostile/load", "hostile/privilege", "hostile/soak", "lab", "lab/demo", "lab/bench", "lab/home", "lab/vm", "openwrt", "openwrt/standin", "portmap/portmaptest"}

// dependencies are the modules that the daemon may use.
var dependencies = []string{
	"github.com/mdlayher/netlink", "github.com/mdlayher/socket",
	"golang.org/x/sys/unix", "github.com/spf13/pflag",
}

// heavy packages would each cost 0.3 to 4 MB on a router (DESIGN.md, "Sizes").
var heavy = []string{"net/http", "encoding/json", "encoding/xml", "log/slog", "log/syslog", "text/template", "html/template", "regexp"}

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestArrows(t *testing.T) {
	packages := list(t)
	if len(packages) < 10 {
		t.Fatalf("go list gave %d packages; the test looks at nothing", len(packages))
	}
	for _, p := range packages {
		room := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "internal/")
		if p.ImportPath == module+"internal" || slices.Contains(testRooms, room) || strings.HasPrefix(room, "hostile") {
			continue
		}
		allowed, ok := arrows[room]
		if !ok {
			t.Errorf("%s: no such room in DESIGN.md", p.ImportPath)
		}
		for _, path := range p.Imports {
			if fault := badImport(path, strings.Fields(allowed)); fault != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, path, fault)
			}
		}
		for _, path := range p.Deps {
			if room == "cmd/upnpd" && slices.Contains(heavy, path) {
				t.Errorf("the daemon links %s", path)
			}
		}
	}
}

// badImport says what is wrong with a room's import.
func badImport(path string, allowed []string) string {
	if room, ours := strings.CutPrefix(path, module+"internal/"); ours {
		if slices.Contains(allowed, room) {
			return ""
		}
		return "against the arrows"
	}
	if path == "net" {
		return "sockets go through internal/sock"
	}
	if !strings.Contains(path, ".") || slices.ContainsFunc(dependencies, func(d string) bool { return strings.HasPrefix(path, d) }) {
		return ""
	}
	return "not a dependency that was agreed"
}

func list(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p goPackage
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}
