package sock

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// InjectUDP makes the kernel receive one small UDP packet as if it came from
// another host: it is sent out of lo, where it arrives without a conntrack
// entry, and goes through the raw, mangle and nat chains of PREROUTING and,
// when its destination becomes another host, through FORWARD. There and in
// POSTROUTING it is like a packet from the internet, but for two things: the
// device it arrived on is lo, so that rules and policies about the uplink do
// not match ("iifname wan" and "-i wan", routing rules "iif lo", "notrack" on
// lo); and answers go to src by the usual way. Its entry is in the conntrack
// table only if the packet passed both chains. That is so when InjectUDP
// returns, or a moment later.
//
// The kernel drops the packet without a word
//   - from an address of the router or of 127.0.0.0/8 (martian source),
//   - when InjectHindrance says so,
//   - with loose reverse path filtering and no route to src.
//
// A good src is 198.51.100.1 (documentation, RFC 5737): nobody has it, and any
// default route is a route to it. Without one, an address beside the uplink's
// own does as well. The packet's TTL is 2: it ends at the host it was
// redirected to. lo must be up: else the error is ENETDOWN. It needs
// CAP_NET_RAW.
func InjectUDP(src, dst netip.AddrPort) error {
	if !src.Addr().Is4() || !dst.Addr().Is4() {
		return fmt.Errorf("inject a packet from %s to %s: not IPv4", src, dst)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket (needs root or CAP_NET_RAW): %w", err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{
		Protocol: binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff}),
		Ifindex:  loopbackIndex,
	}
	if err := unix.Sendto(fd, udpPacket(src, dst), 0, to); err != nil {
		return fmt.Errorf("inject a packet from %s to %s: %w", src, dst, err)
	}
	return nil
}

// InjectHindrance says which setting of this router makes the kernel drop what
// InjectUDP injects, whatever the firewall does; "" when none does. routed: it
// has a route to the source address.
func InjectHindrance(routed bool) string { return hindranceIn("/proc/sys/net/ipv4/conf/", routed) }

// hindranceIn knows that reverse path filtering (RFC 3704) of a device is the
// stricter of its own and the one of all; 1 is strict, but 2, which is loose,
// is the greater number.
func hindranceIn(dir string, routed bool) string {
	read := func(name string) string {
		value, _ := os.ReadFile(dir + name) // unreadable: no reason to believe in a hindrance
		return strings.TrimSpace(string(value))
	}
	if read("lo/forwarding") == "0" {
		return "net.ipv4.conf.lo.forwarding is 0"
	}
	name, mode := "lo", read("lo/rp_filter")
	if all := read("all/rp_filter"); all > mode {
		name, mode = "all", all
	}
	switch {
	case mode == "1":
		return "net.ipv4.conf." + name + ".rp_filter is 1 (strict)"
	case mode == "2" && !routed:
		return "net.ipv4.conf." + name + ".rp_filter is 2 (loose), and there is no route to the source address"
	}
	return ""
}

// loopbackIndex is the index of lo in every network namespace (LOOPBACK_IFINDEX).
const loopbackIndex = 1

// injectTTL lets the packet be forwarded once: it stays on the LAN.
const injectTTL = 2

// Lengths of the headers of RFC 791 and RFC 768.
const ipHeader, udpHeader = 20, 8

// udpPacket builds an IPv4 packet with a few words for who captures it.
func udpPacket(src, dst netip.AddrPort) []byte {
	const payload = "upnpd check"
	const length = udpHeader + len(payload)
	from, to := src.Port(), dst.Port()
	b := append(make([]byte, 0, ipHeader+length),
		4<<4|ipHeader/4, 0, 0, byte(ipHeader+length), 0, 0, 0, 0, injectTTL, unix.IPPROTO_UDP, 0, 0)
	b = append(append(b, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	b = append(b, byte(from>>8), byte(from), byte(to>>8), byte(to), 0, byte(length), 0, 0)
	b = append(b, payload...)

	// The pseudo header is the addresses, the protocol and the length.
	sum := checksum(unix.IPPROTO_UDP+uint32(length), b[12:])
	if sum == 0 {
		sum = 0xffff // 0 would mean that there is none
	}
	b[26], b[27] = byte(sum>>8), byte(sum)
	sum = checksum(0, b[:ipHeader])
	b[10], b[11] = byte(sum>>8), byte(sum)
	return b
}

// checksum is the internet checksum of RFC 1071 of sum and b.
func checksum(sum uint32, b []byte) uint16 {
	for i, octet := range b {
		sum += uint32(octet) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
