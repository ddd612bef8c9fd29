#!/bin/bash
# What scripts/ipk.sh, apk.sh and deb.sh have in common; it runs in the checkout.
# shellcheck disable=SC2034 # they use the variables

name=upnpd
version=${VERSION:-$(sed -n 's/^VERSION ?= //p' Makefile)} release=${PACKAGE_RELEASE:-1}
maintainer=${MAINTAINER:-the upnpd authors <maintainers@upnpd.invalid>}
summary="Lets programs on the LAN open ports (UPnP, NAT-PMP, PCP)"
description="A daemon for home routers: programs on the LAN ask it by UPnP, NAT-PMP or PCP to open
a port through the NAT, and it closes the port again when the lease ends."
# The user that OpenWrt's scripts make, when there is none of that name.
user=upnpd=415:upnpd=415

# All times in a package: a fixed one, so that two builds are equal.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y go.mod)}
export SOURCE_DATE_EPOCH
umask 022

fail() {
	echo "$(basename "$0" .sh): $*" >&2
	exit 1
}

# listed FILE: the lines without comments.
listed() { grep -vE '^(#|$)' "$1"; }

arches() { listed scripts/package/arches; }

# target ARCH: the binary of an OpenWrt architecture.
target() {
	arches | sed -n "s/^$1 //p" | grep . ||
		fail "unknown architecture '$1'; known are: $(arches | cut -d' ' -f1 | paste -sd' ')"
}

# stage DIR TARGET: what is installed on the router.
stage() {
	local mode source path
	while read -r mode source path _; do
		if [[ $mode == link ]]; then
			mkdir -p "$1$(dirname "$path")"
			ln -s "$source" "$1$path"
		else
			install -D -m "$mode" "${source/#BINARY/dist/upnpd-$2}" "$1$path"
		fi
	done < <(listed scripts/package/files)
}

conffiles() { listed scripts/package/files | awk '$4 == "conffile" { print $3 }'; }

# packed DIR [MEMBER...]: a compressed archive, the same for the same files.
packed() {
	local dir=$1
	shift
	[[ $# -gt 0 ]] || set -- .
	tar -C "$dir" -c --format=gnu --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
		--owner=0 --group=0 --numeric-owner "$@" | gzip -9n
}
