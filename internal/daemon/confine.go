package daemon

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/config"
)

// Capabilities that the daemon works with, as bits (linux/capability.h).
const (
	capBindService = 1 << unix.CAP_NET_BIND_SERVICE // ports below 1024
	capNetAdmin    = 1 << unix.CAP_NET_ADMIN        // rules and connections
	capNetRaw      = 1 << unix.CAP_NET_RAW          // sockets bound to a device, packets of upnpctl check --live
)

// firstFreePort is the first that needs no capability (ip(7)).
const firstFreePort = 1024

// capabilities are one thread's, each a set of bits. Those from 32 on are in high.
type capabilities struct {
	unix.CapUserData
	high unix.CapUserData
}

func readCapabilities() (c capabilities, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	return c, unix.Capget(&header, &c.CapUserData)
}

// confine looks at the privileges and gives what drops those that a daemon that has
// started does not need. Its modules are loaded then, and the leases read. With
// nftables it needs no programs.
func confine(cfg *config.Config, log *Log) (drop func(nftables bool) error, err error) {
	had, err := readCapabilities()
	if err != nil {
		return nil, fmt.Errorf("capabilities: %w", err)
	}
	if had.Permitted&capNetAdmin == 0 {
		log.Warnf("without CAP_NET_ADMIN the kernel takes no rules: nothing can be mapped; start it as root")
	}
	if had.Permitted&capNetRaw == 0 {
		log.Warnf("without CAP_NET_RAW there are no sockets on a device that was away for a moment, no legacy iptables and no `upnpctl check --live`")
	}
	who := account{uid: os.Getuid(), gid: os.Getgid()}
	if cfg.User != "" {
		if who, err = findAccount(passwd, cfg.User); err != nil {
			return nil, err
		}
	}
	keep := uint32(capNetAdmin | capNetRaw)
	if 0 < cfg.Port && cfg.Port < firstFreePort {
		keep |= capBindService
	}
	return func(nftables bool) error {
		for _, path := range []string{cfg.LeaseFile, cfg.ControlSocket} {
			who.own(path)
		}
		err := gainNothing(keep)
		if errors.Is(err, unix.ENOTSUP) && cfg.User == "" { // as it is with the race detector
			log.Infof("all privileges are kept: this program is built with cgo, build it with CGO_ENABLED=0")
			return nil
		}
		if err == nil {
			err = who.become()
		}
		if err == nil {
			err = dropCapabilities(had, keep)
		}
		if err == nil && cfg.Sandbox && nftables {
			if err := sandbox(); err != nil { // a kernel without seccomp
				log.Debugf("sandbox: %v", err)
			}
		}
		if err != nil {
			return fmt.Errorf("give up privileges: %w", err)
		}
		return nil
	}, nil
}

// gainNothing sees to it that no program which the daemon starts may do more than
// keep: root's would get what is in the bounding set.
func gainNothing(keep uint32) error {
	for c := uintptr(0); c < 64; c++ {
		if keep>>c&1 == 1 {
			continue
		}
		// EINVAL: the kernel has no more of them. EPERM: a jail has had its reasons.
		if everyThread(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c) != nil {
			break
		}
	}
	_ = everyThread(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL) // since Linux 4.3
	return everyThread(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
}

// dropCapabilities leaves nothing but keep. Where the sets are that small already, a
// jail may forbid the call.
func dropCapabilities(had capabilities, keep uint32) error {
	keep &= had.Permitted
	next := capabilities{CapUserData: unix.CapUserData{Effective: keep, Permitted: keep}}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	err := everyThread(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&next)))
	if had.Permitted == keep && had.high.Permitted == 0 {
		return nil
	}
	return err
}

// everyThread makes a system call in each thread of the process.
//
//go:uintptrescapes
func everyThread(trap, a, b uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall(trap, a, b, 0); errno != 0 {
		return errno
	}
	return nil
}
