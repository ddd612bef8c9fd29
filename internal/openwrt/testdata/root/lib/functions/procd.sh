# Stands in for OpenWrt's procd.sh, and for procd itself: /procd/running has the
# instance that runs. What procd takes silently and wrongly is an error here.
# shellcheck shell=dash

# note LINE: of the service that is being described.
note() { echo "$*" >>/procd/next; }

procd_open_service() {
	record procd_open_service "$@"
	mkdir -p /procd
	: >/procd/next
	instance=none
}

procd_open_instance() {
	[ "$instance" = none ] || fail "a second instance"
	record procd_open_instance "$@"
	instance=open jail=
}

procd_close_instance() {
	record procd_close_instance "$@"
	instance=closed
}

procd_set_param() {
	local param="$1" word
	[ "$instance" = open ] || fail "procd_set_param $1 outside an instance"
	record procd_set_param "$@"
	shift
	case "$param" in
	command | env | user | group | nice | facility | pidfile) note "$param $*" ;;
	file) note "$param $* $(md5sum "$@")" ;;
	netdev)
		for word in "$@"; do
			note "netdev $word $(cat "/sys/class/net/$word/ifindex" 2>/dev/null)"
		done
		;;
	respawn) [ $# = 3 ] || fail "respawn $*" ;;
	stdout | stderr | no_new_privs) [ "$1" = 1 ] || fail "$param $*" ;;
	reload_signal) kill -l "$1" >/dev/null || fail "reload_signal $1" ;;
	capabilities) [ -r "$1" ] || fail "capabilities $1" ;;
	*) fail "procd_set_param $param" ;;
	esac
}

procd_add_jail() {
	local word
	[ "$instance" = open ] || fail "procd_add_jail outside an instance"
	record procd_add_jail "$@"
	jail=$1
	shift
	for word in "$@"; do
		case "$word" in
		log | ubus | procfs | sysfs | ronly | requirejail | netns | userns | cgroupsns) ;;
		*) fail "procd_add_jail $word" ;;
		esac
	done
}

procd_add_jail_mount() {
	[ -n "$jail" ] || fail "procd_add_jail_mount without a jail"
	record procd_add_jail_mount "$@"
	note "mount $*"
}

procd_add_jail_mount_rw() {
	[ -n "$jail" ] || fail "procd_add_jail_mount_rw without a jail"
	record procd_add_jail_mount_rw "$@"
	note "mount_rw $*"
}

procd_add_reload_trigger() { record procd_add_reload_trigger "$@"; }
procd_add_raw_trigger() { record procd_add_raw_trigger "$@"; }

procd_add_reload_interface_trigger() {
	[ $# = 1 ] || fail "procd_add_reload_interface_trigger $*"
	record procd_add_reload_interface_trigger "$@"
}

procd_add_validation() { "$@"; }

uci_load_validate() {
	record uci_load_validate "$1" "$2" "$3" "$4"
	shift 4
	for word in "$@"; do
		echo "$word" >>/validation
	done
}

# procd compares the new instance with the one that runs. One whose user or mounts
# are others cannot be changed by a signal.
procd_close_service() {
	service_triggers
	record procd_close_service "$@"
	if [ "$instance" = none ]; then
		[ ! -e /procd/running ] || happens "stops"
		rm -f /procd/running
	elif [ ! -e /procd/running ]; then
		[ ! -e /procd/stopping ] || fail "the last one has not ended"
		happens "starts"
		mv /procd/next /procd/running
	elif cmp -s /procd/next /procd/running; then
		happens "stays"
	else
		if [ "$(grep -E '^(user|mount_rw)' /procd/next)" != "$(grep -E '^(user|mount_rw)' /procd/running)" ]; then
			fail "another user or jail, and only a signal"
		fi
		happens "gets signal 1"
		mv /procd/next /procd/running
	fi
}

happens() { record upnpd "$1"; }

# procd_kill returns at once; the process ends a second later.
procd_kill() {
	record procd_kill "$@"
	[ ! -e /procd/running ] || mv /procd/running /procd/stopping
}

procd_running() {
	[ "$*" = upnpd ] || fail "procd_running $*"
	[ -e /procd/running ] || [ -e /procd/stopping ]
}

sleep() {
	record sleep "$@"
	rm -f /procd/stopping
}
