package faults

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A supervisor sees each message that the daemon is about to send by netlink, and may
// refuse it or let it vanish (seccomp_unotify(2)). The daemon is started by this test
// binary, which hands over the filter's listener and then becomes the daemon.

// supervisorEnv names the socket of the supervisor, and the daemon.
const supervisorEnv = "UPNPD_SUPERVISOR"

// Requests of seccomp_unotify(2); their structures have these sizes.
const (
	notifReceive = 0xc0502100
	notifSend    = 0xc0182101
	notifGoOn    = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// notification is struct seccomp_notif.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

// answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// supervised becomes the daemon under a filter, in the process that lab started.
func supervised(socket, daemon string) error {
	runtime.LockOSThread() // the filter is this thread's, which calls exec
	listen, err := filter()
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "%d\n", listen); err != nil {
		return err
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return err
	}
	os.Unsetenv(supervisorEnv)
	return syscall.Exec(daemon, append([]string{daemon}, os.Args[1:]...), os.Environ())
}

// filter makes the kernel ask about sendmsg and sendto.
func filter() (fd uintptr, err error) {
	stmt := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	equal := func(k uint32, then uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: then}
	}
	program := []unix.SockFilter{
		stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0), // nr
		equal(unix.SYS_SENDMSG, 2),
		equal(unix.SYS_SENDTO, 1),
		stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW),
		stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_USER_NOTIF),
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, errno
	}
	return fd, nil
}

// supervisor decides about the daemon's messages.
type supervisor struct {
	t        *testing.T
	program  string // that starts the daemon
	listener net.Listener

	mu    sync.Mutex
	left  int // messages until the fault; 0: there is none to come
	fault func(length int64) answer
	total map[int]int // messages seen, by netlink protocol
}

// supervise makes a program that runs the daemon under a supervisor.
func supervise(t *testing.T, daemon string) *supervisor {
	t.Helper()
	dir := t.TempDir()
	s := &supervisor{t: t, program: filepath.Join(dir, "upnpd"), total: map[int]int{}}
	socket := filepath.Join(dir, "socket")
	me, err := os.Executable()
	if err == nil {
		s.listener, err = net.Listen("unix", socket)
	}
	if err == nil {
		script := fmt.Sprintf("#!/bin/sh\n%s='%s %s' exec %s \"$@\"\n", supervisorEnv, socket, daemon, me)
		err = os.WriteFile(s.program, []byte(script), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve()
	}()
	t.Cleanup(func() {
		s.listener.Close()
		<-done
	})
	return s
}

// serve takes one daemon after another.
func (s *supervisor) serve() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		if err := s.adopt(c.(*net.UnixConn)); err != nil {
			s.t.Errorf("supervisor: %v", err)
		}
	}
}

// adopt takes over the listener of a process and decides until that has ended.
func (s *supervisor) adopt(c *net.UnixConn) error {
	defer c.Close()
	var fd int
	if _, err := fmt.Fscanln(c, &fd); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil {
		return err
	}
	pid, err := unix.PidfdOpen(int(peer.Pid), 0)
	if err != nil {
		return err
	}
	defer unix.Close(pid)
	listen, err := unix.PidfdGetfd(pid, fd, 0)
	if err != nil {
		return err
	}
	defer unix.Close(listen)
	if _, err := c.Write([]byte("\n")); err != nil {
		return err
	}
	for {
		p := []unix.PollFd{{Fd: int32(listen), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err == unix.EINTR {
			continue
		}
		if p[0].Revents&unix.POLLIN == 0 {
			return nil // it has ended
		}
		var n notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listen), notifReceive, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // a signal was first
		}
		a := s.decide(pid, int(peer.Pid), &n)
		a.id = n.id
		unix.Syscall(unix.SYS_IOCTL, uintptr(listen), notifSend, uintptr(unsafe.Pointer(&a)))
	}
}

// decide counts what is sent by netlink.
func (s *supervisor) decide(pidfd, pid int, n *notification) answer {
	goOn := answer{flags: notifGoOn}
	fd, err := unix.PidfdGetfd(pidfd, int(n.args[0]), 0)
	if err != nil {
		return goOn
	}
	defer unix.Close(fd)
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_NETLINK {
		return goOn
	}
	protocol, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total[protocol]++
	if s.left == 0 {
		return goOn
	}
	if s.left--; s.left > 0 {
		return goOn
	}
	return s.fault(sent(pid, n))
}

// sent is how many bytes a call would send.
func sent(pid int, n *notification) int64 {
	if n.nr == unix.SYS_SENDTO {
		return int64(n.args[2])
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0
	}
	defer mem.Close()
	word := func(at uint64) uint64 {
		b := make([]byte, 8)
		mem.ReadAt(b, int64(at))
		return binary.NativeEndian.Uint64(b)
	}
	iov := word(n.args[1] + 16) // msg_iov of struct msghdr
	return int64(word(iov + 8)) // the one part's iov_len
}

// faults are what may happen to a message.
var netlinkFaults = map[string]func(length int64) answer{
	"ENOBUFS": func(int64) answer { return answer{errno: -int32(unix.ENOBUFS)} },
	"EPERM":   func(int64) answer { return answer{errno: -int32(unix.EPERM)} },
	"ENOMEM":  func(int64) answer { return answer{errno: -int32(unix.ENOMEM)} },
	"lost":    func(length int64) answer { return answer{val: length} },
}

// arm makes the n-th message from now on fail, as programs.arm does for programs.
func (s *supervisor) arm(mode string, n int) (disarm func() (fired bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left, s.fault = n, netlinkFaults[mode]
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		fired := s.left == 0
		s.left = 0
		return fired
	}
}
