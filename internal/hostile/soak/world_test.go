package soak

import (
	"encoding/xml"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// patience bounds every wait for what must happen.
const patience = 20 * time.Second

// world is a lab, the daemon on its router, and what went on there.
type world struct {
	*lab.Lab
	t        *testing.T
	firewall string
	seed     uint64
	before   string // the rules without the daemon
	config   string // its path
	conf     conf
	rng      *rand.Rand // of the weather
	daemon   *lab.Daemon
	wan      string // the uplink's address; "" for none
	flushed  bool   // our rules, since the last quiet point
	faces    map[string]service
	clients  []*client
	gauge    gauge
	aged     bool // the last process of a long life has begun

	knocked []key      // what was reached from port 4000 at the last quiet point
	sending sync.Mutex // from a port of the internet host

	mu     sync.Mutex
	faults []string
	pins   map[*client]string // each one's last pinhole of this run of the daemon: its UniqueID
	told   []string           // the last things that happened
	done   map[string]int     // by protocol: requests, and with " ok" those that were granted
}

// conf is what the weather changes in the configuration.
type conf struct {
	deny     bool // the ports of denied
	quota    int  // mappings of one client; 0: the default
	name     int  // of the router
	minLease int
}

// deniedFirst and deniedLast are the ports that conf.deny is about.
const deniedFirst, deniedLast = 30024, 30031

// denied reports whether conf.deny is about a lease.
func denied(l lease) bool { return l.external <= deniedLast && l.external+l.ports > deniedFirst }

// service is one of a face.
type service struct{ kind, control, event string }

// raise makes the lab and starts the daemon.
func raise(t *testing.T, firewall string, seed uint64) *world {
	t.Helper()
	w := &world{Lab: lab.Start(t), t: t, firewall: firewall, seed: seed, config: filepath.Join(t.TempDir(), "upnpd.conf"), conf: conf{minLease: 1},
		rng: rand.New(rand.NewPCG(seed, 0)), wan: lab.WANAddr, done: map[string]int{}}
	if err := errors.Join(w.Masquerade(firewall), w.IPv6(firewall)); err != nil {
		t.Fatal(err)
	}
	for i, at := range []struct {
		host *lab.Host
		addr string
	}{{w.LAN1, lab.LAN1Addr}, {w.LAN2, lab.LAN2Addr}, {w.LAN1, "192.168.77.11"}, {w.LAN2, "192.168.77.21"}, {w.LAN1, lab.LAN1Addr6}, {w.LAN2, lab.LAN2Addr6}} {
		if at.addr != at.host.Addr.String() && !strings.Contains(at.addr, ":") {
			at.host.Run(t, "ip", "addr", "add", at.addr+"/24", "dev", lab.HostDev)
		}
		w.clients = append(w.clients, newClient(w, at.host, at.addr, rand.New(rand.NewPCG(seed, uint64(i+1)))))
	}
	t.Cleanup(w.end) // before the lab goes
	w.before = w.rules()
	w.start()
	return w
}

// write writes the configuration.
func (w *world) write() {
	w.t.Helper()
	lines := []string{fmt.Sprintf("min_lease = %d", w.conf.minLease), fmt.Sprintf("friendly_name = router %d", w.conf.name)}
	if w.firewall == lab.Nftables {
		lines = append(lines, "firewall = nftables")
	} else {
		lines = append(lines, "iptables_location = /usr/sbin/"+w.firewall)
	}
	if w.conf.deny {
		lines = append(lines, fmt.Sprintf("deny %d-%d 0.0.0.0/0 any", deniedFirst, deniedLast))
	}
	if w.conf.quota > 0 {
		lines = append(lines, fmt.Sprintf("max_mappings_per_client = %d", w.conf.quota))
	}
	if err := os.WriteFile(w.config, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// start starts the daemon. What the rules of now do not allow does not come back.
func (w *world) start() {
	w.t.Helper()
	w.conf.quota = 0 // who would be the first to come back?
	w.write()
	d, err := w.Router.Launch(lab.Build(w.t), "--config", w.config, lab.WANDev, lab.LANDev)
	if err != nil {
		w.t.Fatal(err)
	}
	w.daemon, w.pins = d, map[*client]string{}
	w.gauge.born()
	w.discover()
	for _, c := range w.clients {
		c.sids = nil
		refused := func(l lease) bool { return w.conf.deny && denied(l) }
		c.dropAll(refused)
		for k, all := range c.unsure {
			for i, l := range all {
				if refused(l) {
					c.unsure[k][i] = lease{}
				}
			}
		}
	}
}

// stop ends the daemon, of its own will or not.
func (w *world) stop(kill bool) {
	if kill {
		w.daemon.Kill()
	} else if err := w.daemon.Quit(); err != nil {
		w.fault("stop: %v", err)
	}
	if strings.Contains(w.daemon.Log(), "DATA RACE") {
		w.fault("the race detector found a data race in the daemon")
	}
}

// end is the last stop, which leaves no rules.
func (w *world) end() {
	if w.daemon == nil {
		return
	}
	w.faults = nil // which were told
	w.stop(false)
	if after := w.rules(); after != w.before {
		w.fault("rules were left:\n%s\nwant\n%s", after, w.before)
	}
	for _, f := range w.faults {
		w.t.Error(f)
	}
}

// rules are all of the router.
func (w *world) rules() string {
	all := w.Rules(w.firewall)
	if w.firewall != lab.Nftables {
		all += w.Router.Run(w.t, strings.Replace(w.firewall, "ip", "ip6", 1), "-w", "-S")
	}
	return all
}

// reload sends HUP, and waits for n lines that say what came of it.
func (w *world) reload(line string) {
	w.t.Helper()
	w.write()
	n := strings.Count(w.daemon.Log(), line)
	if err := w.daemon.Signal(syscall.SIGHUP); err != nil {
		w.t.Fatal(err)
	}
	w.until("after HUP: "+line, func() bool { return strings.Count(w.daemon.Log(), line) > n })
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.fault("not within %v: %s", patience, what)
			return
		}
	}
}

// fault notes what must not be. The world ends at the next quiet point.
func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// tell remembers what happened.
func (w *world) tell(who, what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told[max(0, len(w.told)-49):], time.Now().Format("15:04:05.000")+" "+who+" "+what)
}

