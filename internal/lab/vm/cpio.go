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
// The first entry of a name is the one that counts.
type archive struct {
	buf   bytes.Buffer
	inode int
	names map[string]bool
}

// node is what a name in the archive stands for.
type node struct {
	mode         uint32 // with the type, as in stat(2)
	uid, gid     int
	major, minor uint32
	data         []byte
}

// file adds a file of root's.
func (a *archive) file(name string, mode fs.FileMode, data []byte) {
	a.add(name, node{mode: unix.S_IFREG | uint32(mode.Perm()), data: data})
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
	a.add(name, node{mode: unix.S_IFLNK | 0o777, data: []byte(target)})
}

// device adds a character device.
func (a *archive) device(name string, major, minor uint32) {
	a.add(name, node{mode: unix.S_IFCHR | 0o600, major: major, minor: minor})
}

func (a *archive) dir(name string) {
	a.add(name, node{mode: unix.S_IFDIR | 0o755})
}

// add adds a name, after the directories above it, unless it is there.
func (a *archive) add(name string, n node) {
	if a.names == nil {
		a.names = map[string]bool{".": true}
	}
	if a.names[name] {
		return
	}
	a.dir(path.Dir(name))
	a.names[name] = true
	a.write(name, n)
}

// write writes one member: its header in hexadecimal, name and data, each padded
// to four bytes.
func (a *archive) write(name string, n node) {
	a.inode++
	fmt.Fprintf(&a.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, n.mode, n.uid, n.gid, 1, 0, len(n.data), 0, 0, n.major, n.minor, len(name)+1, 0, name)
	a.pad()
	a.buf.Write(n.data)
	a.pad()
}

func (a *archive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

// close ends the archive and gives it.
func (a *archive) close() []byte {
	a.write("TRAILER!!!", node{})
	return a.buf.Bytes()
}
