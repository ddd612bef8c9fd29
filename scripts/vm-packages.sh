#!/bin/bash
# Fetches and unpacks what the MIPS router in a box is made of: Debian's kernel,
# busybox, iptables, nftables and miniupnpd for mipsel. Prints the directory that
# they lie in. Nothing is installed here: apt works with a state of its own.
#
#   scripts/vm-packages.sh
#
# bookworm is the last Debian with mipsel. Its mirror is the one that this
# machine's own apt uses, or UPNPD_DEBIAN_MIRROR.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=bookworm
kernel=linux-image-4kc-malta # depends on the package with the kernel
tools=(
	busybox-static iptables nftables
	libc6 libgcc-s1                                       # and what they need
	libip4tc2 libip6tc2 libxtables12 libmnl0 libnftnl11
	libnetfilter-conntrack3 libnfnetlink0
	libnftables1 libjansson4 libgmp10 libedit2 libbsd0 libmd0 libtinfo6
)
peers=(miniupnpd-iptables miniupnpd-nftables) # both have the same files

store=$PWD/dist/vm
own=$store/apt
keyring=/usr/share/keyrings/debian-archive-keyring

fail() {
	printf 'vm: %s\n' "$@" >&2
	exit 1
}

# mirror prints where this machine gets Debian from.
# shellcheck disable=SC2016 # apt expands the format, not the shell
mirror() {
	local codename
	if [[ -n ${UPNPD_DEBIAN_MIRROR-} ]]; then
		echo "$UPNPD_DEBIAN_MIRROR"
		return
	fi
	grep -qx 'ID=debian' /etc/os-release || return 0
	codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
		grep -E "^(${codename:-stable}|oldstable|stable|testing|unstable|sid) " |
		sed -n '1s/^[^ ]* //p'
}

# private COMMAND...: one of apt's programs, with our own state, for mipsel.
private() {
	timeout 300 "$1" -q -o Dir::State="$own" -o Dir::State::status="$own/status" -o Dir::Cache="$own" \
		-o Dir::Etc::SourceList="$own/sources.list" -o Dir::Etc::SourceParts=- \
		-o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts="$own/none" \
		-o APT::Architecture=mipsel -o APT::Architectures=mipsel -o APT::Sandbox::User=root \
		-o Acquire::Retries=3 -o Acquire::http::Timeout=30 "${@:2}"
}

# update_lists asks the mirror at most once a day; an older answer does when it
# is away.
update_lists() {
	local site key
	[[ -z $(find "$own/updated" -mtime -1 2>/dev/null) ]] || return 0
	site=$(mirror)
	[[ -n $site ]] || fail "no Debian mirror in this machine's apt sources for the mipsel packages of $suite" \
		"name one that has them: UPNPD_DEBIAN_MIRROR=http://..."
	for key in "$keyring.gpg" "$keyring.pgp"; do
		[[ ! -e $key ]] || break
	done
	[[ -e $key ]] || fail "no $keyring.gpg: install debian-archive-keyring"
	mkdir -p "$own/lists/partial" "$own/archives/partial"
	: >"$own/status"
	[[ ! -e $own/updated ]] || cp "$own/sources.list" "$own/sources.old"
	echo "deb [arch=mipsel target=Packages lang=none signed-by=$key] $site $suite main" >"$own/sources.list"
	if private apt-get -o APT::Update::Error-Mode=any -o APT::Get::List-Cleanup=false update >"$own/log" 2>&1; then
		touch "$own/updated"
	elif [[ -e $own/updated ]]; then
		mv "$own/sources.old" "$own/sources.list"
		echo "vm: $site does not answer; using the lists of $(date -r "$own/updated" +%F)" >&2
	else
		tail -n 20 "$own/log" >&2
		fail "cannot get the package lists of $suite for mipsel from $site" \
			"another mirror: UPNPD_DEBIAN_MIRROR=http://..."
	fi
}

# unpack DIRECTORY: downloads all packages and unpacks them there.
unpack() {
	local d p
	mkdir -p "$1/debs"
	echo "vm: fetching ${#tools[@]} packages of $suite for mipsel, ${image[*]} and ${peers[*]}" >&2
	if ! (cd "$1/debs" && private apt-get download "${image[@]}" "${tools[@]}" "${peers[@]}") >"$own/log" 2>&1; then
		tail -n 20 "$own/log" >&2
		fail "cannot fetch Debian's packages for mipsel"
	fi
	for p in "${image[@]}" "${tools[@]}" "${peers[@]}"; do
		case $p in
		linux-image-*) d=kernel ;;
		miniupnpd-*) d=$p ;;
		*) d=root ;;
		esac
		dpkg-deb -x "$1/debs/$p"_*.deb "$1/$d"
	done
	rm -r "$1/debs"
}

mkdir -p "$own/none"
exec 9>"$store/lock"
flock -w 600 9 || fail "another run holds $store/lock"
update_lists
mapfile -t image < <(private apt-cache depends "$kernel" | sed -n 's/^ *Depends: *\(linux-image-\)/\1/p')
[[ ${#image[@]} -eq 1 ]] || fail "no $kernel in the lists of $suite"
files=$(private apt-get download --print-uris "${image[@]}" "${tools[@]}" "${peers[@]}" | cut -d ' ' -f 2) ||
	fail "the lists of $suite do not have all packages"
key=$(cat - scripts/vm-packages.sh <<<"$files" | sha256sum | cut -c 1-16) # the versions, and this recipe
if [[ ! -d $store/$key ]]; then
	rm -rf "$store"/new "$store"/????????????????
	unpack "$store/new"
	printf '%s\n' "$files" >"$store/new/versions"
	mv "$store/new" "$store/$key"
fi
echo "$store/$key"
