// Package internal holds the rooms of upnpd and, in this page, what must not
// drift: who knows whom, and the way of a request.
//
//	cmd/upnpd   flags, then daemon.Run; background and foreground
//	daemon      starts, reloads and stops everything; nothing else knows the whole
//	config      flags and upnpd.conf -> one validated Config
//	igd         device tree, descriptions, the action tables, error -> UPnP code
//	pcp         NAT-PMP and PCP on one socket
//	gena        event subscriptions, and the events
//	ssdp        discovery: announce, answer searches, say goodbye
//	ctl         the control socket and its client, upnpctl
//	portmap     the owner of the mappings: policy, conflicts, quotas, leases,
//	            and the file that keeps them
//	firewall    mappings -> kernel
//	wan         follows the uplink and every served LAN over rtnetlink;
//	            neighbours, routes
//	httpmsg     the HTTP/1.1 subset that UPnP needs, over TCP and UDP
//	soap        the hand-rolled SOAP reader and writer
//	sock        raw unix sockets, bound to a LAN device; probes of check
//	lab         a home network in namespaces, for tests and the demo; lab/vm has
//	            a router of 32-bit MIPS with the OpenWrt package in it
//	clients     tests with the control points that people have
//	hostile     tests with everybody who means ill, and of what breaks by itself
//
// The way of AddPortMapping, from socket to kernel:
//
//	sock.Listener.Accept        a connection on a LAN device
//	httpmsg.Server              one bounded request, from an on-link host
//	igd.Server.Handle           the control URL; soap.ParseCall; typed arguments
//	portmap.Table.Map           policy, conflict, quota, lease
//	firewall.NFTables.Change    one kernel transaction (or IPTables.Change);
//	                            then the record is made
//	portmap.Keeper              hears of it after the lock is free; the lease file
//	gena.Publisher              hears of it, too; events
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
//   - After a crash the lease file says what there is, and the kernel is made
//     equal to it: elements and rules that it knows stay untouched, the others go
//     with their connections. Nothing is told to the kernel before the network is
//     known, so what is left there works until then.
//   - The lease file is written within a second of a change. What is granted just
//     after a write began must be in the next one, which must end within that
//     second: under constant change writes begin every 800 ms. With 950 ms a test
//     machine under load lost a mapping of 1.07 s. So that a write does not wait
//     for iptables, too, the list of mappings has a mutex of its own, inside the
//     table's: the wait was up to 556 ms, and is below 10.
//   - SIGUSR2 ends the daemon and leaves the kernel as it is, for upgrades.
//   - upnpctl check --live puts its packet in by lo (AF_PACKET), which needs no
//     module and no other device; that it was forwarded shows in the connection
//     tracking, which confirms a connection behind the forward chain only.
//   - wan has two rtnetlink sockets, and a third while SameHost waits: replies to requests and events of groups
//     cannot be told apart safely on one. Every event means "read again".
//   - A pinhole is a mapping whose external address is the LAN host's own: the same
//     table, rules, quotas, leases and lease file. A control point may pin for
//     another address of its host when the neighbour table has both with one MAC
//     on one LAN; that is asked before the table is locked.
//   - A pinhole has one of four sets, by what it says of the remote side. One set of
//     intervals for all would refuse what overlaps.
//   - Nothing says by which device IPv6 comes in: it may be another one than that of
//     IPv4, and the set has the LAN host's own address.
//   - NAT-PMP and PCP name a mapping by the client's own port: the table has an index
//     for it. PCP owns by nonce, so what UPnP holds is refused to it, and the other
//     way round; a client that comes from NAT-PMP takes its mapping along.
//   - STUN is no request of NAT-PMP, though it begins like one: a page can have a
//     browser send it to any UDP port (WebRTC), and mapped UDP port 8466 for a week,
//     with a stock Chromium 156, which stops the page's HTTP requests by itself.
//   - What httpmsg refuses by itself has no SERVER: a page that came by DNS rebinding
//     may read the answer, and would learn the kernel's version.
//   - A port of NAT-PMP or PCP that was deleted is held for two minutes, in memory.
//   - No LAN host gets more than its share: of the log, of connections, of ports held,
//     of updates about a new address. The log knows by the first netip.Addr among the
//     args of a line whose share it is. Of connections, a host has as many shares as
//     addresses; so when none is left, the one that waits longest for the client with
//     the most of them gives way.
//   - An answer that its client does not read is like a request that does not end: it
//     gives way to others, and what is kept for all such is 256 kB for each segment (with
//     one more answer). A listing is 0.4 MB: 160 connections took 120 MB.
//   - Answers by UDP never block, and the send buffers are large: what goes to forged
//     sources stays in them for the three seconds that ARP and neighbour discovery take.
//     Beyond the limits for all sources together there is as much for those that
//     seldom ask.
//   - A PORT_SET is one mapping with up to 64 ports; the quota counts each.
//   - A served LAN has a segment for each version of IP. When an address becomes
//     another one all segments say goodbye and begin with a new BOOTID; when IPv6
//     comes or goes, only its segment begins or ends.
//   - Release binaries are built without inlining and open-coded defers, and by
//     the toolchain of go.mod.
//   - iptables is run without go-iptables: the regexp in it costs 278 kB raw and 59
//     kB packed on mipsle, where events, IPv6 and PCP found 17 and 106 kB left of
//     DESIGN.md's budgets, and one question was left to it. The tests keep it, as a
//     second witness of the rules. Programs are run without os/exec, too: 82 kB raw,
//     for what os.StartProcess and three pipes do (firewall's execute.go).
//   - The go line is 1.23.0, that of mdlayher/netlink v1.8.0, so that OpenWrt
//     24.10 can build it; the toolchain line names the Go that the tests need
//     (testing/synctest).
package internal
