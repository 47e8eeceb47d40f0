#!/usr/bin/env bash
# Leaves out one step at a time, and shows that a check fails then; so that "ok" means something.
# Steps without which the checks still hold are listed as such, with the reason to keep them.
# Installs nothing; exit status 3: a tool is missing.
. "$(dirname "$0")/common.sh"

# without fails|holds MUTATION MODEL KIND DEFINES WHAT
without() {
	explore "$3" "$4" "-D$2 $5"
	local got=fails
	[ "$result" = ok ] && got=holds
	case $result in "not completed"*) got="?" ;; esac
	[ "$got" = "$1" ] || failed=1
	printf '%-4s %-5s %-24s %s\n' "$([ "$got" = "$1" ] && echo ok || echo FAIL)" "$got" "${2#M_}" "$6"
	[ "$got" = fails ] && printf '           -> %s\n' "$result"
}

p='-DPLAIN -DROUNDS=2 -DMAXCANCEL=1'
c='-DROUNDS=1 -DMAXCRASH=1 -DMAXCANCEL=1 -DTRY -DSNAP'
without fails M_NO_WAKE            lock safety "$p" 'unlock wakes nobody'
without fails M_WAKE_FIRST         lock safety "$p" 'unlock wakes before it swaps the word'
without fails M_TAKER_DROPS_W      lock safety "$p" 'a taker that has slept does not set W'
without fails M_MARK_NO_W          lock safety "$p" 'a waiter sleeps without W'
without fails M_SLEEP_NO_COMPARE   lock safety "$p" 'a waiter sleeps whatever the word is now'
without fails M_GIVE_UP_NO_WAKE    lock safety "$p" 'a waiter that gives up passes no wake on (costs the others a time slice)'
without fails M_GIVE_UP_KEEPS_H    lock safety "$p" 'a waiter that gives up leaves the word reserved'
without fails M_TAKER_KEEPS_H      lock safety "$p" 'a taker leaves the word reserved'
without fails M_TRY_HONOURS_H      lock safety "$c" 'TryLock honours a reservation whose maker has died'
without fails M_H_IGNORED          lock live '-DPLAIN -DSTARVE' 'anybody takes a reserved word'
without fails M_UNLOCK_DROPS_H     lock live '-DPLAIN -DSTARVE' 'unlock drops the reservation'
without fails M_NO_SLICE           lock safety "-DROUNDS=1 -DPLAIN -DMAXCRASH=1" 'sleeps are not bounded'
without fails M_NO_PROBE           lock live '-DLIVE -DPLAIN -DROUNDS=1 -DMAXCRASH=1' 'nobody asks whether the owner is alive'
without fails M_TAKE_OVER_NO_A     lock safety "$c" 'taking over from the dead does not set A'
without fails M_FAST_DROPS_A       lock safety "$c" 'the fast path drops A'
without fails M_READER_CLEARS_A    lock safety "$c" 'an unlock that has not written clears A'
without fails M_UNLOCK_NO_VERSION  lock safety "$c" 'unlock does not move the version'
without fails M_SNAP_IGNORES_A     lock safety "$c" 'a snapshot does not look at A'
without fails M_SNAP_IGNORES_OWNER lock safety "$c" 'a snapshot does not look at the owner'
without fails M_REAP_SLOT_FIRST    lock safety '-DREUSE -DPLAIN -DROUNDS=1 -DMAXCRASH=1 -DMAXSTOP=1' 'reaping clears the slot before the word'
without fails M_REAP_GEN_LATE      lock safety '-DREUSE -DROUNDS=1 -DMAXCRASH=1' 'reaping compares the generation read late instead of the token read again'
without holds M_TAKE_OVER_NO_VERSION lock safety "$c" 'A is enough for snapshots; kept so that Wait tells of a death'
without holds M_FAST_DROPS_W       lock safety "$p -DTRY" 'W on a free word is only set by one who wakes up soon; kept, it costs nothing'

without fails M_RING_FIRST version safety '-DROUNDS=2' 'ring before moving the version'
without fails M_NO_COUNT   version safety '-DROUNDS=2' 'ringing clears the bit without counting'
without fails M_WAKE_NONE  version safety '-DROUNDS=1' 'ringing wakes nobody'
without fails M_WAKE_ONE   version safety '-DROUNDS=1' 'ringing wakes one only'
without fails M_NO_ARM     version safety '-DROUNDS=1' 'a waiter does not arm the bell'
without fails M_NO_REARM   version safety '-DROUNDS=2' 'woken for nothing, it does not arm it again'
without fails M_NO_RECHECK version safety '-DROUNDS=2' 'it does not look at the version again'
without fails M_NO_SLICE   version safety '-DROUNDS=1 -DMAXCRASH=1' 'sleeps are not bounded'

without fails M_NO_STILL_LINKED presence safety '' 'after locking, no look whether the file is still there'
without fails M_PROBE_EXCLUSIVE presence safety '' 'probes take an exclusive lock'
without fails M_LEAVE_FIRST     presence safety '' 'presence ends before the slot is given back'

without fails M_NO_STILL_LINKED      lifetime safety '-DROUNDS=1' 'no still-linked check after taking the door'
without fails M_NO_STILL_LINKED_LAST lifetime safety '-DROUNDS=1' 'nor when detaching'
without fails M_CLEAR_AFTER_SCAN     lifetime safety '-DROUNDS=1' 'detach clears its slot after looking for others'
without fails M_NO_RESCAN            lifetime safety '-DROUNDS=1' 'no second look under the door'
without fails M_NO_LOOK_AGAIN        lifetime safety '-DROUNDS=1' 'who lets go of the door does not look again'
without fails M_CLAIM_LATE           lifetime safety '-DROUNDS=1' 'the slot is claimed after letting go of the door'
without fails M_NO_STATE_CHECK       lifetime safety '-DROUNDS=1 -DMAXCRASH=1' 'the state is not looked at'
without fails M_NO_PROBE             lifetime safety '-DROUNDS=1 -DMAXCRASH=1' 'nobody asks whether those in the slots are alive'
without fails SECOND=ANYWHERE        lifetime safety '-DROUNDS=1' 'a second attachment takes any slot without the door'
exit $failed
