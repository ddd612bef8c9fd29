package faults

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// stranger is another program on the router with a UDP port, whether or not it shares
// it (SO_REUSEADDR).
func (h *house) stranger(port int, shares bool) (net.PacketConn, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		value := 0
		if shares {
			value = 1
		}
		raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, value) })
		return err
	}}
	var conn net.PacketConn
	err := h.Router.Do(func() (err error) {
		conn, err = c.ListenPacket(context.Background(), "udp4", fmt.Sprintf("0.0.0.0:%d", port))
		return err
	})
	if err == nil {
		h.t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// takes makes a stranger that must get the port.
func (h *house) takes(port int, shares bool) net.PacketConn {
	h.t.Helper()
	c, err := h.stranger(port, shares)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// speaksNATPMP tells whether NAT-PMP answers with the WAN address.
func (h *house) speaksNATPMP() bool {
	c, err := h.LAN1.Dial("udp4", lab.RouterLANAddr+":5351", time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	c.Write([]byte{0, 0})
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	reply := make([]byte, 1100)
	n, err := c.Read(reply)
	return err == nil && n == 12 && strings.Contains(string(reply[:n]), string([]byte{11, 0, 0, 2}))
}

// TestPort5351Taken: UPnP is served without the protocols of a port that another program
// has. It is said once, with a remedy, and the port is taken as soon as it is free; UPnP
// is not announced anew for that.
func TestPort5351Taken(t *testing.T) {
	t.Parallel()
	h := enter(t, lab.Nftables)
	other := h.takes(5351, false)
	h.begin("")
	h.baseline()
	for _, words := range []string{"serve br-lan for NAT-PMP and PCP: listen on UDP port 5351 of br-lan: another program has this port",
		"stop it, or set natpmp = no and pcp = no; next try in 5s"} {
		if n := h.logged(words); n != 1 {
			t.Errorf("%d lines with %q", n, words)
		}
	}
	if out := h.ctl("check"); !strings.Contains(out, "5351") {
		t.Errorf("upnpctl check does not name the port:\n%s", out)
	}
	if h.speaksNATPMP() {
		t.Fatal("NAT-PMP answers")
	}
	other.Close()
	home.Until(t, "NAT-PMP answers", h.speaksNATPMP)
	if err := h.daemon.WaitLog("it works now"); err != nil {
		t.Fatal(err)
	}
	for words, want := range map[string]int{"next try in": 1, "serve br-lan for NAT-PMP and PCP: it works now": 1, "Advertisements Sent": 1} {
		if n := h.logged(words); n != want {
			t.Errorf("%d lines with %q, want %d", n, words, want)
		}
	}
	h.mended("port 5351 was taken")
}

// TestOnlyPCPTaken: without UPnP nothing is left to serve, and the start says why.
func TestOnlyPCPTaken(t *testing.T) {
	t.Parallel()
	h := enter(t, lab.Nftables, "upnp = no")
	h.takes(5351, false)
	_, err := h.Router.Launch(lab.Build(t), "--config", h.config, lab.WANDev, lab.LANDev)
	if err == nil || !strings.Contains(err.Error(), "upnpd ended (exit status 1)") || !strings.Contains(err.Error(), "UDP port 5351 of br-lan: another program has this port") {
		t.Errorf("the start gives %v", err)
	}
}

// TestPort1900Shared: a program that shares the port does not matter, before and after
// the start, while it comes and goes.
func TestPort1900Shared(t *testing.T) {
	t.Parallel()
	h := enter(t, lab.Nftables)
	before := h.takes(1900, true)
	h.begin("")
	h.baseline()
	after := h.takes(1900, true)
	for _, when := range []string{"with two others", "with one", "alone"} {
		if !h.found() {
			t.Errorf("%s it is not found", when)
		}
		before.Close()
		before = after
	}
	if n := strings.Count(h.daemon.Log(), "port 1900 "); n != 0 {
		t.Errorf("%d lines about the port", n)
	}
}

// TestPort1900Taken: a program that does not share the port ends the start with a
// remedy; it cannot have the port while the daemon runs; and if it takes it while the
// LAN is away, the daemon says so once and goes on, and finds its way back.
func TestPort1900Taken(t *testing.T) {
	t.Parallel()
	h := enter(t, lab.Nftables)
	other := h.takes(1900, false)
	_, err := h.Router.Launch(lab.Build(t), "--config", h.config, lab.WANDev, lab.LANDev)
	if err == nil || !strings.Contains(err.Error(), "UDP port 1900 of br-lan: another program has this port") || !strings.Contains(err.Error(), "stop it, or set upnp = no") {
		t.Errorf("the start gives %v", err)
	}
	other.Close()
	h.begin("")
	h.baseline()
	if other, err := h.stranger(1900, false); err == nil {
		other.Close()
		t.Error("another program gets the port of the daemon")
	}
	h.sh("ip link set br-lan down")
	home.Until(t, "the port is free", func() bool { other, err = h.stranger(1900, false); return err == nil })
	h.sh("ip link set br-lan up")
	if err := h.daemon.WaitLog("next try in 5s"); err != nil {
		t.Fatal(err)
	}
	home.Until(t, "NAT-PMP goes on", h.speaksNATPMP)
	h.mended("port 1900 is taken")
	other.Close()
	h.served("port 1900 was taken")
	if n := h.logged("serve br-lan: discovery: "); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestHTTPPortTaken: without a configured port the next one that is free is taken. A
// configured one ends the start: cmd/upnpd's TestPortTaken.
func TestHTTPPortTaken(t *testing.T) {
	t.Parallel()
	h := enter(t, lab.Nftables)
	for port := 49152; port < 49155; port++ {
		if _, err := h.Router.ListenTCP(fmt.Sprintf("0.0.0.0:%d", port)); err != nil {
			t.Fatal(err)
		}
	}
	h.begin("")
	if got := h.Client(1).Control; !strings.Contains(got, ":49155/") {
		t.Errorf("it serves at %s", got)
	}
	h.baseline()
	h.mended("HTTP ports were taken")
}
