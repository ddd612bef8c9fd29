package sock

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

const (
	tcpHeadings = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n"
	udpHeadings = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops            \n"
	rest        = " 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0\n"
)

func writeTables(t *testing.T, tables map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range tables {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestListeningIn(t *testing.T) {
	dir := writeTables(t, map[string]string{
		"tcp": tcpHeadings +
			"   0: 00000000:0050 00000000:0000 0A" + rest + // *:80 LISTEN
			"   1: 0100000A:1F90 0200000A:0035 01" + rest + // 10.0.0.1:8080 to 10.0.0.2:53, ESTABLISHED
			"  10: 0100007F:0277 00000000:0000 0A" + rest, // 127.0.0.1:631 LISTEN
		"tcp6": tcpHeadings +
			"   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A" + rest, // [::]:443
		"udp": udpHeadings +
			"  270: 00000000:0035 00000000:0000 07" + rest + // *:53
			" 1270: 0100000A:9C40 08080808:007B 01" + rest, // 10.0.0.1:40000 to 8.8.8.8:123, connected
		"udp6": udpHeadings +
			"  331: 00000000000000000000000000000000:0222 00000000000000000000000000000000:0000 07" + rest, // [::]:546
	})
	for _, test := range []struct {
		tcp  bool
		port uint16
		want bool
	}{
		{true, 80, true},
		{true, 443, true},
		{true, 631, true},
		{true, 8080, false}, // a connection
		{true, 53, false},   // only a remote port, and UDP
		{true, 0x77, false}, // digits of 631
		{true, 0, false},    // the remote port of a listener
		{false, 53, true},
		{false, 546, true},
		{false, 40000, false}, // connected
		{false, 123, false},
		{false, 80, false}, // TCP
	} {
		got, err := listeningIn(dir, test.tcp, test.port)
		if err != nil || got != test.want {
			t.Errorf("tcp %t, port %d: %t, %v; want %t", test.tcp, test.port, got, err, test.want)
		}
	}
}

func TestListeningInMissingFiles(t *testing.T) {
	dir := writeTables(t, map[string]string{"tcp": tcpHeadings})
	if got, err := listeningIn(dir, true, 80); got || err != nil {
		t.Errorf("no tcp6: %t, %v; want a kernel without IPv6", got, err)
	}
	if _, err := listeningIn(dir, false, 80); err == nil {
		t.Error("no udp: no error, so that every port looks free")
	}
}

func TestHasSocketBadTables(t *testing.T) {
	for name, table := range map[string]string{
		"empty line":  tcpHeadings + "\n",
		"few columns": tcpHeadings + "   0: 00000000:0050 00000000:0000\n",
		"other state": tcpHeadings + "   0: 00000000:0050 00000000:0000 LISTEN\n",
		"no line end": tcpHeadings + strings.Repeat("x", 5000),
	} {
		if _, err := hasSocket(strings.NewReader(table), stateListen, 80); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	last := tcpHeadings + "   0: 00000000:0050 00000000:0000 0A" // cut, but all is there
	if got, err := hasSocket(strings.NewReader(last), stateListen, 80); !got || err != nil {
		t.Errorf("no newline at the end: %t, %v", got, err)
	}
}

// FuzzHasSocket: whatever the kernel prints, what is found is there, and the two
// tables are read alike where both can be.
func FuzzHasSocket(f *testing.F) {
	f.Add(tcpHeadings+"   0: 00000000:0050 00000000:0000 0A"+rest, uint16(80))
	f.Add("", uint16(0))
	f.Add("\n\n", uint16(0))
	f.Fuzz(func(t *testing.T, table string, port uint16) {
		found, err := hasSocket(strings.NewReader(table), stateListen, port)
		if found && err != nil {
			t.Errorf("found, and %v", err)
		}
		if found && (!strings.Contains(table, fmt.Sprintf(":%04X", port)) || !strings.Contains(table, stateListen)) {
			t.Errorf("port %d is found in %q", port, table)
		}
		_, body, _ := strings.Cut(table, "\n")
		if closed, err := hasSocket(strings.NewReader(table), stateClose, port); err == nil && len(inodes(body, port)) > 0 && !closed && isASCII(body) {
			t.Errorf("port %d has a socket in %q", port, table)
		}
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' })
}

// The kernel's own tables, of the namespace of the tests.
func TestListening(t *testing.T) {
	lab.NeedAlone(t)
	lab.IP(t, "link set lo up")
	var fast Ports
	want := func(what string, tcp bool, a net.Addr, want bool) {
		t.Helper()
		port := uint16(0)
		switch a := a.(type) {
		case *net.TCPAddr:
			port = uint16(a.Port)
		case *net.UDPAddr:
			port = uint16(a.Port)
		}
		for how, ports := range map[string]*Ports{"sock_diag": &fast, "/proc": {slow: true}} {
			if got, err := ports.Listening(tcp, port); got != want || err != nil {
				t.Errorf("%s by %s: %t, %v; want %t", what, how, got, err, want)
			}
		}
		if fast.slow {
			t.Fatal("this kernel has no inet_diag: it is not tested")
		}
	}

	for _, test := range []struct{ network, address string }{
		{"tcp4", "0.0.0.0:0"},
		{"tcp4", "127.0.0.1:0"},
		{"tcp", "[::]:0"}, // dual-stack
		{"tcp6", "[::1]:0"},
	} {
		l, err := net.Listen(test.network, test.address)
		if err != nil {
			t.Fatal(err)
		}
		want(test.address, true, l.Addr(), true)
		want(test.address+" as UDP", false, l.Addr(), false)
		c, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		want("a connection to "+test.address, true, c.LocalAddr(), false)
		_ = c.Close()
		_ = l.Close()
		want(test.address+" closed", true, l.Addr(), false)
	}
	for _, address := range []string{"0.0.0.0:0", "127.0.0.1:0", "[::]:0"} {
		c, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		want(address, false, c.LocalAddr(), true)
		want(address+" as TCP", true, c.LocalAddr(), false)
		_ = c.Close()
		want(address+" closed", false, c.LocalAddr(), false)
	}
	c, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want("a connected UDP socket", false, c.LocalAddr(), false)
}
