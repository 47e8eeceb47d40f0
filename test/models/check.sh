#!/usr/bin/env bash
# Explores every state of the models. check.sh: all of it, an hour, up to 8 GB.
# check.sh quick: less of each, a minute. Installs nothing; exit status 3: a tool is missing.
. "$(dirname "$0")/common.sh"
quick=0; [ "${1:-}" = quick ] && quick=1 optimize=-O1

# check SIZE NAME MODEL KIND DEFINES; SIZE: both, full, quick
check() {
	case $1 in full) [ $quick = 0 ] || return ;; quick) [ $quick = 1 ] || return ;; esac
	explore "$3" "$4" "$5"
	[ "$result" = ok ] || failed=1
	printf '%-4s %11s states %4ss  %s\n' "$([ "$result" = ok ] && echo ok || echo FAIL)" "$states" "$seconds" "$2"
	[ "$result" = ok ] || printf '     %s: %s %s\n' "$result" "$3" "$5"
}

check quick 'lock: no waiter sleeps for ever (2 rounds each, one gives up)'       lock safety '-DPLAIN -DROUNDS=2 -DMAXCANCEL=1'
check full  'lock: no waiter sleeps for ever (2 rounds each, two give up, TryLock)' lock safety '-DPLAIN -DROUNDS=2 -DMAXCANCEL=2 -DTRY'
check both  'lock: a waiter that was woken in vain backs off, two give up'          lock safety '-DPLAIN -DROUNDS=1 -DMAXCANCEL=2 -DBACKOFF'
check quick 'lock: a crash, a snapshot'                                             lock safety '-DROUNDS=1 -DMAXCRASH=1 -DSNAP'
check full  'lock: a crash, a stopped process, one gives up, TryLock, snapshot'     lock safety '-DROUNDS=1 -DMAXCRASH=1 -DMAXSTOP=1 -DMAXCANCEL=1 -DTRY -DSNAP'
check full  'lock: two crashes, a snapshot'                                         lock safety '-DROUNDS=1 -DMAXCRASH=2 -DSNAP'
check quick 'lock: slots claimed again, a crash'                                    lock safety '-DREUSE -DPLAIN -DROUNDS=1 -DMAXCRASH=1'
check both  'lock: the same, owners are asked for at any time'                      lock safety '-DALWAYS_SLICE -DREUSE -DPLAIN -DROUNDS=1 -DMAXCRASH=1'
check full  'lock: the same, two rounds'                                            lock safety '-DALWAYS_SLICE -DREUSE -DPLAIN -DROUNDS=2 -DMAXCRASH=1'
check full  'lock: slots claimed again, two crashes'                                lock safety '-DREUSE -DROUNDS=1 -DMAXCRASH=2'
check full  'lock: slots claimed again, a crash, a stopped process'                 lock safety '-DREUSE -DPLAIN -DROUNDS=1 -DMAXCRASH=1 -DMAXSTOP=1'
check both  'lock: two attachments of one process, which does not see its own locks' lock safety '-DTWINS -DALWAYS_SLICE -DPLAIN -DROUNDS=1'
check both  'lock: a Lock that is late for the Detach of its attachment'            lock safety '-DLATE -DPLAIN -DN=2 -DROUNDS=2'
check full  'lock: the same, with a writer and a crash'                             lock safety '-DLATE -DN=2 -DROUNDS=2 -DMAXCRASH=1'
check both  'lock: every run ends, a crash'                                         lock live   '-DLIVE -DPLAIN -DROUNDS=1 -DMAXCRASH=1'
check full  'lock: every run ends, a crash, a stopped process'                      lock live   '-DLIVE -DPLAIN -DROUNDS=1 -DMAXCRASH=1 -DMAXSTOP=1'
check both  'lock: a starving waiter is not starved by the others'                  lock live   '-DPLAIN -DSTARVE'
check quick 'version: no lost wake-up'                                              version safety '-DALONE'
check full  'version: no lost wake-up, two rounds'                                  version safety '-DALONE -DROUNDS=2'
check full  'version: two processes, no lost wake-up'                               version safety ''
check full  'version: a context ends: it wakes no other process'                    version safety '-DMAXCANCEL=1'
check full  'version: a writer dies'                                                version safety '-DMAXCRASH=1'
check both  'lifetime: no crash: nothing is left'                                   lifetime safety '-DROUNDS=1 -DN=2 -DMOVES=1'
check quick 'lifetime: two processes, a crash'                                      lifetime safety '-DN=2 -DROUNDS=1 -DMAXCRASH=1'
check full  'lifetime: three processes, no crash'                                   lifetime safety '-DROUNDS=1'
check full  'lifetime: two processes, two rounds, two crashes, second attachments'  lifetime safety '-DN=2 -DROUNDS=2 -DMAXCRASH=2 -DMOVES=1'
check full  'lifetime: three processes, two crashes'                                lifetime safety '-DROUNDS=1 -DMAXCRASH=2'
check full  'lifetime: the reference count is never too low'                        lifetime safety '-DREFS -DN=2 -DROUNDS=2 -DMAXCRASH=1'
check full  'lifetime: attach fails half-way, a crash'                              lifetime safety '-DROUNDS=1 -DFAILS -DMAXCRASH=1'
check full  'lifetime: sibling files'                                               lifetime safety '-DSIBLINGS -DROUNDS=1 -DMOVES=1'
check full  'lifetime: a sticky store'                                              lifetime safety '-DSTICKY -DROUNDS=1 -DMAXCRASH=1'
exit $failed
