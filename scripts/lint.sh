#!/bin/bash
# gofmt, vet, staticcheck with all its checks, shellcheck for every script, and
# man for the man pages.
set -euo pipefail
cd "$(dirname "$0")/.."

go=$(command -v "${GO:-go}")
gofmt=$(dirname "$go")/gofmt
unformatted=$("$gofmt" -l cmd internal)
if [[ -n $unformatted ]]; then
	echo "lint: gofmt wants to change:" >&2
	echo "$unformatted" >&2
	exit 1
fi
"$go" vet ./...
PATH=$(dirname "$go"):$PATH "$go" run honnef.co/go/tools/cmd/staticcheck@v0.7.0 -checks all ./...

mapfile -t scripts < <(grep -rlE '^#!/bin/(ba)?sh' scripts .ci files openwrt 2>/dev/null)
shellcheck "${scripts[@]}"

# Ubuntu's containers put a script in the place of man, which says that there
# are no man pages, and the program beside it.
man=$(dpkg-divert --truename /usr/bin/man 2>/dev/null || echo man)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for page in doc/*.[1-8]; do
	LC_ALL=C.UTF-8 MANWIDTH=80 "$man" --warnings --encoding=UTF-8 -l "$page" >"$dir/text" 2>"$dir/warnings" ||
		echo "$man failed" >>"$dir/warnings"
	if ! grep -qx NAME "$dir/text"; then
		echo "$man did not print the page: install man-db, or on a minimized system run unminimize" >>"$dir/warnings"
	elif [[ $(LC_ALL=C.UTF-8 wc -L <"$dir/text") -gt 80 ]]; then
		echo "a line has more than 80 columns" >>"$dir/warnings"
	fi
	if [[ -s $dir/warnings ]]; then
		sed "s|^|lint: $page: |" "$dir/warnings" >&2
		exit 1
	fi
done
echo "lint: ok"
