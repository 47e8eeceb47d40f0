#!/bin/sh
# Runs Go tests as Windows programs, under wine 10.
#
#   test/platforms/wine.sh [arguments of go test]     default: ./...
#
# in the current directory's module. CGO_ENABLED=1 CC=x86_64-w64-mingw32-gcc-win32 … -race works too.
#
# Go needs a newer wine than Debian 12 has, so the first run makes a Debian 13 with wine, about 1.3 GB in two to
# five minutes, under $QSHM_WINE_CACHE (default: ${XDG_CACHE_HOME:-$HOME/.cache}/qshm-wine). You can remove it while no
# run is in progress: nothing stays mounted, because each run mounts in a mount namespace of its own, which ends with
# the last process of the run.
. "$(dirname "$0")/lib.sh"

cache=${QSHM_WINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qshm-wine}
root=$cache/root
prefix=/root/prefix # inside the root
self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")

# mirror prints the Debian mirror this machine's apt uses, or nothing, which leaves the choice to debootstrap.
mirror() {
	cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
		sed -n -E 's,^(deb( \[[^]]*\])?|URIs:) +([^ ]+/debian)/?( .*|$),\3,p' | head -n 1
}

# build makes the root. It gets its name last: an interrupted build leaves only "partial".
build() {
	rm -rf "$cache/partial"
	debootstrap --variant=minbase trixie "$cache/partial" "$(mirror)" &&
		chroot "$cache/partial" apt-get update &&
		DEBIAN_FRONTEND=noninteractive chroot "$cache/partial" \
			apt-get install -y --no-install-recommends wine wine64 &&
		rm -rf "$cache"/partial/var/cache/apt/archives/*.deb &&
		mv "$cache/partial" "$root"
}

# inside DIRECTORY COMMAND… executes the command in the root. It does not pass on TMPDIR, on which wine 10 aborts, nor
# GOTMPDIR, by which package testing would make temporary directories without a drive letter.
inside() {
	dir=$1
	shift
	exec chroot "$root" /usr/bin/env --chdir="$dir" -u DISPLAY -u TMPDIR -u GOTMPDIR WINEPREFIX=$prefix WINEDEBUG="${WINEDEBUG:--all}" \
		XDG_RUNTIME_DIR=/tmp HOME=/root PATH=/usr/bin:/bin "$@"
}

case ${1-} in
--exec) # go test runs this in place of each test binary, in the package's directory
	shift
	inside "$PWD" wine "$@"
	;;
--build)
	build
	exit
	;;
--test)
	shift
	tree=$(module)
	work=$(mktemp -d)
	# The wineserver outlives its clients by seconds, and keeps the mounts that it was started with: end it with the run.
	trap '(inside / wineserver -k) || true; rm -rf "$work"' EXIT
	trap 'exit 130' INT TERM HUP

	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	mount -t tmpfs tmpfs "$root/tmp"
	for dir in "$tree" "$work"; do # the same names inside as outside
		mkdir -p "$root$dir"
		mount --bind "$dir" "$root$dir"
	done

	exec 8>&- # the cache's lock: a wineserver must not inherit it
	if ! [ -e "$root$prefix.complete" ]; then
		rm -rf "${root:?}$prefix"
		(inside / wine wineboot -i) >"$work/wineboot" 2>&1 || { cat "$work/wineboot" >&2 && skip "wineboot fails"; }
		(inside / wineserver -w) # which writes the registry as it ends, unless it is killed
		touch "$root$prefix.complete"
	fi
	# Killed tests of earlier runs may have left files in Windows' temp directory.
	rm -rf "$root$prefix"/drive_c/users/*/Temp/* "$root$prefix"/drive_c/users/*/AppData/Local/Temp/*

	[ $# -gt 0 ] || set -- ./...
	QSHM_WINE_CACHE=$cache GOTMPDIR=$work GOOS=windows GOARCH=amd64 CGO_ENABLED=${CGO_ENABLED:-0} \
		go test -p 1 -exec "'$self' --exec" "$@"
	exit
	;;
esac

need_root "for a chroot with wine"
command -v unshare >/dev/null || skip "no unshare (util-linux)"
# With a process namespace, no Windows process outlives the run, however it ends.
in_namespace="unshare --mount --propagation private --pid --fork --kill-child"
$in_namespace true 2>/dev/null || skip "mount and process namespaces are not allowed here"
mkdir -p "$cache"
exec 8>"$cache/lock"
flock -n 8 || { echo "$0: waiting for another run" >&2 && flock 8; }
if ! [ -d "$root" ]; then
	need debootstrap debootstrap
	$in_namespace "$self" --build >"$cache/build.log" 2>&1 ||
		skip "Debian 13 with wine cannot be installed, see $cache/build.log"
fi
$in_namespace "$self" --test "$@"
