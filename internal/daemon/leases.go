package daemon

import "github.com/linux-igd/upnpd/internal/portmap"

// shownFaults is how many faults of a lease file are logged one by one.
const shownFaults = 12

// leaseFile is the one at the path, nil for none.
func (d *daemon) leaseFile(path string) *portmap.LeaseFile {
	if path == "" {
		return nil
	}
	return &portmap.LeaseFile{Path: path, BootID: d.sys.bootID(), Now: portmap.BootTime}
}

// restore puts the mappings of the last run back into the table. What is wrong
// with the file is logged and does not keep the daemon from its work.
func (d *daemon) restore() {
	file := d.leaseFile(d.cfg.LeaseFile)
	defer d.keeper.Use(file)
	if file == nil {
		return
	}
	all, faults, err := file.Read(d.cfg.Policy.MaxMappings)
	if err != nil {
		faults = append(faults, err)
	}
	faults = append(faults, d.table.Restore(all)...)
	for i, fault := range faults {
		if i == shownFaults {
			d.Log.Warnf("leases: %d more like these", len(faults)-i)
			break
		}
		d.Log.Warnf("leases: not restored: %v", fault)
	}
	if n := len(d.table.List()); n > 0 {
		d.Log.Infof("leases: mappings restored from %s: %d", file.Path, n)
	}
}
