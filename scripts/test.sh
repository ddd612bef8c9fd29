#!/bin/bash
# Runs all Go tests with the race detector. As root nothing may skip, nor under
# CI: a test that did fails the run.
set -euo pipefail
cd "$(dirname "$0")/.."

go=${GO:-go}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
export UPNPD_RACE=1 # the daemons in the lab, too
# They, and each upnpctl, would sleep for a second at their end.
export GORACE="atexit_sleep_ms=0 ${GORACE:-}"
"$go" test -race -count=1 -timeout 12m -v ./... >"$log" 2>&1 || status=$?

# Packages, and what failed with all that it said.
grep -E '^(ok|FAIL|panic:|---|#)|^\?' "$log" | grep -vE '^--- (PASS|SKIP)|no test files' || true
grep -E '^ +vm: ' "$log" || true # what the daemon needs on a small router
count() { grep -cE "^ *--- $1: " "$log" || true; }
passed=$(count PASS) failed=$(count FAIL) skipped=$(count SKIP)
if [[ $status -ne 0 ]]; then
	echo "----- the whole log of the failing packages"
	grep -vE '^ *(=== (RUN|PAUSE|CONT|NAME)|--- PASS)' "$log" | tail -n 500
fi
if [[ $skipped -gt 0 ]]; then
	grep -B 1 -E '^ *--- SKIP: ' "$log" # the reason comes first
	if [[ $EUID -eq 0 || -n ${CI:-} ]]; then
		echo "test: tests were skipped, though this is root or CI" >&2
		status=1
	fi
fi
echo "$passed passed, $failed failed, $skipped skipped"
exit "$status"
