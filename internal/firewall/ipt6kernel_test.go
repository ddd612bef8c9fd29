package firewall

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// variants6 is variants with IPv6 in the lab, and echo servers on the LAN host.
func variants6(t *testing.T, body func(t *testing.T, l *lab.Lab, o IPTablesOptions, rules func() string)) {
	variants(t, func(t *testing.T, l *lab.Lab, v string) {
		if err := l.IPv6(v); err != nil {
			t.Fatal(err)
		}
		for _, h := range []*lab.Host{l.Router, l.LAN1, l.Internet} {
			until(t, "addresses are found to be alone", func() bool { return h.Run(t, "ip", "-6", "addr", "show", "tentative") == "" })
		}
		for _, port := range []uint16{8080, 8081} {
			if _, err := l.LAN1.EchoTCP6(port); err != nil {
				t.Fatal(err)
			}
			if _, err := l.LAN1.EchoUDP6(port); err != nil {
				t.Fatal(err)
			}
		}
		o := options(v)
		o.IPv6 = true
		program := strings.Replace(o.Location, "iptables", "ip6tables", 1)
		body(t, l, o, func() string { return l.Router.Run(t, program, "-w", "-S") })
	})
}

// pass says which of the LAN host's ports the internet host gets an answer from,
// over UDP with the port that it sends from.
func pass(t *testing.T, l *lab.Lab, want bool, probes ...string) {
	t.Helper()
	patience := 3 * time.Second
	if !want {
		patience = 150 * time.Millisecond
	}
	for _, probe := range probes {
		var network, to string
		var from int
		fmt.Sscan(probe, &network, &to, &from)
		got := answered(l, network, "[2001:db8:77::10]:"+to, from, patience)
		if got != want {
			t.Errorf("%s passes: %v, want %v", probe, got, want)
		}
	}
}

func answered(l *lab.Lab, network, to string, from int, patience time.Duration) bool {
	var c net.Conn
	err := l.Internet.Do(func() (err error) {
		d := net.Dialer{Timeout: patience}
		if network == "tcp" {
			d.LocalAddr = &net.TCPAddr{Port: from}
		} else {
			d.LocalAddr = &net.UDPAddr{Port: from}
		}
		c, err = d.Dial(network, to)
		return err
	})
	if err != nil {
		return false
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return false
	}
	if network == "udp" {
		if _, err := c.Write([]byte{0}); err != nil {
			return false
		}
	}
	n, err := c.Read(make([]byte, 100))
	return err == nil && n > 0
}

