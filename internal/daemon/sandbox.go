package daemon

import (
	"encoding/binary"
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// calls are the system calls that the daemon and the Go runtime make once it has
// started, and that every machine has under these names; the most frequent come
// first. moreCalls are those of this machine alone. A test holds both against the
// program.
var calls = [...]uint16{
	unix.SYS_FUTEX, unix.SYS_EPOLL_PWAIT, unix.SYS_RECVMSG, unix.SYS_SENDMSG, unix.SYS_READ, unix.SYS_WRITE,
	unix.SYS_CLOCK_GETTIME, unix.SYS_NANOSLEEP, unix.SYS_TGKILL, unix.SYS_GETPID, unix.SYS_RT_SIGRETURN,
	unix.SYS_CLOSE, unix.SYS_SOCKET, unix.SYS_BIND, unix.SYS_GETSOCKNAME, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKOPT,
	unix.SYS_ACCEPT4, unix.SYS_RECVFROM, unix.SYS_SENDTO, unix.SYS_SHUTDOWN, unix.SYS_FCNTL, unix.SYS_EPOLL_CTL,
	unix.SYS_CONNECT, unix.SYS_LISTEN, unix.SYS_GETPEERNAME, unix.SYS_EPOLL_CREATE1, unix.SYS_EVENTFD2, unix.SYS_PIPE2,
	unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_MINCORE,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_SIGALTSTACK, unix.SYS_GETTID, unix.SYS_TKILL,
	unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_PSELECT6, unix.SYS_GETTIMEOFDAY, unix.SYS_RESTART_SYSCALL,
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_PRCTL, unix.SYS_GETRANDOM, unix.SYS_UNAME, unix.SYS_IOCTL,
	unix.SYS_OPENAT, unix.SYS_FSYNC, unix.SYS_FSTAT, unix.SYS_STATX, unix.SYS_FCHMOD, unix.SYS_PREAD64, unix.SYS_GETDENTS64,
	unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT2, unix.SYS_READLINKAT, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2,
}

// Where struct seccomp_data (linux/seccomp.h) has the number of the call, the kind of
// machine, and the lower half of the first argument.
const (
	dataCall = 0
	dataArch = 4
	dataArg  = 16
)

// sandbox leaves nothing but calls to all threads. Any other call fails as if the
// kernel did not have it: programs know how to do without, and nothing ends the
// daemon. It starts no programs any more, which would need other calls.
func sandbox() error {
	if machine() == 0 {
		return errors.New("this machine's system calls are not known")
	}
	program := sandboxProgram()
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f)))
	if errno != 0 {
		return errno
	}
	if thread != 0 {
		return errors.New("a thread has another filter")
	}
	return nil
}

// sandboxProgram is for the kernel's packet filter machine (BPF).
func sandboxProgram() []unix.SockFilter {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		all   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		give  = unix.BPF_RET | unix.BPF_K
	)
	count := len(calls) + len(moreCalls)
	last := 3 + count + 4 // of the program, ALLOW; before it is the refusal
	p := make([]unix.SockFilter, 0, last+1)
	add := func(code uint16, k uint32, yes, no int) { // yes and no are where it goes on
		next := len(p) + 1
		p = append(p, unix.SockFilter{Code: code, K: k, Jt: uint8(yes - next), Jf: uint8(no - next)})
	}
	add(load, dataArch, 1, 1)
	add(equal, machine(), 2, last-1)
	add(load, dataCall, 3, 3)
	for _, list := range [][]uint16{calls[:], moreCalls[:]} {
		for _, call := range list {
			add(equal, uint32(call), last, len(p)+1)
		}
	}
	// A new thread, but no process and no namespace.
	add(equal, unix.SYS_CLONE, len(p)+1, last-1)
	low := uint32(dataArg)
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		low += 4
	}
	add(load, low, len(p)+1, len(p)+1)
	add(all, unix.CLONE_THREAD, last, last-1)
	add(give, unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS), 0, 0)
	add(give, unix.SECCOMP_RET_ALLOW, 0, 0)
	return p
}

// machine is this one's AUDIT_ARCH (linux/audit.h).
func machine() uint32 {
	switch runtime.GOARCH {
	case "386":
		return unix.AUDIT_ARCH_I386
	case "amd64":
		return unix.AUDIT_ARCH_X86_64
	case "arm":
		return unix.AUDIT_ARCH_ARM
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64
	case "mips":
		return unix.AUDIT_ARCH_MIPS
	case "mipsle":
		return unix.AUDIT_ARCH_MIPSEL
	case "mips64":
		return unix.AUDIT_ARCH_MIPS64
	case "mips64le":
		return unix.AUDIT_ARCH_MIPSEL64
	case "riscv64":
		return unix.AUDIT_ARCH_RISCV64
	case "loong64":
		return unix.AUDIT_ARCH_LOONGARCH64
	}
	return 0
}
