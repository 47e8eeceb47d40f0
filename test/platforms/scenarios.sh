# Sourced by namespaces.sh and docker.sh: what peers that have nothing in common but a store must be able to do.
#
# Whoever sources it defines
#
#	start NAME STEP…   starts a peer in a place of its own, its output in $work/NAME.log
#	finish NAME        waits until it has ended; its exit code
#	slay NAME          kills it (SIGKILL)
#	pause NAME, resume NAME
#
# and sets work, a directory, and setting, which says where the peers are.
# shellcheck shell=sh disable=SC2154

# says NAME TEXT waits until the peer has reported the step.
says() {
	tries=0
	until grep -q "$2" "$work/$1.log" 2>/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 2000 ] || fail "$1 does not get to: $2"
		sleep 0.01
	done
}

fail() {
	echo "FAILED: $*"
	tail -n +1 "$work"/*.log
	exit 1
}

done_well() {
	for peer; do finish "$peer" || fail "$peer"; done
}

scenario() {
	rm -f "$work"/*.log
	echo "$setting: $*"
}

scenarios() {
	scenario "share, in both directions, and leave nothing"
	start a create=4096 attached=2 write=from-a until=from-b detach
	start b attached=1 attach until=from-a write=from-b detach
	done_well a b
	start c gone empty
	done_well c

	scenario "the lock excludes"
	for peer in a b c; do start $peer open=4096 attached=3 add=3000 sum=9000 detach; done
	done_well a b c

	scenario "the holder of the lock is killed, the next is told, a replacement joins"
	start a create=4096 write=first lock=1s hold
	start b attached=1 attach taken busy lock=20s abandoned=true attached=1 unlock write=second until=third detach
	says b "busy: ok"
	slay a
	says b "unlock: ok" # after it has counted the attached
	start c attached=1 attach until=second write=third detach
	done_well b c
	sed -n 's/.*: lock=20s: ok (\(.*\))/   (waited \1 for the lock, the kill included)/p' "$work/b.log"

	scenario "a holder of the lock that is stopped is not robbed"
	start a create=4096 lock=1s hold
	start b attached=1 attach taken
	done_well b
	pause a
	start b attach nolock=1500ms busy
	done_well b
	resume a
	slay a

	scenario "everyone was killed: the key is free at the first try, and nothing is left"
	start a open=4096 lock=1s hold
	says a "lock=1s: ok"
	slay a
	start b create=8192 lock=1s abandoned=false unlock detach gone empty
	done_well b
}
