#!/bin/bash
# Makes OpenWrt packages without OpenWrt's SDK, from the binaries in dist/: each
# ARCH gets a directory that is a feed of opkg.
#
#   scripts/ipk.sh ARCH...        dist/packages/ARCH/{upnpd_*.ipk,Packages,Packages.gz}
#   scripts/ipk.sh --all          for all architectures
#   scripts/ipk.sh --target ARCH  print the Makefile's target for ARCH
#
# With SIGN_KEY, the file of a secret key, the feeds are signed by usign or signify.
# nfpm is no help here: it writes Installed-Size in kB, and opkg reads bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/package/lib.sh

# control ARCH SIZE: SIZE bytes when unpacked. Only Recommends, since the kernel
# modules of a build of one's own are in no feed, and fw4 brings those of nftables.
control() {
	cat <<-END
		Package: $name
		Version: $version-r$release
		Depends: libc
		Recommends: kmod-nf-conntrack-netlink
		Conflicts: miniupnpd, miniupnpd-iptables, miniupnpd-nftables
		Source: $name
		SourceName: $name
		License: BSD-3-Clause
		LicenseFiles: LICENSE
		Section: net
		Require-User: $user
		SourceDateEpoch: $SOURCE_DATE_EPOCH
		Maintainer: $maintainer
		Architecture: $1
		Installed-Size: $2
		Description: $summary
	END
	echo " ${description//$'\n'/$'\n' }"
}

# hook KIND: the script by which OpenWrt's own packages do the common work; then
# default_postinst and default_prerm run KIND-pkg, too.
hook() {
	cat <<-END
		#!/bin/sh
		[ "\${IPKG_NO_SCRIPT}" = "1" ] && exit 0
		[ -s \${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
		. \${IPKG_INSTROOT}/lib/functions.sh
		default_$1 \$0 \$@
	END
}

# ipk ARCH DIR: the package, in the directory of its feed.
ipk() {
	local work file
	work=$(mktemp -d)
	mkdir "$work/root" "$work/control"
	stage "$work/root" "$(target "$1")"
	packed "$work/root" >"$work/data.tar.gz"
	control "$1" "$(zcat "$work/data.tar.gz" | wc -c)" >"$work/control/control"
	conffiles >"$work/control/conffiles"
	hook postinst >"$work/control/postinst"
	hook prerm >"$work/control/prerm"
	install -m 755 scripts/package/handover "$work/control/prerm-pkg"
	install -m 755 scripts/package/postrm "$work/control/postrm"
	chmod 755 "$work/control/postinst" "$work/control/prerm"
	packed "$work/control" >"$work/control.tar.gz"
	echo 2.0 >"$work/debian-binary"
	file=$2/${name}_$version-r${release}_$1.ipk
	packed "$work" ./debian-binary ./data.tar.gz ./control.tar.gz >"$file"
	index "$work/control/control" "$file" >"$2/Packages"
	rm -r "$work"
}

# index CONTROL FILE: the feed's list of its one package.
index() {
	sed '/^Description:/,$d' "$1"
	echo "Filename: $(basename "$2")"
	echo "Size: $(stat -c %s "$2")"
	echo "SHA256sum: $(sha256sum "$2" | cut -d' ' -f1)"
	sed -n '/^Description:/,$p' "$1"
	echo
}

sign() {
	local tool
	[[ -n ${SIGN_KEY:-} ]] || return 0
	for tool in usign signify signify-openbsd; do
		if command -v "$tool" >/dev/null; then
			"$tool" -S -m "$1" -s "$SIGN_KEY" -x "$1.sig"
			return
		fi
	done
	fail "SIGN_KEY needs usign or signify-openbsd"
}

case "${1-}" in
'') fail "usage: $0 ARCH... | --all | --target ARCH" ;;
--target)
	target "${2-}"
	exit
	;;
--all) mapfile -t wanted < <(arches | cut -d' ' -f1) ;;
*) wanted=("$@") ;;
esac
for arch in "${wanted[@]}"; do
	binary=dist/upnpd-$(target "$arch")
	[[ -x $binary ]] || fail "no $binary: make ipk ARCH=$arch"
	dir=dist/packages/$arch
	rm -rf "$dir"
	mkdir -p "$dir"
	ipk "$arch" "$dir"
	gzip -9nc "$dir/Packages" >"$dir/Packages.gz"
	sign "$dir/Packages"
	echo "ipk: $(echo "$dir"/*.ipk)"
done
