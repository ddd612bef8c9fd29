#!/bin/bash
# Installs what building, testing and the demo need, on Debian and Ubuntu.
#
#   scripts/setup.sh        install what is missing; says nothing when nothing is
#   scripts/setup.sh --go   print the path of a Go that is new enough for tests
#   scripts/setup.sh --go-build   ... new enough to build
#
# Only installing needs root.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
	ca-certificates git make xz-utils           # building
	gcc libc6-dev                               # the race detector
	shellcheck man-db                           # make lint
	iproute2 iptables nftables procps           # the lab
	util-linux wget busybox systemd             # the router's shell, and units
	strace                                       # what the daemon asks of the kernel
	miniupnpc python3-miniupnpc gupnp-tools natpmpc # control points
	python3-gi gir1.2-gupnp-1.6                 # and one that the tests write
	python3-libtorrent                          # what home users ask with
	qemu-system-mips debian-archive-keyring     # the router in a box
)
# User-mode emulation, for the mips binaries. Distributions moved it from the
# first of these packages to the second.
emulators=(qemu-user-static qemu-user)
# For the tests with web pages. Debian has it from 12 on, Ubuntu has not.
browser=chromium-headless-shell

# The Go that the tests need; go.mod names it. From 1.21 on, a Go fetches the
# one that it is asked for.
want=$(sed -n 's/^toolchain go//p' go.mod)
want=${want:-1.25.0}
switching=1.21.0

fail() {
	echo "setup: $*" >&2
	exit 1
}

# at_least A B: version A is B or newer.
at_least() {
	[[ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" == "$2" ]]
}

installed() {
	[[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

# available PACKAGE [RELEASE]: the version that apt would install.
available() {
	apt-cache ${2:+-t "$2"} policy "$1" | sed -n 's/^ *Candidate: *//p' | grep -vxF '(none)' || true
}

# quietly COMMAND...: shows the output only when the command fails.
quietly() {
	local log
	log=$(mktemp)
	if ! "$@" >"$log" 2>&1 </dev/null; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		fail "failed: $*"
	fi
	rm -f "$log"
}

apt() {
	quietly env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300 "$@"
}

from=
updated=no
update_lists() {
	[[ $updated == yes ]] || apt update
	updated=yes
}

# install_packages PACKAGE...: from the release's backports when $from names them.
install_packages() {
	printf 'setup: installing %s\n' "$@"
	apt ${from:+-t "$from"} install --no-install-recommends "$@"
}

need_root() {
	[[ $EUID -eq 0 ]] || fail "missing: $*; run as root: $PWD/scripts/setup.sh"
}

# has_browser: this distribution has it. A new machine knows of no package yet.
has_browser() {
	[[ $EUID -ne 0 || -n "$(available git)" ]] || update_lists
	if [[ -z "$(available "$browser")" ]]; then
		echo "setup: this distribution has no $browser; the tests with web pages will miss it" >&2
		return 1
	fi
}

setup_packages() {
	command -v dpkg-query >/dev/null ||
		fail "only Debian and Ubuntu are known here; install by hand: ${packages[*]} $browser ${emulators[0]}"
	local missing=() p
	for p in "${packages[@]}"; do
		installed "$p" || missing+=("$p")
	done
	if ! installed "$browser" && has_browser; then
		missing+=("$browser")
	fi
	if ! installed "${emulators[0]}" && ! installed "${emulators[1]}"; then
		missing+=("${emulators[0]}")
	fi
	[[ ${#missing[@]} -gt 0 ]] || return 0
	need_root "${missing[@]}"
	update_lists
	if [[ "${missing[-1]}" == "${emulators[0]}" && -z "$(available "${emulators[0]}")" ]]; then
		missing[-1]=${emulators[1]}
	fi
	install_packages "${missing[@]}"
}

# go_version GO: the version of that very program, whatever go.mod asks for.
go_version() {
	GOTOOLCHAIN=local "$1" version 2>/dev/null | sed -n 's/^go version go\([0-9.]*\).*/\1/p'
}

# find_go prints a Go that is $want or newer: one that is here, or one that an
# older Go here has fetched, or fetches now. Errors of fetching go to stderr.
find_go() {
	local go version root candidates=() switchers=()
	go=$(command -v go || true)
	candidates=(${go:+"$go"} /usr/local/go/bin/go)
	while read -r go; do
		candidates+=("$go")
	done < <(printf '%s\n' /usr/lib/go-1.*/bin/go | sort -rV)
	for go in "${candidates[@]}"; do
		[[ -x $go ]] || continue
		version=$(go_version "$go")
		if at_least "${version:-0}" "$want"; then
			echo "$go"
			return
		fi
		at_least "${version:-0}" "$switching" && switchers+=("$go")
	done
	[[ ${#switchers[@]} -gt 0 ]] || return
	root=$(GOTOOLCHAIN="go$want+auto" "${switchers[0]}" env GOROOT) || return
	echo "$root/bin/go"
}

# backports prints the name of the release's backports, which are added to
# apt's sources on Debian when they are not there.
# shellcheck disable=SC2016 # apt expands the formats, not the shell
backports() {
	local codename site
	codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	[[ -n $codename ]] || return 0
	if ! apt-get indextargets --format '$(RELEASE)' | grep -qxF "$codename-backports"; then
		grep -qx 'ID=debian' /etc/os-release || return 0
		site=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
			sed -n "s/^$codename //p" | head -n 1)
		[[ -n $site ]] || return 0
		echo "setup: adding $codename-backports to apt's sources" >&2
		echo "deb $site $codename-backports main" >"/etc/apt/sources.list.d/$codename-backports.list"
		apt update
	fi
	echo "$codename-backports"
}

setup_go() {
	local version newer package
	find_go >/dev/null && return
	need_root "Go $want or newer"
	update_lists
	version=$(available golang-go)
	if at_least "${version#*:}" "$switching"; then
		install_packages golang-go
	else
		newer=$(backports)
		version=$(available golang-go "${newer:-now}")
		package=$(apt-cache pkgnames golang-1. | grep -x 'golang-1\.[0-9]*-go' | sort -V | tail -n 1)
		if [[ -n $newer ]] && at_least "${version#*:}" "$switching"; then
			from=$newer install_packages golang-go
		elif [[ -n $package ]] && at_least "$(available "$package")" "$switching"; then
			install_packages "$package"
		fi
	fi
	find_go >/dev/null || fail "no Go $want or newer is to be had here: install one from golang.org in /usr/local/go"
}

case "${1-}" in
'')
	setup_packages
	setup_go
	;;
--go) find_go || fail "no Go $want or newer: run as root: $PWD/scripts/setup.sh" ;;
--go-build)
	want=$(sed -n 's/^go //p' go.mod)
	find_go || fail "no Go $want or newer: install one (golang-go, or $PWD/scripts/setup.sh as root)"
	;;
*) fail "usage: $0 [--go | --go-build]" ;;
esac
