// Package faults breaks what is under the daemon: files, devices, addresses,
// programs, netlink, ports (issue 8, point 5). It holds tests only.
package faults
