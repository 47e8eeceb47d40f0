/* The bell: sleeping until the version moves on. See README.md.
 *
 * The version is a part of the lock word, so it is not what one sleeps on; the bell is a word of
 * its own. Bit 0: armed (somebody may be asleep on it); the rest counts the times it rang.
 *
 * Who moves the version (an unlock that may have written, a take-over, a reaping) rings after that.
 * Two writers can be ringing at once: the lock is free again by then.
 *
 * Labels name the steps; the code names the same steps in its comments.
 */
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef WAITERS
#define WAITERS 2
#endif
#ifndef ROUNDS
#define ROUNDS 3           /* of each */
#endif
#ifndef MAXCRASH
#define MAXCRASH 0
#endif
#define N (WRITERS + WAITERS)

byte version = 0;
byte bell = 0;
bool sleeping[N+1];
byte crashes = 0, gone = 0;

#define OR_DIE :: (crashes < MAXCRASH) -> goto crash
#define ARMED(b) ((b) & 1)

proctype Writer(byte me) {
	byte r = 0, b = 0, k = 0;
again:
	if :: r >= ROUNDS -> goto fin :: else -> r++ fi;
#ifdef M_RING_FIRST
	if OR_DIE
	:: goto ring
	fi;
#endif
unlock:
	if OR_DIE
	:: version++
	fi;
#ifdef M_RING_FIRST
	goto again;
#endif
ring:
	if OR_DIE
	:: b = bell
	fi;
	if OR_DIE
	:: atomic { !ARMED(b) -> b = 0;
#ifdef M_RING_FIRST
		goto unlock
#else
		goto again
#endif
	   }
#ifdef M_NO_COUNT
	:: atomic { ARMED(b) && bell == b -> bell = b - 1; b = 0 }
#else
	:: atomic { ARMED(b) && bell == b -> bell = b + 1; b = 0 }
#endif
	:: atomic { ARMED(b) && bell != b -> goto ring }
	fi;
#ifndef M_WAKE_NONE
wake_all:
	if OR_DIE
	:: atomic {
		k = 1;
		do
		:: k > N -> break
#ifdef M_WAKE_ONE
		:: k <= N && sleeping[k] -> sleeping[k] = 0; break
		:: k <= N && !sleeping[k] -> k++
#else
		:: else -> sleeping[k] = 0; k++
#endif
		od;
		k = 0 }
	fi;
#endif
#ifdef M_RING_FIRST
	goto unlock;
#else
	goto again;
#endif
crash:
	crashes++;
fin:
	gone++
}

proctype Waiter(byte me) {
	byte r = 0, since = 0, b = 0;
again:
	if :: r >= ROUNDS -> goto fin :: else -> r++ fi;
look:
	if OR_DIE
	:: atomic { version != since -> since = version; goto again }
	:: version == since
	fi;
arm:
	if OR_DIE
	:: b = bell
	fi;
	if OR_DIE
#ifdef M_NO_ARM
	:: true
#else
	:: ARMED(b)
	:: atomic { !ARMED(b) && bell == b -> bell = b | 1; b = b | 1 }
	:: atomic { !ARMED(b) && bell != b -> goto look }
#endif
	fi;
recheck:
#ifndef M_NO_RECHECK
	if OR_DIE
	:: atomic { version != since -> since = version; b = 0; goto again }
	:: version == since
	fi;
#endif
sleep:	/* futexWait */
	if OR_DIE
	:: atomic { bell == b -> sleeping[me] = 1; b = 0 }
	:: atomic { bell != b -> b = 0; goto look }
	fi;
	if OR_DIE
#ifdef M_NO_REARM                  /* woken for nothing, it sleeps on without arming the bell again */
	:: atomic { !sleeping[me] -> if :: version != since -> goto look :: else -> b = bell; goto recheck fi }
#else
	:: atomic { !sleeping[me] -> goto look }
#endif
#ifndef M_NO_SLICE
	:: atomic { sleeping[me] && crashes > 0 && version != since -> sleeping[me] = 0; goto look }   /* the slice ends */
#endif
	/* nothing moves any more: the end of this run */
	:: atomic { gone == WRITERS && version == since -> sleeping[me] = 0; b = 0; goto fin }
	fi;
crash:
	atomic { crashes++; sleeping[me] = 0 };
fin:
	skip
}

init {
	byte k = 1;
	atomic {
		do
		:: k > N -> break
		:: k <= WRITERS -> run Writer(k); k++
		:: k > WRITERS && k <= N -> run Waiter(k); k++
		od
	}
}
