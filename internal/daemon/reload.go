package daemon

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/config"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/wan"
)

// successor is what the next generation begins with.
type successor struct {
	cfg     *config.Config
	devices follower
}

// reload reads the configuration again and makes the kernel equal to the table.
// What concerns only the policy is applied at once; if more has changed, reload
// gives a successor and the generation must end. A configuration that does not
// work is refused, and the old one stays. known is the uplink as it is now.
func (d *daemon) reload(known wan.Uplink) *successor {
	d.table.Sync()
	next, warnings, err := d.Load()
	if err == nil && (next.User != d.cfg.User || next.Sandbox != d.cfg.Sandbox) {
		err = errors.New("another user or sandbox needs a restart")
	}
	if err != nil {
		d.refuse(err)
		return nil
	}
	for _, w := range warnings {
		d.Log.Warnf("%s", w)
	}
	s := &successor{cfg: next}
	if !sameServices(d.cfg, next) {
		if s.devices, err = d.prepare(next, known); err != nil {
			d.refuse(err)
			return nil
		}
	}
	d.closePinholes(next)
	if err := d.replaceFirewall(next); err != nil {
		d.refuse(err)
		if s.devices != nil {
			s.devices.Close()
		}
		return nil
	}
	d.Log.SetLevel(next.LogLevel)
	d.table.SetPolicy(next.Policy)
	d.replaceFiles(next)
	d.Log.Infof("configuration read again; mappings kept: %d", len(d.table.List()))
	if s.devices == nil {
		d.cfg = next
		return nil
	}
	return s
}

// prepare makes sure that next can be served before the present generation
// ends, and gives it its devices.
func (d *daemon) prepare(next *config.Config, known wan.Uplink) (follower, error) {
	if next.ExtIf != known.Name {
		known = wan.Uplink{Name: next.ExtIf}
	}
	if next.Port != d.cfg.Port && next.Port != 0 && next.Port != d.httpPort {
		for _, dev := range next.IntIfs {
			if err := d.sys.portFree(dev, next.Port); err != nil {
				return nil, fmt.Errorf("port = %d: %w", next.Port, err)
			}
		}
	}
	return d.follow(next, known)
}

func (d *daemon) refuse(err error) {
	d.Log.Errorf("reload: %v; the old configuration stays", err)
}

// replaceFirewall changes to the firewall of next when its options differ. One
// that cannot work leaves the present one as it is.
func (d *daemon) replaceFirewall(next *config.Config) error {
	if sameFirewall(d.cfg, next) {
		return nil
	}
	fw, name, err := d.sys.firewall(d.ctx, next, d.Log)
	if errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%w (in its sandbox it starts no programs; a restart helps)", err)
	}
	if err != nil {
		return err
	}
	d.unguard()
	d.fwName = name
	d.table.ReplaceFirewall(func() portmap.Firewall {
		if err := errors.Join(d.fw.Close(), fw.Start()); err != nil {
			d.Log.Warnf("firewall: %v", err)
		}
		d.fw = fw
		return fw
	})
	d.guard()
	return nil
}

// closePinholes ends all of them where cfg has ipv6 = no.
func (d *daemon) closePinholes(cfg *config.Config) {
	if cfg.IPv6 {
		return
	}
	if _, err := d.table.Revoke(func(m *portmap.Mapping) bool { return m.Pinhole.IsValid() }, "ipv6 = no"); err != nil {
		d.Log.Warnf("ipv6 = no: %v", err)
	}
}

// replaceFiles changes to the lease file and the control socket of next.
func (d *daemon) replaceFiles(next *config.Config) {
	if next.LeaseFile != d.cfg.LeaseFile {
		d.keeper.Use(d.leaseFile(next.LeaseFile))
	}
	if next.ControlSocket != d.cfg.ControlSocket {
		d.control(next.ControlSocket)
	}
}

func sameFirewall(a, b *config.Config) bool {
	return a.Firewall == b.Firewall && a.IPTables == b.IPTables && a.ExtIf == b.ExtIf && a.IPv6 == b.IPv6
}

// sameServices reports whether two configurations differ at most in what
// reload applies by itself. Everything else has a text of its own.
func sameServices(a, b *config.Config) bool {
	if a.Policy.MinLease != b.Policy.MinLease || a.Policy.MaxLease != b.Policy.MaxLease { // PCP has them, too
		return false
	}
	x, y := *a, *b
	for _, c := range []*config.Config{&x, &y} {
		c.Policy, c.IPTables, c.Firewall = portmap.Policy{}, config.IPTables{}, ""
		c.LogLevel, c.LeaseFile, c.ControlSocket, c.Path, c.Places = 0, "", "", "", nil
		c.PresentationURL = nil // a pointer
	}
	return page(a) == page(b) && fmt.Sprintf("%+v", x) == fmt.Sprintf("%+v", y)
}
