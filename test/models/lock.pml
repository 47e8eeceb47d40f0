/* The lock word: taken by compare-and-swap; waiters sleep on it. See README.md.
 *
 * Each attached process holds the kernel's lock of its slot (slk). The kernel releases it when the
 * process dies; a dying process's locks vanish one after the other, in any order.
 *
 * Word: owner (its slot; 0: the lock is free)
 *       W  waiters: a waiter may be asleep on the word
 *       S  starving: only a waiter that has waited for more than 1 ms may take the word
 *       A  abandoned: the owner died; stays until an unlock that may have written
 *       detach count: each detach adds one
 *       version: unlocks that may have written, and deaths of owners
 *
 * A compare-and-swap whose decision depends on the word alone is one step here: the loop around it
 * tries until the word that it saw is the word that it replaces. Where other memory is read in
 * between (is the attachment detached?), or a lock is tried, it is two.
 *
 * Time: a sleep that no wake ends lasts until the sleeper is starving; a starving one sleeps for
 * ever, unless a process has crashed or was stopped. So a wake that is lost without a crash shows as
 * a deadlock.
 *
 * Labels name the steps; the code names the same steps in its comments.
 */
#ifndef N
#define N 3
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef MAXCRASH
#define MAXCRASH 0         /* processes that die, at any step */
#endif
#ifndef MAXSTOP
#define MAXSTOP 0          /* processes that are stopped for good, at any step */
#endif
#ifndef MAXCANCEL
#define MAXCANCEL 0        /* waiters that give up, at any moment of waiting */
#endif
#ifndef MAXNOTIFY
#define MAXNOTIFY 1        /* with NOTIFY: how often */
#endif
/* NOTIFY: a process moves the version at any moment, without the lock.
   PLAIN: no process writes. TRY: rounds may be a TryLock. SNAP: rounds may be a snapshot.
   BACKOFF: a waiter that was woken in vain sleeps once without asking to be woken.
   REUSE: NSLOT slots for N processes: slots are claimed, released, recovered and claimed again in
   every round, without the file lock (as second attachments are; the file lock only allows less).
   LATE: REUSE, and a goroutine of process 1 that is late: it locks and unlocks by an attachment that
   is detached meanwhile. Process 1 has another attachment that lasts, so the word is the real one.
   TWINS: processes 1 and 2 are two attachments of one process, which does not see its own locks. */
#ifdef LATE
#define REUSE
#endif
#ifndef NSLOT
#ifdef REUSE
#define NSLOT 2
#else
#define NSLOT N
#endif
#endif

#define OWNER 3
#define OWN(w) ((w) & OWNER)
#define W 4
#define S 8
#define A 16
#define LOW(w) ((w) & 511)     /* the half of the word that waiters sleep on */
#define COUNT 480
#ifdef NO_COUNT                /* there is no detach count. Or: it has wrapped around */
#define DETACH_ONE 0
#else
#define DETACH_ONE 32
#endif
#define VER(w) ((w) / 512)
#ifdef NO_VERSION              /* the same for the version */
#define VERSION 0
#else
#define VERSION 512
#endif

int word = 0;
byte slk[NSLOT+1];         /* which process holds the slot lock */
byte slot[NSLOT+1];        /* which process has written the slot; 0: free */
bool sleeping[4];          /* asleep in the kernel, on the word */
byte crashes = 0, stops = 0, cancels = 0;
byte d0 = 0, d1 = 0;       /* the data: two words, equal unless half-written */
#ifdef LATE
/* the attachments of process 1, in the order in which they are made */
byte newest = 0, newest_slot = 0;
byte detached = 0;         /* up to which one the detached flag is set */
byte calls = 0;            /* calls of the late goroutine that are counted in */
byte locks_of_late = 0;    /* by which attachment the late goroutine has the lock; only for the checks */
#define LATE_ME 4
#endif
/* only for the checks */
bool alive[5];
bool halted[N+1];
byte inside = 0;           /* which process has the lock */
bool died = 0;             /* an owner died, and no process has written and unlocked since */
byte done = 0;

#ifdef LATE
#define MAY_CRASH (crashes < MAXCRASH && me != 1)
#else
#define MAY_CRASH (crashes < MAXCRASH)
#endif
#define OR_DIE \
	:: MAY_CRASH -> goto crash \
	:: (stops < MAXSTOP) -> goto stop

