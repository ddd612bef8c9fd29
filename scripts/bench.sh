#!/bin/bash
# Measures upnpd beside Debian's miniupnpd, which is downloaded and unpacked
# into a temporary folder: nothing of it is installed, no service is started.
#
#   scripts/bench.sh [-quick] [-idle 30s] [-doc doc/benchmarks.md]
#
# Needs root, bin/upnpd and what scripts/setup.sh installs; nftables and the
# libraries of miniupnpd are installed here when they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
	echo "bench: $*" >&2
	exit 1
}

# quietly COMMAND...: shows the output only when the command fails.
quietly() {
	"$@" >"$dir/log" 2>&1 </dev/null || {
		tail -n 20 "$dir/log" >&2
		fail "failed: $*"
	}
}

installed() {
	[[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

[[ $EUID -eq 0 ]] || fail "needs root, for network namespaces; nothing outside of them is touched"
[[ -x bin/upnpd ]] || fail "no bin/upnpd: run make first"
command -v apt-get >/dev/null || fail "only Debian and Ubuntu are known here: miniupnpd is theirs"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

apt() { quietly env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300 "$@"; }

libraries=() # of a miniupnpd package, other than libc
missing_libraries() {
	local p
	libraries=()
	for p in $(dpkg-deb -f "$1" Depends | tr ',' '\n' | sed 's/(.*//; s/|.*//' | grep -E '^ *lib(ip|nftnl|mnl)'); do
		installed "$p" || libraries+=("$p")
	done
}

if ! command -v nft >/dev/null && ! installed nftables; then
	echo "bench: installing nftables" >&2
	apt update
	apt install --no-install-recommends nftables
fi

arguments=(-upnpd bin/upnpd)
echo "bench: downloading miniupnpd" >&2
for backend in nftables iptables; do
	package=miniupnpd-$backend
	apt-cache show "$package" >/dev/null 2>&1 || apt update
	mkdir "$dir/$backend"
	# apt's own user may not write here; it says so and goes on as root.
	(cd "$dir/$backend" && quietly apt-get -q download "$package")
	missing_libraries "$dir/$backend"/*.deb
	[[ ${#libraries[@]} -eq 0 ]] || apt install --no-install-recommends "${libraries[@]}"
	dpkg-deb -x "$dir/$backend"/*.deb "$dir/$backend"
	arguments+=("-$package" "$dir/$backend/usr/sbin/miniupnpd")
done

go=${GO:-go}
"$go" build -o "$dir/bench" ./internal/lab/bench
status=0
"$dir/bench" "${arguments[@]}" "$@" || status=$?
exit "$status"
