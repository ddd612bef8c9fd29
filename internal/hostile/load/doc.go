// Package load holds tests of the daemon in the lab under floods of one LAN host, while
// a client on another one keeps asking for ports (PEERS.md section 4, "Resource DoS").
package load
