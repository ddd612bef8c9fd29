package sock

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// No route to 239.0.0.0/8 and no default route, or one by another device,
// that refuses, or that has no way: multicast leaves by the socket's device.
func TestWriteToMulticastWithoutRoute(t *testing.T) {
	lab.NeedAlone(t)
	for name, route := range map[string]string{
		"none":        "",
		"other":       "default via 10.2.0.2",
		"unreachable": "unreachable default",
		"blackhole":   "blackhole 224.0.0.0/4",
	} {
		t.Run(name, func(t *testing.T) {
			lan := newLAN(t, "lan0", 1)
			newLAN(t, "wan0", 2)
			if route != "" {
				lab.IP(t, "route add "+route)
				if name == "unreachable" || name == "blackhole" { // these outlive their device
					t.Cleanup(func() { lab.IP(t, "route del "+route) })
				}
			}
			c := peerSocket(t, lan, "0.0.0.0:1900")
			joinGroup(t, c)
			u := listenUDP(t, "lan0", 1900)
			if err := u.WriteTo(deadline(t), []byte("NOTIFY"), netip.AddrPortFrom(group, 1900), netip.Addr{}); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			oob := make([]byte, 100)
			n, oobn, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
			if err != nil {
				t.Fatal(err)
			}
			if string(buf[:n]) != "NOTIFY" || from != addr("10.1.0.1:1900") {
				t.Errorf("got %q from %s", buf[:n], from)
			}
			if ttl := receivedTTL(t, oob[:oobn]); ttl != 2 { // SSDP-2
				t.Errorf("TTL %d, want 2", ttl)
			}
		})
	}
}

// joinGroup joins by the address of the other host, and asks for the TTL of
// what arrives.
func joinGroup(t *testing.T, c *net.UDPConn) {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var joinErr, ttlErr error
	err = rc.Control(func(fd uintptr) {
		m := &unix.IPMreqn{Multiaddr: group.As4(), Address: [4]byte{10, 1, 0, 2}}
		joinErr = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, m)
		ttlErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
	})
	if err := errors.Join(err, joinErr, ttlErr); err != nil {
		t.Fatal(err)
	}
}

func receivedTTL(t *testing.T, oob []byte) uint32 {
	t.Helper()
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_TTL {
			return binary.NativeEndian.Uint32(m.Data)
		}
	}
	t.Fatal("no TTL")
	return 0
}

// Control points on the router itself hear our multicast.
func TestMulticastLoop(t *testing.T) {
	newLAN(t, "lan0", 1)
	a, b := listenUDP(t, "lan0", 1900), listenUDP(t, "lan0", 1900)
	if err := b.Join(group); err != nil {
		t.Fatal(err)
	}
	if err := a.WriteTo(deadline(t), []byte("x"), netip.AddrPortFrom(group, 1900), netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	if text, p := receive(t, b); text != "x" || p.Dst != group {
		t.Errorf("got %q %+v", text, p)
	}
}
