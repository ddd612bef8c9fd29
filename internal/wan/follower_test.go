package wan

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

func TestUplinkLife(t *testing.T) {
	noDevices(t)
	w := follow(t, "eth1", "br-lan")
	if s := w.State(); !s.Equal(State{Uplink: Uplink{Name: "eth1"}, LANs: []LAN{{Name: "br-lan"}}}) {
		t.Errorf("without devices: %+v", s)
	}
	w.run()

	lab.IP(t, "link add eth1 type veth peer name isp", "link set isp up", "link set eth1 up")
	first := w.until("link up", func(s State) bool { return s.Uplink.Up })
	if first.Uplink.Connected() || first.Uplink.Since != 0 || first.Uplink.Index == 0 {
		t.Errorf("up without address: %+v", first.Uplink)
	}
	lab.IP(t, "addr add 11.0.0.2/24 dev eth1")
	connected := w.until("address", connectedAs("11.0.0.2"))
	if connected.Uplink.Since == 0 {
		t.Error("connected, but not since any time")
	}

	// Another address first, then without the old one, as DHCP clients do.
	lab.IP(t, "addr add 11.0.1.3/24 dev eth1", "addr del 11.0.0.2/24 dev eth1")
	changed := w.until("other address", connectedAs("11.0.1.3"))
	if changed.Uplink.Since <= connected.Uplink.Since {
		t.Errorf("other address, Since %v after %v", changed.Uplink.Since, connected.Uplink.Since)
	}

	lab.IP(t, "link set isp down")
	noCarrier := w.until("no carrier", func(s State) bool { return !s.Uplink.Up })
	if u := noCarrier.Uplink; u.Connected() || u.Since != 0 || !u.Addr.IsValid() {
		t.Errorf("without carrier: %+v", u)
	}
	lab.IP(t, "link set isp up")
	again := w.until("carrier", connectedAs("11.0.1.3"))
	if again.Uplink.Since <= changed.Uplink.Since {
		t.Errorf("connected again, Since %v after %v", again.Uplink.Since, changed.Uplink.Since)
	}

	lab.IP(t, "link set eth1 down")
	w.until("set down", func(s State) bool { return !s.Uplink.Up })
	lab.IP(t, "addr flush dev eth1")
	w.until("no address", func(s State) bool { return !s.Uplink.Addr.IsValid() })
	lab.IP(t, "link del eth1")
	w.until("deleted", func(s State) bool { return s.Uplink == Uplink{Name: "eth1"} })

	// Made again, with another index, and with all at once.
	lab.IP(t, "link add filler type bridge", "link add eth1 type veth peer name isp",
		"addr add 11.0.0.9/24 dev eth1", "link set isp up", "link set eth1 up")
	remade := w.until("made again", connectedAs("11.0.0.9"))
	if remade.Uplink.Index == first.Uplink.Index {
		t.Errorf("index %d again: the test needs another one", remade.Uplink.Index)
	}
}

func TestUplinkLog(t *testing.T) {
	noDevices(t)
	w := follow(t, "eth1", "br-lan")
	w.run()
	lab.IP(t, "link add eth1 type veth peer name isp", "link set isp up", "link set eth1 up")
	w.until("link up", func(s State) bool { return s.Uplink.Up })
	lab.IP(t, "addr add 11.0.0.2/24 dev eth1")
	w.until("address", connectedAs("11.0.0.2"))
	lab.IP(t, "link set isp down")
	w.until("no carrier", func(s State) bool { return !s.Uplink.Up })
	lab.IP(t, "link set isp up")
	w.until("carrier", connectedAs("11.0.0.2"))
	lab.IP(t, "addr del 11.0.0.2/24 dev eth1")
	w.until("no address", func(s State) bool { return !s.Uplink.Addr.IsValid() })
	lab.IP(t, "link add br-lan type bridge")
	w.until("bridge", func(s State) bool { return s.LANs[0].Index != 0 })
	lab.IP(t, "addr add 10.0.0.1/24 dev br-lan")
	w.until("LAN address", func(s State) bool { return s.LANs[0].Addr().IsValid() })
	lab.IP(t, "link set br-lan up", "link set br-lan down") // no news
	lab.IP(t, "addr add 192.168.0.1/16 dev br-lan")
	w.until("second LAN address", func(s State) bool { return len(s.LANs[0].Prefixes) == 2 })
	lab.IP(t, "link del br-lan")
	w.until("no bridge", func(s State) bool { return s.LANs[0].Index == 0 })
	lab.IP(t, "link del eth1")
	w.until("no uplink", func(s State) bool { return s.Uplink.Index == 0 })
	w.log.want(t,
		"wan: no device eth1 yet; waiting for it",
		"wan: no LAN device br-lan yet; waiting for it",
		"wan: eth1 has no address; waiting",
		"wan: eth1 has address 11.0.0.2",
		"wan: eth1 has address 11.0.0.2 but no link; waiting",
		"wan: eth1 has address 11.0.0.2",
		"wan: eth1 has no address; waiting",
		"wan: LAN device br-lan has no IPv4 address; waiting",
		"wan: LAN device br-lan has address 10.0.0.1/24",
		"wan: LAN device br-lan has address 10.0.0.1/24 192.168.0.1/16",
		"wan: LAN device br-lan is gone; waiting for it",
		"wan: device eth1 is gone; waiting for it")
}

