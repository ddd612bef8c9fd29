package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// client is one address on the LAN. What it has nobody else may touch, so its book
// depends on its own requests only, however many clients ask at the same time.
type client struct {
	book
	w     *world
	host  *lab.Host
	addr  netip.Addr
	rng   *rand.Rand
	web   *http.Client
	nonce [12]byte
	sids  []string // subscriptions
	at    string   // URL for events
}

// Ports. Those outside are the same for all, so that clients meet; those inside are
// served. NAT-PMP and PCP share some with UPnP.
const (
	outside, outsides = 30000, 32
	inside            = 8000
	upnpPorts         = 10         // from inside on
	pcpFirst, pcpLast = 8006, 8012 // and the three ports after, in PORT_SETs
	peerFirst         = 8016
	insides           = 20
)

func newClient(w *world, host *lab.Host, addr string, rng *rand.Rand) *client {
	c := &client{w: w, host: host, addr: netip.MustParseAddr(addr), rng: rng, book: book{held: map[key]lease{}}}
	copy(c.nonce[:], addr)
	c.web = &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(_ context.Context, _, to string) (net.Conn, error) { return c.dial("tcp", to) },
	}}
	for port := uint16(inside); port < inside+insides; port++ {
		if err := errors.Join(c.serveTCP(port), c.serveUDP(port)); err != nil {
			w.t.Fatal(err)
		}
	}
	c.listen()
	return c
}

// dial connects from the client's own address.
func (c *client) dial(network, to string) (conn net.Conn, err error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: c.addr.AsSlice()}}
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{IP: c.addr.AsSlice()}
	}
	err = c.host.Do(func() (err error) {
		conn, err = d.Dial(network, to)
		return err
	})
	return conn, err
}

// serveTCP and serveUDP say which port of which client was reached.
func (c *client) serveTCP(port uint16) error {
	l, err := c.host.ListenTCP(hostPort(c.addr.String(), port))
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, l.Addr().String())
			_ = conn.Close()
		}
	}()
	return nil
}

func (c *client) serveUDP(port uint16) error {
	conn, err := c.host.ListenUDP(hostPort(c.addr.String(), port))
	if err != nil {
		return err
	}
	go func() {
		for buf := make([]byte, 1); ; {
			_, peer, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = conn.WriteToUDPAddrPort([]byte(conn.LocalAddr().String()), peer)
			}
		}
	}()
	return nil
}

// action is something that a client does: it gives what came of it, and whether that
// was granted.
type action struct {
	weight   int
	protocol string
	name     string
	do       func(*client) (outcome string, granted bool)
}

// slow requests are told.
const slow = 2 * time.Second

// live makes n requests.
func (c *client) live(n int) {
	actions := actions4()
	if c.addr.Is6() {
		actions = actions6()
	}
	for range n {
		a := choose(c.rng, actions, func(a action) int { return a.weight })
		began := time.Now()
		outcome, granted := a.do(c)
		if took := time.Since(began); took > slow {
			c.w.t.Logf("%v took %v: %s %s", c.addr, took, a.name, outcome)
		}
		c.w.count(a.protocol, granted)
		c.w.tell(c.addr.String(), a.name+" "+outcome)
	}
}

// choose picks by weight.
func choose[T any](rng *rand.Rand, all []T, weight func(T) int) T {
	sum := 0
	for _, a := range all {
		sum += weight(a)
	}
	n := rng.IntN(sum)
	for _, a := range all {
		if n -= weight(a); n < 0 {
			return a
		}
	}
	panic("no weight")
}

func pick[T any](rng *rand.Rand, all ...T) T { return all[rng.IntN(len(all))] }

// wish is for how many seconds a client asks: mostly few.
func (c *client) wish() int {
	switch c.rng.IntN(6) {
	case 0, 1:
		return 1 + c.rng.IntN(10)
	case 2:
		return 11 + c.rng.IntN(50)
	case 3:
		return 604800
	}
	return 600 + c.rng.IntN(3000)
}

func (c *client) proto() string { return pick(c.rng, "TCP", "UDP") }

func (c *client) outside() uint16 { return outside + uint16(c.rng.IntN(outsides)) }

// text is a description, some of it odd.
func (c *client) text() string {
	return pick(c.rng, "", "a game", "a <b> & \"c\" 'd' ]]>", "ä ☃ \U0001F600", strings.Repeat("long ", 20), "-", " x  y ", "a\\nb")
}

// until gives the bounds of a lease of so many seconds, asked for at that time.
func until(asked time.Time, seconds uint32) (first, last time.Time) {
	d := time.Duration(seconds) * time.Second
	return asked.Add(d), time.Now().Add(d)
}

// together has all clients live at the same time.
func (w *world) together(n int, meanwhile func()) {
	var all sync.WaitGroup
	defer all.Wait() // also when the weather ends the test
	for _, c := range w.clients {
		all.Add(1)
		go func() {
			defer all.Done()
			c.live(n)
		}()
	}
	meanwhile()
}

func itoa[T int | uint16 | uint32](n T) string { return fmt.Sprint(n) }
