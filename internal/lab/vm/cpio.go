package vm

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// archive is a cpio archive in the "newc" format, which the kernel unpacks
// before it starts /init (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	buf   bytes.Buffer
	inode int
	dirs  map[string]bool
}

// file adds a file, and the directories above it.
func (a *archive) file(name string, mode fs.FileMode, data []byte) {
	a.above(name)
	a.entry(name, unix.S_IFREG|uint32(mode.Perm()), 0, 0, data)
}

// copy adds a file of this machine.
func (a *archive) copy(name, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	a.file(name, info.Mode(), data)
	return nil
}

func (a *archive) symlink(name, target string) {
	a.above(name)
	a.entry(name, unix.S_IFLNK|0o777, 0, 0, []byte(target))
}

// device adds a character device.
func (a *archive) device(name string, major, minor uint32) {
	a.above(name)
	a.entry(name, unix.S_IFCHR|0o600, major, minor, nil)
}

// dir adds a directory and those above it, once.
func (a *archive) dir(name string) {
	if a.dirs == nil {
		a.dirs = map[string]bool{".": true}
	}
	if a.dirs[name] {
		return
	}
	a.above(name)
	a.dirs[name] = true
	a.entry(name, unix.S_IFDIR|0o755, 0, 0, nil)
}

func (a *archive) above(name string) { a.dir(path.Dir(name)) }

// entry writes one member: its header in hexadecimal, name and data, each
// padded to four bytes.
func (a *archive) entry(name string, mode, major, minor uint32, data []byte) {
	a.inode++
	fmt.Fprintf(&a.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	a.pad()
	a.buf.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

// close ends the archive and gives it.
func (a *archive) close() []byte {
	a.entry("TRAILER!!!", 0, 0, 0, nil)
	return a.buf.Bytes()
}
