#!/bin/sh
# What /etc/init.d/upnpd makes upnpd.conf with: the options of UCI, networks and
# rules become lines of the daemon's configuration. A line ends in a comment that
# names its option, so that what the daemon says of a line can be said of the
# option; what a value may be, the daemon knows alone.
#
# functions.sh has a function for each word of a UCI file: no function here may be
# called config, option or list.
# shellcheck shell=dash disable=SC2034,SC2154,SC2317 # the other file has the rest

NEWLINE="
"

# The options of a section: the daemon's and this script's own, and miniupnpd's
# names for them.
OWN="enabled extif intif extip port listenport firewall secure max_lease
	max_mappings max_mappings_per_client notify_interval uuid friendly_name serial
	model_number presentation_url upnp log_level lease_file control_socket
	idle_timeout allow deny iptables_location debug_mode create_forward_rules
	forward_rules_append forward_chain_name prerouting_chain_name upstream_bitrate
	downstream_bitrate duration description_document_name xml_document_path
	upload download http_port user sandbox
	external_iface internal_iface external_zone external_ip enable_upnp secure_mode
	natpmp enable_natpmp pcp pcp_nonce min_lease igd igdv1 ipv6 ipv6_disable
	extif6 external_iface6 serial_number upnp_lease_file log_output"
# What this version does not do. With NAME=VALUE there is nothing to do.
LACKING="use_stun use_stun=0 stun_host stun_port
	ext_allow_private_ipv4 ext_allow_private_ipv4=1 system_uptime config_file
	upnp_lease_file6"
# A section with one of these is miniupnpd's and has its units and its rules.
MINIUPNPD="external_iface internal_iface enable_upnp enable_natpmp secure_mode
	upnp_lease_file log_output igdv1"

# upnpd_log PRIORITY TEXT: one line.
upnpd_log() {
	local text
	text=$(printf %s "$2" | tr '\n' ' ')
	logger -t upnpd -p "daemon.$1" "$text"
	[ ! -t 2 ] || echo "upnpd: $text" >&2
}

# upnpd_note TEXT: something to know, also in upnpd.conf, so that a reload does not
# log it once more.
upnpd_note() {
	echo "# $1"
	if [ -z "$RELOAD" ] || ! grep -qxF "# $1" "$CONF" 2>/dev/null; then
		upnpd_log notice "$1"
	fi
}

# upnpd_bad OPTION REASON: the configuration cannot be used.
upnpd_bad() {
	upnpd_log err "upnpd.$1: $2"
	BAD=1
}

# upnpd_has LIST WORD
upnpd_has() {
	local word
	for word in $1; do
		[ "$word" != "$2" ] || return 0
	done
	return 1
}

# upnpd_get NAME...: VALUE is that of the first of these options that is set, with
# blanks between the items of a list. FROM is where it stands.
upnpd_get() {
	local name
	VALUE=
	for name in "$@"; do
		config_get VALUE "$SECTION" "$name"
		FROM=$SECTION.$name
		[ -z "$VALUE" ] || return 0
	done
	return 1
}

# upnpd_bool makes VALUE 1 or 0 when it is one of UCI's words for that.
upnpd_bool() {
	case "$VALUE" in
	1 | on | true | yes | enabled) VALUE=1 ;;
	0 | off | false | no | disabled) VALUE=0 ;;
	esac
}

# upnpd_line OPTION: a line of upnpd.conf with VALUE. The comment says where it is
# from, for upnpd_explain.
upnpd_line() {
	case "$VALUE" in
	*'"'* | *"$NEWLINE"*) upnpd_bad "$FROM" "a value cannot have a double quote or a line break" ;;
	*) printf '%s = "%s" # %s\n' "$1" "$VALUE" "$FROM" ;;
	esac
}

# upnpd_copy OPTION NAME...: an option of the daemon, as one of the names sets it.
upnpd_copy() {
	local to="$1"
	shift
	upnpd_get "$@" || return 0
	case "$to=$VALUE" in # UCI has no empty values
	presentation_url=none | lease_file=none | control_socket=none) VALUE= ;;
	esac
	upnpd_line "$to"
}

# upnpd_flag OPTION NAME...: the same for yes and no.
upnpd_flag() {
	local to="$1"
	shift
	upnpd_get "$@" || return 0
	upnpd_bool
	upnpd_line "$to"
}

