#!/bin/bash
# Makes packages for Debian and Ubuntu from the binaries in dist/; nfpm, a Go program,
# is fetched by GO.
#
#   scripts/deb.sh ARCH...        dist/upnpd_VERSION-N_ARCH.deb
#   scripts/deb.sh --all          for all architectures
#   scripts/deb.sh --target ARCH  print the Makefile's target for ARCH
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/package/lib.sh

# The i386 of routers has no SSE2, and Raspberry Pi OS's armhf is an ARMv6.
arches() {
	cat <<-END
		amd64 amd64
		arm64 arm64
		armel arm5
		armhf arm6
		i386 386-softfloat
		mipsel mipsle
		riscv64 riscv64
	END
}

# documents DIR: the man pages, and the changelog that Debian asks for.
documents() {
	local page
	for page in doc/*.[1-8]; do
		gzip -9nc "$page" >"$1/$(basename "$page").gz"
	done
	gzip -9n >"$1/changelog.gz" <<-END
		$name ($version-$release) unstable; urgency=medium

		  * Version $version.

		 -- $maintainer  $(LC_ALL=C date -uR -d "@$SOURCE_DATE_EPOCH")
	END
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
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
documents "$work"
export VERSION=$version PACKAGE_RELEASE=$release MAINTAINER=$maintainer DOCS=$work
export DESCRIPTION=$summary$'\n'$description
for ARCH in "${wanted[@]}"; do
	BINARY=dist/upnpd-$(target "$ARCH")
	[[ -x $BINARY ]] || fail "no $BINARY: make deb ARCH=$ARCH"
	export ARCH BINARY
	file=dist/${name}_$version-${release}_$ARCH.deb
	"${GO:-go}" run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.4 package \
		--config scripts/package/nfpm.yaml --packager deb --target "$file" >"$work/log" ||
		fail "$(cat "$work/log")"
	echo "deb: $file"
done
