//go:build !386 && !arm && !mips && !mipsle && !mips64 && !mips64le && !amd64 && !arm64

package daemon

import "golang.org/x/sys/unix"

var moreCalls = [...]uint16{
	unix.SYS_MMAP, unix.SYS_NEWFSTATAT, unix.SYS_LSEEK, unix.SYS_SENDFILE,
}
