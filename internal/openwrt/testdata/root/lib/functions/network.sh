# Stands in for OpenWrt's /lib/functions/network.sh. /network has a directory for
# each network of netifd: l3_device has its device while it is up, default_route is
# there when it has that.
# shellcheck shell=dash

# network_get_device VARIABLE NETWORK: a network that is down gives "" and an error,
# one that is none leaves the variable alone.
network_get_device() {
	case "$2" in
	*[!A-Za-z0-9_]*) fail "network_get_device $2: bad substitution" ;;
	esac
	[ -d "/network/$2" ] || return 1
	eval "$1=\$(cat /network/$2/l3_device 2>/dev/null)"
	[ -e "/network/$2/l3_device" ]
}

# network_find_wan VARIABLE
network_find_wan() {
	local dir
	eval "$1="
	for dir in /network/*; do
		if [ -e "$dir/default_route" ]; then
			eval "$1=\${dir##*/}"
			return 0
		fi
	done
	return 1
}