#ifdef M_S_IGNORED
#define RESERVED(w) false
#else
#define RESERVED(w) ((w) & S)
#endif
#ifdef M_TRY_HONOURS_S
#define TRY_TAKES(w) (OWN(w) == 0 && !RESERVED(w))
#else
#define TRY_TAKES(w) (OWN(w) == 0)
#endif
#ifdef M_FAST_DROPS_W
#define FAST_KEEPS (~(OWNER | W))
#else
#ifdef M_FAST_DROPS_A
#define FAST_KEEPS (~(OWNER | A))
#else
#define FAST_KEEPS (~OWNER)
#endif
#endif

#if NSLOT == 1
#define ALLHALTED halted[slk[1]]
#else
#if NSLOT == 2
#define ALLHALTED (halted[slk[1]] && halted[slk[2]])
#else
#define ALLHALTED (halted[slk[1]] && halted[slk[2]] && halted[slk[3]])
#endif
#endif
/* does trying to lock the slot succeed? A process keeps a table of its own slots for that: the kernel
   does not tell a process of its own locks */
#if defined(TWINS) && defined(M_NO_TABLE)
#define CLAIMABLE(o) (slk[o] == 0 || (me <= 2 && slk[o] <= 2))
#else
#define CLAIMABLE(o) (slk[o] == 0)
#endif
#ifdef STRICT_STOP
#define OWNER_STOPPED (inside != 0 && halted[inside])
#else                          /* or a process is stopped while it takes over from a dead one */
#define OWNER_STOPPED (OWN(word) != 0 && slk[OWN(word)] != 0 && halted[slk[OWN(word)]])
#endif

/* when a waiter becomes starving, when it asks whether the owner is alive, when a sleep ends by itself */
#ifdef STARVE                  /* only the last process ever is starving; the others just keep coming */
#define TIME_PASSES over = (me == N)
#define SLICE sleeping[me]
#else
#ifdef ALWAYS_SLICE            /* sleeps end, and owners are asked for, without a crash too, and not only after a sleep that timed out */
#define TIME_PASSES if :: over = 1 :: over = 1; slice = 1 :: skip fi
#define SLICE (sleeping[me] && over && !OWNER_STOPPED)
#else
#define TIME_PASSES if :: over = 1 :: skip fi
#ifdef M_NO_SLICE
#define SLICE false
#else
#ifdef LIVE
#define SLICE (sleeping[me] && over && crashes + stops > 0 && !OWNER_STOPPED)
#else                          /* a waiter that would find nothing changed sleeps on: so that a hang is a deadlock */
#define SLICE (sleeping[me] && over && crashes + stops > 0 && !OWNER_STOPPED && \
	(OWN(word) == 0 || CLAIMABLE(OWN(word)) || (word & (W | S)) != (W | S)))
#endif
#endif
#endif
#endif

/* what must hold when a process takes the lock: no live process (a stopped one is alive) has it, the
   slot that the word names is its own, and it is told if the data may be half-written */
#define ENTER \
	assert(inside == 0 || !alive[inside]); \
	assert((word & A) || (d0 == d1 && !died)); \
	assert(slk[id] == me && OWN(word) == id); \
	inside = me; w = 0; n = 0; slept = 0; slice = 0; woken = 0; owes = 0; nap = 0

/* that a waiter may be asleep; and if it is starving, that too. A waiter that was woken though the
   word is left for a starving one passes the wake on */
#ifdef M_MARK_NO_W
#define MARK n = word
#else
#define MARK n = word | W
#endif
#define MARK_WORD MARK; if :: over -> n = n | S :: else fi; \
	had = (woken && OWN(word) == 0 && !over); word = n; n = LOW(n); w = 0; nap = 0; owes = 0

inline wake_one() {            /* any one of the sleepers */
	if
	:: sleeping[1] -> sleeping[1] = 0
	:: sleeping[2] -> sleeping[2] = 0
	:: sleeping[3] -> sleeping[3] = 0
	:: else
	fi
}

/* what an unlock makes of the word */
#ifdef M_UNLOCK_DROPS_S
#define UNLOCK_CLEARS (OWNER | W | S)
#else
#ifdef M_UNLOCK_DROPS_COUNT
#define UNLOCK_CLEARS (OWNER | W | COUNT)
#else
#define UNLOCK_CLEARS (OWNER | W)
#endif
#endif
#ifdef M_READER_CLEARS_A
#define READER_CLEARS A
#else
#define READER_CLEARS 0
#endif
#ifdef M_UNLOCK_NO_VERSION
#define WRITER_ADDS 0
#else
#define WRITER_ADDS VERSION
#endif
#define FREE_WORD \
	had = ((word & W) != 0); word = word & ~UNLOCK_CLEARS; \
	if \
	:: writes -> word = (word & ~A) + WRITER_ADDS; died = 0 \
	:: !writes -> word = word & ~READER_CLEARS \
	fi

