package faults

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// subscribe has LAN host 1 subscribe to the connection service, and counts its events.
func (h *house) subscribe() (events func() int) {
	h.t.Helper()
	l, err := h.LAN1.ListenTCP(h.LAN1.Addr.String() + ":7000")
	if err != nil {
		h.t.Fatal(err)
	}
	var n atomic.Int64
	go http.Serve(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { n.Add(1) })) // until the lab ends
	req, err := http.NewRequest("SUBSCRIBE", strings.Replace(h.Client(1).Control, "/control/", "/event/", 1), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header = http.Header{"CALLBACK": {"<http://" + l.Addr().String() + "/>"}, "NT": {"upnp:event"}, "TIMEOUT": {"Second-1800"}}
	r, err := h.Client(1).Web.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 200 {
		h.t.Fatalf("SUBSCRIBE: %s", r.Status)
	}
	return func() int { return int(n.Load()) }
}

// hears has LAN host 2 listen to announcements, and counts them.
func (h *house) hears() (announcements func() int) {
	h.t.Helper()
	var c *net.UDPConn
	err := h.LAN2.Do(func() error {
		dev, err := net.InterfaceByName(lab.HostDev)
		if err == nil {
			c, err = net.ListenMulticastUDP("udp4", dev, &net.UDPAddr{IP: net.IPv4(239, 255, 255, 250), Port: 1900})
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	var n atomic.Int64
	go func() {
		buf := make([]byte, 1500)
		for {
			k, err := c.Read(buf)
			if err != nil {
				return
			}
			if strings.HasPrefix(string(buf[:k]), "NOTIFY ") {
				n.Add(1)
			}
		}
	}()
	return func() int { return int(n.Load()) }
}

// found sends a search to the router, and tells whether it is answered soon.
func (h *house) found() bool {
	c, err := h.LAN2.Dial("udp4", lab.RouterLANAddr+":1900", time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	fmt.Fprint(c, "M-SEARCH * HTTP/1.1\r\nHOST: "+lab.RouterLANAddr+":1900\r\nMAN: \"ssdp:discover\"\r\nST: upnp:rootdevice\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(time.Second))
	n, _ := c.Read(make([]byte, 1500))
	return n > 0
}
