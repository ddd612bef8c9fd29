#!/bin/bash
# Makes packages for OpenWrt 25.12 and newer, from the binaries in dist/. Their
# format has only one writer, `apk mkpkg` of apk-tools 3, which OpenWrt's SDK has in
# staging_dir/host/bin; APK names it when it is not in PATH. Without it, what goes
# into the package is left in dist/apk/ARCH: root, and the scripts beside it.
#
#   scripts/apk.sh ARCH...        dist/apk/upnpd-VERSION-rN_ARCH.apk
#   scripts/apk.sh --all          for all architectures
#   scripts/apk.sh --target ARCH  print the Makefile's target for ARCH
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/package/lib.sh

# lists DIR: what the scripts of OpenWrt's base system look up about a package, and
# sysupgrade about its configuration.
lists() {
	local dir=$1/lib/apk/packages path
	mkdir -p "$dir"
	echo "$user" >"$dir/$name.rusers"
	(cd "$1" && find . -type f,l -printf '/%P\n' | LC_ALL=C sort) >"$1.list"
	mv "$1.list" "$dir/$name.list"
	conffiles >"$dir/$name.conffiles"
	for path in $(conffiles); do
		echo "$path $(sha256sum "$1$path" | cut -d' ' -f1)"
	done >"$dir/$name.conffiles_static"
}

# hook FILE COMMON PART [ASSIGNMENT]: a script of the package: the common work, then
# our part. apk runs other scripts for an upgrade than for an installation.
hook() {
	{
		echo '#!/bin/sh'
		[[ -z ${4-} ]] || echo "export $4"
		if [[ -n $2 ]]; then
			cat <<-END
				[ "\${IPKG_NO_SCRIPT}" = "1" ] && exit 0
				[ -s \${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
				. \${IPKG_INSTROOT}/lib/functions.sh
				export root="\${IPKG_INSTROOT}"
				export pkgname="$name"
				$2
			END
		fi
		[[ -z $3 ]] || sed 1d "scripts/package/$3"
	} >"$1"
	chmod 755 "$1"
}

# tree ARCH DIR: DIR/root, and the scripts.
tree() {
	rm -rf "$2"
	mkdir -p "$2/root"
	stage "$2/root" "$(target "$1")"
	lists "$2/root"
	hook "$2/post-install" $'add_group_and_user\ndefault_postinst' ''
	hook "$2/pre-upgrade" '' handover PKG_UPGRADE=1
	hook "$2/post-upgrade" $'add_group_and_user\ndefault_postinst' '' PKG_UPGRADE=1
	hook "$2/pre-deinstall" default_prerm ''
	hook "$2/post-deinstall" '' postrm
}

# mkpkg ARCH DIR: apk knows no Conflicts; "!" says the same. It takes the owners from
# the files.
mkpkg() {
	local kind scripts=() root=()
	[[ $EUID -eq 0 ]] || root=(fakeroot)
	for kind in post-install pre-upgrade post-upgrade pre-deinstall post-deinstall; do
		scripts+=(--script "$kind:$2/$kind")
	done
	"${root[@]}" "$apk" mkpkg --info "name:$name" --info "version:$version-r$release" --info "arch:$1" \
		--info "description:$description" --info "license:BSD-3-Clause" --info "origin:$name" \
		--info "maintainer:$maintainer" \
		--info "depends:libc !miniupnpd-iptables !miniupnpd-nftables" \
		"${scripts[@]}" --files "$2/root" --output "dist/apk/$name-$version-r${release}_$1.apk"
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
apk=${APK:-apk}
"$apk" mkpkg --help 2>&1 | grep -q -- --script || apk=
for arch in "${wanted[@]}"; do
	binary=dist/upnpd-$(target "$arch")
	[[ -x $binary ]] || fail "no $binary: make apk ARCH=$arch"
	tree "$arch" "dist/apk/$arch"
	[[ -z $apk ]] || mkpkg "$arch" "dist/apk/$arch"
done
[[ -n $apk ]] || fail "the files are in dist/apk; to pack them: make apk APK=.../staging_dir/host/bin/apk, of an OpenWrt SDK 25.12 or newer"
