package wan

import (
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// A guest takes the link-local address of a host on another LAN: it is not that host
// (SPEC PIN-9).
func TestSameHostOfAnotherLAN(t *testing.T) {
	h, _ := followHome6(t)
	h.router("link add guest0 type veth peer name guest1", "link set guest1 up", "link set guest0 up", "addr add fe80::78/64 nodad dev guest0")
	words := strings.Fields(h.LAN1.Run(t, "ip", "-6", "-o", "addr", "show", "scope", "link", "dev", lab.HostDev))
	if len(words) < 4 {
		t.Fatalf("no link-local address: %q", words)
	}
	local, _, _ := strings.Cut(words[3], "/")
	if err := h.Router.Do(func() (err error) {
		_ = h.f.Close()
		h.f, err = Follow(Uplink{Name: lab.WANDev}, []string{lab.LANDev, "guest0"}, new(bootClock).now, t.Logf)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if !h.same(local+"%"+lab.LANDev, gua1) {
		t.Error("the host itself, by its link-local address: not the same host")
	}
	for _, from := range []string{local + "%guest0", local, "fe80::79%guest0"} {
		if h.same(from, gua1) {
			t.Errorf("%s and %s are not one host's: %+v", from, gua1, h.neighbors())
		}
	}
}
