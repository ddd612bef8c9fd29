#!/bin/bash
# gofmt, vet, staticcheck with all its checks, and shellcheck for every script.
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
echo "lint: ok"
