package portmap_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

type noKernel struct{}

func (noKernel) Change([]portmap.Mapping, *portmap.Mapping) error  { return nil }
func (noKernel) Sync(_ portmap.Network, _ []portmap.Mapping) error { return nil }
func (noKernel) SourcePort(*portmap.Mapping) (uint16, error)       { return 0, nil }
func (noKernel) Packets() (map[portmap.Key]uint64, error)          { return nil, nil }
func (noKernel) Verify() (string, error)                           { return "", nil }

// BenchmarkMapUnmap makes and ends one mapping in a table that has many: the
// table's own cost must not grow with their number.
func BenchmarkMapUnmap(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := policy()
			p.MaxMappings, p.MaxPerClient = 10000, 10000
			start := time.Now()
			table := portmap.New(portmap.Config{
				Firewall: noKernel{}, Policy: p,
				Now:   func() time.Duration { return time.Since(start) },
				InUse: func(portmap.Protocol, uint16) (bool, error) { return false, nil },
				Logf:  func(string, ...any) {},
			})
			table.SetNetwork(home)
			for i := range n {
				if _, err := table.Map(ask(netip.AddrFrom4([4]byte{10, 9, 1, byte(2 + i%200)}), uint16(10000+i))); err != nil {
					b.Fatal(err)
				}
			}
			req := ask(ann, 5000)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, err := table.Map(req); err != nil {
					b.Fatal(err)
				}
				if err := table.Unmap(req.Key, ann); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
