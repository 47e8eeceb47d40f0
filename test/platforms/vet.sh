#!/bin/sh
# Builds and vets all packages and their tests for every platform that docs/platforms.md names, or for those in
# $VET_PLATFORMS.
#
#   test/platforms/vet.sh [packages]     default: ./...
. "$(dirname "$0")/lib.sh"

cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- ./...

failed=
all="linux/amd64 linux/386 linux/arm linux/arm64 linux/ppc64le linux/riscv64 linux/s390x
	darwin/amd64 darwin/arm64 freebsd/amd64 freebsd/arm64 openbsd/amd64 openbsd/arm64 netbsd/amd64 netbsd/arm64
	dragonfly/amd64 windows/amd64 windows/arm64"
for platform in ${VET_PLATFORMS:-$all}; do
	if out=$(CGO_ENABLED=0 GOOS=${platform%/*} GOARCH=${platform#*/} go vet "$@" 2>&1); then
		echo "$platform: ok"
	else
		echo "$platform: FAILED"
		echo "$out" | sed 's/^/    /'
		failed="$failed $platform"
	fi
done
[ -z "$failed" ] || {
	echo "failed:$failed"
	exit 1
}
