package soak

import (
	"fmt"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// pinhole makes up a pinhole by UPnP, and its arguments.
func (c *client) pinhole() (l lease, seconds uint32, args []string) {
	port := inside + uint16(c.rng.IntN(upnpPorts))
	l = lease{key: key{c.proto(), port, pick(c.rng, "", "", lab.InternetAddr6, "2001:db8:ff::9"), pick[uint16](c.rng, 0, 0, 4000), c.addr.String()},
		internal: port, ports: 1, by: "UPnP", enabled: true}
	seconds = min(uint32(c.wish()), 86400)
	return l, seconds, []string{"RemoteHost", l.remote, "RemotePort", itoa(l.rport), "InternalClient", l.client, "InternalPort", itoa(port),
		"Protocol", map[string]string{"TCP": "6", "UDP": "17"}[l.proto], "LeaseTime", itoa(seconds)}
}

func (c *client) pin() (string, bool) {
	l, seconds, args := c.pinhole()
	asked := time.Now()
	out, code := c.call(pinning, "AddPinhole", args...)
	l.id = out["UniqueID"]
	if was, ok := c.held[l.key]; ok && code == 0 && was.left() > inexact && was.id != l.id && was.id != "" { // PIN-5; a new run has new ones
		c.w.fault("%v: the UniqueID of %v has become %s", c.addr, was, l.id)
	}
	if code == 0 {
		c.w.mu.Lock()
		c.w.pins[c] = l.id
		c.w.mu.Unlock()
	}
	return c.granted(l, asked, seconds, code)
}

// pinned gives a pinhole of the client by UPnP with a known UniqueID, or one of
// another client.
func (c *client) pinned() (l lease, mine bool) {
	port := inside + uint16(c.rng.IntN(upnpPorts))
	l, ok := c.own(func(l lease) bool { return l.id != "" && l.external >= port })
	if ok && c.rng.IntN(5) > 0 {
		return l, true
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for other, id := range c.w.pins {
		if other != c {
			return lease{id: id}, false
		}
	}
	return lease{id: "0"}, false
}

func (c *client) updatePin() (string, bool) {
	l, mine := c.pinned()
	seconds, asked := min(uint32(c.wish()), 86400), time.Now()
	_, code := c.call(pinning, "UpdatePinhole", "UniqueID", l.id, "NewLeaseTime", itoa(seconds))
	if code == 0 && !mine {
		c.w.fault("%v renewed another's pinhole %s", c.addr, l.id)
	}
	if code != 0 && code != actionFailed && mine {
		c.w.fault("%v: error %d for the renewal of %v", c.addr, code, l)
	}
	if code != 0 || !mine {
		return fmt.Sprintf("error %d: %s", code, l.id), false
	}
	return c.granted(l, asked, seconds, code)
}

func (c *client) unpin() (string, bool) {
	l, mine := c.pinned()
	_, code := c.call(pinning, "DeletePinhole", "UniqueID", l.id)
	if code == 0 && !mine {
		c.w.fault("%v deleted another's pinhole %s", c.addr, l.id)
	}
	if code == 0 {
		c.drop(l.key)
	}
	return fmt.Sprintf("error %d: %v", code, l), code == 0
}

// pinBadly asks for what nobody may have.
func (c *client) pinBadly() (string, bool) {
	_, _, args := c.pinhole()
	i := pick(c.rng, 5, 5, 7, 9, 11)
	args[i] = map[int]string{5: pick(c.rng, "", lab.RouterLANAddr6, "fe80::1", "::1", "2001:db8:77::99", lab.InternetAddr6, "192.168.77.10"),
		7: pick(c.rng, "0", "22", "65536"), 9: pick(c.rng, "1", "65535", "x"), 11: pick(c.rng, "0", "86401", "-1")}[i]
	_, code := c.call(pinning, "AddPinhole", args...)
	if code == 0 {
		c.w.fault("%v: AddPinhole is granted: %q", c.addr, args)
	}
	return fmt.Sprintf("error %d: %s %s", code, args[i-1], args[i]), false
}