#define COUNT_DETACH word = (word & ~COUNT) | ((word + DETACH_ONE) & COUNT)

proctype P(byte me) {
	byte r = 0;
	byte id = 0;               /* my slot */
	int w = 0, n = 0;
	bool slept = 0;            /* in this call, at all */
	bool woken = 0;            /* a wake has ended the last sleep */
	bool owes = 0;             /* a wake has ended a sleep since this waiter last asked to be woken */
	bool nap = 0;              /* the last sleep was a backoff */
	bool slice = 0;            /* it is time to ask whether the owner is alive */
	bool over = 0;             /* starving */
	bool writes = 0;           /* this call may write: Lock, Update; not View */
	bool had = 0;              /* a wake is to follow the swap */
	bool try = 0;              /* this call is TryLock */
	byte s = 0, t = 0;         /* s: the slot that I am claiming */

#ifdef REUSE
claim:	/* a slot, as attach does */
	atomic { id = 0; s = 0; if :: r >= ROUNDS -> goto fin :: else -> r++ fi };
	if OR_DIE
	:: atomic { slk[1] == 0 -> s = 1; slk[s] = me }
#if NSLOT > 1
	:: atomic { slk[2] == 0 -> s = 2; slk[s] = me }
#endif
#if NSLOT > 2
	:: atomic { slk[3] == 0 -> s = 3; slk[s] = me }
#endif
	:: atomic { ALLHALTED -> goto fin }         /* the slots are full of stopped processes */
	fi;
#ifdef M_RECOVER_SLOT_FIRST
	if OR_DIE
	:: atomic { assert(slot[s] == 0 || !alive[slot[s]]); slot[s] = 0 }
	fi;
#endif
#ifdef M_RECOVER_IF_TAKEN          /* the word is looked at only if the slot says that a dead process left it */
	if OR_DIE
	:: slot[s] == 0 -> goto publish
	:: slot[s] != 0
	fi;
#endif
#ifndef M_NO_RECOVER
recover_word:	/* whatever the slot says */
	if OR_DIE
	:: atomic { OWN(word) == s -> assert(inside != 0 && !alive[inside]); inside = 0;
		had = ((word & W) != 0); word = ((word & ~(OWNER | W)) | A) + VERSION;
		if :: had :: else -> goto recover_slot fi }
	:: OWN(word) != s -> goto recover_slot
	fi;
#ifndef M_RECOVER_NO_WAKE
	if OR_DIE
	:: atomic { wake_one(); had = 0 }
	fi;
#endif
recover_slot:
#ifndef M_RECOVER_SLOT_FIRST
#ifndef M_RECOVER_NO_COUNT         /* the dead process may have had the lock without moving the version */
	if OR_DIE
	:: atomic { slot[s] != 0 -> COUNT_DETACH }
	:: slot[s] == 0 -> goto publish
	fi;
#endif
	if OR_DIE
	:: atomic { assert(slot[s] == 0 || !alive[slot[s]]); slot[s] = 0 }
	fi;
#endif
#endif
publish:
	if OR_DIE
	:: atomic { assert(slk[s] == me); slot[s] = me; id = s; s = 0; had = 0;
#ifdef LATE
		if :: me == 1 -> newest = r; newest_slot = id :: else fi
#endif
	}
	fi;
#else
	id = me;
#endif

again:
	atomic {
		w = 0; n = 0; slept = 0; woken = 0; owes = 0; nap = 0; slice = 0; over = 0; had = 0; writes = 0; try = 0;
#if !defined(STARVE) && !defined(REUSE)
		if :: r >= ROUNDS -> goto fin :: else -> r++ fi;
#endif
#ifdef NO_UNLOCK
		if :: me == 1 -> goto detach :: else fi;
#endif
		if
		:: writes = 0
#ifndef PLAIN
		:: writes = 1
#endif
#ifdef TRY
		:: try = 1; writes = 1; goto try_lock
#endif
#ifdef SNAP
		:: goto snapshot
#endif
#ifdef LATE
		:: me == 1 -> goto detach                   /* the late goroutine has the attachment to itself */
#endif
		fi
	};
fast:
	if OR_DIE
	:: atomic { OWN(word) == 0 && !RESERVED(word) -> word = (word & FAST_KEEPS) | id; ENTER; goto write }
	:: atomic { !(OWN(word) == 0 && !RESERVED(word)) -> skip }
	fi;

slow:
	if OR_DIE
	:: atomic { OWN(word) == 0 && (!RESERVED(word) || over) ->	/* [take] */
#ifndef M_TAKER_DROPS_W
		if :: slept -> word = word | W :: else fi;
#else
		word = word & ~W;
#endif
#ifdef M_TAKER_KEEPS_S
		word = word | id;
#else
		word = (word & ~S) | id;
#endif
		ENTER; goto write }
	:: atomic { OWN(word) != 0 && slice -> w = word; slice = 0; goto probe }
	:: atomic { !(OWN(word) == 0 && (!RESERVED(word) || over)) && !(OWN(word) != 0 && slice) ->
#ifdef BACKOFF
		if
		:: woken && OWN(word) != 0 && !nap -> n = LOW(word); nap = 1; goto sleep
		:: else
		fi;
#endif
		MARK_WORD; if :: had :: else -> goto sleep fi }
	:: atomic { cancels < MAXCANCEL -> cancels++; goto give_up }
	fi;
	goto hand_on;

probe:	/* is the owner's slot held? */
#ifdef M_NO_PROBE
	goto mark;
#endif
	if OR_DIE
	:: CLAIMABLE(OWN(w))
	:: !CLAIMABLE(OWN(w)) -> goto mark                /* alive */
	fi;
take_over:	/* the word changes for good before another attachment has the slot: a detach counts itself, a claim
	   takes the word from the dead. So as long as it is what it was before the probe, it names the dead. */
	if OR_DIE
	:: atomic { word != w -> goto mark }
	:: atomic { word == w ->
		word = (w & ~(OWNER | S)) | id | W;
#ifndef M_TAKE_OVER_NO_A
		word = word | A;
#endif
#ifndef M_TAKE_OVER_NO_VERSION
		word = word + VERSION;
#endif
		ENTER; goto write }
	fi;

mark:	/* the word that was asked about is the word that the waiter sleeps on */
	if OR_DIE
	:: atomic { try -> w = 0; goto done_one }          /* TryLock does not wait */
	:: atomic { !try && word == w -> MARK_WORD; if :: had :: else -> goto sleep fi }
	:: atomic { !try && word != w -> w = 0; goto slow }
	fi;
hand_on:	/* the word was left for a starving waiter */
	if OR_DIE
#ifndef M_NO_HAND_ON
	:: atomic { wake_one(); had = 0 }
#else
	:: had = 0
#endif
	fi;
sleep:
	if OR_DIE
#ifdef M_SLEEP_NO_COMPARE
	:: atomic { sleeping[me] = 1; slept = 1; woken = 0; n = 0 }
#else
	:: atomic { LOW(word) == n -> sleeping[me] = 1; slept = 1; woken = 0; n = 0 }
	:: atomic { LOW(word) != n -> slept = 1; woken = 0; n = 0; TIME_PASSES; goto slow }
#endif
	fi;
asleep:
	if
	:: MAY_CRASH -> goto crash
	:: (stops < MAXSTOP) -> goto stop                /* may still be woken: that wake is lost */
	:: atomic { !sleeping[me] -> woken = 1; owes = 1; TIME_PASSES; goto slow }
	:: atomic { SLICE -> sleeping[me] = 0; slice = 1; TIME_PASSES; goto slow }
#ifdef BACKOFF
	:: atomic { nap && sleeping[me] -> sleeping[me] = 0; TIME_PASSES; goto slow }
#endif
#ifndef STARVE
	:: atomic { sleeping[me] && !over -> sleeping[me] = 0; over = 1; slice = 1; goto slow }
	:: atomic { OWNER_STOPPED -> sleeping[me] = 0; r = ROUNDS; goto detach }    /* nobody takes over from it: the end of this run */
#endif
	:: atomic { cancels < MAXCANCEL -> cancels++; if :: sleeping[me] -> sleeping[me] = 0 :: else -> owes = 1 fi; goto give_up }
	fi;

give_up:	/* a waiter that was woken, and has not asked to be woken again, passes the wake on */
	if OR_DIE
	:: atomic {
		had = owes;
#ifndef M_GIVE_UP_KEEPS_S
		word = word & ~S;
#endif
		if :: had :: else -> goto done_one fi
	   }
	fi;
#ifndef M_GIVE_UP_NO_WAKE
	if OR_DIE
	:: atomic { wake_one(); had = 0 }
	fi;
#endif
	goto done_one;

#ifdef TRY
try_lock:
	if OR_DIE
	:: atomic { TRY_TAKES(word) -> word = (word & FAST_KEEPS) | id; ENTER; goto write }
	:: atomic { OWN(word) != 0 -> w = word; goto probe }
	:: atomic { OWN(word) == 0 && !TRY_TAKES(word) -> goto done_one }
	fi;
#endif

write:
#ifdef STARVE
	if :: me == N -> progress: skip :: me != N fi;
#endif
	if OR_DIE
	:: atomic { !writes -> goto unlock }
	:: atomic { writes -> d0 = (d0 + 1) % 4 }
	fi;
	if OR_DIE
	:: d1 = d0
	fi;
unlock:
	if OR_DIE
#ifdef M_WAKE_FIRST
	:: atomic { (word & W) -> wake_one(); had = 0 }
	:: !(word & W)
	fi;
	if OR_DIE
#endif
	:: atomic { assert(OWN(word) == id && inside == me); inside = 0; FREE_WORD; if :: had :: else -> goto done_one fi }
#ifdef REUSE
	:: goto detach                             /* or it leaves that to Detach */
#endif
	fi;
#if !defined(M_NO_WAKE) && !defined(M_WAKE_FIRST)
wake:
	if OR_DIE
	:: atomic { wake_one(); had = 0 }
	fi;
#endif
	goto done_one;

#ifdef SNAP
snapshot:
	if OR_DIE
#ifdef M_SNAP_IGNORES_A
	:: atomic { OWN(word) == 0 -> w = word }
	:: atomic { OWN(word) != 0 -> goto done_one }
#else
	:: atomic { OWN(word) == 0 && !(word & A) -> w = word }
	:: atomic { OWN(word) != 0 || (word & A) -> goto done_one }         /* takes the lock, in the end */
#endif
	fi;
	s = d0;
	t = d1;
	/* consistent if the lock is free and the version is the same */
	atomic {
		if
#ifdef M_SNAP_IGNORES_OWNER
		:: VER(word) == VER(w) -> assert(s == t)
#else
		:: OWN(word) == 0 && VER(word) == VER(w) -> assert(s == t)
#endif
		:: else
		fi;
		s = 0; t = 0; w = 0; goto done_one
	};
#endif

done_one:
#ifndef REUSE
	goto again;
#endif
detach:
#ifdef REUSE
	w = 0; slept = 0; woken = 0; nap = 0; over = 0; slice = 0; n = 0; try = 0;
#ifdef LATE
#ifndef M_FLAG_LATE
	if :: me == 1 -> detached = newest :: else fi;
#endif
	(me != 1 || calls == 0);                   /* the last call in progress ends the attachment */
#endif
release_word:	/* frees the word if this attachment owns it; and counts, in the same swap */
	if OR_DIE
	:: atomic { OWN(word) == id ->
#ifdef LATE
		assert(inside == me || (me == 1 && inside == LATE_ME)); locks_of_late = 0;
#else
		assert(inside == me);
#endif
		inside = 0; FREE_WORD; COUNT_DETACH; if :: had :: else -> goto released fi }
#ifdef M_COUNT_IF_OWNED
	:: OWN(word) != id -> goto released
#else
	:: atomic { OWN(word) != id -> COUNT_DETACH; goto released }
#endif
	fi;
	if OR_DIE
	:: atomic { wake_one(); had = 0 }
	fi;
released:
#if defined(LATE) && defined(M_FLAG_LATE)
	if :: me == 1 -> detached = newest :: else fi;
#endif
#ifdef M_RELEASE_SLOT_FIRST
	if OR_DIE
	:: slk[id] = 0
	fi;
#endif
clear_slot:
	if OR_DIE
	:: atomic { assert(slot[id] == me); slot[id] = 0 }
	fi;
#ifndef M_RELEASE_SLOT_FIRST
release_slot:
	if OR_DIE
	:: atomic { assert(slk[id] == me); slk[id] = 0 }
	fi;
#endif
	goto claim;
#else
	goto fin;
#endif
stop:
	atomic { stops++; halted[me] = 1 };
	goto over_and_out;
crash:
	atomic { crashes++; alive[me] = 0; sleeping[me] = 0; if :: inside == me -> died = 1 :: else fi;
		r = 0; w = 0; n = 0; slept = 0; woken = 0; owes = 0; nap = 0; slice = 0; over = 0; writes = 0; had = 0; try = 0; s = 0; t = 0; id = 0 };
vanish:
	if
	:: atomic { slk[1] == me -> slk[1] = 0; goto vanish }
#if NSLOT > 1
	:: atomic { slk[2] == me -> slk[2] = 0; goto vanish }
#endif
#if NSLOT > 2
	:: atomic { slk[3] == me -> slk[3] = 0; goto vanish }
#endif
	:: else
	fi;
fin:
	atomic {
		done++;
		/* when all have ended and none by force, the lock is free for the next process, at once */
		assert(!(done == N && crashes + stops == 0 && (OWN(word) != 0 || (word & S))))
		/* TryLock takes a free word that no process waits for */
		assert(!(done == N && OWN(word) == 0 && !TRY_TAKES(word)))
	};
over_and_out:
	atomic { r = 0; id = 0; w = 0; n = 0; slept = 0; woken = 0; owes = 0; nap = 0; slice = 0; over = 0; writes = 0; had = 0; try = 0; s = 0; t = 0 }
}

