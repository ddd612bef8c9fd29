package daemon

import (
	"fmt"
	"reflect"

	"github.com/linux-igd/upnpd/internal/config"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// successor is what the next generation begins with.
type successor struct {
	cfg      *config.Config
	follower uplink
}

// reload reads the configuration again and makes the kernel equal to the table.
// What concerns only the policy is applied at once; if more has changed, reload
// gives a successor and the generation must end. A configuration that does not
// work is refused, and the old one stays. An error ends the daemon.
func (d *daemon) reload() (*successor, error) {
	d.table.Sync()
	next, warnings, err := d.Load()
	if err != nil {
		d.refuse(err)
		return nil, nil
	}
	for _, w := range warnings {
		d.Log.Warnf("%s", w)
	}
	s := &successor{cfg: next}
	if !sameServices(d.cfg, next) {
		if s.follower, err = d.follow(next); err != nil {
			d.refuse(err)
			return nil, nil
		}
	}
	if ok, err := d.replaceFirewall(next); !ok || err != nil {
		if s.follower != nil {
			s.follower.Close()
		}
		return nil, err
	}
	d.Log.SetLevel(next.LogLevel)
	d.table.SetPolicy(next.Policy)
	d.Log.Infof("configuration read again; mappings kept: %d", d.table.Len())
	if s.follower == nil {
		d.cfg = next
		return nil, nil
	}
	return s, nil
}

func (d *daemon) refuse(err error) {
	d.Log.Errorf("reload: %v; the old configuration stays", err)
}

// replaceFirewall changes to the firewall of next when its options differ. If
// that one cannot be had, the old one comes back (false), or the daemon cannot
// go on (error).
func (d *daemon) replaceFirewall(next *config.Config) (bool, error) {
	if sameFirewall(d.cfg, next) {
		return true, nil
	}
	if err := d.fw.Close(); err != nil {
		d.Log.Warnf("firewall: %v", err)
	}
	fw, err := d.sys.firewall(next, d.Log)
	ok := err == nil
	if !ok {
		d.refuse(err)
		if fw, err = d.sys.firewall(d.cfg, d.Log); err != nil {
			return false, fmt.Errorf("put the old firewall back: %w", err)
		}
	}
	d.fw = fw
	d.table.SetFirewall(fw)
	return ok, nil
}

func sameFirewall(a, b *config.Config) bool {
	return a.Firewall == b.Firewall && a.IPTables == b.IPTables && a.ExtIf == b.ExtIf
}

// sameServices reports whether two configurations differ at most in what
// reload applies by itself.
func sameServices(a, b *config.Config) bool {
	x, y := *a, *b
	for _, c := range []*config.Config{&x, &y} {
		c.Policy, c.IPTables, c.Firewall = portmap.Policy{}, config.IPTables{}, ""
		c.LogLevel, c.LeaseFile, c.Path = 0, "", ""
	}
	return reflect.DeepEqual(x, y)
}
