package browser

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// patience bounds every wait for something that must happen.
const patience = 10 * time.Second

// port is the daemon's, which the attacker knows: pages try them all.
const port = 49152

// own is the router as an honest client calls it.
var own = fmt.Sprintf("%s:%d", lab.RouterLANAddr, port)

// house is a lab whose router runs the daemon, with one mapping of LAN host 2.
type house struct {
	*lab.Lab
	t      *testing.T
	daemon *lab.Daemon
	owner  *home.ControlPoint
	before []map[string]string // the mappings, as the owner sees them
}

func enter(t *testing.T) *house {
	t.Helper()
	h := &house{Lab: lab.Start(t), t: t}
	if err := errors.Join(h.Masquerade(lab.Nftables), h.IPv6(lab.Nftables)); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "upnpd.conf")
	writeFile(t, config, fmt.Sprintf("firewall = nftables\nlistenport = %d\n", port))
	h.daemon = h.Router.StartDaemon(t, lab.Build(t), "--config", config, lab.WANDev, lab.LANDev)
	h.owner = home.Discover(t, lab.LAN2Addr, lab.RouterLANAddr+":1900", h.LAN2.Dial)
	if code := h.owner.Add("TCP", 8080, 8080, 3600); code != 0 {
		t.Fatalf("the owner's own mapping: error %d", code)
	}
	h.before = h.mappings()
	return h
}

// mappings lists what the router maps, without what time changes.
func (h *house) mappings() (all []map[string]string) {
	h.t.Helper()
	for i := range 100 {
		out, code := h.owner.Call("GetGenericPortMappingEntry", "NewPortMappingIndex", fmt.Sprint(i))
		if code != 0 {
			return all
		}
		for name := range out {
			if !strings.HasPrefix(name, "New") || name == "NewLeaseDuration" {
				delete(out, name)
			}
		}
		all = append(all, out)
	}
	h.t.Fatal("over 100 mappings")
	return nil
}

// unchanged fails the test when the table is not the owner's any more.
func (h *house) unchanged(after string) {
	h.t.Helper()
	same := func(a, b map[string]string) bool { return fmt.Sprint(a) == fmt.Sprint(b) }
	if now := h.mappings(); !slices.EqualFunc(now, h.before, same) {
		h.t.Errorf("after %s the mappings are %v, not %v", after, now, h.before)
	}
}

// places are the router's URLs by their kind, as all its descriptions tell them.
type places struct{ documents, controls, events []string }

var element = regexp.MustCompile(`<(SCPDURL|controlURL|eventSubURL)>([^<]*)</`)

// places reads both faces of the router: the paths of version 1 come first.
func (h *house) places() (p places) {
	h.t.Helper()
	for _, st := range []string{"InternetGatewayDevice:1", "InternetGatewayDevice:2"} {
		at := h.locate("urn:schemas-upnp-org:device:" + st)
		p.documents = append(p.documents, strings.TrimPrefix(at, "http://"+own))
		for _, m := range element.FindAllStringSubmatch(h.owner.Get(at), -1) {
			list := map[string]*[]string{"SCPDURL": &p.documents, "controlURL": &p.controls, "eventSubURL": &p.events}[m[1]]
			*list = append(*list, m[2])
		}
	}
	if len(p.documents) < 9 || len(p.controls) < 7 || len(p.events) < 7 {
		h.t.Fatalf("the descriptions tell of %v", p)
	}
	return p
}

// mapping is the control URL of WANIPConnection:1, the last of version 1.
func (p places) mapping() string { return p.controls[2] }

// locate searches by unicast and gives the LOCATION of the answer.
func (h *house) locate(st string) string {
	h.t.Helper()
	c, err := h.LAN2.Dial("udp4", lab.RouterLANAddr+":1900", patience)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "M-SEARCH * HTTP/1.1\r\nHOST: %s:1900\r\nMAN: \"ssdp:discover\"\r\nST: %s\r\n\r\n", lab.RouterLANAddr, st)
	c.SetReadDeadline(time.Now().Add(patience))
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		h.t.Fatalf("no answer to a search for %s: %v", st, err)
	}
	return r.Header.Get("Location")
}

// answer is what came back for a request made by hand.
type answer struct {
	status int
	header http.Header
	text   string // all of it, as it came
}

// send writes a request as it is, from LAN host 1 to the router at addr.
func (h *house) send(addr, request string) answer {
	h.t.Helper()
	c, err := h.LAN1.Dial("tcp", addr, patience)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, request); err != nil {
		h.t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		h.t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(text))), nil)
	if err != nil {
		h.t.Fatalf("%q: %v", text, err)
	}
	return answer{r.StatusCode, r.Header, string(text)}
}

func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// deviceIndex gives the number of a device of the host where it is called.
func deviceIndex(name string) (int, error) {
	d, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	return d.Index, nil
}
