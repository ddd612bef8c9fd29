package vm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// install adds what an OpenWrt package installs, with owners and modes; a file
// that the router has is the user's, and stays. The scripts of the package do not
// run.
func (a *archive) install(ipk string) error {
	packed, err := os.ReadFile(ipk)
	if err != nil {
		return err
	}
	found := errors.New("it has no data.tar.gz")
	err = untar(packed, func(h *tar.Header, data []byte) error {
		if path.Clean(h.Name) == "data.tar.gz" {
			found = untar(data, a.unpack)
		}
		return nil
	})
	if err := errors.Join(err, found); err != nil {
		return fmt.Errorf("%s: %w", ipk, err)
	}
	return nil
}

// unpack adds a member of a package.
func (a *archive) unpack(h *tar.Header, data []byte) error {
	n := node{mode: uint32(h.Mode), uid: h.Uid, gid: h.Gid, data: data}
	switch h.Typeflag {
	case tar.TypeReg:
		n.mode |= unix.S_IFREG
	case tar.TypeDir:
		n.mode |= unix.S_IFDIR
	case tar.TypeSymlink:
		n.mode |= unix.S_IFLNK
		n.data = []byte(h.Linkname)
	default:
		return fmt.Errorf("%s is of type %q", h.Name, h.Typeflag)
	}
	a.add(path.Clean(h.Name), n)
	return nil
}

// untar calls f for the members of a compressed archive.
func untar(packed []byte, f func(*tar.Header, []byte) error) error {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	for members := tar.NewReader(z); ; {
		h, err := members.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(members)
		if err == nil {
			err = f(h, data)
		}
		if err != nil {
			return err
		}
	}
}
