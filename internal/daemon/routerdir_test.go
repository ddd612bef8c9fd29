package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab/home"
)

// What the daemon keeps in the router's own /run.

// file is where a file of the router is for this process.
func (w *inLab) file(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", w.Router.PID, path)
}

const (
	leasesPath = "/run/upnpd/leases"
	socketPath = "/run/upnpd/upnpd.sock"
)

// leaseLines gives the lines of the lease file that are mappings; nil: there is
// no file.
func (w *inLab) leaseLines() []string { return w.linesOf(leasesPath) }

func (w *inLab) linesOf(path string) []string {
	text, err := os.ReadFile(w.file(path))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")[1:]
}

// kept waits until the lease file has that many mappings: a second after the
// change at the latest (issue 4, point 1).
func (w *inLab) kept(want int) {
	w.t.Helper()
	home.Until(w.t, fmt.Sprintf("%d mappings are in the lease file", want), func() bool {
		lines := w.leaseLines()
		return lines != nil && len(lines) == want
	})
}

// editLeases changes the text of the lease file.
func (w *inLab) editLeases(edit func(lines []string) []string) {
	w.t.Helper()
	text, err := os.ReadFile(w.file(leasesPath))
	if err != nil {
		w.t.Fatal(err)
	}
	lines := edit(strings.SplitAfter(string(text), "\n"))
	if err := os.WriteFile(w.file(leasesPath), []byte(strings.Join(lines, "")), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// without gives the lines that have no such word.
func without(word string) func([]string) []string {
	return func(lines []string) []string {
		return slices.DeleteFunc(lines, func(line string) bool { return slices.Contains(strings.Fields(line), word) })
	}
}

// listed is a mapping in the answer to `list json`.
type listed struct {
	Protocol     string  `json:"protocol"`
	ExternalPort int     `json:"external_port"`
	RemoteHost   *string `json:"remote_host"`
	Client       string  `json:"client"`
	Host         *string `json:"host"`
	InternalPort int     `json:"internal_port"`
	Lease        int     `json:"lease"`
	MadeBy       string  `json:"made_by"`
	Owner        *string `json:"owner"`
	Enabled      bool    `json:"enabled"`
	Packets      *int    `json:"packets"`
	Description  string  `json:"description"`
	RemotePort   *uint16 `json:"remote_port"`
	UniqueID     *uint16 `json:"unique_id"`
	Ports        int     `json:"ports"`
}

func parseList(t testing.TB, text []byte) []listed {
	t.Helper()
	var list struct {
		Mappings []listed `json:"mappings"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		t.Fatalf("list json: %v in\n%s", err, text)
	}
	return list.Mappings
}

// request sends a line to the control socket and gives the reply, whose code must
// be 0.
func (w *inLab) request(line string) []byte {
	w.t.Helper()
	reply := w.reply(line)
	text, ok := bytes.CutPrefix(reply, []byte("0\n"))
	if !ok {
		w.t.Fatalf("control socket, %s: %q", line, reply)
	}
	return text
}

// reply is request with the code on the first line, whatever it is.
func (w *inLab) reply(line string) []byte {
	w.t.Helper()
	c, err := net.Dial("unix", w.file(socketPath))
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintln(c, line)
	reply, err := io.ReadAll(c)
	if err != nil {
		w.t.Fatalf("control socket, %s: %q, %v", line, reply, err)
	}
	return reply
}

// table gives the daemon's mappings.
func (w *inLab) table() []listed {
	w.t.Helper()
	return parseList(w.t, w.request("list json"))
}
