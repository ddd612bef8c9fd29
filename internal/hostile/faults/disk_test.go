package faults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// leaseDisk is where the lease file is; the directory is a file system of its own.
const leaseDisk = "/run/leases"

// disks are what may happen to a file system, and how that ends.
var disks = map[string]struct{ fault, end func(h *house) }{
	"full": {
		func(h *house) { h.sh("dd if=/dev/zero of=" + leaseDisk + "/filler bs=512 2>/dev/null || true") },
		func(h *house) { h.sh("rm " + leaseDisk + "/filler") },
	},
	"read-only": {
		func(h *house) { h.sh("mount -o remount,ro " + leaseDisk) },
		func(h *house) { h.sh("mount -o remount,rw " + leaseDisk) },
	},
	"gone, a file in its place": {
		func(h *house) { h.sh("umount " + leaseDisk + " && rmdir " + leaseDisk + " && : >" + leaseDisk) },
		func(h *house) { h.sh("rm " + leaseDisk) },
	},
	"no file may be made": {
		func(h *house) { h.sh("mkdir -p " + leaseDisk + "/leases.new/x") },
		func(h *house) { h.sh("rm -r " + leaseDisk + "/leases.new") },
	},
}

func (h *house) sh(script string) {
	h.t.Helper()
	h.Router.Run(h.t, "sh", "-c", script)
}

// TestLeaseDisk: without a place for the lease file clients are served. It is said
// once; the file is written again with the first change after the fault, and else
// within half a minute (internal/portmap's TestKeeperRetries); and nothing is lost by a
// crash then.
func TestLeaseDisk(t *testing.T) {
	t.Parallel()
	for name, disk := range disks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := enter(t, lab.Nftables, "lease_file = "+leaseDisk+"/leases")
			h.sh("mkdir " + leaseDisk + " && mount -t tmpfs -o size=16k none " + leaseDisk)
			h.begin("")
			h.baseline()
			h.keptAt(leaseDisk+"/leases", 3)
			disk.fault(h)
			h.Client(1).Delete("TCP", 19001)
			h.Client(1).Add("TCP", 18080, h.Served(), 0)
			if err := h.daemon.WaitLog("leases would not survive a restart: "); err != nil {
				t.Fatal(err)
			}
			for port := 18081; port < 18084; port++ { // more tries
				h.Client(1).Add("UDP", port, h.Served(), 0)
			}
			if !strings.Contains(h.ctl("status"), "lease") {
				t.Error("upnpctl status says nothing of it")
			}
			h.mended("a lease file that cannot be written")
			disk.end(h)
			h.Client(1).Delete("UDP", 18083)
			h.keptAt(leaseDisk+"/leases", 5)
			if err := h.daemon.WaitLog("leases survive a restart again"); err != nil {
				t.Fatal(err)
			}
			if n := h.logged("leases would not survive"); n != 1 {
				t.Errorf("said %d times", n)
			}
			if left, _ := filepath.Glob(h.file(leaseDisk) + "/*.new"); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			before := h.table()
			h.again()
			if after := h.table(); strings.Join(after, "\n") != strings.Join(before, "\n") || len(after) != 5 {
				t.Errorf("after a crash %q, before %q", after, before)
			}
			h.mended("a crash")
		})
	}
}

// TestLeaseDiskAtEnd: a daemon that is told to stop says what will be lost, and stops.
func TestLeaseDiskAtEnd(t *testing.T) {
	t.Parallel()
	h := enter(t, lab.Nftables, "lease_file = "+leaseDisk+"/leases")
	h.sh("mkdir " + leaseDisk + " && mount -t tmpfs -o size=16k none " + leaseDisk)
	h.begin("")
	h.baseline()
	h.keptAt(leaseDisk+"/leases", 3)
	h.sh("mount -o remount,ro " + leaseDisk)
	h.Client(1).Add("TCP", 18080, h.Served(), 0)
	h.daemon.Stop(t)
	if n := h.logged("leases would not survive a restart: "); n != 1 {
		t.Errorf("said %d times", n)
	}
	if text, err := os.ReadFile(h.file(leaseDisk) + "/leases"); err != nil || strings.Count(string(text), "\n") != 4 {
		t.Errorf("the old file is %q, %v", text, err)
	}
}
