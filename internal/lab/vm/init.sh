#!/bin/busybox sh
# The first program of the router in a box: devices, modules, addresses; then it
# runs what comes in by a port of the machine, one line for each command, and
# answers each with one line. What comes in by a second port goes back at once.
# vm.go says how.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs run /run
/bin/busybox --install -s

# The emulator loses interrupts of the processor's own timer, and a lost one stops
# the machine until that timer comes round, for 26 seconds. The board's timer is a
# good one.
echo MIPS >/sys/devices/system/clockevents/clockevent0/unbind_device

# The control ports and the LAN's card share a PCI interrupt: it stays asked for
# until all who ask are served. The interrupt controller must know, which no firmware
# tells it here: waiting for a change, it would miss a device that asks while the
# other is served, and with that both for ever. 0x4d1 is its register for interrupts
# 8 to 15; the board gives PCI 10 and 11.
printf '\014' | dd of=/dev/port bs=1 seek=$((0x4d1)) 2>/dev/null

while read -r module; do
	insmod "/lib/modules/$module.ko" || echo "init: no module $module"
done </lib/modules/order
rm -r /lib/modules # they would take memory

# await TENTHS WHAT CONDITION: waits for a condition, not for ever.
await() {
	local tenths="$1"
	until eval "$3"; do
		tenths=$((tenths - 1))
		if [ "$tenths" -le 0 ]; then
			echo "init: no $2"
			return
		fi
		usleep 100000
	done
}

# shellcheck disable=SC1091 # made when the router is packed
. /etc/lab
# card ADDRESS NAME: the network card gets a name.
card() {
	for device in /sys/class/net/*; do
		if [ "$(cat "$device/address")" = "$1" ]; then
			ip link set "${device##*/}" name "$2"
		fi
	done
}
card "$LANCARD" lan0
card "$WANCARD" "$WANDEV"
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
brctl addbr "$LANDEV"
brctl addif "$LANDEV" lan0
ip link set lan0 up
ip link set "$LANDEV" up
ip link set "$WANDEV" up
ip addr add "$LAN/24" broadcast + dev "$LANDEV"
ip addr add "$WAN/24" broadcast + dev "$WANDEV"
ip route add default via "$INTERNET"

port=/dev/vport0p1 pulse=/dev/vport0p2
await 300 "$pulse" "[ -e $port ] && [ -e $pulse ]"
await 300 "carrier of lan0" 'grep -q 1 /sys/class/net/lan0/carrier'
while read -r line; do echo "$line"; done <>"$pulse" >&0 &
exec 3<>"$port"
exec <&3 >&3 3<&-
echo ready
while read -r number line; do
	echo "$line" | base64 -d >/run/command
	timeout 120 sh /run/command </dev/null >/run/answer 2>&1
	echo "$number $? $(base64 /run/answer | tr -d '\n')"
done
echo "init: the port is closed" >/dev/console
poweroff -f
