# Scenarios for peers that share a store and nothing else. namespaces.sh and docker.sh source this file, and define
#
#	start NAME STEP…       starts a peer in namespaces or a container of its own, with its output in $work/NAME.log
#	await_end NAME         waits until the peer has ended, and returns its exit code
#	kill_peer NAME         kills the peer (SIGKILL)
#	stop_peer NAME         stops the peer (SIGSTOP)
#	continue_peer NAME     continues it (SIGCONT)
#
# and set work, a directory, and setting, a description for the output.
# shellcheck shell=sh disable=SC2154

# await_step NAME TEXT waits until the peer has reported the step.
await_step() {
	tries=0
	until grep -q "$2" "$work/$1.log" 2>/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 2000 ] || fail "$1 has not reported: $2"
		sleep 0.01
	done
}

fail() {
	echo "FAILED: $*"
	tail -n +1 "$work"/*.log
	exit 1
}

# await_success NAME… waits until the peers have ended, and fails if one has failed.
await_success() {
	for peer; do await_end "$peer" || fail "$peer"; done
}

scenario() {
	rm -f "$work"/*.log
	echo "$setting: $*"
}

scenarios() {
	scenario "share, in both directions, and leave nothing"
	start a create=4096 attached=2 write=from-a until=from-b detach
	start b attached=1 attach until=from-a write=from-b detach
	await_success a b
	start c missing empty
	await_success c

	scenario "one peer grows the segment, the others see it"
	start a create=10 attached=2 grow=100000 last=from-a until=done detach
	start b attached=1 attach last-is=from-a write=done detach
	await_success a b
	start c missing empty
	await_success c

	scenario "the lock excludes"
	for peer in a b c; do start $peer open=4096 attached=3 add=3000 sum=9000 detach; done
	await_success a b c

	scenario "the owner of the lock is killed, a waiter takes over, and another peer joins"
	start a create=4096 write=first lock=1s hold
	start b attached=1 attach owned busy lock=20s abandoned=true attached=1 unlock write=second until=third detach
	await_step b "busy: ok"
	kill_peer a
	await_step b "unlock: ok" # after it has counted the attachments
	start c attached=1 attach until=second write=third detach
	await_success b c
	sed -n 's/.*: lock=20s: ok (\(.*\))/   (waited \1 for the lock, the kill included)/p' "$work/b.log"

	scenario "a stopped owner keeps the lock"
	start a create=4096 lock=1s hold
	start b attached=1 attach owned
	await_success b
	stop_peer a
	start b attach nolock=1500ms busy
	await_success b
	continue_peer a
	kill_peer a

	scenario "all peers were killed: the first create works, and nothing is left"
	start a open=4096 lock=1s hold
	await_step a "lock=1s: ok"
	kill_peer a
	start b create=8192 lock=1s abandoned=false unlock detach missing empty
	await_success b
}
