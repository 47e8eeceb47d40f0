#!/bin/sh
# Runs the tests on every platform that this machine allows, and prints a line for each: passed, failed, or skipped
# and why.
#
#   test/platforms/all.sh [PLATFORM…]     default: all of them
#
# The exit code is 1 if any platform failed, and 0 otherwise. GO_TEST_ARGUMENTS (default: -count=1 -timeout=15m ./...)
# are the arguments of go test. The output of a platform is printed if it failed, and kept in $QSHM_PLATFORM_LOGS, if
# that is set.
. "$(dirname "$0")/lib.sh"

cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- vet namespaces docker 386 windows arm64 arm s390x riscv64 ppc64le
logs=${QSHM_PLATFORM_LOGS-}
if [ -z "$logs" ]; then
	logs=$(mktemp -d)
	trap 'rm -rf "$logs"' EXIT
	trap 'exit 130' INT TERM HUP
fi
mkdir -p "$logs"

# shellcheck disable=SC2086 # the arguments of go test are several words
platform() {
	arguments=${GO_TEST_ARGUMENTS:--count=1 -timeout=15m ./...}
	case $1 in
	vet) test/platforms/vet.sh ;;
	namespaces) test/platforms/namespaces.sh ;;
	docker) test/platforms/docker.sh ;;
	windows) test/platforms/wine.sh $arguments ;;
	*) test/platforms/qemu.sh "$1" $arguments ;;
	esac
}

failed=0
for name; do
	start=$(date +%s)
	code=0
	platform "$name" >"$logs/$name.log" 2>&1 || code=$?
	took="$(($(date +%s) - start)) s"
	case $code in
	0) echo "$name: passed ($took)" ;;
	77) echo "$name: $(grep '^skipped: ' "$logs/$name.log" | tail -n 1)" ;;
	*)
		echo "$name: failed ($took)"
		sed 's/^/    /' "$logs/$name.log"
		failed=1
		;;
	esac
done
exit $failed
