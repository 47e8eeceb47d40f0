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
r='-DREUSE -DPLAIN -DROUNDS=2 -DMAXCRASH=1'
a='-DALWAYS_SLICE -DREUSE -DPLAIN -DROUNDS=2'
late='-DLATE -DPLAIN -DN=2 -DROUNDS=2'
without fails M_NO_WAKE            lock safety "$p" 'unlock wakes no waiter'
without fails M_WAKE_FIRST         lock safety "$p" 'unlock wakes before it swaps the word'
without fails M_TAKER_DROPS_W      lock safety "$p" 'a taker that has slept does not set W'
without fails M_MARK_NO_W          lock safety "$p" 'a waiter sleeps without W'
without fails M_SLEEP_NO_COMPARE   lock safety "$p" 'a waiter sleeps whatever the word is now'
without fails M_GIVE_UP_NO_WAKE    lock safety "$p" 'a waiter that gives up passes no wake on (costs the others a time slice)'
without fails M_GIVE_UP_KEEPS_S    lock safety "$p" 'a waiter that gives up leaves the word reserved'
without fails M_TAKER_KEEPS_S      lock safety "$p" 'a taker leaves the word reserved'
without fails M_TRY_HONOURS_S      lock safety "$c" 'TryLock honours the starving bit of a dead waiter'
without fails M_S_IGNORED          lock live '-DPLAIN -DSTARVE' 'any waiter takes a reserved word'
without fails M_UNLOCK_DROPS_S     lock live '-DPLAIN -DSTARVE' 'unlock drops the starving bit'
without fails M_NO_SLICE           lock safety "-DROUNDS=1 -DPLAIN -DMAXCRASH=1" 'sleeps are not bounded'
without fails M_NO_PROBE           lock live '-DLIVE -DPLAIN -DROUNDS=1 -DMAXCRASH=1' 'no waiter asks whether the owner is alive'
without fails M_TAKE_OVER_NO_A     lock safety "$c" 'a take-over does not set A'
without fails M_FAST_DROPS_A       lock safety "$c" 'an uncontended Lock drops A'
without fails M_READER_CLEARS_A    lock safety "$c" 'an unlock that has not written clears A'
without fails M_UNLOCK_NO_VERSION  lock safety "$c" 'unlock does not move the version'
without fails M_SNAP_IGNORES_A     lock safety "$c" 'a snapshot does not look at A'
without fails M_SNAP_IGNORES_OWNER lock safety "$c" 'a snapshot does not look at the owner'
without fails M_NO_RECOVER         lock safety "$r" 'a claim does not recover the slot of a dead process'
without fails NO_COUNT             lock safety "$a" 'a Detach does not count: a take-over robs the next owner of the slot'
without fails M_RECOVER_NO_COUNT   lock safety "$a -DMAXCRASH=1" 'recovering a slot does not count: the same after a death'
without fails M_RELEASE_SLOT_FIRST lock safety "$r" 'a detach releases the slot lock before it clears the slot'
without fails M_NO_TABLE           lock safety '-DTWINS -DALWAYS_SLICE -DPLAIN -DROUNDS=1' 'a process does not remember its own slots, and robs itself'
without fails NO_COUNT             lock safety "$late" 'a Detach does not count: a late Lock takes the word for a slot of another process'
without holds M_TAKE_OVER_NO_VERSION lock safety "$c" 'A is enough for snapshots; kept so that Wait tells of a death'
without holds M_FAST_DROPS_W       lock safety "$p -DTRY" 'W on a free word is only set by a waiter that wakes soon; kept, it costs nothing'
without holds M_RECOVER_NO_WAKE    lock safety "$r" 'recovering wakes no waiter (costs a time slice)'

without fails M_SIGNAL_FIRST    version safety '-DALONE' 'signal before moving the version'
without fails M_NO_COUNT        version safety '-DALONE' 'a signal clears the bit without counting'
without fails M_WAKE_NONE       version safety '-DALONE' 'a signal wakes no process'
without fails M_WAKE_ONE        version safety '' 'a signal wakes one process only'
without fails M_NO_ARM          version safety '-DALONE' 'a waiter does not arm the event word'
without fails M_NO_REARM        version safety '-DALONE' 'woken for no reason, it does not arm it again'
without fails M_NO_RECHECK      version safety '-DALONE' 'it does not look at the version again'
without fails M_SLEEP_NO_COMPARE version safety '-DALONE' 'it sleeps whatever the event word is now'
without fails M_FOLLOWER_STAYS  version safety '-DALONE -DMAXCANCEL=1' 'no goroutine takes the place of a watcher that gives up'
without fails M_NO_INTERRUPT    version safety '-DALONE -DMAXCANCEL=1' 'the end of a context does not interrupt the sleep'
without fails M_INTERRUPT_ONCE  version safety '-DALONE -DMAXCANCEL=1' 'an interrupt that comes before the sleep is lost'
without fails M_CANCEL_WAKES_ALL version safety '-DMAXCANCEL=1' 'the end of a context wakes other processes'
without fails M_NO_SLICE        version safety '-DALONE -DMAXCRASH=1' 'sleeps are not bounded'

l='-DROUNDS=1'
without fails M_NO_STILL_LINKED      lifetime safety "$l" 'no look whether the file is still linked'
without fails M_NO_STILL_LINKED_LAST lifetime safety "$l" 'nor when detaching'
without fails M_ASK_FIRST            lifetime safety "$l" 'a detach asks before it releases its slot lock'
without fails M_RELEASE_SLOT_FIRST   lifetime safety "$l" 'a detach releases the slot lock before it clears the slot'
without fails M_NO_ASK_AGAIN         lifetime safety "$l" 'no second question with the file lock held'
without fails M_NO_LOOK_AGAIN_DETACH lifetime safety '-DOPS=1 -DROUNDS=1' 'a detach that was not the last does not look again'
without fails M_NO_LOOK_AGAIN_EXISTS lifetime safety "$l" 'a create that reports "exists" does not look again'
without fails M_CLAIM_LATE           lifetime safety "$l" 'the slot is claimed after the file lock is released'
without fails M_NO_STATE             lifetime safety '-DROUNDS=1 -DMAXCRASH=1 -DOPS=7' 'the state is not looked at'
without fails M_NO_ASK               lifetime safety '-DROUNDS=1 -DMAXCRASH=1' 'an attach does not ask whether a process is alive'
without fails M_FORGETS_OWN          lifetime safety '-DROUNDS=1 -DMOVES=1' 'a detach forgets that its process is attached twice'
without fails M_EMPTY_STAYS          lifetime safety "$l" 'an attach leaves an empty file alone'
without fails M_SECOND_UNLOCKED      lifetime safety '-DSIBLINGS -DMOVES=1 -DOPS=1 -DROUNDS=1' 'sibling files: a second attachment claims its slot without the file lock'
without fails M_REFS_UP_LATE         lifetime safety '-DREFS -DN=2 -DROUNDS=2 -DMAXCRASH=1' 'the reference count is raised after the slot is written'
without fails M_TRUNCATE_IN_USE      lifetime safety '-DSTICKY -DROUNDS=1 -DMAXCRASH=1' 'a file that is in use is truncated where it cannot be unlinked'
exit $failed
