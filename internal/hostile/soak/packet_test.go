package soak

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// How many ports packets try at a quiet point.
const someOpen, someClosed = 8, 8

// silence is for how long a packet must not be answered.
const silence = 250 * time.Millisecond

// sure is for how long a port must be as it is, to be tried: longer than all tries,
// of which those from one port wait for each other.
const sure = 3 * patience

// packets sends some from the internet to ports that are open, to some that were,
// and to some that never are. It gives what is wrong.
func (w *world) packets(table map[key]lease) (said []string) {
	var all []lease
	for _, l := range table {
		if l.left() > sure {
			all = append(all, l)
		}
	}
	w.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var mu sync.Mutex
	var running sync.WaitGroup
	try := func(proto string, external uint16, client string, ports ...uint16) {
		to := hostPort(w.wan, external)
		if strings.Contains(client, ":") {
			to = hostPort(client, external)
		} else if w.wan == "" {
			to = hostPort(lab.WANAddr, external)
		}
		for _, from := range ports {
			all, left := w.leads(table, proto, external, from, client)
			if left < sure {
				continue
			}
			if from == 0 { // a new connection
				all = all[:1]
			}
			running.Add(1)
			go func() {
				defer running.Done()
				got := w.reach(strings.ToLower(proto), from, to, all)
				mu.Lock()
				defer mu.Unlock()
				if !slices.Contains(all, got) {
					said = append(said, fmt.Sprintf("%s from port %d to %s reaches %q, should reach %q", proto, from, to, got, all))
				} else if from != 0 && got != "" {
					w.knocked = append(w.knocked, key{proto: proto, external: external, client: client})
				}
			}()
		}
	}
	knocked := w.knocked[max(0, len(w.knocked)-20):] // from the same port again: connections end with their mapping
	w.knocked = nil
	for _, k := range knocked {
		try(k.proto, k.external, k.client, 4000)
	}
	for _, l := range all[:min(len(all), someOpen)] {
		try(l.proto, l.external+uint16(w.rng.IntN(int(l.ports))), l.client, 0, 4000)
	}
	for range someClosed {
		c := pick(w.rng, w.clients...)
		k := key{proto: pick(w.rng, "TCP", "UDP"), external: uint16(1024 + w.rng.IntN(64000)), client: c.addr.String()}
		if c.addr.Is6() {
			k.external = inside + uint16(w.rng.IntN(insides))
		}
		if n := len(c.ended); n > 0 && w.rng.IntN(4) > 0 {
			k = c.ended[w.rng.IntN(n)]
		}
		try(k.proto, k.external, k.client, pick[uint16](w.rng, 0, 0, 4000))
	}
	running.Wait()
	return said
}

// leads says where a packet from the internet host's port must get, "" for nowhere,
// and how long that is so: the special comes before the general. A connection that is
// there already may go on where the general has led it.
func (w *world) leads(table map[key]lease, proto string, external, from uint16, client string) (to []string, left time.Duration) {
	six := strings.Contains(client, ":")
	left = time.Hour
	if !six && w.wan == "" {
		return []string{""}, left
	}
	peer, best := netip.MustParseAddr(lab.InternetAddr), -1
	if six {
		peer = netip.MustParseAddr(lab.InternetAddr6)
	}
	for _, l := range table {
		mine := l.client == client || !six && !strings.Contains(l.client, ":")
		if !mine || !l.enabled || l.proto != proto || external < l.external || external >= l.external+l.ports || l.rport != 0 && l.rport != from {
			continue
		}
		bits := 0
		if p, err := netip.ParsePrefix(l.remote); err == nil && p.Contains(peer) {
			bits = p.Bits()
		} else if l.remote == peer.String() {
			bits = peer.BitLen()
		} else if l.remote != "" {
			continue
		}
		left = min(left, l.left())
		at := hostPort(l.client, l.internal+external-l.external)
		if bits > best {
			best, to = bits, slices.Insert(to, 0, at)
		} else {
			to = append(to, at)
		}
	}
	if to == nil {
		to = []string{""}
	}
	return to, left
}

// reach gives what answers, "" for nothing. It waits for what is wanted: connections
// end a little after their mapping, and much later on a slow machine.
func (w *world) reach(network string, from uint16, to string, want []string) (got string) {
	if from != 0 { // one at a time
		w.sending.Lock()
		defer w.sending.Unlock()
	}
	began := time.Now()
	for {
		got = w.send(network, from, to, want[0] != "")
		took, right := time.Since(began), slices.Contains(want, got)
		if right && took > slow {
			w.t.Logf("%s from port %d to %s reaches %q after %v", network, from, to, got, took)
		}
		if right || took > patience {
			return got
		}
		time.Sleep(silence)
	}
}

// send tries once.
func (w *world) send(network string, from uint16, to string, answered bool) (got string) {
	timeout := silence
	if answered {
		timeout = patience / 5
	}
	_ = w.Internet.Do(func() error {
		d := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{Port: int(from)}, Control: reuse}
		if network == "udp" {
			d.LocalAddr = &net.UDPAddr{Port: int(from)}
		}
		conn, err := d.Dial(network, to)
		if err != nil {
			return err
		}
		defer conn.Close()
		if network == "udp" {
			_, _ = conn.Write([]byte{0})
		}
		_ = conn.SetReadDeadline(time.Now().Add(timeout))
		answer := make([]byte, 100)
		n, err := conn.Read(answer)
		got = string(answer[:n])
		return err
	})
	return got
}

// reuse lets a port be used that was just used.
func reuse(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	})
	return errors.Join(err, failed)
}
