#!/bin/sh
# Runs peers in IPC, PID, mount, UTS, time and user namespaces of their own. They share one directory and nothing else.
#
#   test/platforms/namespaces.sh [arguments of go test]
#
# With arguments, it also runs go test in such namespaces.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/scenarios.sh"

[ "$(uname)" = Linux ] || skip "only Linux has namespaces"
command -v unshare >/dev/null || skip "no unshare (util-linux)"
root=$(cd "$(dirname "$0")/../.." && pwd)

work=$(mktemp -d)
chmod 755 "$work"
pids=
cleanup() {
	for p in $pids; do kill -9 "$p" 2>/dev/null || true; done
	wait
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
(cd "$root" && CGO_ENABLED=0 go build -o "$work/peer" ./test/platforms/peer)

# The monotonic clock of peer b is a day ahead of that of the others.
later="--time --monotonic 86400 --boottime 86400"
unshare --fork $later true 2>/dev/null || later=

# in_namespaces PEER COMMAND… runs the command in namespaces of its own, as another user if the setting has several.
in_namespaces() {
	as='' user=''
	case $setting in
	*several*)
		case $1 in a) id=60001 ;; b) id=60002 ;; *) id=60003 ;; esac
		as="setpriv --reuid=$id --regid=$id --clear-groups"
		;;
	esac
	case $setting in *user*) user="--user --map-root-user" ;; esac
	case $1 in b) clock=$later ;; *) clock= ;; esac
	shift
	# shellcheck disable=SC2086
	exec $as unshare $user $clock --ipc --pid --fork --kill-child --mount-proc --mount --uts "$@"
}

# start makes the peer process 1 of its namespace, with a /dev/shm of its own and the store under another path.
start() {
	peer=$1
	shift
	case $setting in *several*) set -- perm=0666 "$@" ;; esac
	mkdir -p "$work/$peer"
	# shellcheck disable=SC2016
	in_namespaces "$peer" sh -c '
		work=$1 peer=$2 && shift 2 &&
		hostname "qshm-$peer" &&
		mount -t tmpfs tmpfs /dev/shm &&
		mount --bind "$work/store" "$work/$peer" &&
		QSHM_DIR=$work/$peer exec "$work/peer" key "$@"' \
		sh "$work" "$peer" "$@" >"$work/$peer.log" 2>&1 &
	eval "pid_$peer=$!"
	pids="$pids $!"
}

pid() { eval "echo \$pid_$1"; }

await_end() {
	wait "$(pid "$1")"
}

kill_peer() {
	kill -9 "$(pid "$1")" # which kills the peer too: --kill-child
	wait "$(pid "$1")" || true
}

# inner_pid prints the process id of the peer itself, which is the child of unshare.
inner_pid() { cat "/proc/$(pid "$1")/task/$(pid "$1")/children"; }
stop_peer() { kill -STOP "$(inner_pid "$1")"; }
continue_peer() { kill -CONT "$(inner_pid "$1")"; }

ran=0
for setting in "namespaces" "user namespaces too" "several users in user namespaces"; do
	if ! (in_namespaces a true) 2>/dev/null; then
		echo "$setting: not allowed here"
		continue
	fi
	case $setting in *several*) mkdir -m 0777 "$work/store" ;; *) mkdir -m 0700 "$work/store" ;; esac
	scenarios
	rm -rf "$work/store"
	ran=$((ran + 1))
done
[ $ran -gt 0 ] || skip "no namespaces are allowed here"

if [ $# -gt 0 ]; then
	setting="namespaces"
	[ "$(id -u)" = 0 ] || setting="user namespaces"
	echo "$setting: go test $*"
	# shellcheck disable=SC2016
	(in_namespaces a sh -c 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec go test "$@"' sh "$@")
fi
