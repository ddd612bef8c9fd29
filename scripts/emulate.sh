#!/bin/bash
# Runs the mips and mipsle binaries under qemu's user-mode emulation: each must
# start and print the version.
set -euo pipefail
cd "$(dirname "$0")/.."

want=$1
for target in mips mipsle; do
	emulator=qemu-${target/mipsle/mipsel}
	command -v "$emulator-static" >/dev/null && emulator+=-static
	got=$("$emulator" "dist/upnpd-$target" --version)
	if [[ $got != "$want" ]]; then
		echo "emulate: dist/upnpd-$target --version printed '$got', want '$want'" >&2
		exit 1
	fi
	echo "emulate: $target starts and prints $got"
done
