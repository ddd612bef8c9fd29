package load

import (
	"net/netip"
	"testing"
	"time"
)

// TestManySources: one host forges the source of what it asks, addresses of the LAN that
// nobody has. Others get their share of the answers (SSDP-51, PCP-10), and no answer
// waits for those that the kernel cannot send: that took 100 requests a second.
func TestManySources(t *testing.T) {
	t.Parallel()
	h := enter(t)
	for _, tt := range []struct {
		name     string
		port     uint16
		question string
		every    time.Duration
		tries    int // for two answers
	}{
		{"some requests for NAT-PMP", pcpPort, "\x00\x00", 5 * time.Millisecond, 3},
		{"many requests for NAT-PMP", pcpPort, "\x00\x00", 200 * time.Microsecond, 40},
		{"some searches", ssdpPort, search("ssdp:all"), 25 * time.Millisecond, 3},
		{"many searches", ssdpPort, search("upnp:rootdevice"), 200 * time.Microsecond, 40},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forge, to := h.forger(t), netip.AddrPortFrom(h.Router.Addr, tt.port)
			done, over, stop := make(chan error), make(chan struct{}), make(chan struct{})
			go func() {
				begun := time.Now()
				for i := 0; ; i++ {
					if time.Sleep(time.Until(begun.Add(time.Duration(i) * tt.every))); i == int(2*time.Second/tt.every) {
						close(over) // the kernel looks for the first of them for 3 s
					}
					from := netip.AddrFrom4([4]byte{192, 168, 77, byte(50 + i%50)})
					err := forge(udp(netip.AddrPortFrom(from, 40000), to, []byte(tt.question)))
					select {
					case <-stop:
						done <- err
						return
					default:
					}
				}
			}()
			<-over
			if tries := h.meanwhile(t, h.LAN2.Addr, tt.port, tt.question, 2)(); tries > tt.tries {
				t.Errorf("2 answers for %d tries, want %d at most", tries, tt.tries)
			}
			close(stop)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
