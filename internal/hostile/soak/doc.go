// Package soak is a home that lives fast, in tests only: hosts of the LAN ask by every
// protocol, rightly and wrongly, while the uplink comes and goes, rules are flushed,
// and the daemon is reloaded, killed and started again. When all is quiet, an oracle
// compares what each client was told with the table, both faces, the lease file, the
// kernel and what a packet from the internet reaches.
//
//	world    a lab, the daemon on its router, and what went on
//	weather  what happens to the router
//	client   one address on the LAN, what it asks (upnp, pcp, noise)
//	book     what a client may believe to have
//	oracle   the comparison (kernel, packet)
//	gauge    memory and descriptors
//
// UPNPD_SOAK is how long it lives (10m), UPNPD_FIREWALL where (nftables,
// iptables-legacy or iptables-nft; all in turn), UPNPD_SEED what happens.
package soak
