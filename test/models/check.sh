#!/usr/bin/env bash
# Explores every state of the models. check.sh: all of it, half an hour, up to 11 GB.
# check.sh quick: less of each, a minute. Installs nothing; exit status 3: a tool is missing.
. "$(dirname "$0")/common.sh"
quick=0; [ "${1:-}" = quick ] && quick=1 optimize=-O1 compress=

# check SIZE NAME MODEL KIND DEFINES; SIZE: both, full, quick
check() {
	case $1 in full) [ $quick = 0 ] || return ;; quick) [ $quick = 1 ] || return ;; esac
	explore "$3" "$4" "$5"
	[ "$result" = ok ] || failed=1
	printf '%-4s %11s states %4ss  %s\n' "$([ "$result" = ok ] && echo ok || echo FAIL)" "$states" "$seconds" "$2"
	[ "$result" = ok ] || printf '     %s: %s %s\n' "$result" "$3" "$5"
}

check quick 'lock: no waiter sleeps for ever (2 rounds each, one gives up)'         lock safety '-DPLAIN -DROUNDS=2 -DMAXCANCEL=1'
check full  'lock: no waiter sleeps for ever (2 rounds each, two give up, TryLock)' lock safety '-DPLAIN -DROUNDS=2 -DMAXCANCEL=2 -DTRY'
check both  'lock: a waiter that was woken in vain backs off, two give up'          lock safety '-DPLAIN -DROUNDS=1 -DMAXCANCEL=2 -DBACKOFF'
check quick 'lock: a crash, a snapshot'                                             lock safety '-DROUNDS=1 -DMAXCRASH=1 -DSNAP'
check full  'lock: a crash, a stopped process, TryLock, snapshot'                   lock safety '-DROUNDS=1 -DMAXCRASH=1 -DMAXSTOP=1 -DTRY -DSNAP'
check full  'lock: a crash, one gives up, TryLock, snapshot'                        lock safety '-DROUNDS=1 -DMAXCRASH=1 -DMAXCANCEL=1 -DTRY -DSNAP'
check full  'lock: two crashes, a snapshot'                                         lock safety '-DROUNDS=1 -DMAXCRASH=2 -DSNAP'
check quick 'lock: slots claimed again, a crash'                                    lock safety '-DREUSE -DPLAIN -DROUNDS=1 -DMAXCRASH=1'
check both  'lock: the same, owners are asked for at any time'                      lock safety '-DALWAYS_SLICE -DREUSE -DPLAIN -DROUNDS=1 -DMAXCRASH=1'
check full  'lock: the same, two rounds'                                            lock safety '-DALWAYS_SLICE -DREUSE -DPLAIN -DROUNDS=2 -DMAXCRASH=1'
check full  'lock: the same, two crashes; the version does not help'                lock safety '-DALWAYS_SLICE -DREUSE -DPLAIN -DNO_VERSION -DROUNDS=2 -DMAXCRASH=2'
check full  'lock: slots claimed again, readers and writers, two crashes'           lock safety '-DREUSE -DROUNDS=1 -DMAXCRASH=2'
check full  'lock: slots claimed again, a crash, a stopped process'                 lock safety '-DREUSE -DPLAIN -DROUNDS=1 -DMAXCRASH=1 -DMAXSTOP=1'
check both  'lock: two attachments of one process, which does not see its own locks' lock safety '-DTWINS -DALWAYS_SLICE -DPLAIN -DROUNDS=1'
check both  'lock: a Lock and an Unlock that are late for the Detach of their attachment' lock safety '-DLATE -DPLAIN -DN=2 -DROUNDS=2'
check both  'lock: the same, Detach releases the lock'                              lock safety '-DLATE -DNO_UNLOCK -DPLAIN -DN=2 -DROUNDS=2'
check full  'lock: the same with writers and a crash'                               lock safety '-DLATE -DN=2 -DROUNDS=2 -DMAXCRASH=1'
check both  'lock: Notify at any time, a crash, a snapshot, TryLock'                lock safety '-DNOTIFY -DMAXNOTIFY=2 -DN=2 -DROUNDS=2 -DMAXCRASH=1 -DSNAP -DTRY'
check both  'lock: every run ends, a crash'                                         lock live   '-DLIVE -DPLAIN -DROUNDS=1 -DMAXCRASH=1'
check full  'lock: every run ends, a crash, a stopped process'                      lock live   '-DLIVE -DPLAIN -DROUNDS=1 -DMAXCRASH=1 -DMAXSTOP=1'
check both  'lock: a starving waiter is not starved by the others'                  lock live   '-DPLAIN -DSTARVE'
check both  'version: no lost wake-up, two processes'                               version safety '-DWAITERS=1'
check both  'version: no lost wake-up, two goroutines of a process'                 version safety '-DALONE -DWRITERS=1 -DROUNDS=2'
check both  'version: a context ends'                                               version safety '-DALONE -DWRITERS=1 -DMAXCANCEL=1'
check full  'version: three goroutines of a process'                                version safety '-DALONE -DWAITERS=3 -DWRITERS=1'
check full  'version: a context ends, two rounds'                                   version safety '-DALONE -DWRITERS=1 -DROUNDS=2 -DMAXCANCEL=1'
check full  'version: a context ends: it wakes no other process'                    version safety '-DWAITERS=1 -DROUNDS=1 -DMAXCANCEL=1'
check full  'version: two crashes'                                                  version safety '-DWAITERS=1 -DMAXCRASH=2'
check full  'version: a crash, two rounds'                                          version safety '-DWAITERS=1 -DWRITERS=1 -DROUNDS=2 -DMAXCRASH=1'
check both  'lifetime: no crash: nothing is left'                                   lifetime safety '-DN=2 -DROUNDS=2'
check full  'lifetime: the same, three processes'                                   lifetime safety '-DROUNDS=1'
check quick 'lifetime: two rounds, a crash'                                         lifetime safety '-DN=2 -DROUNDS=2 -DMAXCRASH=1'
check full  'lifetime: two rounds, two crashes, second attachments'                 lifetime safety '-DN=2 -DROUNDS=2 -DMAXCRASH=2 -DMOVES=1'
check full  'lifetime: the reference count is never too low'                        lifetime safety '-DREFS -DN=2 -DROUNDS=2 -DMAXCRASH=2 -DMOVES=1'
check both  'lifetime: calls fail half-way, a crash'                                lifetime safety '-DN=2 -DROUNDS=2 -DFAILS -DMAXCRASH=1'
check quick 'lifetime: sibling files, a crash, second attachments'                  lifetime safety '-DSIBLINGS -DN=2 -DROUNDS=1 -DMAXCRASH=1 -DMOVES=1'
check full  'lifetime: sibling files, two crashes, second attachments'              lifetime safety '-DSIBLINGS -DN=2 -DROUNDS=2 -DMAXCRASH=2 -DMOVES=1'
check full  'lifetime: sibling files, three processes'                              lifetime safety '-DSIBLINGS -DROUNDS=1 -DMOVES=1 -DOPS=5'
check quick 'lifetime: a sticky store, a crash'                                     lifetime safety '-DSTICKY -DN=2 -DROUNDS=1 -DMAXCRASH=1'
check full  'lifetime: a sticky store, two crashes, second attachments'             lifetime safety '-DSTICKY -DN=2 -DROUNDS=2 -DMAXCRASH=2 -DMOVES=1'
check full  'lifetime: three processes, a crash'                                    lifetime safety '-DROUNDS=1 -DMAXCRASH=1'
check full  'lifetime: three processes, two crashes, no removes and sweeps'         lifetime safety '-DROUNDS=1 -DMAXCRASH=2 -DOPS=7'
check full  'lifetime: three processes, two rounds of create-or-attach, a crash'    lifetime safety '-DROUNDS=2 -DOPS=1 -DMAXCRASH=1'
check full  'lifetime: three processes, second attachments, a crash'                lifetime safety '-DROUNDS=1 -DOPS=9 -DMOVES=1 -DMAXCRASH=1'
check both  'grow: two processes, a crash'                                          grow safety '-DN=2 -DMAXCRASH=1'
check full  'grow: three processes, a crash'                                        grow safety '-DMOVES=1 -DMAXCRASH=1'
check full  'grow: two attachments each, files that are used again, two crashes'    grow safety '-DSTICKY -DN=2 -DROUNDS=2 -DMAXCRASH=2'
check both  'stream: two readers, one joins; no lost wake-up'                       stream safety ''
check full  'stream: three readers, two join'                                       stream safety '-DN=3 -DCAP=1 -DM=2'
check both  'stream: a reader dies'                                                 stream safety '-DCAP=2 -DM=3 -DMAXCRASH=1'
check both  'stream: a writer dies'                                                 stream safety '-DCAP=2 -DM=3 -DWCRASH=1'
check full  'stream: a reader dies, a larger ring'                                  stream safety '-DMAXCRASH=1'
check full  'stream: a reader and a writer die'                                     stream safety '-DCAP=2 -DM=3 -DMAXCRASH=1 -DWCRASH=1'
check full  'stream: a copy of the newest message; a writer dies'                   stream safety '-DLATEST -DN=1 -DWCRASH=1'
check both  'stream: a group, a member dies'                                        stream safety '-DGROUP -DCAP=1 -DM=2 -DMAXCRASH=1'
check full  'stream: a group, both members die'                                     stream safety '-DGROUP -DCAP=1 -DM=2 -DMAXCRASH=2'
check full  'stream: a group, a larger ring'                                        stream safety '-DGROUP'
check both  'stream: a group, a member joins later, one dies, one leaves'           stream safety '-DGROUP -DJOIN=1 -DLEAVE=1 -DCAP=1 -DM=2 -DMAXCRASH=1'
check full  'stream: the same, both members and a writer die'                       stream safety '-DGROUP -DJOIN=1 -DLEAVE=1 -DCAP=1 -DM=2 -DMAXCRASH=2 -DWCRASH=1'
check full  'stream: a group, a member joins later, a larger ring'                  stream safety '-DGROUP -DJOIN=1 -DLEAVE=1 -DCAP=2 -DM=3'
check full  'stream: a group of three, one joins later'                             stream safety '-DGROUP -DN=3 -DJOIN=1 -DCAP=1 -DM=2'
check full  'stream: a group of three, one joins later, one dies'                   stream safety '-DGROUP -DN=3 -DJOIN=1 -DCAP=1 -DM=1 -DMAXCRASH=1'
exit $failed