# upnpd_rate OPTION NAME: an option in bit/s from one in kbit/s, or in miniupnpd's
# kByte/s.
upnpd_rate() {
	upnpd_get "$2" || return 0
	case "$VALUE" in
	*[!0-9]* | 0?* | ?????????????*) upnpd_bad "$FROM" "\"$VALUE\": want a number, in $UNIT" ;;
	*)
		VALUE=$((VALUE * FACTOR))
		upnpd_line "$1"
		;;
	esac
}

# upnpd_load reads the configuration: SECTION is the one called config, or the
# first of its type; SEEN are all options, EXTRA the sections of other types.
upnpd_load() {
	local name
	SECTION='' SEEN='' EXTRA='' LEGACY='' UNIT=kbit/s FACTOR=1000
	config_cb() {
		case "$1" in
		'' | upnpd | perm_rule) ;;
		*) upnpd_has "$EXTRA" "$1" || EXTRA="$EXTRA $1" ;;
		esac
	}
	option_cb() { upnpd_has "$SEEN" "$CONFIG_SECTION.$1" || SEEN="$SEEN $CONFIG_SECTION.$1"; }
	list_cb() { option_cb "$1"; }
	config_load upnpd
	reset_cb
	config_foreach upnpd_section upnpd
	for name in $MINIUPNPD; do
		! upnpd_has "$SEEN" "$SECTION.$name" || LEGACY=1 UNIT=kByte/s FACTOR=8192
	done
}

upnpd_section() {
	[ -n "$SECTION" ] && [ "$1" != config ] || SECTION=$1
}

# upnpd_ignored names what has no effect.
upnpd_ignored() {
	local name lacking='' unknown=''
	for name in $SEEN; do
		[ "${name%.*}" = "$SECTION" ] || continue
		name=${name#*.}
		upnpd_get "$name"
		upnpd_bool
		if upnpd_has "$OWN" "$name" || upnpd_has "$LACKING" "$name=$VALUE"; then
			continue
		elif upnpd_has "$LACKING" "$name"; then
			lacking="$lacking $name"
		else
			unknown="$unknown $name"
		fi
	done
	[ -z "$lacking" ] || upnpd_note "ignored, since this version has no such thing:$lacking"
	[ -z "$unknown$EXTRA" ] || upnpd_note "ignored, since unknown:$unknown${EXTRA:+; sections$EXTRA}"
}

# upnpd_resolve NAME [DEPTH]: DEVICE is the device of a network, while that is
# down the one that it will have, or NAME itself when it is a device; else "".
# NETWORK is set when NAME is a network.
upnpd_resolve() {
	DEVICE='' NETWORK=''
	case "$1" in
	'' | *[!A-Za-z0-9_]*) ;; # an error of syntax in network.sh, as eth0.2
	*)
		network_get_device DEVICE "$1" && NETWORK=$1 # also one that another one made
		[ "$(uci -q get "network.$1")" != interface ] || NETWORK=$1
		;;
	esac
	if [ -n "$NETWORK" ]; then
		[ -n "$DEVICE" ] || upnpd_planned "$1" "${2:-0}"
		NETWORK=$1
	elif [ -n "$1" ] && [ -e "/sys/class/net/$1" ]; then
		DEVICE=$1
	fi
}

