package clients

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestTorrentWays: by which protocol libtorrent maps when some of ours are off (issue
// 7, point 4; SPEC PCP-9). It asks by PCP first, and by UPnP at the same time.
func TestTorrentWays(t *testing.T) {
	t.Parallel()
	off := []string{"pcp = no", "natpmp = no"}
	type way struct {
		options  []string
		settings string
		says     string // something of the protocol
		lists    []string
	}
	beside(t, map[string]way{
		"PCP off":        {off[:1], "enable_natpmp=yes", "<== port map [ transport: NAT-PMP protocol: tcp", four("NAT-PMP")},
		"NAT-PMP off":    {off[1:], "enable_natpmp=yes", "<== port map [ transport: PCP protocol: tcp", append(four("PCP"), six()...)},
		"both off":       {off, "enable_natpmp=yes enable_upnp=yes", "WANIPConnection:1 urlbase", four("UPnP")},
		"UPnP alone":     {nil, "enable_upnp=yes", "WANIPConnection:1 urlbase", four("UPnP")},
		"version 2 only": {[]string{"igd = 2"}, "enable_upnp=yes", "WANIPConnection:2 urlbase", four("UPnP")},
	}, func(t *testing.T, tt way) {
		h := enter(t, tt.options...).begin()
		if _, err := h.LAN1.EchoTCP(9000); err != nil {
			t.Fatal(err)
		}
		s := h.torrent(strings.Fields(tt.settings)...)
		s.says(len(tt.lists), "mapped", " 6881 ")
		s.says(1, "portmap_log", tt.says)
		h.lists("at the start", tt.lists...)
		h.peers("mapped", lab.WANAddr, true)
		s.do("add tcp 19000 9000")
		s.says(1, "mapped 2", " tcp 19000 ")
		wantReached(t, h.Lab, "tcp", 19000, lab.LAN1Addr+":9000")
		s.do("delete 2")
		until(t, "it is deleted", func() bool { return strings.Contains(h.daemon.Log(), "DeletePortMap: Proto:TCP Port:19000") })
		wantReached(t, h.Lab, "tcp", 19000, "")
		s.end()
		h.lists("the session is over")
		h.peers("the session is over", lab.WANAddr, false)
	})
}

// beside runs a body for each row at the same time: they wait more than they compute.
func beside[Row any](t *testing.T, rows map[string]Row, body func(t *testing.T, row Row)) {
	var all sync.WaitGroup
	defer all.Wait()
	for name, row := range rows {
		all.Add(1)
		go func() {
			defer all.Done()
			t.Run(name, func(t *testing.T) { body(t, row) })
		}()
	}
}

// TestTorrentAllWays: as qBittorrent sets it, PCP and UPnP ask for the same port at the
// same time. Who comes first gets it, which is PCP by a second; UPnP is answered 718 and
// takes another port. All ends with the session.
func TestTorrentAllWays(t *testing.T) {
	t.Parallel()
	h := enter(t).begin()
	s := h.torrent("enable_natpmp=yes", "enable_upnp=yes")
	for _, proto := range []string{"tcp", "udp"} {
		s.says(1, "mapped", "upnp "+proto)
		s.says(1, "portmap_log NAT-PMP ["+lab.LAN1Addr+"]", "<== port map [ transport: PCP protocol: "+proto)
		s.says(1, "mapped", "natpmp "+proto, lab.LAN1Addr6)
	}
	h.peers("mapped", lab.WANAddr, true)
	h.peers("a pinhole", lab.LAN1Addr6, true)
	other := net.JoinHostPort(lab.WANAddr, strconv.Itoa(s.port("mapped 0 upnp tcp ")))
	c, err := h.Internet.Dial("tcp", other, pinPatience)
	if err != nil {
		t.Fatalf("a peer at the port by UPnP: %v", err)
	}
	c.Close()
	s.end()
	h.lists("the session is over")
}

// port gives the external port of a mapping, from the line that tells of it.
func (s *torrent) port(begin string) (port int) {
	s.t.Helper()
	s.says(1, begin)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if strings.HasPrefix(line, begin) {
			fmt.Sscan(strings.TrimPrefix(line, begin), &port)
		}
	}
	return port
}

// TestTorrentRefused: what libtorrent says when it doesn't get what it asks for. A port
// of another host makes PCP give another one at once; UPnP answers 718, to which it
// tries one of its own, five times in all.
func TestTorrentRefused(t *testing.T) {
	t.Parallel()
	beside(t, map[string][2]string{
		"PCP":  {"natpmp", "not authorized"},
		"UPnP": {"upnp", "The port mapping entry specified conflicts with a mapping assigned previously to another client"},
	}, func(t *testing.T, row [2]string) {
		by, low := row[0], row[1]
		h := enter(t, "max_mappings_per_client = 6").begin()
		if _, err := h.LAN1.EchoTCP(9000); err != nil {
			t.Fatal(err)
		}
		pmpMaps(t, h.LAN2, "tcp", 9000, 19001, 19001, 600)
		s := h.torrent("enable_"+by+"=yes", onlyFour)
		s.says(1, "mapped 1 "+by)
		s.do("add tcp 19001 9000")
		port := s.port("mapped 2 " + by + " tcp ")
		if port == 19001 || port < 1024 {
			t.Errorf("it has port %d", port)
		}
		wantReached(t, h.Lab, "tcp", port, lab.LAN1Addr+":9000")
		s.do("add udp 22 22")
		s.says(1, "refused 3 "+by+" "+low)
		s.end()
		h.lists("the session is over", "TCP 19001 "+lab.LAN2Addr+" 9000 NAT-PMP")
	})
}

