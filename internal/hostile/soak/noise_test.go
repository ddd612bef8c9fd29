package soak

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// listen takes events.
func (c *client) listen() {
	l, err := c.host.ListenTCP(netip.AddrPortFrom(c.addr, 0).String())
	if err != nil {
		c.w.t.Fatal(err)
	}
	c.at = "http://" + l.Addr().String() + "/"
	go http.Serve(l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		c.w.count("event", true)
	}))
}

// mostSubscriptions a client keeps, fewer than it may.
const mostSubscriptions = 4

func (c *client) subscribe() (string, bool) {
	s, fields := c.w.faces[pick(c.rng, old, young)], []string{"NT", "upnp:event", "CALLBACK", "<" + c.at + ">", "TIMEOUT", "Second-" + itoa(c.rng.IntN(4000))}
	switch n := len(c.sids); {
	case n > 0 && (n >= mostSubscriptions || c.rng.IntN(3) == 0):
		fields = []string{"SID", pick(c.rng, c.sids...)} // renewed, perhaps at another service
	case c.rng.IntN(4) == 0:
		fields[3] = pick(c.rng, "<http://11.0.0.1:80/>", "<http://127.0.0.1:80/>", "<http://"+lab.RouterLANAddr+":80/>", "nothing", "<https"+c.at[4:]+">")
	}
	r, _, err := c.http("SUBSCRIBE", s.event, nil, fields...)
	if err != nil {
		c.w.fault("%v: SUBSCRIBE: %v", c.addr, err)
		return "", false
	}
	sid := r.Header.Get("SID")
	if r.StatusCode == 200 && len(fields) > 2 {
		if c.sids = append(c.sids, sid); !strings.HasPrefix(fields[3], "<"+c.at) {
			c.w.fault("%v: SUBSCRIBE: %q is granted", c.addr, fields)
		}
	}
	return r.Status + " " + sid, r.StatusCode == 200
}

func (c *client) unsubscribe() (string, bool) {
	sid := "uuid:nobody"
	if n := len(c.sids); n > 0 {
		sid, c.sids = c.sids[0], c.sids[1:]
	}
	r, _, err := c.http("UNSUBSCRIBE", c.w.faces[old].event, nil, "SID", sid)
	if err != nil {
		c.w.fault("%v: UNSUBSCRIBE: %v", c.addr, err)
		return "", false
	}
	return r.Status, r.StatusCode == 200
}

// search gives the answer to a search by unicast, "" for none.
func (c *client) search(target string, patience time.Duration) string {
	conn, err := c.dial("udp", router(c)+":1900")
	if err != nil {
		c.w.fault("%v: %v", c.addr, err)
		return ""
	}
	defer conn.Close()
	answer := make([]byte, 1500)
	fmt.Fprintf(conn, "M-SEARCH * HTTP/1.1\r\nHOST: %s:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: %s\r\n\r\n", router(c), target)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	n, _ := conn.Read(answer)
	return string(answer[:n])
}

// seek searches. Answers are limited, so none is no fault.
func (c *client) seek() (string, bool) {
	target := pick(c.rng, "ssdp:all", "upnp:rootdevice", "urn:schemas-upnp-org:service:WANIPConnection:2", "urn:schemas-upnp-org:device:InternetGatewayDevice:1", "uuid:nobody")
	answer := c.search(target, 100*time.Millisecond)
	if answer != "" && !strings.HasPrefix(answer, "HTTP/1.1 200 OK\r\n") {
		c.w.fault("%v: a search is answered by %q", c.addr, answer)
	}
	return target, answer != ""
}

// junk are bytes of which some make sense.
func (c *client) junk() []byte {
	b := make([]byte, c.rng.IntN(1300))
	for i := range b {
		b[i] = byte(c.rng.Uint32())
	}
	copy(b, pick(c.rng, "", "M-SEARCH * HTTP/1.1\r\n", "\x00\x01", "\x02\x01\x00\x00", "\x01\x01", "POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"))
	return b
}

func (c *client) garbageUDP() (string, bool) {
	port := pick(c.rng, "1900", "5351")
	conn, err := c.dial("udp", router(c)+":"+port)
	if err != nil {
		return err.Error(), false
	}
	defer conn.Close()
	b := c.junk()
	if len(b) > 3 && b[0] == 0 && b[1] == 1 { // no request by chance
		b = b[:2]
	}
	_, err = conn.Write(b)
	return fmt.Sprintf("to %s: %.8x", port, b), err == nil
}

// garbageTCP also closes in the middle, or stays for a while.
func (c *client) garbageTCP() (string, bool) {
	at := c.w.faces[old].control
	conn, err := c.dial("tcp", router(c)+at[:strings.Index(at, "/")])
	if err != nil {
		return err.Error(), false
	}
	b := c.junk()
	_, err = conn.Write(b)
	if c.rng.IntN(4) == 0 {
		time.AfterFunc(time.Second, func() { conn.Close() })
	} else {
		conn.Close()
	}
	return fmt.Sprintf("%.8x", b), err == nil
}
