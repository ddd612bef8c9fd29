package wan

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// Operational states of IFLA_OPERSTATE, RFC 2863 section 3.1.14; the kernel
// numbers them in its own way (linux/if.h).
const (
	operUnknown = 0
	operUp      = 6
)

// dumpTries bounds how often an interrupted dump is begun again.
const dumpTries = 5

var errNoReply = errors.New("no reply from the kernel")

// kernel is one reading of the followed links and of all addresses.
type kernel struct {
	links map[string]link
	addrs []address
}

// link is an RTM_NEWLINK message.
type link struct {
	family    uint8
	index     int
	name      string
	flags     uint32
	operState uint8
	mac       [6]byte
	counters  Counters
}

func (l link) up() bool {
	return l.flags&unix.IFF_UP != 0 && (l.operState == operUp || l.operState == operUnknown)
}

// address is an RTM_NEWADDR message.
type address struct {
	index  int
	prefix netip.Prefix
	flags  uint32 // IFA_F_*
	scope  uint8
}

// global reports whether the address is fit to be an uplink's.
func (a address) global() bool {
	return a.scope < unix.RT_SCOPE_LINK && !a.prefix.Addr().IsLinkLocalUnicast()
}

// readKernel reads the links of the names that exist, and all addresses.
func readKernel(c *netlink.Conn, names []string) (kernel, error) {
	k := kernel{links: make(map[string]link, len(names))}
	for _, name := range names {
		l, ok, err := readLink(c, name)
		if err != nil {
			return kernel{}, err
		}
		if ok {
			k.links[name] = l
		}
	}
	var err error
	k.addrs, err = readAddresses(c)
	return k, err
}

// readLink asks for one device; false: there is none.
func readLink(c *netlink.Conn, name string) (link, bool, error) {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.IFLA_IFNAME, Data: nlenc.Bytes(name)},
	})
	if err != nil {
		return link{}, false, err
	}
	l, err := requestLink(c, append(make([]byte, unix.SizeofIfInfomsg), attrs...))
	if errors.Is(err, unix.ENODEV) {
		return link{}, false, nil
	}
	if err != nil {
		return link{}, false, fmt.Errorf("read link %s: %w", name, err)
	}
	// The kernel finds alternative names too, which firewall rules and events
	// do not know.
	return l, l.name == name, nil
}

// requestLink asks for the device that struct ifinfomsg, or the attribute
// behind it, names.
func requestLink(c *netlink.Conn, request []byte) (link, error) {
	replies, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request},
		Data:   request,
	})
	if err != nil {
		return link{}, err
	}
	if len(replies) == 0 {
		return link{}, errNoReply
	}
	return parseLink(replies[0].Data)
}

// readAddresses asks for the addresses of all devices, in the kernel's order.
func readAddresses(c *netlink.Conn) ([]address, error) {
	replies, err := dump(c, unix.RTM_GETADDR, unix.AF_UNSPEC, unix.SizeofIfAddrmsg)
	var addrs []address
	for i := 0; i < len(replies) && err == nil; i++ {
		if replies[i].Header.Type != unix.RTM_NEWADDR {
			continue
		}
		var a address
		if a, err = parseAddress(replies[i].Data); a.prefix.IsValid() {
			addrs = append(addrs, a)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	return addrs, nil
}

// dump asks for all objects of a family, AF_UNSPEC: of all families. The request is a header of size
// bytes that begins with the family.
func dump(c *netlink.Conn, typ netlink.HeaderType, family byte, size int) ([]netlink.Message, error) {
	req := netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{family}, make([]byte, size-1)...),
	}
	for range dumpTries {
		replies, err := c.Execute(req)
		if err != nil || !slices.ContainsFunc(replies, interrupted) {
			return replies, err
		}
	}
	return nil, fmt.Errorf("changes during each of %d readings", dumpTries)
}

// interrupted reports that something changed during the dump, so that some of
// it may be missing.
func interrupted(m netlink.Message) bool { return m.Header.Flags&netlink.DumpInterrupted != 0 }

// parseLink reads struct ifinfomsg and the attributes behind it.
func parseLink(b []byte) (link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return link{}, errors.New("short link message")
	}
	l := link{
		family: b[0],
		index:  int(nlenc.Int32(b[4:8])),
		flags:  nlenc.Uint32(b[8:12]),
	}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return link{}, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			l.name = ad.String()
		case unix.IFLA_OPERSTATE:
			l.operState = ad.Uint8()
		case unix.IFLA_ADDRESS:
			if mac := ad.Bytes(); len(mac) == len(l.mac) {
				l.mac = [6]byte(mac)
			}
		case unix.IFLA_STATS64:
			ad.Do(l.counters.parse)
		}
	}
	return l, ad.Err()
}

// parse reads the begin of struct rtnl_link_stats64.
func (c *Counters) parse(b []byte) error {
	if len(b) < 4*8 {
		return errors.New("short counters")
	}
	c.PacketsReceived = nlenc.Uint64(b[0:8])
	c.PacketsSent = nlenc.Uint64(b[8:16])
	c.BytesReceived = nlenc.Uint64(b[16:24])
	c.BytesSent = nlenc.Uint64(b[24:32])
	return nil
}

// parseAddress reads struct ifaddrmsg and the attributes behind it. An
// address that is neither IPv4 nor IPv6 has an invalid prefix.
func parseAddress(b []byte) (address, error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return address{}, errors.New("short address message")
	}
	bits := int(b[1])
	a := address{
		index: int(nlenc.Uint32(b[4:8])),
		flags: uint32(b[2]),
		scope: b[3],
	}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofIfAddrmsg:])
	if err != nil {
		return address{}, err
	}
	var local, peer netip.Addr
	for ad.Next() {
		switch ad.Type() {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.IFA_ADDRESS:
			peer, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.IFA_FLAGS:
			a.flags = ad.Uint32() // all of them; the header has room for eight
		}
	}
	if !local.IsValid() {
		local = peer
	}
	if local.IsValid() && bits <= local.BitLen() {
		a.prefix = onLink(local, peer, bits)
	}
	return a, ad.Err()
}

// onLink returns local with the length of its prefix. On a point-to-point
// link the prefix is the peer's; where local is not in it, nothing else is
// on-link with local.
func onLink(local, peer netip.Addr, bits int) netip.Prefix {
	if peer.IsValid() && !netip.PrefixFrom(peer, bits).Contains(local) {
		bits = local.BitLen()
	}
	return netip.PrefixFrom(local, bits)
}

// readSpeed returns bit/s from the Mbit/s in DIR/NAME/speed. The kernel says
// -1, or refuses to say, when it does not know: 0.
func readSpeed(dir, name string) uint64 {
	b, err := os.ReadFile(dir + "/" + name + "/speed")
	if err != nil {
		return 0
	}
	mbit, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil || mbit == 1<<32-1 {
		return 0
	}
	return mbit * 1_000_000
}
