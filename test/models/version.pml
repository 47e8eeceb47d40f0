/* Waiting until the version moves. See README.md.
 *
 * The version is a part of the lock word, so waiters do not sleep on it; they sleep on the event word.
 * Bit 0: armed (a process may be asleep on it); the rest counts the signals. A process that moves the
 * version (an unlock that may have written, a take-over, a recovery) signals after that. Two can be
 * signalling at once: the lock is free again by then.
 *
 * Process 1 has several goroutines that wait. One of them, the watcher, sleeps on the event word;
 * the others wait until it tells them. Process 2 has one goroutine. A context may end: that interrupts
 * the sleep of its own process, and no other.
 *
 * A compare-and-swap whose decision depends on the word alone is one step here.
 * Labels name the steps; the code names the same steps in its comments.
 */
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef WAITERS
#define WAITERS 2          /* goroutines 1, 2, ... of process 1 */
#endif
#ifndef ROUNDS
#define ROUNDS 1           /* of each */
#endif
#ifndef MAXCRASH
#define MAXCRASH 0         /* writers, and process 2; for others the death of process 1 is no different */
#endif
#ifndef MAXCANCEL
#define MAXCANCEL 0        /* contexts that end */
#endif
/* ALONE: there is no process 2. */

byte version = 0;
byte event = 0;
bool sleeping[3];          /* the process is asleep on the event word */
byte crashes = 0, ended_writers = 0;
/* of each process: */
byte watcher[3];           /* which goroutine is the watcher */
byte changes[3];           /* the channel that the others wait on: changes when it is closed */
byte waited_for[3];        /* with which version they began to wait; NONE: there are no others */
#define NONE 255
byte ticket[3];            /* counts the interrupts */
bool in_sleep[3];          /* the watcher is in Sleep */
bool must_leave[3];        /* an interrupt waits until the watcher has left it */
bool interrupting[3];      /* holds the lock that guards the watched contexts */
/* of each goroutine that waits: */
bool ended[WAITERS+2];     /* its context */
bool watched[WAITERS+2];   /* the end of its context interrupts the process's sleep */
#if MAXCANCEL > 0
byte signals = 0;          /* only for the checks */
#endif

#define MAY_CRASH (crashes < MAXCRASH && p != 1)
#define OR_DIE :: MAY_CRASH -> goto crash
#define ARMED (event & 1)
#define LEAVE_SLEEP in_sleep[p] = 0; must_leave[p] = 0
/* nothing will move any more: the end of this run */
#define OVER (ended_writers == WRITERS && version == since && !ended[me])

/* closes the channel: all look at the version again */
#define TELL \
	if \
	:: waited_for[p] != NONE -> changes[p]++; waited_for[p] = NONE \
	:: else \
	fi

inline wake_all() {            /* only if the version has moved */
#if MAXCANCEL > 0
	signals++; assert(signals <= version);
#endif
#ifdef M_WAKE_ONE
	if
	:: sleeping[1] -> sleeping[1] = 0
	:: sleeping[2] -> sleeping[2] = 0
	:: else
	fi
#else
	sleeping[1] = 0; sleeping[2] = 0
#endif
}

proctype Writer(byte p) {
	byte r = 0;
again:
	if :: r >= ROUNDS -> goto fin :: else -> r++ fi;
#ifdef M_SIGNAL_FIRST
	goto signal;
#endif
unlock:
	if OR_DIE
	:: version++
	fi;
#ifdef M_SIGNAL_FIRST
	goto again;
#endif
signal:
	if OR_DIE
#ifdef M_SIGNAL_FIRST
	:: atomic { !ARMED -> goto unlock }
#else
	:: atomic { !ARMED -> goto again }
#endif
#ifdef M_NO_COUNT
	:: atomic { ARMED -> event = event - 1 }
#else
	:: atomic { ARMED -> event = event + 1 }
#endif
	fi;
#ifndef M_WAKE_NONE
wake:
	if OR_DIE
#ifdef M_SIGNAL_FIRST
	:: atomic { sleeping[1] = 0; sleeping[2] = 0; goto unlock }
#else
	:: atomic { wake_all() }
#endif
	fi;
#endif
	goto again;
crash:
	crashes++;
fin:
	atomic { r = 0; ended_writers++ }
}

