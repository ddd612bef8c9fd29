package vm

import (
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/linux-igd/upnpd/internal/lab"
)

// initScript is the router's first program.
//
//go:embed init.sh
var initScript []byte

// modules are loaded at start, with those that they need, in this order.
// Debian's kernel has the checksum that its netfilter asks for as a module of
// its own, which no other module names.
var modules = []string{
	"crc32c_generic",
	"virtio_pci", "virtio_console", "virtio_net", "bridge",
	"nf_conntrack_netlink",
	"nft_chain_nat", "nft_nat", "nft_masq", "nft_redir", "nft_ct", "nft_compat",
	"nft_reject_inet", "nft_log", "nft_limit", "nft_objref",
	"iptable_filter", "iptable_nat", "iptable_mangle",
	"xt_MASQUERADE", "xt_nat", "xt_addrtype", "xt_comment", "xt_connmark", "xt_conntrack",
	"xt_mark", "xt_multiport", "xt_tcpudp",
}

// plugins are those of iptables' 80 extensions that a home router's rules use.
var plugins = []string{
	"libipt_icmp", "libipt_REJECT", "libxt_CONNMARK", "libxt_DNAT", "libxt_LOG", "libxt_MARK", "libxt_MASQUERADE", "libxt_NAT",
	"libxt_REDIRECT", "libxt_SNAT", "libxt_addrtype", "libxt_comment", "libxt_connmark", "libxt_conntrack", "libxt_mark",
	"libxt_multiport", "libxt_standard", "libxt_state", "libxt_tcp", "libxt_udp",
}

// programs are what the router has besides busybox.
var programs = []string{
	"usr/sbin/nft", "usr/sbin/xtables-nft-multi", "usr/sbin/xtables-legacy-multi",
	"usr/sbin/iptables-nft", "usr/sbin/iptables-nft-save", "usr/sbin/iptables-nft-restore",
	"usr/sbin/iptables-legacy", "usr/sbin/iptables-legacy-save", "usr/sbin/iptables-legacy-restore",
}

// libraries is where Debian keeps them, in either of two places.
var libraries = []string{"lib/mipsel-linux-gnu", "usr/lib/mipsel-linux-gnu"}

// System is what a router has besides Debian's kernel and tools. Of two files of
// one name it has the first of the order here.
type System struct {
	// Texts are files of its user, by their path.
	Texts map[string]string
	// Ipk is an OpenWrt package that is installed; "" is none.
	Ipk string
	// Programs are files of this machine by their path in the router. They get the
	// libraries of Debian that they need.
	Programs map[string]string
	// Tree is a directory of this machine whose files it has; "" is none.
	Tree string
}

// image is the router's file system while it is put together.
type image struct {
	archive
	packages string // what scripts/vm-packages.sh has unpacked
	has      map[string]bool
}

// newImage gives a router's file system, packed.
func newImage(packages string, s System) ([]byte, error) {
	im := &image{packages: packages, has: map[string]bool{}}
	for _, name := range []string{"proc", "sys", "run", "tmp", "var", "root", "sbin", "bin", "usr/bin", "usr/sbin"} {
		im.dir(name)
	}
	im.device("dev/console", 5, 1)
	im.device("dev/null", 1, 3)
	im.symlink("var/run", "/run")
	im.symlink("var/lock", "/run")
	im.file("init", 0o755, initScript)
	im.file("etc/lab", 0o644, fmt.Appendf(nil, "LANDEV=%s LAN=%s WANDEV=%s WAN=%s INTERNET=%s LANCARD=%s WANCARD=%s\n",
		lab.LANDev, lab.RouterLANAddr, lab.WANDev, lab.WANAddr, lab.InternetAddr, lanCard, wanCard))
	im.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	im.file("etc/group", 0o644, []byte("root:x:0:\n"))
	errs := []error{im.copy("bin/busybox", filepath.Join(packages, "root/bin/busybox")), im.modules()}
	for _, name := range programs {
		errs = append(errs, im.debian(name))
	}
	for _, name := range plugins {
		errs = append(errs, im.debian("usr/lib/mipsel-linux-gnu/xtables/"+name+".so"))
	}
	errs = append(errs, im.system(s))
	return im.close(), errors.Join(errs...)
}

// system adds what is not Debian's.
func (im *image) system(s System) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.Texts)) {
		im.file(name, 0o600, []byte(s.Texts[name]))
	}
	if s.Ipk != "" {
		errs = append(errs, im.install(s.Ipk))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Programs)) {
		errs = append(errs, im.copy(name, s.Programs[name]), im.needs(s.Programs[name]))
	}
	if s.Tree != "" {
		errs = append(errs, filepath.WalkDir(s.Tree, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(s.Tree, path)
			return errors.Join(err, im.copy(name, path))
		}))
	}
	return errors.Join(errs...)
}

// debian adds a file of a package with the libraries that it needs, and with the
// file that a link leads to.
func (im *image) debian(name string) error {
	if im.has[name] {
		return nil
	}
	im.has[name] = true
	here := filepath.Join(im.packages, "root", name)
	info, err := os.Lstat(here)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		return errors.Join(im.copy(name, here), im.needs(here))
	}
	target, err := os.Readlink(here)
	if err != nil {
		return err
	}
	im.symlink(name, target)
	if filepath.IsAbs(target) {
		return im.debian(target[1:])
	}
	return im.debian(filepath.Join(filepath.Dir(name), target))
}

// needs adds the libraries that a program or library names.
func (im *image) needs(program string) error {
	f, err := elf.Open(program)
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	defer f.Close()
	names, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	if len(names) > 0 {
		names = append(names, "ld.so.1")
	}
	for _, name := range names {
		if err := im.library(name); err != nil {
			return fmt.Errorf("%s needs %w", program, err)
		}
	}
	return nil
}

func (im *image) library(name string) error {
	if name == "ld.so.1" {
		if err := im.debian("lib/ld.so.1"); err != nil {
			return err
		}
	}
	for _, dir := range libraries {
		if _, err := os.Lstat(filepath.Join(im.packages, "root", dir, name)); err == nil {
			return im.debian(dir + "/" + name)
		}
	}
	return fmt.Errorf("%s, which no package has", name)
}

// modules adds the kernel's modules and a list of them, each after those it
// needs.
func (im *image) modules() error {
	all := map[string]string{}
	err := filepath.WalkDir(filepath.Join(im.packages, "kernel/lib/modules"), func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			all[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		return err
	}
	var order []string
	var add func(name string) error
	add = func(name string) error {
		if slices.Contains(order, name) {
			return nil
		}
		if all[name] == "" {
			return fmt.Errorf("the kernel package has no module %s", name)
		}
		needed, err := moduleNeeds(all[name])
		if err != nil {
			return err
		}
		for _, n := range needed {
			if err := add(n); err != nil {
				return err
			}
		}
		order = append(order, name)
		return im.copy("lib/modules/"+name+".ko", all[name])
	}
	for _, name := range modules {
		if err := add(name); err != nil {
			return err
		}
	}
	im.file("lib/modules/order", 0o644, []byte(strings.Join(order, "\n")+"\n"))
	return nil
}

// moduleNeeds gives the modules that a module says it depends on.
func moduleNeeds(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s is no kernel module", path)
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, field := range strings.Split(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(strings.ReplaceAll(list, "-", "_"), ","), nil
		}
	}
	return nil, nil
}
