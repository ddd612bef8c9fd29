# Stands in for OpenWrt's /lib/functions.sh: what init scripts use of it. A UCI
# package is loaded as there: `uci export` prints it as words that are the functions
# config, option and list; values are in variables CONFIG_SECTION_OPTION.
# shellcheck shell=dash disable=SC2034 # eval uses them

# record NAME ARGUMENT...: for the test.
record() {
	local line="$1" word
	shift
	for word in "$@"; do
		line="$line [$word]"
	done
	echo "$line" >>/calls
}

# fail: what OpenWrt's functions would not do, or do silently wrong.
fail() {
	echo "stand-in: $*" >&2
	exit 99
}

package() { :; }

reset_cb() {
	config_cb() { :; }
	option_cb() { :; }
	list_cb() { :; }
}
reset_cb

config() {
	CONFIG_SECTION=$2
	CONFIG_SECTIONS="$CONFIG_SECTIONS $2"
	eval "CONFIG_${2}_TYPE=\$1"
	config_cb "$1" "$2"
}

option() {
	eval "CONFIG_${CONFIG_SECTION}_$1=\$2"
	option_cb "$1" "$2"
}

list() {
	local joined count
	eval "joined=\$CONFIG_${CONFIG_SECTION}_$1 count=\$((CONFIG_${CONFIG_SECTION}_$1_LENGTH + 1))"
	eval "CONFIG_${CONFIG_SECTION}_$1=\${joined:+\$joined }\$2"
	eval "CONFIG_${CONFIG_SECTION}_$1_LENGTH=$count CONFIG_${CONFIG_SECTION}_$1_ITEM$count=\$2"
	list_cb "$1" "$2"
}

# Another package takes the place of the one before.
config_load() {
	local text
	CONFIG_SECTIONS=
	CONFIG_SECTION=
	text=$(uci -S -n export "$1" 2>/dev/null) || return 1
	eval "$text"
	config_cb
}

# config_get VARIABLE SECTION OPTION [DEFAULT]. Names with other characters give
# nothing, and leave the variable alone.
config_get() {
	[ $# -ge 3 ] || fail "config_get $*"
	case "$2$3" in
	*[!A-Za-z0-9_]*) return 0 ;;
	esac
	eval "$1=\${CONFIG_${2}_$3:-\$4}"
}

# config_foreach FUNCTION TYPE ARGUMENT...
config_foreach() {
	local section type function="$1" want="$2"
	shift 2
	for section in $CONFIG_SECTIONS; do
		config_get type "$section" TYPE
		[ "$type" != "$want" ] || "$function" "$section" "$@"
	done
}

# config_list_foreach SECTION LIST FUNCTION ARGUMENT... has nothing of an option.
config_list_foreach() {
	local item n=1 length section="$1" name="$2" function="$3"
	shift 3
	config_get length "$section" "${name}_LENGTH" 0
	while [ "$n" -le "$length" ]; do
		config_get item "$section" "${name}_ITEM$n"
		"$function" "$item" "$@"
		n=$((n + 1))
	done
}