# upnpd_planned NETWORK DEPTH: what netifd will call the device of a network that
# is down, else what it was called before: going down shall change nothing.
upnpd_planned() {
	local proto device
	proto=$(uci -q get "network.$1.proto")
	device=$(uci -q get "network.$1.device" || uci -q get "network.$1.ifname")
	device=${device%% *}
	DEVICE=
	[ "$(uci -q get "network.$1.type")" != bridge ] || device=br-$1
	case "$proto=$device" in
	ppp=* | pppo[ae]=* | pptp=* | l2tp=* | sstp=* | 3g=*)
		DEVICE=$(uci -q get "network.$1.pppname" || echo "$proto-$1")
		;;
	*=@*) [ "$2" -gt 3 ] || upnpd_resolve "${device#*@}" $(($2 + 1)) ;; # another network's
	*=*/*) ;;                                                           # a modem
	*) DEVICE=$device ;;
	esac
	[ -n "$DEVICE" ] || DEVICE=$(sed -n "s/^# network $1 was //p" "$CONF" 2>/dev/null)
}

# upnpd_zone NAME prints the first network of a zone of the firewall. It is a
# subshell, since config_load forgets the configuration before.
upnpd_zone() (
	upnpd_in_zone() {
		local name network
		config_get name "$1" name
		config_get network "$1" network
		[ "$name" != "$2" ] || echo "${network%% *}"
	}
	config_load firewall
	config_foreach upnpd_in_zone zone "$1"
)

# upnpd_uplink writes extif. A network that is down is no error: the daemon waits
# for its device.
upnpd_uplink() {
	local name
	FOLLOW=''
	if upnpd_get extif external_iface; then
		name=$VALUE
	elif upnpd_get external_zone; then
		name=$(upnpd_zone "$VALUE")
		[ -n "$name" ] || upnpd_bad "$FROM" "\"$VALUE\": want a zone of the firewall with a network"
	else
		FROM="$SECTION.extif is not set" FOLLOW=1
		network_find_wan name || name=wan
	fi
	upnpd_resolve "$name"
	UPLINK=${DEVICE:-$(printf %.15s "$name")} # as long as a device's name may be
	if [ -n "$NETWORK" ]; then
		NETWORKS=$name
		echo "# network $name was $UPLINK"
	elif [ -z "$DEVICE" ] && [ -z "$BAD" ]; then
		upnpd_note "upnpd.$FROM: \"$name\" is no network, and no device so far; waiting for it"
	fi
	VALUE=$UPLINK
	upnpd_line extif
}

# upnpd_lans writes intif. A network without a device is left out until it has
# one: the daemon wants all that it is told of.
upnpd_lans() {
	local name
	upnpd_get intif internal_iface || VALUE=lan FROM=$SECTION.intif
	set -f
	for name in $VALUE; do
		upnpd_resolve "$name"
		[ -e "/sys/class/net/$DEVICE" ] || DEVICE=
		[ -z "$NETWORK" ] || upnpd_has "$NETWORKS" "$name" || NETWORKS="$NETWORKS $name"
		if [ -n "$DEVICE" ] && [ "$DEVICE" = "$UPLINK" ]; then
			upnpd_bad "$FROM" "\"$name\" is the uplink, $UPLINK"
		elif [ -n "$DEVICE" ]; then
			upnpd_has "$LANS" "$DEVICE" || LANS="$LANS $DEVICE"
		elif [ -n "$NETWORK" ]; then
			upnpd_note "upnpd.$FROM: network $name has no device now; waiting for it"
		else
			upnpd_bad "$FROM" "\"$name\" is neither a network nor a device"
		fi
	done
	set +f
	for VALUE in $LANS; do
		upnpd_line intif
	done
}

# upnpd_rules writes who may map what: the lists of the section, then the
# perm_rules in their order.
upnpd_rules() {
	local verb
	for verb in deny allow; do
		FROM=$SECTION.$verb
		config_list_foreach "$SECTION" "$verb" upnpd_rule "$verb"
		config_get VALUE "$SECTION" "${verb}_LENGTH"
		[ -n "$VALUE" ] || ! upnpd_get "$verb" || upnpd_rule "$VALUE" "$verb"
	done
	RULE=0
	config_foreach upnpd_perm_rule perm_rule
	# miniupnpd allows what no rule matches, not only ports from 1024.
	[ -z "$LEGACY" ] || echo "allow any 0.0.0.0/0 any # since miniupnpd does"
}

# upnpd_rule RULE VERB
upnpd_rule() {
	case "$1" in
	*'#'* | *"$NEWLINE"*) upnpd_bad "$FROM" "a rule cannot have a # or a line break" ;;
	*) echo "$2 $1 # $FROM" ;;
	esac
}

# upnpd_perm_rule SECTION. What it leaves out means what it means to miniupnpd.
upnpd_perm_rule() {
	local action ext_ports int_addr int_ports proto from comment
	FROM="@perm_rule[$RULE]"
	RULE=$((RULE + 1))
	config_get action "$1" action deny
	config_get ext_ports "$1" ext_ports any
	config_get int_addr "$1" int_addr 0.0.0.0/0
	config_get int_ports "$1" int_ports any
	config_get proto "$1" proto
	config_get from "$1" from
	config_get comment "$1" comment
	case "$action" in
	allow | deny) ;;
	*) upnpd_bad "$FROM.action" "\"$action\": want allow or deny" ;;
	esac
	upnpd_word ext_ports "$ext_ports"
	upnpd_word int_addr "$int_addr"
	upnpd_word int_ports "$int_ports"
	upnpd_word proto "$proto"
	upnpd_word from "$from"
	case "$comment" in
	'' | *"$NEWLINE"*) ;;
	*) printf '# rule: %.200s\n' "$comment" ;;
	esac
	echo "$action $(upnpd_range "$ext_ports") $int_addr $(upnpd_range "$int_ports")${proto:+ $proto}${from:+ from $from} # $FROM"
}

upnpd_word() {
	case "$2" in
	*[!A-Za-z0-9./:-]*) upnpd_bad "$FROM.$1" "\"$2\": want one word" ;;
	esac
}

# upnpd_range PORTS: miniupnpd's ranges may have a colon.
upnpd_range() {
	case "$1" in
	*:*) echo "${1%%:*}-${1#*:}" ;;
	*) echo "$1" ;;
	esac
}

# upnpd_write prints upnpd.conf.
upnpd_write() {
	echo "# Made by /etc/init.d/upnpd from /etc/config/upnpd; changes here are lost."
	upnpd_ignored
	upnpd_uplink
	upnpd_lans
	upnpd_paths
	upnpd_get firewall || FROM="$SECTION.firewall is not set" VALUE=auto
	[ "$VALUE" != nft ] || VALUE=nftables
	FIREWALL=$VALUE
	upnpd_jail
	if [ -n "$JAIL" ]; then
		echo "# user upnpd, in a jail; writes in $DIRS"
	else
		echo "# user root"
	fi
	VALUE=$FIREWALL FROM=$SECTION.firewall
	upnpd_line firewall
	upnpd_copy extip extip external_ip
	upnpd_copy port port http_port
	upnpd_copy listenport listenport
	upnpd_flag upnp upnp enable_upnp
	upnpd_flag natpmp natpmp enable_natpmp
	if [ -n "$LEGACY" ] && ! upnpd_get pcp && upnpd_get enable_natpmp; then
		upnpd_bool # of both there
		upnpd_line pcp
	else
		upnpd_flag pcp pcp
	fi
	upnpd_flag secure secure secure_mode
	upnpd_faces
	upnpd_options
	upnpd_rules
}

# upnpd_faces writes igd and ipv6: miniupnpd's names say the opposite. extif6 is
# accepted: pinholes are for every way to the internet.
upnpd_faces() {
	if upnpd_get igd; then
		upnpd_line igd
	elif upnpd_get igdv1; then
		upnpd_bool
		case "$VALUE" in
		0) VALUE=auto ;;
		esac
		upnpd_line igd
	fi
	if upnpd_get ipv6; then
		upnpd_bool
		upnpd_line ipv6
	elif upnpd_get ipv6_disable; then
		upnpd_bool
		case "$VALUE" in
		0) VALUE=1 ;;
		1) VALUE=0 ;;
		esac
		upnpd_line ipv6
	fi
}

# upnpd_options writes what needs no thought.
upnpd_options() {
	local name
	for name in max_lease min_lease pcp_nonce max_mappings max_mappings_per_client notify_interval \
		friendly_name model_number presentation_url idle_timeout iptables_location \
		debug_mode forward_chain_name prerouting_chain_name upstream_bitrate \
		downstream_bitrate duration description_document_name xml_document_path; do
		upnpd_copy "$name" "$name"
	done
	for name in create_forward_rules forward_rules_append sandbox; do
		upnpd_flag "$name" "$name"
	done
	[ -n "$JAIL" ] || upnpd_copy user user # procd starts it as its user there
	upnpd_copy serial serial serial_number
	upnpd_rate upstream_bitrate upload
	upnpd_rate downstream_bitrate download
	! upnpd_get uuid || case "$VALUE" in
	nocli | 00000000-0000-0000-0000-000000000000) ;; # miniupnpd's words for none
	*) upnpd_line uuid ;;
	esac
	! upnpd_get log_level log_output || {
		upnpd_bool
		case "$FROM=$VALUE" in
		*.log_output=1) VALUE=debug ;;
		*.log_output=0 | *.log_output=default) VALUE=info ;;
		esac
		upnpd_line log_level
	}
}
