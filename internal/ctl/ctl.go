// Package ctl is the control socket of the daemon and its client, upnpctl: what
// is mapped, why something was refused, what is wrong with this router, and the
// administrator's word that a mapping ends.
//
// A client sends one line of at most 256 bytes. The reply is the exit code of
// upnpctl as a decimal number on a line, then text or JSON up to the end of the
// stream:
//
//	list [json]               the mappings, by protocol, external port and remote host
//	status [json]             uplink, firewall, LANs, quotas, the last refusals
//	check [live] [json]       what keeps mapped ports from working; live: with a packet
//	delete PROTO PORT         end the mappings of an external port: delete TCP 8080,
//	                          and the pinholes for it
//	delete CLIENT             end the mappings to a LAN host: delete 192.168.1.2
//	flush                     end all mappings
//	log [follow]              the last 200 decisions; follow: and those to come
//	export [remote-host]      lines of miniupnpd's lease file
//
// Code 1 means that nothing was done, or that check warns; 2 is a request that
// makes no sense, or a failure in check. export leaves out what is not enabled,
// for in that file every line is an open port, and pinholes.
//
// # JSON
//
// One object in one line. Leases and uptime are in seconds, times in seconds
// since 1970. What is not known, or nothing, is null.
//
//	list    mappings: [protocol, external_port, remote_host (null: any), client,
//	        host (its name), internal_port, lease (what remains), made_by (UPnP,
//	        NAT-PMP, PCP), owner (who asked), enabled, packets (the first ones of
//	        connections; of a pinhole, all), description, remote_port (null: any),
//	        unique_id (of a pinhole; null: none)]
//	status  version, uptime, uplink, uplink_up, uplink_address, uplink_speed
//	        (bit/s), external_address (as reported), firewall, forward_path (what
//	        is in the way; null: nothing), forward_path_error, lans: [device,
//	        addresses, served, reason (why not)], mappings, max_mappings,
//	        max_mappings_per_client, largest_client, largest_host (its name),
//	        largest_mappings, lease_file, lease_file_error,
//	        refusals: [time, from (null: the router), what, verdict, times]
//	check   findings: [result (PASS, WARN, FAIL), name, found, advice], passed,
//	        warnings, failures
//
// Strings come from the network. No control character, and nothing else that
// does not print, reaches a terminal: text and JSON have \u001b for it. What
// check found is escaped as text first.
package ctl

import (
	"context"
	"net/netip"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/wan"
)

// DefaultSocket is where the daemon listens and upnpctl asks.
const DefaultSocket = "/var/run/upnpd/upnpd.sock"

// Server answers upnpctl. Its fields are set before Serve and not changed after.
type Server struct {
	Table   *portmap.Table
	Daemon  Daemon
	Journal *Journal
	Logf    func(format string, args ...any)
	// LeaseFiles are dnsmasq's, for the names of hosts; nil: where OpenWrt and
	// Debian have them.
	LeaseFiles []string
}

// Daemon tells what the control socket shows besides the table. Its methods are
// called from many goroutines.
type Daemon interface {
	Status() Status
	// Facts looks into everything that check judges; with live it also sends a
	// packet through a mapping of its own.
	Facts(ctx context.Context, live bool) Facts
	// Hardware gives the Ethernet addresses of the neighbours on the LANs.
	Hardware() map[netip.Addr][6]byte
}

// Status is what `upnpctl status` shows.
type Status struct {
	Version     string
	Uptime      time.Duration
	Uplink      wan.Uplink
	ExternalIP  netip.Addr // as reported to clients: extip, or the uplink's
	Firewall    string     // "nftables" or "iptables"
	ForwardPath string     // whose chain drops our connections, and what helps; "": they pass
	ForwardErr  error      // why that is not known
	LANs        []LANStatus

	MaxMappings, MaxPerClient int

	LeaseFile  string
	LeaseFault string // "": the file is written
}

// LANStatus is one configured LAN.
type LANStatus struct {
	Name   string
	Addrs  []netip.Prefix
	Served bool
	Why    string // when it is not served
}

// Facts are what check judges.
type Facts struct {
	Uplink wan.Uplink
	ExtIP  netip.Addr // as configured; the zero Addr: not

	Route    string // the device of the route to the internet; "": there is none
	RouteErr error

	NotForwarding []string // names of the sysctls that are 0 and should be 1

	Firewall    string // "nftables" or "iptables"
	ForwardPath string // as in Status
	ForwardErr  error

	Live *Live // nil: not asked for
	LANs []LANFacts

	Strangers []Stranger

	Drift    string // how the kernel differs from the table; "": not at all
	DriftErr error
	Mappings int

	Now time.Time // of the wall clock
}

// Live is the result of a packet sent through a temporary mapping.
type Live struct {
	Passed bool
	Err    error // why it could not be tried
}

// LANFacts is what was found on one configured LAN.
type LANFacts struct {
	Name     string
	Addr     netip.Addr // the router's; the zero Addr: none
	Up       bool
	Off      bool  // upnp = no: nobody is to find it
	Joined   bool  // the group of SSDP
	Answered bool  // a search of our own was answered by ourselves
	Err      error // why that is not known
}

// Stranger is a UDP port of ours that other programs use, too.
type Stranger struct {
	Port  uint16
	Names []string
}
