#!/bin/bash
# Prints the sizes of the binaries in dist/ and fails when one is over its
# budget (in kB; xz -9 is what a router's squashfs comes near to).
set -euo pipefail
cd "$(dirname "$0")/.."

over=0
printf '%-8s %10s %10s %10s %10s\n' target 'kB' budget 'kB xz' budget
while read -r target raw xz; do
	file=dist/upnpd-$target
	size=$(($(stat -c %s "$file") / 1000))
	packed=$(($(xz -9 --stdout "$file" | wc -c) / 1000))
	note=
	if [[ $raw != - ]] && ((size > raw || packed > xz)); then
		note='  OVER BUDGET'
		over=1
	fi
	printf '%-8s %10d %10s %10d %10s%s\n' "$target" "$size" "$raw" "$packed" "$xz" "$note"
done <<'BUDGETS'
mips 3900 1000
mipsle 3900 1000
arm5 3600 1050
arm6 3600 1050
arm7 3600 1050
arm64 3600 1050
amd64 - -
BUDGETS
exit $over