// PPPoE sets its device up under another name first. There is no such link
// in every kernel; a veth with a peer address looks the same.
func TestRename(t *testing.T) {
	noDevices(t)
	w := follow(t, "pppoe-wan")
	w.run()
	lab.IP(t, "link add ppp0 type veth peer name isp", "link set isp up", "link set ppp0 up",
		"addr add 11.0.0.2 peer 11.0.0.1/32 dev ppp0",
		"link set ppp0 down", "link set ppp0 name pppoe-wan", "link set pppoe-wan up")
	w.until("renamed to ours", connectedAs("11.0.0.2"))
	lab.IP(t, "link set pppoe-wan down", "link set pppoe-wan name old")
	w.until("renamed away", func(s State) bool { return s.Uplink.Index == 0 })
	lab.IP(t, "link property add dev old altname pppoe-wan", "addr add 11.0.0.7/24 dev old", "link set old up",
		"link add other type veth peer name pppoe-lan")
	if s := w.refreshed(); s.Uplink.Index != 0 {
		t.Errorf("an alternative name counts: %+v", s.Uplink)
	}
}

// refreshed returns what the kernel says now.
func (w *world) refreshed() State {
	w.t.Helper()
	s, err := w.read()
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func TestLANBridge(t *testing.T) {
	noDevices(t)
	lab.IP(t, "link add br-lan address 02:00:00:00:00:10 type bridge",
		"addr add 10.0.0.1/24 dev br-lan",
		"addr add 192.168.7.1/25 dev br-lan",
		"link set br-lan up")
	w := follow(t, "eth1", "br-lan", "br-guest")
	lan := w.State().LANs[0]
	want := LAN{
		Name: "br-lan", Index: lan.Index, MAC: [6]byte{2, 0, 0, 0, 0, 0x10},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("192.168.7.1/25")},
	}
	if !lan.equal(want) || lan.Index == 0 {
		t.Errorf("bridge without ports: %+v, want %+v", lan, want)
	}
	w.run()
	lab.IP(t, "link add port type veth peer name host", "link set port master br-lan", "link set port up", "link set host up")
	w.until("bridge with a port", func(s State) bool { return s.LANs[0].Up })
	lab.IP(t, "addr add 172.16.0.1/24 dev br-lan")
	w.until("third address", func(s State) bool { return s.LANs[0].OnLink(netip.MustParseAddr("172.16.0.5")) })
	lab.IP(t, "addr del 10.0.0.1/24 dev br-lan")
	s := w.until("first address gone", func(s State) bool { return !s.LANs[0].Local(netip.MustParseAddr("10.0.0.1")) })
	if got := s.LANs[0].Addr().String(); got != "192.168.7.1" {
		t.Errorf("Addr %s", got)
	}
	if s.LANs[1].Name != "br-guest" || s.LANs[1].Index != 0 {
		t.Errorf("second LAN: %+v", s.LANs[1])
	}
	lab.IP(t, "link set br-lan address 02:00:00:00:00:11")
	w.until("other MAC", func(s State) bool { return s.LANs[0].MAC[5] == 0x11 })
}

// Devices and addresses of others cause no reading, and a burst only one.
func TestAwait(t *testing.T) {
	noDevices(t)
	lab.IP(t, "link add eth1 type veth peer name isp")
	w := follow(t, "eth1", "br-lan")
	d := w.State().devices()
	empty := func() {
		t.Helper()
		if matters, err := w.socks.receive(false, d); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("queue is not empty: %t, %v", matters, err)
		}
	}
	empty()

	lab.IP(t, "link add docker0 type bridge", "link add veth1 type veth peer name veth2",
		"link set veth1 master docker0", "addr add 172.17.0.1/16 dev docker0", "link set docker0 up",
		"link set veth1 up", "link set veth2 up", "link set isp alias x", "link del veth1",
		"addr del 172.17.0.1/16 dev docker0", "link del docker0", "route add blackhole 1.2.3.4", "route del blackhole 1.2.3.4")
	events := 0
	for {
		matters, err := w.socks.receive(false, d)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if matters {
			t.Errorf("event %d of other devices matters", events)
		}
		events++
	}
	if events < 10 {
		t.Errorf("only %d events: is there a subscription?", events)
	}

	for i := range 20 {
		lab.IP(t, fmt.Sprintf("addr add 11.0.%d.2/24 dev eth1", i))
	}
	if err := w.socks.await(d); err != nil {
		t.Error(err)
	}
	empty()

	w.socks.buf = make([]byte, 64)
	lab.IP(t, "link set isp up") // longer than that, so it may be about anything
	if matters, err := w.socks.receive(false, d); !matters || err != nil {
		t.Errorf("an event that does not fit: %t, %v", matters, err)
	}
}

