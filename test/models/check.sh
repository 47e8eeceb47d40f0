#!/usr/bin/env bash
# Explores every state of the models. check.sh: all of it, some minutes, up to 8 GB.
# check.sh quick: less of each, some seconds. Installs nothing; exit status 3: a tool is missing.
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

check quick 'lock: nobody sleeps for ever (2 rounds each, one gives up)'    lock safety '-DPLAIN -DROUNDS=2 -DMAXCANCEL=1'
check full  'lock: nobody sleeps for ever (2 rounds each, two give up, TryLock)' lock safety '-DPLAIN -DROUNDS=2 -DMAXCANCEL=2 -DTRY'
check quick 'lock: a crash, a snapshot'                                     lock safety '-DROUNDS=1 -DMAXCRASH=1 -DSNAP'
check full  'lock: a crash, a stopped process, one gives up, TryLock, snapshot' lock safety '-DROUNDS=1 -DMAXCRASH=1 -DMAXSTOP=1 -DMAXCANCEL=1 -DTRY -DSNAP'
check full  'lock: two crashes, snapshot'                                   lock safety '-DROUNDS=1 -DMAXCRASH=2 -DSNAP'
check quick 'lock: slots claimed again, a crash'                            lock safety '-DREUSE -DPLAIN -DROUNDS=1 -DMAXCRASH=1'
check full  'lock: slots claimed again, two crashes'                        lock safety '-DREUSE -DROUNDS=1 -DMAXCRASH=2'
check full  'lock: slots claimed again, a crash, a stopped process'         lock safety '-DREUSE -DPLAIN -DROUNDS=1 -DMAXCRASH=1 -DMAXSTOP=1'
check both  'lock: every run ends, a crash'                                 lock live   '-DLIVE -DPLAIN -DROUNDS=1 -DMAXCRASH=1'
check full  'lock: every run ends, a crash, a stopped process'              lock live   '-DLIVE -DPLAIN -DROUNDS=1 -DMAXCRASH=1 -DMAXSTOP=1'
check both  'lock: who is overdue is not starved by those who are not'      lock live   '-DPLAIN -DSTARVE'
check both  'version: no lost wake-up'                                      version safety '-DROUNDS=2'
check full  'version: two crashes'                                          version safety '-DROUNDS=2 -DWAITERS=1 -DMAXCRASH=2'
check both  'presence: who is alive is not taken for dead, nor the reverse' presence safety ''
check both  'lifetime: no crash: nothing is left'                           lifetime safety '-DROUNDS=1'
check full  'lifetime: two crashes'                                         lifetime safety '-DROUNDS=1 -DMAXCRASH=2'
check full  'lifetime: two processes, two rounds, two crashes'              lifetime safety '-DN=2 -DROUNDS=2 -DMAXCRASH=2'
check full  'lifetime: three slots'                                         lifetime safety '-DROUNDS=1 -DS=3 -DMOVES=2'
check full  'lifetime: second attachments by the door too'                  lifetime safety '-DROUNDS=1 -DMAXCRASH=1 -DSECOND=BY_DOOR'
check full  'lifetime: second attachments anywhere, counted'                lifetime safety '-DROUNDS=1 -DSECOND=COUNTED'
exit $failed