// TestPinholes: what the internet reaches through pinholes, with real packets, and
// nothing before and after (issue 6, points 4 and 5; SPEC PIN-2).
func TestPinholes(t *testing.T) {
	variants6(t, func(t *testing.T, l *lab.Lab, o IPTablesOptions, rules func() string) {
		before := rules()
		f, err := open(t, l, o)
		if err != nil {
			t.Fatal(err)
		}
		on(t, l, func() error { return f.Sync(homePin, nil) })
		empty := rules()
		two := udpPin
		two.Ports = 2
		all := []string{"tcp 8080 0", "tcp 8081 0", "udp 8080 0", "udp 8081 4001"}
		pass(t, l, false, all...)
		for _, tt := range []struct {
			name     string
			m        portmap.Mapping
			yes, not []string
		}{
			{"TCP", tcpPin, []string{"tcp 8080 0"}, []string{"tcp 8081 0", "udp 8080 0"}},
			{"UDP", udpPin, []string{"udp 8080 0"}, []string{"udp 8081 0", "tcp 8080 0"}},
			{"the remote host", pinFrom(tcpPin, lab.InternetAddr6, 0), []string{"tcp 8080 0"}, []string{"tcp 8081 0"}},
			{"another remote host", pinFrom(tcpPin, "2001:db8:ff::9", 0), nil, []string{"tcp 8080 0"}},
			{"a remote port", pinFrom(udpPin, "", 4002), []string{"udp 8080 4002"}, []string{"udp 8080 4003", "udp 8081 4002"}},
			{"MAP-13: a prefix", netPin("2001:db8:ff::/125", 0), []string{"udp 8080 4101"}, []string{"udp 8081 4101"}},
			{"MAP-13: another prefix", netPin("2001:db8:ff::8/125", 0), nil, []string{"udp 8080 4102"}},
			{"MAP-16: two ports", two, []string{"udp 8080 4103", "udp 8081 4103"}, []string{"tcp 8081 0"}},
			{"remote host and port", pinFrom(tcpPin, lab.InternetAddr6, 4004), []string{"tcp 8080 4004"}, []string{"tcp 8080 4005"}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				on(t, l, func() error { return f.Change(nil, &tt.m) })
				pass(t, l, true, tt.yes...)
				pass(t, l, false, tt.not...)
				opened := rules()
				on(t, l, func() error { return f.Change([]portmap.Mapping{tt.m}, &tt.m) })
				on(t, l, func() error { return f.Sync(homePin, []portmap.Mapping{tt.m}) })
				if got := rules(); got != opened {
					t.Errorf("renewed and synced:\n%s\nwant\n%s", got, opened)
				}
				on(t, l, func() error { return f.Change([]portmap.Mapping{tt.m}, nil) })
				pass(t, l, false, append(tt.not, "tcp 8080 0", "udp 8080 4006")...)
				if got := rules(); got != empty {
					t.Errorf("removed:\n%s\nwant\n%s", got, empty)
				}
			})
		}
		t.Run("side by side, several wildcards", func(t *testing.T) {
			pins := []portmap.Mapping{udpPin, pinFrom(udpPin, lab.InternetAddr6, 0), pinFrom(udpPin, "", 4007), pinFrom(udpPin, lab.InternetAddr6, 4007)}
			on(t, l, func() error { return f.Sync(homePin, append(pins, web)) })
			for i := range pins {
				pass(t, l, true, "udp 8080 4007")
				on(t, l, func() error { return f.Change(pins[i:i+1], nil) })
			}
			pass(t, l, false, "udp 8080 4008")
			on(t, l, func() error { return f.Change([]portmap.Mapping{web}, &udpPin) }) // both families at once
			pass(t, l, true, "udp 8080 4009")
		})
		t.Run("PIN-10: the prefix is gone", func(t *testing.T) {
			on(t, l, func() error { return f.Sync(home, []portmap.Mapping{udpPin, web}) })
			if got := rules(); got != empty {
				t.Errorf("got\n%s\nwant\n%s", got, empty)
			}
			on(t, l, func() error { return f.Sync(homePin, []portmap.Mapping{udpPin, web}) })
			pass(t, l, true, "udp 8080 4010")
		})
		on(t, l, f.Close)
		pass(t, l, false, "udp 8080 4011")
		if got := rules(); got != before {
			t.Errorf("after Close\n%s\nwant\n%s", got, before)
		}
	})
}

// TestPinholeCounters: each pinhole has its own number, which a renewal, a Sync
// and another run keep (SPEC PIN-7).
func TestPinholeCounters(t *testing.T) {
	variants6(t, func(t *testing.T, l *lab.Lab, o IPTablesOptions, _ func() string) {
		f, err := open(t, l, o)
		if err != nil {
			t.Fatal(err)
		}
		other := pinFrom(udpPin, "", 4001)
		all := []portmap.Mapping{web, udpPin, tcpPin}
		on(t, l, func() error { return f.Sync(homePin, []portmap.Mapping{web, udpPin}) })
		on(t, l, func() error { return f.Change(nil, &tcpPin) })
		want := map[portmap.Key]uint64{web.Key: 0, udpPin.Key: 0, tcpPin.Key: 0}
		check := func(what string) {
			t.Helper()
			var got map[portmap.Key]uint64
			on(t, l, func() (err error) { got, err = f.Packets(); return err })
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %v, want %v", what, got, want)
			}
		}
		check("new")
		pass(t, l, true, "udp 8080 0", "udp 8080 0", "udp 8080 4001")
		want[udpPin.Key] = 3
		check("three datagrams")
		on(t, l, func() error { return f.Change([]portmap.Mapping{udpPin}, &udpPin) })
		check("renewed")
		on(t, l, func() error { return f.Change(nil, &other) })
		want[other.Key] = 0
		on(t, l, func() error { return f.Sync(homePin, append(all, other)) })
		check("synced")
		on(t, l, func() error { return f.Change([]portmap.Mapping{other}, nil) })
		delete(want, other.Key)
		if f, err = open(t, l, o); err != nil {
			t.Fatal(err)
		}
		on(t, l, func() error { return f.Sync(homePin, all) })
		check("taken over")
		on(t, l, f.Close)
	})
}

