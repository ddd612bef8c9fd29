package faults

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

const hangUps = 50

// visitor is a client that works while the configuration is read again and again.
type visitor struct {
	c                     *home.ControlPoint
	port                  int
	requests, again, most int // most: tries in a row that had no answer
	fault                 string
}

// asks makes a request, and tries it again while its connection ends without an answer.
func (v *visitor) asks(action string, args ...string) int {
	args = append([]string{"NewRemoteHost", "", "NewExternalPort", strconv.Itoa(v.port), "NewProtocol", "TCP"}, args...)
	for try := 0; ; try++ {
		v.requests++
		_, code, err := v.c.Try(action, args...)
		if err == nil {
			v.most = max(v.most, try)
			return code
		}
		closed := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED) ||
			strings.Contains(err.Error(), "server closed idle connection") // as net/http says it of one that never carried a request
		if !closed || try == 4000 {
			v.fault = err.Error()
			return -1
		}
		v.again++
		time.Sleep(5 * time.Millisecond)
	}
}

// visit maps, reads and deletes until stop is closed.
func (v *visitor) visit(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		add := v.asks("AddPortMapping", "NewInternalPort", "8080", "NewInternalClient", v.c.Addr, "NewEnabled", "1",
			"NewPortMappingDescription", "", "NewLeaseDuration", "0")
		read := v.asks("GetSpecificPortMappingEntry")
		gone := v.asks("DeletePortMapping")
		// A request whose connection ended may have been carried out before.
		if v.fault == "" && (add != 0 || read != 0 || gone != 0 && !(gone == 714 && v.again > 0)) {
			v.fault = "errors " + strconv.Itoa(add) + ", " + strconv.Itoa(read) + ", " + strconv.Itoa(gone)
		}
		if v.fault != "" {
			return
		}
	}
}

// TestHangUps: fifty reloads while ten clients work, some of which begin the service
// anew and some of which change only the policy. A request is answered as ever, or its
// connection ends and it can be made again. Nothing else is lost.
func TestHangUps(t *testing.T) {
	t.Parallel()
	h := enter(t, lab.Nftables, "port = 5000").begin("")
	h.baseline()
	stop := make(chan struct{})
	var working sync.WaitGroup
	var visitors []*visitor
	for i := range 10 {
		v := &visitor{c: h.Client(1 + i%2), port: 18000 + i}
		visitors = append(visitors, v)
		working.Add(1)
		go func() {
			defer working.Done()
			v.visit(stop)
		}()
	}
	for i := range hangUps {
		h.configure("port = 5000", "max_mappings = "+strconv.Itoa(500+i), "friendly_name = router "+strconv.Itoa(i/5))
		n := h.logged("configuration read again")
		h.daemon.Signal(hangUp)
		home.Until(t, "the configuration is read again", func() bool { return h.logged("configuration read again") > n })
	}
	close(stop)
	working.Wait()
	requests, again, most := 0, 0, 0
	for _, v := range visitors {
		if v.fault != "" {
			t.Errorf("a client at port %d: %s", v.port, v.fault)
		}
		requests, again, most = requests+v.requests, again+v.again, max(most, v.most)
	}
	t.Logf("%d requests during %d reloads; %d were made again, at most %d times in a row", requests, hangUps, again, most)
	if requests < 10*hangUps {
		t.Error("that is too little to show anything")
	}
	h.mended("reloads")
	h.alive()
	if n := len(h.table()); n != 3 {
		t.Errorf("%d mappings, want the 3 from before", n)
	}
}

// refusal sends HUP and gives the lines that the log has of it. Those of requests that
// were answered before may come as late.
func (h *house) refusal(what string) (lines []string) {
	h.t.Helper()
	before := len(h.daemon.Log())
	h.daemon.Signal(hangUp)
	home.Until(h.t, what+" is refused", func() bool {
		return strings.Contains(h.daemon.Log()[before:], "; the old configuration stays\n")
	})
	for _, line := range strings.SplitAfter(h.daemon.Log()[before:], "\n") {
		if line != "" && !strings.HasPrefix(line, "AddPortMap: ") {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestBrokenConfiguration: whatever is wrong with the file, the old configuration stays,
// and one line says why.
func TestBrokenConfiguration(t *testing.T) {
	t.Parallel()
	h := enter(t, lab.Nftables, "max_mappings_per_client = 4").begin("")
	h.baseline()
	for _, tt := range []struct {
		name  string
		spoil func() error
		want  string
	}{
		{"unknown option", func() error { return os.WriteFile(h.config, []byte("max_mapings = 9\n"), 0o644) }, "max_mapings"},
		{"binary", func() error { return os.WriteFile(h.config, []byte{0x7f, 'E', 'L', 'F', 0, 1, 2, 0xff, '\n'}, 0o644) }, "upnpd.conf:1"},
		{"10 MB of rules", func() error {
			return os.WriteFile(h.config, []byte(strings.Repeat("deny any 0.0.0.0/0 any\n", 10<<20/23)), 0o644)
		}, "upnpd.conf"},
		{"10 MB in a line", func() error { return os.WriteFile(h.config, []byte("serial = "+strings.Repeat("x", 10<<20)), 0o644) }, "upnpd.conf"},
		{"gone", func() error { return os.Remove(h.config) }, "no such file"},
		{"a directory", func() error { return os.Mkdir(h.config, 0o755) }, "upnpd.conf"},
		{"a pipe", func() error { os.Remove(h.config); return syscall.Mkfifo(h.config, 0o600) }, "upnpd.conf"},
	} {
		if err := tt.spoil(); err != nil {
			t.Fatal(err)
		}
		said := h.refusal(tt.name)
		if len(said) != 1 || !strings.Contains(said[0], "reload: ") || !strings.Contains(said[0], tt.want) || len(said[0]) > 1000 {
			t.Errorf("%s: the log says %.500q", tt.name, said)
		}
		h.alive()
		if code := h.Client(1).Add("TCP", 18080, h.Served(), 0); code != 0 {
			t.Errorf("%s: AddPortMapping: error %d", tt.name, code)
		}
		if code := h.Client(1).Add("TCP", 18081, h.Served(), 0); code == 0 {
			t.Errorf("%s: the old limit is forgotten", tt.name)
		}
		h.mended(tt.name)
	}
}