#ifdef LATE
/* A goroutine of process 1. Its uncontended Lock and Unlock are not counted in, so Detach does not
   wait for them. DETACHED(a): what its look at the detached flag says. */
#define DETACHED(a) (detached >= (a))
proctype Late() {
	byte r = 0, a = 0, id = 0;
	int w = 0, last = 0;
	bool had = 0;
	bool writes = 0;
late_again:
	atomic { w = 0; last = 0; had = 0; a = 0; id = 0; if :: r >= ROUNDS -> goto late_fin :: else -> r++ fi };
	atomic { newest > 0 -> a = newest; id = newest_slot };
late_load:
	w = word;
	if
	:: OWN(w) == 0 && !RESERVED(w)
	:: else -> goto late_again                 /* the slow way is counted in */
	fi;
#ifndef M_NO_LOOK
late_look:
	if
	:: !DETACHED(a)
	:: DETACHED(a) -> goto late_again
	fi;
#endif
late_fast:
	if
	:: atomic { word == w ->
		assert(inside == 0 || !alive[inside]);
		assert(slk[id] == 1 && newest == a && newest_slot == id);       /* the slot is still this attachment's */
		word = w | id; last = word; inside = LATE_ME; locks_of_late = a }
	:: word != w -> goto late_again
	fi;
	if
	:: !DETACHED(a)
	:: DETACHED(a) -> goto late_again          /* Detach releases the lock, or has done so */
	fi;
#ifdef NO_UNLOCK                   /* it leaves that to Detach */
	goto late_again;
#endif
late_unlock:	/* the word as it was taken, if no other process has touched it */
	if
	:: atomic { word == last && !(last & (W | A)) -> assert(inside == LATE_ME && locks_of_late == a); inside = 0; locks_of_late = 0;
		word = word & ~UNLOCK_CLEARS; goto late_again }
	:: word != last || (last & (W | A))
	fi;
#ifndef M_UNLOCK_UNCOUNTED
	if
	:: atomic { !DETACHED(a) -> calls++ }
	:: DETACHED(a) -> goto late_again          /* ErrDetached */
	fi;
#endif
	if
	:: atomic { OWN(word) == id -> assert(inside == LATE_ME && locks_of_late == a); inside = 0; locks_of_late = 0; FREE_WORD }
	:: OWN(word) != id
	fi;
	if
	:: atomic { had -> wake_one(); had = 0 }
	:: !had
	fi;
#ifndef M_UNLOCK_UNCOUNTED
	calls--;
#endif
	goto late_again;
late_fin:
	skip
}
#endif

#ifdef NOTIFY
proctype Notifier() {
	byte r = 0;
	int w = 0;
notify:
#ifdef M_NOTIFY_IN_STEPS
	w = word;
	word = w + VERSION;
#else
	word = word + VERSION;
#endif
	atomic { r++; w = 0; if :: r < MAXNOTIFY -> goto notify :: else -> r = 0 fi }
}
#endif

init {
	byte k = 1;
	atomic {
		alive[4] = 1;
		do
		:: k > N -> break
		:: else -> alive[k] = 1;
#ifndef REUSE
			slk[k] = k; slot[k] = k;
#endif
			run P(k); k++
		od;
#ifdef LATE
		run Late();
#endif
#ifdef NOTIFY
		run Notifier();
#endif
		skip
	}
}