// count counts a request.
func (w *world) count(protocol string, granted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done[protocol]++
	if granted {
		w.done[protocol+" ok"]++
	}
}

// Names of the faces.
const (
	old     = "WANIPConnection:1"
	young   = "WANIPConnection:2"
	pinning = "WANIPv6FirewallControl:1"
)

var location = regexp.MustCompile(`(?im)^LOCATION: *(http://\S+)`)

// discover learns the URLs of both faces, which may be others after each start.
func (w *world) discover() {
	w.t.Helper()
	w.faces = map[string]service{}
	c := w.clients[0]
	for _, version := range []string{"1", "2"} {
		answer := c.search("urn:schemas-upnp-org:device:InternetGatewayDevice:"+version, patience)
		found := location.FindStringSubmatch(answer)
		if found == nil {
			w.t.Fatalf("no face of version %s: %q\n%s", version, answer, w.daemon.Log())
		}
		r, err := c.web.Get(found[1])
		if err != nil {
			w.t.Fatal(err)
		}
		base, _ := url.Parse(found[1])
		w.read(xml.NewDecoder(r.Body), base)
		r.Body.Close()
	}
	if w.faces[old].control == "" || w.faces[young].control == "" || w.faces[pinning].control == "" {
		w.t.Fatalf("the faces have %v", w.faces)
	}
}

// read takes the services of a description.
func (w *world) read(d *xml.Decoder, base *url.URL) {
	for {
		token, err := d.Token()
		if err != nil {
			return
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "service" {
			continue
		}
		var s struct {
			Type    string `xml:"serviceType"`
			Control string `xml:"controlURL"`
			Event   string `xml:"eventSubURL"`
		}
		if err := d.DecodeElement(&s, &start); err != nil {
			w.t.Fatal(err)
		}
		name := s.Type[strings.LastIndex(s.Type[:len(s.Type)-2], ":")+1:]
		at := func(path string) string { return ":" + base.Port() + (&url.URL{Path: path}).RequestURI() }
		w.faces[name] = service{s.Type, at(s.Control), at(s.Event)}
	}
}

// router is the router's address for a client, as part of a URL.
func router(c *client) string {
	if c.addr.Is6() {
		return "[" + lab.RouterLANAddr6 + "]"
	}
	return lab.RouterLANAddr
}

func hostPort(host string, port uint16) string { return net.JoinHostPort(host, fmt.Sprint(port)) }
