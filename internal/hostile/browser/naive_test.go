package browser

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"sync"

	"github.com/linux-igd/upnpd/internal/lab"
)

// naive is a router of the kind that these attacks were found on: it takes every
// request, whoever it names and wherever it comes from. What the page does to it
// shows that the page works.
type naive struct {
	mu     sync.Mutex
	mapped map[string]bool // by the technique
}

const naivePort = 49153

// secret is in all that the naive router tells.
const secret = "the serial number"

var marker = regexp.MustCompile(`NewPortMappingDescription(?:>|%3E)([a-z-]+)`)

func (h *house) naive() *naive {
	t := h.t
	t.Helper()
	n := &naive{mapped: map[string]bool{}}
	ln, err := h.Router.ListenTCP(fmt.Sprintf("%s:%d", lab.RouterLANAddr, naivePort))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: n}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return n
}

func (n *naive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if m := marker.FindSubmatch(body); m != nil && r.Method == "POST" {
		n.mu.Lock()
		n.mapped[string(m[1])] = true
		n.mu.Unlock()
	}
	w.Header().Set("Content-Type", "text/xml")
	fmt.Fprintf(w, "<root>%s</root>", secret)
}

// has reports whether a technique mapped a port.
func (n *naive) has(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mapped[name]
}