// An event without a difference is no change.
func TestNoChange(t *testing.T) {
	noDevices(t)
	lab.IP(t, "link add eth1 type veth peer name isp")
	w := follow(t, "eth1", "isp")
	calls := 0
	count := func(State) { calls++ }
	if err := w.refresh(count); calls != 0 || err != nil {
		t.Errorf("nothing happened: %d calls, %v", calls, err)
	}
	lab.IP(t, "addr add 11.0.0.2/24 dev eth1")
	if err := w.refresh(count); calls != 1 || err != nil {
		t.Errorf("an address: %d calls, %v", calls, err)
	}
	lab.IP(t, "link set eth1 alias x")
	if err := w.refresh(count); calls != 1 || err != nil {
		t.Errorf("an alias: %d calls, %v", calls, err)
	}
}

// More events than the socket can hold: the last state is seen all the same,
// and later events as well.
func TestLostEvents(t *testing.T) {
	noDevices(t)
	lab.IP(t, "link add eth1 type veth peer name isp", "link set isp up", "link set eth1 up")
	w := follow(t, "eth1")
	if err := w.socks.events.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		lab.IP(t, fmt.Sprintf("link set isp alias x%d", i))
	}
	lab.IP(t, "addr add 11.0.0.2/24 dev eth1") // lost
	w.run()
	w.until("address", connectedAs("11.0.0.2"))
	lab.IP(t, "addr del 11.0.0.2/24 dev eth1")
	w.until("no address", func(s State) bool { return !s.Uplink.Addr.IsValid() })
}

// Broken sockets are replaced, with one line; what happened meanwhile is seen.
func TestReopen(t *testing.T) {
	lab.NeedAlone(t)
	for name, breakIt := range map[string]func(*sockets) error{
		"events":   func(s *sockets) error { return s.events.Close() },
		"requests": func(s *sockets) error { return s.requests.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			noDevices(t)
			w := follow(t, "eth1")
			w.run()
			old := w.sockets()
			if err := breakIt(old); err != nil {
				t.Fatal(err)
			}
			lab.IP(t, "link add eth1 type veth peer name isp", "link set isp up", "link set eth1 up")
			w.until("made", func(s State) bool { return s.Uplink.Up })
			lab.IP(t, "addr add 11.0.0.2/24 dev eth1")
			w.until("address", connectedAs("11.0.0.2"))
			if old.events.SetReadDeadline(time.Time{}) == nil || old.requests.SetReadDeadline(time.Time{}) == nil {
				t.Error("an old socket is still open")
			}
			w.log.mu.Lock()
			defer w.log.mu.Unlock()
			lines := 0
			for _, line := range w.log.lines {
				if strings.Contains(line, "opening rtnetlink again") {
					lines++
				}
			}
			if lines != 1 {
				t.Errorf("%d lines about it: %q", lines, w.log.lines)
			}
		})
	}
}

func TestCounters(t *testing.T) {
	noDevices(t)
	up, down := follow(t, "eth1"), follow(t, "isp")
	if c, err := up.Counters(); c != (Counters{}) || err != nil {
		t.Errorf("no device: %+v, %v", c, err)
	}
	lab.IP(t, "link add eth1 type veth peer name isp", "link set isp up", "link set eth1 up", "addr add 11.0.0.2/24 dev eth1")
	up.run()
	if s := up.refreshed(); !s.Uplink.Up {
		up.until("up", connectedAs("11.0.0.2"))
	}
	sendFrames(t, "eth1", 3, 100)
	sent, err := up.Counters()
	if err != nil {
		t.Fatal(err)
	}
	received, err := down.Counters()
	if err != nil {
		t.Fatal(err)
	}
	// The kernel's own IPv6 packets may come on top.
	if sent.PacketsSent < 3 || sent.BytesSent < 300 || sent.PacketsReceived > sent.PacketsSent {
		t.Errorf("sender: %+v", sent)
	}
	if received.PacketsReceived < 3 || received.BytesReceived < 300 {
		t.Errorf("receiver: %+v", received)
	}
}

// sendFrames sends broadcast Ethernet frames of an experimental type.
func sendFrames(t *testing.T, dev string, n, size int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	l, ok, err := readLink(dialed(t).requests, dev)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	frame := make([]byte, size)
	copy(frame, "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5")
	for range n {
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.index}); err != nil {
			t.Fatal(err)
		}
	}
}

func dialed(t *testing.T) *sockets {
	t.Helper()
	s, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	return s
}

func TestFollowNames(t *testing.T) {
	for _, name := range []string{"", "sixteen-bytes-xx"} {
		if _, err := Follow(Uplink{Name: name}, nil, nil, nil); err == nil {
			t.Errorf("uplink %q: no error", name)
		}
		if _, err := Follow(Uplink{Name: "eth1"}, []string{name}, nil, nil); err == nil {
			t.Errorf("LAN %q: no error", name)
		}
	}
}
