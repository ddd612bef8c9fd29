// Package internal holds the rooms of upnpd and, in this page, what must not
// drift: who knows whom, and the way of a request.
//
//	cmd/upnpd   flags, then daemon.Run; background and foreground
//	daemon      starts, reloads and stops everything; nothing else knows the whole
//	config      flags and upnpd.conf -> one validated Config
//	igd         device tree, descriptions, the action tables, error -> UPnP code
//	ssdp        discovery: announce, answer searches, say goodbye
//	portmap     the owner of the mappings: policy, conflicts, quotas, leases
//	firewall    mappings -> kernel
//	wan         follows the uplink and every served LAN over rtnetlink
//	httpmsg     the HTTP/1.1 subset that UPnP needs, over TCP and UDP
//	soap        the hand-rolled SOAP reader and writer
//	sock        raw unix sockets, bound to a LAN device
//	lab         a home network in namespaces, for tests and the demo
//
// The way of AddPortMapping, from socket to kernel:
//
//	sock.Listener.Accept        a connection on a LAN device
//	httpmsg.Server              one bounded request, from an on-link host
//	igd.Server.Handle           the control URL; soap.ParseCall; typed arguments
//	portmap.Table.Map           policy, conflict, quota, lease
//	firewall.NFTables.Change    one kernel transaction (or IPTables.Change);
//	                            then the record is made
//
// arrows_test.go holds the imports that are allowed. Strings from the network
// end in igd: below it there are only typed values.
//
// # Decisions of this code
//
//   - With iptables, too, our connections carry the mark 0x10000000: it is set
//     before the chain of mappings and taken away behind it. The one static rule
//     in the filter table accepts the mark; `-i EXTIF --ctstate DNAT` would let
//     the administrator's own redirects past his forward chain.
//   - The router's own ports are asked of sock_diag, which filters by port in
//     the kernel: 0.1 ms instead of 7 ms for /proc/net/tcp and tcp6 on a machine
//     with a large table of connections. Where there is no inet_diag, as in
//     OpenWrt's default kernel, /proc/net is read.
//   - One processor at a time (GOMAXPROCS 1): nothing in the daemon is parallel,
//     and waking other threads cost half of the processor time of a read.
//   - The messages of nf_tables are written and read by hand, through
//     mdlayher/socket and mdlayher/netlink: google/nftables links every expression
//     that the kernel knows, 258 kB raw and 47 kB packed on mipsle. Only the last
//     message of a transaction asks for an answer; a mapping takes half the time
//     (75 instead of 182 us), and all ports may come or go at once. Lab programs
//     still use the library.
//   - An element that is written anew (a renewal, a Sync) begins with the count
//     of the one it replaces, so the kernel keeps the packets of a mapping, and a
//     run that takes over the table finds them there.
//   - wan has two rtnetlink sockets: replies to requests and events of groups
//     cannot be told apart safely on one. Every event means "read again".
//   - eventSubURL is empty until the daemon sends events.
//   - Release binaries are built without inlining and by the toolchain of
//     go.mod: mipsle with nftables has 3.85 MB raw and 0.9 MB packed, against
//     4.19 and 1.04 by plain Go 1.26. DESIGN.md's budgets leave no room for
//     more; go-iptables alone costs 0.33 MB raw for the regexp in it.
//   - The go line is 1.23.0, that of mdlayher/netlink v1.8.0, so that OpenWrt
//     24.10 can build it; the toolchain line names the Go that the tests need
//     (testing/synctest).
package internal
