package daemon

import "golang.org/x/sys/unix"

var moreCalls = [...]uint16{
	unix.SYS_CLOCK_GETTIME64, unix.SYS_FUTEX_TIME64, unix.SYS_MMAP2, unix.SYS_FSTATAT64, unix.SYS_FSTAT64,
	unix.SYS_STAT64, unix.SYS_LSTAT64, unix.SYS__LLSEEK, unix.SYS_FCNTL64, unix.SYS_SENDFILE64, unix.SYS_RENAMEAT, unix.SYS_OPEN, unix.SYS_SOCKETCALL, unix.SYS_SET_THREAD_AREA,
}