// TestPinholesLost: somebody took away the jump or the chain. A change says so,
// Verify, too, and Sync puts it right.
func TestPinholesLost(t *testing.T) {
	variants6(t, func(t *testing.T, l *lab.Lab, o IPTablesOptions, rules func() string) {
		f, err := open(t, l, o)
		if err != nil {
			t.Fatal(err)
		}
		from := pinFrom(tcpPin, "2001:db8:ff:0:1:2:3:4", 7)
		all := []portmap.Mapping{web, from}
		on(t, l, func() error { return f.Sync(homePin, all) })
		on(t, l, func() error { return f.Change(nil, &tcpPin) })
		all = append(all, tcpPin)
		good := strings.Count(rules(), "\n")
		verify := func() (said string) {
			t.Helper()
			on(t, l, func() (err error) { said, err = f.Verify(); return err })
			return said
		}
		for _, tt := range []struct {
			script, want string
			refused      bool // a change is
		}{
			{"true", "", false},
			{"$ipt -D FORWARD -j UPNPD", "jump ip6 FORWARD -j UPNPD is missing", true},
			{"$ipt -D UPNPD -d 2001:db8:77::10 -p tcp --dport 8080 -j ACCEPT", "chain UPNPD of table ip6 filter lacks 1 of 2 rules", true},
			{"$ipt -F UPNPD", "chain UPNPD of table ip6 filter lacks 2 of 2 rules", true},
			{"$ipt -A UPNPD -p tcp -m comment --comment 'a \"b' -j RETURN", "chain UPNPD of table ip6 filter has 1 too many", false},
			{"$ipt -A UPNPD -d 2001:db8:77::10 -p tcp --dport 8080 -j ACCEPT", "chain UPNPD of table ip6 filter has 1 too many", false},
			{"$ipt -D FORWARD -j UPNPD; $ipt -F UPNPD; $ipt -X UPNPD", "chain UPNPD of table ip6 filter lacks 2 of 2 rules; jump ip6 FORWARD -j UPNPD is missing", true},
		} {
			t.Run(tt.script, func(t *testing.T) {
				l.Router.Run(t, "sh", "-c", "ipt="+strings.Replace(o.Location, "iptables", "ip6tables", 1)+"; "+tt.script)
				if said := verify(); said != tt.want {
					t.Errorf("said  %q\nwant %q", said, tt.want)
				}
				on(t, l, func() error {
					if err := f.Change([]portmap.Mapping{tcpPin}, &tcpPin); (err != nil) != tt.refused {
						t.Errorf("a renewal: %v", err)
					}
					if err := f.Change([]portmap.Mapping{web}, &web); err != nil { // the other family
						t.Error(err)
					}
					return f.Sync(homePin, all)
				})
				if said := verify(); said != "" || strings.Count(rules(), "\n") != good {
					t.Errorf("after Sync: %q\n%s", said, rules())
				}
				pass(t, l, true, "tcp 8080 0")
			})
		}
		on(t, l, f.Close)
	})
}

