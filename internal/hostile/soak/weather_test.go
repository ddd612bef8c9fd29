package soak

import (
	"strings"
	"syscall"

	"github.com/linux-igd/upnpd/internal/lab"
)

// weather is what happens to the router.
type weather struct {
	weight int
	name   string
	do     func(*world)
}

// winds blow while clients ask.
func winds() []weather {
	return []weather{
		{4, "calm", func(*world) {}},
		{3, "flush", (*world).flushRules},
		{3, "rules", (*world).changeRules},
		{2, "HUP", func(w *world) { w.reload("configuration read again") }},
		{2, "address", (*world).changeAddress},
		{2, "blink", func(w *world) { a := w.wan; w.setWAN(""); w.setWAN(a) }},
	}
}

// storms come when clients have just been answered. Only at times: starting starts a
// new process, whose memory is another one.
func storms(starting bool) []weather {
	all := []weather{
		{9, "", func(*world) {}},
		{1, "flush", (*world).flushRules},
		{1, "USR1", (*world).flushAll},
		{1, "ctl delete", (*world).evict},
		{1, "services", (*world).changeServices},
		{1, "no uplink", func(w *world) { w.setWAN("") }},
	}
	if starting {
		all = append(all, weather{3, "kill -9", (*world).crash}, weather{1, "restart", (*world).restart}, weather{1, "upgrade", (*world).upgrade})
	}
	return all
}

// blow makes some weather, and gives its name.
func (w *world) blow(all []weather) string {
	now := choose(w.rng, all, func(a weather) int { return a.weight })
	if now.name != "" {
		w.tell("weather", now.name)
	}
	now.do(w)
	return now.name
}

// flushRules takes rules of ours away. The nftables are put back at once, the
// iptables by the HUP that follows in quiet.
func (w *world) flushRules() {
	commands := []string{"nft delete table inet upnpd", "nft flush table inet upnpd", "nft flush map inet upnpd dnat4", "nft flush set inet upnpd pin6", "nft flush chain inet upnpd prerouting"}
	if w.firewall != lab.Nftables {
		six := strings.Replace(w.firewall, "ip", "ip6", 1)
		commands = []string{w.firewall + " -w -t nat -F UPNPD", w.firewall + " -w -t nat -F PREROUTING", w.firewall + " -w -F UPNPD", six + " -w -F UPNPD", w.firewall + " -w -t nat -F UPNPD-POST"}
	}
	command := pick(w.rng, commands...)
	words := strings.Fields(command)
	w.tell("weather", command)
	w.Router.Run(w.t, words[0], words[1:]...)
	w.flushed = true
}

// mend has the daemon put the iptables right, as the README says: at once.
func (w *world) mend() {
	if w.flushed && w.firewall != lab.Nftables {
		w.reload("configuration read again")
		for _, said := range w.check() {
			w.fault("after HUP: %s", said)
		}
	}
	w.flushed = false
}

// changeRules is what a reload applies at once.
func (w *world) changeRules() {
	w.conf.deny = w.rng.IntN(2) == 0
	w.conf.quota = pick(w.rng, 0, 0, 8)
	w.reload("configuration read again")
}

// changeServices ends all services, and begins new ones.
func (w *world) changeServices() {
	w.conf.name++
	w.conf.minLease = pick(w.rng, 1, 2, 30)
	w.reload("Advertisements Sent")
	for _, c := range w.clients {
		c.sids = nil
	}
	w.discover()
	w.gauge.moved()
}

func (w *world) changeAddress() { w.setWAN(pick(w.rng, lab.WANAddr, "11.0.0.77", "11.0.0.88")) }

// setWAN gives the uplink another address, or none.
func (w *world) setWAN(addr string) {
	w.wan = addr
	w.Router.Run(w.t, "ip", "-4", "addr", "flush", "dev", lab.WANDev)
	if addr != "" {
		w.Router.Run(w.t, "ip", "addr", "add", addr+"/24", "dev", lab.WANDev)
		w.Router.Run(w.t, "ip", "route", "replace", "default", "via", lab.InternetAddr)
	}
}

// everybody drops what is picked from all books.
func (w *world) everybody(which func(lease) bool) {
	for _, c := range w.clients {
		c.dropAll(which)
	}
}

func (w *world) flushAll() {
	n := strings.Count(w.daemon.Log(), "Flush: ")
	if err := w.daemon.Signal(syscall.SIGUSR1); err != nil {
		w.fault("USR1: %v", err)
	}
	w.until("USR1 flushes", func() bool { return strings.Count(w.daemon.Log(), "Flush: ") > n })
	w.everybody(func(lease) bool { return true })
}

// evict is the administrator, who ends all that one client has.
func (w *world) evict() {
	c := pick(w.rng, w.clients...)
	w.ctl("delete", c.addr.String())
	c.dropAll(func(lease) bool { return true })
}

// crash kills the daemon, and starts it again.
func (w *world) crash() {
	for _, c := range w.clients {
		c.book.crash()
	}
	w.stop(true)
	w.start()
}

func (w *world) restart() {
	w.stop(false)
	w.start()
}

// upgrade hands the kernel over to the next run.
func (w *world) upgrade() {
	if err := w.daemon.Signal(syscall.SIGUSR2); err != nil {
		w.fault("USR2: %v", err)
	}
	<-w.daemon.Ended()
	w.stop(false)
	w.start()
}
