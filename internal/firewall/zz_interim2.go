package firewall
import ("context";"net/netip";"github.com/linux-igd/upnpd/internal/portmap")
func LegacyForwardPath(ctx context.Context) (string, error) { return "", nil }
func Tracked(p portmap.Protocol, a, b netip.AddrPort) (bool, error) { return false, nil }
func (f *IPTables) ForwardPath() (string, error) { return "", nil }