// TestPinholesTakenOver: a run that was killed is followed by one with other
// options. What is wanted stays reachable, also between start and Sync; what is
// not wanted goes.
func TestPinholesTakenOver(t *testing.T) {
	variants6(t, func(t *testing.T, l *lab.Lab, o IPTablesOptions, rules func() string) {
		six := strings.Replace(o.Location, "iptables", "ip6tables", 1)
		for _, program := range []string{o.Location, six} {
			l.Router.Run(t, program, "-N", "my_forward")
			l.Router.Run(t, program, "-A", "FORWARD", "-j", "my_forward")
		}
		before := rules()
		other, off, own := o, o, o
		other.ForwardChain, other.ForwardAppend = "my_forward", true
		off.IPv6, own.ForwardRules = false, false
		gone := pinFrom(tcpPin, "", 9)
		start := func(o IPTablesOptions, found int) *IPTables {
			t.Helper()
			f, err := open(t, l, o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.inForce.flows.Close() })
			if n := len(f.inForce.mapped); n != found {
				t.Errorf("took over %d mappings, want %d", n, found)
			}
			return f
		}
		f := start(o, 0)
		on(t, l, func() error { return f.Sync(homePin, []portmap.Mapping{web, udpPin, gone}) })
		f = start(other, 3)
		pass(t, l, true, "udp 8080 0")
		on(t, l, func() error { return f.Sync(homePin, []portmap.Mapping{web, udpPin}) })
		pass(t, l, true, "udp 8080 0")
		if got := rules(); strings.Contains(got, "-A FORWARD -j UPNPD\n") || !strings.Contains(got, "-A my_forward -j UPNPD\n") || strings.Contains(got, "--sport 9 ") {
			t.Errorf("with another chain:\n%s", got)
		}
		for _, without := range []IPTablesOptions{off, own} {
			f = start(without, 2)
			if got := rules(); got != before {
				t.Errorf("without rules for pinholes:\n%s\nwant\n%s", got, before)
			}
			pass(t, l, false, "udp 8080 0")
			on(t, l, func() error { return f.Sync(homePin, []portmap.Mapping{web, udpPin}) })
			on(t, l, func() error {
				if err := f.Change(nil, &tcpPin); (err == nil) != without.IPv6 || err != nil && !strings.Contains(err.Error(), "open a pinhole: IPv6 is off") {
					t.Errorf("opening one: %v", err)
				}
				return f.Change([]portmap.Mapping{udpPin, tcpPin}, nil)
			})
			if got := rules(); got != before {
				t.Errorf("without rules for pinholes:\n%s\nwant\n%s", got, before)
			}
			f = start(o, 1)
			on(t, l, func() error { return f.Sync(homePin, []portmap.Mapping{web, udpPin}) })
		}
		on(t, l, func() error { return RemoveChains(context.Background(), t.Logf) })
		if got := rules(); got != before {
			t.Errorf("after RemoveChains\n%s\nwant\n%s", got, before)
		}
	})
}

// TestPinholeConnectionsEnd: the system accepts what is established, so the
// connections of a pinhole end with it, however it ends (issue 6, point 4).
func TestPinholeConnectionsEnd(t *testing.T) {
	variants6(t, func(t *testing.T, l *lab.Lab, o IPTablesOptions, _ func() string) {
		const to = "[2001:db8:77::10]:8080"
		kept := pinTo(portmap.UDP, "2001:db8:77::10", 8081)
		off := o
		off.IPv6 = false
		p, q := newPeer(t, l.Internet, "[2001:db8:ff::1]:4001"), newPeer(t, l.Internet, "[2001:db8:ff::1]:4002")
		tracked, inward := newTracker(t, l), tuple{uint8(portmap.UDP), ap("[2001:db8:ff::1]:4001"), ap(to)}
		sync := func(f *IPTables, all ...portmap.Mapping) {
			t.Helper()
			on(t, l, func() error { return f.Sync(homePin, all) })
		}
		start := func(o IPTablesOptions) *IPTables {
			t.Helper()
			f, err := open(t, l, o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.inForce.flows.Close() })
			return f
		}
		ended := func(name string, end func(f *IPTables)) {
			t.Helper()
			f := start(o)
			sync(f, udpPin, kept)
			for range 3 {
				if p.ask(to) == "" || q.ask("[2001:db8:77::10]:8081") == "" {
					t.Fatalf("%s: the pinhole does not work before", name)
				}
				on(t, l, func() error { return f.Change([]portmap.Mapping{udpPin}, &udpPin) })
			}
			end(f)
			// A late answer would begin it anew, outward, so the peer is quiet until then.
			until(t, name+": the connection ends", func() bool { return !tracked.list()[inward] })
			if p.ask(to) != "" {
				t.Errorf("%s: the peer still gets through", name)
			}
		}
		ended("removed", func(f *IPTables) {
			on(t, l, func() error { return f.Change([]portmap.Mapping{udpPin}, nil) })
		})
		if q.ask("[2001:db8:77::10]:8081") == "" {
			t.Error("removed: another pinhole's connection ends, too")
		}
		ended("not in a Sync", func(f *IPTables) { sync(f, kept) })
		ended("PIN-10: no prefix", func(f *IPTables) {
			on(t, l, func() error { return f.Sync(home, []portmap.Mapping{udpPin, kept}) })
		})
		ended("a killed run's, not restored", func(*IPTables) { sync(start(o), kept) })
		ended("a killed run's, IPv6 is off now", func(*IPTables) { sync(start(off)) })
		ended("a killed run's, nftables now", func(*IPTables) {
			on(t, l, func() error { return RemoveChains(context.Background(), t.Logf) })
		})
		ended("stopped", func(f *IPTables) { on(t, l, f.Close) })
	})
}