// TestTorrentQuota: the quota has its own name in libtorrent, too (issue 7, point 3).
func TestTorrentQuota(t *testing.T) {
	t.Parallel()
	h := enter(t, "max_mappings_per_client = 1").begin()
	s := h.torrent("enable_natpmp=yes", onlyFour)
	s.says(1, "mapped 0 natpmp tcp 6881")
	s.says(1, "refused 1 natpmp user exceeded quota")
	h.lists("one", four("PCP")[:1]...)
	s.end()
	h.lists("the session is over")
}

// TestTorrentRenews: it asks for an hour and renews after three quarters of what it is
// given, with the nonce of the mapping: what it has stays the same mapping.
func TestTorrentRenews(t *testing.T) {
	t.Parallel()
	beside(t, map[string]string{"PCP": "natpmp", "NAT-PMP": "pcp"}, func(t *testing.T, off string) {
		h := enter(t, off+" = no", "min_lease = 6", "max_lease = 6").begin()
		s := h.torrent("enable_natpmp=yes", onlyFour)
		const renewals = 2 // after 4 and 8 s
		for _, proto := range []string{"tcp", "udp"} {
			s.says(1, "portmap_log", "<== ", "protocol: "+proto, "ttl: 6 ]")
			s.says(1+renewals, "mapped", proto+" 6881")
			if n := strings.Count(h.daemon.Log(), "AddPortMap: RemoteHost: * Prot: "+strings.ToUpper(proto)); n != 1 {
				t.Errorf("%s was made %d times", proto, n)
			}
		}
		h.peers("renewed", lab.WANAddr, true)
		s.end()
		h.lists("the session is over")
	})
}

// TestTorrentUplink: when the WAN address is another one, the mappings are at it. It
// is told unasked and takes no notice: it has no ear on 224.0.0.1:5350, and the update
// of a mapping is "not found", as no request of it is under way. What its address is
// it learns from the next renewal, after 45 minutes.
func TestTorrentUplink(t *testing.T) {
	t.Parallel()
	const next = "11.0.0.3"
	h := enter(t).begin()
	s := h.torrent("enable_natpmp=yes")
	s.says(4, "mapped", " 6881 ")
	h.Router.Run(t, "ip", "addr", "add", next+"/25", "dev", lab.WANDev)
	h.Router.Run(t, "ip", "addr", "del", lab.WANAddr+"/24", "dev", lab.WANDev)
	for _, proto := range []string{"tcp", "udp"} {
		s.says(3, "portmap_log NAT-PMP ["+lab.LAN1Addr+"]", "protocol: "+proto+" local: 6881 external: 6881", "not found in map table")
	}
	if sockets := h.LAN1.Run(t, "ss", "-u", "-a", "-n"); strings.Contains(sockets, ":5350") {
		t.Errorf("it listens to announcements:\n%s", sockets)
	}
	h.lists("another address", append(four("PCP"), six()...)...)
	h.peers("another address", next, true)
	h.peers("another address", lab.LAN1Addr6, true)
	if s.said("refused") > 0 || s.said("mapped") != 4 {
		t.Error("it has heard of more than four mappings")
	}
	s.end()
	h.lists("the session is over")
}

// TestTorrentKilled: a session that was killed leaves its mappings, whose nonces the
// next one does not know. By RFC 6887 it is refused for their rest (MAP-3), in which
// they still lead to it, and asks again after two hours; with pcp_nonce = same-host it has them back (INT-20).
func TestTorrentKilled(t *testing.T) {
	t.Parallel()
	h := enter(t).begin()
	all := append(four("PCP"), six()...)
	s := h.torrent("enable_natpmp=yes")
	s.says(4, "mapped", " 6881 ")
	s.cmd.Process.Kill()
	<-s.read
	h.lists("killed", all...)

	s = h.torrent("enable_natpmp=yes")
	s.says(2, "refused 0 natpmp not authorized")
	s.says(2, "refused 1 natpmp not authorized")
	if s.said("mapped") > 0 || s.said("portmap_log", "<== ", "ttl: 3") < 4 { // what is left of an hour
		t.Error("it is given a mapping of another nonce, or not told how long that lasts")
	}
	h.peers("after a crash", lab.WANAddr, true)
	h.peers("after a crash", lab.LAN1Addr6, true)
	s.end()
	for _, addr := range []string{lab.LAN1Addr, lab.LAN1Addr6} {
		until(t, "it may not delete them either", func() bool {
			return strings.Contains(h.daemon.Log(), "refused "+addr+": delete UDP port 6881")
		})
	}
	h.lists("not its own", all...)

	h.reload("configuration read again", 1, "pcp_nonce = same-host")
	s = h.torrent("enable_natpmp=yes")
	s.says(4, "mapped", " 6881 ")
	h.lists("same host", all...)
	s.end()
	h.lists("the session is over")
}
