package daemon

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// judge runs the filter on a call, as the kernel does (linux/filter.h).
func judge(t *testing.T, program []unix.SockFilter, arch, call uint32, arg uint64) uint32 {
	t.Helper()
	data := make([]byte, 64) // struct seccomp_data
	binary.NativeEndian.PutUint32(data[0:], call)
	binary.NativeEndian.PutUint32(data[4:], arch)
	binary.NativeEndian.PutUint64(data[16:], arg)
	var a uint32
	for i := 0; i < len(program); i++ {
		x := program[i]
		yes := false
		switch x.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = binary.NativeEndian.Uint32(data[x.K:])
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			yes = a == x.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			yes = a&x.K != 0
		case unix.BPF_RET | unix.BPF_K:
			return x.K
		default:
			t.Fatalf("%d: code %#x", i, x.Code)
		}
		if i += int(x.Jf); yes {
			i += int(x.Jt) - int(x.Jf)
		}
	}
	t.Fatal("no end")
	return 0
}

// TestSandboxProgram: threads yes, processes and namespaces no (issue 8, point 6).
func TestSandboxProgram(t *testing.T) {
	const (
		allow  = unix.SECCOMP_RET_ALLOW
		refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD
	)
	program, own := sandboxProgram(), machine()
	if len(program) > 255 { // a jump goes no farther
		t.Fatalf("%d instructions", len(program))
	}
	type row struct {
		arch, call uint32
		arg        uint64
		want       uint32
	}
	rows := []row{
		{own, unix.SYS_CLONE, thread, allow},
		{own, unix.SYS_CLONE, uint64(unix.SIGCHLD), refuse},
		{own, unix.SYS_CLONE, unix.CLONE_NEWUSER | uint64(unix.SIGCHLD), refuse},
		{own, unix.SYS_CLONE, thread << 32, refuse}, // the kernel looks at the lower half
		{own, 1 << 30, 0, refuse},
		{own ^ 1, unix.SYS_READ, 0, refuse},
	}
	for _, list := range [][]uint16{calls[:], moreCalls[:]} {
		for _, call := range list {
			rows = append(rows, row{own, uint32(call), 0, allow})
		}
	}
	for _, call := range []uint32{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_CLONE3, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_PTRACE,
		unix.SYS_KILL, unix.SYS_BPF, unix.SYS_IO_URING_SETUP, unix.SYS_INIT_MODULE, unix.SYS_KEYCTL, unix.SYS_PERF_EVENT_OPEN,
		unix.SYS_USERFAULTFD, unix.SYS_CHROOT, unix.SYS_SETRESUID, unix.SYS_CAPSET, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_REBOOT,
	} {
		rows = append(rows, row{own, call, 0, refuse})
	}
	for _, r := range rows {
		if got := judge(t, program, r.arch, r.call, r.arg); got != r.want {
			t.Errorf("call %d (%#x) of machine %#x: %#x, want %#x", r.call, r.arg, r.arch, got, r.want)
		}
	}
}
