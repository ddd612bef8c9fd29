package faults

import (
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestFlushedTable: somebody deletes our rules as a whole, with nobody to notice but
// the watch over the kernel.
func TestFlushedTable(t *testing.T) {
	h := enter(t, lab.Nftables).begin("")
	h.Client(1).Add("TCP", 18080, h.Served(), 0)
	h.Router.Run(t, "nft", "delete", "table", "inet", "upnpd")
	h.mended("the table is deleted")
	h.alive()
}
