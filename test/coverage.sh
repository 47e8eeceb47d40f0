#!/bin/sh
# Prints the coverage of each package, in percent of its statements, by all tests
# together and across the processes that they start. A process that is killed writes no
# counts.
#
#	test/coverage.sh [functions]    # also each function that is not covered entirely
set -eu
cd "$(dirname "$0")/.."
packages=qshm/shm/...,qshm/lockfile,qshm/keymap
counts=$(mktemp -d)
chmod 777 "$counts" # some of the processes run as another user
trap 'rm -rf "$counts" "$counts.log" "$counts.txt"' EXIT

passed=true
# The go command has a GOCOVERDIR of its own for each test program; -exec sets it to ours,
# for the processes that the program starts.
go test -count=1 -covermode=atomic -coverpkg="$packages" -exec "env GOCOVERDIR=$counts" \
	./keymap ./lockfile ./shm/... ./test -args -test.gocoverdir="$counts" >"$counts.log" 2>&1 ||
	{ passed=false && cat "$counts.log"; }

go tool covdata percent -i="$counts"
if [ "${1-}" = functions ]; then
	go tool covdata textfmt -i="$counts" -o="$counts.txt"
	go tool cover -func="$counts.txt" | grep -v '100.0%'
fi
$passed