proctype Waiter(byte me; byte p) {
	byte r = 0, since = 0, e = 0, c = 0, t = 0;
again:
	atomic { if :: r >= ROUNDS || ended[me] -> goto fin :: else -> r++; since = version fi };
look:
	if OR_DIE
	:: atomic { version != since -> goto again }
	:: version == since
	fi;
	if OR_DIE
	:: atomic { watcher[p] == 0 -> watcher[p] = me; goto watch }
	:: watcher[p] != 0
	fi;
next_change:	/* the channel; it is new if the others began to wait with another version */
	if OR_DIE
	:: atomic { true -> if :: waited_for[p] != since -> TELL; waited_for[p] = since :: else fi; c = changes[p] }
	fi;
#ifndef M_NO_LOOK_AGAIN
	if OR_DIE
	:: atomic { version != since -> c = 0; goto again }
	:: version == since
	fi;
#endif
follow:
	if OR_DIE
#ifndef M_FOLLOWER_STAYS
	:: atomic { watcher[p] == 0 -> watcher[p] = me; c = 0; goto watch }
#endif
	:: atomic { changes[p] != c -> c = 0; goto look }
	:: atomic { ended[me] -> c = 0; goto fin }
	:: atomic { OVER -> c = 0; goto fin }
	fi;

watch:	/* the others are told if they began to wait with another version: this watcher would sleep through their change */
#ifndef M_START_NO_TELL
	if OR_DIE
	:: atomic { waited_for[p] != since -> TELL }
	:: waited_for[p] == since
	fi;
#endif
	if OR_DIE
	:: atomic { !interrupting[p] -> watched[me] = 1 }
	fi;
arm:	/* after the ticket */
	if OR_DIE
	:: atomic { t = ticket[p];
#ifndef M_NO_ARM
		event = event | 1;
#endif
		e = event }
	fi;
recheck:	/* after arming: a process that moves the version from here on finds the event word armed */
	if OR_DIE
#ifndef M_NO_RECHECK
	:: atomic { version != since -> goto unwatch }
	:: atomic { version == since && ended[me] -> goto unwatch }
	:: version == since && !ended[me]
#else
	:: atomic { ended[me] -> goto unwatch }
	:: !ended[me]
#endif
	fi;
#ifdef M_TICKET_LATE
	if OR_DIE
	:: t = ticket[p]
	fi;
#endif
listen:	/* Sleep: where the system can wait for one word only, it looks at the ticket before */
	if OR_DIE
	:: in_sleep[p] = 1
	fi;
	if OR_DIE
#ifdef M_NO_TICKET
	:: true
#else
	:: ticket[p] == t
	:: atomic { ticket[p] != t -> LEAVE_SLEEP; goto arm }
#endif
	fi;
	if OR_DIE
#ifdef M_SLEEP_NO_COMPARE
	:: sleeping[p] = 1
#else
	:: atomic { event == e -> sleeping[p] = 1 }
	:: atomic { event != e -> LEAVE_SLEEP; goto arm }
#endif
	fi;
	if OR_DIE
#ifdef M_NO_REARM                  /* woken for no reason, it sleeps on without arming the event word again */
	:: atomic { !sleeping[p] -> LEAVE_SLEEP; t = ticket[p]; e = event; goto recheck }
#else
	:: atomic { !sleeping[p] -> LEAVE_SLEEP; goto arm }
#endif
#ifndef M_NO_SLICE
	:: atomic { sleeping[p] && crashes > 0 && version != since -> sleeping[p] = 0; LEAVE_SLEEP; goto arm }   /* sleeps are bounded */
#endif
	:: atomic { OVER -> sleeping[p] = 0; LEAVE_SLEEP; t = 0; e = 0; goto fin }
	fi;

unwatch:
	if OR_DIE
	:: atomic { !interrupting[p] -> watched[me] = 0; t = 0; e = 0 }
	fi;
resign:	/* if its context has ended, another one becomes the watcher; if the version has moved, all return */
	if OR_DIE
	:: watcher[p] = 0
	fi;
tell:
	if OR_DIE
	:: atomic { version == since -> goto fin }
	:: atomic { version != since -> TELL; goto again }
	fi;
crash:
	atomic { crashes++; sleeping[p] = 0; watched[me] = 0; LEAVE_SLEEP };
fin:
	atomic { r = 0; c = 0; t = 0; e = 0; since = 0 }
}

/* Contexts end: first the flag, then the function that interrupts the sleep. */
proctype Contexts() {
	byte n = 0, g = 0, p = 0;
again:
	atomic {
		g = 0; p = 0;
		if
		:: n >= MAXCANCEL -> goto fin
		:: n < MAXCANCEL -> n++
		fi;
		if
		:: g = 1; p = 1
		:: WAITERS > 1 -> g = WAITERS; p = 1
#ifndef ALONE
		:: g = WAITERS + 1; p = 2
#endif
		fi;
		ended[g] = 1
	};
#ifdef M_CANCEL_WAKES_ALL          /* as if the version had moved */
	atomic { event = event | 1; event = event + 1; wake_all(); goto again };
#endif
#ifndef M_NO_INTERRUPT
	atomic { !interrupting[p] -> interrupting[p] = 1 };
	if
	:: watched[g]
	:: !watched[g] -> goto let_go
	fi;
interrupt:	/* until the watcher has left Sleep */
	ticket[p]++;
	must_leave[p] = in_sleep[p];
	do
	:: atomic { must_leave[p] && sleeping[p] -> sleeping[p] = 0 }
#ifdef M_INTERRUPT_ONCE            /* whether the watcher sleeps already or not */
	:: true -> break
#else
	:: !must_leave[p] -> break
#endif
	od;
let_go:
	interrupting[p] = 0;
#endif
	goto again;
fin:
	skip
}

init {
	byte k = 1;
	atomic {
		waited_for[1] = NONE; waited_for[2] = NONE;
		do
		:: k > WRITERS -> break
		:: else -> run Writer(0); k++
		od;
		k = 1;
		do
		:: k > WAITERS -> break
		:: else -> run Waiter(k, 1); k++
		od;
#ifndef ALONE
		run Waiter(WAITERS + 1, 2);
#endif
		run Contexts()
	}
}
