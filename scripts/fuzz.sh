#!/bin/bash
# Runs every fuzz target of the module, each for FUZZTIME (1m), JOBS (1) of them
# at a time; words on the command line choose targets by their names.
#
# What is found goes to testdata/fuzz of the target's package, where go test runs
# it ever after: it is to be committed with the repair. What is only interesting
# stays outside the repository, for the next run (go clean -fuzzcache ends it).
set -euo pipefail
cd "$(dirname "$0")/.."

go=$(command -v "${GO:-go}")
time=${FUZZTIME:-1m} jobs=${JOBS:-1}
columns='%-24s %-16s %12s %8s  %s\n'

# workers PID: the processes at the ends of its family.
workers() {
	local child
	if [[ -z $(pgrep -P "$1") ]]; then
		echo "$1"
		return
	fi
	for child in $(pgrep -P "$1"); do
		workers "$child"
	done
}

# watch PID LOG: an input that never ends shows as seconds without executions. The
# fuzzer would wait and then call it ok; a worker that ends it takes for a failure,
# and it writes the input down.
watch() {
	while sleep 1 && kill -0 "$1" 2>/dev/null; do
		if [[ $(grep '^fuzz: elapsed' "$2" | tail -n 2 | grep -c '(0/sec)') -eq 2 ]]; then
			workers "$1" | grep -vx "$1" | xargs -r kill -QUIT 2>/dev/null || true
			sleep 3
		fi
	done
}

# one BINARY DIR TARGET: fuzzes it and prints its line; the rest is in BINARY's
# directory. Status 1: the target fails.
one() {
	local binary=$1 dir=$2 target=$3 package log status=0 word=ok
	package=${dir#"$PWD"/}
	log=$(dirname "$binary")/$target.log
	(cd "$dir" && exec "$binary" -test.run='^$' -test.fuzz="^$target\$" -test.fuzztime="$time" -test.fuzzminimizetime=1s \
		-test.parallel="$each" -test.fuzzcachedir="$cache/$package") >"$log" 2>&1 &
	watch $! "$log" &
	wait %1 || status=$?
	if [[ $status -ne 0 ]]; then
		word=FAIL
		# The end of the time is taken for a failure now and then: go.dev/issue/75804.
		if grep -qx ' *context deadline exceeded' "$log" && ! grep -qE 'Failing input|panic|seed corpus' "$log"; then
			status=0 word=ok
		fi
	fi
	# The last line of progress: "fuzz: elapsed: 6s, execs: 90 (15/sec), new interesting: 5 (total: 16)"
	local execs new
	execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
	new=$(sed -n 's/.*new interesting: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
	# shellcheck disable=SC2059
	printf "$columns" "$package" "$target" "${execs:--}" "${new:--}" "$word"
	return "$status"
}

# told BINARY DIR TARGET: what the target that failed said, and how to see it again.
told() {
	local log input
	log=$(dirname "$1")/$3.log
	echo "----- $3 in ${2#"$PWD"/}"
	grep -v '^fuzz: elapsed' "$log" | tail -n 100
	input=$(sed -n 's|.*testdata/fuzz/[^/]*/\([0-9a-f]*\)$|\1|p' "$log" | head -n 1)
	if [[ -n $input ]]; then
		echo "The input is ${2#"$PWD"/}/testdata/fuzz/$3/$input"
	fi
	echo "Again: go test -run '^$3\$${input:+/$input}' ./${2#"$PWD"/}"
}

if [[ ${1:-} == --one ]]; then # as xargs calls it
	shift
	if one "$@"; then
		exit 0
	fi
	echo "$*" >>"$failed"
	exit 0
fi

cpus=$(nproc)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GO=$go FUZZTIME=$time each=$((cpus / jobs > 1 ? cpus / jobs : 1)) failed=$work/failed
cache=$("$go" env GOCACHE)/fuzz/upnpd
export cache
wanted() { # NAME WORD...: no words want all
	local name=$1 word
	shift
	for word in "$@"; do
		[[ $name == *$word* ]] && return
	done
	[[ $# -eq 0 ]]
}

# A binary for each package that has targets, with the counters of the fuzzer.
began=$SECONDS
mapfile -t packages < <("$go" list -f '{{.Dir}} {{.TestGoFiles}} {{.XTestGoFiles}}' ./... | grep -v '\[\] \[\]$' | cut -d ' ' -f 1)
for dir in "${packages[@]}"; do
	some= # that is wanted, if a build tag does not leave it out
	while read -r _ target; do
		wanted "${dir#"$PWD"/}/$target" "$@" && some=yes
	done < <(grep -ohs '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go)
	[[ -n $some ]] || continue
	at=$(mktemp -d -p "$work")
	"$go" test -c -fuzz=. -o "$at/binary" "$dir"
	for target in $(cd "$dir" && "$at/binary" -test.list '^Fuzz' | grep '^Fuzz'); do
		if wanted "${dir#"$PWD"/}/$target" "$@"; then
			echo "$at/binary $dir $target" >>"$work/targets"
		fi
	done
done
[[ -s $work/targets ]] || {
	echo "fuzz: no such target: $*" >&2
	exit 1
}
echo "fuzz: targets $(wc -l <"$work/targets"), $time each, $jobs at a time"
# shellcheck disable=SC2059
printf "$columns" package target executions new result
xargs -P "$jobs" -L 1 "$0" --one <"$work/targets"
echo "fuzz: $((SECONDS - began)) s"
if [[ -s $failed ]]; then
	while read -r binary dir target; do
		told "$binary" "$dir" "$target"
	done <"$failed"
	exit 1
fi
